//! `bale export`.

use std::process::ExitCode;

use super::Context;
use bale_fault::{Fault, Kind, Result};

/// Arguments of `bale export`.
#[derive(clap::Args)]
pub struct Args {}

/// Writes a container's file system as a tar archive.
pub fn run(_args: Args, _context: &Context) -> Result<ExitCode> {
    Err(Fault::new(Kind::Unsupported, "`bale export` is not built yet"))
}
