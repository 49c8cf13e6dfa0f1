//! `bale volume`.

use std::process::ExitCode;

use super::Context;
use bale_fault::{Fault, Kind, Result};

/// Arguments of `bale volume`.
#[derive(clap::Args)]
pub struct Args {}

/// Manages volumes.
pub fn run(_args: Args, _context: &Context) -> Result<ExitCode> {
    Err(Fault::new(Kind::Unsupported, "`bale volume` is not built yet"))
}
