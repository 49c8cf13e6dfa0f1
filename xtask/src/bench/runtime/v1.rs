//! The host's own hierarchies, where its controllers are on cgroup v1: beside runc, and a container in 512 KiB.

use std::path::Path;

use serde_json::json;

use super::super::inside::{BENCH_CGROUP, V1};
use super::super::measure::{time, verdict};
use super::{Contender, Field, bundle, life, root_filesystem};
use crate::run::Result;
use crate::say;

const LIMIT_BYTES: u64 = 512 << 10;
const TIMES: usize = 100;

/// Measures and prints; without v1 hierarchies it says so.
pub fn main(rounds: usize) -> Result<()> {
    if !Path::new(V1).join("memory").is_dir() {
        say(
            "\nThis host has no cgroup v1: not measured there (the limit of 512 KiB on v2: `cargo xtask vm`).",
        );
        return Ok(());
    }
    root_filesystem()?;
    let field = Field::find();
    // crun refuses hosts with both versions, youki asks for systemd.
    let able: Vec<&Contender> = field.contenders.iter().filter(|who| can_run(who)).collect();
    let unified = Path::new(V1).join("unified").join(BENCH_CGROUP);
    say(&format!("\nruntime on the host's cgroup v1, {rounds} rounds, median (90th percentile) in ms"));
    life::measure_on_v1(&able, &unified, rounds)?;
    for who in &able {
        let name = who.name;
        let well = in_little_memory(who)?;
        say(&format!("  {name}: `true` in {} KiB: {well} of {TIMES}", LIMIT_BYTES >> 10));
        if name == "bale" {
            #[allow(clippy::cast_precision_loss, reason = "at most a hundred")]
            verdict("containers in 512 KiB that fail", (TIMES - well) as f64, 0.0, "");
        }
    }
    Ok(())
}

fn can_run(who: &Contender) -> bool {
    let id = format!("try-{}", who.name);
    bundle(&id, "/bin/true", &|_| ()).and_then(|bundle| time(&mut who.run(&bundle, &id))).is_ok()
}

/// Runs containers with a small limit one after the other, and counts those whose program ended well.
fn in_little_memory(who: &Contender) -> Result<usize> {
    let id = format!("little-{}", who.name);
    let bundle = bundle(&id, "/bin/true", &|config| {
        config["linux"]["resources"]["memory"] = json!({"limit": LIMIT_BYTES, "swap": LIMIT_BYTES});
    })?;
    let mut well = 0;
    for _ in 0..TIMES {
        if time(&mut who.run(&bundle, &id)).is_ok() {
            well += 1;
        } else {
            // What is left of a failed one is in the way of the next.
            let _ = who.remove(&id);
        }
    }
    Ok(well)
}
