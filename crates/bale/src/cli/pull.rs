//! `bale pull`.

use std::process::ExitCode;

use super::Context;
use bale_fault::{Fault, Kind, Result};

/// Arguments of `bale pull`.
#[derive(clap::Args)]
pub struct Args {}

/// Pulls an image from a registry.
pub fn run(_args: Args, _context: &Context) -> Result<ExitCode> {
    Err(Fault::new(Kind::Unsupported, "`bale pull` is not built yet"))
}
