//! The systemd driver where the controllers are on cgroup v1: `cargo xtask vm --cgroup v1 test` (or `hybrid`).

use std::path::{Path, PathBuf};
use std::process::Command;

use bale_testkit::require_vm;
use serde_json::json;

use crate::stage::Stage;
use crate::systemd::{create, show, with_systemd};
use crate::unified::Group;

/// The directories of a unit, in all hierarchies that are mounted.
fn directories(slice: &str, unit: &str) -> Vec<PathBuf> {
    let mounts = std::fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten();
    mounts.map(|mount| mount.path().join(slice).join(unit)).filter(|path| path.is_dir()).collect()
}

fn at(controller: &str, unit: &str) -> Group {
    Group::at(&format!("{controller}/system.slice/{unit}"))
}

fn reload() {
    let status = Command::new("systemctl").arg("daemon-reload").status();
    assert!(status.expect("systemctl").success());
}

#[test]
fn a_container_is_in_its_unit_in_every_hierarchy() {
    require_vm!();
    let stage = crate::stage();
    let (id, unit) = create(&stage, "system.slice", "exec sleep 1000", |_| {});
    assert_eq!(show(&unit, "ActiveState"), "active");
    let groups = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("cgroup");
    let all_in = |pid: &str| {
        for line in groups(pid).lines() {
            // runc and crun leave hierarchies out that they have no use for.
            let known = ["cpu", "pids", "freezer", "devices", "name=systemd"];
            if stage.is_bale() || known.iter().any(|name| line.contains(&format!(":{name}"))) {
                assert!(line.contains(&format!("/system.slice/{unit}")), "{line}");
            }
        }
    };
    all_in(&stage.state(&id)["pid"].to_string());
    with_systemd(&stage, ["start", &id]).prints("");
    let mut command = stage.command(["--systemd-cgroup", "exec", "--detach", &id, "sleep", "2000"]);
    // What it leaves must not keep this test waiting for the end of its output.
    let quiet = (std::process::Stdio::null(), std::process::Stdio::null());
    assert!(command.stdout(quiet.0).stderr(quiet.1).status().expect("exec").success());
    let list = with_systemd(&stage, ["ps", "--format", "json", &id]);
    let pids: Vec<u64> = serde_json::from_str(&list.out).expect("pids");
    assert_eq!(pids.len(), 2, "{list:?}");
    pids.iter().for_each(|pid| all_in(&pid.to_string()));
    with_systemd(&stage, ["pause", &id]).prints("");
    assert_eq!(stage.state(&id)["status"], "paused");
    with_systemd(&stage, ["resume", &id]).prints("");
    assert_eq!(stage.state(&id)["status"], "running");
    with_systemd(&stage, ["delete", "--force", &id]).prints("");
    assert_eq!(show(&unit, "LoadState"), "not-found");
    assert_eq!(directories("system.slice", &unit), Vec::<PathBuf>::new());
    stage.assert_clean();
}

#[test]
fn limits_are_systemds_and_the_files() {
    require_vm!();
    let stage = crate::stage();
    let (id, unit) = create(&stage, "system.slice", "exec sleep 1000", |c| {
        c["linux"]["resources"] = json!({
            "cpu": {"shares": 512, "quota": 25_000, "period": 50_000},
            "pids": {"limit": 30},
            "devices": [{"allow": false, "access": "rwm"}],
        });
    });
    let known = [("CPUShares", "512"), ("CPUQuotaPerSecUSec", "500ms"), ("TasksMax", "30")];
    for (property, value) in known {
        assert_eq!(show(&unit, property), value, "{property}");
    }
    let check = |when: &str| {
        let files = [
            ("cpu", "cpu.shares", "512"),
            ("cpu", "cpu.cfs_quota_us", "25000"),
            ("cpu", "cpu.cfs_period_us", "50000"),
            ("pids", "pids.max", "30"),
        ];
        for (controller, file, value) in files {
            assert_eq!(at(controller, &unit).read(file), value, "{file} {when}");
        }
        let ran = with_systemd(&stage, ["exec", &id, "/bin/dd", "if=/dev/disk", "of=/dev/null", "count=1"]);
        ran.fails_with("not permitted");
        let ran = with_systemd(&stage, ["exec", &id, "/bin/sh", "-c", "head -c 1 /dev/zero | wc -c"]);
        ran.prints("1");
    };
    with_systemd(&stage, ["start", &id]).prints("");
    // The host makes the node, so that it is opening it that is refused.
    let node = format!("/proc/{}/root/dev/disk", stage.state(&id)["pid"]);
    let made = Command::new("mknod").args([&node, "b", "254", "0"]).status();
    assert!(made.expect("mknod").success());
    check("at first");
    reload();
    check("after daemon-reload");
    with_systemd(&stage, ["update", "--pids-limit", "20", "--cpu-share", "256", &id]).prints("");
    for (property, controller, file, value) in
        [("TasksMax", "pids", "pids.max", "20"), ("CPUShares", "cpu", "cpu.shares", "256")]
    {
        let found = (show(&unit, property), at(controller, &unit).read(file));
        assert_eq!((found.0.as_str(), found.1.as_str()), (value, value), "{property}");
    }
    with_systemd(&stage, ["delete", "--force", &id]).prints("");
    assert_eq!(directories("system.slice", &unit), Vec::<PathBuf>::new());
    stage.assert_clean();
}

/// Debian 13's kernel has the memory controller on v2 alone: there it is limited beside v1, and systemd, which asks v1
/// here, told in vain.
#[test]
fn memory_is_limited_where_its_controller_is() {
    require_vm!();
    let stage = crate::stage();
    let on_v1 = Path::new("/sys/fs/cgroup/memory/cgroup.procs").exists();
    if !on_v1 && (!Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists() || !stage.is_bale()) {
        let ran = stage.run("true", |c| c["linux"]["resources"] = json!({"memory": {"limit": 67_108_864}}));
        return ran.fails_with("memory");
    }
    let (id, unit) = create(&stage, "system.slice", "exec sleep 1000", |c| {
        c["linux"]["resources"] = json!({"memory": {"limit": 67_108_864}});
    });
    let (group, file) = if on_v1 {
        (at("memory", &unit), "memory.limit_in_bytes")
    } else {
        (at("unified", &unit), "memory.max")
    };
    assert_eq!((group.read(file).as_str(), show(&unit, "MemoryLimit").as_str()), ("67108864", "67108864"));
    reload();
    assert_eq!(group.read(file), "67108864");
    with_systemd(&stage, ["update", "--memory", "50331648", &id]).prints("");
    assert_eq!((group.read(file).as_str(), show(&unit, "MemoryLimit").as_str()), ("50331648", "50331648"));
    with_systemd(&stage, ["delete", "--force", &id]).prints("");
    assert_eq!(directories("system.slice", &unit), Vec::<PathBuf>::new());
    stage.assert_clean();
}

#[test]
fn what_fails_leaves_nothing() {
    require_vm!();
    let stage = crate::stage();
    let id = Stage::id();
    let bundle = stage.bundle(&id, "true", |c| {
        c["linux"]["cgroupsPath"] = json!(format!("system.slice:bale-vm:{id}"));
        c["process"]["args"] = json!(["/no/such/program"]);
    });
    let ran = with_systemd(&stage, ["run", "--bundle", bundle.to_str().unwrap(), &id]);
    ran.fails_with("no such file");
    let unit = format!("bale-vm-{id}.scope");
    assert_eq!(show(&unit, "LoadState"), "not-found");
    assert_eq!(directories("system.slice", &unit), Vec::<PathBuf>::new());
    stage.assert_clean();
}
