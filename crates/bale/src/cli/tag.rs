//! `bale tag`.

use crate::exit::ExitCode;

use bale_engine::Engine;
use bale_fault::Result;

use super::Context;
use super::pull::parse_name;

/// Arguments of `bale tag`.
#[derive(clap::Args)]
pub struct Args {
    /// Image, by name or id
    #[arg(value_name = "SOURCE")]
    source: String,
    /// Its further name
    #[arg(value_name = "TARGET")]
    target: String,
}

/// Gives an image another name.
pub fn run(args: Args, context: &Context) -> Result<ExitCode> {
    Engine::open(&context.root)?.tag(&args.source, &parse_name(&args.target)?)?;
    Ok(ExitCode::SUCCESS)
}
