//! SIGKILL before every call that changes something, in every process that a command starts, and then the same command
//! again: it must succeed, nothing may be left that nobody clears away, and nothing that was there may be harmed.
//!
//! strace counts calls per process and per kind, so "the third openat" stops whichever process gets there first. The
//! command is therefore traced whole once: between two calls that change something it does not matter where a process
//! dies, so each such stretch is reached by any call in it that no other process makes as often before.
//!
//! `BALE_TEST_KILLS=all` kills at each stretch; otherwise they are sampled evenly.

// What was reached is the test's report.
#![allow(clippy::print_stdout)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bale_testkit::command::{Outcome, finish};
use bale_testkit::machine::{Scope, Snapshot};
use bale_testkit::registry::Registry;
use bale_testkit::{Bale, note_skip, require_root};

/// How many kills per command, unless all are asked for.
const SAMPLE: usize = 50;

/// Calls that change something outside the process that makes them.
const CHANGES: &[&str] = &[
    "bind",
    "chroot",
    "clone",
    "clone3",
    "connect",
    "dup2",
    "dup3",
    "execve",
    "execveat",
    "fchmod",
    "fchmodat",
    "fchown",
    "fchownat",
    "flock",
    "fsmount",
    "fsync",
    "ftruncate",
    "fsetxattr",
    "kill",
    "link",
    "linkat",
    "listen",
    "lsetxattr",
    "mkdir",
    "mkdirat",
    "mknod",
    "mknodat",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_tree",
    "pidfd_send_signal",
    "pivot_root",
    "prctl",
    "pwrite64",
    "rename",
    "renameat",
    "renameat2",
    "rmdir",
    "sendmsg",
    "sendto",
    "setgid",
    "setgroups",
    "sethostname",
    "setns",
    "setresgid",
    "setresuid",
    "setsid",
    "setuid",
    "setxattr",
    "symlink",
    "symlinkat",
    "syncfs",
    "umount2",
    "unlink",
    "unlinkat",
    "unshare",
    "utimensat",
    "write",
    "writev",
    "exit_group",
];

/// Calls whose number is a matter of chance.
const CHANCE: &[&str] = &[
    "brk",
    "clock_gettime",
    "clock_nanosleep",
    "epoll_pwait",
    "epoll_wait",
    "futex",
    "getrandom",
    "madvise",
    "mmap",
    "mprotect",
    "mremap",
    "munmap",
    "nanosleep",
    "poll",
    "ppoll",
    "read",
    "recvfrom",
    "restart_syscall",
    "rt_sigreturn",
    "sched_yield",
    "select",
    "wait4",
    "waitid",
];

/// One stretch of a process: killing it at the `count`th `call` kills it there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Point {
    call: String,
    count: usize,
    /// The change that it comes before, as strace shows it.
    change: String,
}

/// A call of the trace.
struct Made {
    pid: u32,
    call: String,
    count: usize,
    text: String,
}

/// Reads a trace of `strace -f`.
fn parse(trace: &str) -> Vec<Made> {
    let mut counts: BTreeMap<(u32, String), usize> = BTreeMap::new();
    let mut made = Vec::new();
    for line in trace.lines() {
        let Some((pid, text)) = line.split_once(' ') else { continue };
        let (Ok(pid), Some((call, _))) = (pid.parse(), text.trim_start().split_once('(')) else { continue };
        if call.is_empty() || !call.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        {
            continue;
        }
        let count = counts.entry((pid, call.to_owned())).or_default();
        *count += 1;
        made.push(Made { pid, call: call.to_owned(), count: *count, text: text.trim_start().to_owned() });
    }
    made
}

fn is_change(made: &Made) -> bool {
    let opens = matches!(made.call.as_str(), "open" | "openat" | "openat2");
    CHANGES.contains(&made.call.as_str())
        || opens && (made.text.contains("O_CREAT") || made.text.contains("O_TRUNC"))
}

/// Finds a point for each stretch that can be reached; returns them and the number of stretches that there are.
fn points(trace: &str) -> (Vec<Point>, usize) {
    let mut first: BTreeSet<(String, usize)> = BTreeSet::new();
    // The best call of each process since its last change.
    let mut candidate: BTreeMap<u32, (String, usize)> = BTreeMap::new();
    let (mut found, mut stretches) = (Vec::new(), 0);
    for made in parse(trace) {
        let key = (made.call.clone(), made.count);
        let is_first = first.insert(key.clone());
        let is_change = is_change(&made);
        if is_first && (is_change || !CHANCE.contains(&made.call.as_str())) {
            candidate.insert(made.pid, key);
        }
        if is_change {
            stretches += 1;
            if let Some((call, count)) = candidate.remove(&made.pid) {
                found.push(Point { call, count, change: made.text.chars().take(120).collect() });
            }
        }
    }
    (found, stretches)
}

