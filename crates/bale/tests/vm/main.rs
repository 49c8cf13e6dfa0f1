//! What only a host with systemd, all of cgroup v2, AppArmor and every capability shows: `cargo xtask vm test` runs these
//! tests in one. `cargo xtask vm test --with runc` runs the same against a peer, to prove the cases; what only bale
//! promises, or younger specifications have, is left out then.

#[path = "../runc/stage.rs"]
#[allow(dead_code, reason = "the tests of the command line use all of it")]
mod stage;

mod bite;
mod devices;
mod limits;
mod process;
mod systemd;
mod unified;

/// Makes a stage. The cgroup above the containers' stays when they go, as it does with every runtime: it is there before.
fn stage() -> stage::Stage {
    if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        let _ = std::fs::create_dir("/sys/fs/cgroup/bale-tests");
    }
    stage::Stage::new()
}
