//! The binary: picks a role before any thread or parser exists.
//!
//! | called as | role |
//! |---|---|
//! | `runc`, `crun`, `bale-runc` (argv\[0\]), `bale runc …` | the runtime's command line ([`runc`]) |
//! | `bale @supervise …` | the process that keeps one container (bale-supervisor) |
//! | `bale @…` | other inner roles ([`inner`]) |
//! | `bale VERB …` | the command line for people ([`cli`]) |

// The tests have a main of their own.
#![cfg_attr(not(test), no_main)]

mod cli;
mod exec;
mod exit;
#[cfg(test)]
mod fuzz;
mod init;
mod inner;
mod interrupt;
mod output;
mod progress;
mod runc;
mod template;

use crate::exit::ExitCode;
use std::ffi::OsString;

#[cfg(not(test))]
bale_sys::entry!(crate::main);

/// Runs as what the arguments say, and returns the exit code.
#[cfg_attr(test, allow(dead_code))]
fn main() -> u8 {
    role().number()
}

fn role() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let called_as =
        arguments.first().and_then(|a| std::path::Path::new(a).file_name()?.to_str()).unwrap_or("bale");
    match called_as {
        "runc" | "crun" | "bale-runc" => return runc::main(called_as, &arguments[1..]),
        _ => {}
    }
    match arguments.get(1).and_then(|a| a.to_str()) {
        Some("runc") => runc::main("runc", &arguments[2..]),
        Some(role) if role.starts_with('@') => inner::main(role, &arguments[2..]),
        _ => cli::main(arguments),
    }
}