/// Takes `count` of all points, evenly.
fn sample(points: Vec<Point>, count: usize) -> Vec<Point> {
    if std::env::var("BALE_TEST_KILLS").is_ok_and(|v| v == "all") || points.len() <= count {
        return points;
    }
    let length = points.len();
    let chosen: BTreeSet<usize> = (0..count).map(|n| n * (length - 1) / (count - 1)).collect();
    points.into_iter().enumerate().filter(|(n, _)| chosen.contains(n)).map(|(_, point)| point).collect()
}

/// Runs a command under strace to the end of all its processes; the trace lies in `to`.
fn strace(bale: &Bale, options: &[&str], to: &Path, arguments: &[&str]) -> Outcome {
    let command = bale.command(arguments);
    // What hangs is ended, and that fails the test.
    let mut strace = Command::new("timeout");
    strace.args(["-v", "-k", "5", "60", "strace", "-f", "-q", "-o"]).arg(to).args(options);
    strace.arg(command.get_program()).args(command.get_args()).stdin(Stdio::null()).current_dir(bale.dir());
    strace.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let outcome = finish(&mut strace);
    assert!(!outcome.stderr.contains("timeout: sending signal"), "it hangs: {outcome:#?}");
    outcome
}

impl Case<'_> {
    /// Runs the command, traced.
    fn traced(&self, options: &[&str], to: &Path) -> Outcome {
        match self.worker {
            None => strace(self.bale, options, to, self.arguments),
            Some(worker) => strace_process(self.bale, worker(), options, to, self.arguments),
        }
    }
}

/// Runs a command while `strace` watches the process `worker` and the children that it makes.
fn strace_process(bale: &Bale, worker: u32, options: &[&str], to: &Path, arguments: &[&str]) -> Outcome {
    let mut tracer = Command::new("strace")
        .args(["-f", "-q", "-p", &worker.to_string(), "-o"])
        .arg(to)
        .args(options)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("strace");
    let status = format!("/proc/{worker}/status");
    wait_for("strace is attached", || {
        std::fs::read_to_string(&status).is_ok_and(|text| !text.contains("TracerPid:\t0\n"))
    });
    let outcome = bale.run(arguments);
    // The supervisor's own work is done when only the container's first process is left.
    let children = format!("/proc/{worker}/task/{worker}/children");
    wait_for("its children are reaped", || {
        std::fs::read_to_string(&children).map_or(true, |pids| pids.split_whitespace().count() <= 1)
    });
    let pid = rustix::process::Pid::from_child(&tracer);
    // It ends by itself with the process that it watches.
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
    tracer.wait().expect("strace");
    outcome
}

fn wait_for(what: &str, holds: impl Fn() -> bool) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !holds() {
        assert!(std::time::Instant::now() < end, "waited for: {what}");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// The ids of the containers that there are.
fn containers(bale: &Bale) -> Vec<String> {
    let entries = std::fs::read_dir(bale.root().join("containers")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| name.len() == 64).collect()
}

/// The tests of this file one after another: each looks at what is new on the machine.
fn alone() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

fn has_strace() -> bool {
    let there = Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_ok();
    if !there {
        note_skip("needs strace");
    }
    there
}

/// All names below the root but those of locks, which stay for the next one to take.
fn names(dir: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let is_lock = entry.file_name() == ".lock" || dir.ends_with("locks");
        if !is_lock {
            found.insert(entry.path());
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(names(&entry.path()));
        }
    }
    found
}

/// What is done with a command.
struct Case<'a> {
    bale: &'a Bale,
    /// The command that is killed.
    arguments: &'a [&'a str],
    /// Kills in this process and its children instead, which do the command's work.
    worker: Option<&'a dyn Fn() -> u32>,
    /// Makes what the command works on.
    before: &'a dyn Fn(),
    /// Runs the command again and wants it to succeed; hears where it was killed.
    again: &'a dyn Fn(&str),
    /// Takes away what the command made.
    after: &'a dyn Fn(),
}

