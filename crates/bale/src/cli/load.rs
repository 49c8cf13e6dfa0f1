//! `bale load`.

use crate::exit::ExitCode;
use std::fs::File;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use bale_engine::{Engine, LoadOptions, Loaded, Quiet};
use bale_fault::{Context as _, Fault, Kind, Result};

use super::Context;
use super::pull::{interrupted, parse_platform};
use crate::{interrupt, output};

/// Arguments of `bale load`.
#[derive(clap::Args)]
pub struct Args {
    /// Read from a file instead of standard input
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Say nothing but the names
    #[arg(short, long)]
    quiet: bool,
    /// Platform to load from an archive of several
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
}

/// Reads images from an archive.
pub fn run(args: Args, context: &Context) -> Result<ExitCode> {
    let options =
        LoadOptions { platform: parse_platform(args.platform.as_deref())?, cancel: interrupt::watch()? };
    let archive = open_archive(args.input.as_deref())?;
    let loaded = match Engine::open(&context.root)?.load(archive, &options, &mut Quiet) {
        Err(fault) if fault.kind() == Kind::Interrupted => return Ok(interrupted(&fault)),
        other => other.within(|| {
            args.input.as_ref().map_or_else(|| "load".to_owned(), |path| format!("load {path:?}"))
        })?,
    };
    output::write(&loaded.iter().map(lines).collect::<String>())?;
    Ok(ExitCode::SUCCESS)
}

fn lines(loaded: &Loaded) -> String {
    if loaded.names.is_empty() {
        return format!("Loaded image ID: {}\n", loaded.id);
    }
    loaded.names.iter().map(|name| format!("Loaded image: {}\n", name.familiar())).collect()
}

/// Opens an archive to read, from a file or from standard input, which must be no terminal.
pub fn open_archive(path: Option<&Path>) -> Result<Box<dyn Read + Send>> {
    match path {
        Some(path) => {
            let file = File::open(path).within(|| format!("open {path:?}"))?;
            if file.metadata().within(|| format!("open {path:?}"))?.is_dir() {
                let words = format!("{path:?} is a directory, not an archive");
                return Err(Fault::new(Kind::InvalidInput, words)
                    .hint(format!("tar -C {} -c . | bale load", path.display())));
            }
            Ok(Box::new(file))
        }
        None if std::io::stdin().is_terminal() => {
            let words = "the archive is to be read from standard input, which is a terminal";
            Err(Fault::new(Kind::InvalidInput, words).hint("use -i FILE, or redirect"))
        }
        None => Ok(Box::new(std::io::stdin())),
    }
}
