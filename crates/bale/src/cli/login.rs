//! `bale login`.

use std::process::ExitCode;

use super::Context;
use bale_fault::{Fault, Kind, Result};

/// Arguments of `bale login`.
#[derive(clap::Args)]
pub struct Args {}

/// Stores a registry's credentials.
pub fn run(_args: Args, _context: &Context) -> Result<ExitCode> {
    Err(Fault::new(Kind::Unsupported, "`bale login` is not built yet"))
}
