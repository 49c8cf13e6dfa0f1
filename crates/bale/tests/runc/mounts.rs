//! Mounts, as the process sees them.

use bale_testkit::require_root;
use serde_json::{Value, json};

use crate::stage::{Stage, add_mount};

/// Returns the options and optional fields of a mount in the container.
fn flags_of(path: &str) -> String {
    format!("awk '$5==\"{path}\"{{print $6; for(i=7;$i!=\"-\";i++) print $i}}' /proc/self/mountinfo")
}

#[test]
fn mounts_have_the_options_that_were_asked_for() {
    require_root!();
    let stage = Stage::new();
    let source = stage.scratch.join("source");
    std::fs::create_dir_all(source.join("sub")).unwrap();
    std::fs::write(source.join("file"), "content").unwrap();
    let source = source.to_str().unwrap();
    let cases: &[(&[&str], &str)] = &[
        (&["bind", "ro"], "ro,relatime"),
        (&["bind", "ro", "rw"], "rw,relatime"),
        (&["bind", "nosuid", "nodev", "noexec", "rprivate"], "rw,nosuid,nodev,noexec,relatime"),
        (&["bind", "noatime", "nodiratime", "private"], "rw,noatime,nodiratime"),
        (&["rbind", "rro", "rnosuid", "rprivate"], "ro,nosuid,relatime"),
        (&["bind", "nosymfollow", "rprivate"], "rw,relatime,nosymfollow"),
    ];
    for (options, expected) in cases {
        let ran = stage.run(&flags_of("/mnt"), |c| add_mount(c, "/mnt", "bind", source, options));
        assert_eq!(ran.code, 0, "{options:?}: {ran:#?}");
        assert_eq!(ran.out.lines().next(), Some(*expected), "{options:?}: {ran:#?}");
    }
    let ran = stage.run("cat /etc/motd; cat /new/place", |c| {
        for destination in ["/etc/motd", "/new/place"] {
            add_mount(c, destination, "bind", &format!("{source}/file"), &["bind", "ro", "rprivate"]);
        }
    });
    ran.prints("contentcontent");
    // Docker finds these words, and shows a hint of its own.
    for (source, destination) in [(format!("{source}/file"), "/etc"), (source.to_owned(), "/etc/passwd")] {
        let ran = stage.run("true", |c| add_mount(c, destination, "bind", &source, &["bind"]));
        ran.fails_with("not a directory");
    }
    stage
        .run("stat -f -c %T /t; stat -c %a /t", |c| {
            add_mount(c, "/t", "tmpfs", "tmpfs", &["mode=700", "size=1m"]);
        })
        .prints("tmpfs\n700");
    stage.assert_clean();
}

#[test]
fn propagation_is_slave_unless_asked_otherwise() {
    require_root!();
    let stage = Stage::new();
    let source = stage.scratch.join("source");
    std::fs::create_dir_all(&source).unwrap();
    let source = source.to_str().unwrap();
    for (options, shared) in [(&["bind", "rprivate"][..], false), (&["bind", "shared"], true)] {
        let ran = stage.run(&flags_of("/mnt"), |c| add_mount(c, "/mnt", "bind", source, options));
        assert_eq!(ran.out.contains("shared:"), shared, "{options:?}: {ran:#?}");
    }
    for (name, part) in [("shared", "shared:"), ("private", "")] {
        let ran = stage.run(&flags_of("/"), |c| c["linux"]["rootfsPropagation"] = json!(name));
        assert_eq!(ran.out.contains("shared:"), !part.is_empty(), "{name}: {ran:#?}");
    }
    // Nothing that the host mounts in the root file system later comes into the container.
    let ran = stage.run(&flags_of("/"), |_| {});
    assert!(!ran.out.contains("shared:") && !ran.out.contains("master:"), "{ran:#?}");
    stage.assert_clean();
}

#[test]
fn targets_stay_in_the_root() {
    require_root!();
    let stage = Stage::new();
    let rootfs = stage.scratch.join("rootfs");
    let outside = stage.scratch.join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, rootfs.join("link")).unwrap();
    std::os::unix::fs::symlink("../../../../../../elsewhere", rootfs.join("up")).unwrap();
    stage.run("stat -f -c %T /link/here", |c| add_mount(c, "/link/here", "tmpfs", "t", &[]));
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0, "something was made outside");
    let ran = stage.run("stat -f -c %T /a/b", |c| add_mount(c, "/../../a/b", "tmpfs", "t", &[]));
    ran.prints("tmpfs");
    std::fs::remove_dir(rootfs.join("proc")).ok();
    std::os::unix::fs::symlink("/tmp", rootfs.join("proc")).unwrap();
    let ran = stage.run("true", |_| {});
    assert_ne!(ran.code, 0, "a linked /proc: {ran:#?}");
    stage.assert_clean();
}

#[test]
fn a_tmpfs_can_begin_with_what_is_there() {
    require_root!();
    let stage = Stage::new();
    let there = stage.scratch.join("rootfs/there");
    std::fs::create_dir_all(there.join("sub/deep")).unwrap();
    std::fs::write(there.join("sub/deep/file"), "kept").unwrap();
    std::os::unix::fs::symlink("sub/deep/file", there.join("link")).unwrap();
    let script = "cat /there/link; stat -f -c %T /there; rm /there/link; ls /there";
    let ran = stage.run(script, |c| add_mount(c, "/there", "tmpfs", "tmpfs", &["tmpcopyup", "mode=755"]));
    if stage.is_bale() {
        ran.prints("kepttmpfs\nsub");
        assert!(there.join("link").is_symlink());
    }
    stage.assert_clean();
}

#[test]
fn cgroups_are_mounted_as_the_host_has_them() {
    require_root!();
    let stage = Stage::new();
    let mount = |c: &mut Value| {
        add_mount(c, "/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]);
        crate::stage::add_namespace(c, "cgroup");
    };
    let ran =
        stage.run("grep -c cgroup /proc/self/mountinfo; cut -d: -f3 /proc/self/cgroup | sort -u", mount);
    assert_eq!(ran.code, 0, "{ran:#?}");
    assert_eq!(
        ran.out.lines().nth(1),
        Some("/"),
        "the cgroup namespace begins at the container's own: {ran:#?}"
    );
    let ran = stage.run("mkdir /sys/fs/cgroup/x 2>/dev/null || echo refused", mount);
    if stage.is_bale() {
        // On v1 runc leaves the tmpfs above the hierarchies writable.
        ran.prints("refused");
    }
    stage.assert_clean();
}
