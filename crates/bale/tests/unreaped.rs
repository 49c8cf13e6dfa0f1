//! Below a process that inherits orphans and reaps none, as the first process of many a container is: a process of exec
//! that became its child would stay a zombie, and the kernel lets the end of a container's first process wait for
//! each zombie in its pid namespace.
//!
//! This whole test process is such a one. Needs root and busybox from Debian's package.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bale_testkit::machine::{Scope, Snapshot};
use bale_testkit::{Bale, Scratch, require_root};
use rustix::process::{Pid, Signal, WaitOptions};

/// Far more than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(40);

fn inherit_orphans() {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).expect("PR_SET_CHILD_SUBREAPER");
}

struct Stage {
    // Dropped first.
    _reaper: ReapAtFailure,
    bale: Bale,
}

impl std::ops::Deref for Stage {
    type Target = Bale;
    fn deref(&self) -> &Bale {
        &self.bale
    }
}

/// So that a test that fails does not hang: what waits for zombies goes on.
struct ReapAtFailure;

impl Drop for ReapAtFailure {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::thread::spawn(|| {
                loop {
                    reap_those_of_containers();
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
        }
    }
}

/// Reaps zombies of other pid namespaces; the others are children that somebody here waits for.
fn reap_those_of_containers() {
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let own = namespace("self");
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in entries.filter_map(|entry| entry.file_name().into_string().ok()) {
        if let (Ok(number), Some(of)) = (pid.parse(), namespace(&pid))
            && Some(of) != own
        {
            // ECHILD: it is another's.
            let _ = rustix::process::waitpid(Pid::from_raw(number), WaitOptions::NOHANG);
        }
    }
}

fn bale() -> Stage {
    inherit_orphans();
    let bale = bale_testkit::bale!();
    bale.load_busybox();
    Stage { _reaper: ReapAtFailure, bale }
}

/// Runs a command that must succeed, and soon; returns what it wrote.
#[track_caller]
fn soon(mut command: Command) -> String {
    let scratch = Scratch::new("unreaped");
    let out = scratch.join("out");
    let file = std::fs::File::create(&out).expect("create");
    command.stdin(Stdio::null()).stdout(file.try_clone().expect("dup")).stderr(file);
    let mut child = command.spawn().expect("spawn");
    let end = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait().expect("wait") {
            Some(status) => break status,
            None if Instant::now() < end => std::thread::sleep(Duration::from_millis(5)),
            None => {
                child.kill().expect("kill");
                child.wait().expect("wait");
                panic!("{command:?} hangs");
            }
        }
    };
    let said = std::fs::read_to_string(out).expect("read");
    assert!(status.success(), "{command:?}: {status}: {said}");
    said
}

/// Waits for what has no event of its own.
#[track_caller]
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "waited for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Returns the pid of a process of this container whose command line has `part`.
fn process_with(part: &str) -> Option<i32> {
    let entries = std::fs::read_dir("/proc").ok()?.flatten();
    let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.find(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.starts_with(b"sleep\0") && String::from_utf8_lossy(&line).contains(part)
    })
}

/// Returns state and parent of a process; `None` when it is no more.
fn state_of(pid: i32) -> Option<(char, i32)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text[text.rfind(')')? + 2..].split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

fn kill(pid: i32) {
    rustix::process::kill_process(Pid::from_raw(pid).expect("a pid"), Signal::KILL).expect("kill");
}

#[test]
fn exec_in_the_background_holds_no_container() {
    require_root!();
    let bale = bale();
    let scope = Scope::below(&bale.root()).tree(&bale.root().join("containers"));
    let before = Snapshot::take(&scope);
    bale.ok(["run", "-d", "--name", "box", "--net", "none", "busybox", "sleep", "1000"]);
    let supervisor: i32 =
        bale.ok(["inspect", "-f", "{{.Bale.supervisor.pid}}", "box"]).trim().parse().unwrap();
    bale.ok(["exec", "-d", "box", "sleep", "0.0417"]);
    bale.ok(["exec", "-d", "box", "sleep", "1000.417"]);
    let long = process_with("1000.417").expect("the process of exec");
    assert_eq!(state_of(long).map(|(_, parent)| parent), Some(supervisor));
    eventually("the short one is reaped", || {
        let listed = bale.ok(["exec", "box", "ps"]);
        !listed.contains("0.0417") && !listed.contains("[sleep]")
    });
    soon(bale.command(["stop", "-t", "1", "box"]));
    soon(bale.command(["rm", "box"]));
    assert_eq!(state_of(long), None, "it was reaped");
    before.assert_same(&scope);
}

#[test]
fn exec_whose_caller_was_killed_holds_no_container() {
    require_root!();
    let bale = bale();
    bale.ok(["run", "-d", "--name", "box", "--net", "none", "busybox", "sleep", "1000"]);
    let mut caller = bale.command(["exec", "box", "sleep", "1000.823"]);
    let mut caller = caller.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("it runs", || process_with("1000.823").is_some());
    let process = process_with("1000.823").unwrap();
    caller.kill().unwrap();
    caller.wait().unwrap();
    assert!(state_of(process).is_some(), "it goes on, as docker's does");
    kill(process);
    eventually("it is reaped", || state_of(process).is_none());
    soon(bale.command(["kill", "box"]));
    soon(bale.command(["rm", "box"]));
}

#[test]
fn what_an_exec_without_supervisor_left_holds_no_container() {
    require_root!();
    let bale = bale();
    for end in [["rm", "-f", "box"].as_slice(), &["stop", "-t", "1", "box"]] {
        bale.ok(["run", "-d", "--name", "box", "--net", "none", "busybox", "sleep", "1000"]);
        let supervisor = bale.ok(["inspect", "-f", "{{.Bale.supervisor.pid}}", "box"]);
        kill(supervisor.trim().parse().unwrap());
        eventually("ps says so", || bale.ok(["ps"]).contains("(supervisor lost)"));
        bale.ok(["exec", "-d", "box", "sleep", "0.0119"]);
        eventually("it has ended", || process_with("0.0119").is_none());
        soon(bale.command(end));
        bale.ok(["rm", "-f", "box"]);
        assert_eq!(bale.ok(["ps", "-aq"]), "");
    }
}

/// Whoever calls the runtime has to reap; where nobody does, runc's and crun's containers stay as running for ever.
#[test]
fn the_runtime_deletes_a_container_whose_processes_nobody_reaps() {
    require_root!();
    inherit_orphans();
    let _reaper = ReapAtFailure;
    let scratch = Scratch::new("unreaped");
    bale_testkit::image::busybox_rootfs(&scratch.join("rootfs")).expect("busybox");
    let runc = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bale"));
        command.args(["runc", "--root"]).arg(scratch.join("state")).args(words).current_dir(scratch.path());
        command
    };
    soon(runc(&["spec"]));
    let path = scratch.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["process"]["terminal"] = false.into();
    config["process"]["args"] = serde_json::json!(["sleep", "1000"]);
    std::fs::write(&path, config.to_string()).unwrap();
    let id = format!("bale-unreaped-{}", std::process::id());
    soon(runc(&["run", "-d", &id]));
    soon(runc(&["exec", "-d", &id, "sleep", "0.0533"]));
    eventually("it has ended", || process_with("0.0533").is_none());
    soon(runc(&["kill", &id, "KILL"]));
    eventually("it counts as stopped", || soon(runc(&["state", &id])).contains("\"stopped\""));
    soon(runc(&["delete", &id]));
    assert_eq!(std::fs::read_dir(scratch.join("state")).map_or(0, Iterator::count), 0);
}
