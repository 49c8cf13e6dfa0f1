//! `bale create`.

use std::process::ExitCode;

use super::Context;
use bale_fault::{Fault, Kind, Result};

/// Arguments of `bale create`.
#[derive(clap::Args)]
pub struct Args {}

/// Makes a container.
pub fn run(_args: Args, _context: &Context) -> Result<ExitCode> {
    Err(Fault::new(Kind::Unsupported, "`bale create` is not built yet"))
}
