//! `bale stop`.

use std::process::ExitCode;

use super::Context;
use bale_fault::{Fault, Kind, Result};

/// Arguments of `bale stop`.
#[derive(clap::Args)]
pub struct Args {}

/// Stops containers.
pub fn run(_args: Args, _context: &Context) -> Result<ExitCode> {
    Err(Fault::new(Kind::Unsupported, "`bale stop` is not built yet"))
}
