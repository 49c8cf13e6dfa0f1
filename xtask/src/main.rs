//! The project's own commands.
//!
//! | command | what it does |
//! |---|---|
//! | `cargo xtask demo` | builds `bale` and goes the whole way: an image of redis, a registry, a bundle, PONG |
//! | `cargo xtask test` | format, lints, all tests, a small demo; installs what they need |
//! | `cargo xtask bench` | measures `bale` beside the other tools of the field |
//! | `cargo xtask vm` | runs a command in a virtual machine with systemd and all of cgroup v2 |
//! | `cargo xtask suites` | runs test suites of others, ready-built in a folder, against bale and the other runtimes |
//! | `cargo xtask layout` | puts the functions of the short commands side by side in the program |
//! | `cargo xtask deps` | compares the dependencies with the reviewed list `docs/dependencies.txt` |

mod apt;
mod bench;
mod cargo;
mod demo;
mod deps;
mod first;
mod layout;
mod run;
mod suites;
mod test;
mod vm;

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use run::{Failure, Result, fail};

const USAGE: &str = "\
usage: cargo xtask COMMAND

  demo [--with BINARY] [--record SVG] [--small] [--dev]
                              build bale, make an image of redis, push, pull, bundle, run: PONG (needs root)
  test [--unprivileged] [--no-peers] [--no-vm]
                              format, lints, all tests and a small demo; prints a closing count. Some tests run beside the
                              other tools of the field, from a tree of Debian packages that is made once, below target/
                              (BALE_PEERS names another tree, or the suite); --no-peers leaves those out
  bench [--with BINARY] [--rounds N] [runtime|pull|fleet]
                              measure beside the peers (needs root, and their tree: the command says how to make it)
  vm [CMD... | test [--with RUNTIME] [NAME...] | power-cut [MS...]]
                              boot Debian with systemd and all of cgroup v2 under qemu, run CMD there as root (or a shell)
  suites DIR [--help]         run the suites of others that are ready-built in DIR, against bale, runc, crun and youki
  layout                      find the functions of the short commands, for the linker (crates/bale/layout.ld; needs root)
  deps [--accept]             compare the dependencies with docs/dependencies.txt";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if first::am_first() {
        return first::run_in_child().unwrap_or_else(|failure| told(&failure));
    }
    let outcome = match words.split_first() {
        Some((&"demo", rest)) => demo::main(rest),
        Some((&"test", rest)) => test::main(rest),
        Some((&"@peers", rest)) => test::peers::main(rest),
        Some((&"bench", rest)) => bench::main(rest),
        Some((&"@bench", rest)) => bench::main_inside(rest),
        Some((&"suites", rest)) => suites::main(rest),
        Some((&"@suite", rest)) => suites::main_inside(rest),
        Some((&"layout", [])) => layout::main(),
        Some((&"deps", rest)) => deps::main(rest),
        Some((&"vm", rest)) => vm::main(rest),
        Some((&"help" | &"--help" | &"-h", _)) => {
            say(USAGE);
            Ok(())
        }
        _ => fail(USAGE),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Ended(code)) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(Failure::Interrupted(signal)) => ExitCode::from(u8::try_from(128 + signal).unwrap_or(1)),
        Err(failure) => told(&failure),
    }
}

fn told(failure: &Failure) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "xtask: {failure}");
    ExitCode::FAILURE
}

/// What was printed, while somebody records it.
static RECORD: Mutex<Option<Vec<String>>> = Mutex::new(None);

/// Prints a line for the user; when nobody reads any more there is nobody to tell.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
    if let Some(lines) = RECORD.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
        lines.push(line.to_owned());
    }
}

/// Begins to record what [`say`] prints.
pub fn start_record() {
    *RECORD.lock().unwrap_or_else(PoisonError::into_inner) = Some(Vec::new());
}

/// Ends the record and returns its lines.
pub fn take_record() -> Vec<String> {
    RECORD.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default()
}

/// Refuses words that a command does not know.
pub fn only(given: &[&str], known: &[&str]) -> Result<()> {
    match given.iter().find(|word| !known.contains(word)) {
        Some(word) => fail(format!("unknown word {word:?}; known here: {}\n\n{USAGE}", known.join(" "))),
        None => Ok(()),
    }
}
