//! `bale rm`.

use crate::exit::ExitCode;

use bale_engine::{Engine, RemoveOptions};
use bale_fault::{Kind, Result};

use super::{Context, each};
use crate::exit;

/// Arguments of `bale rm`.
#[derive(clap::Args)]
pub struct Args {
    /// Kill containers that run, and pass over those that do not exist
    #[arg(short, long)]
    force: bool,
    /// Remove their anonymous volumes too
    #[arg(short, long)]
    volumes: bool,
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    names: Vec<String>,
}

/// Removes containers.
pub fn run(args: Args, context: &Context) -> Result<ExitCode> {
    let engine = Engine::open(&context.root)?;
    let options = RemoveOptions { force: args.force, volumes: args.volumes };
    Ok(each(&args.names, |name| match engine.remove(name, options) {
        // Docker 28: `rm -f` of nothing is told, and no failure.
        Err(fault) if args.force && fault.kind() == Kind::NotFound => {
            exit::report(&fault);
            Ok(None)
        }
        other => other.map(|()| Some(name.to_owned())),
    }))
}
