//! `bale save`.

use std::process::ExitCode;

use super::Context;
use bale_fault::{Fault, Kind, Result};

/// Arguments of `bale save`.
#[derive(clap::Args)]
pub struct Args {}

/// Writes images to an archive.
pub fn run(_args: Args, _context: &Context) -> Result<ExitCode> {
    Err(Fault::new(Kind::Unsupported, "`bale save` is not built yet"))
}
