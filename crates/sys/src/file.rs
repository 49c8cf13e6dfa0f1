//! Small files that are replaced whole, and locks.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{self, AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Call, Error, Result};

/// Whether a replaced file must survive a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// It survives the death of any process, not a power cut.
    Process,
    /// File and directory entry are synced.
    Power,
}

/// Replaces `name` in the directory `dir` by `content`: readers see the old or the new text, never a part.
///
/// # Errors
/// The failed call; the temporary file (`.<name>.<pid>`) is removed then.
pub fn replace(dir: impl AsFd, name: &str, content: &[u8], mode: Mode, durability: Durability) -> Result<()> {
    let dir = dir.as_fd();
    let temporary = format!(".{name}.{}", rustix::process::getpid().as_raw_nonzero());
    let outcome = write_new(dir, &temporary, content, mode, durability).and_then(|()| {
        fs::renameat(dir, temporary.as_str(), dir, name).call(|| format!("renameat({temporary:?}, {name:?})"))
    });
    if outcome.is_err() {
        // The first failure is the one worth telling.
        let _ = fs::unlinkat(dir, temporary.as_str(), AtFlags::empty());
    }
    outcome?;
    if durability == Durability::Power {
        let open = fs::openat(dir, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        open.and_then(fs::fsync).call(|| "fsync(<directory>)")?;
    }
    Ok(())
}

fn write_new(dir: impl AsFd, name: &str, content: &[u8], mode: Mode, durability: Durability) -> Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = fs::openat(dir.as_fd(), name, flags, mode).call(|| format!("openat({name:?}, O_CREAT)"))?;
    let mut file = File::from(fd);
    file.write_all(content).map_err(|e| io_error(format!("write({name:?}, {} bytes)", content.len()), &e))?;
    if durability == Durability::Power {
        file.sync_all().map_err(|e| io_error(format!("fsync({name:?})"), &e))?;
    }
    Ok(())
}

/// Reads the regular file `name` in `dir`, at most `limit_bytes` of it; links are not followed.
///
/// # Errors
/// The failed call; `EFBIG` above the limit; `EINVAL` when it is no regular file.
pub fn read_bounded(dir: impl AsFd, name: &str, limit_bytes: usize) -> Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let call = || format!("openat({name:?})");
    let fd = fs::openat(dir.as_fd(), name, flags, Mode::empty()).call(call)?;
    read_fd_bounded(fd, name, limit_bytes)
}

/// Reads an open regular file to its end, at most `limit_bytes`. `name` is for the error.
///
/// # Errors
/// As [`read_bounded`].
pub fn read_fd_bounded(fd: OwnedFd, name: &str, limit_bytes: usize) -> Result<Vec<u8>> {
    let stat = fs::fstat(&fd).call(|| format!("fstat({name:?})"))?;
    if fs::FileType::from_raw_mode(stat.st_mode) != fs::FileType::RegularFile {
        return Err(Error::new(format!("read({name:?}): not a regular file"), Errno::INVAL));
    }
    let mut content = Vec::with_capacity(usize::try_from(stat.st_size).unwrap_or(0).min(limit_bytes) + 1);
    let limit = limit_bytes as u64 + 1;
    File::from(fd)
        .take(limit)
        .read_to_end(&mut content)
        .map_err(|e| io_error(format!("read({name:?})"), &e))?;
    if content.len() > limit_bytes {
        return Err(Error::new(format!("read({name:?}): larger than {limit_bytes} bytes"), Errno::FBIG));
    }
    Ok(content)
}

/// Opens what an `O_PATH` descriptor stands for, by procfs as the host has it (`proc`): so a stranger's file is looked
/// at before it is opened, and nothing can be put in its place between. It does not allocate.
///
/// # Errors
/// The errno of openat(2).
pub fn reopen(proc: impl AsFd, found: impl AsFd, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let mut path = *b"self/fd/0000000000\0";
    let mut number = found.as_fd().as_raw_fd().unsigned_abs();
    for digit in path[8..18].iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
    // procfs takes numbers without zeros in front only.
    let first = (8..17).find(|at| path[*at] != b'0').unwrap_or(17);
    path.copy_within(first..19, 8);
    let text = std::ffi::CStr::from_bytes_until_nul(&path).map_err(|_| Errno::INVAL)?;
    fs::openat(proc, text, flags | OFlags::CLOEXEC, Mode::empty())
}

