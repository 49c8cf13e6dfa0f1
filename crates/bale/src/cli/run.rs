//! `bale run`.

use std::process::ExitCode;

use super::Context;
use bale_fault::{Fault, Kind, Result};

/// Arguments of `bale run`.
#[derive(clap::Args)]
pub struct Args {}

/// Makes a container and runs it.
pub fn run(_args: Args, _context: &Context) -> Result<ExitCode> {
    Err(Fault::new(Kind::Unsupported, "`bale run` is not built yet"))
}
