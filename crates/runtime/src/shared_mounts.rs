//! Containers in a mount namespace that is not their own, the host's or one that they join.
//!
//! runc pivots there all the same, which exchanges the root of everybody in the namespace, makes the host's mounts
//! slaves, and leaves its own behind. Here the root is mounted on itself, the container is confined to it by chroot,
//! and the end of the container takes it away.

use std::os::fd::{AsFd, OwnedFd};

use bale_fault::{Fault, Kind, Result};
use bale_record::{Record, boot_id};
use bale_sys::error::Call;
use bale_sys::{mount, process};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::kept::Kept;

/// A mount of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HostMount {
    /// Its id.
    id: u64,
    /// The boot that the id is of.
    boot_id: String,
}

/// Writes into the record that `root` is about to be mounted on the host.
pub fn announce(record: &mut Record, root: &OwnedFd) -> Result<()> {
    let id = mount::id(root).call(|| "statx(<root>, STATX_MNT_ID)")?;
    let mut kept = Kept::of(record);
    kept.root_mount = Some(HostMount { id, boot_id: boot_id() });
    kept.keep(record)
}

/// Takes the root of a container off the host again, if it is there.
pub fn remove(record: &Record) -> Result<()> {
    let Some(known) = Kept::of(record).root_mount.filter(|mount| mount.boot_id == boot_id()) else {
        return Ok(());
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = match rustix::fs::open(record.rootfs.as_str(), flags, Mode::empty()) {
        Ok(top) => top,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
        other => other.call(|| format!("open({:?})", record.rootfs))?,
    };
    // What the user mounted there is not ours to take.
    if mount::id(&top).call(|| "statx(<root>, STATX_MNT_ID)")? != known.id {
        return Ok(());
    }
    mount::detach_fd(&top).call(|| format!("umount2({:?}, MNT_DETACH)", record.rootfs)).map_err(Fault::from)
}

/// Opens the root that init has.
pub fn root_of(record: &Record, init: &OwnedFd, proc: &OwnedFd) -> Result<OwnedFd> {
    let pid = record.init.as_ref().map_or(0, |init| init.pid);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let path = format!("{pid}/root");
    let root = rustix::fs::openat(proc, path.as_str(), flags, Mode::empty());
    let root = root.call(|| format!("open(\"/proc/{path}\")"))?;
    // Alive still, so the pid was its own when it was opened.
    if process::wait_end(init, Some(0))? {
        return Err(Fault::new(Kind::Conflict, "container not running"));
    }
    Ok(root)
}

/// Confines this process to a root.
pub fn enter(root: &OwnedFd) -> Result<()> {
    rustix::process::fchdir(root.as_fd()).call(|| "fchdir(<root>)")?;
    rustix::process::chroot(c".").call(|| "chroot(\".\")")?;
    Ok(())
}
