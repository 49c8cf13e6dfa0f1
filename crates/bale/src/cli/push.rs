//! `bale push`.

use crate::exit::ExitCode;

use bale_engine::{Engine, PushOptions, Quiet};
use bale_fault::{Kind, Result};

use super::Context;
use super::pull::{RegistryArgs, interrupted, parse_name};
use crate::progress::{Direction, Show, Stream};
use crate::{interrupt, output};

/// Arguments of `bale push`.
#[derive(clap::Args)]
pub struct Args {
    /// Image, by the name it is to have in the registry
    #[arg(value_name = "IMAGE")]
    name: String,
    /// Print the image's name only
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// Pushes an image to a registry.
pub fn run(args: Args, context: &Context) -> Result<ExitCode> {
    let reference = parse_name(&args.name)?;
    let options =
        PushOptions { registry: args.registry.settings(reference.registry()), cancel: interrupt::watch()? };
    let engine = Engine::open(&context.root)?;
    let pushed = if args.quiet {
        engine.push(&reference, &options, &mut Quiet)
    } else {
        engine.push(&reference, &options, &mut Show::new(Direction::Push, Stream::Stdout))
    };
    let pushed = match pushed {
        Err(fault) if fault.kind() == Kind::Interrupted => return Ok(interrupted(&fault)),
        other => other?,
    };
    if args.quiet {
        output::write(&format!("{reference}\n"))?;
    } else {
        let name = reference.manifest_name();
        output::write(&format!("{name}: digest: {} size: {}\n", pushed.digest, pushed.size))?;
    }
    Ok(ExitCode::SUCCESS)
}
