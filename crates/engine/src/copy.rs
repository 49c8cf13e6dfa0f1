//! Copying a tree by descriptors, with all that a file system keeps of it.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use bale_fault::Result;
use bale_sys::error::{Call, Error};
use rustix::fs::{
    self, AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid,
    XattrFlags,
};
use rustix::io::Errno;

/// Deeper trees are refused: every level costs two descriptors.
const DEPTH_LIMIT: usize = 200;

/// Copies what is in the directory `from` into the directory `to`, and owner, mode, times and attributes of `from`
/// itself. Files that are one in `from` are one in `to`.
///
/// # Errors
/// The failed call.
pub fn tree(from: impl AsFd, to: impl AsFd) -> Result<()> {
    let mut copier = Copier { links: HashMap::new(), top: to.as_fd() };
    copier.directory(&reopen(from)?, &reopen(to.as_fd())?, &mut Vec::new())
}

struct Copier<'a> {
    /// Where a file with several names was copied to, by device and inode.
    links: HashMap<(u64, u64), Vec<CString>>,
    top: std::os::fd::BorrowedFd<'a>,
}

fn reopen(fd: impl AsFd) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(fs::openat(fd, c".", flags, Mode::empty()).call(|| "openat(\".\", O_DIRECTORY)")?)
}

impl Copier<'_> {
    fn directory(&mut self, from: &OwnedFd, to: &OwnedFd, path: &mut Vec<CString>) -> Result<()> {
        if path.len() >= DEPTH_LIMIT {
            return Err(
                Error::new(format!("copy a tree deeper than {DEPTH_LIMIT}"), Errno::NAMETOOLONG).into()
            );
        }
        let mut entries = Vec::new();
        for entry in Dir::read_from(from).call(|| "getdents64()")? {
            let name = entry.call(|| "getdents64()")?.file_name().to_owned();
            if name.as_c_str() != c"." && name.as_c_str() != c".." {
                entries.push(name);
            }
        }
        for name in entries {
            path.push(name.clone());
            self.entry(from, to, &name, path)?;
            path.pop();
        }
        let stat = fs::fstat(from).call(|| "fstat()")?;
        attributes(from, to)?;
        finish(to, &stat)
    }

    fn entry(&mut self, from: &OwnedFd, to: &OwnedFd, name: &CStr, path: &mut Vec<CString>) -> Result<()> {
        let stat = fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW).call(|| format!("statat({name:?})"))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Directory && stat.st_nlink > 1 && self.link(&stat, to, name, path)? {
            return Ok(());
        }
        match kind {
            FileType::Directory => self.subdirectory(from, to, name, path),
            FileType::RegularFile => regular(from, to, name, &stat),
            FileType::Symlink => symlink(from, to, name, &stat),
            _ => node(to, name, kind, &stat),
        }
    }

    /// Links to the copy of a file that was copied under another name; `false` when this is its first.
    fn link(&mut self, stat: &Stat, to: &OwnedFd, name: &CStr, path: &[CString]) -> Result<bool> {
        let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) else {
            self.links.insert((stat.st_dev, stat.st_ino), path.to_vec());
            return Ok(false);
        };
        let Some((last, parents)) = first.split_last() else { return Ok(false) };
        let parent = self.open_made(parents)?;
        fs::linkat(&parent, last.as_c_str(), to, name, AtFlags::empty())
            .call(|| format!("linkat({name:?})"))?;
        Ok(true)
    }

    /// Opens a directory that was copied. Whoever else has the target may have put a link in its place meanwhile.
    fn open_made(&self, path: &[CString]) -> Result<OwnedFd> {
        let joined = path.iter().map(|c| c.as_bytes()).collect::<Vec<_>>().join(&b'/');
        let joined = if joined.is_empty() { b".".as_slice() } else { &joined };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let opened = fs::openat2(self.top, joined, flags, Mode::empty(), resolve);
        Ok(opened.call(|| format!("openat2({:?})", String::from_utf8_lossy(joined)))?)
    }

    fn subdirectory(
        &mut self,
        from: &OwnedFd,
        to: &OwnedFd,
        name: &CStr,
        path: &mut Vec<CString>,
    ) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        fs::mkdirat(to, name, Mode::from_raw_mode(0o700)).call(|| format!("mkdirat({name:?})"))?;
        let below_from = fs::openat(from, name, flags, Mode::empty()).call(|| format!("openat({name:?})"))?;
        let below_to = fs::openat(to, name, flags, Mode::empty()).call(|| format!("openat({name:?})"))?;
        self.directory(&below_from, &below_to, path)
    }
}

