//! `bale import`.

use crate::exit::ExitCode;
use std::path::Path;

use bale_engine::{Engine, ImportOptions};
use bale_fault::{Fault, Kind, Result};

use super::Context;
use super::load::open_archive;
use super::pull::{parse_name, parse_platform};
use crate::output;

/// Arguments of `bale import`.
#[derive(clap::Args)]
pub struct Args {
    /// Archive of a root file system (tar, plain or compressed with gzip or zstd); - for standard input
    #[arg(value_name = "FILE")]
    file: String,
    /// Name for the image
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<String>,
    /// Instruction for the config, such as 'CMD ["sh"]'
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    changes: Vec<String>,
    /// Remark for the history
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// Platform of the image
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
}

/// Makes an image of a file system archive.
pub fn run(args: Args, context: &Context) -> Result<ExitCode> {
    if args.file.starts_with("http://") || args.file.starts_with("https://") {
        let words = "bale import does not fetch URLs";
        return Err(
            Fault::new(Kind::Unsupported, words).hint(format!("curl -L {} | bale import -", args.file))
        );
    }
    let options = ImportOptions {
        name: args.name.as_deref().map(parse_name).transpose()?,
        changes: args.changes,
        message: args.message,
        platform: parse_platform(args.platform.as_deref())?,
        created: None,
    };
    let archive = open_archive((args.file != "-").then(|| Path::new(&args.file)))?;
    let id = Engine::open(&context.root)?.import(archive, &options)?;
    output::write(&format!("{id}\n"))?;
    Ok(ExitCode::SUCCESS)
}
