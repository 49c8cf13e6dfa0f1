//! What a process is given: limits above the caller's own, and a profile of AppArmor.

use std::process::Command;

use bale_testkit::require_vm;
use serde_json::json;

use crate::stage::Stage;

#[test]
fn limits_are_raised() {
    require_vm!();
    let stage = crate::stage();
    let own = std::fs::read_to_string("/proc/self/limits").expect("limits");
    let hard = own
        .lines()
        .find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().nth(1)?.parse().ok());
    let hard: u64 = hard.expect("a limit of open files");
    let more = hard + 1000;
    stage
        .run("ulimit -Sn; ulimit -Hn", |c| {
            c["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": more, "hard": more}]);
        })
        .prints(&format!("{more}\n{more}"));
    stage.assert_clean();
}

const PROFILE: &str = "\
profile bale-vm-test flags=(attach_disconnected,mediate_deleted) {
  file,
  capability,
  signal,
  umount,
  deny /etc/secret r,
}
";
const LOOK: &str = "cat /proc/self/attr/apparmor/current; cat /etc/secret";

fn load_profile(stage: &Stage) {
    let file = stage.scratch.join("profile");
    std::fs::write(&file, PROFILE).expect("profile");
    let status = Command::new("apparmor_parser").args(["--replace", "--skip-cache"]).arg(&file).status();
    assert!(status.expect("apparmor_parser").success());
    std::fs::write(stage.scratch.join("rootfs/etc/secret"), "secret").expect("secret");
}

#[test]
fn apparmor_confines_the_container() {
    require_vm!();
    let stage = crate::stage();
    load_profile(&stage);
    let ran = stage.run(LOOK, |c| c["process"]["apparmorProfile"] = json!("bale-vm-test"));
    assert_eq!(ran.out.trim(), "bale-vm-test (enforce)", "{ran:#?}");
    ran.fails_with("/etc/secret': Permission denied");
    let ran = stage.run(LOOK, |_| {});
    assert_eq!(ran.out.trim(), "unconfined\nsecret", "{ran:#?}");
    stage.run(LOOK, |c| c["process"]["apparmorProfile"] = json!("no-such-profile")).fails_with("apparmor");
    if stage.is_bale() {
        stage.assert_clean();
    }
}

#[test]
fn apparmor_confines_what_is_executed() {
    require_vm!();
    let stage = crate::stage();
    load_profile(&stage);
    let id = stage.create("sleep 1000", |c| c["process"]["noNewPrivileges"] = json!(false));
    stage.ok(["start", &id]);
    let exec = ["exec", "--env", "PATH=/bin"];
    let ran = stage.runtime(exec.iter().chain(&["--apparmor", "bale-vm-test", &id, "/bin/sh", "-c", LOOK]));
    assert_eq!(ran.out.trim(), "bale-vm-test (enforce)", "{ran:#?}");
    ran.fails_with("/etc/secret': Permission denied");
    let ran = stage.runtime(exec.iter().chain(&[id.as_str(), "/bin/sh", "-c", LOOK]));
    assert_eq!(ran.out.trim(), "unconfined\nsecret", "{ran:#?}");
    stage.ok(["delete", "--force", &id]);
    stage.assert_clean();
}
