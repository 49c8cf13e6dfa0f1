//! Attributes of a file, read and given by descriptor.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use bale_fault::Result;
use bale_sys::error::Call;
use rustix::fs::{AtFlags, Gid, Mode, Stat, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use rustix::io::Errno;

/// Owner, permissions, modification time, extended attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: (i64, i64),
    /// Sorted by name; without what overlayfs keeps for itself.
    xattrs: Vec<(CString, Vec<u8>)>,
}

impl Attributes {
    /// What a directory has that nothing gives attributes for.
    pub fn implied() -> Self {
        Self { mode: 0o755, uid: 0, gid: 0, mtime: (0, 0), xattrs: Vec::new() }
    }

    /// Reads them from an open file (not `O_PATH`).
    pub fn read(file: BorrowedFd<'_>) -> Result<Self> {
        let stat = rustix::fs::fstat(file).call(|| "fstat")?;
        let list = grow(|buffer| rustix::fs::flistxattr(file, buffer), "flistxattr")?;
        let xattrs =
            collect(&list, |name| grow(|buffer| rustix::fs::fgetxattr(file, name, buffer), "fgetxattr"))?;
        Ok(Self { xattrs, ..Self::of(&stat) })
    }

    /// Reads them from what cannot be opened: a link, a device, a FIFO.
    pub fn read_at(parent: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<Self> {
        let path = below(parent, name);
        let list = grow(|buffer| rustix::fs::llistxattr(path.as_slice(), buffer), "llistxattr")?;
        let get =
            |xattr: &CStr| grow(|buffer| rustix::fs::lgetxattr(path.as_slice(), xattr, buffer), "lgetxattr");
        Ok(Self { xattrs: collect(&list, get)?, ..Self::of(stat) })
    }

    fn of(stat: &Stat) -> Self {
        Self {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: (stat.st_mtime, i64::try_from(stat.st_mtime_nsec).unwrap_or(0)),
            xattrs: Vec::new(),
        }
    }

    /// Gives them to an open file. The order matters: chown clears capabilities and set-id bits.
    pub fn give(&self, file: BorrowedFd<'_>) -> Result<()> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        rustix::fs::fchown(file, Some(uid), Some(gid))
            .call(|| format!("fchown({}, {})", self.uid, self.gid))?;
        for (name, value) in &self.xattrs {
            let set = rustix::fs::fsetxattr(file, name.as_c_str(), value, XattrFlags::empty());
            set.call(|| format!("fsetxattr({name:?})"))?;
        }
        rustix::fs::fchmod(file, Mode::from_raw_mode(self.mode))
            .call(|| format!("fchmod({:o})", self.mode))?;
        Ok(rustix::fs::futimens(file, &self.times()).call(|| "futimens")?)
    }

    /// Gives them to what cannot be opened.
    pub fn give_at(&self, parent: BorrowedFd<'_>, name: &CStr, is_link: bool) -> Result<()> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        let chown = rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
        chown.call(|| format!("fchownat({name:?})"))?;
        let path = below(parent, name);
        for (xattr, value) in &self.xattrs {
            let set = rustix::fs::lsetxattr(path.as_slice(), xattr.as_c_str(), value, XattrFlags::empty());
            set.call(|| format!("lsetxattr({name:?}, {xattr:?})"))?;
        }
        if !is_link {
            // The entry was made by us a moment ago in a directory of ours, so it is no link.
            let chmod = rustix::fs::chmodat(parent, name, Mode::from_raw_mode(self.mode), AtFlags::empty());
            chmod.call(|| format!("fchmodat({name:?}, {:o})", self.mode))?;
        }
        let times = rustix::fs::utimensat(parent, name, &self.times(), AtFlags::SYMLINK_NOFOLLOW);
        Ok(times.call(|| format!("utimensat({name:?})"))?)
    }

    fn times(&self) -> Timestamps {
        Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: Timespec { tv_sec: self.mtime.0, tv_nsec: self.mtime.1 },
        }
    }
}

/// Names an entry for the calls that take only paths: procfs leads to the very directory, the last step follows nothing.
fn below(parent: BorrowedFd<'_>, name: &CStr) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", parent.as_fd().as_raw_fd()).into_bytes();
    path.extend(name.to_bytes());
    path
}

/// Reads an attribute of unknown length; a file system without attributes has none.
fn grow(mut read: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>, call: &str) -> Result<Vec<u8>> {
    let mut buffer = vec![0; 256];
    loop {
        match read(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() < 128 << 10 => buffer.resize(buffer.len() * 4, 0),
            Err(Errno::OPNOTSUPP | Errno::NODATA) => return Ok(Vec::new()),
            Err(errno) => return Err(bale_sys::Error::new(call, errno).into()),
        }
    }
}

fn collect(list: &[u8], get: impl Fn(&CStr) -> Result<Vec<u8>>) -> Result<Vec<(CString, Vec<u8>)>> {
    let mut xattrs = Vec::new();
    for name in list.split(|&b| b == 0).filter(|name| !name.is_empty()) {
        // What overlayfs keeps for itself says nothing of the file; `trusted.overlay.overlay.…` is an image's own.
        if name.starts_with(b"trusted.overlay.") && !name.starts_with(b"trusted.overlay.overlay.") {
            continue;
        }
        let name = CString::new(name).unwrap_or_default();
        let value = get(&name)?;
        xattrs.push((name, value));
    }
    xattrs.sort_unstable();
    Ok(xattrs)
}
