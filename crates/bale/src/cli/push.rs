//! `bale push`.

use std::process::ExitCode;

use super::Context;
use bale_fault::{Fault, Kind, Result};

/// Arguments of `bale push`.
#[derive(clap::Args)]
pub struct Args {}

/// Pushes an image to a registry.
pub fn run(_args: Args, _context: &Context) -> Result<ExitCode> {
    Err(Fault::new(Kind::Unsupported, "`bale push` is not built yet"))
}
