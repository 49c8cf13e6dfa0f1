//! Root file systems where something is a symbolic link that leads to the host.

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use crate::stage::{Bundle, Flow, Found, Stage};
use crate::{Case, Verdict};

pub const CASES: &[Case] = &[
    ("a_plain_container_runs", plain),
    ("links_in_the_root_file_system", corpus),
    ("links_in_the_root_file_system_exec", corpus_exec),
    ("cve_2019_18837_mount_targets", mount_targets),
    ("cve_2026_47766_dev", dev),
    ("cve_2026_88264_console", console),
    ("cve_2026_88265_null", null),
    ("cve_2023_27561_proc_and_sys", proc_and_sys),
];

/// A place in the root file system, and what of the canary tree a link there leads to.
const PLACES: [(&str, &str); 13] = [
    ("proc", "proc"),
    ("sys", "sys"),
    ("dev", "dev"),
    ("dev/null", "null"),
    ("dev/console", "console"),
    ("dev/ptmx", "ptmx"),
    ("dev/pts", "pts"),
    ("etc", "etc"),
    ("etc/passwd", "passwd"),
    ("work", "dir"),
    ("vol", "dir"),
    ("a", "dir"),
    ("file", "hosts"),
];

/// The ways in which a link leads there.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Absolute,
    Relative,
    /// To a name that is not there yet.
    New,
    /// Through procfs, to what the runtime itself sees.
    Magic,
    /// By a second link.
    Twice,
}

const KINDS: [Kind; 5] = [Kind::Absolute, Kind::Relative, Kind::New, Kind::Magic, Kind::Twice];

fn plant(bundle: &Bundle<'_>, place: &str, goal: &str, kind: Kind) {
    let goal = bundle.stage.canary(goal);
    let below = goal.strip_prefix("/").unwrap();
    let up = PathBuf::from("../".repeat(16));
    let to = match kind {
        Kind::Absolute => goal,
        Kind::Relative => up.join(below),
        Kind::New => bundle.stage.canary(&format!("new-{}", place.replace('/', "-"))),
        Kind::Magic => PathBuf::from("/proc/self/root").join(below),
        Kind::Twice => {
            bundle.link("second", &up.join(below));
            PathBuf::from("/second")
        }
    };
    bundle.link(place, &to);
}

/// A bundle whose config uses every place.
fn bundle(stage: &Stage, with_dev: bool) -> Bundle<'_> {
    let mut bundle = stage.bundle();
    if with_dev {
        bundle.mount_dev();
    } else {
        bundle.mount_pts();
    }
    bundle.mount(json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]}));
    bundle.mount(json!({"destination": "/vol", "type": "tmpfs", "source": "tmpfs"}));
    bundle.mount(json!({"destination": "/a/b/c", "type": "tmpfs", "source": "tmpfs"}));
    let source = stage.join("given");
    fs::write(&source, "given\n").unwrap();
    for destination in ["/etc/hosts", "/file", "/a/file"] {
        bundle.mount(json!({
            "destination": destination, "type": "bind", "source": source, "options": ["bind", "ro"]
        }));
    }
    bundle.config["process"]["cwd"] = json!("/work");
    bundle.config["linux"]["maskedPaths"] =
        json!(["/proc/kcore", "/proc/scsi", "/sys/firmware", "/etc/hosts"]);
    bundle.config["linux"]["readonlyPaths"] = json!(["/proc/bus", "/proc/sys", "/vol"]);
    bundle
}

/// Without this the rest says nothing: every kind of container that the cases use works when nothing is hostile.
fn plain(stage: &Stage) -> Verdict {
    let mut found = Found::default();
    for variant in 0..16 {
        let (with_dev, userns) = (variant & 1 != 0, variant & 2 != 0);
        let (terminal, flow) =
            (variant & 4 != 0, if variant & 8 != 0 { Flow::Exec } else { Flow::CreateStart });
        let mut bundle = bundle(stage, with_dev);
        fs::write(bundle.rootfs.join("etc/passwd"), "root:x:0:0::/own-home:/bin/sh\n").unwrap();
        if userns {
            bundle.user_namespace();
        }
        bundle.config["process"]["terminal"] = json!(terminal);
        let what = format!("dev={with_dev} userns={userns} terminal={terminal} {flow:?}");
        let words = bundle.inspect(flow, &what, &mut found);
        if let Some(words) = words {
            found.add(&what, [format!("does not work: {words}")]);
        }
    }
    found.verdict()
}

