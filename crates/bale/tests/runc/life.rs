//! The life of a container: verbs, files, exit statuses and words that callers read.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Stdio;

use bale_testkit::require_root;
use serde_json::{Value, json};

use crate::stage::{Ran, Stage};

#[test]
fn a_container_is_created_started_killed_and_deleted() {
    require_root!();
    let stage = Stage::new();
    let id = stage.create("echo started; exec sleep 1000", |_| {});
    let state = stage.state(&id);
    assert_eq!(state["status"], "created");
    assert_eq!(state["id"], id);
    assert!(state["pid"].as_i64().unwrap() > 1 && stage.output(&id).is_empty());
    stage.ok(["start", &id]);
    assert_eq!(stage.state(&id)["status"], "running");
    stage.runtime(["start", &id]).fails_with("container");
    stage.runtime(["delete", &id]).fails_with("not stopped");
    stage.wait_output(&id, "started");
    stage.ok(["kill", &id, "KILL"]);
    stage.wait_stopped(&id);
    assert_eq!((stage.state(&id)["pid"].clone(), stage.output(&id).trim()), (json!(0), "started"));
    stage.runtime(["kill", &id, "9"]).fails_with(if stage.is_bale() { "container not running" } else { "" });
    stage.ok(["delete", &id]);
    stage.runtime(["state", &id]).fails_with("does not exist");
    stage.runtime(["delete", &id]).fails_with("does not exist");
    stage.ok(["delete", "--force", &id]);
    stage.assert_clean();
}

#[test]
fn a_created_container_is_deleted_without_force() {
    require_root!();
    let stage = Stage::new();
    let id = stage.create("true", |_| {});
    stage.ok(["delete", &id]);
    stage.assert_clean();
}

#[test]
fn an_id_is_taken_once() {
    require_root!();
    let stage = Stage::new();
    let id = stage.create("true", |_| {});
    let bundle = stage.scratch.join(&id);
    let again = stage.runtime(["run".as_ref(), "-b".as_ref(), bundle.as_os_str(), id.as_ref()]);
    again.fails_with("exist");
    assert_eq!(stage.state(&id)["status"], "created");
    for bad in ["a/b", "..", "", "a b"] {
        assert_ne!(stage.runtime(["run", "-b", bundle.to_str().unwrap(), bad]).code, 0, "{bad:?}");
    }
    stage.ok(["delete", "-f", &id]);
    stage.assert_clean();
}

#[test]
fn exit_statuses_are_handed_on() {
    require_root!();
    let stage = Stage::new();
    for (script, code) in [("exit 7", 7), ("kill -9 $$; sleep 5", 137), ("kill -TERM $$; exit 3", 3)] {
        // Process 1 is not ended by signals it sends itself; a child is.
        let script = if code == 137 { "sh -c 'kill -9 $$'; exit $?" } else { script };
        assert_eq!(stage.run(script, |_| {}).code, code, "{script}");
    }
    let id = stage.create("exec sleep 1000", |_| {});
    stage.ok(["start", &id]);
    assert_eq!(stage.runtime(["exec", &id, "sh", "-c", "exit 9"]).code, 9);
    assert_eq!(stage.runtime(["exec", &id, "sh", "-c", "kill -15 $$"]).code, 143);
    for (program, words) in [
        ("nope", "executable file not found"),
        ("/nope", "no such file"),
        ("/etc/passwd", "permission denied"),
    ] {
        let ran = stage.runtime(["exec", &id, program]);
        ran.fails_with(words);
        if stage.is_bale() {
            assert_eq!(ran.code, 255, "{program}: {ran:#?}");
        }
    }
    stage.ok(["delete", "-f", &id]);
    stage.assert_clean();
}

