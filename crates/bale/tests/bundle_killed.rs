//! SIGKILL at every kind of call that changes something during `bundle` and `set`, and the same command again.

use std::path::Path;
use std::process::{Command, Stdio};

use bale_testkit::{Bale, bale, note_skip, require_root};

const CALLS: [&str; 10] = [
    "mkdirat",
    "openat",
    "renameat",
    "write",
    "fchmod",
    "fchown",
    "linkat",
    "symlinkat",
    "flock",
    "unlinkat",
];

fn has_strace() -> bool {
    let there = Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_ok();
    if !there {
        note_skip("needs strace");
    }
    there
}

/// Runs a command that is killed at the `count`th `call`; tells whether it got to its end.
fn runs_to_its_end(bale: &Bale, call: &str, count: u32, arguments: &[&str]) -> bool {
    let command = bale.command(arguments);
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
    strace.args(["-e", &format!("inject={call}:signal=KILL:when={count}")]);
    strace.arg(command.get_program()).args(command.get_args()).env("BALE_ROOT", bale.root());
    strace.current_dir(bale.dir()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    strace.status().expect("run strace").success()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("a directory");
    let mut names: Vec<_> =
        entries.map(|e| e.expect("entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

#[test]
fn a_bundle_killed_anywhere_is_made_by_the_next() {
    require_root!();
    if !has_strace() {
        return;
    }
    let bale = bale!();
    bale.load_busybox();
    let before = names(bale.dir());
    let arguments = ["bundle", "-q", "busybox", "./b"];
    let path = bale.dir().join("b");
    let mut killed = 0;
    for call in CALLS {
        let mut count = 1;
        while !runs_to_its_end(&bale, call, count, &arguments) {
            killed += 1;
            let again = bale.run(arguments);
            // A kill after the rename has left a whole bundle.
            let whole = again.code == 1 && again.stderr.contains("is not empty");
            assert!(again.code == 0 || whole, "after a kill at {call} #{count}: {again:#?}");
            assert_eq!(names(&path), ["config.json", "image-config.json", "image.json", "rootfs"]);
            std::fs::remove_dir_all(&path).expect("remove the bundle");
            assert_eq!(names(bale.dir()), before, "after a kill at {call} #{count}");
            count += 1 + count / 2;
        }
        std::fs::remove_dir_all(&path).expect("remove the bundle");
    }
    assert!(killed > 30, "only {killed} kills");
}

#[test]
fn a_set_killed_anywhere_is_made_or_not() {
    if !has_strace() {
        return;
    }
    let bale = bale!();
    let dir = bale.dir().join("b");
    std::fs::create_dir_all(&dir).expect("a directory");
    bale.ok(["spec", "-b", "b"]);
    let config = dir.join("config.json");
    let original = std::fs::read(&config).expect("config.json");
    for call in ["mkdirat", "openat", "write", "renameat", "fsync", "unlinkat", "flock"] {
        let mut count = 1;
        while !runs_to_its_end(&bale, call, count, &["set", "b", "hostname=x"]) {
            bale.ok(["set", "b", "hostname=x", "-q"]);
            assert_eq!(bale.ok(["set", "b", "--undo"]), "hostname: \"x\" -> \"bale\"\n", "{call} #{count}");
            assert_eq!(std::fs::read(&config).expect("config.json"), original);
            let left = names(&dir);
            assert_eq!(left.iter().filter(|n| n.starts_with('.')).count(), 0, "{call} #{count}: {left:?}");
            count += 1;
        }
        bale.ok(["set", "b", "--undo"]);
        assert!(bale.fails(1, ["set", "b", "--undo"]).contains("there is no change to take back"));
    }
}
