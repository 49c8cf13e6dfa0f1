//! The systemd driver.

use std::process::Command;

use bale_testkit::require_vm;
use serde_json::{Value, json};

use crate::stage::{Ran, Stage};
use crate::unified::Group;

/// Asks systemd for a property of a unit.
fn show(unit: &str, property: &str) -> String {
    let output = Command::new("systemctl").args(["show", "--value", "--property", property, unit]).output();
    String::from_utf8(output.expect("systemctl").stdout).expect("text").trim().to_owned()
}

/// Makes a container in the unit `bale-vm-ID.scope` of a slice.
fn create(stage: &Stage, slice: &str, script: &str, change: impl FnOnce(&mut Value)) -> (String, String) {
    let id = Stage::id();
    let bundle = stage.bundle(&id, script, |c| {
        c["linux"]["cgroupsPath"] = json!(format!("{slice}:bale-vm:{id}"));
        change(c);
    });
    let log = std::fs::File::create(stage.scratch.join(format!("{id}.out"))).expect("log");
    let mut command =
        stage.command(["--systemd-cgroup", "create", "--bundle", bundle.to_str().expect("UTF-8"), &id]);
    let status = command.stdout(log.try_clone().expect("dup")).stderr(log).status().expect("create");
    assert!(status.success(), "create {id}: {}", stage.output(&id));
    let unit = format!("bale-vm-{id}.scope");
    (id, unit)
}

fn with_systemd<const N: usize>(stage: &Stage, words: [&str; N]) -> Ran {
    stage.runtime(["--systemd-cgroup"].into_iter().chain(words))
}

#[test]
fn a_unit_lives_as_long_as_its_container() {
    require_vm!();
    let stage = crate::stage();
    let (id, unit) = create(&stage, "system.slice", "cat /proc/self/cgroup; exec sleep 1000", |c| {
        crate::stage::add_namespace(c, "cgroup");
    });
    let group = Group::at(&format!("system.slice/{unit}"));
    assert_eq!(show(&unit, "ActiveState"), "active");
    assert_eq!(show(&unit, "Delegate"), "yes");
    // crun makes one more cgroup in it.
    let own = std::fs::read_to_string(format!("/proc/{}/cgroup", stage.state(&id)["pid"])).expect("cgroup");
    assert!(own.starts_with(&format!("0::/system.slice/{unit}")), "{own}");
    with_systemd(&stage, ["start", &id]).prints("");
    // It is the root of what the container sees.
    stage.wait_output(&id, "0::/\n");
    let ran = with_systemd(&stage, ["exec", &id, "/bin/cat", "/proc/self/cgroup"]);
    ran.prints("0::/");
    with_systemd(&stage, ["pause", &id]).prints("");
    assert_eq!(stage.state(&id)["status"], "paused");
    with_systemd(&stage, ["resume", &id]).prints("");
    with_systemd(&stage, ["delete", "--force", &id]).prints("");
    assert_eq!(show(&unit, "LoadState"), "not-found");
    assert!(!group.exists());
    stage.assert_clean();
}

#[test]
fn systemd_knows_the_limits_and_keeps_them() {
    require_vm!();
    let stage = crate::stage();
    let (id, unit) = create(&stage, "bale-vm-deep.slice", "sleep 1000", |c| {
        c["linux"]["resources"] = json!({
            "memory": {"limit": 67_108_864, "swap": 67_108_864, "reservation": 33_554_432},
            "cpu": {"quota": 25_000, "period": 50_000, "cpus": "1"},
            "pids": {"limit": 30},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}],
            "devices": [{"allow": false, "access": "rwm"}],
        });
    });
    let group = Group::at(&format!("bale.slice/bale-vm.slice/bale-vm-deep.slice/{unit}"));
    let known = [
        ("MemoryMax", "67108864"),
        ("TasksMax", "30"),
        ("CPUQuotaPerSecUSec", "500ms"),
        ("AllowedCPUs", "1"),
    ];
    let files = [
        ("memory.max", "67108864"),
        ("memory.swap.max", "0"),
        ("memory.low", "33554432"),
        ("cpu.max", "25000 50000"),
        ("pids.max", "30"),
        ("cpuset.cpus", "1"),
        ("hugetlb.2MB.max", "4194304"),
    ];
    for (property, value) in known {
        assert_eq!(show(&unit, property), value, "{property}");
    }
    let check = |when: &str| {
        // runc and crun of Debian 13 miss the one or the other.
        let weak = |file: &str| matches!(file, "hugetlb.2MB.max" | "memory.swap.max");
        for (file, value) in files.iter().filter(|(file, _)| stage.is_bale() || !weak(file)) {
            assert_eq!(&group.read(file), value, "{file} {when}");
        }
    };
    check("at first");
    with_systemd(&stage, ["start", &id]).prints("");
    let status = Command::new("systemctl").arg("daemon-reload").status();
    assert!(status.expect("systemctl").success());
    check("after daemon-reload");
    let ran = with_systemd(&stage, ["exec", &id, "/bin/sh", "-c", "mknod /n b 254 0; cat /n"]);
    ran.fails_with("not permitted");
    with_systemd(
        &stage,
        ["update", "--memory", "50331648", "--memory-swap", "50331648", "--pids-limit", "20", &id],
    )
    .prints("");
    for (property, file, value) in [("MemoryMax", "memory.max", "50331648"), ("TasksMax", "pids.max", "20")] {
        assert_eq!((show(&unit, property).as_str(), group.read(file).as_str()), (value, value), "{property}");
    }
    with_systemd(&stage, ["delete", "--force", &id]).prints("");
    assert_eq!(show(&unit, "LoadState"), "not-found");
    // Slices stay when they are empty.
    let status = Command::new("systemctl").args(["stop", "bale.slice"]).status();
    assert!(status.expect("systemctl").success());
    stage.assert_clean();
}

