#![allow(clippy::type_complexity)]

use super::*;
use bale_spec::runtime::{
    BlockIo, Cpu, HugepageLimit, Memory, Network, Pids, Rdma, ThrottleDevice, WeightDevice,
};

/// What is written for `resources`, as `file=value`, the choices of one limit joined by ` | `.
fn told(settings: Result<Vec<Setting>>) -> Vec<String> {
    let one = |s: &Setting| s.choices.iter().map(|(f, v)| format!("{f}={v}")).collect::<Vec<_>>().join(" | ");
    settings.unwrap().iter().map(one).collect()
}

fn v1_told(resources: &Resources) -> Vec<String> {
    Controller::ALL.iter().flat_map(|c| told(v1::settings(*c, resources))).collect()
}

fn v2_told(resources: &Resources, now: &[(&str, &str)]) -> Vec<String> {
    let current = |file: &str| now.iter().find(|(name, _)| *name == file).map(|(_, text)| (*text).to_owned());
    Controller::ALL.iter().flat_map(|c| told(v2::settings(*c, resources, &current))).collect()
}

fn memory(limit: Option<i64>, swap: Option<i64>) -> Resources {
    Resources { memory: Some(Memory { limit, swap, ..Memory::default() }), ..Resources::default() }
}

#[test]
fn shares_become_weights_on_runcs_curve() {
    // The points that runc's own test names, and the curve between them as Python computes it.
    let low = [(0, 0), (1, 1), (2, 1), (3, 2), (64, 12), (128, 21), (512, 59), (1024, 100)];
    let high =
        [(2048, 174), (10_240, 639), (65_536, 3023), (262_143, 10_000), (262_144, 10_000), (1 << 40, 10_000)];
    for (shares, weight) in low.into_iter().chain(high) {
        assert_eq!(weight_of_shares(shares), weight, "{shares}");
    }
}

#[test]
fn memory_and_swap() {
    let cases: &[(Option<i64>, Option<i64>, &[&str], &[&str])] = &[
        (Some(100), None, &["limit_in_bytes=100"], &["max=100"]),
        (
            Some(100),
            Some(300),
            &["limit_in_bytes=100", "memsw.limit_in_bytes=300"],
            &["swap.max=200", "max=100"],
        ),
        (
            Some(100),
            Some(100),
            &["limit_in_bytes=100", "memsw.limit_in_bytes=100"],
            &["swap.max=0", "max=100"],
        ),
        (
            Some(100),
            Some(-1),
            &["memsw.limit_in_bytes=-1", "limit_in_bytes=100"],
            &["swap.max=max", "max=100"],
        ),
        (Some(-1), None, &["memsw.limit_in_bytes=-1", "limit_in_bytes=-1"], &["swap.max=max", "max=max"]),
        (Some(-1), Some(50), &["limit_in_bytes=-1", "memsw.limit_in_bytes=50"], &["swap.max=50", "max=max"]),
        (None, Some(300), &["memsw.limit_in_bytes=300"], &["swap.max=100"]),
        (Some(0), Some(0), &[], &[]),
    ];
    for (limit, swap, on_v1, on_v2) in cases {
        let resources = memory(*limit, *swap);
        let named = |list: &[&str]| list.iter().map(|text| format!("memory.{text}")).collect::<Vec<_>>();
        assert_eq!(v1_told(&resources), named(on_v1), "v1 {limit:?} {swap:?}");
        assert_eq!(v2_told(&resources, &[("memory.max", "200\n")]), named(on_v2), "v2 {limit:?} {swap:?}");
    }
    let fails =
        |resources: &Resources| v2::settings(Controller::Memory, resources, &|_| None).unwrap_err().chain();
    assert!(fails(&memory(None, Some(5))).contains("without linux.resources.memory.limit"));
    assert!(fails(&memory(Some(9), Some(5))).contains("less than"));
    let mut checked = memory(Some(50), None);
    checked.memory.as_mut().unwrap().check_before_update = Some(true);
    let fault = v2::settings(Controller::Memory, &checked, &|_| Some("60\n".to_owned())).unwrap_err();
    assert!(fault.chain().contains("rejecting memory limit 50 <= usage 60"), "{fault:?}");
}

