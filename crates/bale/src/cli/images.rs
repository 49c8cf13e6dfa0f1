//! `bale images`.

use std::process::ExitCode;

use super::Context;
use bale_fault::{Fault, Kind, Result};

/// Arguments of `bale images`.
#[derive(clap::Args)]
pub struct Args {}

/// Lists images.
pub fn run(_args: Args, _context: &Context) -> Result<ExitCode> {
    Err(Fault::new(Kind::Unsupported, "`bale images` is not built yet"))
}
