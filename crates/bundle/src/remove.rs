//! Removing a tree by descriptor: nothing in it is followed.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

use bale_sys::Result;
use bale_sys::error::Call;
use rustix::fs::{self, AtFlags, Mode, OFlags};
use rustix::io::Errno;

/// Removes the directory `name` of `parent` and all below it. Another one at the same work is no failure.
pub(crate) fn tree(parent: impl AsFd, name: &CStr) -> Result<()> {
    // A stack instead of recursion: the depth is the stranger's.
    let mut open: Vec<(OwnedFd, CString)> = Vec::new();
    let Some(top) = enter(parent.as_fd(), name)? else { return Ok(()) };
    open.push((top, name.to_owned()));
    while let Some((dir, own_name)) = open.pop() {
        match next_directory(&dir)? {
            Some((child, child_name)) => {
                open.push((dir, own_name));
                open.push((child, child_name));
            }
            None => {
                let above = open.last().map_or(parent.as_fd(), |(fd, _)| fd.as_fd());
                gone(fs::unlinkat(above, own_name.as_c_str(), AtFlags::REMOVEDIR), &own_name)?;
            }
        }
    }
    Ok(())
}

/// Removes the files of `dir` until a directory that is not empty comes, which is opened.
fn next_directory(dir: &OwnedFd) -> Result<Option<(OwnedFd, CString)>> {
    let entries = fs::Dir::read_from(dir).call(|| "getdents(<bundle>)")?;
    for entry in entries {
        let entry = entry.call(|| "getdents(<bundle>)")?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        match fs::unlinkat(dir, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => {}
            other => {
                gone(other, name)?;
                continue;
            }
        }
        match fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY) => {
                if let Some(child) = enter(dir.as_fd(), name)? {
                    return Ok(Some((child, name.to_owned())));
                }
            }
            other => gone(other, name)?,
        }
    }
    Ok(None)
}

fn enter(parent: std::os::fd::BorrowedFd<'_>, name: &CStr) -> Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match fs::openat(parent, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => Ok(None),
        other => other.call(|| format!("openat({name:?})")).map(Some),
    }
}

fn gone(outcome: rustix::io::Result<()>, name: &CStr) -> Result<()> {
    match outcome {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(bale_sys::Error::new(format!("unlinkat({name:?})"), errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deep_tree_goes_and_what_links_point_to_stays() {
        let dir = tempfile::tempdir().unwrap();
        let keep = dir.path().join("keep");
        std::fs::write(&keep, "x").unwrap();
        let mut deep = dir.path().join("t");
        for _ in 0..200 {
            deep.push("d");
        }
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(deep.join("f"), "x").unwrap();
        std::os::unix::fs::symlink(dir.path(), deep.join("out")).unwrap();
        let parent = std::fs::File::open(dir.path()).unwrap();
        tree(&parent, c"t").unwrap();
        assert!(keep.exists() && !dir.path().join("t").exists());
        tree(&parent, c"t").unwrap();
    }
}