/// Opens a regular file that an `O_PATH` descriptor stands for. To open a device or a FIFO has effects of its own (a
/// watchdog is armed, a tape rewound), and a stranger may have made it.
///
/// # Errors
/// `EINVAL` when it is no regular file; the failed call. `name` is for the error.
pub fn open_regular(proc: impl AsFd, found: impl AsFd, name: &str) -> Result<OwnedFd> {
    let stat = fs::fstat(&found).call(|| format!("fstat({name:?})"))?;
    if fs::FileType::from_raw_mode(stat.st_mode) != fs::FileType::RegularFile {
        return Err(Error::new(format!("open({name:?}): not a regular file"), Errno::INVAL));
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    reopen(proc, found, flags).call(|| format!("open({name:?})"))
}

fn io_error(call: String, error: &std::io::Error) -> Error {
    Error::new(call, Errno::from_io_error(error).unwrap_or(Errno::IO))
}

/// A lock on a file, held until dropped (flock(2): it dies with the process).
#[derive(Debug)]
pub struct Lock(OwnedFd);

impl Drop for Lock {
    fn drop(&mut self) {
        // To close the descriptor is not enough: a process that was cloned meanwhile (a container's init that waits
        // for `start`) has a copy of it until it executes its program.
        let _ = fs::flock(&self.0, FlockOperation::Unlock);
    }
}

/// How a lock is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// Beside other shared holders.
    Shared,
    /// Alone.
    Exclusive,
}

impl Lock {
    /// Takes the lock file `name` in `dir`, making it if absent, and waits for it.
    ///
    /// # Errors
    /// The failed call.
    pub fn take(dir: impl AsFd, name: &str, mode: LockMode) -> Result<Self> {
        let operation =
            if mode == LockMode::Shared { FlockOperation::LockShared } else { FlockOperation::LockExclusive };
        loop {
            let fd = open_lock(&dir, name)?;
            match fs::flock(&fd, operation) {
                Ok(()) => return Ok(Self(fd)),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::new(format!("flock({name:?})"), errno)),
            }
        }
    }

    /// Takes the lock if nobody holds it.
    ///
    /// # Errors
    /// The failed call.
    pub fn try_take(dir: impl AsFd, name: &str, mode: LockMode) -> Result<Option<Self>> {
        let operation = match mode {
            LockMode::Shared => FlockOperation::NonBlockingLockShared,
            LockMode::Exclusive => FlockOperation::NonBlockingLockExclusive,
        };
        let fd = open_lock(&dir, name)?;
        match fs::flock(&fd, operation) {
            Ok(()) => Ok(Some(Self(fd))),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(Error::new(format!("flock({name:?})"), errno)),
        }
    }
}

fn open_lock(dir: impl AsFd, name: &str) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(dir.as_fd(), name, flags, Mode::from_raw_mode(0o600))
        .call(|| format!("openat({name:?}, O_CREAT)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_read_within_bounds() {
        let dir = tempfile::tempdir().unwrap();
        let fd = crate::root::RootFd::open(dir.path()).unwrap();
        replace(&fd, "x", b"one", Mode::from_raw_mode(0o600), Durability::Process).unwrap();
        replace(&fd, "x", b"two", Mode::from_raw_mode(0o600), Durability::Power).unwrap();
        assert_eq!(read_bounded(&fd, "x", 3).unwrap(), b"two");
        assert_eq!(read_bounded(&fd, "x", 2).unwrap_err().errno(), Errno::FBIG);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn only_regular_files_are_opened_again_and_what_was_looked_at_is() {
        let dir = tempfile::tempdir().unwrap();
        let proc = fs::open("/proc", OFlags::PATH, Mode::empty()).unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, "one").unwrap();
        let look = || fs::open(&path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty()).unwrap();
        let mut found = look();
        for _ in 0..120 {
            found = found.try_clone().unwrap();
        }
        std::fs::rename(&path, dir.path().join("y")).unwrap();
        fs::mkfifoat(fs::CWD, &path, Mode::from_raw_mode(0o600)).unwrap();
        let fd = open_regular(&proc, &found, "x").unwrap();
        assert_eq!(read_fd_bounded(fd, "x", 9).unwrap(), b"one");
        assert_eq!(open_regular(&proc, look(), "x").unwrap_err().errno(), Errno::INVAL);
    }

    #[test]
    fn an_exclusive_lock_is_alone() {
        let dir = tempfile::tempdir().unwrap();
        let fd = crate::root::RootFd::open(dir.path()).unwrap();
        let held = Lock::take(&fd, "lock", LockMode::Exclusive).unwrap();
        assert!(Lock::try_take(&fd, "lock", LockMode::Shared).unwrap().is_none());
        drop(held);
        assert!(Lock::try_take(&fd, "lock", LockMode::Shared).unwrap().is_some());
    }
}
