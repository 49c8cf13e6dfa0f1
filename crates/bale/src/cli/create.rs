//! `bale create`.

use crate::exit::ExitCode;
use std::path::Path;

use bale_engine::{CreateOptions, Engine, Progress};
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
    let cidfile = args.flags.cidfile.clone();
    let mut progress = progress(args.flags.quiet);
    let options = match args.flags.resolve(&args.image, args.command) {
        Ok(options) => options,
        // Docker: 125 for what is wrong with the flags, 1 for what goes wrong then.
        Err(fault) => {
            exit::report(&fault);
            return Ok(ExitCode::from(exit::FAILURE));
        }
    };
    execute(&options, cidfile.as_deref(), progress.as_mut(), context)
}

fn execute(
    options: &CreateOptions,
    cidfile: Option<&Path>,
    progress: &mut dyn Progress,
    context: &Context,
) -> Result<ExitCode> {
    let created = Engine::open(&context.root)?.create(options, progress)?;
    remark(&created);
    if let Some(path) = cidfile {
        write_cidfile(path, created.container.id())?;
    }
    output::write(&format!("{}\n", created.container.id()))?;
    Ok(ExitCode::SUCCESS)
}
