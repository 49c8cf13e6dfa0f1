//! Further processes in a running container.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use bale_testkit::require_root;
use serde_json::{Value, json};

use crate::stage::{Stage, add_mount, add_namespace};

fn no_mkdir(action: &str) -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": action}],
    })
}

fn running(stage: &Stage, change: impl FnOnce(&mut Value)) -> String {
    let id = stage.create("exec sleep 1000", change);
    stage.ok(["start", &id]);
    id
}

/// A process description as `--process` takes it.
fn description(stage: &Stage, script: &str, change: impl FnOnce(&mut Value)) -> PathBuf {
    let mut process = json!({
        "args": ["/bin/sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0},
        "noNewPrivileges": true,
    });
    change(&mut process);
    let path = stage.scratch.join(Stage::id());
    std::fs::write(&path, process.to_string()).expect("write");
    path
}

/// Whoever can write to the bundle later gives no process more than the container was made with.
#[test]
fn a_bundle_that_changes_changes_no_process() {
    require_root!();
    let stage = Stage::new();
    let id = running(&stage, |c| {
        c["linux"]["seccomp"] = no_mkdir("SCMP_ACT_ERRNO");
        c["linux"]["personality"] = json!({"domain": "LINUX32"});
    });
    let path = stage.scratch.join(&id).join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW"});
    config["linux"]["personality"] = json!({"domain": "LINUX"});
    if stage.is_bale() {
        // runc reads the process anew.
        config["process"]["user"]["uid"] = json!(7);
        config["process"]["capabilities"]["bounding"] = json!(["CAP_SYS_ADMIN"]);
    }
    std::fs::write(&path, config.to_string()).unwrap();
    let script =
        "mkdir /tmp/x 2>/dev/null || echo refused; uname -m; id -u; grep CapBnd /proc/self/status | cut -f2";
    let expected = "refused\ni686\n0\n0000000020000420\n";
    assert_eq!(stage.ok(["exec", &id, "sh", "-c", script]), expected);
    let file = description(&stage, script, |_| {});
    assert_eq!(stage.ok(["exec", "--process", file.to_str().unwrap(), &id]), expected);
    if stage.is_bale() {
        std::fs::remove_file(&path).unwrap();
        assert_eq!(stage.ok(["exec", &id, "sh", "-c", script]), expected);
    }
    stage.ok(["delete", "-f", &id]);
    stage.assert_clean();
}

/// What a description leaves open is the container's.
#[test]
fn a_description_is_completed_from_the_containers_process() {
    require_root!();
    let stage = Stage::new();
    let id = running(&stage, |c| {
        c["process"]["user"]["umask"] = json!(0o27);
        c["process"]["oomScoreAdj"] = json!(321);
        c["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 5});
        c["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_IDLE", "priority": 0});
    });
    let script = "umask; cat /proc/self/oom_score_adj; cut -d' ' -f19,41 /proc/self/stat; ionice; \
                  grep CapBnd /proc/self/status | cut -f2";
    let file = description(&stage, script, |_| {});
    let ran = stage.ok(["exec", "-p", file.to_str().unwrap(), &id]);
    assert_eq!(ran, "0027\n321\n5 3\nidle\n0000000020000420\n");
    let own = description(&stage, script, |p| {
        p["capabilities"] = json!({"bounding": ["CAP_CHOWN"]});
    });
    let ran = stage.ok(["exec", "-p", own.to_str().unwrap(), &id]);
    assert_eq!(ran, "0027\n321\n5 3\nidle\n0000000000000001\n");
    stage.ok(["delete", "-f", &id]);
    stage.assert_clean();
}

fn accept(listener: &UnixListener) -> (Value, OwnedFd) {
    let (socket, _) = listener.accept().expect("accept");
    let mut bytes = vec![0_u8; 65_536];
    let (length, fd) = bale_sys::socket::receive(&socket, &mut bytes).expect("recvmsg");
    (serde_json::from_slice(&bytes[..length]).expect("JSON"), fd.expect("a listener"))
}

/// The one who answers goes away here, which makes the calls fail as unknown ones.
#[test]
fn a_notifying_filter_sends_a_listener_for_each_process() {
    require_root!();
    let stage = Stage::new();
    crate::namespaces::open_up(&stage);
    let path = stage.scratch.join("listener.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let script = "mkdir /tmp/y 2>&1 | grep -o 'not implemented'";
    for (users, no_new_privileges) in [(false, true), (false, false), (true, true)] {
        let id = running(&stage, |c| {
            c["linux"]["seccomp"] = no_mkdir("SCMP_ACT_NOTIFY");
            c["linux"]["seccomp"]["listenerPath"] = json!(path);
            c["linux"]["seccomp"]["listenerMetadata"] = json!("words");
            c["process"]["noNewPrivileges"] = json!(no_new_privileges);
            if users {
                crate::namespaces::with_users(c);
            }
        });
        let (first, _) = accept(&listener);
        assert_eq!((&first["state"]["status"], &first["metadata"]), (&json!("creating"), &json!("words")));
        let file = description(&stage, script, |p| p["noNewPrivileges"] = json!(no_new_privileges));
        let pid_file = stage.scratch.join("exec.pid");
        let arguments = ["exec", "-p", file.to_str().unwrap(), "--pid-file", pid_file.to_str().unwrap(), &id];
        let child = stage.command(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let (second, fd) = accept(&listener);
        drop(fd);
        let output = child.wait_with_output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "not implemented\n",
            "{users} {no_new_privileges}"
        );
        let pid: i64 = std::fs::read_to_string(&pid_file).unwrap().parse().unwrap();
        if no_new_privileges {
            assert_eq!(second["pid"], json!(pid), "{second}");
        }
        assert_eq!(second["fds"], json!(["seccompFd"]));
        assert_eq!(second["state"]["id"], json!(id));
        if stage.is_bale() {
            assert_eq!(second["state"]["pid"], first["pid"], "{second}");
            assert_eq!(second["state"]["status"], "running");
        }
        stage.ok(["delete", "-f", &id]);
    }
    drop(listener);
    stage.assert_clean();
}

#[test]
fn a_notifying_filter_without_a_reader_is_an_error() {
    require_root!();
    let stage = Stage::new();
    let path = stage.scratch.join("nobody.sock");
    let ran = stage.run("true", |c| {
        c["linux"]["seccomp"] = no_mkdir("SCMP_ACT_NOTIFY");
        c["linux"]["seccomp"]["listenerPath"] = json!(path);
    });
    ran.fails_with("nobody.sock");
    let ran = stage.run("true", |c| c["linux"]["seccomp"] = no_mkdir("SCMP_ACT_NOTIFY"));
    ran.fails_with("listenerPath");
    stage.assert_clean();
}

/// Cgroups of a running container by controller; `0::` is the unified one.
fn cgroups(pid: &Value) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("cgroup");
    text.lines()
        .map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            (parts.next().expect("names").to_owned(), parts.next().expect("path").to_owned())
        })
        .collect()
}

