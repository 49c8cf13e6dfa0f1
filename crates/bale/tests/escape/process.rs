//! Descriptors and processes of the runtime, as the container sees them.

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use crate::stage::{Flow, Found, Stage, payload_args};
use crate::{Case, Verdict};

pub const CASES: &[Case] = &[
    ("cve_2024_21626_working_directory", working_directory),
    ("cve_2024_21626_working_directory_exec", working_directory_exec),
    ("cve_2024_21626_program", program),
    ("cve_2024_21626_program_exec", program_exec),
    ("cve_2016_9962_exec_is_watched", exec_is_watched),
    ("cve_2016_9962_create_in_joined_pids_is_watched", create_in_joined_pids_is_watched),
    ("created_container_is_watched", created_is_watched),
    ("host_pids_are_watched", host_pids_are_watched),
    ("descriptors_of_a_created_container", descriptors_of_created),
    ("cve_2025_23266_hook_environment", hook_environment),
];

const DESCRIPTORS: std::ops::Range<u32> = 3..20;

/// The working directory is a descriptor that the runtime has open.
fn working_directory(stage: &Stage) -> Verdict {
    let mut found = Found::default();
    for fd in DESCRIPTORS {
        for path in [format!("/proc/self/fd/{fd}"), format!("/proc/thread-self/fd/{fd}/..")] {
            let mut bundle = stage.bundle();
            bundle.mount_dev();
            bundle.config["process"]["cwd"] = json!(path);
            bundle.inspect(Flow::CreateStart, &format!("cwd {path}"), &mut found);
        }
    }
    // The same behind a link.
    let mut bundle = stage.bundle();
    bundle.link("work", &PathBuf::from("/proc/self/fd/7"));
    bundle.config["process"]["cwd"] = json!("/work");
    bundle.inspect(Flow::CreateStart, "cwd is a link to /proc/self/fd/7", &mut found);
    found.verdict()
}

fn working_directory_exec(stage: &Stage) -> Verdict {
    let mut found = Found::default();
    let mut bundle = stage.bundle();
    bundle.mount_dev();
    let outcome = bundle.run_in_background(&["pause"]);
    found.note(&outcome, "container");
    for fd in DESCRIPTORS {
        for link in [false, true] {
            let mut path = format!("/proc/self/fd/{fd}");
            if link {
                bundle.link("work", &PathBuf::from(&path));
                "/work".clone_into(&mut path);
            }
            let args = payload_args(&["inspect", &stage.secret()]);
            let ran = bundle.exec(
                |process| {
                    process["args"] = args;
                    process["cwd"] = json!(path);
                },
                &[],
            );
            let what = format!("exec with cwd {path}, descriptor {fd}");
            found.note(&if ran.code == 0 { Ok(()) } else { Err(ran) }, &what);
            let report = bundle.read("report");
            found.add(&what, report.lines().filter(|l| l.starts_with("ESCAPED")).map(str::to_owned));
            let _ = fs::remove_file(bundle.out("report"));
        }
    }
    found.verdict()
}

/// The program of the host that a descriptor leads to.
fn host_program(stage: &Stage, fd: u32) -> [String; 2] {
    let tool = stage.canary("tool").display().to_string();
    let below = tool.trim_start_matches('/');
    [
        format!("/proc/self/fd/{fd}/{}{below}", "../".repeat(12)),
        // Through the host's procfs, where the descriptor is one of it.
        format!("/proc/self/fd/{fd}/1/root/{below}"),
    ]
}

fn program(stage: &Stage) -> Verdict {
    let mut found = Found::default();
    for fd in DESCRIPTORS {
        for path in host_program(stage, fd) {
            let mut bundle = stage.bundle();
            bundle.config["process"]["args"] = json!([path, "@payload", "mark"]);
            let outcome = bundle.run();
            found.note(&outcome, &path);
            if bundle.out("host-program-ran").exists() {
                found.add(&path, ["ESCAPED a program of the host ran in the container".to_owned()]);
            }
            found.add(&path, stage.evidence());
        }
    }
    found.verdict()
}

