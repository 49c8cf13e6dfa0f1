//! `bench runtime`: what a container costs, beside crun, runc, youki where it is installed, and the floor.
//!
//! Default `runc spec` (six namespaces, seven mounts, masked paths) on one shared read-only root file system; every
//! binary is in memory; all take turns within each round, so that a machine that becomes slower does so for all. The
//! program in the container has no C library: its start would be added to everybody's time.
//!
//! | part | what |
//! |---|---|
//! | [`life`] | run with and without a filter; create, start, delete; exec; 32 at once; beside 500 others; memory |
//! | [`stages`] | what each stage takes, and the same of the floor |
//! | [`v1`] | beside runc on the host's own hierarchies, and a limit of 512 KiB |

mod life;
mod stages;
mod v1;

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use bale_testkit::output_of;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::{Value, json};

use super::inside::OWN;
use super::measure::{Samples, Table, time};
use super::payload_rootfs;
use crate::run::{Failure, Result, fail};
use crate::say;

pub use v1::main as main_v1;

/// Measures on cgroup v2, and prints.
pub fn main(rounds: usize) -> Result<()> {
    root_filesystem()?;
    let field = Field::find();
    say(&format!("\nruntime on cgroup v2, {rounds} rounds, median (90th percentile) in ms"));
    let alone = life::measure(&field, rounds)?;
    life::at_once(&field, rounds, &alone)?;
    life::beside_many(&field, rounds, &alone)?;
    life::memory(&field)?;
    stages::print(&field, rounds)
}

/// Makes the root file system of all containers.
fn root_filesystem() -> Result<()> {
    let (own, rootfs) = (Path::new(OWN), Path::new(OWN).join("rootfs"));
    payload_rootfs(&own.join("bin/payload"), &rootfs)?;
    fs::copy(own.join("bin/true"), rootfs.join("bin/true"))?;
    Ok(())
}

/// A runtime that is measured.
#[derive(Clone, Debug)]
pub struct Contender {
    name: &'static str,
    program: PathBuf,
    /// It prints the time of its stages.
    timings: bool,
}

/// Who is measured; the first is `bale`.
#[derive(Debug)]
pub struct Field {
    contenders: Vec<Contender>,
}

impl Field {
    /// Finds `bale` and which of the others the tree has.
    fn find() -> Self {
        let others = ["crun", "runc", "youki"].iter().filter_map(|name| {
            let places = ["/usr/bin", "/usr/sbin", "/usr/local/bin"].map(|dir| Path::new(dir).join(name));
            let program = places.into_iter().find(|path| path.is_file())?;
            Some(Contender { name, program, timings: false })
        });
        let bale = Contender { name: "bale", program: Path::new(OWN).join("bin/bale"), timings: false };
        Self { contenders: std::iter::once(bale).chain(others).collect() }
    }

    fn bale(&self) -> &Contender {
        &self.contenders[0]
    }
}

impl Contender {
    /// Prepares a call with a state folder of its own.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        if self.name == "bale" {
            command.arg("runc");
        }
        if self.timings {
            command.arg("--timings");
        }
        command.arg("--root").arg(Path::new(OWN).join("state").join(self.name));
        command
    }

    fn run(&self, bundle: &Path, id: &str) -> Command {
        let mut command = self.command();
        command.args(["run", "--bundle"]).arg(bundle).arg(id);
        command
    }

    fn create(&self, bundle: &Path, id: &str) -> Command {
        let mut command = self.command();
        command.args(["create", "--pid-file"]).arg(pid_file(id)).arg("--bundle").arg(bundle).arg(id);
        command
    }

    fn start(&self, id: &str) -> Command {
        let mut command = self.command();
        command.args(["start", id]);
        command
    }

    fn delete(&self, id: &str) -> Command {
        let mut command = self.command();
        command.args(["delete", id]);
        command
    }

    fn exec(&self, id: &str) -> Command {
        let mut command = self.command();
        command.args(["exec", id, "/bin/true"]);
        command
    }

    fn run_detached(&self, bundle: &Path, id: &str) -> Command {
        let mut command = self.command();
        command.args(["run", "--detach", "--bundle"]).arg(bundle).arg(id);
        command
    }

    /// Removes a container that stays.
    fn remove(&self, id: &str) -> Result<()> {
        let mut command = self.command();
        command.args(["delete", "--force", id]);
        time(&mut command).map(drop)
    }
}

fn pid_file(id: &str) -> PathBuf {
    Path::new(OWN).join(format!("{id}.pid"))
}

/// Opens the first process of a container that was created.
fn open_init(id: &str) -> Result<OwnedFd> {
    let text = fs::read_to_string(pid_file(id))?;
    let pid = text.trim().parse().ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| Failure::Words(format!("{id}: strange pid file {text:?}")))?;
    Ok(pidfd_open(pid, PidfdFlags::empty()).map_err(std::io::Error::from)?)
}

