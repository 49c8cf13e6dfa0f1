//! `bale upgrade`.

use std::process::ExitCode;

use super::Context;
use bale_fault::{Fault, Kind, Result};

/// Arguments of `bale upgrade`.
#[derive(clap::Args)]
pub struct Args {}

/// Converts a bundle of 2015 to 2017 to today's format.
pub fn run(_args: Args, _context: &Context) -> Result<ExitCode> {
    Err(Fault::new(Kind::Unsupported, "`bale upgrade` is not built yet"))
}
