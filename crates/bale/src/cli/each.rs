//! Verbs on several things: each is tried, each success is printed, and one failure makes the exit code 1.

use crate::exit::ExitCode;

use bale_fault::Result;

use crate::{exit, output};

/// Does `work` for each name and prints what it returns.
pub fn each(names: &[String], mut work: impl FnMut(&str) -> Result<Option<String>>) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for name in names {
        let outcome =
            work(name).and_then(|line| line.map_or(Ok(()), |line| output::write(&format!("{line}\n"))));
        if let Err(fault) = outcome {
            exit::report(&fault);
            code = ExitCode::FAILURE;
        }
    }
    code
}
