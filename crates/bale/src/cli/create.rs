//! `bale create`.

use crate::exit::ExitCode;
use std::path::Path;

use bale_engine::{CreateOptions, Engine, Progress};
use bale_fault::Result;

use super::Context;
use super::flags::{Wanted, write_cidfile};
use super::run::{progress, remark};
use crate::{exit, output};

/// Arguments of `bale create`.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub struct Args {
    #[command(flatten)]
    wanted: Wanted,
}

/// Makes a container.
pub fn run(args: Args, context: &Context) -> Result<ExitCode> {
    let cidfile = args.wanted.flags.cidfile.clone();
    let mut progress = progress(args.wanted.flags.quiet);
    let options = match args.wanted.resolve() {
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
