//! `bale kill`.

use crate::exit::ExitCode;

use bale_engine::Engine;
use bale_fault::{Fault, Kind, Result};

use super::{Context, each};

/// Arguments of `bale kill`.
#[derive(clap::Args)]
pub struct Args {
    /// Signal, by name or number
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    signal: String,
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    names: Vec<String>,
}

/// Sends a signal to containers.
pub fn run(args: Args, context: &Context) -> Result<ExitCode> {
    let engine = Engine::open(&context.root)?;
    let signal = parse_signal(&args.signal)?;
    Ok(each(&args.names, |name| engine.kill(name, signal).map(|()| Some(name.to_owned()))))
}

/// Reads a signal's name or number.
///
/// # Errors
/// `InvalidInput` names the nearest one.
pub fn parse_signal(text: &str) -> Result<i32> {
    bale_spec::signal::parse(text).ok_or_else(|| {
        let word = text.to_ascii_uppercase();
        let near = bale_spec::suggest::did_you_mean(
            word.trim_start_matches("SIG"),
            bale_spec::signal::names().iter().copied(),
        );
        Fault::new(Kind::InvalidInput, format!("invalid signal {text:?}{near}"))
            .hint("give a name such as TERM or a number from 1 to 64")
    })
}
