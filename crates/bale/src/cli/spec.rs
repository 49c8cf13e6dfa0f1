//! `bale spec`.

use crate::exit::ExitCode;
use std::io::Write;
use std::path::PathBuf;

use bale_fault::{Context as _, Fault, Kind, Result};
use bale_spec::generate;

use super::Context;
use crate::output;

/// The magic number of cgroup v2 (statfs(2)).
const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// Arguments of `bale spec`.
#[derive(clap::Args)]
pub struct Args {
    /// The bundle's directory
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    /// For a user without root's rights
    #[arg(long)]
    rootless: bool,
    /// Write it to standard output
    #[arg(long)]
    print: bool,
}

/// Writes a config.json to start from.
pub fn run(args: Args, _context: &Context) -> Result<ExitCode> {
    let unified = is_unified();
    let config = if args.rootless {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        generate::rootless_spec(uid, gid, unified)
    } else {
        generate::spec(unified)
    };
    let text = config.to_canonical();
    if args.print {
        output::write(&text)?;
        return Ok(ExitCode::SUCCESS);
    }
    let path = args.bundle.join("config.json");
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(&path);
    match file {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let fault = Fault::new(Kind::AlreadyExists, format!("{} exists", path.display()));
            Err(fault.hint("remove it first, or change it with `bale set`"))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let fault =
                Fault::new(Kind::NotFound, format!("write {}: no such file or directory", path.display()));
            Err(fault.hint(format!("make the bundle first: mkdir -p {}/rootfs", args.bundle.display())))
        }
        other => {
            let words = || format!("write {}", path.display());
            other.and_then(|mut file| file.write_all(text.as_bytes())).within(words)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Tells whether the host has cgroup v2 alone.
fn is_unified() -> bool {
    rustix::fs::statfs("/sys/fs/cgroup").is_ok_and(|fs| u64::try_from(fs.f_type) == Ok(CGROUP2_MAGIC))
}
