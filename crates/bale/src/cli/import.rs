//! `bale import`.

use std::process::ExitCode;

use super::Context;
use bale_fault::{Fault, Kind, Result};

/// Arguments of `bale import`.
#[derive(clap::Args)]
pub struct Args {}

/// Makes an image of a file system archive.
pub fn run(_args: Args, _context: &Context) -> Result<ExitCode> {
    Err(Fault::new(Kind::Unsupported, "`bale import` is not built yet"))
}
