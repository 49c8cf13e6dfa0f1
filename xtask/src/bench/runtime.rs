//! `bench runtime`: what a container costs, beside crun, runc and the floor.
//!
//! Default `runc spec` (six namespaces, seven mounts, masked paths, no seccomp) on one shared read-only root file
//! system; contenders take turns; every binary is in memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bale_testkit::output_of;
use serde_json::{Value, json};

use super::inside::{CGROUP, OWN};
use super::measure::{Samples, Table, time, verdict};
use super::payload_rootfs;
use crate::run::{Result, fail};
use crate::say;

/// Who is measured.
const CONTENDERS: [&str; 3] = ["bale", "crun", "runc"];

/// Measures and prints.
pub fn main(rounds: usize) -> Result<()> {
    let own = Path::new(OWN);
    payload_rootfs(&own.join("bin/payload"), &own.join("rootfs"))?;
    say(&format!("\nruntime, {rounds} rounds, median (90th percentile) in ms"));
    let run = run_true(rounds)?;
    let steps = create_start_delete(rounds)?;
    let exec = exec_true(rounds)?;
    print(&run, &steps, &exec);
    Ok(())
}

/// Prepares a call of a runtime with a state folder of its own.
fn runtime(name: &str) -> Command {
    let mut command = if name == "bale" {
        let mut command = Command::new(Path::new(OWN).join("bin/bale"));
        command.arg("runc");
        command
    } else {
        Command::new(name)
    };
    command.arg("--root").arg(Path::new(OWN).join("state").join(name));
    command
}

/// Makes a bundle that runs `program`; its cgroup is below the bench's.
fn bundle(name: &str, program: &str) -> Result<PathBuf> {
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
    fs::write(&file, config.to_string())?;
    Ok(dir)
}

/// `run` of `true`: the floor is first, then the contenders.
fn run_true(rounds: usize) -> Result<Vec<Samples>> {
    let mut samples = vec![Samples::default(); CONTENDERS.len() + 1];
    let bundles: Vec<PathBuf> =
        CONTENDERS.iter().map(|name| bundle(&format!("run-{name}"), "/bin/true")).collect::<Result<_>>()?;
    // The first round warms the caches and does not count.
    for round in 0..=rounds {
        let mut floor = Command::new(Path::new(OWN).join("bin/floor"));
        floor.arg("-s").arg(Path::new(OWN).join("rootfs")).arg(CGROUP).arg("/bin/true");
        let mut times = vec![time(&mut floor)?];
        for (name, bundle) in CONTENDERS.iter().zip(&bundles) {
            times.push(time(runtime(name).args(["run", "--bundle"]).arg(bundle).arg(format!("run-{name}")))?);
        }
        if round > 0 {
            samples.iter_mut().zip(times).for_each(|(samples, time)| samples.add_ms(time));
        }
    }
    Ok(samples)
}

/// `create`, `start` and `delete` of `true`, each a command; the wait for the program's end does not count.
fn create_start_delete(rounds: usize) -> Result<Vec<Samples>> {
    let mut samples = vec![Samples::default(); CONTENDERS.len()];
    for round in 0..=rounds {
        for (name, samples) in CONTENDERS.iter().zip(&mut samples) {
            let id = format!("steps-{name}");
            let bundle = bundle(&id, "/bin/true")?;
            let created = time(runtime(name).args(["create", "--bundle"]).arg(&bundle).arg(&id))?;
            let started = time(runtime(name).args(["start", &id]))?;
            wait_stopped(name, &id)?;
            let deleted = time(runtime(name).args(["delete", &id]))?;
            if round > 0 {
                samples.add_ms(created + started + deleted);
            }
        }
    }
    Ok(samples)
}

fn wait_stopped(name: &str, id: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        let state: Value = serde_json::from_slice(&output_of(runtime(name).args(["state", id]))?)?;
        if state["status"] == "stopped" {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    fail(format!("{name}: {id} does not end"))
}

/// `exec` of `true` in a container that stays.
fn exec_true(rounds: usize) -> Result<Vec<Samples>> {
    for name in CONTENDERS {
        let bundle = bundle(&format!("exec-{name}"), "/bin/stay")?;
        time(runtime(name).args(["run", "--detach", "--bundle"]).arg(&bundle).arg(format!("exec-{name}")))?;
    }
    let mut samples = vec![Samples::default(); CONTENDERS.len()];
    for round in 0..=rounds {
        for (name, samples) in CONTENDERS.iter().zip(&mut samples) {
            let took = time(runtime(name).args(["exec", &format!("exec-{name}"), "/bin/true"]))?;
            if round > 0 {
                samples.add_ms(took);
            }
        }
    }
    for name in CONTENDERS {
        time(runtime(name).args(["delete", "--force", &format!("exec-{name}")]))?;
    }
    Ok(samples)
}

fn print(run: &[Samples], steps: &[Samples], exec: &[Samples]) {
    let shown = |samples: &Samples| format!("{:.2} ({:.2})", samples.median(), samples.quantile(0.9));
    let mut table = Table::new(&["", "run true", "create + start + delete", "exec true"]);
    table.row(vec!["floor -s".into(), shown(&run[0]), "-".into(), "-".into()]);
    for (at, name) in CONTENDERS.iter().enumerate() {
        table.row(vec![(*name).into(), shown(&run[at + 1]), shown(&steps[at]), shown(&exec[at])]);
    }
    table.print();
    let [floor, bale, crun, _] = [0, 1, 2, 3].map(|at| run[at].median());
    verdict("run, bale against crun", bale / crun, 1.0, "x crun");
    say(&format!(
        "  run: {:.2} x floor, {:.2} x crun; steps: {:.2} x crun; exec: {:.2} x crun",
        bale / floor,
        bale / crun,
        steps[0].median() / steps[1].median(),
        exec[0].median() / exec[1].median()
    ));
}
