//! `bench fleet`: detached containers, one at a time, and what stays beside each of them.
//!
//! Images and state are on a new ext4 in memory. The contenders take turns; every container stays until the memory
//! has been measured.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bale_testkit::output_of;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use super::disk::{Daemon, Disk};
use super::inside::{OWN, PREPARED};
use super::measure::{Samples, Table, time, time_and_output, verdict};
use super::payload_rootfs;
use crate::run::{Failure, Result};
use crate::say;

const IMAGE: &str = "docker.io/bench/payload:1";

/// The tools with the image in their stores.
#[derive(Debug)]
struct Field {
    disk: Disk,
    socket: PathBuf,
    spec: PathBuf,
    _containerd: Daemon,
}

/// Measures and prints.
pub fn main(rounds: usize) -> Result<()> {
    let field = Field::prepare()?;
    let [mut bale, mut podman, mut ctr] = [(); 3].map(|()| Samples::default());
    for round in 0..=rounds {
        let times = [
            time(field.bale().args([
                "run",
                "-d",
                "--name",
                &format!("fleet-{round}"),
                "--net",
                "none",
                IMAGE,
            ]))?,
            time(field.podman().args([
                "run",
                "-d",
                "--name",
                &format!("fleet-{round}"),
                "--network",
                "none",
                IMAGE,
            ]))?,
            time(field.ctr().args(["run", "-d", "--config"]).arg(&field.spec).arg(format!("fleet-{round}")))?,
        ];
        // The first round warms the caches and does not count.
        if round > 0 {
            [&mut bale, &mut podman, &mut ctr]
                .into_iter()
                .zip(times)
                .for_each(|(samples, time)| samples.add_ms(time));
        }
    }
    let kept = ["bale", "conmon", "containerd-shim"].map(private_kib_each);
    let first = field.first_instruction(rounds)?;
    field.remove_all()?;
    print(rounds, &[bale, podman, ctr], &kept, &first);
    Ok(())
}

fn print(rounds: usize, starts: &[Samples; 3], kept: &[Kept; 3], first: &[Samples; 2]) {
    say(&format!("\nfleet: detached containers of a small image, {rounds} rounds, one at a time"));
    let mut table =
        Table::new(&["", "run -d ms", "90th", "kept process", "private KiB each", "to first instruction ms"]);
    for (at, name) in ["bale", "podman", "ctr"].iter().enumerate() {
        let to_first =
            first.get(at).map_or_else(|| "-".to_owned(), |samples| format!("{:.1}", samples.median()));
        let [median, ninetieth] = [0.5, 0.9].map(|share| format!("{:.1}", starts[at].quantile(share)));
        let kept = &kept[at];
        let process = format!("{} ({})", kept.name, kept.processes);
        table.row(vec![
            (*name).into(),
            median,
            ninetieth,
            process,
            format!("{:.0}", kept.kib_each),
            to_first,
        ]);
    }
    table.print();
    let best = starts[1].median().min(starts[2].median());
    verdict("run -d, bale against the faster peer", starts[0].median() / best, 0.2, "x");
    verdict("private memory kept for each container", kept[0].kib_each, 500.0, "KiB");
    verdict("image present to first instruction", first[0].median(), 200.0, "ms");
    verdict("the same against podman", first[0].median() / first[1].median(), 0.5, "x");
}

impl Field {
    fn prepare() -> Result<Self> {
        let disk = Disk::fresh()?;
        let socket = Path::new(OWN).join("containerd.sock");
        let containerd =
            Daemon::containerd(&mut Command::new("containerd"), &disk.path("containerd"), &socket)?;
        let field = Self { spec: spec_for_ctr()?, disk, socket, _containerd: containerd };
        // podman sets a limit of processes, for which this mount of cgroup2 may have no controller.
        fs::write(Path::new(OWN).join("containers.conf"), "[containers]\npids_limit = 0\n")?;
        let archive = format!("{PREPARED}/payload.tar");
        output_of(field.bale().args(["load", "-i", &archive]))?;
        output_of(field.podman().args(["load", "-q", "-i", &archive]))?;
        Ok(field)
    }

