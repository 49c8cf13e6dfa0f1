//! A folder that goes away with its value.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::machine;

/// A new empty folder below the system's temporary folder, removed with its value.
///
/// Whatever a failed test left mounted below it is unmounted first: nothing outside the folder is ever removed.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes the folder; `label` is a part of its name.
    ///
    /// # Panics
    /// When the temporary folder cannot be written.
    #[must_use]
    pub fn new(label: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let base = std::env::temp_dir();
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = base.join(format!("bale-test-{label}-{}-{number}", std::process::id()));
            match std::fs::create_dir(&path) {
                Ok(()) => return Self { path },
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => panic!("mkdir {}: {e}", path.display()),
            }
        }
    }

    /// Returns the folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path of `name` inside.
    #[must_use]
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }
}

impl AsRef<Path> for Scratch {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = remove_tree(&self.path);
    }
}

/// Unmounts what is mounted at or below `path`, then removes it.
///
/// # Errors
/// When something stays mounted (then nothing is removed), or a removal fails.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    for point in machine::mounts_below(path)?.iter().rev() {
        rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH)?;
    }
    if !machine::mounts_below(path)?.is_empty() {
        return Err(io::Error::other(format!("{} has mounts below it", path.display())));
    }
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
