//! Work in progress: a directory that its owner keeps locked, so that what dead owners left is known and removed.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use bale_fault::{Context, Fault, Result};
use bale_sys::error::Call;
use bale_sys::file::{self, Durability, Lock, LockMode};
use bale_sys::remove::remove_tree;
use rustix::fs::{FlockOperation, Mode};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::Store;
use crate::open::{names, readable};

/// A directory for work in progress. Dropping it removes whatever was not published.
#[derive(Debug)]
pub struct Ingest<'a> {
    pub(crate) store: &'a Store,
    pub(crate) dir: OwnedFd,
    name: CString,
    next: AtomicU32,
}

impl Store {
    /// Makes a directory for work in progress.
    ///
    /// # Errors
    /// The failed call.
    pub fn ingest(&self) -> Result<Ingest<'_>> {
        let name = random_name()?;
        let _making = self.take("ingest", LockMode::Shared)?;
        let made = rustix::fs::mkdirat(&self.ingest, name.as_c_str(), Mode::from_raw_mode(0o700));
        made.call(|| format!("mkdirat(<ingest>, {name:?})"))?;
        let dir = readable(&self.ingest, name.as_c_str())?;
        rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive)
            .call(|| format!("flock({name:?})"))?;
        Ok(Ingest { store: self, dir, name, next: AtomicU32::new(0) })
    }

    /// Removes the ingest directories whose owners are dead. Does nothing while somebody makes one: the next comes by.
    pub(crate) fn sweep_ingest(&self) -> Result<()> {
        let found =
            names(&self.ingest).map_err(Fault::from).within(|| "list the store's ingest directory")?;
        if found.is_empty() {
            return Ok(());
        }
        // Everyone who makes a directory holds this lock shared until the directory is locked itself.
        let Some(_alone) = Lock::try_take(&self.locks, "ingest", LockMode::Exclusive)? else { return Ok(()) };
        for name in found {
            let dir = match readable(&self.ingest, name.as_c_str()) {
                Ok(dir) => dir,
                Err(error) if matches!(error.errno(), Errno::NOENT | Errno::NOTDIR) => continue,
                Err(error) => return Err(error.into()),
            };
            if rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok() {
                let removed = remove_tree(&self.ingest, &name).map_err(Fault::from);
                removed.within(|| {
                    format!("remove what a dead process left in {:?}", self.path.join("ingest"))
                })?;
            }
        }
        Ok(())
    }
}

impl Ingest<'_> {
    /// Makes a name for a new entry that nobody else uses.
    pub(crate) fn fresh(&self, kind: &str) -> String {
        format!("{kind}-{}", self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Makes a directory for an entry and opens it.
    pub(crate) fn subdir(&self, entry: &str) -> Result<OwnedFd> {
        rustix::fs::mkdirat(&self.dir, entry, Mode::from_raw_mode(0o700))
            .call(|| format!("mkdirat({entry:?})"))?;
        Ok(readable(&self.dir, entry)?)
    }

    /// Writes a small file here and moves it to `name` in `dir`: nothing half-written is ever seen there.
    pub(crate) fn place(&self, content: &[u8], dir: impl AsFd, name: &str) -> Result<()> {
        let entry = self.fresh("file");
        file::replace(&self.dir, &entry, content, Mode::from_raw_mode(0o600), Durability::Process)?;
        let renamed = rustix::fs::renameat(&self.dir, entry.as_str(), dir.as_fd(), name);
        Ok(renamed.call(|| format!("renameat({entry:?}, {name:?})"))?)
    }

    /// Moves what stands at `from` (a path below a directory of the store) here, out of sight, to be removed on drop.
    pub(crate) fn bury(&self, dir: impl AsFd, from: &str) -> Result<()> {
        let grave = self.fresh("removed");
        match rustix::fs::renameat(dir.as_fd(), from, &self.dir, grave.as_str()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(bale_sys::Error::new(format!("renameat({from:?})"), errno).into()),
        }
    }
}

impl Drop for Ingest<'_> {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next open: the lock dies with the descriptor.
        let _ = remove_tree(&self.store.ingest, &self.name);
    }
}

fn random_name() -> Result<CString> {
    let mut bytes = [0_u8; 8];
    getrandom(&mut bytes, GetRandomFlags::empty()).call(|| "getrandom(8)")?;
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    Ok(CString::new(hex).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_dead_owners_left_is_removed_and_what_live_ones_have_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let store = crate::Store::open(dir.path()).unwrap();
        let live = store.ingest().unwrap();
        std::fs::create_dir_all(dir.path().join("ingest/0123/layer-0/diff/etc")).unwrap();
        let again = crate::Store::open(dir.path()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path().join("ingest")).unwrap().count(), 1);
        drop(live);
        drop(again);
        assert_eq!(std::fs::read_dir(dir.path().join("ingest")).unwrap().count(), 0);
    }
}
