//! `bale logout`.

use crate::exit::ExitCode;

use bale_engine::{DEFAULT_REGISTRY, Engine};
use bale_fault::Result;

use super::Context;
use crate::output;

/// Arguments of `bale logout`.
#[derive(clap::Args)]
pub struct Args {
    /// Registry
    #[arg(value_name = "REGISTRY", default_value = DEFAULT_REGISTRY)]
    registry: String,
}

/// Forgets a registry's credentials.
pub fn run(args: Args, _context: &Context) -> Result<ExitCode> {
    let places = Engine::logout(&args.registry)?;
    let line = match places.len() {
        0 => format!("Not logged in to {}\n", args.registry),
        _ => format!("Removing login credentials for {}\n", args.registry),
    };
    output::write(&line)?;
    Ok(ExitCode::SUCCESS)
}
