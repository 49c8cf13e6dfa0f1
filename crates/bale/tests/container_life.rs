//! `create start ps wait stop kill rm inspect attach exec`, and containers whose keepers were killed.
//!
//! Needs root, and busybox from Debian's package (made once by the testkit).

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use bale_testkit::Bale;
use bale_testkit::machine::{Scope, Snapshot};

fn bale() -> Bale {
    let bale = bale_testkit::bale!();
    bale.load_busybox();
    bale
}

const LOOP: [&str; 4] = ["busybox", "sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.05; done"];

fn run_loop(bale: &Bale, name: &str) -> String {
    let id = bale.ok(["run", "-d", "--net", "none", "--name", name].iter().copied().chain(LOOP));
    wait_for_trap(bale, name);
    id.trim().to_owned()
}

/// Waits until the shell of [`LOOP`] catches TERM: before, it is pid 1 to whom the signal means nothing.
fn wait_for_trap(bale: &Bale, name: &str) {
    eventually("the trap is set", || {
        let status = bale.run(["exec", name, "grep", "SigCgt", "/proc/1/status"]).stdout;
        let caught = status.split_whitespace().nth(1).and_then(|mask| u64::from_str_radix(mask, 16).ok());
        caught.is_some_and(|mask| mask & 1 << 14 != 0)
    });
}

fn status(bale: &Bale, name: &str) -> String {
    bale.ok(["ps", "-a", "--filter", &format!("name={name}"), "--format", "{{.State}}|{{.Status}}"])
        .trim()
        .to_owned()
}

fn field(bale: &Bale, name: &str, path: &str) -> String {
    bale.ok(["inspect", "-f", &format!("{{{{{path}}}}}"), name]).trim().to_owned()
}

/// Waits for what has no event of its own.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < end, "waited for: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn supervisor_of(bale: &Bale, name: &str) -> i32 {
    field(bale, name, ".Bale.supervisor.pid").parse().expect("a pid")
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kill");
}

#[test]
fn a_container_is_created_started_stopped_and_removed() {
    bale_testkit::require_root!();
    let bale = bale();
    let id = bale.ok(["create", "--name", "web", "--label", "a=b"].iter().copied().chain(LOOP));
    let id = id.trim();
    assert_eq!(id.len(), 64);
    assert_eq!(status(&bale, "web"), "created|Created");
    assert_eq!(bale.ok(["ps", "-q"]), "");
    assert_eq!(bale.ok(["start", "web"]), "web\n");
    assert_eq!(bale.ok(["start", "web"]), "web\n", "a second start changes nothing");
    assert!(status(&bale, "web").starts_with("running|Up "));
    assert!(bale.fails(1, ["rm", "web"]).contains("--force"));
    wait_for_trap(&bale, "web");
    assert_eq!(bale.ok(["stop", "web"]), "web\n");
    assert!(status(&bale, "web").starts_with("exited|Exited (3) "), "{}", status(&bale, "web"));
    assert_eq!(bale.ok(["stop", "web"]), "web\n");
    assert_eq!(bale.ok(["wait", "web", &id[..12]]), "3\n3\n");
    assert!(bale.fails(1, ["kill", "web"]).contains("not running"));
    assert_eq!(bale.ok(["start", &id[..6]]).trim(), &id[..6]);
    assert_eq!(bale.ok(["kill", "web"]), "web\n");
    assert_eq!(bale.ok(["wait", "web"]), "137\n");
    assert_eq!(bale.ok(["rm", "web"]), "web\n");
    assert!(bale.fails(1, ["rm", "web"]).contains("no such container"));
    assert_eq!(bale.ok(["rm", "-f", "web"]), "");
    assert_eq!(bale.ok(["ps", "-aq"]), "");
}

#[test]
fn stop_kills_after_its_time_and_kill_sends_signals() {
    bale_testkit::require_root!();
    let bale = bale();
    bale.ok(["run", "-d", "--name", "deaf", "busybox", "sleep", "100"]);
    let begin = Instant::now();
    bale.ok(["stop", "-t", "1", "deaf"]);
    assert!(begin.elapsed() >= Duration::from_secs(1) && begin.elapsed() < Duration::from_secs(5));
    assert_eq!(bale.ok(["wait", "deaf"]), "137\n");
    let script = "trap 'exit 5' USR1; trap 'exit 6' INT; while :; do sleep 0.05; done";
    for (words, code) in [
        (vec!["kill", "-s", "USR1", "sig"], "5\n"),
        (vec!["kill", "-s", "sigint", "sig"], "6\n"),
        (vec!["kill", "--signal=10", "sig"], "5\n"),
        (vec!["stop", "sig"], "6\n"),
    ] {
        bale.ok(["run", "-d", "--name", "sig", "--stop-signal", "INT", "busybox", "sh", "-c", script]);
        eventually("traps are set", || {
            let caught = bale.run(["exec", "sig", "grep", "SigCgt", "/proc/1/status"]).stdout;
            caught.trim().ends_with("202") || caught.contains("0202")
        });
        bale.ok(&words);
        assert_eq!(bale.ok(["wait", "sig"]), code, "{words:?}");
        bale.ok(["rm", "sig"]);
    }
    assert!(bale.fails(1, ["kill", "-s", "TREM", "sig"]).contains("TERM"));
}

