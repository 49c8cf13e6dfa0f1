//! Removing trees, and hiding what lower layers have left.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bale_fault::Result;
use bale_sys::error::Call;
use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::name::Path;
use super::tree::{Missing, Tree};
use crate::fault::show;

impl Tree {
    /// Removes `name` on top with all that is below it; nothing of that name is fine.
    pub(super) fn remove(&mut self, name: &[u8]) -> Result<()> {
        self.touch()?;
        match fs::unlinkat(self.top(), name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => {
                let path = self.child(name);
                remove_tree(self.top(), name).call(|| format!("remove {}", show(&path)))?;
                self.forget(&path);
                Ok(())
            }
            Err(errno) => Err(self.error("unlinkat", name, errno)),
        }
    }

    /// Removes what lower layers have at `name` on top, and keeps what this layer has there.
    pub(super) fn hide(&mut self, name: &[u8]) -> Result<()> {
        if !self.has_written(name) {
            return self.remove(name);
        }
        let path = self.child(name);
        if self.is_directory(name)? { self.hide_below(path) } else { Ok(()) }
    }

    /// Removes what lower layers have below the directory at `path`.
    pub(super) fn hide_below(&mut self, path: Vec<u8>) -> Result<()> {
        let mut coming = vec![path];
        while let Some(path) = coming.pop() {
            let components = Path::parse(&path)?;
            if !self.enter(components.all(), Missing::Stop)? {
                continue;
            }
            for name in names(self.top()).call(|| format!("getdents({})", show(&path)))? {
                if !self.has_written(&name) {
                    self.remove(&name)?;
                } else if self.is_directory(&name)? {
                    coming.push(self.child(&name));
                }
            }
        }
        Ok(())
    }

    fn is_directory(&self, name: &[u8]) -> Result<bool> {
        let stat = self.stat(name)?;
        Ok(stat.is_some_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Directory))
    }
}

/// Lists a directory.
pub(crate) fn names(dir: impl AsFd) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

/// Removes directory `name` with all that is below it, following nothing. Its depth costs no descriptors: the
/// way back is `..`, and it has to lead to the directory that was left.
fn remove_tree(parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
    let mut above: Vec<(Vec<u8>, Identity)> = Vec::new();
    let mut name = name.to_vec();
    let mut dir = open(parent, &name)?;
    loop {
        if let Some(child) = empty(dir.as_fd())? {
            let next = open(dir.as_fd(), &child)?;
            above.push((std::mem::replace(&mut name, child), identity(&dir)?));
            dir = next;
            continue;
        }
        let Some((upper_name, upper)) = above.pop() else {
            return fs::unlinkat(parent, name.as_slice(), AtFlags::REMOVEDIR);
        };
        let back = open(dir.as_fd(), b"..")?;
        if identity(&back)? != upper {
            return Err(Errno::STALE);
        }
        fs::unlinkat(&back, name.as_slice(), AtFlags::REMOVEDIR)?;
        (dir, name) = (back, upper_name);
    }
}

type Identity = (u64, u64);

fn identity(dir: &OwnedFd) -> rustix::io::Result<Identity> {
    let stat = fs::fstat(dir)?;
    Ok((stat.st_dev, stat.st_ino))
}

fn open(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(dir, name, flags, Mode::empty())
}

/// Unlinks everything in `dir` up to the first directory, which is returned.
fn empty(dir: BorrowedFd<'_>) -> rustix::io::Result<Option<Vec<u8>>> {
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        match fs::unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR | Errno::PERM) => return Ok(Some(name.to_bytes().to_vec())),
            Err(errno) => return Err(errno),
        }
    }
    Ok(None)
}
