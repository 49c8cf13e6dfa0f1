//! The device filter on cgroup v2: a program that the kernel asks.

use bale_testkit::require_vm;
use serde_json::{Value, json};

/// Makes a node and reads from it.
const READ: &str =
    "mknod /node $KIND && dd if=/node of=/dev/null bs=512 count=1 2>&1 | tail -n 1; rm -f /node";

fn with_rules(kind: &'static str, rules: &Value) -> impl FnOnce(&mut Value) {
    let rules = rules.clone();
    move |c| {
        for set in ["bounding", "effective", "permitted"] {
            c["process"]["capabilities"][set] = json!(["CAP_MKNOD"]);
        }
        c["process"]["env"].as_array_mut().expect("env").push(json!(format!("KIND={kind}")));
        c["linux"]["resources"] = json!({"devices": rules});
    }
}

#[test]
fn rules_decide_what_is_opened() {
    require_vm!();
    let stage = crate::stage();
    let none = json!({"allow": false, "access": "rwm"});
    let (disk, port) = ("b 254 0", "c 1 4");
    let allow = |kind: &str, major: u32, minor: u32, access: &str| json!({"allow": true, "type": kind, "major": major, "minor": minor, "access": access});
    let refused = "Operation not permitted";
    let cases = [
        (disk, json!([none]), refused),
        (disk, json!([none, allow("b", 254, 0, "r")]), "1+0 records out"),
        (disk, json!([none, allow("b", 254, 0, "w")]), refused),
        (disk, json!([none, allow("b", 254, 1, "r")]), refused),
        (disk, json!([none, allow("c", 254, 0, "r")]), refused),
        (disk, json!([none, {"allow": true, "type": "b", "major": 254, "access": "r"}]), "1+0 records out"),
        (
            disk,
            json!([none, {"allow": true, "type": "b", "access": "r"}, {"allow": false, "type": "b", "major": 254, "minor": 0, "access": "r"}]),
            refused,
        ),
        (port, json!([none, allow("c", 1, 4, "w")]), refused),
        // What every container has is not lost.
        ("c 1 5", json!([none]), "1+0 records out"),
    ];
    for (kind, rules, part) in cases {
        // runc takes no hole in a wildcard.
        if !stage.is_bale() && rules.as_array().is_some_and(|rules| rules.len() > 2) {
            continue;
        }
        let ran = stage.run(READ, with_rules(kind, &rules));
        assert!(ran.code == 0 && ran.out.contains(part), "{kind}: {rules}: {part:?} is not in {ran:#?}");
    }
    stage.assert_clean();
}

#[test]
fn whoever_joins_is_filtered_too() {
    require_vm!();
    let stage = crate::stage();
    let id = stage.create("sleep 1000", with_rules("b 254 0", &json!([{"allow": false, "access": "rwm"}])));
    stage.ok(["start", &id]);
    let ran =
        stage.runtime(["exec", "--env", "KIND=b 254 0", "--env", "PATH=/bin", &id, "/bin/sh", "-c", READ]);
    assert!(ran.out.contains("Operation not permitted"), "{ran:#?}");
    stage.ok(["delete", "--force", &id]);
    stage.assert_clean();
}
