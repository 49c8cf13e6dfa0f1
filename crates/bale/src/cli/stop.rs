//! `bale stop`.

use crate::exit::ExitCode;

use bale_engine::Engine;
use bale_fault::Result;

use super::{Context, each};

/// Arguments of `bale stop`.
#[derive(clap::Args)]
pub struct Args {
    /// Seconds to wait before killing; -1 waits for ever
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS", allow_hyphen_values = true)]
    time: Option<i64>,
    /// Signal, in place of the container's own
    #[arg(short, long, value_name = "SIGNAL")]
    signal: Option<String>,
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    names: Vec<String>,
}

/// Stops containers.
pub fn run(args: Args, context: &Context) -> Result<ExitCode> {
    let engine = Engine::open(&context.root)?;
    let signal = args.signal.as_deref().map(super::kill::parse_signal).transpose()?;
    Ok(each(&args.names, |name| engine.stop(name, signal, args.time).map(|()| Some(name.to_owned()))))
}