#[test]
fn ps_filters_and_formats() {
    bale_testkit::require_root!();
    let bale = bale();
    run_loop(&bale, "up");
    bale.run(["run", "--net", "none", "--name", "down", "--label", "k=v", "busybox", "sh", "-c", "exit 4"]);
    bale.ok(["create", "--name", "new", "busybox"]);
    let names = |words: &[&str]| {
        let listed = bale.ok(["ps", "--format", "{{.Names}}"].iter().copied().chain(words.iter().copied()));
        listed.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    for (words, wanted) in [
        (&[][..], &["up"][..]),
        (&["-a"], &["new", "down", "up"]),
        (&["-n", "2"], &["new", "down"]),
        (&["-l"], &["new"]),
        (&["--filter", "status=exited"], &["down"]),
        (&["-f", "exited=4"], &["down"]),
        (&["-a", "-f", "exited=0"], &[]),
        (&["-a", "-f", "label=k"], &["down"]),
        (&["-a", "-f", "name=e"], &["new"]),
        (&["-a", "-f", "ancestor=busybox"], &["new", "down", "up"]),
        (&["-a", "-f", "status=created", "-f", "status=running"], &["new", "up"]),
    ] {
        assert_eq!(names(words), wanted, "{words:?}");
    }
    let json = bale.ok(["ps", "-a", "--filter", "name=down", "--format", "json"]);
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((value["Names"].as_str(), value["State"].as_str()), (Some("down"), Some("exited")));
    assert!(value["Status"].as_str().unwrap().starts_with("Exited (4) "), "{json}");
    let header = bale.ok(["ps"]);
    let columns: Vec<&str> =
        header.lines().next().unwrap().split("  ").map(str::trim).filter(|c| !c.is_empty()).collect();
    assert_eq!(columns, ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]);
    assert!(bale.fails(1, ["ps", "-f", "stats=x"]).contains("did you mean \"status\""));
}

#[test]
fn inspect_has_dockers_keys() {
    bale_testkit::require_root!();
    let bale = bale();
    let id = run_loop(&bale, "ins");
    let text = bale.ok(["inspect", "ins"]);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let one = &value[0];
    assert_eq!(one["Id"], id.as_str());
    assert_eq!(one["Name"], "/ins");
    assert_eq!(
        (one["State"]["Status"].as_str(), one["State"]["Running"].as_bool()),
        (Some("running"), Some(true))
    );
    assert_eq!(one["Path"], "sh");
    assert_eq!(one["Config"]["Image"], "busybox");
    let pid = one["State"]["Pid"].as_i64().unwrap();
    assert!(PathBuf::from(format!("/proc/{pid}")).exists());
    assert_eq!(field(&bale, "ins", ".State.Pid"), pid.to_string());
    assert!(bale.fails(1, ["inspect", "nosuch"]).contains("no such container, image or volume"));
    bale.ok(["inspect", "busybox"]);
}

#[test]
fn exec_runs_beside_the_program() {
    bale_testkit::require_root!();
    let bale = bale();
    run_loop(&bale, "ex");
    for (words, code, stdout) in [
        (&["exec", "ex", "echo", "hi"][..], 0, "hi\n"),
        (&["exec", "ex", "sh", "-c", "exit 9"], 9, ""),
        (&["exec", "ex", "sh", "-c", "kill -9 $$"], 137, ""),
        (&["exec", "ex", "nope"], 127, ""),
        (&["exec", "ex", "/etc"], 126, ""),
        (&["exec", "-e", "A=1", "ex", "sh", "-c", "echo $A"], 0, "1\n"),
        (&["exec", "-w", "/etc", "ex", "pwd"], 0, "/etc\n"),
        (&["exec", "-u", "1000", "ex", "id", "-u"], 0, "1000\n"),
        (&["exec", "-t", "ex", "sh", "-c", "test -t 0 && echo yes"], 0, "yes\r\n"),
        (&["exec", "-d", "ex", "touch", "/made"], 0, ""),
        (&["exec", "ex", "ls", "-x", "/etc/hostname"], 0, "/etc/hostname\n"),
    ] {
        let outcome = bale.run(words);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (code, stdout), "{outcome:#?}");
    }
    let outcome = bale.run_with_input(["exec", "-i", "ex", "cat"], b"typed");
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "typed"), "{outcome:?}");
    eventually("the detached command", || bale.run(["exec", "ex", "test", "-e", "/made"]).code == 0);
    bale.ok(["kill", "ex"]);
    assert!(bale.fails(1, ["exec", "ex", "true"]).contains("not running"));
}

