//! `bale logs`.

use std::process::ExitCode;

use super::Context;
use bale_fault::{Fault, Kind, Result};

/// Arguments of `bale logs`.
#[derive(clap::Args)]
pub struct Args {}

/// Shows what a container wrote.
pub fn run(_args: Args, _context: &Context) -> Result<ExitCode> {
    Err(Fault::new(Kind::Unsupported, "`bale logs` is not built yet"))
}
