//! `bale version`.

use std::process::ExitCode;

use super::Context;
use bale_fault::{Fault, Kind, Result};

/// Arguments of `bale version`.
#[derive(clap::Args)]
pub struct Args {}

/// Shows the version.
pub fn run(_args: Args, _context: &Context) -> Result<ExitCode> {
    Err(Fault::new(Kind::Unsupported, "`bale version` is not built yet"))
}
