//! Files below a root that an attacker may have filled: `RootFd` and `RelPath` are the only way to name them.
//!
//! Every step is resolved by the kernel with openat2(2), never by comparing strings (runc's 2021-30465, 2025-31133
//! and their kin). What is missing is created step by step below a descriptor, never by path.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{self, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::{Call, Error, Result};

/// A path below a root: no leading slash, no empty, `.` or `..` component; empty means the root itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelPath(Vec<CString>);

/// The path cannot be used below a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidRelPath(String);

impl std::fmt::Display for InvalidRelPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} has a component that is \"..\", longer than 255 bytes, or holds a NUL byte", self.0)
    }
}

impl std::error::Error for InvalidRelPath {}

impl RelPath {
    /// Reads `path` as if its root were `/`: leading slashes, `.` and empty components are dropped.
    ///
    /// # Errors
    /// A `..` component, a NUL byte, or a component longer than 255 bytes.
    pub fn new(path: impl AsRef<[u8]>) -> std::result::Result<Self, InvalidRelPath> {
        let path = path.as_ref();
        let fail = || InvalidRelPath(String::from_utf8_lossy(&path[..path.len().min(200)]).into_owned());
        let mut components = Vec::new();
        for component in path.split(|&b| b == b'/') {
            match component {
                b"" | b"." => {}
                b".." => return Err(fail()),
                _ if component.len() > 255 => return Err(fail()),
                _ => components.push(CString::new(component).map_err(|_| fail())?),
            }
        }
        Ok(Self(components))
    }

    /// Reads `path` and folds `..` in words, as a container's own `/` would answer: `/a/../../b` is `b`.
    ///
    /// # Errors
    /// A NUL byte, or a component longer than 255 bytes.
    pub fn clamped(path: impl AsRef<[u8]>) -> std::result::Result<Self, InvalidRelPath> {
        let path = path.as_ref();
        let mut kept: Vec<&[u8]> = Vec::new();
        for component in path.split(|&b| b == b'/') {
            match component {
                b"" | b"." => {}
                b".." => {
                    kept.pop();
                }
                _ => kept.push(component),
            }
        }
        Self::new(kept.join(&b'/'))
    }

    /// Returns the components.
    #[must_use]
    pub fn components(&self) -> &[CString] {
        &self.0
    }

    /// Tells whether this is the root itself.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the path as bytes, components joined by `/`, without a leading one; `.` for the root.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        if self.0.is_empty() {
            return b".".to_vec();
        }
        self.0.iter().map(|c| c.as_bytes()).collect::<Vec<_>>().join(&b'/')
    }

    /// Splits off the last component; `None` for the root.
    #[must_use]
    pub fn split_last(&self) -> Option<(Self, &CString)> {
        let (last, parents) = self.0.split_last()?;
        Some((Self(parents.to_vec()), last))
    }
}

impl std::fmt::Display for RelPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "/{}",
            String::from_utf8_lossy(&if self.0.is_empty() { Vec::new() } else { self.to_bytes() })
        )
    }
}

/// A directory that everything below is named from.
#[derive(Debug)]
pub struct RootFd(OwnedFd);

/// How symbolic links on the way are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// Followed, as if the root were `/`; magic links of procfs never.
    InRoot,
    /// Refused with `ELOOP`.
    Refused,
}

impl Links {
    fn resolve(self) -> ResolveFlags {
        let base = ResolveFlags::NO_MAGICLINKS;
        match self {
            Self::InRoot => base | ResolveFlags::IN_ROOT,
            Self::Refused => base | ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
        }
    }
}

