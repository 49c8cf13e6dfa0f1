//! `bale check`.

use std::process::ExitCode;

use super::Context;
use bale_fault::{Fault, Kind, Result};

/// Arguments of `bale check`.
#[derive(clap::Args)]
pub struct Args {}

/// Tells what is wrong with a bundle.
pub fn run(_args: Args, _context: &Context) -> Result<ExitCode> {
    Err(Fault::new(Kind::Unsupported, "`bale check` is not built yet"))
}
