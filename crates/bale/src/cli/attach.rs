//! `bale attach`.

use crate::exit::ExitCode;

use bale_engine::{Engine, Ran};
use bale_fault::Result;

use super::Context;
use super::run::code_of;

/// Arguments of `bale attach`.
#[derive(clap::Args)]
pub struct Args {
    /// Do not connect standard input
    #[arg(long)]
    no_stdin: bool,
    /// Pass signals on to the program (without a terminal)
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    sig_proxy: bool,
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    name: String,
}

/// Connects to a running container.
pub fn run(args: Args, context: &Context) -> Result<ExitCode> {
    let engine = Engine::open(&context.root)?;
    let left = engine.attach(&args.name, !args.no_stdin, args.sig_proxy)?;
    Ok(code_of(&Ran::Foreground(left)))
}
