//! `bale wait`.

use crate::exit::ExitCode;

use bale_engine::Engine;
use bale_fault::Result;

use super::{Context, each};

/// Arguments of `bale wait`.
#[derive(clap::Args)]
pub struct Args {
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    names: Vec<String>,
}

/// Waits for containers to end and prints their exit codes.
pub fn run(args: Args, context: &Context) -> Result<ExitCode> {
    let engine = Engine::open(&context.root)?;
    Ok(each(&args.names, |name| engine.wait(name).map(|code| Some(code.to_string()))))
}
