//! Limits of cgroup v2, each seen to bite.

use std::time::{Duration, Instant};

use bale_testkit::{require_root, require_vm};
use serde_json::json;

use crate::unified::Group;

#[test]
fn memory_that_is_not_there_ends_who_wants_it() {
    require_vm!();
    let stage = crate::stage();
    let greedy = "awk 'BEGIN { s = \"x\"; while (1) s = s s }'; echo $?; grep -w oom_kill /sys/fs/cgroup/memory.events";
    let ran = stage.run(greedy, |c| {
        crate::stage::add_namespace(c, "cgroup");
        crate::stage::add_mount(c, "/sys/fs/cgroup", "cgroup", "cgroup", &["ro"]);
        c["linux"]["resources"] = json!({"memory": {"limit": 16_777_216, "swap": 16_777_216}});
    });
    ran.prints("137\noom_kill 1");
    stage.assert_clean();
}

#[test]
fn processes_are_counted() {
    require_vm!();
    let stage = crate::stage();
    let many = "for i in 1 2 3 4 5 6 7 8; do sleep 60 & done; echo all";
    let ran = stage.run(many, |c| c["linux"]["resources"] = json!({"pids": {"limit": 5}}));
    ran.fails_with("can't fork");
    assert!(!ran.out.contains("all"), "{ran:#?}");
    stage
        .run("for i in 1 2 3; do true & wait; done; echo all", |c| {
            c["linux"]["resources"] = json!({"pids": {"limit": 5}});
        })
        .prints("all");
    stage.assert_clean();
}

#[test]
fn time_is_rationed() {
    require_vm!();
    let stage = crate::stage();
    let id = stage.create("while :; do :; done", |c| {
        c["linux"]["resources"] = json!({"cpu": {"quota": 5_000, "period": 100_000}});
    });
    let group = Group::of(&id);
    stage.ok(["start", &id]);
    group.wait_count("cpu.stat", "nr_throttled ");
    stage.ok(["delete", "--force", &id]);
    stage.assert_clean();
}

#[test]
fn a_disk_is_slowed_down() {
    require_vm!();
    let stage = crate::stage();
    // Past the cache, so that it is the container that waits for the disk.
    let write = "dd if=/dev/zero of=/big bs=1M count=4 oflag=direct 2>/dev/null && rm /big && echo written";
    let took = |rate: u64| {
        let began = Instant::now();
        stage
            .run(write, |c| {
                let rates = json!([{"major": 254, "minor": 0, "rate": rate}]);
                c["linux"]["resources"] = json!({"blockIO": {"throttleWriteBpsDevice": rates}});
            })
            .prints("written");
        began.elapsed()
    };
    let (slow, fast) = (took(1 << 20), took(1 << 30));
    // No host is too slow for this: four mebibytes at one each second take three seconds at least, on any.
    assert!(slow >= Duration::from_secs(3) && slow > fast, "limited {slow:?}, not limited {fast:?}");
    stage.assert_clean();
}

/// The smallest limit that people use; what bale itself needs must not be charged to the container (runc needs ten times
/// as much).
#[test]
fn true_runs_in_512_kib() {
    require_root!();
    let stage = crate::stage();
    if !stage.is_bale() {
        return;
    }
    for round in 0..100 {
        let ran = stage.run("", |c| {
            c["process"]["args"] = json!(["/bin/true"]);
            c["linux"]["resources"] = json!({"memory": {"limit": 524_288}});
        });
        assert_eq!(ran.code, 0, "round {round}: {ran:#?}");
    }
    stage.assert_clean();
}