impl RootFd {
    /// Opens a directory of the host as a root. `path` is the caller's own, not an attacker's.
    ///
    /// # Errors
    /// The failed open.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        fs::open(path, flags, Mode::empty()).call(|| format!("open({path:?}, O_PATH|O_DIRECTORY)")).map(Self)
    }

    /// Takes a directory that is open already.
    #[must_use]
    pub const fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Opens `path` below the root with `flags` (`O_CLOEXEC` is added; without `O_PATH` give `O_NONBLOCK` for what
    /// may be a FIFO). `O_CREAT` is not for here: see [`RootFd::create`].
    ///
    /// # Errors
    /// The failed openat2.
    pub fn open_at(&self, path: &RelPath, flags: OFlags, links: Links) -> Result<OwnedFd> {
        let bytes = path.to_bytes();
        loop {
            match fs::openat2(
                &self.0,
                bytes.as_slice(),
                flags | OFlags::CLOEXEC,
                Mode::empty(),
                links.resolve(),
            ) {
                // The kernel answers EAGAIN when a rename raced with the walk.
                Err(Errno::AGAIN) => {}
                other => {
                    return other
                        .call(|| format!("openat2(<root>, {:?}, {flags:?}, {links:?})", path.to_string()));
                }
            }
        }
    }

    /// Opens `path` below the root as a new root.
    ///
    /// # Errors
    /// The failed openat2, `ENOTDIR` among them.
    pub fn subdir(&self, path: &RelPath, links: Links) -> Result<Self> {
        self.open_at(path, OFlags::PATH | OFlags::DIRECTORY, links).map(Self)
    }

    /// Creates the directory `path` and what is missing above it, one `mkdirat` at a time, and opens it.
    /// Links in the part that exists are followed inside the root.
    ///
    /// # Errors
    /// The failed call; `ENOTDIR` when something else is in the way.
    pub fn mkdir_all(&self, path: &RelPath, mode: Mode) -> Result<Self> {
        if let Ok(existing) = self.subdir(path, Links::InRoot) {
            return Ok(existing);
        }
        let mut known = RelPath(Vec::new());
        let mut dir = self.subdir(&known, Links::InRoot)?;
        for component in path.components() {
            known.0.push(component.clone());
            dir = match self.subdir(&known, Links::InRoot) {
                Ok(next) => next,
                Err(error) if error.errno() == Errno::NOENT => {
                    match fs::mkdirat(&dir.0, component.as_c_str(), mode) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(errno) => {
                            return Err(Error::new(
                                format!("mkdirat(<root>, {:?})", known.to_string()),
                                errno,
                            ));
                        }
                    }
                    let own = RelPath(vec![component.clone()]);
                    dir.subdir(&own, Links::Refused)?
                }
                Err(error) => return Err(error),
            };
        }
        Ok(dir)
    }

    /// Creates a regular file that does not exist yet, `O_EXCL` and `O_NOFOLLOW`; its parent must exist.
    ///
    /// # Errors
    /// The failed call; `EEXIST` also when a dangling link has the name.
    pub fn create(&self, path: &RelPath, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
        let call = || format!("openat(<root>, {:?}, O_CREAT|O_EXCL)", path.to_string());
        let Some((parent, name)) = path.split_last() else { return Err(Error::new(call(), Errno::ISDIR)) };
        let parent = self.subdir(&parent, Links::InRoot)?;
        let flags = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        fs::openat(&parent.0, name.as_c_str(), flags, mode).call(call)
    }
}

impl AsFd for RootFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<RootFd> for OwnedFd {
    fn from(root: RootFd) -> Self {
        root.0
    }
}

/// Opens a path of the host with `O_PATH`, following links: for what the user named on the command line.
///
/// # Errors
/// The failed open.
pub fn open_host(path: impl AsRef<Path>) -> Result<OwnedFd> {
    let path = path.as_ref();
    fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).call(|| format!("open({path:?}, O_PATH)"))
}

impl TryFrom<&Path> for RelPath {
    type Error = InvalidRelPath;

    fn try_from(path: &Path) -> std::result::Result<Self, InvalidRelPath> {
        Self::new(path.as_os_str().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cut_into_components() {
        assert_eq!(RelPath::new("/a//./b/").map(|p| p.to_string()), Ok("/a/b".to_owned()));
        assert_eq!(RelPath::clamped("/a/../../b").map(|p| p.to_string()), Ok("/b".to_owned()));
        assert!(
            RelPath::new("a/../b").is_err()
                && RelPath::new("a\0").is_err()
                && RelPath::new("x".repeat(256)).is_err()
        );
        assert!(RelPath::new("/").is_ok_and(|p| p.is_root()));
    }

    #[test]
    fn links_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/../../../etc", dir.path().join("out")).unwrap();
        let root = RootFd::open(dir.path()).unwrap();
        let path = RelPath::new("out/passwd").unwrap();
        let error = root.open_at(&path, OFlags::PATH, Links::InRoot).unwrap_err();
        assert_eq!(error.errno(), Errno::NOENT);
        let error = root.open_at(&path, OFlags::PATH, Links::Refused).unwrap_err();
        assert_eq!(error.errno(), Errno::LOOP);
        root.mkdir_all(&RelPath::new("a/b/c").unwrap(), Mode::from_raw_mode(0o755)).unwrap();
        assert!(dir.path().join("a/b/c").is_dir());
    }
}
