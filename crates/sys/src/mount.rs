//! Mounts by descriptor: the new mount API and the few old calls that have no successor.
//!
//! The functions return the bare errno and allocate nothing, so that a child may use them after clone.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, StatxFlags};
use rustix::io::Result;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags,
};

use crate::raw;

/// `MOUNT_ATTR_…` of linux/mount.h.
pub mod attr {
    /// Read-only.
    pub const RDONLY: u64 = 0x1;
    /// Set-id bits and file capabilities have no effect.
    pub const NOSUID: u64 = 0x2;
    /// Device nodes have no effect.
    pub const NODEV: u64 = 0x4;
    /// Nothing can be executed.
    pub const NOEXEC: u64 = 0x8;
    /// The field of the three access time modes; to be cleared when one is set.
    pub const ATIME: u64 = 0x70;
    /// No access times.
    pub const NOATIME: u64 = 0x10;
    /// Every access time.
    pub const STRICTATIME: u64 = 0x20;
    /// No access times of directories.
    pub const NODIRATIME: u64 = 0x80;
    /// Ids are mapped by a user namespace.
    pub const IDMAP: u64 = 0x10_0000;
    /// Symbolic links are not followed.
    pub const NOSYMFOLLOW: u64 = 0x20_0000;
}

/// `MS_…` of propagation, for [`Attributes::propagation`].
pub mod propagation {
    /// Events stay here.
    pub const PRIVATE: u64 = 1 << 18;
    /// Events come in.
    pub const SLAVE: u64 = 1 << 19;
    /// Events go both ways.
    pub const SHARED: u64 = 1 << 20;
    /// Private, and cannot be bound.
    pub const UNBINDABLE: u64 = 1 << 17;
}

/// What mount_setattr(2) changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `MOUNT_ATTR_…` to set.
    pub set: u64,
    /// `MOUNT_ATTR_…` to clear.
    pub clear: u64,
    /// One of [`propagation`], or 0.
    pub propagation: u64,
}

impl Attributes {
    /// Tells whether nothing would change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Clones the mount at `path` below `dir`, detached; links in `path` are followed unless `no_follow`.
///
/// # Errors
/// The failed open_tree.
pub fn clone_at(dir: impl AsFd, path: &CStr, recursive: bool, no_follow: bool) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    flags.set(OpenTreeFlags::AT_SYMLINK_NOFOLLOW, no_follow);
    rustix::mount::open_tree(dir, path, flags)
}

/// Clones the mount of the host at `path`, detached.
///
/// # Errors
/// The failed open_tree.
pub fn clone_host(path: &CStr, recursive: bool, no_follow: bool) -> Result<OwnedFd> {
    clone_at(CWD, path, recursive, no_follow)
}

/// Clones the mount from `fd` on down, detached.
///
/// # Errors
/// The failed open_tree.
pub fn clone_fd(fd: impl AsFd, recursive: bool) -> Result<OwnedFd> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    rustix::mount::open_tree(fd, c"", flags)
}

/// Attaches the detached mount `tree` on what `target` is.
///
/// # Errors
/// The failed move_mount.
pub fn attach(tree: impl AsFd, target: impl AsFd) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(tree, c"", target, c"", flags)
}

