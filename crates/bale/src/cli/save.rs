//! `bale save`.

use crate::exit::ExitCode;
use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use bale_engine::Engine;
use bale_fault::{Context as _, Fault, Kind, Result};

use super::Context;

/// Arguments of `bale save`.
#[derive(clap::Args)]
pub struct Args {
    /// Images, by name or id
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
    /// Write to a file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Writes images to an archive.
pub fn run(args: Args, context: &Context) -> Result<ExitCode> {
    let engine = Engine::open(&context.root)?;
    write_archive(args.output.as_deref(), |out| engine.save(&args.images, out).map(drop))?;
    Ok(ExitCode::SUCCESS)
}

/// Has an archive written to a file, which is there whole or not at all, or to standard output, which must be no terminal.
pub fn write_archive(
    path: Option<&Path>,
    write: impl FnOnce(&mut (dyn Write + Send)) -> Result<()>,
) -> Result<()> {
    let Some(path) = path else {
        if std::io::stdout().is_terminal() {
            let words = "cowardly refusing to write an archive to a terminal";
            return Err(Fault::new(Kind::InvalidInput, words).hint("use -o FILE, or redirect"));
        }
        // Not through `Stdout`, which looks for the ends of lines.
        let stdout = std::io::stdout().as_fd().try_clone_to_owned().within(|| "duplicate standard output")?;
        let mut out = BufWriter::with_capacity(256 << 10, File::from(stdout));
        write(&mut out)?;
        return out.flush().within(|| "write to standard output");
    };
    let words = || format!("write {path:?}");
    // What is no regular file (a pipe, /dev/null) cannot be replaced, and is written as it is.
    if std::fs::metadata(path).is_ok_and(|meta| !meta.is_file()) {
        let file = File::options().write(true).open(path).within(words)?;
        let mut out = BufWriter::with_capacity(256 << 10, file);
        write(&mut out)?;
        return out.flush().within(words);
    }
    let draft = Draft::create(path).within(words)?;
    let mut out = BufWriter::with_capacity(256 << 10, &draft.file);
    write(&mut out)?;
    out.flush().within(words)?;
    drop(out);
    draft.finish(path).within(words)
}

/// A file beside the wanted one; it goes when it is not finished.
struct Draft {
    path: PathBuf,
    file: File,
}

impl Draft {
    fn create(target: &Path) -> std::io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        let mut name = std::ffi::OsString::from(".");
        name.push(target.file_name().ok_or(std::io::ErrorKind::IsADirectory)?);
        name.push(format!(".{}", std::process::id()));
        let path = target.with_file_name(name);
        let file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Self { path, file })
    }

    fn finish(mut self, target: &Path) -> std::io::Result<()> {
        std::fs::rename(&self.path, target)?;
        self.path = PathBuf::new();
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            // The failure that brought us here is the one worth telling.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