fn corpus(stage: &Stage) -> Verdict {
    let mut found = Found::default();
    for (place, goal) in PLACES {
        for kind in KINDS {
            for variant in [0, 1, 2, 4, 7] {
                let (with_dev, userns, terminal) = (variant & 1 != 0, variant & 2 != 0, variant & 4 != 0);
                if with_dev && place.starts_with("dev/") && place != "dev/pts" {
                    // The new /dev hides it.
                    continue;
                }
                let mut bundle = bundle(stage, with_dev);
                plant(&bundle, place, goal, kind);
                if userns {
                    bundle.user_namespace();
                }
                bundle.config["process"]["terminal"] = json!(terminal);
                let what = format!("{place} {kind:?} dev={with_dev} userns={userns} terminal={terminal}");
                bundle.inspect(Flow::CreateStart, &what, &mut found);
            }
        }
    }
    found.verdict()
}

/// The links appear when the container runs already: an exec meets them.
fn corpus_exec(stage: &Stage) -> Verdict {
    let mut found = Found::default();
    for (userns, terminal) in [(false, false), (true, false), (false, true), (true, true)] {
        for with_dev in [true, false] {
            let mut running = bundle(stage, with_dev);
            if userns {
                running.user_namespace();
            }
            running.config["process"]["terminal"] = json!(terminal);
            let name = format!("dev={with_dev} userns={userns} terminal={terminal}");
            let outcome = running.run_in_background(&["pause"]);
            found.note(&outcome, &name);
            if outcome.is_err() {
                continue;
            }
            for place in ["etc/passwd", "work", "dev/null", "dev/console", "dev/ptmx", "out/place"] {
                for kind in [Kind::Absolute, Kind::Relative, Kind::Magic] {
                    let goal = if place == "work" || place == "out/place" { "dir" } else { "passwd" };
                    let _ = fs::create_dir(running.rootfs.join("dev"));
                    plant(&running, place, goal, kind);
                    let args = crate::stage::payload_args(&["inspect", &stage.secret()]);
                    let cwd = if place == "out/place" { "/out/place" } else { "/work" };
                    let what = format!("exec {place} {kind:?} {name}");
                    let ran = running.exec(
                        |process| {
                            process["args"] = args;
                            process["cwd"] = json!(cwd);
                        },
                        &[],
                    );
                    found.note(&if ran.code == 0 { Ok(()) } else { Err(ran) }, &what);
                    let report = running.read("report");
                    let _ = fs::remove_file(running.out("report"));
                    found.add(&what, report.lines().filter(|l| l.starts_with("ESCAPED")).map(str::to_owned));
                    if report.contains("home /host-home") {
                        found.add(&what, ["HOME was read from the host's passwd".to_owned()]);
                    }
                    found.add(&what, stage.evidence());
                    let _ = fs::remove_file(running.rootfs.join(place));
                    if place == "work" {
                        fs::create_dir(running.rootfs.join(place)).unwrap();
                    }
                }
            }
        }
    }
    found.verdict()
}

/// The target of a mount, and each directory above it, is a link.
fn mount_targets(stage: &Stage) -> Verdict {
    let mut found = Found::default();
    let source = stage.join("given");
    fs::write(&source, "given\n").unwrap();
    for (destination, place, goal) in [
        ("/t", "t", "dir"),
        ("/t/sub", "t", "dir"),
        ("/t/new/sub", "t", "dir"),
        ("/x/t/new", "x/t", "dir"),
        ("/x/y/t/new", "x/y", "dir"),
        ("/t/f", "t", "dir"),
        ("/f", "f", "hosts"),
        ("/x/f", "x/f", "hosts"),
        ("/x/../t/f", "t", "dir"),
    ] {
        for kind in KINDS {
            let mut bundle = stage.bundle();
            bundle.mount_dev();
            plant(&bundle, place, goal, kind);
            let file = destination.ends_with('f');
            bundle.mount(if file {
                json!({"destination": destination, "type": "bind", "source": source, "options": ["bind"]})
            } else {
                json!({"destination": destination, "type": "tmpfs", "source": "tmpfs"})
            });
            bundle.inspect(
                Flow::CreateStart,
                &format!("mount on {destination}, {place} {kind:?}"),
                &mut found,
            );
        }
    }
    found.verdict()
}

