//! Cargo, as `cargo xtask` calls it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::run::{Failure, Result, Runner, fail};

/// Returns the workspace's root folder.
pub fn workspace() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map_or(here.clone(), Path::to_owned)
}

/// Returns the folder of what is built.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// Prepares a call of the cargo that called us.
pub fn cargo() -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(workspace());
    command
}

/// The profiles that `bale` is built in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// As it is shipped.
    Release,
    /// As the tests use it: built sooner.
    Dev,
}

impl Profile {
    /// Returns the words that cargo wants.
    pub fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Release => &["--release"],
            Self::Dev => &[],
        }
    }
}

/// Builds `bale` and returns the binary.
pub fn build_bale(runner: &mut Runner, profile: Profile) -> Result<PathBuf> {
    build_bale_in(runner, profile, &[])
}

/// The same, with the linker's map in `map`.
pub fn build_bale_with_map(runner: &mut Runner, profile: Profile, map: &Path) -> Result<PathBuf> {
    build_bale_in(runner, profile, &[("BALE_LINK_MAP", map)])
}

fn build_bale_in(runner: &mut Runner, profile: Profile, environment: &[(&str, &Path)]) -> Result<PathBuf> {
    let build = |extra: &[&str]| {
        let mut command = cargo();
        command.envs(environment.iter().copied());
        command.args(["build", "--package", "bale"]).args(profile.arguments()).args(extra);
        command
    };
    let (code, _) = runner.watch(&mut build(&[]))?;
    if code != 0 {
        return fail("bale does not build; the compiler's words are above");
    }
    // Asked a second time, cargo tells in no time where the binary is.
    let mut asked = build(&["--quiet", "--message-format=json"]);
    let ran = runner.run(&mut asked)?.success()?;
    let messages = ran.stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut executables = messages
        .filter(|m| m["target"]["name"] == "bale")
        .filter_map(|m| m["executable"].as_str().map(PathBuf::from));
    executables.next_back().ok_or_else(|| Failure::Words("cargo did not tell where the binary is".to_owned()))
}
