//! The command line itself: what callers try out, and the words and files that they look at.

use std::path::{Path, PathBuf};

use bale_testkit::require_root;
use serde_json::{Value, json};

use crate::stage::Stage;

/// Callers find out by the exit status of `COMMAND --help` whether there is a command.
#[test]
fn every_command_tells_its_flags() {
    let stage = Stage::new();
    let commands = [
        "create", "delete", "events", "exec", "features", "kill", "list", "pause", "ps", "resume", "run",
        "spec", "start", "state", "update",
    ];
    for command in commands {
        let ran = stage.runtime([command, "--help"]);
        assert!(ran.code == 0 && ran.out.contains(command), "{command}: {ran:#?}");
    }
    for (command, flags) in [
        (
            "create",
            &[
                "bundle",
                "console-socket",
                "pidfd-socket",
                "pid-file",
                "no-pivot",
                "no-new-keyring",
                "preserve-fds",
            ][..],
        ),
        ("run", &["bundle", "detach", "keep", "no-subreaper"]),
        (
            "exec",
            &[
                "process",
                "console-socket",
                "pidfd-socket",
                "cwd",
                "env",
                "tty",
                "user",
                "additional-gids",
                "detach",
                "pid-file",
                "process-label",
                "apparmor",
                "no-new-privs",
                "cap",
                "preserve-fds",
                "cgroup",
                "ignore-paused",
            ],
        ),
        (
            "update",
            &[
                "resources",
                "blkio-weight",
                "cpu-period",
                "cpu-quota",
                "cpu-burst",
                "cpu-share",
                "cpu-rt-period",
                "cpu-rt-runtime",
                "cpu-idle",
                "cpuset-cpus",
                "cpuset-mems",
                "memory",
                "memory-reservation",
                "memory-swap",
                "pids-limit",
                "l3-cache-schema",
                "mem-bw-schema",
            ],
        ),
        ("kill", &["all"]),
        ("delete", &["force"]),
        ("list", &["format", "quiet"]),
        ("ps", &["format"]),
        ("events", &["interval", "stats"]),
        ("spec", &["bundle", "rootless"]),
    ] {
        let shown = stage.ok([command, "--help"]);
        for flag in flags {
            // runc hides this one.
            assert!(shown.contains(&format!("--{flag}")) || *flag == "all", "{command} --{flag}: {shown}");
        }
    }
    if stage.is_bale() {
        // Podman and CRI-O learn by this that there is no checkpoint.
        assert_ne!(stage.runtime(["checkpoint", "--help"]).code, 0);
    }
    stage.assert_clean();
}

/// Words that callers look for, whatever stands around them.
#[test]
fn words_that_callers_match() {
    require_root!();
    let stage = Stage::new();
    let id = stage.create("exec sleep 1000", |_| {});
    let bundle = stage.scratch.join(&id);
    let bundle = bundle.to_str().unwrap();
    for (arguments, words) in [
        (&["state", "nobody"][..], "does not exist"),
        (&["start", "nobody"], "does not exist"),
        (&["kill", "nobody", "9"], "does not exist"),
        (&["delete", "nobody"], "does not exist"),
        (&["exec", "nobody", "true"], "does not exist"),
        (&["create", "-b", bundle, &id], "already exists"),
        (&["create", "-b", "/no/such/bundle", "other"], "no such file or directory"),
        (&["run", "-b", bundle, "bad id"], "invalid container id"),
        (&["run", "-b", bundle, ""], "container id cannot be empty"),
        (&["kill", &id, "NONE"], "unknown signal"),
        (&["kill", &id, "TERM", "more"], ""),
        (&["features", "more"], ""),
        (&["resume", &id], "not paused"),
        (&["update", "--memory", "much", &id], "much"),
        (&["list", "--format", "xml"], "invalid format"),
        (&["ps", "--format", "xml", &id], "invalid format"),
        (&["events", "--stats", "--interval", "0s", &id], "greater than 0"),
        (&["--log-format", "xml", "state", &id], "invalid log-format"),
        (&["restore", "--lsm-mount-context"], "flag needs an argument"),
        (&["create", "--no-such-flag", &id], "flag provided but not defined"),
        (&["create", "--bundle"], "flag needs an argument"),
        (&["exec", "--tty", "--detach", &id, "true"], "console socket"),
        (&["exec", "--console-socket", "/x", &id, "true"], "console socket"),
        (&["exec", "--user", "nobody", &id, "true"], ""),
    ] {
        stage.runtime(arguments).fails_with(words);
    }
    if stage.is_bale() {
        stage.runtime(["create", "--preserve-fds", "77", "-b", bundle, "other"]).fails_with("preserved-fd");
    }
    stage.ok(["kill", &id, "0"]);
    stage.ok(["start", &id]);
    stage.runtime(["start", &id]).fails_with("cannot start an already running container");
    stage.runtime(["delete", &id]).fails_with("is not stopped: running");
    stage.ok(["pause", &id]);
    stage.runtime(["exec", &id, "true"]).fails_with("cannot exec in a paused container");
    stage.ok(["resume", &id]);
    stage.ok(["kill", &id, "SIGKILL"]);
    stage.wait_stopped(&id);
    if stage.is_bale() {
        stage.runtime(["kill", &id, "0"]).fails_with("container not running");
        stage.runtime(["exec", &id, "true"]).fails_with("container not running");
    }
    stage.runtime(["start", &id]).fails_with("cannot start a container that has stopped");
    stage.ok(["delete", &id]);
    stage.assert_clean();
}