#[test]
fn processors() {
    let cpu = |cpu: Cpu| Resources { cpu: Some(cpu), ..Resources::default() };
    let all = cpu(Cpu {
        shares: Some(1024),
        quota: Some(50_000),
        period: Some(100_000),
        burst: Some(10_000),
        cpus: Some("0-1".into()),
        mems: Some("0".into()),
        ..Cpu::default()
    });
    assert_eq!(
        v1_told(&all),
        [
            "cpuset.cpus=0-1",
            "cpuset.mems=0",
            "cpu.shares=1024",
            "cpu.cfs_period_us=100000",
            "cpu.cfs_burst_us=10000",
            "cpu.cfs_quota_us=50000"
        ]
    );
    assert_eq!(
        v2_told(&all, &[]),
        ["cpuset.cpus=0-1", "cpuset.mems=0", "cpu.weight=100", "cpu.max.burst=10000", "cpu.max=50000 100000"]
    );
    let quota = |quota| cpu(Cpu { quota: Some(quota), ..Cpu::default() });
    assert_eq!(v2_told(&quota(-1), &[]), ["cpu.max=max"]);
    assert_eq!(v1_told(&quota(-1)), ["cpu.cfs_quota_us=-1"]);
    // A period alone keeps the quota that there is.
    let period = cpu(Cpu { period: Some(5000), ..Cpu::default() });
    assert_eq!(v2_told(&period, &[("cpu.max", "2000 100000\n")]), ["cpu.max=2000 5000"]);
    let idle = cpu(Cpu { idle: Some(1), shares: Some(2), ..Cpu::default() });
    assert_eq!(v2_told(&idle, &[]), ["cpu.idle=1"]);
}

#[test]
fn processes_devices_pages_and_networks() {
    for (limit, value) in [(-1, "max"), (0, "1"), (7, "7")] {
        let resources = Resources { pids: Some(Pids { limit: Some(limit) }), ..Resources::default() };
        assert_eq!(v1_told(&resources), [format!("pids.max={value}")]);
        assert_eq!(v2_told(&resources, &[]), [format!("pids.max={value}")]);
    }
    let device = |rate| vec![ThrottleDevice { major: 8, minor: 0, rate }];
    let io = BlockIo {
        weight: Some(500),
        weight_device: vec![WeightDevice { major: 8, minor: 16, weight: Some(300), leaf_weight: None }],
        throttle_read_bps_device: device(1000),
        throttle_write_iops_device: device(20),
        ..BlockIo::default()
    };
    let resources = Resources { block_io: Some(io), ..Resources::default() };
    assert_eq!(
        v1_told(&resources),
        [
            "blkio.weight=500 | blkio.bfq.weight=500",
            "blkio.weight_device=8:16 300 | blkio.bfq.weight_device=8:16 300",
            "blkio.throttle.read_bps_device=8:0 1000",
            "blkio.throttle.write_iops_device=8:0 20"
        ]
    );
    assert_eq!(
        v2_told(&resources, &[("io.bfq.weight", "default 100\n")]),
        [
            "io.bfq.weight=500 | io.weight=4950",
            "io.bfq.weight=8:16 300",
            "io.max=8:0 rbps=1000",
            "io.max=8:0 wiops=20"
        ]
    );
    let pages = |size: &str| Resources {
        hugepage_limits: vec![HugepageLimit { page_size: size.to_owned(), limit: 9 }],
        ..Resources::default()
    };
    assert_eq!(v1_told(&pages("2MB")), ["hugetlb.2MB.limit_in_bytes=9", "hugetlb.2MB.rsvd.limit_in_bytes=9"]);
    assert_eq!(v2_told(&pages("1GB"), &[]), ["hugetlb.1GB.max=9", "hugetlb.1GB.rsvd.max=9"]);
    for size in ["", "MB", "2", "../2MB", "2mb"] {
        assert!(v1::settings(Controller::Hugetlb, &pages(size)).is_err(), "{size}");
    }
    let network = Network { class_id: Some(5), priorities: vec![] };
    assert_eq!(v1_told(&Resources { network: Some(network), ..Resources::default() }), ["net_cls.classid=5"]);
    let rdma = [("mlx5_1".to_owned(), Rdma { hca_handles: Some(3), hca_objects: None })].into();
    assert_eq!(v1_told(&Resources { rdma, ..Resources::default() }), ["rdma.max=mlx5_1 hca_handle=3"]);
}

#[test]
fn unified_names_are_files() {
    let unified = |file: &str| {
        let unified = [(file.to_owned(), "1\n2".to_owned())].into();
        v2::unified(&Resources { unified, ..Resources::default() })
    };
    assert!(unified("memory.high").is_ok() && unified("../x.y").is_err() && unified("memory").is_err());
}