/// Kills the command at each of its points.
#[allow(clippy::print_stdout, reason = "the test harness shows it with --nocapture")]
fn kill_anywhere(case: &Case<'_>) {
    let (bale, log) = (case.bale, case.bale.dir().join("strace.log"));
    // Once untouched, so that what comes into being once is there.
    for _ in 0..2 {
        (case.before)();
        let whole = case.traced(&[], &log);
        assert_eq!(whole.code, 0, "{whole:#?}");
        (case.again)("without a kill");
        (case.after)();
    }
    let (all, stretches) = points(&std::fs::read_to_string(&log).expect("the trace"));
    let reached = all.len();
    assert!(reached * 10 >= stretches * 7, "only {reached} of {stretches} stretches can be reached");
    let chosen = sample(all, SAMPLE);
    let scope = Scope::below(bale.dir()).cgroups_of("bale");
    let mut ids = BTreeSet::new();
    let (machine, files) = (Snapshot::take(&scope), names(bale.dir()));
    let (wanted, mut killed) = (chosen.len(), 0);
    for point in chosen {
        (case.before)();
        let inject = format!("inject={}:signal=KILL:when={}", point.call, point.count);
        let trace = format!("trace={}", point.call);
        case.traced(&["-e", &trace, "-e", &inject], &log);
        ids.extend(containers(bale));
        let traced = std::fs::read_to_string(&log).expect("the trace");
        killed += usize::from(traced.contains("+++ killed by SIGKILL"));
        let at = format!("after a kill at {} #{}, before {}", point.call, point.count, point.change);
        for listing in [vec!["ps", "-a"], vec!["images"], vec!["volume", "ls"]] {
            let listed = bale.run(&listing);
            assert_eq!((listed.code, listed.stderr.as_str()), (0, ""), "{at}: {listed:#?}");
        }
        (case.again)(&at);
        ids.extend(containers(bale));
        (case.after)();
        machine.assert_nothing_left(&scope.clone().containers(ids.iter().cloned()), &at);
        let now = names(bale.dir());
        let changed: Vec<_> = files.symmetric_difference(&now).collect();
        assert!(changed.is_empty(), "{at}: {changed:#?}");
    }
    // Threads and children run as they like, so that a few kinds are less often called the second time.
    assert!(killed + 1 + wanted / 10 >= wanted, "only {killed} of {wanted} points were met");
    println!("{:?}: {stretches} stretches, {reached} within reach, {killed} kills", case.arguments);
}

/// Wants a command to succeed.
#[track_caller]
fn must(bale: &Bale, at: &str, arguments: &[&str]) -> String {
    let outcome = bale.run(arguments);
    assert_eq!(outcome.code, 0, "{at}: {outcome:#?}");
    outcome.stdout
}

/// Removes every container.
fn remove_all(bale: &Bale, at: &str) {
    let listed = must(bale, at, &["ps", "-aq", "--no-trunc"]);
    let ids: Vec<&str> = listed.split_whitespace().collect();
    if !ids.is_empty() {
        must(bale, at, &[["rm", "-f", "-v"].as_slice(), &ids].concat());
    }
}

fn with_busybox() -> Bale {
    let bale = bale_testkit::bale!();
    bale.load_busybox();
    bale
}

const TRUE: &[&str] = &["run", "--rm", "--net", "none", "busybox", "true"];

#[test]
fn run_in_the_foreground() {
    require_root!();
    if !has_strace() {
        return;
    }
    let (_alone, bale) = (alone(), with_busybox());
    let arguments = ["run", "--rm", "--net", "none", "-m", "64m", "-v", "/data", "busybox", "true"];
    kill_anywhere(&Case {
        bale: &bale,
        arguments: &arguments,
        worker: None,
        before: &|| {},
        again: &|at| {
            must(&bale, at, &arguments);
        },
        after: &|| {
            remove_all(&bale, "at the end");
            drop_volumes(&bale);
        },
    });
}

/// Anonymous volumes of containers that were removed without theirs, as a user clears them.
fn drop_volumes(bale: &Bale) {
    for name in bale.ok(["volume", "ls", "-q"]).lines() {
        bale.ok(["volume", "rm", name]);
    }
}

