//! `bale ps`.

use std::process::ExitCode;

use super::Context;
use bale_fault::{Fault, Kind, Result};

/// Arguments of `bale ps`.
#[derive(clap::Args)]
pub struct Args {}

/// Lists containers.
pub fn run(_args: Args, _context: &Context) -> Result<ExitCode> {
    Err(Fault::new(Kind::Unsupported, "`bale ps` is not built yet"))
}
