//! `bale spec`.

use std::process::ExitCode;

use super::Context;
use bale_fault::{Fault, Kind, Result};

/// Arguments of `bale spec`.
#[derive(clap::Args)]
pub struct Args {}

/// Writes a config.json to start from.
pub fn run(_args: Args, _context: &Context) -> Result<ExitCode> {
    Err(Fault::new(Kind::Unsupported, "`bale spec` is not built yet"))
}
