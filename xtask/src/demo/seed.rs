//! The bundle of 2015: made by hand, and the two files of the original byte for byte.

use std::fs;

use serde_json::json;

use super::stage::Stage;
use super::way::{REDIS_PORT, end, pong, redis_port, set_port, value_round_trip};
use crate::cargo;
use crate::run::Result;

/// The way of `bundle.md` of 2015, with one tool instead of six: export, tar, `spec`, `set`.
pub fn by_hand(stage: &mut Stage, image: &str) -> Result<()> {
    stage.title("a bundle made by hand, as in 2015: export, tar, spec, edits");
    stage.bale(&["create", "--name", "tempredis", image])?;
    stage.bale(&["export", "-o", "redis.tar", "tempredis"])?;
    stage.bale(&["rm", "-v", "tempredis"])?;
    stage.run("mkdir", &["-p", "by-hand/rootfs"])?;
    stage.run("tar", &["-C", "by-hand/rootfs", "-xf", "redis.tar"])?;
    stage.bale(&["spec", "--bundle", "./by-hand"])?;
    let port = redis_port(stage)?;
    let arguments = json!(["redis-server", "--bind", "0.0.0.0", "--port", port.to_string()]);
    stage.bale(&[
        "set",
        "./by-hand",
        &format!("process.args={arguments}"),
        "process.user.uid=1000",
        "process.user.gid=1000",
        "process.terminal=false",
        "process.cwd=/data",
        "root.readonly=false",
        "linux.namespaces-=network",
    ])?;
    stage.bale(&["check", "./by-hand"])?;
    stage.bale(&["run", "-d", "--name", "by-hand", "./by-hand"])?;
    pong(stage, "by-hand", port)?;
    value_round_trip(stage, port)?;
    end(stage, "by-hand")
}

/// The two files of 2015 beside a root file system: run as they are, then upgraded.
pub fn verbatim(stage: &mut Stage) -> Result<()> {
    stage.title("the two files of 2015, byte for byte, beside a root file system");
    stage.run("mkdir", &["-p", "seed/rootfs"])?;
    stage.run("tar", &["-C", "seed/rootfs", "-xf", "redis.tar"])?;
    let fixtures = cargo::workspace().join("xtask/fixtures/seed-redis");
    for name in ["config.json", "runtime.json"] {
        fs::copy(fixtures.join(name), stage.work().join("seed").join(name))?;
    }
    stage.run("ls", &["seed"])?;
    // The verdict is shown; what `check` finds here is the point, so its exit status is not.
    stage.look("bale", &["check", "./seed"])?;
    let port = redis_port(stage)?;
    if port == REDIS_PORT {
        run_once(stage, port)?;
    } else {
        stage.remark(
            "the two files name no port, so they cannot be run as they are while it is taken: upgraded first",
        );
    }
    stage.bale(&["upgrade", "./seed"])?;
    stage.bale(&["upgrade", "./seed"])?;
    if port != REDIS_PORT {
        set_port(stage, "./seed", port)?;
    }
    run_once(stage, port)
}

fn run_once(stage: &mut Stage, port: u16) -> Result<()> {
    stage.bale(&["run", "-d", "--name", "seed", "./seed"])?;
    pong(stage, "seed", port)?;
    value_round_trip(stage, port)?;
    // Its working directory is `/`, where uid 1000 cannot write (`check` said so): redis would refuse to end without
    // having saved.
    stage.run("redis-cli", &["-p", &port.to_string(), "config", "set", "save", ""])?;
    end(stage, "seed")
}
