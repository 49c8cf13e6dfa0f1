//! `bale stop`.

use std::process::ExitCode;

use bale_engine::Engine;
use bale_fault::Result;

use super::{Context, each};

/// Arguments of `bale stop`.
#[derive(clap::Args)]
pub struct Args {
    /// Seconds to wait before killing; -1 waits for ever
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS", allow_hyphen_values = true)]
    time: Option<i64>,
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    names: Vec<String>,
}

/// Stops containers.
pub fn run(args: Args, context: &Context) -> Result<ExitCode> {
    let engine = Engine::open(&context.root)?;
    Ok(each(&args.names, |name| engine.stop(name, args.time).map(|()| Some(name.to_owned()))))
}
