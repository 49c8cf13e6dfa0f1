//! procfs, cgroups and masks.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use crate::stage::{Flow, Found, Stage};
use crate::{Case, Verdict};

pub const CASES: &[Case] = &[
    ("cve_2019_16884_volume_over_proc", volume_over_proc),
    ("cve_2022_0811_sysctl", sysctl),
    ("cve_2025_31133_masks_by_null", masks_by_null),
    ("cve_2022_0492_release_agent", release_agent),
];

/// A volume lies over the container's `/proc`: what the runtime writes must reach the real one, or nothing.
fn volume_over_proc(stage: &Stage) -> Verdict {
    let mut found = Found::default();
    for over in ["/proc", "/proc/sys", "/proc/sys/kernel"] {
        for by_link in [false, true] {
            let volume = stage.join("volume");
            let _ = fs::remove_dir_all(&volume);
            let below = volume.join("/proc/sys/kernel".strip_prefix(over).unwrap().trim_start_matches('/'));
            fs::create_dir_all(&below).unwrap();
            fs::create_dir_all(volume.join("self/attr")).unwrap();
            let parameter = below.join("shm_rmid_forced");
            if by_link {
                symlink(stage.canary("hosts"), &parameter).unwrap();
            } else {
                fs::write(&parameter, "fake\n").unwrap();
            }
            let mut bundle = stage.bundle();
            fs::create_dir(bundle.rootfs.join("proc2")).unwrap();
            bundle.mount(json!({"destination": over, "type": "bind", "source": volume, "options": ["bind"]}));
            bundle.mount(json!({"destination": "/proc2", "type": "proc", "source": "proc"}));
            bundle.config["linux"]["sysctl"] = json!({"kernel.shm_rmid_forced": "1"});
            let what = format!("volume over {over}, link={by_link}");
            bundle.inspect(Flow::CreateStart, &what, &mut found);
            let report = bundle.read("report");
            if report.contains("shm_rmid_forced 0") {
                found.add(&what, ["the parameter was not written, and nobody said so".to_owned()]);
            }
            if !by_link && fs::read_to_string(&parameter).unwrap() != "fake\n" {
                found.add(&what, ["the parameter was written into the volume".to_owned()]);
            }
        }
    }
    found.verdict()
}

/// Parameters that are the host's, by name and by spelling. What is written is what is there already.
fn sysctl(stage: &Stage) -> Verdict {
    let mut found = Found::default();
    for (name, value) in [
        ("kernel.core_pattern", "fake"),
        ("kernel/core_pattern", "fake"),
        ("net/../kernel/core_pattern", "fake"),
        ("net.ipv4/../../kernel/core_pattern", "fake"),
        ("net/ipv4/../../kernel/core_pattern", "fake"),
        ("kernel.shm_rmid_forced/../core_pattern", "fake"),
        ("net.ipv4.ip_forward", "0"),
        ("kernel.modprobe", "fake"),
        ("fs.suid_dumpable", "0"),
        ("kernel.hostname", "x"),
        ("kernel.shm_rmid_forced=1+kernel.core_pattern", "fake"),
    ] {
        let mut bundle = stage.bundle();
        if name.starts_with("net/") || name.starts_with("net.ipv4/") {
            bundle.add_namespace("network");
        }
        bundle.config["linux"]["sysctl"] = json!({ name: value });
        let outcome = bundle.run();
        let what = format!("sysctl {name}");
        found.note(&outcome, &what);
        // kernel.hostname belongs to the container: there the effect counts, not the word.
        if outcome.is_ok() && name != "kernel.hostname" {
            found.add(&what, ["a parameter of the host was accepted".to_owned()]);
        }
        found.add(&what, stage.evidence());
    }
    // The host's own namespaces, under the name of the container's.
    for (kind, file, name) in [("network", "net", "net.ipv4.ip_default_ttl"), ("ipc", "ipc", "kernel.shmmax")]
    {
        let value = fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).unwrap();
        let mut bundle = stage.bundle();
        bundle.remove_namespace(kind);
        let joined = json!({"type": kind, "path": format!("/proc/self/ns/{file}")});
        bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(joined);
        bundle.config["linux"]["sysctl"] = json!({ name: value.trim() });
        let outcome = bundle.run();
        let what = format!("sysctl {name} of a namespace that is the host's");
        found.note(&outcome, &what);
        if outcome.is_ok() {
            found.add(&what, ["a parameter of the host was accepted".to_owned()]);
        }
    }
    found.verdict()
}

/// A masked file is covered by `/dev/null`: the host's, not what has that name in the container.
fn masks_by_null(stage: &Stage) -> Verdict {
    let mut found = Found::default();
    for to in ["/proc/sys/kernel/core_pattern", "/etc/other", "../etc/other", "/proc/self/root/etc/other"] {
        for by_dev_mount in [false, true] {
            let mut bundle = stage.bundle();
            fs::write(bundle.rootfs.join("etc/other"), "other\n").unwrap();
            fs::write(bundle.rootfs.join("etc/covered"), "covered\n").unwrap();
            if by_dev_mount {
                // A /dev that the attacker has filled, as a shared volume is.
                let volume = stage.join("volume");
                let _ = fs::remove_dir_all(&volume);
                fs::create_dir_all(&volume).unwrap();
                symlink(to, volume.join("null")).unwrap();
                bundle.mount(json!({"destination": "/dev", "type": "bind", "source": volume,
                    "options": ["bind"]}));
            } else {
                bundle.link("dev/null", std::path::Path::new(to));
            }
            bundle.config["linux"]["maskedPaths"] = json!(["/etc/covered", "/proc/kcore"]);
            bundle.does(&["masked", "/etc/covered"]);
            let outcome = bundle.run();
            let what = format!("/dev/null -> {to}, volume={by_dev_mount}");
            found.note(&outcome, &what);
            let report = bundle.read("report");
            found.add(&what, report.lines().filter(|l| l.contains("ESCAPED")).map(str::to_owned));
            found.add(&what, stage.evidence());
        }
    }
    found.verdict()
}

/// The cgroup mount is read-only when the config says so, whatever the layout.
fn release_agent(stage: &Stage) -> Verdict {
    let mut found = Found::default();
    for own in [true, false] {
        let mut bundle = stage.bundle();
        if own {
            bundle.add_namespace("cgroup");
        }
        bundle.mount(json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]}));
        bundle.mount(json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": ["ro", "nosuid", "noexec", "nodev"]}));
        let what = format!("cgroup mount, own namespace={own}");
        bundle.inspect(Flow::CreateStart, &what, &mut found);
        let report = bundle.read("report");
        found.add(&what, report.lines().filter(|l| l.starts_with("WRITABLE")).map(str::to_owned));
    }
    found.verdict()
}
