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

#[test]
fn a_mount_can_be_changed_afterwards() {
    require_root!();
    let stage = Stage::new();
    let source = stage.scratch.join("source");
    std::fs::create_dir_all(&source).unwrap();
    let source = source.to_str().unwrap();
    let script = "awk '$5==\"/t\"{print $6, $NF}' /proc/self/mountinfo";
    for (options, mount, file_system) in [
        (&["remount", "ro"][..], "ro,relatime", "ro,size=2048k"),
        (&["remount", "noexec", "size=1m"], "rw,noexec,relatime", "rw,size=1024k"),
        (&["remount", "nosuid", "noatime"], "rw,nosuid,noatime", "rw,size=2048k"),
    ] {
        let ran = stage.run(script, |c| {
            add_mount(c, "/t", "tmpfs", "tmpfs", &["nosuid", "size=2m"]);
            add_mount(c, "/t", "none", "none", options);
        });
        let words: Vec<&str> = ran.out.split_whitespace().collect();
        assert_eq!((ran.code, words.first()), (0, Some(&mount)), "{options:?}: {ran:#?}");
        assert!(words[1].starts_with(file_system), "{options:?}: {ran:#?}");
    }
    // Of a bound directory only the mount is changed, never the host's file system.
    let ran = stage.run("awk '$5==\"/t\"{print $6}' /proc/self/mountinfo", |c| {
        add_mount(c, "/t", "bind", source, &["bind", "rprivate"]);
        add_mount(c, "/t", "bind", source, &["remount", "bind", "ro", "nodev"]);
    });
    assert!(ran.out.starts_with("ro,nodev,"), "{ran:#?}");
    std::fs::write(format!("{source}/still-writable"), "").unwrap();
    if stage.is_bale() {
        let ran = stage.run("true", |c| add_mount(c, "/etc", "none", "none", &["remount", "ro"]));
        ran.fails_with("there is no mount at this place");
        let ran = stage.run("true", |c| {
            add_mount(c, "/t", "tmpfs", "tmpfs", &[]);
            add_mount(c, "/t", "none", "none", &["remount", "size=strange"]);
        });
        ran.fails_with("size");
    }
    stage.assert_clean();
}

/// Options of crun's, which podman uses.
#[test]
fn links_are_copied_bound_and_mounted_on() {
    require_root!();
    let stage = Stage::new();
    let features: Value = serde_json::from_str(&stage.ok(["features"])).unwrap();
    if !features["mountOptions"].as_array().unwrap().contains(&json!("copy-symlink")) {
        return;
    }
    let source = stage.scratch.join("source");
    std::fs::create_dir_all(&source).unwrap();
    std::fs::write(source.join("file"), "content").unwrap();
    std::os::unix::fs::symlink("/no/where", source.join("link")).unwrap();
    std::os::unix::fs::symlink("file", source.join("good")).unwrap();
    let at = |name: &str| source.join(name).to_str().unwrap().to_owned();
    let etc = stage.scratch.join("rootfs/etc");
    std::os::unix::fs::symlink("passwd", etc.join("there")).unwrap();

    stage
        .run("readlink /new/copy; readlink /new/copy2; cat /new/file", |c| {
            add_mount(c, "/new/copy", "bind", &at("link"), &["bind", "copy-symlink"]);
            add_mount(c, "/new/copy2", "bind", &at("link"), &["bind", "copy-symlink"]);
            add_mount(c, "/new/file", "bind", &at("file"), &["bind", "copy-symlink"]);
        })
        .prints("/no/where\n/no/where\ncontent");
    // The same link again is no error, another is.
    stage
        .run("readlink /etc/there", |c| {
            add_mount(c, "/etc/there", "bind", &at("good"), &["bind", "copy-symlink"]);
        })
        .fails_with(if stage.is_bale() { "/etc/there" } else { "" });
    stage
        .run("readlink /new/copy", |c| {
            add_mount(c, "/new/copy", "bind", &at("link"), &["bind", "copy-symlink"]);
        })
        .prints("/no/where");
    if !stage.is_bale() {
        // crun wants the target to be there.
        return;
    }
    // The link itself is bound.
    stage
        .run("readlink /new/bound", |c| {
            add_mount(c, "/new/bound", "bind", &at("link"), &["bind", "src-nofollow"]);
        })
        .prints("/no/where");
    // The link itself is mounted on: what it points to is as it was.
    stage
        .run("readlink /etc/there; grep -c root /etc/passwd", |c| {
            let options = ["bind", "src-nofollow", "dest-nofollow"];
            add_mount(c, "/etc/there", "bind", &at("link"), &options);
        })
        .prints("/no/where\n1");
    for (destination, options) in [
        ("/new/x", &["bind", "copy-symlink", "src-nofollow"][..]),
        ("/no/such", &["bind", "dest-nofollow"]),
        ("/proc/self", &["bind", "dest-nofollow"]),
    ] {
        let ran = stage.run("true", |c| add_mount(c, destination, "bind", &at("link"), options));
        assert_ne!(ran.code, 0, "{options:?}: {ran:#?}");
    }
    stage.assert_clean();
}

/// What runc puts there, some programs look at.
#[test]
fn sources_of_mounts_are_those_of_runc() {
    require_root!();
    let stage = Stage::new();
    let script = "awk '{i=index($0, \" - \"); split(substr($0, i+3), w, \" \"); \
                  if ($5 ~ /cgroup|firmware/) print w[1], w[2]}' /proc/self/mountinfo | sort -u";
    let ran = stage.run(script, |c| {
        add_mount(c, "/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]);
        crate::stage::add_namespace(c, "cgroup");
        c["linux"]["maskedPaths"] = json!(["/sys/firmware"]);
    });
    for line in ran.out.lines() {
        assert!(
            ["cgroup cgroup", "cgroup systemd", "cgroup2 cgroup", "tmpfs tmpfs"].contains(&line),
            "{ran:#?}"
        );
    }
    assert!(ran.out.contains("cgroup") && ran.out.contains("tmpfs"), "{ran:#?}");
    stage.assert_clean();
}
