//! Licences, bans and sources of all crates by `deny.toml`, with cargo-deny.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Count, cargo_check, check};
use crate::apt::is_here;
use crate::cargo::{self, cargo};
use crate::run::{Result, Runner};
use crate::say;

/// What is installed where there is none.
const VERSION: &str = "0.20.2";

/// Checks the crates.
///
/// Its advisories need a database from GitHub, which not every machine reaches: they are a step of a release.
pub fn audit(runner: &mut Runner, count: &mut Count) -> Result<()> {
    match program(runner)? {
        Ok(program) => {
            let mut deny = Command::new(program);
            deny.current_dir(cargo::workspace()).args(["--offline", "--log-level", "error", "check"]);
            deny.args(["bans", "licenses", "sources"]);
            check(count, "deny.toml", cargo_check(runner, &mut deny))?;
        }
        Err(why) => count.skip(&format!("cargo-deny cannot be installed: {why}")),
    }
    count.skip("advisories need a database from GitHub: `cargo deny check advisories`");
    Ok(())
}

/// Finds cargo-deny, or installs it below `target/`, where it stays; else why not.
fn program(runner: &mut Runner) -> Result<Result<PathBuf, String>> {
    if is_here("cargo-deny") {
        return Ok(Ok(PathBuf::from("cargo-deny")));
    }
    let root = cargo::target().join(format!("tools/cargo-deny-{VERSION}"));
    let program = root.join("bin/cargo-deny");
    if program.is_file() {
        return Ok(Ok(program));
    }
    say(&format!("$ cargo install --locked --debug cargo-deny@{VERSION} (once, below target/)"));
    let ran = runner.run(&mut install(&root));
    let built = cargo::target().join("tools/build");
    bale_testkit::scratch::remove_tree(&built)?;
    let ran = ran?;
    if ran.code == 0 && program.is_file() {
        say(&format!("installed in {} s", ran.took.as_secs()));
        return Ok(Ok(program));
    }
    let why = ran.stderr.lines().find(|line| line.starts_with("error")).unwrap_or("cargo install failed");
    Ok(Err(why.to_owned()))
}

/// Not optimised and without debugging information: built in a fraction of the time, and it runs for a second.
fn install(root: &Path) -> Command {
    let mut command = cargo();
    // Outside the workspace its settings for the linker do not count.
    command.current_dir("/").args([
        "install",
        "--quiet",
        "--locked",
        "--debug",
        "cargo-deny",
        "--version",
        VERSION,
    ]);
    command.arg("--root").arg(root).arg("--target-dir").arg(cargo::target().join("tools/build"));
    command.env("CARGO_PROFILE_DEV_DEBUG", "0");
    command
}