#[test]
fn run_in_the_background_with_a_name() {
    require_root!();
    if !has_strace() {
        return;
    }
    let (_alone, bale) = (alone(), with_busybox());
    let arguments = ["run", "-d", "--net", "none", "--name", "box", "busybox", "sleep", "0.1"];
    kill_anywhere(&Case {
        bale: &bale,
        arguments: &arguments,
        worker: None,
        before: &|| {},
        again: &|at| {
            let again = bale.run(arguments);
            if again.code != 0 {
                // It had come so far that there is a container: it is listed, and has the name by right.
                assert!(again.stderr.contains("the name \"box\" is in use"), "{at}: {again:#?}");
                let listed = must(&bale, at, &["ps", "-a", "--format", "{{.Names}} {{.State}}"]);
                let usable = ["box running\n", "box exited\n", "box created\n"];
                assert!(usable.contains(&listed.as_str()), "{at}: {listed:?}");
                must(&bale, at, &["rm", "-f", "box"]);
                must(&bale, at, &arguments);
            }
            must(&bale, at, &["wait", "box"]);
        },
        after: &|| remove_all(&bale, "at the end"),
    });
}

#[test]
fn start_after_an_end() {
    require_root!();
    if !has_strace() {
        return;
    }
    let (_alone, bale) = (alone(), with_busybox());
    let arguments = ["start", "box"];
    kill_anywhere(&Case {
        bale: &bale,
        arguments: &arguments,
        worker: None,
        before: &|| {
            bale.ok(["run", "--name", "box", "--net", "none", "busybox", "sleep", "0.05"]);
        },
        again: &|at| {
            must(&bale, at, &arguments);
            must(&bale, at, &["wait", "box"]);
            must(&bale, at, &["rm", "box"]);
        },
        after: &|| remove_all(&bale, "at the end"),
    });
}

#[test]
fn exec_leaves_the_container_alone() {
    require_root!();
    if !has_strace() {
        return;
    }
    let (_alone, bale) = (alone(), with_busybox());
    let arguments = ["exec", "box", "true"];
    kill_anywhere(&Case {
        bale: &bale,
        arguments: &arguments,
        worker: None,
        before: &|| {
            bale.ok(["run", "-d", "--name", "box", "--net", "none", "busybox", "sleep", "1000"]);
        },
        again: &|at| {
            must(&bale, at, &arguments);
            let listed = must(&bale, at, &["ps", "--format", "{{.Names}} {{.State}}"]);
            assert_eq!(listed, "box running\n", "{at}");
            must(&bale, at, &["stop", "-t", "0", "box"]);
        },
        after: &|| remove_all(&bale, "at the end"),
    });
}

#[test]
fn exec_in_the_supervisor() {
    require_root!();
    if !has_strace() {
        return;
    }
    let (_alone, bale) = (alone(), with_busybox());
    let arguments = ["exec", "box", "true"];
    let supervisor = || {
        let pid = bale.ok(["inspect", "-f", "{{.Bale.supervisor.pid}}", "box"]);
        pid.trim().parse().expect("a pid")
    };
    kill_anywhere(&Case {
        bale: &bale,
        arguments: &arguments,
        worker: Some(&supervisor),
        before: &|| {
            bale.ok(["run", "-d", "--name", "box", "--net", "none", "busybox", "sleep", "1000"]);
        },
        again: &|at| {
            must(&bale, at, &arguments);
            let listed = must(&bale, at, &["ps", "--format", "{{.Names}} {{.State}}"]);
            assert_eq!(listed, "box running\n", "{at}");
            must(&bale, at, &["stop", "-t", "0", "box"]);
        },
        after: &|| remove_all(&bale, "at the end"),
    });
}

#[test]
fn stop() {
    require_root!();
    if !has_strace() {
        return;
    }
    let (_alone, bale) = (alone(), with_busybox());
    let arguments = ["stop", "-t", "0", "box"];
    kill_anywhere(&Case {
        bale: &bale,
        arguments: &arguments,
        worker: None,
        before: &|| {
            bale.ok(["run", "-d", "--name", "box", "--net", "none", "busybox", "sleep", "1000"]);
        },
        again: &|at| {
            must(&bale, at, &arguments);
            assert_eq!(must(&bale, at, &["wait", "box"]), "137\n", "{at}");
        },
        after: &|| remove_all(&bale, "at the end"),
    });
}

