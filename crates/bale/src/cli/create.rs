//! `bale create`.

use std::process::ExitCode;

use bale_engine::Engine;
use bale_fault::Result;

use super::Context;
use super::flags::{RunFlags, write_cidfile};
use super::run::{progress, remark};
use crate::{exit, output};

/// Arguments of `bale create`.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub struct Args {
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

/// Makes a container.
pub fn run(args: Args, context: &Context) -> Result<ExitCode> {
    let outcome = execute(args, context);
    Ok(outcome.unwrap_or_else(|fault| {
        exit::report(&fault);
        ExitCode::from(exit::FAILURE)
    }))
}

fn execute(args: Args, context: &Context) -> Result<ExitCode> {
    let engine = Engine::open(&context.root)?;
    let cidfile = args.flags.cidfile.clone();
    let mut progress = progress(args.flags.quiet);
    let options = args.flags.resolve(&args.image, args.command)?;
    let created = engine.create(&options, progress.as_mut())?;
    remark(&created);
    if let Some(path) = cidfile {
        write_cidfile(&path, created.container.id())?;
    }
    output::write(&format!("{}\n", created.container.id()))?;
    Ok(ExitCode::SUCCESS)
}
