use std::fs::{create_dir_all, write};
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;
use crate::set;

/// A bundle whose program is this test, which is static and of this machine.
fn bundle() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path().join(CONFIG), bale_spec::generate::spec(false).to_canonical()).unwrap();
    for name in ["bin", "etc", "data"] {
        create_dir_all(dir.path().join("rootfs").join(name)).unwrap();
    }
    executable(&dir, "bin/sh", &std::fs::read("/proc/self/exe").unwrap());
    dir
}

fn executable(dir: &tempfile::TempDir, path: &str, content: &[u8]) {
    let path = dir.path().join("rootfs").join(path);
    write(&path, content).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn edited(dir: &tempfile::TempDir, edits: &[&str]) {
    let edits: Vec<String> = edits.iter().map(|e| (*e).to_owned()).collect();
    set::set(dir.path(), &edits, set::Options { force: true, ..set::Options::default() }).unwrap();
}

/// The findings with these codes, as `severity path: words`.
fn found(dir: &tempfile::TempDir) -> Vec<String> {
    let ordinary = ["no-seccomp", "few-files", "host-network", "new-privileges", "no-masked-paths"];
    let findings = check(dir.path()).unwrap().into_iter().filter(|f| !ordinary.contains(&f.code));
    findings.map(|f| format!("{} {} {}: {}", f.severity.name(), f.code, f.path, f.words)).collect()
}

#[test]
fn a_good_bundle_has_no_findings() {
    let dir = bundle();
    assert_eq!(found(&dir), Vec::<String>::new());
    assert!(check(&dir.path().join("nowhere")).is_err());
}

#[test]
fn the_program_is_looked_for_as_execvp_does() {
    let dir = bundle();
    executable(&dir, "bin/redis-server", b"#!/bin/sh -e\necho\n");
    write(dir.path().join("rootfs/bin/data"), "x").unwrap();
    executable(&dir, "bin/none", b"plain text");
    executable(&dir, "bin/crlf", b"#!/bin/sh\r\necho\r\n");
    executable(&dir, "bin/py", b"#!/usr/bin/python3\n");
    executable(&dir, "bin/env", &std::fs::read("/proc/self/exe").unwrap());
    executable(&dir, "bin/viaenv", b"#!/bin/env -S python3\n");
    executable(&dir, "bin/loop", b"#!/bin/loop\n");
    executable(&dir, "bin/empty", b"");
    symlink("/bin/sh", dir.path().join("rootfs/bin/link")).unwrap();
    symlink("../../../../bin/sh", dir.path().join("rootfs/bin/up")).unwrap();
    symlink("/nowhere", dir.path().join("rootfs/bin/dangling")).unwrap();
    let path = "PATH (/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin)";
    let cases = [
        ("redis-server", String::new()),
        ("link", String::new()),
        ("up", String::new()),
        ("/bin/sh", String::new()),
        ("./bin/sh", String::new()),
        ("redis-srver", format!("program-missing: \"redis-srver\" is in no directory of {path}; did you mean \"redis-server\"?")),
        ("/bin/nope", "program-missing: \"/bin/nope\" does not exist in the root file system".to_owned()),
        ("dangling", format!("program-missing: \"dangling\" in {path} is a symbolic link to nothing")),
        ("/bin", "program-directory: \"/bin\" is a directory".to_owned()),
        ("/bin/data", "program-not-executable: \"/bin/data\" is not executable for uid 0 (mode 0644, owner 0:0)".to_owned()),
        ("none", "program-format: \"/bin/none\" is neither a program nor a script with #! in front: the kernel answers \"exec format error\"".to_owned()),
        ("crlf", "script-crlf: the first line of \"/bin/crlf\" ends with a carriage return: the kernel looks for an interpreter of that name".to_owned()),
        ("py", "interpreter-missing: \"/bin/py\" is a script for \"/usr/bin/python3\", which is not in the root file system".to_owned()),
        ("viaenv", format!("program-missing: \"python3\" is in no directory of {path}")),
        ("loop", "program-format: \"/bin/loop\" is a script of a script, too often".to_owned()),
        ("empty", "program-format: \"/bin/empty\" is empty".to_owned()),
    ];
    for (program, wanted) in cases {
        edited(&dir, &[&format!("process.args=[\"{program}\"]")]);
        let found: Vec<String> = found(&dir)
            .into_iter()
            .map(|f| f.replacen("error ", "", 1).replacen(" process.args[0]", "", 1))
            .collect();
        let wanted: Vec<String> = Some(wanted).filter(|w| !w.is_empty()).into_iter().collect();
        assert_eq!(found, wanted, "{program}");
    }
}

/// A program for `machine` with a loader, a run path and two libraries, laid out by hand.
fn elf(machine: u16, loader: Option<&str>) -> Vec<u8> {
    let strings = b"\0libhere.so.1\0libgone.so.2\0$ORIGIN/../lib\0";
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let half = |out: &mut Vec<u8>, n: u16| out.extend(n.to_le_bytes());
    let word = |out: &mut Vec<u8>, n: u32| out.extend(n.to_le_bytes());
    let long = |out: &mut Vec<u8>, n: u64| out.extend(n.to_le_bytes());
    half(&mut file, 3);
    half(&mut file, machine);
    word(&mut file, 1);
    for n in [0, 64, 0] {
        long(&mut file, n);
    }
    word(&mut file, 0);
    for n in [64, 56, 3, 0, 0, 0] {
        half(&mut file, n);
    }
    let loader_kind = if loader.is_some() { 3 } else { 4 };
    let text = loader.unwrap_or_default();
    for (kind, offset, size) in
        [(1, 0, 0x2000), (loader_kind, 0x400, text.len() as u64 + 1), (2, 0x500, 5 * 16)]
    {
        word(&mut file, kind);
        word(&mut file, 4);
        for n in [offset, 0x10000 + offset, 0, size, size, 8] {
            long(&mut file, n);
        }
    }
    file.resize(0x400, 0);
    file.extend(text.as_bytes());
    file.resize(0x500, 0);
    for (tag, value) in [(1, 1), (1, 14), (5, 0x10600), (29, 27), (0, 0)] {
        long(&mut file, tag);
        long(&mut file, value);
    }
    file.resize(0x600, 0);
    file.extend(strings);
    file.push(0);
    file
}

#[test]
fn programs_of_other_machines_and_without_their_loader() {
    let dir = bundle();
    let (own, other, other_name) =
        if cfg!(target_arch = "x86_64") { (62, 183, "arm64") } else { (183, 62, "amd64") };
    edited(&dir, &["process.args=[\"/bin/p\"]"]);
    let of = |content: &[u8]| {
        executable(&dir, "bin/p", content);
        found(&dir).join("\n")
    };
    let here = std::env::consts::ARCH;
    let wanted = format!(
        "error program-architecture process.args[0]: \"/bin/p\" is for {other_name}, and this machine is {here}"
    );
    assert_eq!(of(&elf(other, None)), wanted);
    let wanted = "error loader-missing process.args[0]: \"/bin/p\" needs the loader \"/lib/ld-musl.so\", which is not in the root file system";
    assert_eq!(of(&elf(own, Some("/lib/ld-musl.so"))), wanted);
    create_dir_all(dir.path().join("rootfs/lib")).unwrap();
    executable(&dir, "lib/ld.so", b"x");
    executable(&dir, "lib/libhere.so.1", b"x");
    let wanted = "warning library-missing process.args[0]: \"/bin/p\" needs libgone.so.2, found in none of the usual directories";
    assert_eq!(of(&elf(own, Some("/lib/ld.so"))), wanted);
    assert_eq!(of(&elf(own, None)), "");
    for cut in [5, 40, 64, 100, 0x410, 0x520] {
        let _ = of(&elf(own, Some("/lib/ld.so"))[..cut]);
    }
}

#[test]
fn a_user_who_cannot_write_where_it_stands() {
    bale_testkit::require_root!();
    let dir = bundle();
    edited(&dir, &["process.user.uid=1000", "process.user.gid=1000"]);
    let wanted = "warning cwd-not-writable process.cwd: uid 1000 cannot write its working directory \"/\"";
    assert_eq!(found(&dir), [wanted]);
    executable(&dir, "bin/redis-server", &std::fs::read("/proc/self/exe").unwrap());
    edited(&dir, &["process.args=[\"redis-server\"]"]);
    assert!(found(&dir)[0].ends_with("redis cannot save dump.rdb there and then refuses writes"));
    edited(&dir, &["process.cwd=/data", "process.args=[\"sh\"]"]);
    std::os::unix::fs::chown(dir.path().join("rootfs/data"), Some(1000), Some(1000)).unwrap();
    edited(&dir, &["root.readonly=false"]);
    assert_eq!(found(&dir), Vec::<String>::new());
    edited(&dir, &["process.cwd=/gone"]);
    let wanted = "warning cwd-not-writable process.cwd: \"/gone\" does not exist: runtimes make it for root, and uid 1000 cannot write there";
    assert_eq!(found(&dir), [wanted]);
    edited(&dir, &["mounts+=/gone,type=tmpfs"]);
    assert_eq!(found(&dir), Vec::<String>::new());
    edited(&dir, &["process.cwd=/etc/secret"]);
    create_dir_all(dir.path().join("rootfs/etc/secret")).unwrap();
    let etc = dir.path().join("rootfs/etc");
    std::fs::set_permissions(&etc, std::fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(found(&dir), ["error cwd process.cwd: uid 1000 may not enter \"/etc\""]);
    edited(&dir, &["process.cwd=/bin/sh", "process.user.uid=0"]);
    assert_eq!(found(&dir), ["error cwd process.cwd: \"/bin/sh\" is not a directory"]);
}

#[test]
fn bind_mounts_are_looked_through_and_devices_are_not_opened() {
    let dir = bundle();
    create_dir_all(dir.path().join("tools")).unwrap();
    std::fs::copy(dir.path().join("rootfs/bin/sh"), dir.path().join("tools/tool")).unwrap();
    edited(
        &dir,
        &[
            "mounts+={\"destination\":\"/opt\",\"type\":\"bind\",\"source\":\"tools\",\"options\":[\"rbind\",\"ro\"]}",
            "process.args=[\"/opt/tool\"]",
        ],
    );
    assert_eq!(found(&dir), Vec::<String>::new());
    edited(&dir, &["process.args=[\"/opt/none\"]"]);
    assert_eq!(
        found(&dir),
        ["error program-missing process.args[0]: \"/opt/none\" does not exist in the root file system"]
    );
    edited(&dir, &["mounts[/opt].source=nowhere", "process.args=[\"sh\"]"]);
    assert_eq!(
        found(&dir),
        ["error bind-source mounts[7].source: \"nowhere\" cannot be mounted: no such file or directory"]
    );
    edited(&dir, &["mounts[/opt].source=/dev/null", "process.args=[\"/opt\"]"]);
    assert_eq!(
        found(&dir),
        ["error program-missing process.args[0]: \"/opt\" cannot be opened: invalid argument"]
    );
    edited(&dir, &["process.args=[\"/dev/x\"]"]);
    assert_eq!(found(&dir), Vec::<String>::new());
}

#[test]
fn the_root_file_system_must_be_a_directory_of_its_own() {
    let dir = bundle();
    let rootfs = dir.path().join("rootfs");
    std::fs::rename(&rootfs, dir.path().join("real")).unwrap();
    let first = |dir: &tempfile::TempDir| found(dir).remove(0);
    assert!(first(&dir).contains("no such file or directory"));
    symlink("real", &rootfs).unwrap();
    assert!(
        first(&dir).starts_with("error rootfs root.path: open the root file system \"rootfs\": "),
        "{}",
        first(&dir)
    );
    let hint = check(dir.path()).unwrap().remove(0).hint;
    assert!(hint.is_some_and(|h| h.contains("symbolic link")));
    std::fs::remove_file(&rootfs).unwrap();
    create_dir_all(&rootfs).unwrap();
    assert_eq!(first(&dir), "error rootfs-empty root.path: \"rootfs\" is empty");
}

/// The seed of 2015: what today would bite is named with its place in the old files.
#[test]
fn the_seeds_pair() {
    let dir = bundle();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../spec/tests/legacy/0.2.0-October-2015/seed");
    for name in [CONFIG, RUNTIME] {
        std::fs::copy(golden.join(name), dir.path().join(name)).unwrap();
    }
    executable(&dir, "bin/redis-server", &std::fs::read("/proc/self/exe").unwrap());
    let findings = check(dir.path()).unwrap();
    let bites: Vec<_> = findings
        .iter()
        .filter(|f| f.severity == Severity::Warning && f.code != "converted")
        .map(|f| (f.code, f.file, f.path.as_str(), f.line.is_some()))
        .collect();
    let wanted = [
        ("cwd", CONFIG, "process.cwd", true),
        ("pids-limit-zero", RUNTIME, "linux.resources.pids.limit", true),
        ("no-masked-paths", CONFIG, "linux.maskedPaths", false),
        ("cwd-not-writable", CONFIG, "process.cwd", false),
    ];
    assert_eq!(bites, wanted, "{findings:#?}");
    assert!(findings.iter().any(|f| f.code == "few-files") && findings.iter().any(|f| f.code == "legacy"));
    assert!(findings.iter().all(|f| f.severity != Severity::Error));
}