#[test]
fn rm() {
    require_root!();
    if !has_strace() {
        return;
    }
    let (_alone, bale) = (alone(), with_busybox());
    let run = ["run", "-d", "--net", "none", "-v", "/data", "--name", "box", "busybox", "sleep", "1000"];
    kill_anywhere(&Case {
        bale: &bale,
        arguments: &["rm", "-f", "-v", "box"],
        worker: None,
        before: &|| {
            bale.ok(run);
        },
        again: &|at| {
            must(&bale, at, &["rm", "-f", "-v", "box"]);
            // A container may have lost its name before the kill; its id still stands in the list.
            remove_all(&bale, at);
            must(&bale, at, &run);
        },
        after: &|| remove_all(&bale, "at the end"),
    });
}

#[test]
fn load() {
    require_root!();
    if !has_strace() {
        return;
    }
    let (_alone, bale) = (alone(), bale_testkit::bale!());
    let archive = bale_testkit::image::busybox();
    let arguments = ["load", "-q", "-i", archive.to_str().expect("UTF-8")];
    kill_anywhere(&Case {
        bale: &bale,
        arguments: &arguments,
        worker: None,
        before: &|| {},
        again: &|at| {
            must(&bale, at, &arguments);
            must(&bale, at, TRUE);
        },
        after: &|| {
            bale.ok(["rmi", "busybox"]);
        },
    });
}

#[test]
fn rmi() {
    require_root!();
    if !has_strace() {
        return;
    }
    let (_alone, bale) = (alone(), bale_testkit::bale!());
    kill_anywhere(&Case {
        bale: &bale,
        arguments: &["rmi", "busybox"],
        worker: None,
        before: &|| bale.load_busybox(),
        again: &|at| {
            // Its first step takes the name away, after which there is nothing to remove.
            must(&bale, at, &["rmi", "-f", "busybox"]);
            bale.load_busybox();
            must(&bale, at, TRUE);
            must(&bale, at, &["rmi", "busybox"]);
        },
        after: &|| {},
    });
}

#[test]
fn pull() {
    require_root!();
    if !has_strace() {
        return;
    }
    let (_alone, registry, bale) = (alone(), Registry::start(), with_busybox());
    let name = format!("{}/busybox:1", registry.host());
    bale.ok(["tag", "busybox", &name]);
    bale.ok(["push", "-q", &name]);
    bale.ok(["rmi", "busybox", &name]);
    let arguments = ["pull", "-q", &name];
    kill_anywhere(&Case {
        bale: &bale,
        arguments: &arguments,
        worker: None,
        before: &|| {},
        again: &|at| {
            must(&bale, at, &arguments);
            must(&bale, at, &["run", "--rm", "--net", "none", &name, "true"]);
        },
        after: &|| {
            bale.ok(["rmi", &name]);
        },
    });
}

#[test]
fn bundle() {
    require_root!();
    if !has_strace() {
        return;
    }
    let (_alone, bale) = (alone(), with_busybox());
    let path = bale.dir().join("b");
    let arguments = ["bundle", "-q", "busybox", "./b"];
    kill_anywhere(&Case {
        bale: &bale,
        arguments: &arguments,
        worker: None,
        before: &|| {},
        again: &|at| {
            let again = bale.run(arguments);
            // A kill after the rename has left a whole bundle.
            let whole = again.code == 1 && again.stderr.contains("is not empty");
            assert!(again.code == 0 || whole, "{at}: {again:#?}");
            must(&bale, at, &["check", "./b"]);
            must(&bale, at, &["run", "--rm", "--net", "none", "./b", "true"]);
        },
        after: &|| std::fs::remove_dir_all(&path).expect("remove the bundle"),
    });
}

#[test]
fn each_stretch_is_reached_by_a_call_that_no_other_makes_as_often_before() {
    let trace = "1 openat(AT_FDCWD, \"a\", O_RDONLY) = 3\n1 close(3) = 0\n1 write(1, \"x\", 1) = 1\n\
        2 openat(AT_FDCWD, \"a\", O_RDONLY) = 3\n2 fstat(3) = 0\n2 write(1, \"y\", 1) = 1\n2 write(1, \"z\", 1) = 1\n\
        2 +++ exited with 0 +++\n1 write(1, \"u\", 1 <unfinished ...>\n1 <... write resumed>) = 1\n";
    let (found, stretches) = points(trace);
    let points: Vec<_> = found.iter().map(|p| (p.call.as_str(), p.count)).collect();
    assert_eq!((points, stretches), (vec![("write", 1), ("fstat", 1), ("write", 2)], 4));
}
