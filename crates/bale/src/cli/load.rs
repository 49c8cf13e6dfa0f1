//! `bale load`.

use std::process::ExitCode;

use super::Context;
use bale_fault::{Fault, Kind, Result};

/// Arguments of `bale load`.
#[derive(clap::Args)]
pub struct Args {}

/// Reads images from an archive.
pub fn run(_args: Args, _context: &Context) -> Result<ExitCode> {
    Err(Fault::new(Kind::Unsupported, "`bale load` is not built yet"))
}