#[test]
fn no_failed_unit_is_left() {
    require_vm!();
    let stage = crate::stage();
    let greedy = "exec awk 'BEGIN { s = \"x\"; while (1) s = s s }'";
    let (id, unit) = create(&stage, "system.slice", greedy, |c| {
        c["linux"]["resources"] = json!({"memory": {"limit": 16_777_216, "swap": 16_777_216}});
    });
    with_systemd(&stage, ["start", &id]).prints("");
    stage.wait_stopped(&id);
    with_systemd(&stage, ["delete", &id]).prints("");
    assert_eq!(show(&unit, "LoadState"), "not-found");
    let output =
        Command::new("systemctl").args(["list-units", "--failed", "--plain", "--no-legend"]).output();
    let failed = String::from_utf8(output.expect("systemctl").stdout).expect("text");
    assert!(!failed.contains(&unit), "{failed}");
    stage.assert_clean();
}

#[test]
fn a_failed_create_leaves_no_unit() {
    require_vm!();
    let stage = crate::stage();
    let id = Stage::id();
    let bundle = stage.bundle(&id, "true", |c| {
        c["linux"]["cgroupsPath"] = json!(format!("system.slice:bale-vm:{id}"));
        c["process"]["args"] = json!(["/no/such/program"]);
    });
    let ran = with_systemd(&stage, ["run", "--bundle", bundle.to_str().unwrap(), &id]);
    ran.fails_with("no such file");
    assert_eq!(show(&format!("bale-vm-{id}.scope"), "LoadState"), "not-found");
    stage.assert_clean();
}

#[test]
fn annotations_are_properties_of_the_unit() {
    require_vm!();
    let stage = crate::stage();
    let (id, unit) = create(&stage, "system.slice", "sleep 1000", |c| {
        c["annotations"] = json!({
            "org.systemd.property.TimeoutStopUSec": "uint64 7000000",
            "org.systemd.property.DefaultDependencies": "true",
        });
    });
    assert_eq!(show(&unit, "TimeoutStopUSec"), "7s");
    assert_eq!(show(&unit, "DefaultDependencies"), "yes");
    with_systemd(&stage, ["delete", "--force", &id]).prints("");
    // What would take others in, or lift the filter, is not left to them.
    let refused: &[(&str, &str)] = if stage.is_bale() {
        &[
            ("PIDs", "[1]"),
            ("DeviceAllow", "[]"),
            ("Slice", "'user.slice'"),
            ("NoSuchThing", "true"),
            ("CPUWeight", "much"),
        ]
    } else {
        &[("NoSuchThing", "true"), ("CPUWeight", "much")]
    };
    for (name, value) in refused {
        let id = Stage::id();
        let bundle = stage.bundle(&id, "true", |c| {
            c["linux"]["cgroupsPath"] = json!(format!("system.slice:bale-vm:{id}"));
            c["annotations"] = json!({format!("org.systemd.property.{name}"): value});
        });
        with_systemd(&stage, ["run", "--bundle", bundle.to_str().unwrap(), &id]).fails_with(name);
    }
    stage.assert_clean();
}

#[test]
fn a_path_is_no_unit() {
    require_vm!();
    let stage = crate::stage();
    let id = Stage::id();
    let bundle = stage.bundle(&id, "true", |_| {});
    let ran = with_systemd(&stage, ["run", "--bundle", bundle.to_str().unwrap(), &id]);
    // runc writes quotes of its words with backslashes.
    ran.fails_with("expected cgroupsPath to be of format");
    ran.fails_with("for systemd cgroups");
    stage.assert_clean();
}
