//! The file tree as the container will see it: the root file system with bind mounts over it.

use std::os::fd::OwnedFd;
use std::path::Path;

use bale_spec::options::mount::clean;
use bale_spec::runtime::{Mount, NamespaceKind, RuntimeConfig};
use bale_spec::validate::{Findings, Path as JsonPath};
use bale_sys::error::Call;
use bale_sys::root::{Links, RelPath, RootFd};
use rustix::fs::{self, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::open::Files;
use crate::rootfs::readable;

/// What a container's path leads to.
pub(super) enum Found {
    /// A file or directory.
    There(OwnedFd, Box<Stat>),
    /// Nothing, or something that cannot be opened.
    Missing(Errno),
    /// A file system that is made at the start lies over it.
    Unknown,
}

pub(super) struct View<'a> {
    files: &'a Files,
    root: RootFd,
    mounts: Vec<&'a Mount>,
    /// Ids on disk are not those in the container, so that rights cannot be told.
    pub(super) mapped: bool,
}

impl<'a> View<'a> {
    pub(super) fn new(files: &'a Files, root: RootFd, config: &'a RuntimeConfig) -> Self {
        let linux = config.linux.as_ref();
        let mapped = linux.is_some_and(|l| l.namespaces.iter().any(|n| n.kind == NamespaceKind::User));
        Self { files, root, mounts: config.mounts.iter().collect(), mapped }
    }

    /// Opens an absolute path of the container, with `read` for reading.
    pub(super) fn open(&self, path: &str, read: bool) -> Found {
        match self.find(path) {
            Found::There(fd, stat) if read => match readable(&fd, path) {
                Ok(fd) => Found::There(fd, stat),
                Err(error) => Found::Missing(error.errno()),
            },
            other => other,
        }
    }

    fn find(&self, path: &str) -> Found {
        let path = clean(path);
        let Some((mount, below)) = self.mount_over(&path) else {
            return opened(open_at(&self.root, &path, OFlags::PATH));
        };
        if !mount.options.iter().any(|o| o == "bind" || o == "rbind") {
            return Found::Unknown;
        }
        let source = mount.source.as_deref().unwrap_or_default();
        if below.is_empty() {
            return opened(open_source(self.files, source, OFlags::PATH));
        }
        match open_source(self.files, source, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(fd) => opened(open_at(&RootFd::from_fd(fd), &below, OFlags::PATH)),
            Err(errno) => Found::Missing(errno),
        }
    }

    /// Tells whether a mount lies over the path.
    pub(super) fn is_mounted(&self, path: &str) -> bool {
        self.mount_over(&clean(path)).is_some()
    }

    /// The mount that a path is in, and the path below it. The last of equals is on top.
    fn mount_over(&self, path: &str) -> Option<(&'a Mount, String)> {
        let below = |mount: &&'a Mount| {
            let destination = clean(&mount.destination);
            let rest = path.strip_prefix(destination.as_str())?;
            (rest.is_empty() || rest.starts_with('/')).then(|| (destination.len(), *mount, rest.to_owned()))
        };
        let covering = self.mounts.iter().filter_map(below);
        covering.max_by_key(|(length, _, _)| *length).map(|(_, mount, rest)| (mount, rest))
    }

    /// Names in a directory, for did-you-mean; few of them, and none on failure.
    pub(super) fn names(&self, directory: &str) -> Vec<String> {
        let Found::There(fd, _) = self.open(directory, true) else { return Vec::new() };
        let Ok(entries) = fs::Dir::read_from(&fd) else { return Vec::new() };
        let names = entries.take(10_000).filter_map(|e| Some(e.ok()?.file_name().to_str().ok()?.to_owned()));
        names.filter(|n| n != "." && n != "..").collect()
    }
}

fn opened(outcome: Result<OwnedFd, Errno>) -> Found {
    match outcome.and_then(|fd| fs::fstat(&fd).map(|stat| (fd, stat))) {
        Ok((fd, stat)) => Found::There(fd, Box::new(stat)),
        Err(errno) => Found::Missing(errno),
    }
}

fn open_at(root: &RootFd, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let below = RelPath::clamped(path).map_err(|_| Errno::INVAL)?;
    root.open_at(&below, flags, Links::InRoot).map_err(|e| e.errno())
}

/// Opens the source of a bind mount as the runtime does: on the host, relative to the bundle.
fn open_source(files: &Files, source: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::CLOEXEC;
    if source.starts_with('/') {
        return fs::open(Path::new(source), flags, Mode::empty());
    }
    fs::openat(files.dir(), source, flags, Mode::empty())
}

/// Tells whether a directory has no entries.
pub(super) fn is_empty(root: &RootFd) -> bale_sys::Result<bool> {
    let here = RelPath::new("").map_err(|_| bale_sys::Error::new("open(<rootfs>)", Errno::INVAL))?;
    let fd = root.open_at(&here, OFlags::RDONLY | OFlags::DIRECTORY, Links::Refused)?;
    let mut entries = fs::Dir::read_from(&fd).call(|| "getdents(<rootfs>)")?;
    Ok(!entries.any(|e| e.is_ok_and(|e| e.file_name() != c"." && e.file_name() != c"..")))
}

/// Finds bind mounts of what is not there.
pub(super) fn binds(findings: &mut Findings, files: &Files, config: &RuntimeConfig) {
    for (index, mount) in config.mounts.iter().enumerate() {
        let is_bind = mount.options.iter().any(|o| o == "bind" || o == "rbind");
        let Some(source) = mount.source.as_deref().filter(|s| is_bind && !s.is_empty()) else { continue };
        if let Err(errno) = open_source(files, source, OFlags::PATH) {
            let at = JsonPath::of("mounts").index(index).key("source");
            let words = bale_sys::error::words(errno);
            findings.error("bind-source", &at, format!("{source:?} cannot be mounted: {words}"));
            findings.hint("make it, or take the mount away");
        }
    }
}

/// Tells whether it is a directory.
pub(super) fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}