/// Waits for the end of a process.
fn await_end(process: &OwnedFd, id: &str) -> Result<()> {
    let limit = Timespec { tv_sec: 10, tv_nsec: 0 };
    match poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&limit)).map_err(std::io::Error::from)? {
        0 => fail(format!("{id} does not end")),
        _ => Ok(()),
    }
}

/// Prepares the floor, sealed, in cgroups below `cgroup`.
fn floor(cgroup: &Path) -> Command {
    let own = Path::new(OWN);
    let mut command = Command::new(own.join("bin/floor"));
    command.arg("-s").arg(own.join("rootfs")).arg(cgroup).arg("/bin/true");
    command
}

/// Makes a bundle that runs `program` in a cgroup below the bench's; `change` has the last word.
fn bundle(name: &str, program: &str, change: &dyn Fn(&mut Value)) -> Result<PathBuf> {
    let dir = Path::new(OWN).join("bundles").join(name);
    fs::create_dir_all(&dir)?;
    let file = dir.join("config.json");
    let _ = fs::remove_file(&file);
    output_of(Command::new("runc").arg("spec").current_dir(&dir))?;
    let mut config: Value = serde_json::from_slice(&fs::read(&file)?)?;
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!([program]);
    config["root"] = json!({"path": Path::new(OWN).join("rootfs"), "readonly": true});
    config["linux"]["cgroupsPath"] = json!(format!("/bale-bench/{name}"));
    change(&mut config);
    fs::write(&file, config.to_string())?;
    Ok(dir)
}

/// Adds Docker's default filter, for the capabilities that the config has, as `bale` writes it.
fn docker_filter() -> Result<Value> {
    let dir = Path::new(OWN).join("bundles/docker-filter");
    fs::create_dir_all(&dir)?;
    let file = dir.join("config.json");
    let _ = fs::remove_file(&file);
    let mut command = Command::new(Path::new(OWN).join("bin/bale"));
    output_of(command.args(["runc", "spec", "--seccomp", "docker", "--bundle"]).arg(&dir))?;
    let mut config: Value = serde_json::from_slice(&fs::read(&file)?)?;
    Ok(config["linux"]["seccomp"].take())
}

/// Starts all commands at once and returns the time until the last has ended.
fn time_all(commands: &mut [Command]) -> Result<Duration> {
    let words = Path::new(OWN).join("err");
    for command in commands.iter_mut() {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&words)?);
    }
    let began = std::time::Instant::now();
    let children = commands.iter_mut().map(Command::spawn).collect::<std::io::Result<Vec<_>>>()?;
    let mut failed = false;
    for mut child in children {
        failed |= !child.wait()?.success();
    }
    let took = began.elapsed();
    if failed {
        return fail(format!(
            "one of many at once failed: {}",
            fs::read_to_string(&words).unwrap_or_default()
        ));
    }
    Ok(took)
}

/// Measurements of one thing, by who did it.
#[derive(Clone, Debug, Default)]
pub struct Row {
    cells: Vec<(&'static str, Samples)>,
}

impl Row {
    fn add(&mut self, who: &'static str, took: Duration) {
        match self.cells.iter_mut().find(|(name, _)| *name == who) {
            Some((_, samples)) => samples.add_ms(took),
            None => {
                let mut samples = Samples::default();
                samples.add_ms(took);
                self.cells.push((who, samples));
            }
        }
    }

    fn append(&mut self, other: &Self) {
        for (who, samples) in &other.cells {
            match self.cells.iter_mut().find(|(name, _)| name == who) {
                Some((_, own)) => own.append(samples),
                None => self.cells.push((who, samples.clone())),
            }
        }
    }

    /// Prints who took how long, and how many times as long as the first.
    fn print(&self) {
        let mut table = Table::new(&["", "ms", "x the first"]);
        let first = self.cells.first().map_or("", |(name, _)| name);
        for (name, _) in &self.cells {
            table.row(vec![(*name).to_owned(), self.shown(name), format!("{:.2}", self.ratio(name, first))]);
        }
        table.print();
    }

    fn of(&self, who: &str) -> Option<&Samples> {
        self.cells.iter().find(|(name, _)| *name == who).map(|(_, samples)| samples)
    }

    fn median(&self, who: &str) -> f64 {
        self.of(who).map_or(f64::NAN, Samples::median)
    }

    /// Returns the median of one as a multiple of the other's.
    fn ratio(&self, who: &str, to: &str) -> f64 {
        self.median(who) / self.median(to)
    }

    fn shown(&self, who: &str) -> String {
        self.of(who).map_or_else(
            || "-".to_owned(),
            |samples| format!("{:.2} ({:.2})", samples.median(), samples.quantile(0.9)),
        )
    }
}
