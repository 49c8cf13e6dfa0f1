//! `bale run`.

use crate::exit::ExitCode;

use bale_engine::{Created, Engine, Left, Mode, Progress, Quiet, Ran};
use bale_fault::Result;

use super::Context;
use super::flags::{RunFlags, write_cidfile};
use crate::progress::{Direction, Show, Stream};
use crate::{exit, output};

/// Arguments of `bale run`.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub struct Args {
    /// Run in the background and print the container's id
    #[arg(short, long)]
    detach: bool,
    /// Pass signals on to the program (without a terminal)
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    sig_proxy: bool,
    #[command(flatten)]
    flags: RunFlags,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Image, or with a slash in front the directory of a bundle (./redis)
    #[arg(value_name = "IMAGE|./BUNDLE")]
    image: String,
    /// Program and arguments, in place of the image's
    #[arg(value_name = "COMMAND", allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Makes a container and runs it.
pub fn run(args: Args, context: &Context) -> Result<ExitCode> {
    let outcome = execute(args, context);
    Ok(outcome.unwrap_or_else(|fault| {
        exit::report(&fault);
        exit::of_run(&fault)
    }))
}

fn execute(args: Args, context: &Context) -> Result<ExitCode> {
    let engine = Engine::open(&context.root)?;
    let mode = if args.detach {
        Mode::Detached
    } else {
        Mode::Attached { stdin: args.flags.interactive, signals: args.sig_proxy }
    };
    let typed = args.flags.interactive && !args.detach;
    if let Err(fault) = bale_engine::check_terminal(typed, args.flags.tty) {
        // The one failure of run that docker ends with 1.
        exit::report(&fault);
        return Ok(ExitCode::FAILURE);
    }
    let cidfile = args.flags.cidfile.clone();
    let mut progress = progress(args.flags.quiet);
    let options = args.flags.resolve(&args.image, args.command)?;
    let mut id = String::new();
    let mut made = |created: &Created| {
        created.container.id().clone_into(&mut id);
        remark(created);
        cidfile.as_deref().map_or(Ok(()), |path| write_cidfile(path, created.container.id()))
    };
    let ran = engine.run(&options, mode, progress.as_mut(), &mut made);
    // Docker prints the id of a container whose program could not be run too: it is there, and can be removed.
    let kept = ran.is_err() && args.detach && !id.is_empty() && engine.inspect_container(&id).is_ok();
    if kept || matches!(ran, Ok(Ran::InBackground)) {
        output::write(&format!("{id}\n"))?;
    }
    ran.map(|ran| code_of(&ran))
}

/// Shows a pull on standard error: standard output is the container's, or its id.
pub fn progress(quiet: bool) -> Box<dyn Progress> {
    if quiet { Box::new(Quiet) } else { Box::new(Show::new(Direction::Pull, Stream::Stderr)) }
}

/// Says what the user should know of a new container.
pub fn remark(created: &Created) {
    use std::io::Write;
    for remark in &created.remarks {
        // Nothing is left to tell when standard error is closed.
        let _ = writeln!(std::io::stderr(), "bale: {}", exit::printable(remark));
    }
}

/// Returns the exit code of a container that was in the foreground.
pub fn code_of(ran: &Ran) -> ExitCode {
    match ran {
        Ran::InBackground | Ran::Foreground(Left::Detached) => ExitCode::SUCCESS,
        Ran::Foreground(Left::Exited(code)) => ExitCode::from(*code),
        Ran::Foreground(Left::Signal(signal)) => ExitCode::from(u8::try_from(128 + signal).unwrap_or(255)),
        Ran::Foreground(Left::Lost) => {
            let words = "the container's supervisor was lost, so its exit status is not known";
            exit::report(&bale_fault::Fault::new(bale_fault::Kind::Unavailable, words));
            ExitCode::from(exit::FAILURE)
        }
    }
}
