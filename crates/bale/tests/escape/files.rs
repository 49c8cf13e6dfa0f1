//! Files of the root file system that are no files: a runtime that opens a device or a FIFO there does so with the
//! host's rights, and may wait for ever.

use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{CWD, FileType, Mode, makedev};
use serde_json::json;

use crate::stage::{Bundle, Flow, Found, Stage, payload_args};
use crate::{Case, Verdict};

pub const CASES: &[Case] = &[
    ("cve_2024_9676_passwd_is_a_device", passwd),
    ("devices_of_the_terminal", multiplexer),
    ("exec_where_proc_is_the_containers", covered_proc),
    ("state_that_no_hook_reads", unread_state),
];

/// Puts a node into the root file system.
fn node(bundle: &Bundle<'_>, place: &str, kind: FileType) {
    let path = bundle.rootfs.join(place);
    fs::create_dir_all(path.parent().expect("parent")).expect("parent");
    let _ = fs::remove_file(&path);
    // As good as any: to read from it has no effect, and it never ends.
    let zero = makedev(1, 5);
    rustix::fs::mknodat(CWD, &path, kind, Mode::from_raw_mode(0o666), zero).expect("mknod");
}

/// Who opens a file; to look at it by `O_PATH` does not count.
struct Watch(OwnedFd);

impl Watch {
    fn new(path: &Path) -> Self {
        let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).expect("inotify");
        inotify::add_watch(&watch, path, WatchFlags::OPEN).expect("watch");
        Self(watch)
    }

    fn was_opened(&self) -> Option<String> {
        let mut space = [MaybeUninit::<u8>::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.0, &mut space);
        let mut opened = false;
        while let Ok(event) = reader.next() {
            opened |= event.events().contains(inotify::ReadFlags::OPEN);
        }
        opened.then(|| "ESCAPED it was opened with the host's rights".to_owned())
    }
}

/// The home directory is looked up in a passwd that is a device or a FIFO (a watchdog starts when it is opened).
fn passwd(stage: &Stage) -> Verdict {
    let mut found = Found::default();
    for kind in [FileType::CharacterDevice, FileType::BlockDevice, FileType::Fifo] {
        let mut bundle = stage.bundle();
        node(&bundle, "etc/passwd", kind);
        let watch = Watch::new(&bundle.rootfs.join("etc/passwd"));
        let outcome = bundle.run_in_background(&["pause"]);
        found.note(&outcome, &format!("create with {kind:?}"));
        found.add(&format!("create with {kind:?}"), watch.was_opened());
        let args = payload_args(&["mark"]);
        let ran = bundle.exec(|process| process["args"] = args, &[]);
        found.note(&if ran.code == 0 { Ok(()) } else { Err(ran) }, &format!("exec with {kind:?}"));
        found.add(&format!("exec with {kind:?}"), watch.was_opened());
    }
    found.verdict()
}

/// What has the name of the multiplexer of terminals is another device.
fn multiplexer(stage: &Stage) -> Verdict {
    let mut found = Found::default();
    for place in ["dev/ptmx", "dev/pts/ptmx"] {
        for flow in [Flow::CreateStart, Flow::Exec] {
            let mut bundle = stage.bundle();
            node(&bundle, place, FileType::CharacterDevice);
            let watch = Watch::new(&bundle.rootfs.join(place));
            bundle.config["process"]["terminal"] = json!(flow == Flow::CreateStart);
            let what = format!("{place} {flow:?}");
            if flow == Flow::CreateStart {
                found.note(&bundle.run(), &what);
            } else {
                found.note(&bundle.run_in_background(&["pause"]), &what);
                bundle.config["process"]["terminal"] = json!(true);
                let ran = bundle.exec(|_| {}, &[]);
                found.note(&if ran.code == 0 { Ok(()) } else { Err(ran) }, &what);
            }
            found.add(&what, watch.was_opened());
        }
    }
    found.verdict()
}

/// Whoever joined the container's mount namespace sees its `/proc`: files of the kernel there are FIFOs.
fn covered_proc(stage: &Stage) -> Verdict {
    let mut found = Found::default();
    let mut bundle = stage.bundle();
    bundle.config["mounts"] = json!([]);
    for file in [
        "self/mountinfo",
        "self/cgroup",
        "self/status",
        "self/stat",
        "self/uid_map",
        "sys/kernel/cap_last_cap",
    ] {
        node(&bundle, &format!("proc/{file}"), FileType::Fifo);
        node(&bundle, &format!("proc/{}", file.replace("self", "thread-self")), FileType::Fifo);
    }
    let outcome = bundle.run_in_background(&["pause"]);
    found.note(&outcome, "container");
    let args = payload_args(&["mark"]);
    let ran = bundle.exec(|process| process["args"] = args, &[]);
    found.note(&if ran.code == 0 { Ok(()) } else { Err(ran) }, "exec");
    found.verdict()
}

/// The state has the annotations in it, which come from whoever orders the container; a hook has a timeout.
fn unread_state(stage: &Stage) -> Verdict {
    let mut found = Found::default();
    for kind in ["createRuntime", "createContainer"] {
        let mut bundle = stage.bundle();
        bundle.config["annotations"] = json!({"long": "x".repeat(100_000)});
        bundle.config["hooks"] =
            json!({kind: [{"path": "/bin/sleep", "args": ["sleep", "60"], "timeout": 1}]});
        bundle.does(&["mark"]);
        found.note(&bundle.run(), kind);
    }
    found.verdict()
}