/// Attaches the detached mount `tree` on the root of this mount namespace.
///
/// # Errors
/// The failed move_mount.
pub fn attach_on_root(tree: impl AsFd) -> Result<()> {
    rustix::mount::move_mount(tree, c"", CWD, c"/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// Changes the mount that `fd` is, and with `recursive` all below.
///
/// # Errors
/// The failed mount_setattr.
pub fn set_attributes(fd: impl AsFd, recursive: bool, change: Attributes) -> Result<()> {
    let attr = raw::MountAttr {
        set: change.set,
        clear: change.clear,
        propagation: change.propagation,
        userns_fd: 0,
    };
    raw::mount_setattr(fd.as_fd().as_raw_fd(), if recursive { libc::AT_RECURSIVE as u32 } else { 0 }, &attr)
}

/// Maps the ids of the detached mount `fd` by the user namespace `userns`.
///
/// # Errors
/// The failed mount_setattr; `EINVAL` when the file system cannot.
pub fn map_ids(fd: impl AsFd, recursive: bool, userns: BorrowedFd<'_>) -> Result<()> {
    let userns_fd = u64::try_from(userns.as_raw_fd()).unwrap_or(0);
    let attr = raw::MountAttr { set: attr::IDMAP, userns_fd, ..raw::MountAttr::default() };
    raw::mount_setattr(fd.as_fd().as_raw_fd(), if recursive { libc::AT_RECURSIVE as u32 } else { 0 }, &attr)
}

/// Changes the propagation of the root of this mount namespace and all below (`bits` of [`propagation`]).
///
/// # Errors
/// The failed mount.
pub fn change_root_propagation(bits: u64, recursive: bool) -> Result<()> {
    change_propagation(c"/", bits, recursive)
}

/// Changes the propagation of `path`, which is the caller's own.
///
/// # Errors
/// The failed mount.
pub fn change_propagation(path: &CStr, bits: u64, recursive: bool) -> Result<()> {
    let bits = u32::try_from(bits).unwrap_or(0) | if recursive { libc::MS_REC as u32 } else { 0 };
    rustix::mount::mount_change(path, MountPropagationFlags::from_bits_retain(bits))
}

/// Makes `.` the root and puts the old one on top of it; [`detach_cwd`] then removes that.
///
/// # Errors
/// The failed pivot_root.
pub fn pivot_to_cwd() -> Result<()> {
    rustix::process::pivot_root(c".", c".")
}

/// Detaches the mount that `.` is and all below.
///
/// # Errors
/// The failed umount2.
pub fn detach_cwd() -> Result<()> {
    rustix::mount::unmount(c".", UnmountFlags::DETACH)
}

/// Detaches what is mounted at `path`.
///
/// # Errors
/// The failed umount2.
pub fn detach(path: &CStr) -> Result<()> {
    rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
}

/// Detaches the mount that `fd` is (its root, opened with `O_PATH`) and all below.
///
/// # Errors
/// The failed umount2.
pub fn detach_fd(fd: impl AsFd) -> Result<()> {
    // umount2 takes no descriptor; this link leads to exactly the mount that it is of.
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    rustix::mount::unmount(path.as_str(), UnmountFlags::DETACH)
}

/// Tells the id of the mount that `fd` is in: of all mounts since boot where the kernel has such (Linux 6.8), else
/// of those that exist.
///
/// # Errors
/// The failed statx.
pub fn id(fd: impl AsFd) -> Result<u64> {
    /// `STATX_MNT_ID_UNIQUE` (linux/stat.h).
    const MNT_ID_UNIQUE: u32 = 0x4000;
    let mask = StatxFlags::MNT_ID | StatxFlags::from_bits_retain(MNT_ID_UNIQUE);
    Ok(rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, mask)?.stx_mnt_id)
}

/// Moves `.` (a mount) over `/`, for a root on ramfs, where pivot_root does not work.
///
/// # Errors
/// The failed mount.
pub fn move_cwd_over_root() -> Result<()> {
    rustix::mount::mount_move(c".", c"/")
}

/// A file system that is being configured (fsopen(2)).
#[derive(Debug)]
pub struct FsContext(OwnedFd);

impl FsContext {
    /// Begins a file system of type `kind`.
    ///
    /// # Errors
    /// The failed fsopen; `ENODEV` for an unknown type.
    pub fn open(kind: &CStr) -> Result<Self> {
        rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map(Self)
    }

    /// Begins a change of the file system that is mounted at `fd`.
    ///
    /// # Errors
    /// The failed fspick; `EINVAL` when `fd` is no mount.
    pub fn pick(fd: impl AsFd) -> Result<Self> {
        let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH;
        rustix::mount::fspick(fd, c"", flags).map(Self)
    }

    /// Changes it to what was set.
    ///
    /// # Errors
    /// As [`FsContext::set`].
    pub fn reconfigure(&self) -> Result<()> {
        rustix::mount::fsconfig_reconfigure(self.0.as_fd())
    }

    /// Sets `key` to `value`, or `key` alone.
    ///
    /// # Errors
    /// The failed fsconfig; [`FsContext::read_log`] has the kernel's words.
    pub fn set(&self, key: &CStr, value: Option<&CStr>) -> Result<()> {
        match value {
            Some(value) => rustix::mount::fsconfig_set_string(self.0.as_fd(), key, value),
            None => rustix::mount::fsconfig_set_flag(self.0.as_fd(), key),
        }
    }

    /// Takes a context that another process has begun.
    #[must_use]
    pub const fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Gives the context up.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// Sets `key` to a descriptor.
    ///
    /// # Errors
    /// As [`FsContext::set`]; `EINVAL` for a key that this kernel does not know.
    pub fn set_fd(&self, key: &CStr, value: BorrowedFd<'_>) -> Result<()> {
        rustix::mount::fsconfig_set_fd(self.0.as_fd(), key, value)
    }

    /// Makes the file system.
    ///
    /// # Errors
    /// As [`FsContext::set`].
    pub fn create(&self) -> Result<()> {
        rustix::mount::fsconfig_create(self.0.as_fd())
    }

    /// Makes a detached mount of it with attributes of [`attr`].
    ///
    /// # Errors
    /// The failed fsmount.
    pub fn mount(&self, attributes: u64) -> Result<OwnedFd> {
        let bits = MountAttrFlags::from_bits_retain(u32::try_from(attributes).unwrap_or(0));
        rustix::mount::fsmount(self.0.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, bits)
    }

    /// Reads the first error of the kernel's mount log into `buffer`; returns its length, 0 when there is none.
    pub fn read_log(&self, buffer: &mut [u8]) -> usize {
        while let Ok(length) = rustix::io::read(&self.0, &mut *buffer) {
            // Lines begin with `e `, `w ` or `i `.
            if length > 2 && buffer[0] == b'e' {
                buffer.copy_within(2..length, 0);
                return length - 2;
            }
            if length == 0 {
                break;
            }
        }
        0
    }
}