/// CVE-2026-47766 of crun, CVE-2026-41579 of runc: nodes and links of `/dev` are made where it leads to.
fn dev(stage: &Stage) -> Verdict {
    let mut found = Found::default();
    for kind in KINDS {
        for userns in [false, true] {
            let mut bundle = stage.bundle();
            plant(&bundle, "dev", "dir", kind);
            if userns {
                bundle.user_namespace();
            }
            bundle.config["linux"]["devices"] = json!([{"path": "/dev/own", "type": "c", "major": 1, "minor": 3, "fileMode": 438, "uid": 0, "gid": 0}]);
            bundle.inspect(Flow::CreateStart, &format!("dev {kind:?} userns={userns}"), &mut found);
        }
    }
    found.verdict()
}

fn console(stage: &Stage) -> Verdict {
    let mut found = Found::default();
    for kind in KINDS {
        for flow in [Flow::CreateStart, Flow::Exec] {
            let mut bundle = stage.bundle();
            bundle.mount_pts();
            plant(&bundle, "dev/console", "console", kind);
            bundle.config["process"]["terminal"] = json!(true);
            bundle.inspect(flow, &format!("dev/console {kind:?} {flow:?}"), &mut found);
        }
    }
    found.verdict()
}

/// Standard streams that are `/dev/null` are opened again inside, and change owner.
fn null(stage: &Stage) -> Verdict {
    let mut found = Found::default();
    for kind in KINDS {
        for (flow, uid) in [(Flow::CreateStart, 0), (Flow::CreateStart, 7), (Flow::Exec, 7)] {
            let mut bundle = stage.bundle();
            plant(&bundle, "dev/null", "null", kind);
            bundle.config["process"]["user"]["uid"] = json!(uid);
            bundle.inspect(flow, &format!("dev/null {kind:?} {flow:?} uid={uid}"), &mut found);
        }
    }
    // To a file of a volume, which is the host's too.
    for (flow, uid) in [(Flow::CreateStart, 0), (Flow::CreateStart, 7), (Flow::Exec, 7)] {
        let mut bundle = stage.bundle();
        bundle.mount(json!({"destination": "/vol", "type": "bind", "source": stage.canary("shared"),
            "options": ["bind"]}));
        bundle.link("dev/null", std::path::Path::new("/vol/null"));
        bundle.config["process"]["user"]["uid"] = json!(uid);
        bundle.inspect(flow, &format!("dev/null to a volume, {flow:?} uid={uid}"), &mut found);
    }
    // Standard input is the host's /dev/null: when the one in the container is not it, it may be taken for a file.
    if std::os::unix::fs::MetadataExt::uid(&fs::metadata("/dev/null").unwrap()) != 0 {
        std::os::unix::fs::chown("/dev/null", Some(0), Some(0)).unwrap();
        found.add("dev/null", ["ESCAPED the host's /dev/null changed its owner".to_owned()]);
    }
    found.verdict()
}

/// CVE-2019-19921, CVE-2023-27561, CVE-2023-28642: a procfs that is not where masks and labels look for it.
fn proc_and_sys(stage: &Stage) -> Verdict {
    let mut found = Found::default();
    for (place, to) in
        [("proc", "/tmp"), ("proc", "tmp"), ("proc", "../tmp"), ("sys", "/tmp"), ("sys", "vol/../tmp")]
    {
        let mut bundle = stage.bundle();
        bundle.mount(json!({"destination": "/sys", "type": "sysfs", "source": "sysfs"}));
        bundle.link(place, &PathBuf::from(to));
        bundle.config["linux"]["maskedPaths"] = json!(["/proc/kcore", "/sys/firmware"]);
        let what = format!("{place} -> {to}");
        bundle.inspect(Flow::CreateStart, &what, &mut found);
        // It ran, so it was mounted elsewhere.
        if !bundle.read("report").is_empty() {
            found.add(&what, ["mounted where the link leads to".to_owned()]);
        }
    }
    found.verdict()
}