#[test]
fn exec_joins_everything() {
    require_root!();
    let stage = Stage::new();
    let id = stage.create("exec sleep 1000", |c| {
        crate::stage::add_namespace(c, "cgroup");
        c["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    });
    stage.ok(["start", &id]);
    let namespaces =
        "for n in cgroup ipc mnt net pid uts; do readlink /proc/$P/ns/$n; done; cut -d: -f3 /proc/$P/cgroup";
    let look = |p: &str| {
        stage.ok([
            "exec",
            "-u",
            "0:0",
            "-c",
            "CAP_SYS_PTRACE",
            "-e",
            &format!("P={p}"),
            &id,
            "sh",
            "-c",
            namespaces,
        ])
    };
    assert_eq!(look("1"), look("self"));
    let own = stage.ok([
        "exec",
        "--cwd",
        "/tmp",
        "--env",
        "A=1",
        &id,
        "sh",
        "-c",
        "id -u; pwd; echo $A; ls /proc/self/fd | wc -l",
    ]);
    assert_eq!(own, "1000\n/tmp\n1\n4\n");
    let sets =
        stage.ok(["exec", "-c", "CAP_SYS_ADMIN", "-u", "0", &id, "grep", "CapInh", "/proc/self/status"]);
    assert!(sets.ends_with("0000000000000000\n"), "{sets}");
    let pid_file = stage.scratch.join("exec.pid");
    let mut detached =
        stage.command(["exec", "-d", "--pid-file", pid_file.to_str().unwrap(), &id, "sleep", "1000"]);
    assert!(detached.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    let pid = std::fs::read_to_string(&pid_file).unwrap();
    assert!(!pid.ends_with('\n') && pid.parse::<u32>().is_ok(), "{pid:?}");
    let pids: Vec<u32> = serde_json::from_str(&stage.ok(["ps", "-f", "json", &id])).unwrap();
    assert!(pids.len() == 2 && pids.contains(&pid.parse().unwrap()), "{pids:?}");
    assert!(stage.ok(["ps", &id]).lines().count() == 3);
    stage.ok(["delete", "-f", &id]);
    stage.assert_clean();
}

#[test]
fn a_frozen_container_waits() {
    require_root!();
    let stage = Stage::new();
    let id = stage.create("exec sleep 1000", |_| {});
    stage.ok(["start", &id]);
    stage.ok(["pause", &id]);
    assert_eq!(stage.state(&id)["status"], "paused");
    stage.runtime(["exec", &id, "true"]).fails_with("paused");
    stage.ok(["resume", &id]);
    assert_eq!(stage.state(&id)["status"], "running");
    stage.runtime(["resume", &id]).fails_with(if stage.is_bale() { "not paused" } else { "" });
    stage.ok(["pause", &id]);
    stage.ok(["delete", "--force", &id]);
    stage.assert_clean();
}

#[test]
fn lists_are_as_callers_read_them() {
    require_root!();
    let stage = Stage::new();
    let id = stage.create("exec sleep 1000", |c| c["annotations"] = json!({"a": "b"}));
    let table = stage.ok(["list"]);
    assert!(table.starts_with("ID ") && table.contains(&id), "{table}");
    assert_eq!(stage.ok(["list", "-q"]).trim(), id);
    let listed: Value = serde_json::from_str(&stage.ok(["list", "--format", "json"])).unwrap();
    assert_eq!(
        (&listed[0]["id"], &listed[0]["status"], &listed[0]["annotations"]["a"]),
        (&json!(id), &json!("created"), &json!("b"))
    );
    stage.ok(["delete", "-f", &id]);
    stage.assert_clean();
}

#[test]
fn the_log_is_one_object() {
    require_root!();
    let stage = Stage::new();
    let log = stage.scratch.join("log.json");
    let log_path = log.to_str().unwrap();
    let ran = stage.runtime(["--log", log_path, "--log-format", "json", "state", "nobody"]);
    assert_eq!(ran.code, 1);
    let text = std::fs::read_to_string(&log).unwrap();
    if stage.is_bale() {
        let entry: Value = serde_json::from_str(&text).expect("one object");
        assert_eq!(entry["level"], "error");
        assert!(entry["msg"].as_str().unwrap().contains("does not exist") && entry["time"].is_string());
        std::fs::remove_file(&log).unwrap();
        let ran = stage.run("true", |_| {});
        assert_eq!((ran.code, ran.err.as_str()), (0, ""));
        assert!(!log.exists());
    }
    stage.assert_clean();
}

/// `exec` fails within the container's file system; the log's path is the host's all the same.
#[test]
fn the_log_of_exec_is_on_the_host() {
    require_root!();
    let stage = Stage::new();
    let log = stage.scratch.join("log.json");
    let id = stage.create("exec sleep 1000", |_| {});
    stage.ok(["start", &id]);
    // The same path within the container must stay as it is.
    let decoy = stage.scratch.join("rootfs").join(log.strip_prefix("/").unwrap());
    std::fs::create_dir_all(decoy.parent().unwrap()).unwrap();
    std::fs::write(&decoy, "").unwrap();
    let log_path = log.to_str().unwrap();
    let ran = stage.runtime(["--log", log_path, "--log-format", "json", "exec", &id, "/nowhere"]);
    assert_eq!(ran.code, 255, "{ran:#?}");
    let text = std::fs::read_to_string(&log).expect("the log");
    assert!(text.contains("no such file or directory"), "{text}");
    assert_eq!(std::fs::read_to_string(&decoy).unwrap(), "");
    stage.ok(["delete", "--force", &id]);
    stage.assert_clean();
}

#[test]
fn features_and_version_are_as_callers_read_them() {
    let stage = Stage::new();
    let ran = stage.runtime(["features"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let features: Value = serde_json::from_str(&ran.out).unwrap();
    assert!(features["ociVersionMin"].is_string() && features["ociVersionMax"].is_string());
    assert!(features["mountOptions"].as_array().unwrap().contains(&json!("rro")));
    let version = stage.ok(["--version"]);
    let first = version.lines().next().unwrap();
    assert!(first.starts_with("runc version ") || first.starts_with("crun version "), "{version}");
    assert!(version.contains("\nspec: "), "{version}");
}

#[test]
fn flags_repeat_and_stand_anywhere() {
    require_root!();
    let stage = Stage::new();
    if !stage.is_bale() {
        return;
    }
    let id = Stage::id();
    let bundle = stage.bundle(&id, "exit 4", |_| {});
    let bundle = bundle.to_str().unwrap();
    let ran = stage.runtime([
        "--systemd-cgroup=false",
        "--root",
        "/x",
        "--root",
        stage.scratch.join("state").to_str().unwrap(),
        "run",
        &id,
        "-bundle",
        bundle,
        "-no-subreaper",
    ]);
    assert_eq!(ran.code, 4, "{ran:#?}");
    assert_eq!(stage.runtime(["checkpoint", "--help"]).code, 1);
    stage.runtime(["restore", "--lsm-mount-context"]).fails_with("needs an argument");
    stage.runtime(["delte", "x"]).fails_with("did you mean \"delete\"");
    stage.assert_clean();
}

fn hook(stage: &Stage, name: &str, body: &str) -> Value {
    let path = stage.scratch.join(format!("hook-{name}"));
    std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).expect("hook");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("mode");
    json!({"path": path, "args": [name], "env": ["PATH=/usr/bin:/bin", format!("NAME={name}")]})
}

#[test]
fn hooks_run_in_order_with_the_state() {
    require_root!();
    let stage = Stage::new();
    let record = stage.scratch.join("record");
    let body = format!(
        "read -r state; echo \"$NAME $state\" >> {}; env | grep -v -E '^(NAME|PATH|PWD|SHLVL|_|OLDPWD)='; true",
        record.display()
    );
    let id = stage.create("exec sleep 1000", |c| {
        for name in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
            c["hooks"][name] = json!([hook(&stage, name, &body)]);
        }
        let inner = json!({"path": "/bin/sh", "args": ["sh", "-c", "cat > /started; echo $A >> /started"]});
        c["hooks"]["startContainer"] = json!([inner]);
        c["process"]["env"].as_array_mut().unwrap().push(json!("A=own"));
    });
    let names = || {
        let text = std::fs::read_to_string(&record).unwrap_or_default();
        text.lines().map(|l| l.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
    };
    // runc before 1.5 ran poststart hooks too early.
    let early = |names: String| names.trim_end_matches(" poststart").to_owned();
    assert_eq!(
        if stage.is_bale() { names() } else { early(names()) },
        "prestart createRuntime createContainer"
    );
    stage.ok(["start", &id]);
    assert_eq!(names(), "prestart createRuntime createContainer poststart");
    let started = std::fs::read_to_string(stage.scratch.join("rootfs/started")).unwrap();
    assert!(started.contains(&id) && started.contains("\"created\""), "{started}");
    stage.ok(["delete", "-f", &id]);
    assert_eq!(names(), "prestart createRuntime createContainer poststart poststop");
    let states = std::fs::read_to_string(&record).unwrap();
    for line in states.lines() {
        let (name, state) = line.split_once(' ').unwrap();
        let state: Value = serde_json::from_str(state).unwrap_or_else(|e| panic!("{name}: {e}: {state}"));
        assert_eq!(state["id"], id);
        let expected = match name {
            "poststart" => "running",
            "poststop" => "stopped",
            // As crun tells it; runc says "creating".
            "prestart" => "created",
            _ => "creating",
        };
        if stage.is_bale() {
            assert_eq!(state["status"], expected, "{name}");
        }
        assert!(name == "poststop" || state["pid"].as_i64().unwrap() > 0, "{line}");
    }
    stage.assert_clean();
}

#[test]
fn a_hook_that_fails_or_hangs_ends_the_creation() {
    require_root!();
    let stage = Stage::new();
    for name in ["prestart", "createRuntime", "createContainer", "startContainer"] {
        let ran = stage.run("true", |c| c["hooks"][name] = json!([{"path": "/bin/false"}]));
        assert_ne!(ran.code, 0, "{name}: {ran:#?}");
        if stage.is_bale() {
            ran.fails_with("/bin/false");
        }
    }
    let ran = stage.run("true", |c| {
        let mut slow = hook(&stage, "slow", "exec sleep 100");
        slow["timeout"] = json!(1);
        c["hooks"]["createRuntime"] = json!([slow]);
    });
    assert_ne!(ran.code, 0, "{ran:#?}");
    stage.assert_clean();
}

#[test]
fn a_terminal_comes_over_the_console_socket() {
    require_root!();
    let stage = Stage::new();
    let id = Stage::id();
    let bundle =
        stage.bundle(&id, "tty; stat -c %t /dev/console; stty size; read -r line; echo got $line", |c| {
            c["process"]["terminal"] = json!(true);
            c["process"]["consoleSize"] = json!({"height": 33, "width": 77});
        });
    stage.runtime(["create".as_ref(), "-b".as_ref(), bundle.as_os_str(), id.as_ref()]).fails_with("console");
    let path = stage.scratch.join("console.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let arguments =
        ["create", "-b", bundle.to_str().unwrap(), "--console-socket", path.to_str().unwrap(), &id];
    let mut create = stage.command(arguments);
    assert!(create.stdout(Stdio::null()).stderr(Stdio::inherit()).status().unwrap().success());
    let (socket, _) = listener.accept().unwrap();
    let mut name = [0_u8; 4096];
    let (length, master) = bale_sys::socket::receive(&socket, &mut name).unwrap();
    assert!(length > 0);
    let mut master = std::fs::File::from(master.expect("a descriptor"));
    stage.ok(["start", &id]);
    master.write_all(b"hello\n").unwrap();
    stage.wait_stopped(&id);
    let text = read_terminal(&master);
    for part in ["/dev/pts/0", "88", "33 77", "got hello"] {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
    drop(master);
    stage.ok(["delete", &id]);
    stage.assert_clean();
}

fn read_terminal(mut master: &std::fs::File) -> String {
    use std::io::Read;
    let mut text = Vec::new();
    // EIO is the end: nobody has the other side.
    let _ = master.read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn descriptors_are_kept_when_asked() {
    require_root!();
    let stage = Stage::new();
    let id = Stage::id();
    let bundle = stage.bundle(&id, "cat <&3; ls /proc/self/fd | wc -l", |_| {});
    std::fs::write(stage.scratch.join("given"), "given\n").unwrap();
    // The shell opens descriptor 3 for the runtime.
    let command = stage.command(["run", "-b", bundle.to_str().unwrap(), "--preserve-fds", "1", &id]);
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|w| bale_testkit::command::quoted(&w.to_string_lossy()))
        .collect();
    let line = format!("exec 3< {}; exec {}", stage.scratch.join("given").display(), words.join(" "));
    let output = std::process::Command::new("sh").args(["-c", &line]).stdin(Stdio::null()).output().unwrap();
    Ran::of(&output).prints("given\n5");
    let id = Stage::id();
    let bundle = stage.bundle(&id, "true", |_| {});
    let ran = stage.runtime(["run", "-b", bundle.to_str().unwrap(), "--preserve-fds", "60", &id]);
    assert_ne!(ran.code, 0, "{ran:#?}");
    if stage.is_bale() {
        stage.assert_clean();
    }
}

#[test]
fn what_was_cut_short_is_removed_by_force() {
    require_root!();
    let stage = Stage::new();
    if !stage.is_bale() {
        return;
    }
    let id = Stage::id();
    let state = stage.scratch.join("state").join(&id);
    // Killed before it wrote anything.
    std::fs::create_dir_all(&state).unwrap();
    stage.ok(["delete", "--force", &id]);
    assert!(!Path::new(&state).exists());
    stage.assert_clean();
}
