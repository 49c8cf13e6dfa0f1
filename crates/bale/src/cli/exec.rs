//! `bale exec`.

use std::process::ExitCode;

use bale_engine::{Engine, ExecOptions};
use bale_fault::{Kind, Result};

use super::Context;
use crate::exec::{Streams, start};
use crate::exit;

/// Arguments of `bale exec`.
#[derive(clap::Args)]
pub struct Args {
    /// Run in the background
    #[arg(short, long)]
    detach: bool,
    /// Connect standard input
    #[arg(short, long)]
    interactive: bool,
    /// Give the program a terminal
    #[arg(short, long)]
    tty: bool,
    /// Environment variable; KEY alone takes the value of this shell
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    env: Vec<String>,
    /// User, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// All capabilities
    #[arg(long)]
    privileged: bool,
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    name: String,
    /// Program and arguments
    #[arg(value_name = "COMMAND", required = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Runs a command in a running container.
pub fn run(args: Args, context: &Context) -> Result<ExitCode> {
    Ok(execute(args, context).unwrap_or_else(|fault| {
        exit::report(&fault);
        match fault.kind() {
            // As docker: there is no such container, or it does not run.
            Kind::NotFound | Kind::Conflict => ExitCode::FAILURE,
            _ => exit::of_run(&fault),
        }
    }))
}

fn execute(args: Args, context: &Context) -> Result<ExitCode> {
    // This process enters the container, so it must not be what the host's file is.
    bale_sys::seal::exec_sealed(std::env::args_os())?;
    let variable = |text: String| match std::env::var(&text) {
        Ok(value) if !text.contains('=') => format!("{text}={value}"),
        _ => text,
    };
    let options = ExecOptions {
        command: args.command,
        env: args.env.into_iter().map(variable).collect(),
        user: args.user.filter(|user| !user.is_empty()),
        workdir: args.workdir,
        tty: args.tty,
        privileged: args.privileged,
        terminal: bale_engine::terminal_size(rustix::stdio::stdout()),
    };
    bale_engine::check_terminal(args.interactive && !args.detach, args.tty)?;
    let plan = Engine::open(&context.root)?.plan_exec(&args.name, &options)?;
    let streams = Streams { interactive: args.interactive, tty: args.tty, detach: args.detach };
    start(plan, streams)
}
