//! `bale rmi`.

use std::process::ExitCode;

use super::Context;
use bale_fault::{Fault, Kind, Result};

/// Arguments of `bale rmi`.
#[derive(clap::Args)]
pub struct Args {}

/// Removes images.
pub fn run(_args: Args, _context: &Context) -> Result<ExitCode> {
    Err(Fault::new(Kind::Unsupported, "`bale rmi` is not built yet"))
}
