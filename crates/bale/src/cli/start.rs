//! `bale start`.

use crate::exit::ExitCode;

use bale_engine::{Engine, Mode};
use bale_fault::{Fault, Kind, Result};

use super::Context;
use super::each;
use super::run::code_of;
use crate::exit;

/// Arguments of `bale start`.
#[derive(clap::Args)]
pub struct Args {
    /// Stay connected: show its output, pass signals on, end with its exit status
    #[arg(short, long)]
    attach: bool,
    /// Connect standard input too
    #[arg(short, long)]
    interactive: bool,
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    names: Vec<String>,
}

/// Starts containers.
pub fn run(args: Args, context: &Context) -> Result<ExitCode> {
    let engine = Engine::open(&context.root)?;
    if !args.attach && !args.interactive {
        return Ok(each(&args.names, |name| {
            engine.start(name, Mode::Detached).map(|_| Some(name.to_owned()))
        }));
    }
    let [name] = args.names.as_slice() else {
        return Err(Fault::new(Kind::InvalidInput, "one container at a time can be started and attached to"));
    };
    let mode = Mode::Attached { stdin: args.interactive, signals: true };
    let ran = engine.start(name, mode);
    Ok(ran.map_or_else(
        |fault| {
            // Docker's codes for a program that could not be run (126, 127) are those of run and exec only.
            exit::report(&fault);
            ExitCode::FAILURE
        },
        |ran| code_of(&ran),
    ))
}