#[test]
fn a_process_joins_cgroups_below_by_controller() {
    require_root!();
    let stage = Stage::new();
    let pids = Path::new("/sys/fs/cgroup/pids");
    if !pids.join("tasks").exists() {
        bale_testkit::note_skip("needs the pids controller on cgroup v1");
        return;
    }
    let id = running(&stage, |_| {});
    let own = cgroups(&stage.state(&id)["pid"]);
    let path = own.iter().find(|(c, _)| c == "pids").unwrap().1.clone();
    std::fs::create_dir(pids.join(path.trim_start_matches('/')).join("below")).unwrap();
    let show = ["cat", "/proc/self/cgroup"];
    let joined = stage.ok(["exec", "--cgroup", "pids:below", &id, show[0], show[1]]);
    for line in joined.lines() {
        assert_eq!(line.ends_with("/below"), line.contains(":pids:"), "{joined}");
    }
    stage.runtime(["exec", "--cgroup", "pids:other", &id, "true"]).fails_with("other");
    stage.runtime(["exec", "--cgroup", "nothing:below", &id, "true"]).fails_with("nothing");
    stage.runtime(["exec", "--cgroup", "pids:../..", &id, "true"]).fails_with("sub cgroup path");
    stage.ok(["delete", "-f", &id]);
    stage.assert_clean();
}

fn unified_mount() -> Option<PathBuf> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let line = text.lines().find(|line| line.contains(" - cgroup2 "))?;
    line.split(' ').nth(4).map(PathBuf::from)
}

