//! `cargo xtask test`: what must hold before a change is good, in one command, with a closing count.

mod deny;
pub mod peers;
mod vm;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bale_testkit::command::shown;
use bale_testkit::{SKIPS, UNPRIVILEGED};

use crate::apt::{self, Need};
use crate::cargo::{self, Profile, cargo};
use crate::run::{Failure, Result, Runner, TOO_LONG, fail};
use crate::{demo, deps, only, say};

/// What the tests need beyond the build.
const NEEDS: &[Need] = &[
    Need {
        what: "ps",
        package: "procps",
        why: "`bale runc ps` shows its table with the host's ps, as runc does",
    },
    Need { what: "strace", package: "strace", why: "tests end bale at every system call with it" },
    Need { what: "zstd", package: "zstd", why: "test images have layers that are packed with it" },
];

/// The tests of the whole workspace, built and run, take a few minutes; whatever takes this long hangs.
const LIMIT: Duration = Duration::from_secs(45 * 60);

/// What was counted.
#[derive(Debug, Default)]
struct Count {
    passed: u64,
    failed: u64,
    /// How many were left out, by reason.
    skipped: BTreeMap<String, u64>,
    /// What failed, in words.
    failures: Vec<String>,
    /// The programs of tests, each with how long it ran.
    times: Vec<(f64, String)>,
}

impl Count {
    fn skip(&mut self, reason: &str) {
        *self.skipped.entry(reason.to_owned()).or_default() += 1;
    }
}

/// What `cargo xtask test` does.
pub fn main(words: &[&str]) -> Result<()> {
    only(words, &["--unprivileged", "--no-peers", "--no-vm"])?;
    let unprivileged = words.contains(&"--unprivileged");
    want_root_unless(unprivileged)?;
    let began = Instant::now();
    let dir = cargo::target().join("test-run");
    let mut runner = Runner::new(&dir)?;
    install_needs(&mut runner, unprivileged)?;
    let mut count = Count::default();
    check(&mut count, "format", cargo_check(&mut runner, cargo().args(["fmt", "--all", "--check"])))?;
    let lints = ["clippy", "--workspace", "--all-targets", "--quiet", "--", "--deny", "warnings"];
    check(&mut count, "lints", cargo_check(&mut runner, cargo().args(lints)))?;
    check(&mut count, "dependencies", deps::compare(&mut runner))?;
    deny::audit(&mut runner, &mut count)?;
    let peers = peers::prepare(&mut runner, unprivileged || words.contains(&"--no-peers"))?;
    tests(&mut runner, &mut count, &dir, unprivileged, peers)?;
    let no_vm = words.contains(&"--no-vm").then_some("left out by --no-vm");
    vm::tests(&mut runner, &mut count, if unprivileged { Some("needs root") } else { no_vm })?;
    small_demo(runner, &mut count, unprivileged)?;
    close(&mut count, began.elapsed())
}

fn want_root_unless(unprivileged: bool) -> Result<()> {
    if unprivileged || rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(Failure::Words(
        "the tests make containers, which needs root. Run them as root (sudo -E env PATH=\"$PATH\" cargo xtask test), \
         or say `cargo xtask test --unprivileged` to leave out those that need it"
            .to_owned(),
    ))
}

fn install_needs(runner: &mut Runner, unprivileged: bool) -> Result<()> {
    apt::ensure(runner, apt::BUILD)?;
    if unprivileged && !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    apt::ensure(runner, NEEDS)
}

/// Counts one check; only an interruption ends the run.
fn check(count: &mut Count, name: &str, outcome: Result<()>) -> Result<()> {
    match outcome {
        Ok(()) => {
            say(&format!("check {name} ... ok"));
            count.passed += 1;
        }
        Err(Failure::Interrupted(signal)) => return Err(Failure::Interrupted(signal)),
        Err(failure) => {
            say(&format!("check {name} ... FAILED: {failure}"));
            count.failed += 1;
            count.failures.push(format!("check {name}"));
        }
    }
    Ok(())
}

/// Runs a check that says itself what is wrong.
fn cargo_check(runner: &mut Runner, command: &mut Command) -> Result<()> {
    let line = shown(command);
    // As one types it, without the program's folder.
    let (program, arguments) = line.split_once(' ').unwrap_or((&line, ""));
    let line = format!("{} {arguments}", program.rsplit('/').next().unwrap_or(program));
    say(&format!("$ {line}"));
    match runner.watch(command)?.0 {
        0 => Ok(()),
        code => fail(format!("{line} ended with {code}")),
    }
}