    fn bale(&self) -> Command {
        let mut command = Command::new(format!("{OWN}/bin/bale"));
        command.arg("--root").arg(self.disk.path("bale"));
        command
    }

    fn podman(&self) -> Command {
        let mut command = Command::new("podman");
        command.arg("--root").arg(self.disk.path("podman")).args(["--runroot", "/run/bench/podman"]);
        command.args([
            "--storage-driver",
            "overlay",
            "--cgroup-manager",
            "cgroupfs",
            "--events-backend",
            "file",
        ]);
        command.env("CONTAINERS_CONF", format!("{OWN}/containers.conf"));
        command
    }

    fn ctr(&self) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(&self.socket);
        command
    }

    /// Times from the start of the command to the clock that the container's program reads first.
    fn first_instruction(&self, rounds: usize) -> Result<[Samples; 2]> {
        let mut samples = [Samples::default(), Samples::default()];
        for _ in 0..rounds {
            let commands = [
                self.bale().args(["run", "--rm", "--net", "none", IMAGE, "/bin/stamp"]),
                self.podman().args(["run", "--rm", "--network", "none", IMAGE, "/bin/stamp"]),
            ]
            .map(since_start);
            for (samples, took) in samples.iter_mut().zip(commands) {
                samples.add(took?);
            }
        }
        Ok(samples)
    }

    fn remove_all(&self) -> Result<()> {
        let listed = output_of(self.bale().args(["ps", "-aq"]))?;
        let listed = String::from_utf8_lossy(&listed).into_owned();
        output_of(self.bale().args(["rm", "-f"]).args(listed.split_whitespace()))?;
        output_of(self.podman().args(["rm", "-f", "-t", "0", "--all"]))?;
        let tasks = output_of(self.ctr().args(["tasks", "ls", "-q"]))?;
        for task in String::from_utf8_lossy(&tasks).lines() {
            output_of(self.ctr().args(["tasks", "rm", "-f", task]))?;
        }
        Ok(())
    }
}

/// Writes a config for ctr: its own default asks for CPU shares, for which there may be no controller here.
fn spec_for_ctr() -> Result<PathBuf> {
    let dir = Path::new(OWN).join("ctr");
    payload_rootfs(&Path::new(OWN).join("bin/payload"), &dir.join("rootfs"))?;
    output_of(Command::new("runc").arg("spec").current_dir(&dir))?;
    let file = dir.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&file)?)?;
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["/bin/stay"]);
    config["root"] = json!({"path": dir.join("rootfs"), "readonly": true});
    fs::write(&file, config.to_string())?;
    Ok(file)
}

/// Runs a command whose container prints the monotonic clock; returns the milliseconds until then.
#[allow(clippy::cast_precision_loss, reason = "a difference of seconds in nanoseconds")]
fn since_start(command: &mut Command) -> Result<f64> {
    let now = clock_gettime(ClockId::Monotonic);
    let began = now.tv_sec * 1_000_000_000 + now.tv_nsec;
    let (_, printed) = time_and_output(command)?;
    let stamp = printed.lines().find_map(|line| line.trim().parse::<i64>().ok());
    let stamp = stamp.ok_or_else(|| Failure::Words(format!("no time stamp in {printed:?}")))?;
    Ok((stamp - began) as f64 / 1e6)
}

/// What stays beside the containers.
#[derive(Debug)]
struct Kept {
    name: &'static str,
    processes: usize,
    kib_each: f64,
}

/// Sums the private memory of all processes of a name, and divides it by their number.
#[allow(clippy::cast_precision_loss, reason = "KiB of this machine")]
fn private_kib_each(name: &'static str) -> Kept {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let named = |pid: &u32| {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let program = line.split('\0').next().unwrap_or_default();
        Path::new(program).file_name().is_some_and(|file| file.to_string_lossy().starts_with(name))
    };
    let sizes: Vec<u64> = pids.filter(named).filter_map(private_kib).collect();
    let kib_each = sizes.iter().sum::<u64>() as f64 / sizes.len() as f64;
    Kept { name, processes: sizes.len(), kib_each }
}

fn private_kib(pid: u32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let lines = rollup.lines().filter(|line| line.starts_with("Private_"));
    Some(lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum())
}
