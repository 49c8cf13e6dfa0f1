//! `bale logout`.

use std::process::ExitCode;

use super::Context;
use bale_fault::{Fault, Kind, Result};

/// Arguments of `bale logout`.
#[derive(clap::Args)]
pub struct Args {}

/// Forgets a registry's credentials.
pub fn run(_args: Args, _context: &Context) -> Result<ExitCode> {
    Err(Fault::new(Kind::Unsupported, "`bale logout` is not built yet"))
}