fn regular(from: &OwnedFd, to: &OwnedFd, name: &CStr, stat: &Stat) -> Result<()> {
    let call = || format!("openat({name:?})");
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let source = File::from(fs::openat(from, name, flags, Mode::empty()).call(call)?);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = File::from(fs::openat(to, name, flags, Mode::from_raw_mode(0o600)).call(call)?);
    let copied = std::io::copy(&mut &source, &mut &target);
    copied
        .map_err(|e| Error::new(format!("copy {name:?}"), Errno::from_io_error(&e).unwrap_or(Errno::IO)))?;
    attributes(&source, &target)?;
    finish(target, stat)
}

fn symlink(from: &OwnedFd, to: &OwnedFd, name: &CStr, stat: &Stat) -> Result<()> {
    let text = fs::readlinkat(from, name, Vec::new()).call(|| format!("readlinkat({name:?})"))?;
    fs::symlinkat(text.as_c_str(), to, name).call(|| format!("symlinkat({name:?})"))?;
    own(to, name, stat)?;
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    Ok(fs::utimensat(to, name, &times(stat), flags).call(|| format!("utimensat({name:?})"))?)
}

fn node(to: &OwnedFd, name: &CStr, kind: FileType, stat: &Stat) -> Result<()> {
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    fs::mknodat(to, name, kind, mode, stat.st_rdev).call(|| format!("mknodat({name:?})"))?;
    own(to, name, stat)?;
    set_mode(to, name, kind, mode)?;
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    Ok(fs::utimensat(to, name, &times(stat), flags).call(|| format!("utimensat({name:?})"))?)
}

/// Sets the mode of what cannot be opened without effects. fchmodat(2) follows links, and one may have been put in its
/// place; the descriptor leads to what was looked at.
fn set_mode(to: &OwnedFd, name: &CStr, kind: FileType, mode: Mode) -> Result<()> {
    let call = || format!("chmod({name:?})");
    let made = fs::openat(to, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
    let made = made.call(call)?;
    if FileType::from_raw_mode(fs::fstat(&made).call(call)?.st_mode) != kind {
        return Err(Error::new(format!("{name:?} was exchanged while it was copied"), Errno::STALE).into());
    }
    Ok(fs::chmod(format!("/proc/self/fd/{}", made.as_raw_fd()), mode).call(call)?)
}

fn own(to: &OwnedFd, name: &CStr, stat: &Stat) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    Ok(fs::chownat(to, name, Some(uid), Some(gid), flags).call(|| format!("fchownat({name:?})"))?)
}

/// Sets owner, then mode (a change of owner clears its set-id bits), then times.
fn finish(target: impl AsFd, stat: &Stat) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    fs::fchown(&target, Some(uid), Some(gid)).call(|| format!("fchown({}, {})", stat.st_uid, stat.st_gid))?;
    fs::fchmod(&target, Mode::from_raw_mode(stat.st_mode & 0o7777)).call(|| "fchmod()")?;
    Ok(fs::futimens(&target, &times(stat)).call(|| "futimens()")?)
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds: i64, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