fn program_exec(stage: &Stage) -> Verdict {
    let mut found = Found::default();
    let mut bundle = stage.bundle();
    let outcome = bundle.run_in_background(&["pause"]);
    found.note(&outcome, "container");
    for fd in DESCRIPTORS {
        for path in host_program(stage, fd) {
            let args = json!([path, "@payload", "mark"]);
            let ran = bundle.exec(|process| process["args"] = args, &[]);
            found.note(&if ran.code == 0 { Ok(()) } else { Err(ran) }, &path);
            if bundle.out("host-program-ran").exists() {
                found.add(&path, ["ESCAPED a program of the host ran in the container".to_owned()]);
                let _ = fs::remove_file(bundle.out("host-program-ran"));
            }
            found.add(&path, stage.evidence());
        }
    }
    found.verdict()
}

/// A process of the container that may trace others looks at each process that joins.
fn exec_is_watched(stage: &Stage) -> Verdict {
    let mut found = Found::default();
    let mut bundle = stage.bundle();
    bundle.add_capability("CAP_SYS_PTRACE");
    let outcome = bundle.run_in_background(&["grab", &stage.secret()]);
    found.note(&outcome, "container");
    for count in 0..60 {
        let args = payload_args(&["nothing"]);
        let ran = bundle.exec(|process| process["args"] = args, &[]);
        // The payload ends with 3 when there is nothing to do.
        found.note(&if ran.code == 3 { Ok(()) } else { Err(ran) }, &format!("exec {count}"));
    }
    fs::write(bundle.out("stop"), "").unwrap();
    bundle.wait();
    found.add("exec", bundle.read("stolen").lines().map(str::to_owned));
    found.verdict()
}

/// A process that may trace others looks at the first processes of containers that share its pids.
fn create_in_joined_pids_is_watched(stage: &Stage) -> Verdict {
    let mut found = Found::default();
    let mut bundle = stage.bundle();
    bundle.add_capability("CAP_SYS_PTRACE");
    let outcome = bundle.run_in_background(&["grab", &stage.secret()]);
    found.note(&outcome, "container");
    let Some(pid) = bundle.pid().filter(|_| outcome.is_ok()) else { return found.verdict() };
    for count in 0..40 {
        let mut other = stage.bundle();
        other.join_namespace("pid", &format!("/proc/{pid}/ns/pid"));
        other.does(&["nothing"]);
        let outcome = other.run();
        found.note(&outcome, &format!("container {count}"));
    }
    fs::write(bundle.out("stop"), "").unwrap();
    bundle.wait();
    found.add("create", bundle.read("stolen").lines().map(str::to_owned));
    found.verdict()
}

/// A process joins a container that has not started, and looks at the init that waits.
fn created_is_watched(stage: &Stage) -> Verdict {
    let mut found = Found::default();
    for capability in [None, Some("CAP_SYS_PTRACE")] {
        let mut bundle = stage.bundle();
        bundle.mount_dev();
        bundle.mount(json!({"destination": "/given", "type": "bind", "source": stage.canary("pts"),
            "options": ["bind"]}));
        if let Some(name) = capability {
            bundle.add_capability(name);
        }
        let (created, _console) = bundle.create();
        let what = format!("created, {capability:?}");
        let ok = created.code == 0;
        found.note(&if ok { Ok(()) } else { Err(created) }, &what);
        if !ok {
            continue;
        }
        fs::write(bundle.out("stop"), "").unwrap();
        let args = payload_args(&["look", &stage.secret()]);
        let ran = bundle.exec(|process| process["args"] = args, &[]);
        found.note(&if ran.code == 0 { Ok(()) } else { Err(ran) }, &what);
        found.add(&what, bundle.read("stolen").lines().map(str::to_owned));
    }
    found.verdict()
}

