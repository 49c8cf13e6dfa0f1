//! What users other than root see of images and containers: nothing, whatever the umask (CVE-2021-41091 of docker,
//! CVE-2021-41103 of containerd: set-id programs of images within reach of every user); and no socket that a container
//! on the host's network could connect to (CVE-2020-15257 of containerd).

#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use bale_testkit::Bale;
use serde_json::Value;

/// What a script of another user says.
fn stranger(script: &str) -> String {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).uid(65_534).gid(65_534).stdin(Stdio::null()).env_clear();
    let output = command.env("PATH", "/usr/bin:/bin").output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn prepared() -> Bale {
    let bale = bale_testkit::bale!();
    // Nothing above what bale makes keeps anybody out, and neither does the umask.
    fs::set_permissions(bale.dir(), fs::Permissions::from_mode(0o755)).unwrap();
    rustix::process::umask(rustix::fs::Mode::empty());
    bale.load_busybox();
    bale
}

/// Whatever is below `dir` and can be changed by anybody, except what is a container's or an image's.
fn open_to_all(dir: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let (meta, name) = (entry.metadata().unwrap(), entry.file_name());
        if ["upper", "work", "_data", "diff", "rootfs"].iter().any(|inner| name == *inner) {
            continue;
        }
        if meta.mode() & 0o022 != 0 && !meta.is_symlink() {
            found.push(format!("{:o} {}", meta.mode(), entry.path().display()));
        }
        if meta.is_dir() {
            open_to_all(&entry.path(), found);
        }
    }
}

#[test]
fn nobody_else_reaches_a_store_a_bundle_or_an_archive() {
    bale_testkit::require_root!();
    let bale = prepared();
    bale.ok([
        "run",
        "-d",
        "--name",
        "web",
        "-e",
        "TOKEN=hunter2",
        "-v",
        "vol:/data",
        "busybox",
        "sleep",
        "1000",
    ]);
    bale.ok(["bundle", "busybox", "made"]);
    bale.ok(["save", "-o", "image.tar", "busybox"]);
    bale.ok(["export", "-o", "web.tar", "web"]);
    bale.ok(["runc", "--root", "state", "run", "--bundle", "made", "once"]);
    let dir = bale.dir().display();
    let seen = stranger(&format!("ls {dir}"));
    for name in ["bale", "made", "image.tar", "web.tar", "state"] {
        assert!(seen.lines().any(|line| line == name), "the stranger must come as far as {name}: {seen:?}");
        let below = stranger(&format!("cat {dir}/{name} 2>/dev/null; find {dir}/{name} 2>/dev/null"));
        assert_eq!(below.trim(), format!("{dir}/{name}"), "a stranger sees what is in {name}");
    }
    let mut open = Vec::new();
    open_to_all(&bale.root(), &mut open);
    open_to_all(&bale.dir().join("made"), &mut open);
    assert_eq!(open, [""; 0]);
}

#[test]
fn a_supervisor_shows_no_secret_and_listens_at_no_address_that_a_container_has() {
    bale_testkit::require_root!();
    let bale = prepared();
    bale.ok([
        "run",
        "-d",
        "--name",
        "web",
        "--net",
        "host",
        "-e",
        "TOKEN=hunter2",
        "busybox",
        "sleep",
        "1000",
    ]);
    let id = bale.ok(["inspect", "--format", "{{.Id}}", "web"]);
    let directory = bale.root().join("containers").join(id.trim());
    let record: Value = serde_json::from_slice(&fs::read(directory.join("record.json")).unwrap()).unwrap();
    let supervisor = format!("/proc/{}", record["supervisor"]["pid"]);
    let words = fs::read(format!("{supervisor}/cmdline")).unwrap();
    assert!(!words.is_empty() && !String::from_utf8_lossy(&words).contains("hunter2"));
    assert_eq!(stranger(&format!("cat {supervisor}/environ 2>/dev/null")), "");

    let sockets: Vec<String> = fs::read_dir(format!("{supervisor}/fd"))
        .unwrap()
        .filter_map(|entry| {
            fs::read_link(entry.unwrap().path()).ok()?.to_str()?.strip_prefix("socket:[").map(str::to_owned)
        })
        .map(|inode| inode.trim_end_matches(']').to_owned())
        .collect();
    let table = bale.ok(["exec", "web", "cat", "/proc/net/unix"]);
    let listed: Vec<&str> = table
        .lines()
        .filter(|line| sockets.iter().any(|inode| line.split_whitespace().nth(6) == Some(inode)))
        .collect();
    assert!(!listed.is_empty(), "the container sees the host's sockets, so it sees the supervisor's");
    assert!(listed.iter().all(|line| !line.contains('@')), "an abstract address: {listed:?}");
    assert!(listed.iter().any(|line| line.ends_with("/control.sock")), "{listed:?}");
}