#[test]
fn attach_shows_what_comes_and_ends_with_the_program() {
    bale_testkit::require_root!();
    let bale = bale();
    bale.ok([
        "run",
        "-d",
        "-i",
        "--name",
        "att",
        "busybox",
        "sh",
        "-c",
        "echo early; read x; echo got $x; exit 3",
    ]);
    let outcome = bale.run_with_input(["attach", "att"], b"word\n");
    assert_eq!((outcome.code, outcome.stdout.as_str()), (3, "got word\n"), "{outcome:?}");
    assert_eq!(bale.ok(["logs", "att"]), "early\ngot word\n");
    assert!(bale.fails(1, ["attach", "att"]).contains("not running"));
    bale.ok(["create", "--net", "none", "--name", "again", "busybox", "sh", "-c", "echo out; exit 4"]);
    for _ in 0..2 {
        let outcome = bale.run(["start", "-a", "again"]);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (4, "out\n"), "{outcome:?}");
    }
    assert_eq!(bale.ok(["logs", "again"]), "out\nout\n");
}

#[test]
fn a_detached_container_outlives_its_starter_and_its_session() {
    bale_testkit::require_root!();
    let bale = bale();
    let id = run_loop(&bale, "det");
    let supervisor = supervisor_of(&bale, "det");
    let stat = std::fs::read_to_string(format!("/proc/{supervisor}/stat")).unwrap();
    let fields: Vec<&str> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
    let own = std::fs::read_to_string("/proc/self/stat").unwrap();
    let own: Vec<&str> = own[own.rfind(')').unwrap() + 2..].split(' ').collect();
    assert_ne!((fields[2], fields[3]), (own[2], own[3]), "group and session");
    assert_eq!(fields[4], "0", "no controlling terminal");
    assert_eq!(std::fs::read_link(format!("/proc/{supervisor}/cwd")).unwrap().to_str(), Some("/"));
    let init: i32 = field(&bale, "det", ".State.Pid").parse().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{init}/status")).unwrap();
    assert!(status.contains(&format!("PPid:\t{supervisor}\n")), "init is the supervisor's child");
    for signal in [rustix::process::Signal::HUP, rustix::process::Signal::TERM, rustix::process::Signal::INT]
    {
        rustix::process::kill_process(rustix::process::Pid::from_raw(supervisor).unwrap(), signal).unwrap();
    }
    assert!(status_is_up(&bale, "det"));
    bale.ok(["stop", &id]);
    assert_eq!(bale.ok(["wait", "det"]), "3\n");
}

/// Makes a scope as systemd makes one for a login session, wherever there is a hierarchy that it tracks processes by.
fn scopes(name: &str) -> Vec<PathBuf> {
    let unified = |path: &str| std::path::Path::new(path).join("cgroup.subtree_control").exists();
    let systemd = "/sys/fs/cgroup/systemd";
    let mut mounts: Vec<&str> =
        ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].into_iter().filter(|m| unified(m)).collect();
    if std::path::Path::new(systemd).join("tasks").exists() {
        mounts.push(systemd);
    }
    let made = mounts.iter().map(|mount| PathBuf::from(mount).join("bale-tests.slice").join(name));
    made.filter(|scope| std::fs::create_dir_all(scope).is_ok()).collect()
}

/// What a service manager does at the end of a session: all in the scope and below is killed. Returns how many.
fn end_session(scope: &std::path::Path) -> usize {
    let mut killed = 0;
    for entry in std::fs::read_dir(scope).expect("the scope").flatten().filter(|e| e.path().is_dir()) {
        killed += end_session(&entry.path());
    }
    let pids = std::fs::read_to_string(scope.join("cgroup.procs")).expect("pids");
    for pid in pids.lines() {
        kill(pid.parse().expect("a pid"));
        killed += 1;
    }
    killed
}

