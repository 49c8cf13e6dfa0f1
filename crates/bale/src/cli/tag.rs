//! `bale tag`.

use std::process::ExitCode;

use super::Context;
use bale_fault::{Fault, Kind, Result};

/// Arguments of `bale tag`.
#[derive(clap::Args)]
pub struct Args {}

/// Gives an image another name.
pub fn run(_args: Args, _context: &Context) -> Result<ExitCode> {
    Err(Fault::new(Kind::Unsupported, "`bale tag` is not built yet"))
}
