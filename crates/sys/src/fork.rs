//! fork(2) for processes of one thread.

use rustix::fs::{CWD, AtFlags, StatxFlags, statx};
use rustix::io::Errno;
use rustix::process::Pid;

use crate::error::{Call, Error, Result};

/// Which of the two processes returned from [`fork`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The new process.
    Child,
    /// The process that called, with the child's pid.
    Parent(Pid),
}

/// Copies this process.
///
/// # Errors
/// `EBUSY` when the process has more than one thread: the child would inherit locks that nobody opens.
pub fn fork() -> Result<Side> {
    // The link count of a directory of procfs is its subdirectories plus two.
    let tasks = statx(CWD, "/proc/self/task", AtFlags::empty(), StatxFlags::NLINK).call(|| "statx(\"/proc/self/task\")")?;
    if tasks.stx_nlink != 3 {
        let threads = tasks.stx_nlink.saturating_sub(2);
        return Err(Error::new(format!("fork() with {threads} threads"), Errno::BUSY));
    }
    // SAFETY: fork is only unsafe in a process of several threads, whose locks and half-done changes the child would
    // inherit; there is one thread, checked above, and no other can appear as only this one could start it.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => {
            let errno = Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO);
            Err(Error::new("fork()", errno))
        }
        0 => Ok(Side::Child),
        _ => Pid::from_raw(pid).map(Side::Parent).ok_or_else(|| Error::new("fork()", Errno::IO)),
    }
}