#[test]
fn a_detached_container_outlives_the_scope_of_its_session() {
    bale_testkit::require_root!();
    let scopes = scopes(&format!("session-{}.scope", std::process::id()));
    if scopes.is_empty() {
        bale_testkit::note_skip("needs a cgroup hierarchy that can be written to");
        return;
    }
    let bale = bale();
    let enter: String = scopes.iter().map(|s| format!("echo 0 > {}/cgroup.procs && ", s.display())).collect();
    let script = format!("{enter}exec \"$@\"");
    let command = bale.command(["run", "-d", "--name", "ses", "--net", "none"].iter().copied().chain(LOOP));
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &script, "sh"]).arg(command.get_program()).args(command.get_args());
    shell.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let outcome = bale_testkit::command::finish(&mut shell);
    assert_eq!(outcome.code, 0, "{outcome:#?}");
    let init: i32 = field(&bale, "ses", ".State.Pid").parse().unwrap();
    let killed: usize = scopes.iter().map(|scope| end_session(scope)).sum();
    let places: Vec<String> = [init, supervisor_of(&bale, "ses")]
        .map(|pid| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap())
        .into();
    for scope in &scopes {
        // What is left of it keeps it from being removed.
        eventually("the scope is empty", || std::fs::remove_dir(scope).is_ok());
        // Another run of this test may be in it.
        let _ = std::fs::remove_dir(scope.parent().unwrap());
    }
    assert_eq!(killed, 0, "{places:#?}");
    assert!(places.iter().all(|place| !place.contains(".scope")), "{places:#?}");
    assert!(status_is_up(&bale, "ses"));
    wait_for_trap(&bale, "ses");
    bale.ok(["stop", "ses"]);
    assert_eq!(bale.ok(["wait", "ses"]), "3\n");
}

fn status_is_up(bale: &Bale, name: &str) -> bool {
    status(bale, name).starts_with("running|Up ")
}

#[test]
fn a_lost_supervisor_is_said_and_stop_and_rm_work() {
    bale_testkit::require_root!();
    let bale = bale();
    let scope = Scope::below(&bale.root()).tree(&bale.root().join("containers"));
    let before = Snapshot::take(&scope);
    run_loop(&bale, "lost");
    kill(supervisor_of(&bale, "lost"));
    eventually("ps says so", || status(&bale, "lost").contains("(supervisor lost)"));
    assert!(bale.fails(1, ["attach", "lost"]).contains("supervisor is lost"));
    bale.ok(["stop", "lost"]);
    assert_eq!(status(&bale, "lost"), "exited|Exited (code unknown: supervisor lost)");
    assert!(bale.fails(1, ["wait", "lost"]).contains("not known"));
    bale.ok(["start", "lost"]);
    kill(supervisor_of(&bale, "lost"));
    bale.ok(["rm", "-f", "lost"]);
    before.assert_same(&scope);
}

#[test]
fn rm_by_force_ends_a_starter_that_hangs() {
    bale_testkit::require_root!();
    let bale = bale();
    bale.ok(["create", "--name", "hang", "--net", "none", "busybox", "true"]);
    let id = field(&bale, "hang", ".Id");
    // What is written while a command starts it; the command stands still.
    let mut starter = std::process::Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
    let pid = i32::try_from(starter.id()).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_child(&starter), rustix::process::Signal::STOP)
        .unwrap();
    let path = bale.root().join("containers").join(&id).join("record.json");
    let mut record: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    record["phase"] = "creating".into();
    record["supervisor"] = serde_json::to_value(bale_record::ProcessId::of(pid).unwrap()).unwrap();
    std::fs::write(&path, record.to_string()).unwrap();
    assert!(bale.fails(1, ["rm", "hang"]).contains("being started"));
    bale.ok(["rm", "-f", "hang"]);
    use std::os::unix::process::ExitStatusExt as _;
    assert_eq!(starter.wait().unwrap().signal(), Some(9));
    assert_eq!(bale.ok(["ps", "-aq"]), "");
}

