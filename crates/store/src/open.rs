//! Opening a store: its directories, its format.

use std::ffi::CString;
use std::fs::DirBuilder;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use bale_fault::{Context, Fault, Kind, Result};
use bale_sys::error::Call;
use bale_sys::file::{self, Durability};
use bale_sys::root::{Links, RelPath, RootFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// The format of a store. A newer one is refused.
pub const FORMAT: u32 = 1;
const DIRECTORIES: &[&str] = &[
    "locks",
    "ingest",
    "blobs/sha256",
    "blobs/sha512",
    "images",
    "layers/sha256",
    "layers/sha512",
    "fixups/sha256",
    "fixups/sha512",
];

/// The local images below one root directory.
#[derive(Debug)]
pub struct Store {
    pub(crate) path: PathBuf,
    pub(crate) root: RootFd,
    pub(crate) locks: RootFd,
    pub(crate) ingest: RootFd,
    pub(crate) blobs: RootFd,
    pub(crate) images: RootFd,
    pub(crate) layers: RootFd,
    pub(crate) fixups: RootFd,
}

impl Store {
    /// Opens the store below `root`, making it if absent, and removes what dead processes left in `ingest`.
    ///
    /// # Errors
    /// `Unsupported` when a newer bale wrote it; `PermissionDenied` without the rights to; the failed call.
    pub fn open(root: &Path) -> Result<Self> {
        let root = std::path::absolute(root).within(|| format!("open the store {root:?}"))?;
        let store =
            Self::open_or_make(&root).within(|| format!("open the store {root:?}")).map_err(add_hint)?;
        store.sweep_ingest()?;
        Ok(store)
    }

    /// Returns the root directory, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn open_or_make(path: &Path) -> Result<Self> {
        let fresh = match RootFd::open(path) {
            Ok(root) => check_format(&root)?,
            Err(error) if error.errno() == Errno::NOENT => true,
            Err(error) => return Err(error.into()),
        };
        if fresh {
            make(path)?;
        }
        let root = RootFd::open(path)?;
        let subdir = |name: &str| rel(name).and_then(|path| root.subdir(&path, Links::Refused));
        Ok(Self {
            path: path.to_owned(),
            locks: subdir("locks")?,
            ingest: subdir("ingest")?,
            blobs: subdir("blobs")?,
            images: subdir("images")?,
            layers: subdir("layers")?,
            fixups: subdir("fixups")?,
            root,
        })
    }
}

/// Tells whether the store is still to be made; the file `format` is written last.
fn check_format(root: &RootFd) -> Result<bool> {
    let text = match file::read_bounded(root, "format", 64) {
        Ok(text) => text,
        Err(error) if error.errno() == Errno::NOENT => return Ok(true),
        Err(error) => return Err(error.into()),
    };
    let text = String::from_utf8_lossy(&text);
    match text.trim().parse::<u32>() {
        Ok(FORMAT) => Ok(false),
        Ok(newer) => {
            let words = format!("it has format {newer}, this bale knows {FORMAT}");
            Err(Fault::new(Kind::Unsupported, words).hint("use the bale that wrote it, or a newer one"))
        }
        // A power cut right after the store was made leaves the file empty, or as many zeros as it had bytes: nothing
        // in the store was durable yet, and what is there is looked at as after any power cut.
        Err(_) if text.trim_matches(|c: char| c == '\0' || c.is_whitespace()).is_empty() => Ok(true),
        Err(_) => {
            let words = format!("its file \"format\" says {text:?}");
            Err(Fault::new(Kind::Corrupt, words)
                .hint("it is no store of bale's, or damaged: name another with --root"))
        }
    }
}

fn make(path: &Path) -> Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(path).within(|| format!("make {path:?}"))?;
    let root = RootFd::open(path)?;
    for name in DIRECTORIES {
        root.mkdir_all(&rel(name)?, Mode::from_raw_mode(0o700))?;
    }
    let format = format!("{FORMAT}\n");
    // Once for each store, and without it all the rest is of no use after a power cut.
    file::replace(&root, "format", format.as_bytes(), Mode::from_raw_mode(0o600), Durability::Power)?;
    Ok(())
}

fn add_hint(fault: Fault) -> Fault {
    match fault.kind() {
        Kind::PermissionDenied => fault.hint("run bale as root, or give a directory of yours with --root"),
        Kind::NotFound => {
            fault.hint("the store is not whole: move its directory away, and pull its images again")
        }
        _ => fault,
    }
}

/// Makes a path of the store's own names, which are never hostile.
///
/// # Errors
/// `EINVAL`, which a name of the store's own never causes.
pub(crate) fn rel(name: &str) -> bale_sys::Result<RelPath> {
    RelPath::new(name).map_err(|_| bale_sys::Error::new(format!("path {name:?}"), Errno::INVAL))
}

/// Opens a directory for reading its entries.
pub(crate) fn readable<P: rustix::path::Arg + std::fmt::Debug + Copy>(
    dir: impl AsFd,
    name: P,
) -> bale_sys::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir.as_fd(), name, flags, Mode::empty())
        .call(|| format!("openat({name:?}, O_DIRECTORY)"))
}

/// Lists the names in a directory, sorted, without `.` and `..`.
pub(crate) fn names(dir: impl AsFd) -> bale_sys::Result<Vec<CString>> {
    let fd = readable(dir, ".")?;
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::new(fd).call(|| "open directory stream")? {
        let entry = entry.call(|| "getdents64")?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_a_power_cut_emptied_is_made_again() {
        let scratch = bale_testkit::Scratch::new("store-format");
        let path = scratch.path().join("store");
        Store::open(&path).unwrap();
        for left in ["", "\n", "\0\0", "\0\0\0\n"] {
            std::fs::write(path.join("format"), left).unwrap();
            Store::open(&path).unwrap();
            assert_eq!(std::fs::read_to_string(path.join("format")).unwrap(), format!("{FORMAT}\n"));
        }
        for damaged in ["one\n", "\u{0}1\n", "999\n"] {
            std::fs::write(path.join("format"), damaged).unwrap();
            assert!(Store::open(&path).is_err(), "{damaged:?}");
        }
    }
}
