//! `bale attach`.

use std::process::ExitCode;

use super::Context;
use bale_fault::{Fault, Kind, Result};

/// Arguments of `bale attach`.
#[derive(clap::Args)]
pub struct Args {}

/// Connects to a running container.
pub fn run(_args: Args, _context: &Context) -> Result<ExitCode> {
    Err(Fault::new(Kind::Unsupported, "`bale attach` is not built yet"))
}
