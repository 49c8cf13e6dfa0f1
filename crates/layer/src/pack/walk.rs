//! A directory as entries: sorted, with what a layer may carry.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write, empty};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bale_fault::{Fault, Kind as FaultKind, Result};
use bale_sys::error::Call;
use bale_sys::root::RootFd;
use rustix::fs::{self, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::{PackOptions, Source};
use crate::fault::show;
use crate::tar::{Entry, Kind, Timestamp, Writer, Xattr};
use crate::writer::attributes::list_xattrs;
use crate::writer::remove::names;
use crate::writer::xattr::{Verdict, verdict};

/// Directories below each other; each costs a descriptor.
const DEPTH_MAX: usize = 512;

/// Writes all of `root` into `out` and returns the count of entries.
pub(super) fn walk(root: &RootFd, options: &PackOptions, out: &mut dyn Write) -> Result<u64> {
    let fd = open(root.as_fd(), b".", OFlags::RDONLY | OFlags::DIRECTORY).call(|| "openat(<root>)")?;
    let mut walk = Walk { options, tar: Writer::new(out), links: HashMap::new(), entries: 0 };
    if options.root_entry {
        walk.directory_entry(fd.as_fd(), b"./")?;
    }
    walk.directory(&fd)?;
    walk.tar.finish()?;
    Ok(walk.entries)
}

struct Walk<'a> {
    options: &'a PackOptions,
    tar: Writer<&'a mut dyn Write>,
    /// First names of files with several, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
    entries: u64,
}

/// A directory that is being walked.
struct Level {
    fd: OwnedFd,
    /// Its path with a slash behind it, or nothing for the root.
    path: Vec<u8>,
    /// Names to come, last first.
    names: Vec<Vec<u8>>,
}

impl Level {
    fn new(fd: OwnedFd, path: Vec<u8>) -> Result<Self> {
        let mut names = names(&fd).call(|| format!("getdents({})", show(&path)))?;
        names.sort_unstable_by(|a, b| b.cmp(a));
        Ok(Self { fd, path, names })
    }
}

