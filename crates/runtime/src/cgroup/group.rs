//! One cgroup directory and its files.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bale_sys::error::{Call, Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;

/// The largest file that is read, in bytes: `cgroup.procs` of a container with very many processes.
const LIMIT_BYTES: u64 = 64 << 20;

/// One cgroup.
#[derive(Debug)]
pub struct Group {
    path: PathBuf,
    fd: OwnedFd,
}

impl Group {
    /// Opens a cgroup; `None` when it does not exist.
    pub fn open(path: &Path) -> Result<Option<Self>> {
        match fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fd) => Ok(Some(Self { path: path.to_owned(), fd })),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(Error::new(format!("open({path:?}, O_PATH|O_DIRECTORY)"), errno)),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens one of its files.
    pub fn open_file(&self, name: &str, flags: OFlags) -> Result<OwnedFd> {
        let call = || format!("open({:?}, {flags:?})", self.path.join(name));
        fs::openat(&self.fd, name, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty()).call(call)
    }

    /// Reads one of its files.
    pub fn read(&self, name: &str) -> Result<String> {
        let fd = self.open_file(name, OFlags::RDONLY)?;
        read_all(fd, &self.path.join(name))
    }

    /// Reads one of its files; `None` when it does not exist.
    pub fn read_if_there(&self, name: &str) -> Result<Option<String>> {
        match self.read(name) {
            Ok(text) => Ok(Some(text)),
            // A cgroup that was removed meanwhile answers ENODEV.
            Err(error) if matches!(error.errno(), Errno::NOENT | Errno::NODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads a number.
    pub fn read_number(&self, name: &str) -> Option<u64> {
        let text = self.read_if_there(name).ok().flatten()?;
        if text.trim() == "max" { Some(u64::MAX) } else { text.trim().parse().ok() }
    }

    /// Writes to one of its files, each line by a call of its own, as the kernel wants it.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        let fd = self.open_file(name, OFlags::WRONLY)?;
        text.lines().try_for_each(|line| {
            let call = || format!("write({:?}, {line:?})", self.path.join(name));
            loop {
                match rustix::io::write(&fd, line.as_bytes()) {
                    Err(Errno::INTR) => {}
                    answer => return answer.map(drop).call(call),
                }
            }
        })
    }

    /// Returns it and all cgroups below it, parents first. What goes away meanwhile is left out.
    fn tree(&self) -> Result<Vec<PathBuf>> {
        let mut found = vec![self.path.clone()];
        let mut next = 0;
        while next < found.len() && found.len() < MOST_GROUPS {
            let path = found[next].clone();
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            next += 1;
            let dir = match fs::open(&path, flags, Mode::empty()) {
                Err(Errno::NOENT | Errno::NODEV) => continue,
                fd => {
                    fs::Dir::new(fd.call(|| format!("open({path:?})"))?).call(|| format!("open({path:?})"))?
                }
            };
            for entry in dir {
                let entry = entry.call(|| format!("readdir({path:?})"))?;
                let name = entry.file_name().to_string_lossy();
                if entry.file_type() == fs::FileType::Directory && name != "." && name != ".." {
                    found.push(path.join(&*name));
                }
            }
        }
        Ok(found)
    }

    /// Collects the pids of the processes in it and below.
    pub fn pids(&self) -> Result<Vec<i32>> {
        let mut pids = Vec::new();
        for path in self.tree()? {
            let Some(group) = Self::open(&path)? else { continue };
            match group.read_if_there("cgroup.procs") {
                Ok(text) => {
                    pids.extend(text.unwrap_or_default().lines().filter_map(|line| line.parse::<i32>().ok()));
                }
                // A threaded cgroup lists threads only; its processes are listed above it.
                Err(error) if error.errno() == Errno::OPNOTSUPP => {}
                Err(error) => return Err(error),
            }
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Removes it and what is below it, deepest first. What is gone is no error.
    pub fn remove(&self) -> Result<()> {
        // A leaf is the common case, and one call.
        match remove_directory(&self.path) {
            Err(error) if error.errno() == Errno::BUSY => {}
            answer => return answer,
        }
        self.tree()?.iter().rev().try_for_each(|path| remove_directory(path))
    }

    /// Waits until `cgroup.events` (v2) has the line `wanted`; `false` when the deadline came first, or when the
    /// cgroup is gone.
    pub fn wait_event(&self, wanted: &str, deadline: Instant) -> Result<bool> {
        let file = self.open_file("cgroup.events", OFlags::RDONLY)?;
        loop {
            let mut text = [0_u8; 256];
            let length = match rustix::io::pread(&file, &mut text, 0) {
                Err(Errno::NODEV) => return Ok(false),
                length => length.call(|| format!("read({:?})", self.path.join("cgroup.events")))?,
            };
            let text = String::from_utf8_lossy(&text[..length]);
            if text.lines().any(|line| line == wanted) {
                return Ok(true);
            }
            if !wait_for(&file, PollFlags::PRI, deadline)? {
                return Ok(false);
            }
        }
    }
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// More cgroups in a container than this are not looked at.
const MOST_GROUPS: usize = 100_000;

fn remove_directory(path: &Path) -> Result<()> {
    match fs::rmdir(path) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(Error::new(format!("rmdir({path:?})"), errno)),
    }
}

/// Waits for an event on a descriptor; `false` when the deadline came first.
pub fn wait_for(fd: impl AsFd, events: PollFlags, deadline: Instant) -> Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut fds = [PollFd::new(&fd, events)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::new("poll", errno)),
        }
    }
}

/// Waits for a while where the kernel has no event to wait for.
pub fn pause(length: Duration) {
    let timeout = Timespec { tv_sec: 0, tv_nsec: length.subsec_nanos().into() };
    let _ = poll(&mut [], Some(&timeout));
}

/// Reads a file of procfs or cgroupfs by its path.
pub fn read_file(path: &Path) -> Result<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let fd = fs::open(path, flags, Mode::empty()).call(|| format!("open({path:?})"))?;
    read_all(fd, path)
}

fn read_all(fd: OwnedFd, path: &Path) -> Result<String> {
    let mut bytes = Vec::with_capacity(4096);
    let read = std::fs::File::from(fd).take(LIMIT_BYTES).read_to_end(&mut bytes);
    read.map_err(|e| Error::new(format!("read({path:?})"), Errno::from_io_error(&e).unwrap_or(Errno::IO)))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