/// A container with the host's pids, without more rights than usual, looks at the runtime's processes.
fn host_pids_are_watched(stage: &Stage) -> Verdict {
    let mut found = Found::default();
    let mut bundle = stage.bundle();
    bundle.remove_namespace("pid");
    let outcome = bundle.run_in_background(&["grab", &stage.secret()]);
    found.note(&outcome, "container");
    for count in 0..30 {
        let args = payload_args(&["nothing"]);
        let ran = bundle.exec(|process| process["args"] = args, &[]);
        found.note(&if ran.code == 3 { Ok(()) } else { Err(ran) }, &format!("exec {count}"));
        let mut other = stage.bundle();
        other.does(&["nothing"]);
        let outcome = other.run();
        found.note(&outcome, &format!("container {count}"));
    }
    fs::write(bundle.out("stop"), "").unwrap();
    bundle.wait();
    found.add("host pids", bundle.read("stolen").lines().map(str::to_owned));
    found.verdict()
}

/// While init waits for `start`, it holds nothing that leads to the host.
fn descriptors_of_created(stage: &Stage) -> Verdict {
    let mut found = Found::default();
    for userns in [false, true] {
        let mut bundle = stage.bundle();
        bundle.mount_dev();
        bundle.mount(json!({"destination": "/given", "type": "bind", "source": stage.canary("pts"),
            "options": ["bind"]}));
        if userns {
            bundle.user_namespace();
        }
        let (created, _console) = bundle.create();
        let Some(pid) = bundle.pid().filter(|_| created.code == 0) else {
            found.note(&Err(created), "create");
            continue;
        };
        found.note(&Ok(()), "create");
        use std::os::unix::fs::MetadataExt;
        let dir = format!("/proc/{pid}/fd");
        let root = fs::metadata(format!("/proc/{pid}/root")).map(|m| (m.dev(), m.ino())).ok();
        for entry in fs::read_dir(&dir).unwrap().flatten() {
            let number: u32 = entry.file_name().to_string_lossy().parse().unwrap();
            let target = fs::read_link(entry.path()).unwrap_or_default();
            let kind = fs::metadata(entry.path());
            // The container's own root leads nowhere else.
            if number > 2 && kind.is_ok_and(|m| m.is_dir() && Some((m.dev(), m.ino())) != root) {
                let line = format!("ESCAPED init holds a directory: {number} -> {}", target.display());
                found.add(&format!("userns={userns}"), [line]);
            }
        }
    }
    found.verdict()
}

/// A hook gets its own environment, not what the image sets, and runs outside the root file system.
fn hook_environment(stage: &Stage) -> Verdict {
    let mut found = Found::default();
    for kind in ["createRuntime", "createContainer", "poststop"] {
        let mut bundle = stage.bundle();
        bundle.config["process"]["env"] = json!(["PATH=/bin", "LD_PRELOAD=./evil.so", "LD_AUDIT=/evil.so"]);
        let report = bundle.dir.join("hook");
        let program = stage.join("payload");
        let args = json!(["payload", "@payload", "environment", report]);
        bundle.config["hooks"] = json!({ kind: [{"path": program, "args": args, "env": ["OWN=1"]}] });
        let outcome = bundle.run();
        found.note(&outcome, kind);
        stage.call(["delete", "--force", &bundle.id]);
        let said = fs::read_to_string(&report).unwrap_or_default();
        let rootfs = bundle.rootfs.display().to_string();
        for line in said.lines() {
            if line.contains("evil") || line.contains("LD_PRELOAD_OF_HOST") {
                found.add(kind, [format!("ESCAPED the hook has {line}")]);
            }
            if line.starts_with("cwd ") && line.contains(&rootfs) {
                found.add(kind, [format!("ESCAPED the hook runs in the root file system: {line}")]);
            }
        }
        if said.is_empty() && outcome.is_ok() {
            found.add(kind, ["the hook did not run".to_owned()]);
        }
    }
    found.verdict()
}
