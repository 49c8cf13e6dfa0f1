//! `bale kill`.

use std::process::ExitCode;

use super::Context;
use bale_fault::{Fault, Kind, Result};

/// Arguments of `bale kill`.
#[derive(clap::Args)]
pub struct Args {}

/// Sends a signal to containers.
pub fn run(_args: Args, _context: &Context) -> Result<ExitCode> {
    Err(Fault::new(Kind::Unsupported, "`bale kill` is not built yet"))
}
