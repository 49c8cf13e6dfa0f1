//! SIGKILL at every kind of call that changes something during a pull, and the same command again.

use std::path::Path;
use std::process::{Command, Stdio};

use bale_testkit::registry::Registry;
use bale_testkit::{bale, note_skip, require_root};

/// What a pull changes the machine with.
const CALLS: [&str; 12] = [
    "mkdirat",
    "openat",
    "renameat",
    "write",
    "fchmod",
    "fchown",
    "utimensat",
    "linkat",
    "symlinkat",
    "flock",
    "unlinkat",
    "mknodat",
];

#[test]
fn a_pull_killed_anywhere_is_made_up_for_by_the_next() {
    require_root!();
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        note_skip("needs strace");
        return;
    }
    let (registry, bale) = (Registry::start(), bale!());
    let name = format!("{}/busybox:1", registry.host());
    bale.load_busybox();
    bale.ok(["tag", "busybox", &name]);
    bale.ok(["push", "-q", &name]);
    bale.ok(["rmi", "busybox", &name]);
    let mut killed = 0;
    for call in CALLS {
        // Every one of the first, then ever fewer: layers make hundreds of the same calls.
        let mut count = 1;
        while !runs_to_its_end(&bale, call, count, &name) {
            killed += 1;
            let again = bale.run(["pull", "-q", &name]);
            assert_eq!(again.code, 0, "after a kill at {call} #{count}: {again:#?}");
            assert_eq!(entries(&bale.root().join("ingest")), 0, "after a kill at {call} #{count}");
            bale.ok(["rmi", &name]);
            count += 1 + count / 3;
        }
        bale.ok(["rmi", &name]);
        for kind in ["blobs", "layers", "fixups"] {
            assert_eq!(entries(&bale.root().join(kind).join("sha256")), 0, "{kind} after {call}");
        }
    }
    assert!(killed > 40, "only {killed} kills");
}

fn runs_to_its_end(bale: &bale_testkit::Bale, call: &str, count: u32, name: &str) -> bool {
    let pull = bale.command(["pull", "-q", name]);
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
    strace.args(["-e", &format!("inject={call}:signal=KILL:when={count}")]);
    strace.arg(pull.get_program()).args(pull.get_args()).env("BALE_ROOT", bale.root());
    strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    strace.status().expect("run strace").success()
}

fn entries(dir: &Path) -> usize {
    std::fs::read_dir(dir).map_or(0, Iterator::count)
}