impl Walk<'_> {
    fn directory(&mut self, root: &OwnedFd) -> Result<()> {
        let fd = open(root.as_fd(), b".", OFlags::RDONLY | OFlags::DIRECTORY).call(|| "openat(<root>)")?;
        self.opaque_mark(fd.as_fd(), b"")?;
        let mut levels = vec![Level::new(fd, Vec::new())?];
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.names.pop() else {
                levels.pop();
                continue;
            };
            let path = [&level.path, &name[..]].concat();
            if let Some(fd) = self.member(level.fd.as_fd(), &name, &path)? {
                if levels.len() == DEPTH_MAX {
                    return Err(Fault::new(FaultKind::Exhausted, format!("{} is too deep", show(&path))));
                }
                levels.push(Level::new(fd, [&path, &b"/"[..]].concat())?);
            }
        }
        Ok(())
    }

    /// Writes one member; returns the directory that is to be entered.
    fn member(&mut self, dir: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<Option<OwnedFd>> {
        if name.starts_with(b".wh.") {
            let words = format!("the name {} is reserved for whiteouts", show(path));
            return Err(Fault::new(FaultKind::InvalidInput, words));
        }
        let fd = match open(dir, name, OFlags::PATH) {
            Err(Errno::XDEV) => return self.mount_point(path).map(|()| None),
            other => other.call(|| format!("openat2({})", show(path)))?,
        };
        let stat = fs::fstat(&fd).call(|| format!("fstat({})", show(path)))?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => return self.enter(dir, name, path).map(Some),
            FileType::CharacterDevice if stat.st_rdev == 0 && self.options.source == Source::OverlayUpper => {
                return self.whiteout(path).map(|()| None);
            }
            FileType::RegularFile => Kind::File,
            FileType::Symlink => Kind::Symlink,
            FileType::CharacterDevice => Kind::CharDevice,
            FileType::BlockDevice => Kind::BlockDevice,
            FileType::Fifo => Kind::Fifo,
            // Nothing can listen behind a socket of an archive.
            _ => return Ok(None),
        };
        self.leaf(dir, name, path, kind, &fd, &stat).map(|()| None)
    }

    /// What is mounted does not belong to the tree, and what it covers cannot be seen: an empty directory
    /// stands for it.
    fn mount_point(&mut self, path: &[u8]) -> Result<()> {
        let entry = Entry::new([path, b"/"].concat(), Kind::Directory);
        self.append(&entry, &mut empty())
    }

    fn enter(&mut self, dir: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let fd = open(dir, name, flags).call(|| format!("openat2({})", show(path)))?;
        let path = [path, b"/"].concat();
        self.directory_entry(fd.as_fd(), &path)?;
        self.opaque_mark(fd.as_fd(), &path)?;
        Ok(fd)
    }

    fn directory_entry(&mut self, fd: BorrowedFd<'_>, path: &[u8]) -> Result<()> {
        let stat = fs::fstat(fd).call(|| format!("fstat({})", show(path)))?;
        let mut entry = self.entry(path, Kind::Directory, &stat);
        entry.xattrs = self.xattrs(fd, path)?;
        self.append(&entry, &mut empty())
    }

    fn opaque_mark(&mut self, fd: BorrowedFd<'_>, path: &[u8]) -> Result<()> {
        let mut value = [0; 8];
        if self.options.source != Source::OverlayUpper {
            return Ok(());
        }
        match fs::fgetxattr(fd, "trusted.overlay.opaque", &mut value) {
            Ok(1) if value[0] == b'y' => {
                let entry = Entry::new([path, b".wh..wh..opq"].concat(), Kind::File);
                self.append(&entry, &mut empty())
            }
            // `x` marks directories that may have whiteouts as attributes; the kernel writes it for lower
            // layers only.
            Ok(_) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(()),
            Err(errno) => Err(bale_sys::Error::new(format!("fgetxattr({})", show(path)), errno).into()),
        }
    }

    fn whiteout(&mut self, path: &[u8]) -> Result<()> {
        let at = path.iter().rposition(|&b| b == b'/').map_or(0, |at| at + 1);
        let entry = Entry::new([&path[..at], b".wh.", &path[at..]].concat(), Kind::File);
        self.append(&entry, &mut empty())
    }

    fn leaf(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        kind: Kind,
        fd: &OwnedFd,
        stat: &Stat,
    ) -> Result<()> {
        let mut entry = self.entry(path, kind, stat);
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                entry.kind = Kind::HardLink;
                entry.link.clone_from(first);
                return self.append(&entry, &mut empty());
            }
            self.links.insert((stat.st_dev, stat.st_ino), path.to_vec());
        }
        match kind {
            Kind::Symlink => {
                let target =
                    fs::readlinkat(fd, c"", Vec::new()).call(|| format!("readlinkat({})", show(path)))?;
                entry.link = target.into_bytes();
                self.append(&entry, &mut empty())
            }
            Kind::File => self.file(dir, name, entry),
            _ => {
                entry.device = (fs::major(stat.st_rdev), fs::minor(stat.st_rdev));
                self.append(&entry, &mut empty())
            }
        }
    }

    fn file(&mut self, dir: BorrowedFd<'_>, name: &[u8], mut entry: Entry) -> Result<()> {
        // It may have become a FIFO since it was looked at, hence O_NONBLOCK.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let fd = open(dir, name, flags).call(|| format!("openat2({})", show(&entry.path)))?;
        let stat = fs::fstat(&fd).call(|| format!("fstat({})", show(&entry.path)))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            let words = format!("{} changed while it was read", show(&entry.path));
            return Err(Fault::new(FaultKind::Conflict, words));
        }
        entry.size = u64::try_from(stat.st_size).unwrap_or(0);
        entry.xattrs = self.xattrs(fd.as_fd(), &entry.path)?;
        let mut file = File::from(fd);
        self.append(&entry, &mut file)
    }

    fn entry(&self, path: &[u8], kind: Kind, stat: &Stat) -> Entry {
        let mut entry = Entry::new(path, kind);
        entry.mode = stat.st_mode & 0o7777;
        (entry.uid, entry.gid) = (stat.st_uid, stat.st_gid);
        let nanos = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
        entry.mtime = Timestamp { secs: stat.st_mtime, nanos };
        if let Some(latest) = self.options.clamp_mtime {
            entry.mtime = entry.mtime.min(latest);
        }
        entry
    }

    /// Reads the attributes that a layer may carry, sorted by name.
    fn xattrs(&self, fd: BorrowedFd<'_>, path: &[u8]) -> Result<Vec<Xattr>> {
        let is_overlay = self.options.source == Source::OverlayUpper;
        let Some(mut list) = list_xattrs(fd).call(|| format!("flistxattr({})", show(path)))? else {
            return Ok(Vec::new());
        };
        let foreign = |name: &&Vec<u8>| {
            matches!(name.as_slice(), b"trusted.overlay.redirect" | b"trusted.overlay.metacopy")
        };
        if let Some(name) = list.iter().find(foreign).filter(|_| is_overlay) {
            let words = format!("{} is not complete without the layers below ({})", show(path), show(name));
            return Err(Fault::new(FaultKind::Unsupported, words)
                .hint("mount the overlay with redirect_dir=off and metacopy=off"));
        }
        list.retain(|name| verdict(name, is_overlay) == Verdict::Set);
        list.sort_unstable();
        let mut xattrs = Vec::with_capacity(list.len());
        for name in list {
            let mut value = vec![0; 64 << 10];
            let count = fs::fgetxattr(fd, name.as_slice(), &mut value)
                .call(|| format!("fgetxattr({}, {})", show(path), show(&name)))?;
            value.truncate(count);
            xattrs.push(Xattr { name, value });
        }
        Ok(xattrs)
    }

    fn append(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<()> {
        self.entries += 1;
        self.tar.append(entry, content)
    }
}

fn open(dir: BorrowedFd<'_>, name: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
    fs::openat2(dir, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty(), resolve)
}