/// Runs unit, integration and documentation tests of all crates.
fn tests(
    runner: &mut Runner,
    count: &mut Count,
    dir: &Path,
    unprivileged: bool,
    (name, value): peers::Told,
) -> Result<()> {
    let skips = dir.join("skips");
    let _ = fs::remove_file(&skips);
    let mut command = cargo();
    command.args(["test", "--workspace", "--no-fail-fast"]).env(SKIPS, &skips);
    command.env(UNPRIVILEGED, if unprivileged { "1" } else { "0" }).env(name, value);
    say("$ cargo test --workspace --no-fail-fast");
    let (code, lines) = runner.watch_lines(&mut command, LIMIT)?;
    let before = count.failed;
    add_tests(count, &lines, &fs::read_to_string(&skips).unwrap_or_default());
    // Something was not even compiled, then.
    if code == TOO_LONG || code != 0 && count.failed == before {
        count.failed += 1;
        let how = if code == TOO_LONG {
            "took too long and was ended".to_owned()
        } else {
            format!("ended with {code}")
        };
        count.failures.push(format!("cargo test {how}"));
    }
    Ok(())
}

/// Adds what the test harness says and what the tests themselves left out.
fn add_tests(count: &mut Count, lines: &[String], skips: &str) {
    let mut program = String::new();
    for line in lines {
        if let Some(name) = program_of(line) {
            program = name;
        } else if let Some(result) = line.strip_prefix("test result: ") {
            count.times.push((seconds_of(result), program.clone()));
            count.passed += number_before(result, " passed");
            count.failed += number_before(result, " failed");
            let ignored = number_before(result, " ignored");
            if ignored > 0 {
                *count.skipped.entry("marked as ignored".to_owned()).or_default() += ignored;
            }
        } else if let Some(name) = line.strip_prefix("test ").and_then(|l| l.strip_suffix(" ... FAILED")) {
            count.failures.push(name.to_owned());
        }
    }
    for line in skips.lines() {
        let reason = line.split('\t').next().unwrap_or(line);
        count.skip(reason);
        // The harness counts a test that ended early as passed.
        count.passed = count.passed.saturating_sub(1);
    }
}

/// Returns the program of tests that cargo says it starts: `Running tests/x.rs (target/debug/deps/x-0123)`.
fn program_of(line: &str) -> Option<String> {
    let line = line.trim_start();
    if let Some(name) = line.strip_prefix("Doc-tests ") {
        return Some(format!("documentation of {name}"));
    }
    let file = line.strip_prefix("Running ")?.rsplit_once('/')?.1.strip_suffix(')')?;
    Some(file.rsplit_once('-')?.0.to_owned())
}

/// Returns the time in `… finished in 1.23s`.
fn seconds_of(result: &str) -> f64 {
    let time = result.rsplit(' ').next().and_then(|time| time.strip_suffix('s'));
    time.and_then(|time| time.parse().ok()).unwrap_or(0.0)
}

fn number_before(text: &str, word: &str) -> u64 {
    let head = text.split(word).next().unwrap_or_default();
    head.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// The first part of the demo, with the binary that the tests used.
fn small_demo(mut runner: Runner, count: &mut Count, unprivileged: bool) -> Result<()> {
    if unprivileged {
        count.skip("needs root");
        return Ok(());
    }
    say("\n$ cargo xtask demo --dev --small");
    let bale: Result<PathBuf> = cargo::build_bale(&mut runner, Profile::Dev);
    let outcome = bale.and_then(|bale| demo::run(runner, &cargo::target().join("demo"), &bale, true));
    check(count, "demo", outcome)
}

/// Prints what took long, what was left out and the closing count, and fails when anything failed.
fn close(count: &mut Count, took: Duration) -> Result<()> {
    count.times.sort_by(|one, other| other.0.total_cmp(&one.0));
    let slowest: Vec<String> =
        count.times.iter().take(10).map(|(seconds, name)| format!("{name} {seconds:.0} s")).collect();
    say(&format!("\nin {} s; the slowest programs of tests: {}", took.as_secs(), slowest.join(", ")));
    for (reason, n) in &count.skipped {
        say(&format!("skipped {n}: {reason}"));
    }
    for failure in &count.failures {
        say(&format!("failed: {failure}"));
    }
    let skipped: u64 = count.skipped.values().sum();
    say(&format!("{} passed, {} failed, {skipped} skipped", count.passed, count.failed));
    if count.failed == 0 { Ok(()) } else { Err(Failure::Told) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_tells_early_ends_from_passes() {
        let lines = [
            "     Running unittests src/lib.rs (target/debug/deps/bale_spec-0f)",
            "test a ... ok",
            "test x::b ... FAILED",
            "test result: FAILED. 5 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "   Doc-tests bale_spec",
            "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.25s",
        ];
        let mut count = Count::default();
        add_tests(&mut count, &lines.map(str::to_owned), "needs root\ta\nneeds root\tc\n");
        assert_eq!((count.passed, count.failed), (4, 1));
        assert_eq!(count.skipped.get("needs root"), Some(&2));
        assert_eq!(count.skipped.get("marked as ignored"), Some(&2));
        assert_eq!(count.failures, ["x::b"]);
        let times = [(0.0, "bale_spec".to_owned()), (1.25, "documentation of bale_spec".to_owned())];
        assert_eq!(count.times, times);
    }
}