/// Podman knows by its own words what it ends with: 126 for what cannot be executed, and which label was refused.
#[test]
fn words_for_podman() {
    require_root!();
    let stage = Stage::new();
    if !stage.is_bale() {
        return;
    }
    stage.run("true", |c| c["process"]["args"] = json!(["/etc"])).fails_with("permission denied");
    stage.run("true", |c| c["process"]["args"] = json!(["/etc"])).fails_with("is a directory");
    let ran = stage.run("true", |c| c["process"]["apparmorProfile"] = json!("no-such-profile"));
    if !ran.err.to_lowercase().contains("no such file") {
        ran.fails_with("`/proc/self/attr/exec`");
    }
    stage.assert_clean();
}

/// The files of a v1 hierarchy's cgroup of a container.
fn limits(controller: &str, pid: &Value) -> Option<PathBuf> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let line =
        text.lines().find(|l| l.split(':').nth(1).is_some_and(|n| n.split(',').any(|c| c == controller)))?;
    let mount = Path::new("/sys/fs/cgroup").join(controller);
    let path = mount.join(line.splitn(3, ':').nth(2)?.trim_start_matches('/'));
    path.exists().then_some(path)
}

#[test]
fn limits_are_changed_by_every_flag() {
    require_root!();
    let stage = Stage::new();
    let id = stage.create("exec sleep 1000", |c| {
        c["linux"]["resources"] =
            json!({"memory": {"limit": 128 << 20}, "cpu": {"quota": 20000, "period": 100_000}});
    });
    let pid = stage.state(&id)["pid"].clone();
    let read = |controller: &str, file: &str| {
        let path = limits(controller, &pid)?.join(file);
        std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
    };
    if read("memory", "memory.limit_in_bytes").is_none() {
        stage.ok(["delete", "-f", &id]);
        bale_testkit::note_skip("needs controllers on cgroup v1 (the limits of v2 are looked at in the VM)");
        return;
    }
    for (flags, controller, file, value) in [
        (&["--memory", "64m"][..], "memory", "memory.limit_in_bytes", "67108864"),
        (&["--memory=32MiB"], "memory", "memory.limit_in_bytes", "33554432"),
        (&["--memory-reservation", "16777216"], "memory", "memory.soft_limit_in_bytes", "16777216"),
        (&["--pids-limit", "20"], "pids", "pids.max", "20"),
        (&["--cpu-share", "512"], "cpu", "cpu.shares", "512"),
        (&["--cpu-period", "50000"], "cpu", "cpu.cfs_period_us", "50000"),
        (&["--cpu-quota", "40000"], "cpu", "cpu.cfs_quota_us", "40000"),
        (&["--cpu-burst", "1000"], "cpu", "cpu.cfs_burst_us", "1000"),
        (&["--cpu-idle", "1"], "cpu", "cpu.idle", "1"),
        (&["--cpuset-cpus", "0"], "cpuset", "cpuset.cpus", "0"),
        (&["--cpuset-mems", "0"], "cpuset", "cpuset.mems", "0"),
        (&["--kernel-memory", "1", "--kernel-memory-tcp", "1"], "pids", "pids.max", "20"),
        (&[], "pids", "pids.max", "20"),
    ] {
        let Some(_) = read(controller, file) else { continue };
        let arguments: Vec<&str> =
            std::iter::once("update").chain(flags.iter().copied()).chain([&*id]).collect();
        stage.ok(&arguments);
        assert_eq!(read(controller, file).as_deref(), Some(value), "{flags:?}");
    }
    let resources = stage.scratch.join("resources.json");
    std::fs::write(&resources, r#"{"pids": {"limit": 33}, "unknown": 1}"#).unwrap();
    // What a file says counts, and nothing else.
    stage.ok(["update", "--resources", resources.to_str().unwrap(), "--memory", "16m", &id]);
    assert_eq!(read("pids", "pids.max").as_deref(), Some("33"));
    assert_eq!(read("memory", "memory.limit_in_bytes").as_deref(), Some("33554432"));
    let mut update = stage.command(["update", "-r", "-", &id]);
    let mut update = update.stdin(std::process::Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut update.stdin.take().unwrap(), br#"{"pids": {"limit": 44}}"#).unwrap();
    assert!(update.wait().unwrap().success());
    assert_eq!(read("pids", "pids.max").as_deref(), Some("44"));
    stage.ok(["delete", "-f", &id]);
    stage.assert_clean();
}

#[test]
fn numbers_are_printed_once_or_until_the_end() {
    require_root!();
    let stage = Stage::new();
    let id = stage.create("exec sleep 1000", |_| {});
    stage.ok(["start", &id]);
    let once: Value = serde_json::from_str(stage.ok(["events", "--stats", &id]).trim()).unwrap();
    assert_eq!((&once["type"], &once["id"]), (&json!("stats"), &json!(id)));
    for key in ["cpu", "memory", "pids", "blkio", "hugetlb", "intel_rdt"] {
        assert!(once["data"].get(key).is_some_and(Value::is_object), "{key}: {once}");
    }
    assert!(once["data"]["pids"]["current"].as_u64().unwrap() >= 1, "{once}");
    assert!(once["data"].as_object().unwrap().contains_key("network_interfaces"), "{once}");
    let mut events = stage.command(["events", "--interval", "10ms", &id]);
    let mut events = events.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(events.stdout.take().unwrap()));
    for _ in 0..2 {
        let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(line["type"], "stats");
    }
    stage.ok(["kill", &id, "KILL"]);
    drop(lines);
    if !stage.is_bale() {
        // runc goes on until it cannot write.
        events.kill().unwrap();
    }
    events.wait().unwrap();
    stage.wait_stopped(&id);
    stage.ok(["delete", &id]);
    stage.assert_clean();
}

/// ps takes arguments of ps(1) after the id.
#[test]
fn processes_are_listed_as_ps_is_told() {
    require_root!();
    let stage = Stage::new();
    let id = stage.create("sleep 1000 & exec sleep 1001", |_| {});
    stage.ok(["start", &id]);
    let limit = std::time::Instant::now() + std::time::Duration::from_secs(10);
    let pids = || serde_json::from_str::<Vec<u32>>(&stage.ok(["ps", "-f", "json", &id])).unwrap();
    while pids().len() < 2 || !stage.ok(["ps", &id]).contains("sleep 1001") {
        assert!(std::time::Instant::now() < limit, "two processes");
    }
    let table = stage.ok(["ps", &id]);
    assert!(table.starts_with("UID") && table.contains("sleep 1000"), "{table}");
    let own = stage.ok(["ps", &id, "-e", "-o", "pid,comm"]);
    assert_eq!(own.lines().next().unwrap().split_whitespace().next(), Some("PID"), "{own}");
    assert_eq!(own.lines().count(), 3, "{own}");
    stage.runtime(["ps", &id, "-e", "-o", "comm"]).fails_with("pid field");
    stage.ok(["delete", "-f", &id]);
    stage.assert_clean();
}

/// What the pidfd sockets get: init's with `standard`, a further process's with `setns`.
#[test]
fn pidfds_come_over_a_socket() {
    require_root!();
    let stage = Stage::new();
    let path = stage.scratch.join("pidfd.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let path = path.to_str().unwrap();
    let id = Stage::id();
    let bundle = stage.bundle(&id, "exec sleep 1000", |_| {});
    let run = ["run", "-d", "-b", bundle.to_str().unwrap(), "--pidfd-socket", path, &id];
    let mut command = stage.command(run);
    assert!(
        command
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status()
            .unwrap()
            .success()
    );
    let exec = ["exec", "-d", "--pidfd-socket", path, &id, "sleep", "1000"];
    for word in ["standard", "setns"] {
        let (socket, _) = listener.accept().unwrap();
        let mut bytes = [0_u8; 64];
        let (length, fd) = bale_sys::socket::receive(&socket, &mut bytes).unwrap();
        assert_eq!(std::str::from_utf8(&bytes[..length]).unwrap(), word);
        bale_sys::process::send_signal(fd.expect("a pidfd"), 0).unwrap();
        if word == "standard" {
            let mut command = stage.command(exec);
            let command = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
            assert!(command.status().unwrap().success());
        }
    }
    stage.ok(["delete", "-f", &id]);
    drop(listener);
    stage.assert_clean();
}

/// Options of run: the root without pivot_root, no keyring, and what stays afterwards.
#[test]
fn options_of_run() {
    require_root!();
    let stage = Stage::new();
    let run = |script: &str, options: &[&str]| {
        let id = Stage::id();
        let bundle = stage.bundle(&id, &script.replace("$ID", &id), |_| {});
        let mut arguments = vec!["run", "--bundle", bundle.to_str().unwrap()];
        arguments.extend(options);
        arguments.push(&id);
        (stage.runtime(&arguments), id)
    };
    let (ran, _) = run("ls /proc/1/root/bin/sh; hostname", &["--no-pivot"]);
    ran.prints("/proc/1/root/bin/sh\nstage");
    let keyring = "grep -c '_ses\\.$ID:' /proc/keys; true";
    if Path::new("/proc/keys").exists() {
        run(keyring, &[]).0.prints("1");
        run(keyring, &["--no-new-keyring"]).0.prints("0");
    }
    for options in [&["--keep"][..], &["-keep", "-no-subreaper"], &["--keep=true"]] {
        let (ran, id) = run("exit 3", options);
        assert_eq!(ran.code, 3, "{ran:#?}");
        assert_eq!(stage.state(&id)["status"], "stopped");
        stage.ok(["delete", &id]);
    }
    stage.assert_clean();
}
