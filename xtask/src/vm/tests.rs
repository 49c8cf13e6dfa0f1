//! The tests that run in the virtual machine: built here, run there.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use bale_testkit::command::quoted;
use bale_testkit::{BUSYBOX, SKIPS};
use serde_json::Value;

use crate::cargo::cargo;
use crate::run::{Result, Runner, TOO_LONG, fail};
use crate::vm::Image;
use crate::vm::machine::{Ends, Machine};

/// Test programs of `bale` that are run there, and which of their tests when nobody asks for others: what needs the
/// machine, and of the runtime's command line what is different where `/` is a shared mount and networks are the kernel's.
const PROGRAMS: &[(&str, &[&str])] = &[("vm", &[]), ("runc", &["net_devices", "propagation"])];

/// What to run.
#[derive(Debug, Default)]
pub struct Choice<'a> {
    /// The runtime in the place of `bale`.
    pub with: Option<&'a str>,
    /// Parts of the names of tests.
    pub filters: Vec<&'a str>,
}

impl<'a> Choice<'a> {
    /// Reads the words after `vm test`.
    pub fn read(words: &[&'a str]) -> Result<Self> {
        let mut choice = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match *word {
                "--with" => choice.with = words.next().copied(),
                other if other.starts_with('-') => {
                    return fail(format!("unknown word {other:?}: vm test [--with RUNTIME] [NAME...]"));
                }
                name => choice.filters.push(name),
            }
        }
        Ok(choice)
    }
}

/// Builds the tests and returns the script that runs them.
pub fn script(runner: &mut Runner, choice: &Choice<'_>) -> Result<String> {
    let mut script = format!("export {BUSYBOX}=/usr/bin/busybox {SKIPS}=/vm/skips TMPDIR=/var/tmp\n");
    if let Some(runtime) = choice.with {
        script.push_str(&format!("export RUNTIME={}\n", quoted(runtime)));
    }
    script.push_str("failed=0\n");
    for (program, usual) in build(runner)?.iter().zip(PROGRAMS.iter().map(|(_, usual)| *usual)) {
        let program = quoted(&program.display().to_string());
        let names = if choice.filters.is_empty() { usual } else { &choice.filters };
        let filters: Vec<String> = names.iter().map(|name| quoted(name)).collect();
        // One after the other: two processors that are emulated have enough to do with one.
        script.push_str(&format!("{program} --test-threads=1 {} || failed=1\n", filters.join(" ")));
    }
    script.push_str("exit $failed");
    Ok(script)
}

/// What the tests did.
#[derive(Debug)]
pub struct Ran {
    /// Exit status.
    pub code: i32,
    /// What they said.
    pub lines: Vec<String>,
    /// What was left out, see [`bale_testkit::SKIPS`].
    pub skips: String,
}

/// Runs all of them, for at most `limit`.
pub fn run(runner: &mut Runner, image: &Image, limit: Duration) -> Result<Ran> {
    let script = script(runner, &Choice::default())?;
    let mut machine = Machine::new(image, &super::dir(), &script, Ends::Output)?;
    let (code, lines) = runner.watch_lines(machine.start(), limit)?;
    let code = if code == TOO_LONG { code } else { machine.code()? };
    let skips = fs::read_to_string(machine.folder().join("skips")).unwrap_or_default();
    Ok(Ran { code, lines, skips })
}

/// Builds the programs, in their order.
fn build(runner: &mut Runner) -> Result<Vec<PathBuf>> {
    let mut command = cargo();
    command.args(["test", "--no-run", "--quiet", "--message-format=json", "--package", "bale"]);
    for (program, _) in PROGRAMS {
        command.args(["--test", program]);
    }
    let said = runner.run(&mut command)?.success()?.stdout;
    let messages: Vec<Value> = said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let find = |name: &str| {
        let is_it =
            |m: &&Value| m["target"]["kind"] == serde_json::json!(["test"]) && m["target"]["name"] == name;
        messages.iter().filter(is_it).find_map(|m| m["executable"].as_str().map(PathBuf::from))
    };
    PROGRAMS
        .iter()
        .map(|(name, _)| find(name).map_or_else(|| fail(format!("cargo did not build the test {name}")), Ok))
        .collect()
}
