//! Limits of cgroup v2, each read back.

use bale_testkit::require_vm;
use serde_json::{Value, json};

use crate::unified::Group;

/// `linux.resources`, and a file with what it must hold.
struct Case {
    resources: Value,
    file: &'static str,
    expected: &'static str,
    /// runc and crun of the guest's Debian know it.
    peers: bool,
}

fn case(resources: Value, file: &'static str, expected: &'static str) -> Case {
    Case { resources, file, expected, peers: true }
}

fn cases() -> Vec<Case> {
    let newer = |case: Case| Case { peers: false, ..case };
    let io = |kind: &str| {
        let rates = json!([{"major": 254, "minor": 0, "rate": 1_048_576}]);
        json!({"blockIO": {kind: rates}})
    };
    vec![
        case(json!({"memory": {"limit": 67_108_864}}), "memory.max", "67108864"),
        case(json!({"memory": {"limit": 67_108_864, "swap": 67_108_864}}), "memory.swap.max", "0"),
        case(json!({"memory": {"limit": 67_108_864, "swap": 134_217_728}}), "memory.swap.max", "67108864"),
        case(json!({"memory": {"limit": -1}}), "memory.max", "max"),
        case(json!({"memory": {"reservation": 33_554_432}}), "memory.low", "33554432"),
        // The curve of 2025: 1024 shares are the kernel's own weight.
        newer(case(json!({"cpu": {"shares": 1024}}), "cpu.weight", "100")),
        newer(case(json!({"cpu": {"shares": 2}}), "cpu.weight", "1")),
        case(json!({"cpu": {"quota": 25_000, "period": 50_000}}), "cpu.max", "25000 50000"),
        case(json!({"cpu": {"quota": -1}}), "cpu.max", "max 100000"),
        newer(case(json!({"cpu": {"quota": 25_000, "burst": 10_000}}), "cpu.max.burst", "10000")),
        newer(case(json!({"cpu": {"idle": 1}}), "cpu.idle", "1")),
        case(json!({"cpu": {"cpus": "1"}}), "cpuset.cpus", "1"),
        case(json!({"cpu": {"mems": "0"}}), "cpuset.mems", "0"),
        case(json!({"pids": {"limit": 7}}), "pids.max", "7"),
        case(json!({"pids": {"limit": -1}}), "pids.max", "max"),
        newer(case(json!({"pids": {"limit": 0}}), "pids.max", "1")),
        case(io("throttleReadBpsDevice"), "io.max", "254:0 rbps=1048576 wbps=max riops=max wiops=max"),
        case(io("throttleWriteBpsDevice"), "io.max", "254:0 rbps=max wbps=1048576 riops=max wiops=max"),
        case(io("throttleReadIOPSDevice"), "io.max", "254:0 rbps=max wbps=max riops=1048576 wiops=max"),
        case(io("throttleWriteIOPSDevice"), "io.max", "254:0 rbps=max wbps=max riops=max wiops=1048576"),
        case(json!({"blockIO": {"weight": 500}}), "io.weight", "default 4950"),
        case(
            json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}]}),
            "hugetlb.2MB.max",
            "4194304",
        ),
        newer(case(
            json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}]}),
            "hugetlb.2MB.rsvd.max",
            "4194304",
        )),
        case(json!({"unified": {"memory.high": "50331648"}}), "memory.high", "50331648"),
        case(json!({"unified": {"cpu.weight": "321"}}), "cpu.weight", "321"),
        case(json!({"unified": {"memory.oom.group": "1"}}), "memory.oom.group", "1"),
    ]
}

#[test]
fn every_limit_is_read_back() {
    require_vm!();
    let stage = crate::stage();
    for case in cases().into_iter().filter(|case| case.peers || stage.is_bale()) {
        let id = stage.create("true", |c| c["linux"]["resources"] = case.resources.clone());
        assert_eq!(Group::of(&id).read(case.file), case.expected, "{}: {}", case.file, case.resources);
        stage.ok(["delete", "--force", &id]);
        assert!(!Group::of(&id).exists(), "{}", case.resources);
    }
    stage.assert_clean();
}

#[test]
fn limits_are_changed() {
    require_vm!();
    let stage = crate::stage();
    let id = stage.create("true", |c| {
        c["linux"]["resources"] = json!({"memory": {"limit": 67_108_864}, "pids": {"limit": 7}});
    });
    let group = Group::of(&id);
    let update: [&[&str]; 4] = [
        &["--memory", "134217728", "--memory-swap", "134217728"],
        &["--pids-limit", "9"],
        &["--cpu-quota", "30000", "--cpu-period", "60000"],
        &["--cpuset-cpus", "0"],
    ];
    let expected: [&[(&str, &str)]; 4] = [
        &[("memory.max", "134217728"), ("memory.swap.max", "0"), ("pids.max", "7")],
        &[("pids.max", "9"), ("memory.max", "134217728")],
        &[("cpu.max", "30000 60000")],
        &[("cpuset.cpus", "0")],
    ];
    for (words, expected) in update.into_iter().zip(expected) {
        stage.ok(["update"].iter().chain(words).chain([&id.as_str()]));
        for (file, value) in expected {
            assert_eq!(&group.read(file), value, "{words:?}: {file}");
        }
    }
    stage.ok(["delete", "--force", &id]);
    stage.assert_clean();
}

#[test]
fn what_cannot_be_is_refused() {
    require_vm!();
    let stage = crate::stage();
    let cases = [
        (json!({"cpu": {"cpus": "64"}}), "cpuset.cpus"),
        (json!({"memory": {"limit": 1000, "swap": 500}}), "memory"),
        (json!({"unified": {"no.such": "1"}}), "controller"),
        (json!({"unified": {"memory.max": "many"}}), "memory.max"),
    ];
    for (resources, part) in cases {
        stage.run("true", |c| c["linux"]["resources"] = resources).fails_with(part);
    }
    if stage.is_bale() {
        stage.assert_clean();
    }
}

#[test]
fn a_container_is_frozen_and_thawed() {
    require_vm!();
    let stage = crate::stage();
    let id = stage.create("while :; do :; done", |_| {});
    let group = Group::of(&id);
    stage.ok(["start", &id]);
    for _ in 0..3 {
        stage.ok(["pause", &id]);
        assert_eq!(stage.state(&id)["status"], "paused");
        assert!(group.read("cgroup.events").lines().any(|line| line == "frozen 1"));
        let before = group.count("cpu.stat", "usage_usec");
        std::thread::yield_now();
        assert_eq!(group.count("cpu.stat", "usage_usec"), before, "it runs on");
        stage.ok(["resume", &id]);
        assert_eq!(stage.state(&id)["status"], "running");
        assert!(group.read("cgroup.events").lines().any(|line| line == "frozen 0"));
    }
    // What is frozen can be ended too.
    stage.ok(["pause", &id]);
    stage.ok(["delete", "--force", &id]);
    assert!(!group.exists());
    stage.assert_clean();
}
