//! `bale exec`.

use crate::exit::ExitCode;

use bale_engine::{Engine, ExecOptions};
use bale_fault::{Kind, Result};

use super::Context;
use super::flags::Here;
use crate::exec::{Streams, start};
use crate::exit;

/// Docker's exit code for a relative working directory: its code for what its runtime refuses.
const RELATIVE_WORKDIR: u8 = 128;

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
    /// File with one environment variable per line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<String>,
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
    let detach = args.detach;
    let relative = args.workdir.as_ref().is_some_and(|workdir| !workdir.starts_with('/'));
    Ok(execute(args, context).unwrap_or_else(|fault| {
        exit::report(&fault);
        match fault.kind() {
            Kind::InvalidInput if relative && !detach => ExitCode::from(RELATIVE_WORKDIR),
            // As docker: there is no such container, it does not run, or its user does not exist.
            Kind::NotFound | Kind::Conflict | Kind::InvalidInput => ExitCode::FAILURE,
            // In the background no exit status of the program's is told.
            Kind::ProgramNotFound | Kind::ProgramNotExecutable if detach => ExitCode::FAILURE,
            _ => exit::of_run(&fault),
        }
    }))
}

fn execute(args: Args, context: &Context) -> Result<ExitCode> {
    let options = ExecOptions {
        command: args.command,
        env: bale_spec::options::environment(&args.env_file, &args.env, &Here)?,
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
