//! `bale rm`.

use std::process::ExitCode;

use super::Context;
use bale_fault::{Fault, Kind, Result};

/// Arguments of `bale rm`.
#[derive(clap::Args)]
pub struct Args {}

/// Removes containers.
pub fn run(_args: Args, _context: &Context) -> Result<ExitCode> {
    Err(Fault::new(Kind::Unsupported, "`bale rm` is not built yet"))
}
