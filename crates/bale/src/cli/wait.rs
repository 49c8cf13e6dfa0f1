//! `bale wait`.

use std::process::ExitCode;

use super::Context;
use bale_fault::{Fault, Kind, Result};

/// Arguments of `bale wait`.
#[derive(clap::Args)]
pub struct Args {}

/// Waits for containers to end and prints their exit codes.
pub fn run(_args: Args, _context: &Context) -> Result<ExitCode> {
    Err(Fault::new(Kind::Unsupported, "`bale wait` is not built yet"))
}