/// Init has moved into a cgroup below the container's and gives that one's controllers to it: the container's own takes
/// no process any more.
#[test]
fn a_process_follows_init_into_a_cgroup_below() {
    require_root!();
    let stage = Stage::new();
    let Some(mount) = unified_mount() else {
        bale_testkit::note_skip("needs a cgroup v2 mount");
        return;
    };
    if !stage.is_bale() && mount != Path::new("/sys/fs/cgroup") {
        // On a hybrid host runc does not put processes into v2.
        return;
    }
    let id = running(&stage, |_| {});
    let pid = stage.state(&id)["pid"].clone();
    let path = cgroups(&pid).into_iter().find(|(c, _)| c.is_empty()).unwrap().1;
    let group = mount.join(path.trim_start_matches('/'));
    let controllers = std::fs::read_to_string(group.join("cgroup.controllers")).unwrap();
    let Some(controller) =
        controllers.split_whitespace().find(|c| !matches!(*c, "cpu" | "pids" | "perf_event" | "cpuset"))
    else {
        stage.ok(["delete", "-f", &id]);
        bale_testkit::note_skip("needs a domain controller on cgroup v2");
        return;
    };
    std::fs::create_dir(group.join("init")).unwrap();
    std::fs::write(group.join("init/cgroup.procs"), pid.to_string()).unwrap();
    std::fs::write(group.join("cgroup.subtree_control"), format!("+{controller}")).unwrap();
    let shown = stage.ok(["exec", &id, "cat", "/proc/self/cgroup"]);
    assert!(shown.contains(&format!("0::{path}/init\n")), "{shown}");
    stage.ok(["delete", "-f", &id]);
    stage.assert_clean();
}

/// What callers look for in the words, and the statuses: a directory is no program.
#[test]
fn words_for_what_cannot_be_executed() {
    require_root!();
    let stage = Stage::new();
    let id = running(&stage, |c| add_namespace(c, "cgroup"));
    for (program, words) in [
        ("/etc", "is a directory"),
        ("nope", "executable file not found in $PATH"),
        ("/bin/sh/x", "not a directory"),
        ("/etc/passwd", "permission denied"),
    ] {
        stage.runtime(["exec", &id, program]).fails_with(words);
    }
    stage.runtime(["exec", &id]).fails_with("cannot be empty");
    stage.runtime(["exec", "nobody", "true"]).fails_with("does not exist");
    stage.ok(["delete", "-f", &id]);
    stage.assert_clean();
}

/// Processors: all, unless the config says otherwise.
#[test]
fn processors_are_all_unless_asked_otherwise() {
    require_root!();
    let stage = Stage::new();
    let all = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap().trim().to_owned();
    if all == "0" {
        bale_testkit::note_skip("needs two processors");
        return;
    }
    let script = "grep Cpus_allowed_list /proc/self/status | cut -f2";
    let id = Stage::id();
    let bundle = stage.bundle(&id, script, |_| {});
    let narrow = |arguments: &[&str]| {
        let command = stage.command(arguments);
        let mut narrowed = std::process::Command::new("taskset");
        narrowed.arg("-c").arg("0").arg(command.get_program()).args(command.get_args());
        crate::stage::Ran::of(&narrowed.stdin(Stdio::null()).output().unwrap())
    };
    narrow(&["run", "-b", bundle.to_str().unwrap(), &id]).prints(&all);
    let id = running(&stage, |c| add_mount(c, "/t", "tmpfs", "t", &[]));
    narrow(&["exec", &id, "sh", "-c", script]).prints(&all);
    let file = description(&stage, script, |p| p["execCPUAffinity"] = json!({"initial": "0", "final": "1"}));
    narrow(&["exec", "-p", file.to_str().unwrap(), &id]).prints("1");
    stage.ok(["delete", "-f", &id]);
    stage.assert_clean();
}

#[test]
fn what_is_no_error_is_told_only_without_a_log() {
    require_root!();
    let stage = Stage::new();
    let id = stage.create("sleep 100", |_| {});
    stage.ok(["start", &id]);
    let process = stage.scratch.join("process.json");
    let affinity = json!({"args": ["/bin/true"], "cwd": "/", "execCPUAffinity": {"initial": "0"}});
    std::fs::write(&process, affinity.to_string()).unwrap();
    let process = process.to_str().unwrap();
    let ran = stage.runtime(["--debug", "exec", "--process", process, &id]);
    assert!(ran.code == 0 && ran.err.contains("affinity: 0x1"), "{ran:#?}");
    let log = stage.scratch.join("log");
    let log = log.to_str().unwrap();
    let ran = stage.runtime(["--debug", "--log", log, "exec", "--process", process, &id]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:#?}");
    stage.ok(["delete", "-f", &id]);
    let strange =
        |c: &mut Value| c["process"]["capabilities"]["bounding"] = json!(["CAP_KILL", "CAP_OF_TOMORROW"]);
    let ran = stage.run("true", |c| {
        strange(c);
        for set in ["effective", "permitted"] {
            c["process"]["capabilities"][set] = json!(["CAP_KILL"]);
        }
    });
    let told = "ignoring unknown or unavailable capabilities: [CAP_OF_TOMORROW]";
    assert!(ran.code == 0 && ran.err.contains(told), "{ran:#?}");
    stage.assert_clean();
}
