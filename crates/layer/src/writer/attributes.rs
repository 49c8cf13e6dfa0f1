//! Owner, mode, times and extended attributes, with as few calls as they need.
//!
//! The order is owner, extended attributes, mode, times: a change of owner drops capabilities and the suid
//! bits, an ACL changes the mode, everything changes the times.

use std::os::fd::{AsRawFd, BorrowedFd};

use bale_fault::Result;
use bale_sys::error::Call;
use rustix::fs::{self, AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::xattr::{Verdict, verdict};
use crate::Warnings;
use crate::fault::show;
use crate::tar::{Entry, Timestamp, Xattr};

/// What an entry says of a file beside its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) mode: u32,
    uid: u32,
    gid: u32,
    mtime: Timestamp,
    xattrs: Vec<Xattr>,
}

/// Who makes files, and which bits of their mode the process takes off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    uid: u32,
    gid: u32,
    umask: u32,
}

impl Owner {
    pub(super) fn of_process() -> Result<Self> {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Ok(Self { uid, gid, umask: umask().unwrap_or(0o777) })
    }
}

/// Reads the umask without changing it, which would be seen by other threads; `None` without /proc.
fn umask() -> Option<u32> {
    let fd = fs::open("/proc/self/status", fs::OFlags::RDONLY | fs::OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut text = [0; 1024];
    let count = rustix::io::read(&fd, &mut text).ok()?;
    let text = std::str::from_utf8(&text[..count]).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(line.trim(), 8).ok()
}

impl Attributes {
    pub(super) fn take(entry: &mut Entry) -> Self {
        let xattrs = std::mem::take(&mut entry.xattrs);
        Self { mode: entry.mode & 0o7777, uid: entry.uid, gid: entry.gid, mtime: entry.mtime, xattrs }
    }

    /// Those of a directory that nobody described; time 0, so that the same layer gives the same directory.
    pub(super) fn implied() -> Self {
        Self { mode: 0o755, uid: 0, gid: 0, mtime: Timestamp::default(), xattrs: Vec::new() }
    }

    fn ids(&self) -> (Option<Uid>, Option<Gid>) {
        (Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))
    }

    fn needs_owner(&self, owner: Owner, is_plain: bool) -> bool {
        !is_plain || (self.uid, self.gid) != (owner.uid, owner.gid)
    }

    /// Sets them on a file that was just created with the low nine bits of the mode.
    pub(super) fn set_on_file(
        &self,
        fd: BorrowedFd<'_>,
        at: &Place<'_>,
        warnings: &mut Warnings,
    ) -> Result<()> {
        if self.needs_owner(at.owner, at.is_plain) {
            let (uid, gid) = self.ids();
            fs::fchown(fd, uid, gid)
                .call(|| format!("fchown({}, {}, {})", show(at.path), self.uid, self.gid))?;
        }
        if !at.is_plain {
            drop_inherited_acl(fd)?;
        }
        let has_acl = self.set_xattrs(at.path, at.is_overlay, warnings, |name, value| {
            fs::fsetxattr(fd, name, value, XattrFlags::empty())
        })?;
        if self.mode & (0o7000 | at.owner.umask) != 0 || !at.is_plain || has_acl {
            fs::fchmod(fd, Mode::from_raw_mode(self.mode)).call(|| format!("fchmod({})", show(at.path)))?;
        }
        let times = times(self.mtime, self.mtime);
        fs::futimens(fd, &times).call(|| format!("futimens({})", show(at.path)))?;
        Ok(())
    }

    /// Sets them on a directory, comparing with what it has; `clean` removes the extended attributes it had.
    pub(super) fn set_on_directory(
        &self,
        fd: BorrowedFd<'_>,
        path: &[u8],
        clean: bool,
        is_overlay: bool,
        warnings: &mut Warnings,
    ) -> Result<()> {
        let stat = fs::fstat(fd).call(|| format!("fstat({})", show(path)))?;
        let mut mode = stat.st_mode & 0o7777;
        if (stat.st_uid, stat.st_gid) != (self.uid, self.gid) {
            let (uid, gid) = self.ids();
            fs::fchown(fd, uid, gid)
                .call(|| format!("fchown({}, {}, {})", show(path), self.uid, self.gid))?;
            mode = u32::MAX;
        }
        if clean {
            remove_xattrs(fd).call(|| format!("fremovexattr({})", show(path)))?;
            mode = u32::MAX;
        }
        let set = |name: &[u8], value: &[u8]| fs::fsetxattr(fd, name, value, XattrFlags::empty());
        let has_acl = self.set_xattrs(path, is_overlay, warnings, set)?;
        if mode != self.mode || has_acl {
            fs::fchmod(fd, Mode::from_raw_mode(self.mode)).call(|| format!("fchmod({})", show(path)))?;
        }
        fs::futimens(fd, &times(self.mtime, self.mtime)).call(|| format!("futimens({})", show(path)))?;
        Ok(())
    }

    /// Sets them on a link, device or FIFO `name` that was just created in `dir`.
    pub(super) fn set_on_name(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        is_link: bool,
        at: &Place<'_>,
        warnings: &mut Warnings,
    ) -> Result<()> {
        let words = |call: &str| format!("{call}({})", show(at.path));
        if self.needs_owner(at.owner, at.is_plain) {
            let (uid, gid) = self.ids();
            fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).call(|| words("fchownat"))?;
        }
        // There is no descriptor of a link, device or FIFO to set attributes on; this path ends at a name
        // that only this process has made, and is not followed.
        let path = [format!("/proc/self/fd/{}/", dir.as_raw_fd()).as_bytes(), name].concat();
        let set =
            |name: &[u8], value: &[u8]| fs::lsetxattr(path.as_slice(), name, value, XattrFlags::empty());
        let has_acl = self.set_xattrs(at.path, at.is_overlay, warnings, set)?;
        if !is_link && (self.mode & (0o7000 | at.owner.umask) != 0 || !at.is_plain || has_acl) {
            let flags = fs::OFlags::PATH | fs::OFlags::NOFOLLOW | fs::OFlags::CLOEXEC;
            let fd = fs::openat(dir, name, flags, Mode::empty()).call(|| words("openat"))?;
            let own = format!("/proc/self/fd/{}", fd.as_raw_fd());
            fs::chmod(own, Mode::from_raw_mode(self.mode)).call(|| words("chmod"))?;
        }
        let times = times(self.mtime, self.mtime);
        fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW).call(|| words("utimensat"))?;
        Ok(())
    }

    /// Sets the extended attributes that a layer may set; true when an ACL is among them.
    fn set_xattrs(
        &self,
        path: &[u8],
        is_overlay: bool,
        warnings: &mut Warnings,
        set: impl Fn(&[u8], &[u8]) -> rustix::io::Result<()>,
    ) -> Result<bool> {
        let mut has_acl = false;
        for Xattr { name, value } in &self.xattrs {
            match verdict(name, is_overlay) {
                Verdict::Skip => continue,
                Verdict::Refuse => {
                    warnings.add(path, format!("extended attribute {} is not a layer's to set", show(name)));
                    continue;
                }
                Verdict::Set => {}
            }
            match set(name, value) {
                Ok(()) => has_acl |= name.starts_with(b"system.posix_acl"),
                // The file system has none, or none for this type of file.
                Err(errno @ (Errno::OPNOTSUPP | Errno::PERM)) => {
                    let words = bale_sys::error::words(errno);
                    warnings.add(path, format!("extended attribute {} was not set: {words}", show(name)));
                }
                Err(errno) => {
                    let call = format!("setxattr({}, {}, {} bytes)", show(path), show(name), value.len());
                    return Err(bale_sys::Error::new(call, errno).into());
                }
            }
        }
        Ok(has_acl)
    }
}

