//! The escape suite: hostile bundles, volumes and processes against a runtime, one case for each attack of the past
//! (docs/escape-suite.md has the table and where each case was seen to succeed).
//!
//! ```text
//! cargo test -p bale --test escape                      bale
//! RUNTIME=/usr/sbin/runc cargo test -p bale --test escape [-- PART OF A NAME]     another runtime, the same cases
//! ```
//!
//! It has its own `main`: the cases share one private mount namespace, where what an escape could hurt on the host is
//! covered by files of the suite; and the same program, static, is the hostile process inside the containers.

#![allow(clippy::print_stdout, reason = "it takes the place of the test harness")]
#![allow(clippy::unwrap_used, reason = "a test")]

mod files;
mod identity;
mod links;
mod payload;
mod process;
mod procfs;
mod race;
mod seal;
mod stage;

use std::process::ExitCode;
use std::time::Instant;

use stage::Stage;

/// How a case ended.
#[derive(Debug)]
pub enum Verdict {
    /// The attack had no effect.
    Held {
        /// How often a container ran all the same.
        ran: u32,
        /// How often it was refused.
        refused: u32,
    },
    /// The attack had an effect outside.
    Escaped(Vec<String>),
}

/// A case: its name (the attack it stands for) and what it does.
type Case = (&'static str, fn(&Stage) -> Verdict);

const PARTS: [&[Case]; 7] =
    [links::CASES, files::CASES, process::CASES, seal::CASES, identity::CASES, procfs::CASES, race::CASES];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|word| word == "@payload") {
        return payload::main(&arguments[2..]);
    }
    let chosen: Vec<&String> = arguments[1..].iter().filter(|word| !word.starts_with('-')).collect();
    if arguments.iter().any(|word| word == "--list") {
        PARTS.iter().copied().flatten().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    if !bale_testkit::has_root("root") {
        println!("test result: ok. 1 passed; 0 failed; 0 ignored");
        return ExitCode::SUCCESS;
    }
    let (mut passed, mut failed) = (0, 0);
    let stage = Stage::new();
    println!("\nruntime {}", stage.name());
    for (name, case) in PARTS.iter().copied().flatten() {
        if !chosen.is_empty() && !chosen.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        let began = Instant::now();
        let verdict = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case(&stage)));
        stage.sweep();
        let millis = began.elapsed().as_millis();
        match verdict {
            Ok(Verdict::Held { ran, refused }) => {
                passed += 1;
                println!("test {name} ... ok ({ran} ran, {refused} refused, {millis} ms)");
            }
            Ok(Verdict::Escaped(how)) => {
                failed += 1;
                println!("test {name} ... FAILED\n  escaped ({} ways, {millis} ms):", how.len());
                how.iter()
                    .take(12)
                    .for_each(|line| println!("    {}", line.chars().take(400).collect::<String>()));
            }
            Err(_) => {
                failed += 1;
                println!("test {name} ... FAILED\n  the case itself did not work");
            }
        }
    }
    if let Err(left) = stage.finish() {
        failed += 1;
        println!("test leaves_the_machine_as_it_was ... FAILED\n  {left}");
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored");
    ExitCode::from(u8::from(failed > 0))
}