/// Copies extended attributes, except those of overlayfs, which have a meaning of their own in the target.
fn attributes(from: impl AsFd, to: impl AsFd) -> Result<()> {
    let mut names = vec![0u8; 64 << 10];
    let length = match fs::flistxattr(&from, &mut names[..]) {
        Err(Errno::OPNOTSUPP) => return Ok(()),
        other => other.call(|| "flistxattr()")?,
    };
    for name in names[..length].split_inclusive(|&b| b == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        if name.to_bytes().starts_with(b"trusted.overlay.") {
            continue;
        }
        let mut value = vec![0u8; 64 << 10];
        let length = fs::fgetxattr(&from, name, &mut value[..]).call(|| format!("fgetxattr({name:?})"))?;
        match fs::fsetxattr(&to, name, &value[..length], XattrFlags::empty()) {
            // A file system without the attribute's kind keeps the rest.
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(errno) => {
                let call = format!("fsetxattr([{}], {name:?})", to.as_fd().as_raw_fd());
                return Err(Error::new(call, errno).into());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_tree_is_copied_with_links_modes_and_times() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let at = |name: &str| from.path().join(name);
        std::fs::create_dir_all(at("d/e")).unwrap();
        std::fs::write(at("d/f"), "text").unwrap();
        std::fs::hard_link(at("d/f"), at("d/e/g")).unwrap();
        symlink("../none", at("d/l")).unwrap();
        std::fs::set_permissions(at("d/e"), std::fs::Permissions::from_mode(0o500)).unwrap();
        let open = |dir: &tempfile::TempDir| File::open(dir.path()).unwrap();
        tree(open(&from), open(&to)).unwrap();
        let copied = |name: &str| to.path().join(name).symlink_metadata().unwrap();
        assert_eq!(std::fs::read_to_string(to.path().join("d/e/g")).unwrap(), "text");
        assert_eq!(copied("d/f").ino(), copied("d/e/g").ino());
        assert_eq!(copied("d/e").mode() & 0o7777, 0o500);
        assert_eq!(std::fs::read_link(to.path().join("d/l")).unwrap().to_str(), Some("../none"));
        let (old, new) = (at("d").metadata().unwrap(), copied("d"));
        assert_eq!((old.mtime(), old.mtime_nsec()), (new.mtime(), new.mtime_nsec()));
    }
    /// A container that shares the volume exchanges what is copied there for links while it is copied
    /// (docker's CVE-2018-15664 is of this kind).
    #[test]
    fn whoever_has_the_volume_cannot_lead_the_copy_out_of_it() {
        bale_testkit::require_root!();
        let (image, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        // Every file of the same name in another directory is one file; and pipes, which get their mode by name.
        std::fs::create_dir(image.path().join("d0")).unwrap();
        std::fs::write(image.path().join("d0/secret"), "of the image").unwrap();
        for number in 0..10 {
            let directory = image.path().join(format!("d{number}"));
            if number > 0 {
                std::fs::create_dir(&directory).unwrap();
                std::fs::hard_link(image.path().join("d0/secret"), directory.join("secret")).unwrap();
            }
            let (path, mode) = (image.path().join(format!("pipe{number}")), Mode::from_raw_mode(0o4777));
            fs::mknodat(fs::CWD, &path, FileType::Fifo, mode, 0).unwrap();
            fs::chmod(&path, mode).unwrap();
        }
        let secret = outside.path().join("secret");
        std::fs::write(&secret, "of the host").unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
        for _ in 0..100 {
            let volume = tempfile::tempdir().unwrap();
            let copied = std::sync::atomic::AtomicBool::new(false);
            let done = &copied;
            std::thread::scope(|scope| {
                let (volume, outside, secret) = (volume.path(), outside.path(), &secret);
                scope.spawn(move || {
                    symlink(outside, volume.join("e")).unwrap();
                    symlink(secret, volume.join("f")).unwrap();
                    while !done.load(std::sync::atomic::Ordering::Relaxed) {
                        for (link, kind) in [("e", "d"), ("f", "pipe")] {
                            for name in (0..10).map(|number| volume.join(format!("{kind}{number}"))) {
                                let exchange = || {
                                    let flags = fs::RenameFlags::EXCHANGE;
                                    fs::renameat_with(fs::CWD, volume.join(link), fs::CWD, &name, flags)
                                        .is_ok()
                                };
                                if exchange() {
                                    std::thread::yield_now();
                                    exchange();
                                }
                            }
                        }
                    }
                });
                let open = |path: &std::path::Path| File::open(path).unwrap();
                // It may fail: what it finds is not what it made.
                let _ = tree(open(image.path()), open(volume));
                done.store(true, std::sync::atomic::Ordering::Relaxed);
            });
            let host = secret.metadata().unwrap();
            assert_eq!((host.nlink(), host.mode() & 0o7777), (1, 0o600), "a file of the host was reached");
        }
    }
}
