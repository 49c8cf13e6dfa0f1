//! `bale start`.

use std::process::ExitCode;

use super::Context;
use bale_fault::{Fault, Kind, Result};

/// Arguments of `bale start`.
#[derive(clap::Args)]
pub struct Args {}

/// Starts containers.
pub fn run(_args: Args, _context: &Context) -> Result<ExitCode> {
    Err(Fault::new(Kind::Unsupported, "`bale start` is not built yet"))
}
