//! Kernel namespaces. Bare errnos, no allocation: usable after clone.

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Result;

use crate::raw;

/// Time.
pub const NEWTIME: u64 = libc::CLONE_NEWTIME as u64;
/// Mounts.
pub const NEWNS: u64 = libc::CLONE_NEWNS as u64;
/// View of the cgroup tree.
pub const NEWCGROUP: u64 = libc::CLONE_NEWCGROUP as u64;
/// Host and domain name.
pub const NEWUTS: u64 = libc::CLONE_NEWUTS as u64;
/// System V IPC and POSIX queues.
pub const NEWIPC: u64 = libc::CLONE_NEWIPC as u64;
/// Users.
pub const NEWUSER: u64 = libc::CLONE_NEWUSER as u64;
/// Processes.
pub const NEWPID: u64 = libc::CLONE_NEWPID as u64;
/// Network.
pub const NEWNET: u64 = libc::CLONE_NEWNET as u64;
/// The child's parent is the caller's parent.
pub const PARENT: u64 = libc::CLONE_PARENT as u64;

/// Returns the kind of the namespace `fd`: one of the constants here.
///
/// # Errors
/// `ENOTTY` when it is no namespace.
pub fn kind(fd: impl AsFd) -> Result<u64> {
    raw::namespace_type(fd.as_fd().as_raw_fd()).map(|kind| u64::from(kind.cast_unsigned()))
}

/// Joins the namespace `fd`, or with a pidfd those of that process that `kinds` names. The caller has one thread.
///
/// # Errors
/// The failed setns.
pub fn join(fd: impl AsFd, kinds: u64) -> Result<()> {
    raw::setns(fd.as_fd().as_raw_fd(), i32::try_from(kinds).unwrap_or(0))
}

/// Leaves the namespaces of `kinds` for new ones.
///
/// # Errors
/// The failed unshare.
pub fn unshare(kinds: u64) -> Result<()> {
    raw::unshare(i32::try_from(kinds).unwrap_or(0))
}
