//! Reading small files of a root file system.

use std::os::fd::OwnedFd;

use bale_fault::{Fault, Result};
use bale_sys::error::Call;
use bale_sys::file;
use bale_sys::root::{Links, RelPath, RootFd};
use rustix::fs::{self, FileType, Mode, OFlags};
use rustix::io::Errno;

/// The largest passwd or group that is read, in bytes.
const LIMIT_BYTES: usize = 8 << 20;

/// The text of the files that name users.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountFiles {
    /// `/etc/passwd`; absent when there is none.
    pub passwd: Option<String>,
    /// `/etc/group`; absent when there is none.
    pub group: Option<String>,
}

/// Reads `/etc/passwd` and `/etc/group` below `root`, links taken as inside it.
///
/// # Errors
/// What is there cannot be read: it is no file, or too large.
pub fn account_files(root: &RootFd) -> Result<AccountFiles> {
    Ok(AccountFiles { passwd: text(root, "etc/passwd")?, group: text(root, "etc/group")? })
}

fn text(root: &RootFd, path: &str) -> Result<Option<String>> {
    match open(root, path) {
        Ok(fd) => {
            let bytes = file::read_fd_bounded(fd, path, LIMIT_BYTES).map_err(Fault::from)?;
            Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
        }
        Err(error) if matches!(error.errno(), Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Opens a file or directory below `root` for reading.
fn open(root: &RootFd, path: &str) -> bale_sys::Result<OwnedFd> {
    let below =
        RelPath::clamped(path).map_err(|_| bale_sys::Error::new(format!("open({path:?})"), Errno::INVAL))?;
    readable(&root.open_at(&below, OFlags::PATH, Links::InRoot)?, path)
}

/// Opens what an `O_PATH` descriptor stands for, if it is a regular file or a directory. To open a device or a FIFO
/// may have effects of its own (a watchdog is armed, a tape rewound), and a stranger made these files.
///
/// # Errors
/// `EINVAL` for other kinds of files; the failed call.
pub(crate) fn readable(fd: &OwnedFd, path: &str) -> bale_sys::Result<OwnedFd> {
    let stat = fs::fstat(fd).call(|| format!("fstat({path:?})"))?;
    if !matches!(FileType::from_raw_mode(stat.st_mode), FileType::RegularFile | FileType::Directory) {
        return Err(bale_sys::Error::new(format!("open({path:?}): not a regular file"), Errno::INVAL));
    }
    let proc = fs::open("/proc", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let proc = proc.call(|| "open(\"/proc\")")?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    file::reopen(proc, fd, flags).call(|| format!("open({path:?})"))
}
