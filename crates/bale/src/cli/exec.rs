//! `bale exec`.

use std::process::ExitCode;

use super::Context;
use bale_fault::{Fault, Kind, Result};

/// Arguments of `bale exec`.
#[derive(clap::Args)]
pub struct Args {}

/// Runs a command in a running container.
pub fn run(_args: Args, _context: &Context) -> Result<ExitCode> {
    Err(Fault::new(Kind::Unsupported, "`bale exec` is not built yet"))
}
