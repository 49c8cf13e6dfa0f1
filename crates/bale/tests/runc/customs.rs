//! Customs of runc that its own tests hold on to, and its callers with them.

use std::process::Stdio;

use bale_testkit::require_root;
use serde_json::{Value, json};

use crate::namespaces::{open_up, with_users};
use crate::stage::{Ran, Stage, add_mount};

fn in_cgroup(path: &str) -> impl FnOnce(&mut Value) {
    move |c| c["linux"]["cgroupsPath"] = json!(path)
}

#[test]
fn a_container_that_may_not_have_a_cgroup_leaves_the_one_in_it_alone() {
    require_root!();
    let stage = Stage::new();
    let path = format!("/{}", Stage::id());
    let first = stage.create("exec sleep 1000", in_cgroup(&path));
    stage.ok(["start", &first]);
    for _ in 0..2 {
        stage.run("true", in_cgroup(&path)).fails_with("container's cgroup is not empty");
        assert_eq!(stage.state(&first)["status"], "running");
    }
    stage.ok(["delete", "--force", &first]);
    stage.assert_clean();
}

#[test]
fn the_user_namespace_of_another_container_is_joined() {
    require_root!();
    let stage = Stage::new();
    open_up(&stage);
    let first = stage.create("exec sleep 1000", with_users);
    stage.ok(["start", &first]);
    let pid = stage.state(&first)["pid"].as_i64().unwrap();
    let join = |c: &mut Value, also: &[(&str, &str)]| {
        let kinds = c["linux"]["namespaces"].as_array_mut().unwrap();
        for (kind, file) in [("user", "user")].iter().chain(also) {
            kinds.retain(|n| n["type"] != *kind);
            kinds.push(json!({"type": kind, "path": format!("/proc/{pid}/ns/{file}")}));
        }
    };
    // The new namespaces are the user namespace's: proc, sysfs and a host name are its own.
    let script = "cat /proc/self/uid_map; echo $$; hostname; ls /sys >/dev/null && id -u";
    let ran = stage.run(script, |c| join(c, &[]));
    assert_eq!(ran.code, 0, "{ran:#?}");
    let words: Vec<&str> = ran.out.split_whitespace().collect();
    assert_eq!((&words[..4], words[words.len() - 1]), (&["0", "100000", "65536", "1"][..], "0"), "{ran:#?}");
    // As in a pod, with a network of the first one, and known by the process that it goes on as.
    let second = stage.create("exec sleep 1000", |c| join(c, &[("network", "net"), ("ipc", "ipc")]));
    stage.ok(["start", &second]);
    let other = stage.state(&second)["pid"].as_i64().unwrap();
    let namespace = |pid: i64, kind: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
    for (kind, same) in [("user", true), ("net", true), ("ipc", true), ("pid", false), ("mnt", false)] {
        assert_eq!(namespace(pid, kind) == namespace(other, kind), same, "{kind}");
    }
    assert_eq!(stage.ok(["exec", &second, "id", "-u"]).trim(), "0");
    stage.ok(["delete", "--force", &second]);
    stage.ok(["delete", "--force", &first]);
    stage.assert_clean();
}

#[test]
fn a_network_namespace_of_the_host_is_joined_beside_a_user_namespace() {
    require_root!();
    let stage = Stage::new();
    open_up(&stage);
    let first = stage.create("exec sleep 1000", with_users);
    let pid = stage.state(&first)["pid"].as_i64().unwrap();
    let ran = stage.run("readlink /proc/self/ns/net", |c| {
        let kinds = c["linux"]["namespaces"].as_array_mut().unwrap();
        kinds.retain(|n| n["type"] != "user" && n["type"] != "network");
        kinds.push(json!({"type": "user", "path": format!("/proc/{pid}/ns/user")}));
        kinds.push(json!({"type": "network", "path": format!("/proc/{}/ns/net", std::process::id())}));
        // sysfs is for those who own the network.
        c["mounts"].as_array_mut().unwrap().retain(|m| m["type"] != "sysfs");
    });
    let host = std::fs::read_link("/proc/self/ns/net").unwrap();
    ran.prints(host.to_str().unwrap());
    stage.ok(["delete", "--force", &first]);
    stage.assert_clean();
}

#[test]
fn a_working_directory_is_entered_by_whoever_may() {
    require_root!();
    let stage = Stage::new();
    let private = |mode: &str, owner: &str| {
        let path = stage.scratch.join("rootfs/private");
        let script = format!("mkdir -p {0} && chmod {mode} {0} && chown {owner} {0}", path.display());
        assert!(std::process::Command::new("sh").args(["-c", &script]).status().unwrap().success());
    };
    // Root may, the user may not.
    private("700", "0:0");
    let as_user = |c: &mut Value| {
        c["process"]["user"] = json!({"uid": 42, "gid": 42});
        c["process"]["cwd"] = json!("/private");
    };
    stage.run("id -u", as_user).prints("42");
    // The other way round: root without the capability to override, in exec as well.
    private("700", "42:42");
    let id = stage.create("exec sleep 1000", as_user);
    stage.ok(["start", &id]);
    assert_eq!(stage.ok(["exec", "--user", "0", &id, "id", "-u"]).trim(), "0");
    assert_eq!(stage.ok(["exec", &id, "pwd"]).trim(), "/private");
    stage.ok(["delete", "--force", &id]);
    stage.assert_clean();
}

