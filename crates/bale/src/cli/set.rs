//! `bale set`.

use std::process::ExitCode;

use super::Context;
use bale_fault::{Fault, Kind, Result};

/// Arguments of `bale set`.
#[derive(clap::Args)]
pub struct Args {}

/// Changes a bundle's config by path.
pub fn run(_args: Args, _context: &Context) -> Result<ExitCode> {
    Err(Fault::new(Kind::Unsupported, "`bale set` is not built yet"))
}
