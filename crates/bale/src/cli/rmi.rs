//! `bale rmi`.

use crate::exit::ExitCode;

use bale_engine::Engine;
use bale_fault::{Kind, Result};

use super::Context;
use crate::{exit, output};

/// Arguments of `bale rmi`.
#[derive(clap::Args)]
pub struct Args {
    /// Images, by name or id
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
    /// Remove names although containers use the image, or several repositories have it; containers keep what they need
    #[arg(short, long)]
    force: bool,
}

/// Removes images: all that can be; the first failure decides the exit code.
pub fn run(args: Args, context: &Context) -> Result<ExitCode> {
    let engine = Engine::open(&context.root)?;
    let mut code = ExitCode::SUCCESS;
    for image in &args.images {
        match engine.remove_image(image, args.force) {
            Ok(removed) => {
                let untagged = removed.untagged.iter().map(|name| format!("Untagged: {name}\n"));
                let deleted = removed.deleted.iter().map(|digest| format!("Deleted: {digest}\n"));
                output::write(&untagged.chain(deleted).collect::<String>())?;
            }
            Err(fault) if args.force && fault.kind() == Kind::NotFound => exit::report(&fault),
            Err(fault) => {
                exit::report(&fault);
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}
