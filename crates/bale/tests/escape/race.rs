//! A volume in which names are exchanged all the time, while containers are made on it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{CWD, RenameFlags};
use serde_json::json;

use crate::stage::{Bundle, Found, Stage};
use crate::{Case, Verdict};

pub const CASES: &[Case] = &[
    ("cve_2021_30465_mount_target", mount_target),
    ("cve_2024_45310_parents", parents),
    ("cve_2019_19921_proc", proc),
    ("cve_2025_52565_dev_and_pts", dev),
    ("racing_working_directory", working_directory),
];

const ROUNDS: u32 = 40;

/// Exchanges the names `one` and `other` until `body` is done; returns how often.
fn exchange(one: &Path, other: &Path, body: impl FnOnce()) -> u64 {
    let stop = AtomicBool::new(false);
    let count = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let _ = rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE);
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        body();
        stop.store(true, Ordering::Relaxed);
    });
    count.load(Ordering::Relaxed)
}

/// A fresh volume with a directory `real` and a link `link` to `goal`.
fn volume(stage: &Stage, goal: &Path) -> PathBuf {
    let volume = stage.join("shared");
    let _ = fs::remove_dir_all(&volume);
    fs::create_dir_all(volume.join("real")).unwrap();
    fs::set_permissions(&volume, fs::Permissions::from_mode(0o777)).unwrap();
    symlink(goal, volume.join("link")).unwrap();
    volume
}

/// Goals of the links: the host's directory by its path, and by way of many `..`.
fn goals(stage: &Stage, name: &str) -> [PathBuf; 2] {
    let goal = stage.canary(name);
    let relative = PathBuf::from("../".repeat(16)).join(goal.strip_prefix("/").unwrap());
    [goal, relative]
}

fn rounds(stage: &Stage, name: &str, found: &mut Found, prepare: impl Fn(&mut Bundle<'_>, &Path)) {
    checked_rounds(stage, name, found, prepare, |_| false);
}

/// As [`rounds`]; `is_bad` judges what the process in the container reports.
fn checked_rounds(
    stage: &Stage,
    name: &str,
    found: &mut Found,
    prepare: impl Fn(&mut Bundle<'_>, &Path),
    is_bad: impl Fn(&str) -> bool,
) {
    for goal in goals(stage, name) {
        let volume = volume(stage, &goal);
        let exchanged = exchange(&volume.join("real"), &volume.join("link"), || {
            for round in 0..ROUNDS / 2 {
                let mut bundle = stage.bundle();
                prepare(&mut bundle, &volume);
                let what = format!("round {round} to {}", goal.display());
                bundle.inspect(crate::stage::Flow::CreateStart, &what, found);
                if is_bad(&bundle.read("report")) {
                    found.add(&what, ["ESCAPED a mount is not where it was to be".to_owned()]);
                }
                // So that directories are missing again.
                for side in ["real", "link"] {
                    let path = volume.join(side);
                    if path.symlink_metadata().is_ok_and(|m| m.is_dir()) {
                        let _ = fs::remove_dir_all(path.join("new"));
                        let _ = fs::remove_file(path.join("file"));
                    }
                }
            }
        });
        assert!(exchanged > 0, "nothing was exchanged");
    }
}

fn bind_volume(bundle: &mut Bundle<'_>, volume: &Path) {
    bundle.mount(json!({"destination": "/vol", "type": "bind", "source": volume, "options": ["rbind"]}));
}

/// The target itself is exchanged.
fn mount_target(stage: &Stage) -> Verdict {
    let mut found = Found::default();
    let source = stage.join("given");
    fs::write(&source, "given\n").unwrap();
    rounds(stage, "dir", &mut found, |bundle, volume| {
        bundle.mount_dev();
        bind_volume(bundle, volume);
        for _ in 0..4 {
            bundle.mount(json!({"destination": "/vol/real", "type": "tmpfs", "source": "tmpfs"}));
            bundle.mount(json!({"destination": "/vol/real/file", "type": "bind", "source": source,
                "options": ["bind"]}));
        }
    });
    found.verdict()
}

/// A parent of the target is exchanged, and directories are missing below it.
fn parents(stage: &Stage) -> Verdict {
    let mut found = Found::default();
    let source = stage.join("given");
    fs::write(&source, "given\n").unwrap();
    rounds(stage, "dir", &mut found, |bundle, volume| {
        bundle.mount_dev();
        bind_volume(bundle, volume);
        for sub in ["a", "b", "c", "d"] {
            let directory = format!("/vol/real/new/{sub}/deep");
            bundle.mount(json!({"destination": directory, "type": "tmpfs", "source": "tmpfs"}));
            let file = format!("/vol/link/new/{sub}/file");
            bundle.mount(json!({"destination": file, "type": "bind", "source": source, "options": ["bind"]}));
        }
    });
    found.verdict()
}

/// procfs is to be mounted on a name that is exchanged.
fn proc(stage: &Stage) -> Verdict {
    let mut found = Found::default();
    let prepare = |bundle: &mut Bundle<'_>, volume: &Path| {
        bind_volume(bundle, volume);
        bundle.mount(json!({"destination": "/vol/real", "type": "proc", "source": "proc"}));
        bundle.mount(json!({"destination": "/vol/real", "type": "sysfs", "source": "sysfs"}));
        bundle.config["linux"]["maskedPaths"] = json!(["/vol/real/kcore", "/vol/real/keys"]);
        bundle.config["linux"]["readonlyPaths"] = json!(["/vol/real/sys", "/vol/real/bus"]);
    };
    checked_rounds(stage, "proc", &mut found, prepare, lacks_mounts);
    found.verdict()
}

/// Tells whether of the volume's three mounts one is not there: then it was made elsewhere, and nobody said so.
fn lacks_mounts(report: &str) -> bool {
    let count =
        report.lines().find_map(|line| line.strip_prefix("volume ")?.strip_suffix(" mounts")?.parse().ok());
    count.is_some_and(|count: u32| count < 3)
}

/// `/dev` and `/dev/pts` are on the volume.
fn dev(stage: &Stage) -> Verdict {
    let mut found = Found::default();
    rounds(stage, "dev", &mut found, |bundle, volume| {
        let _ = fs::remove_dir(bundle.rootfs.join("dev"));
        bundle.link("dev", Path::new("vol/real"));
        bind_volume(bundle, volume);
        bundle.mount_pts();
        bundle.config["process"]["terminal"] = json!(true);
        bundle.config["linux"]["maskedPaths"] = json!(["/proc/kcore"]);
    });
    found.verdict()
}

/// The working directory is exchanged with a link to the host, and to a descriptor.
fn working_directory(stage: &Stage) -> Verdict {
    let mut found = Found::default();
    rounds(stage, "dir", &mut found, |bundle, volume| {
        bind_volume(bundle, volume);
        bundle.config["process"]["cwd"] = json!("/vol/real");
    });
    found.verdict()
}
