//! `bale bundle`.

use crate::exit::ExitCode;
use std::io::Write;
use std::path::PathBuf;

use bale_engine::{Engine, Source};
use bale_fault::{Fault, Kind, Result};
use bale_spec::runtime::RuntimeConfig;

use super::Context;
use super::flags::RunFlags;
use super::pull::interrupted;
use super::run::progress;
use crate::{exit, interrupt, output};

/// Arguments of `bale bundle`.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub struct Args {
    #[command(flatten)]
    flags: RunFlags,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Image to make a bundle of
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Directory of the new bundle; it must not exist, or be empty
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Program and arguments, in place of the image's
    #[arg(value_name = "COMMAND", last = true)]
    command: Vec<String>,
}

/// Makes a bundle of an image.
pub fn run(args: Args, context: &Context) -> Result<ExitCode> {
    if matches!(Source::parse(&args.image), Source::Bundle(_)) {
        let fault = Fault::new(
            Kind::InvalidInput,
            format!("{:?} is spelled like a directory, not like an image", args.image),
        );
        return Err(fault.hint("the order is: bale bundle IMAGE DIR"));
    }
    let quiet = args.flags.quiet;
    let mut options = args.flags.resolve(&args.image, args.command)?;
    options.pull.cancel = interrupt::watch()?;
    let engine = Engine::open(&context.root)?;
    let made = engine.make_bundle(&args.dir, &options, &confine, progress(quiet).as_mut());
    let bundled = match made {
        Err(fault) if fault.kind() == Kind::Interrupted => return Ok(interrupted(&fault)),
        other => other?,
    };
    for remark in &bundled.remarks {
        // Nothing is left to tell when standard error is closed.
        let _ = writeln!(std::io::stderr(), "bale: {}", exit::printable(remark));
    }
    if !quiet {
        let name = bundled.image.reference.as_ref().map_or_else(|| args.image.clone(), |r| r.familiar());
        let line =
            format!("{}: made of {name} ({})\n", args.dir.display(), bundled.image.config_digest.short());
        output::write(&exit::printable(&line))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Puts docker's default system call filter in, for the capabilities that the config has.
fn confine(config: &mut RuntimeConfig) {
    let sets = config.process.as_ref().and_then(|p| p.capabilities.as_ref());
    let bounding = sets.map(|s| s.bounding.clone()).unwrap_or_default();
    config.linux.get_or_insert_default().seccomp = Some(bale_runtime::seccomp::docker_default(&bounding));
}
