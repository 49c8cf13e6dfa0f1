//! Namespaces made and joined.

use bale_testkit::require_root;
use serde_json::{Value, json};

use crate::stage::{Stage, add_mount, add_namespace};

pub fn with_users(c: &mut Value) {
    add_namespace(c, "user");
    c["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    c["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": 200_000, "size": 65_536}]);
}

#[test]
fn a_user_namespace_maps_ids() {
    require_root!();
    let stage = Stage::new();
    open_up(&stage);
    let ran = stage
        .run("cat /proc/self/uid_map /proc/self/gid_map; id -u; stat -c '%u %t:%T' /dev/null", with_users);
    assert_eq!(ran.code, 0, "{ran:#?}");
    let words: Vec<&str> = ran.out.split_whitespace().collect();
    assert_eq!(words[..7], ["0", "100000", "65536", "0", "200000", "65536", "0"], "{ran:#?}");
    assert_eq!(words.last(), Some(&"1:3"), "{ran:#?}");
    let ran = stage.run("id -u; id -G; grep CapEff /proc/self/status | cut -f2", |c| {
        with_users(c);
        c["process"]["user"] = json!({"uid": 1000, "gid": 1000, "additionalGids": [7]});
    });
    ran.prints("1000\n1000 7\n0000000000000000");
    stage.assert_clean();
}

#[test]
fn limits_are_raised_for_a_user_namespace_by_the_parent() {
    require_root!();
    let stage = Stage::new();
    open_up(&stage);
    let ran = stage.run("ulimit -Sn", |c| {
        with_users(c);
        c["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 88}]);
    });
    ran.prints("77");
    stage.assert_clean();
}

#[test]
fn a_mount_can_map_ids() {
    require_root!();
    let stage = Stage::new();
    open_up(&stage);
    let source = stage.scratch.join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file"), "x").unwrap();
    let source = source.to_str().unwrap();
    let ran = stage.run("stat -c '%u %g' /mnt/file", |c| {
        with_users(c);
        add_mount(c, "/mnt", "bind", source, &["bind", "idmap", "rprivate"]);
    });
    if ran.code != 0 && ran.err.contains("IDMAP") {
        bale_testkit::note_skip("needs a file system for temporary files that can map ids");
    } else {
        ran.prints("0 0");
    }
    stage.assert_clean();
}

/// Ids of a user namespace must reach the root file system.
pub fn open_up(stage: &Stage) {
    use std::os::unix::fs::PermissionsExt;
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(stage.scratch.path(), open.clone()).expect("open up");
    std::fs::set_permissions(stage.scratch.join("rootfs"), open).expect("open up");
    for name in ["proc", "dev", "sys", "tmp", "mnt"] {
        std::fs::create_dir_all(stage.scratch.join("rootfs").join(name)).expect("open up");
    }
}

#[test]
fn clocks_have_offsets() {
    require_root!();
    let stage = Stage::new();
    let ran = stage.run("cat /proc/self/timens_offsets | tr -s ' \t' ' '; cut -d. -f1 /proc/uptime", |c| {
        add_namespace(c, "time");
        c["linux"]["timeOffsets"] = json!({"monotonic": {"secs": 1000}, "boottime": {"secs": 100_000_000}});
    });
    assert_eq!(ran.code, 0, "{ran:#?}");
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!(lines[..2], ["monotonic 1000 0", "boottime 100000000 0"], "{ran:#?}");
    assert!(lines[2].parse::<u64>().unwrap() > 100_000_000, "{ran:#?}");
    stage.assert_clean();
}

#[test]
fn namespaces_are_joined_by_path() {
    require_root!();
    let stage = Stage::new();
    let first = stage.create("exec sleep 1000", |c| c["hostname"] = json!("first"));
    stage.ok(["start", &first]);
    let pid = stage.state(&first)["pid"].as_i64().unwrap();
    let ran = stage.run("hostname; cat /proc/1/cmdline | tr '\\0' ' '; ls /proc | grep -c '^[0-9]'", |c| {
        c["hostname"] = Value::Null;
        c.as_object_mut().unwrap().remove("hostname");
        let join = |kind: &str, file: &str| json!({"type": kind, "path": format!("/proc/{pid}/ns/{file}")});
        c["linux"]["namespaces"] = json!([
            {"type": "mount"}, join("pid", "pid"), join("uts", "uts"), join("ipc", "ipc"), join("network", "net"),
        ]);
    });
    assert_eq!(ran.code, 0, "{ran:#?}");
    let lines: Vec<&str> = ran.out.lines().collect();
    assert!(lines[0] == "first" && lines[1].starts_with("sleep 1000 "), "{ran:#?}");
    // Init goes on as another process once it is confined: it is that one that waits, starts, and is known.
    let second = stage.create("tty || exec sleep 1000", |c| {
        let path = format!("/proc/{pid}/ns/pid");
        c["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "pid", "path": path}]);
        c.as_object_mut().unwrap().remove("hostname");
    });
    let state = stage.state(&second);
    assert_eq!(state["status"], "created", "{state}");
    let other = state["pid"].as_i64().unwrap();
    let namespace = |pid| std::fs::read_link(format!("/proc/{pid}/ns/pid")).unwrap();
    assert_eq!(namespace(other), namespace(pid));
    stage.ok(["start", &second]);
    stage.wait_output(&second, "not a tty");
    assert_eq!(stage.state(&second)["pid"], other);
    stage.ok(["kill", &second, "KILL"]);
    stage.wait_stopped(&second);
    stage.ok(["delete", &second]);
    assert_eq!(stage.state(&first)["status"], "running");
    stage.ok(["delete", "--force", &first]);
    stage.assert_clean();
}

/// A config without a mount namespace of its own; `path` is one to join.
fn shared_mounts(c: &mut Value, path: Option<&str>) {
    let namespaces = c["linux"]["namespaces"].as_array_mut().expect("namespaces");
    namespaces.retain(|n| n["type"] != "mount");
    namespaces.extend(path.map(|path| json!({"type": "mount", "path": path})));
}

#[test]
fn a_container_in_the_host_mount_namespace_leaves_it_as_it_was() {
    require_root!();
    let stage = Stage::new();
    if !stage.is_bale() {
        // runc makes the host's mounts slaves and leaves its own behind.
        return;
    }
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = mounts();
    let id = stage.create("echo inside > /inside; exec sleep 100", |c| shared_mounts(c, None));
    let rootfs = stage.scratch.join("rootfs");
    let own = mounts();
    assert!(own.lines().count() > before.lines().count() && own.contains(rootfs.to_str().unwrap()), "{own}");
    let pid = stage.state(&id)["pid"].as_i64().unwrap();
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap();
    assert_eq!(namespace(&pid.to_string()), namespace("self"));
    stage.ok(["start", &id]);
    // exec is confined to the container's root, too.
    let ran = stage.runtime(["exec", &id, "/bin/sh", "-c", "cat /inside; ls -d /proc/1/root/inside"]);
    ran.prints("inside\n/proc/1/root/inside");
    stage.ok(["delete", "--force", &id]);
    assert_eq!(mounts(), before);
    let ran = stage.run("true", |c| {
        shared_mounts(c, None);
        c["linux"]["maskedPaths"] = json!(["/proc/kcore"]);
    });
    ran.fails_with("without a private MNT namespace");
    // A creation that fails takes its mounts away as well.
    let ran = stage.run("true", |c| {
        shared_mounts(c, None);
        c["process"]["args"] = json!(["/no/such"]);
    });
    ran.fails_with("no such file or directory");
    assert_eq!(mounts(), before);
    stage.assert_clean();
}

#[test]
fn a_mount_namespace_is_joined_without_changing_its_root() {
    require_root!();
    let stage = Stage::new();
    let mut other = std::process::Command::new("unshare");
    other.args(["--mount", "--propagation", "private", "sh", "-c", "echo; exec sleep 100"]);
    let mut other = other.stdout(std::process::Stdio::piped()).spawn().unwrap();
    // It is in its namespace once it has written.
    std::io::Read::read_exact(other.stdout.as_mut().unwrap(), &mut [0]).unwrap();
    let path = format!("/proc/{}/ns/mnt", other.id());
    let root = |of: u32| std::fs::metadata(format!("/proc/{of}/root/")).unwrap();
    use std::os::unix::fs::MetadataExt as _;
    let before = (root(other.id()).dev(), root(other.id()).ino());
    let ran = stage.run("readlink /proc/self/ns/mnt; ls -d /nowhere /bin", |c| shared_mounts(c, Some(&path)));
    let link = std::fs::read_link(&path).unwrap();
    if stage.is_bale() {
        assert_eq!((root(other.id()).dev(), root(other.id()).ino()), before);
    }
    other.kill().unwrap();
    other.wait().unwrap();
    assert_eq!(ran.out, format!("{}\n/bin\n", link.display()), "{ran:#?}");
    stage.assert_clean();
}
