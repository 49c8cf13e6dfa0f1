//! `cargo xtask demo`: from packages to an image, from an image's name to a redis that answers, in the user's sight.
//!
//! Everything happens in `target/demo`: what is downloaded (and kept for the next run), the registry, the store
//! (`BALE_ROOT`), the bundles. Only public commands of `bale` are used, and each is shown as it is called.

mod proof;
mod record;
mod registry;
mod seed;
mod stage;
mod tools;
mod way;

pub use registry::free_port;

use std::path::Path;
use std::time::Instant;

use bale_testkit::machine::{Scope, Snapshot};
use bale_testkit::service;

use crate::cargo::{self, Profile};
use crate::run::{Failure, Result, Runner, fail};
use crate::{apt, only, say, start_record, take_record};
use stage::Stage;

/// The name of the cgroup in which bale makes those of its containers.
const PARENT_CGROUP: &str = "bale";

/// What `cargo xtask demo` does.
pub fn main(words: &[&str]) -> Result<()> {
    let (binary, words) = match words {
        ["--with", binary, rest @ ..] => (Some(Path::new(*binary).canonicalize()?), rest),
        _ => (None, words),
    };
    let (picture, words) = match words {
        ["--record", picture, rest @ ..] => (Some(Path::new(*picture)), rest),
        _ => (None, words),
    };
    only(words, &["--small", "--dev"])?;
    want_root()?;
    let began = Instant::now();
    let dir = cargo::target().join("demo");
    let mut runner = Runner::new(&dir.join("output"))?;
    let profile = if words.contains(&"--dev") { Profile::Dev } else { Profile::Release };
    let bale = match binary {
        Some(binary) => binary,
        None => {
            apt::ensure(&mut runner, apt::BUILD)?;
            say("building bale …");
            cargo::build_bale(&mut runner, profile)?
        }
    };
    let built = began.elapsed();
    picture.iter().for_each(|_| start_record());
    run(runner, &dir, &bale, words.contains(&"--small"))?;
    say(&format!(
        "\nall done in {:.1} s, {:.1} s of it for the build",
        began.elapsed().as_secs_f32(),
        built.as_secs_f32()
    ));
    picture.map_or(Ok(()), |picture| record::write(&take_record(), picture))
}

/// Goes the way with a binary that is there, and leaves the machine as it was, however it ends.
pub fn run(runner: Runner, dir: &Path, bale: &Path, small: bool) -> Result<()> {
    let mut stage = Stage::open(runner, dir, bale)?;
    stage.remove_leftovers()?;
    let scope = scope(dir);
    let (before, cgroups) = (Snapshot::take(&scope), Snapshot::take(&parents()));
    let outcome = play(&mut stage, small);
    if let Err(failure) = &outcome {
        say(&format!("\n! {failure}\n  cleaning up …"));
    }
    let cleaned = stage.clean_up();
    remove_parent_cgroups(&cgroups);
    let left = before.changes_until_settled(&scope);
    tell_what_is_left(&before, &left);
    outcome.map_err(|failure| match failure {
        Failure::Words(_) => Failure::Told,
        other => other,
    })?;
    cleaned?;
    if left.is_empty() { Ok(()) } else { fail("the demo left something behind") }
}

fn play(stage: &mut Stage, small: bool) -> Result<()> {
    stage.title("packages, in target/demo only: nothing is installed");
    tools::prepare(stage)?;
    let archive = stage.timed("an image of redis: a base layer, a redis layer and a config", |stage| {
        Ok(service::archive(&stage.cache(), &service::redis())?)
    })?;
    let image = way::publish(stage, &archive)?;
    way::image_to_running_redis(stage, &image)?;
    if !small {
        way::straight_from_the_image(stage, &image)?;
        seed::by_hand(stage, &image)?;
        seed::verbatim(stage)?;
    }
    Ok(())
}

/// What is compared before and after: all that has to do with the demo's folder, and the places of a default store.
fn scope(dir: &Path) -> Scope {
    let scope = Scope::below(dir).cgroups_of(PARENT_CGROUP);
    scope.folder(Path::new("/var/lib/bale")).folder(Path::new("/run/bale"))
}

fn parents() -> Scope {
    Scope::default().cgroups_of(PARENT_CGROUP)
}

/// Removes the cgroups in which bale makes those of its containers: it keeps them for the next container, but they
/// were not there before the demo. One that is in use stays, as it is not the demo's alone.
fn remove_parent_cgroups(before: &Snapshot) {
    let changes = before.changes(&Snapshot::take(&parents()));
    for cgroup in changes.iter().filter_map(|change| change.strip_prefix("+ cgroup ")) {
        if Path::new(cgroup).file_name().is_some_and(|name| name == PARENT_CGROUP) {
            let _ = std::fs::remove_dir(cgroup);
        }
    }
}

fn tell_what_is_left(before: &Snapshot, left: &[String]) {
    if left.is_empty() {
        let counted =
            ["mount", "cgroup", "process", "file"].map(|kind| format!("{} {kind}(s)", before.count(kind)));
        say(&format!("\nleft behind: nothing (before as after: {} of bale or the demo)", counted.join(", ")));
    } else {
        say(&format!("\nleft behind:\n  {}", left.join("\n  ")));
    }
}

fn want_root() -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(Failure::Words(
        "the demo needs root: it makes containers with mounts, cgroups and a process of another user (uid 1000); \
         rootless containers are not there yet. Try: sudo -E env PATH=\"$PATH\" cargo xtask demo"
            .to_owned(),
    ))
}
