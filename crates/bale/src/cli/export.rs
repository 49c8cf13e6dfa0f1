//! `bale export`.

use crate::exit::ExitCode;
use std::path::PathBuf;

use bale_engine::Engine;
use bale_fault::Result;

use super::Context;
use super::save::write_archive;

/// Arguments of `bale export`.
#[derive(clap::Args)]
pub struct Args {
    /// Container, by name or id
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// Write to a file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Writes a container's file system as a tar archive.
pub fn run(args: Args, context: &Context) -> Result<ExitCode> {
    let engine = Engine::open(&context.root)?;
    write_archive(args.output.as_deref(), |out| engine.export(&args.container, out).map(drop))?;
    Ok(ExitCode::SUCCESS)
}
