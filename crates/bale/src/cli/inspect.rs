//! `bale inspect`.

use std::process::ExitCode;

use super::Context;
use bale_fault::{Fault, Kind, Result};

/// Arguments of `bale inspect`.
#[derive(clap::Args)]
pub struct Args {}

/// Shows all that is known of a container, image or volume.
pub fn run(_args: Args, _context: &Context) -> Result<ExitCode> {
    Err(Fault::new(Kind::Unsupported, "`bale inspect` is not built yet"))
}