#[test]
fn what_outlives_init_is_killed_and_all_is_no_error() {
    require_root!();
    let stage = Stage::new();
    let id = stage.create("exec sleep 1000", |c| {
        c["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "pid");
    });
    stage.ok(["start", &id]);
    let mut left = stage.command(["exec", "--detach", &id, "sleep", "1000"]);
    assert!(left.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    let pid = stage.state(&id)["pid"].as_i64().unwrap();
    assert!(std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
    stage.wait_stopped(&id);
    assert!(!stage.ok(["ps", "--format", "json", &id]).trim().eq("[]"));
    stage.ok(["kill", &id, "KILL"]);
    let limit = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !matches!(stage.ok(["ps", "--format", "json", &id]).trim(), "[]" | "null") {
        assert!(std::time::Instant::now() < limit, "what init left behind is not killed");
        std::thread::yield_now();
    }
    stage.runtime(["kill", &id, "TERM"]).fails_with("container not running");
    stage.ok(["kill", "--all", &id, "TERM"]);
    stage.ok(["delete", &id]);
    stage.assert_clean();
}

#[test]
fn a_process_is_read_from_a_pipe() {
    require_root!();
    let stage = Stage::new();
    let id = stage.create("exec sleep 1000", |_| {});
    stage.ok(["start", &id]);
    let process = json!({"cwd": "/", "args": ["/bin/sh", "-c", "echo piped"]}).to_string();
    let mut writer = std::process::Command::new("echo");
    let mut writer = writer.arg(process).stdout(Stdio::piped()).spawn().unwrap();
    let mut exec = stage.command(["exec", "--process", "/dev/stdin", &id]);
    exec.stdin(writer.stdout.take().unwrap());
    Ran::of(&exec.output().unwrap()).prints("piped");
    assert!(writer.wait().unwrap().success());
    stage.ok(["delete", "--force", &id]);
    stage.assert_clean();
}

#[test]
fn a_hook_that_fails_is_told_with_its_words() {
    require_root!();
    let stage = Stage::new();
    let failing = |kind: &str| {
        let hooks = json!({kind: [{"path": "/bin/true"}, {"path": "/bin/sh", "args": ["sh", "-c", "echo ouch >&2; exit 3"]}]});
        stage.run("true", |c| c["hooks"] = hooks)
    };
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer"] {
        let ran = failing(kind);
        ran.fails_with(&format!("error running {kind} hook #1: "));
        assert!(ran.err.contains("exit status: 3") && ran.err.contains("ouch"), "{ran:#?}");
    }
    // The environment of the program is the hook's when it has none of its own.
    let script = "test $ONE = two && test -n \"$HOME\"";
    let ran = stage.run("echo started", |c| {
        c["process"]["env"] = json!(["ONE=two", "PATH=/bin"]);
        c["hooks"] = json!({"startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]});
    });
    ran.prints("started");
    stage.assert_clean();
}

#[test]
fn what_a_dangling_link_points_to_is_made_inside_the_root() {
    require_root!();
    let stage = Stage::new();
    let root = stage.scratch.join("rootfs");
    let source = stage.scratch.join("source");
    std::fs::write(&source, "mounted\n").unwrap();
    // As an image of systemd's has it; by a chain of links; and one that wants out.
    for (link, to) in [
        ("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf"),
        ("etc/hosts", "/jump/baz/hosts"),
        ("jump", "/var/foo/bar"),
        ("etc/out", "../../../../outside/file"),
        ("etc/loop", "loop"),
    ] {
        let _ = std::fs::remove_file(root.join(link));
        std::os::unix::fs::symlink(to, root.join(link)).unwrap();
    }
    let source = source.to_str().unwrap();
    let ran =
        stage.run("cat /run/systemd/resolve/stub-resolv.conf /var/foo/bar/baz/hosts /outside/file", |c| {
            for target in ["/etc/resolv.conf", "/etc/hosts", "/etc/out"] {
                add_mount(c, target, "bind", source, &["bind", "ro"]);
            }
        });
    ran.prints("mounted\nmounted\nmounted");
    assert!(root.join("outside/file").exists() && !stage.scratch.join("outside").exists());
    stage.run("true", |c| add_mount(c, "/etc/loop", "bind", source, &["bind"])).fails_with("symbolic link");
    // Directories as well, with more below the link.
    std::os::unix::fs::symlink("../srv/deep/down", root.join("etc/dir")).unwrap();
    let ran =
        stage.run("cd /srv/deep/down/more && pwd", |c| add_mount(c, "/etc/dir/more", "tmpfs", "tmpfs", &[]));
    ran.prints("/srv/deep/down/more");
    stage.assert_clean();
}

#[test]
fn a_start_container_hook_is_held_by_the_filter() {
    require_root!();
    let stage = Stage::new();
    let ran = stage.run("echo started", |c| {
        c["process"]["noNewPrivileges"] = json!(true);
        c["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL"}],
        });
        c["hooks"] = json!({"startContainer": [{"path": "/bin/mkdir", "args": ["mkdir", "/tmp/x"]}]});
    });
    ran.fails_with("error running startContainer hook #0: ");
    assert!(ran.err.contains("bad system call"), "{ran:#?}");
    stage.assert_clean();
}
