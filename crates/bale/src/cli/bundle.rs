//! `bale bundle`.

use std::process::ExitCode;

use super::Context;
use bale_fault::{Fault, Kind, Result};

/// Arguments of `bale bundle`.
#[derive(clap::Args)]
pub struct Args {}

/// Makes a bundle of an image.
pub fn run(_args: Args, _context: &Context) -> Result<ExitCode> {
    Err(Fault::new(Kind::Unsupported, "`bale bundle` is not built yet"))
}