#[test]
fn rm_by_force_ends_a_supervisor_that_hangs() {
    bale_testkit::require_root!();
    let bale = bale();
    let scope = Scope::below(&bale.root()).tree(&bale.root().join("containers"));
    let before = Snapshot::take(&scope);
    let bundle = bale.dir().join("bundle");
    bale.ok(["bundle".as_ref(), "busybox".as_ref(), bundle.as_os_str()]);
    let started = bale.dir().join("hook");
    let script = format!("echo $$ > {0}.tmp; mv {0}.tmp {0}; exec sleep 1000", started.display());
    let hook = serde_json::json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]);
    bale.ok(["set", "./bundle", &format!("hooks.createRuntime={hook}")]);
    let mut run = bale.command(["run", "--name", "hang", "--net", "none", "./bundle"]);
    let mut run = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("the creator waits for its hook", || started.exists());
    let supervisor = rustix::process::Pid::from_raw(supervisor_of(&bale, "hang")).unwrap();
    rustix::process::kill_process(supervisor, rustix::process::Signal::STOP).unwrap();
    bale.ok(["rm", "-f", "hang"]);
    assert!(!run.wait().unwrap().success());
    assert_eq!(bale.ok(["ps", "-aq"]), "");
    // The hook is a process of the host.
    kill(std::fs::read_to_string(&started).unwrap().trim().parse().unwrap());
    before.assert_same(&scope);
}

#[test]
fn waiting_survives_the_supervisor() {
    bale_testkit::require_root!();
    let bale = bale();
    bale.ok([
        "run",
        "-d",
        "-i",
        "--name",
        "wai",
        "busybox",
        "sh",
        "-c",
        "trap 'exit 42' TERM; while :; do sleep 0.05; done",
    ]);
    let mut waiting = bale.command(["wait", "wai"]).stdout(Stdio::piped()).spawn().unwrap();
    let init: i32 = field(&bale, "wai", ".State.Pid").parse().unwrap();
    // The waiter has connected when it holds a descriptor of init.
    eventually("the waiter waits", || {
        let fds = std::fs::read_dir(format!("/proc/{}/fd", waiting.id())).unwrap();
        fds.flatten()
            .filter_map(|fd| std::fs::read_link(fd.path()).ok())
            .any(|to| to.to_string_lossy().contains("socket"))
    });
    kill(supervisor_of(&bale, "wai"));
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(init).unwrap(),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    let status = waiting.wait().unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(&mut waiting.stdout.take().unwrap(), &mut said).unwrap();
    assert!(status.success() && said == "42\n", "{status} {said:?}");
    assert_eq!(bale.ok(["wait", "wai"]), "42\n", "the waiter has written it down");
}

#[test]
fn the_end_is_told_with_the_oom_killer() {
    bale_testkit::require_root!();
    let bale = bale();
    let script = "x=$(head -c 100m /dev/zero | tr '\\0' x)";
    let outcome =
        bale.run(["run", "--net", "none", "--name", "oom", "-m", "16m", "busybox", "sh", "-c", script]);
    assert_eq!(outcome.code, 137, "{outcome:?}");
    assert_eq!(field(&bale, "oom", ".State.OOMKilled"), "true");
}

#[test]
fn a_memory_limit_that_no_process_can_begin_with_is_said() {
    bale_testkit::require_root!();
    if !std::path::Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists() {
        bale_testkit::note_skip("needs the memory controller on cgroup v1");
        return;
    }
    let bale = bale();
    let bundle = bale.dir().join("bundle");
    bale.ok(["bundle".as_ref(), "busybox".as_ref(), bundle.as_os_str()]);
    bale.ok(["set", "./bundle", "linux.resources.memory.limit=4096"]);
    let said = bale.fails(125, ["run", "--name", "tiny", "--net", "none", "./bundle"]);
    // The kernel may refuse the limit while the container's first process is at work already.
    let killed = said.contains("before its program ran") && said.contains("the limit is 4096 bytes");
    assert!(killed || said.contains("unable to set memory limit (current usage: "), "{said}");
    assert!(said.contains("524288"), "{said}");
}

#[test]
fn a_killed_create_leaves_what_rm_and_the_next_one_clear_away() {
    bale_testkit::require_root!();
    let bale = bale();
    let containers = bale.root().join("containers");
    let id = "a".repeat(64);
    // What a kill between the first two steps leaves: a directory without a record.
    std::fs::create_dir_all(containers.join(&id)).unwrap();
    assert!(bale.ok(["ps", "-a", "--no-trunc"]).contains(&id));
    bale.ok(["rm", &id]);
    assert!(!containers.join(&id).exists());
    // And one that was being made under a name.
    bale.ok(["create", "--name", "half", "busybox", "true"]);
    let id = field(&bale, "half", ".Id");
    let path = containers.join(&id).join("record.json");
    let mut record: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    record["phase"] = "creating".into();
    record["supervisor"] = serde_json::json!({ "pid": 1, "start_time": 1, "boot_id": "x" });
    std::fs::write(&path, record.to_string()).unwrap();
    assert_eq!(status(&bale, "half"), "dead|Dead");
    assert_eq!(bale.run(["run", "--net", "none", "--name", "half", "busybox", "true"]).code, 0);
    assert!(!containers.join(&id).exists());
}
