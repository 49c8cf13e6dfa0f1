//! Removing a tree that strangers filled: by descriptors, never following links, in bounded memory and descriptors.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Call, Error, Result};

/// Directories deeper than this are first moved up, so that a deep tree costs no more descriptors than this.
const DEPTH_LIMIT: u32 = 100;

/// Removes `name` in `dir` and everything below it. That it does not exist is no failure, nor that another one removes it
/// at the same time.
///
/// # Errors
/// The first failed call; what could not be removed stays.
pub fn remove_tree(dir: impl AsFd, name: &CStr) -> Result<()> {
    let dir = dir.as_fd();
    match unlink(dir, name)? {
        Gone::Yes => return Ok(()),
        Gone::IsDirectory => {}
    }
    let Some(top) = open(dir, name)? else { return Ok(()) };
    let mut remover = Remover { top: top.as_fd(), moved: 0, waiting: Vec::new() };
    remover.empty(top.as_fd(), 0)?;
    while let Some(next) = remover.waiting.pop() {
        let Some(deeper) = open(remover.top, &next)? else { continue };
        remover.empty(deeper.as_fd(), 1)?;
        drop(deeper);
        rmdir(remover.top, &next)?;
    }
    rmdir(dir, name)
}

struct Remover<'a> {
    top: BorrowedFd<'a>,
    moved: u64,
    waiting: Vec<CString>,
}

impl Remover<'_> {
    fn empty(&mut self, dir: BorrowedFd<'_>, depth: u32) -> Result<()> {
        for name in entries(dir)? {
            // What was moved up waits for its turn at the end.
            if depth == 0 && self.waiting.contains(&name) {
                continue;
            }
            if unlink(dir, &name)? == Gone::Yes {
                continue;
            }
            if depth >= DEPTH_LIMIT {
                self.move_up(dir, &name)?;
                continue;
            }
            let Some(below) = open(dir, &name)? else { continue };
            self.empty(below.as_fd(), depth + 1)?;
            drop(below);
            rmdir(dir, &name)?;
        }
        Ok(())
    }

    fn move_up(&mut self, dir: BorrowedFd<'_>, name: &CStr) -> Result<()> {
        loop {
            self.moved += 1;
            let target = CString::new(format!(".bale-removed-{}", self.moved)).unwrap_or_default();
            let flags = rustix::fs::RenameFlags::NOREPLACE;
            match rustix::fs::renameat_with(dir, name, self.top, target.as_c_str(), flags) {
                Ok(()) => {
                    self.waiting.push(target);
                    return Ok(());
                }
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(Error::new(format!("renameat2({name:?})"), errno)),
            }
        }
    }
}

fn open(dir: BorrowedFd<'_>, name: &CStr) -> Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => Ok(None),
        other => other.call(|| format!("openat({name:?}, O_DIRECTORY)")).map(Some),
    }
}

fn entries(dir: BorrowedFd<'_>) -> Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir).call(|| "open directory stream")? {
        let entry = entry.call(|| "getdents64")?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

#[derive(PartialEq, Eq)]
enum Gone {
    Yes,
    IsDirectory,
}

fn unlink(dir: BorrowedFd<'_>, name: &CStr) -> Result<Gone> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(Gone::Yes),
        Err(Errno::ISDIR | Errno::PERM) => Ok(Gone::IsDirectory),
        Err(errno) => Err(Error::new(format!("unlinkat({name:?})"), errno)),
    }
}

fn rmdir(dir: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(Error::new(format!("unlinkat({name:?}, AT_REMOVEDIR)"), errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deep_trees_and_links_are_removed_and_nothing_outside() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("kept"), "x").unwrap();
        let root = OwnedFd::from(crate::root::RootFd::open(dir.path()).unwrap());
        rustix::fs::mkdirat(&root, "tree", 0o755.into()).unwrap();
        let mut at = open(root.as_fd(), c"tree").unwrap().unwrap();
        for _ in 0..3000 {
            rustix::fs::symlinkat("../../outside", &at, "link").ok();
            rustix::fs::mkdirat(&at, "d", 0o700.into()).unwrap();
            at = open(at.as_fd(), c"d").unwrap().unwrap();
        }
        // As deep as a layer may be, with as few descriptors as a shell gives.
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(400), ..limit }).unwrap();
        let removed = remove_tree(&root, c"tree");
        setrlimit(Resource::Nofile, limit).unwrap();
        removed.unwrap();
        remove_tree(&root, c"tree").unwrap();
        assert!(!dir.path().join("tree").exists());
        assert!(outside.join("kept").exists());
    }
}