/// Where a new file stands and what it has got by itself.
pub(super) struct Place<'a> {
    pub(super) path: &'a [u8],
    pub(super) owner: Owner,
    pub(super) is_plain: bool,
    pub(super) is_overlay: bool,
}

fn drop_inherited_acl(fd: BorrowedFd<'_>) -> Result<()> {
    match fs::fremovexattr(fd, "system.posix_acl_access") {
        Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        Err(errno) => Err(bale_sys::Error::new("fremovexattr(\"system.posix_acl_access\")", errno).into()),
    }
}

/// Removes what an entry could have set.
fn remove_xattrs(fd: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let Some(list) = list_xattrs(fd)? else { return Ok(()) };
    for name in list {
        if verdict(&name, false) == Verdict::Set {
            fs::fremovexattr(fd, name.as_slice())?;
        }
    }
    Ok(())
}

/// Lists the names of a file's extended attributes; `None` where the file system has none.
pub(crate) fn list_xattrs(fd: BorrowedFd<'_>) -> rustix::io::Result<Option<Vec<Vec<u8>>>> {
    let length = match fs::flistxattr_query(fd) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(None),
        Ok(length) => length,
        Err(errno) => return Err(errno),
    };
    let mut list = vec![0; length];
    let count = fs::flistxattr(fd, &mut list)?;
    Ok(Some(list[..count].split(|&b| b == 0).filter(|n| !n.is_empty()).map(<[u8]>::to_vec).collect()))
}

pub(super) fn times(accessed: Timestamp, modified: Timestamp) -> Timestamps {
    let spec = |t: Timestamp| Timespec { tv_sec: t.secs, tv_nsec: t.nanos.into() };
    Timestamps { last_access: spec(accessed), last_modification: spec(modified) }
}
