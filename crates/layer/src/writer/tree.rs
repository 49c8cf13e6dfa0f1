//! Directories by descriptor: a stack from the root to where the archive is, and what is done there.
//!
//! Archives are sorted, so nearly every entry finds its directory open on top. A component is opened with
//! openat2(2) without following anything; a link on the way is read and walked by hand, `..` in it pops the
//! stack, so that nothing outside the root can be reached whatever the links say and whoever else writes.
//! Attributes of directories wait until the end: what is written below a directory changes its times.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use bale_fault::{Fault, Kind, Result};
use bale_sys::error::Call;
use bale_sys::root::RootFd;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::attributes::{Attributes, Owner};
use super::name::Path;
use super::written::Written;
use crate::Table;
use crate::fault::{corrupt, exhausted, show};
use crate::tar::Timestamp;

/// Links followed for one path, as the kernel does.
const LINKS_MAX: u32 = 40;

/// Directories that are kept open; deeper ones are closed and opened again on the way back.
const OPEN_LEVELS: usize = 64;

/// What happens when a directory on the way does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    Create,
    Stop,
}

pub(super) struct Tree {
    root: RootFd,
    levels: Vec<Level>,
    /// Where the top is, without links.
    path: Vec<u8>,
    dirs: BTreeMap<Vec<u8>, Directory>,
    pub(super) is_overlay: bool,
    pub(super) owner: Owner,
    /// What this layer has written; only where lower layers have left something.
    pub(super) written: Option<Written>,
    pub(super) table: Table,
}

struct Level {
    fd: Option<Arc<OwnedFd>>,
    /// Length of the path down to here.
    path_len: usize,
    /// Nothing is inherited from this directory: neither its group nor an ACL.
    is_plain: bool,
    is_touched: bool,
}

/// What is to be done for a directory at the end.
#[derive(Clone, Debug)]
enum Directory {
    /// An entry gives its attributes. `is_fresh`: it has none that would have to go first.
    Named { attributes: Box<Attributes>, is_fresh: bool },
    /// Only a path went through it.
    Implied { is_fresh: bool },
    /// A lower layer's: its times are put back.
    Found { accessed: Timestamp, modified: Timestamp },
}

impl Tree {
    pub(super) fn new(root: RootFd, is_overlay: bool) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = fs::openat(&root, ".", flags, Mode::empty()).call(|| "openat(<layer>, \".\")")?;
        let mut tree = Self {
            root,
            levels: Vec::new(),
            path: Vec::new(),
            dirs: BTreeMap::new(),
            is_overlay,
            owner: Owner::of_process()?,
            written: None,
            table: Table::default(),
        };
        tree.push(fd, b"")?;
        Ok(tree)
    }

    /// Returns the directory on top.
    pub(super) fn top(&self) -> BorrowedFd<'_> {
        self.levels.last().and_then(|level| level.fd.as_ref()).map_or(self.root.as_fd(), AsFd::as_fd)
    }

    /// Returns the directory on top, to be kept while others are entered.
    pub(super) fn top_shared(&self) -> Option<Arc<OwnedFd>> {
        self.levels.last().and_then(|level| level.fd.clone())
    }

    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }

    pub(super) fn child(&self, name: &[u8]) -> Vec<u8> {
        if self.path.is_empty() { name.to_vec() } else { [&self.path, &b"/"[..], name].concat() }
    }

    /// Tells whether what is made on top inherits nothing.
    pub(super) fn is_plain(&self) -> bool {
        self.levels.last().is_some_and(|level| level.is_plain)
    }

    /// Makes the directory `parents` the top; false when it does not exist and is not to be made.
    pub(super) fn enter(&mut self, parents: &[&[u8]], missing: Missing) -> Result<bool> {
        let keep = self.shared(parents);
        self.ascend(keep)?;
        let mut links = 0;
        let mut coming: Vec<Vec<u8>> = Vec::new();
        for name in &parents[keep..] {
            coming.push(name.to_vec());
            while let Some(name) = coming.pop() {
                if name == b".." {
                    self.ascend(self.depth().saturating_sub(1))?;
                    continue;
                }
                match self.descend(&name, missing)? {
                    Step::Entered => {}
                    Step::Missing => return Ok(false),
                    Step::Link(_) if links == LINKS_MAX => return Err(self.loops(&name)),
                    Step::Link(target) => {
                        links += 1;
                        if target.starts_with(b"/") {
                            self.ascend(0)?;
                        }
                        let parts = target.split(|&b| b == b'/').rev().filter(|c| !matches!(*c, b"" | b"."));
                        coming.extend(parts.map(<[u8]>::to_vec));
                        if coming.len() > 4096 {
                            return Err(self.loops(&name));
                        }
                    }
                }
            }
        }
        Ok(true)
    }

    fn loops(&self, name: &[u8]) -> Fault {
        corrupt(format!("{} leads through too many symbolic links", show(&self.child(name))))
    }

    fn depth(&self) -> usize {
        self.levels.len() - 1
    }

    /// Counts how many of `parents` are open already.
    fn shared(&self, parents: &[&[u8]]) -> usize {
        let mut start = 0;
        for (at, (name, level)) in parents.iter().zip(&self.levels[1..]).enumerate() {
            if self.path[start..level.path_len] != **name {
                return at;
            }
            start = level.path_len + 1;
        }
        parents.len().min(self.depth())
    }

    fn ascend(&mut self, depth: usize) -> Result<()> {
        if depth < self.depth() {
            self.levels.truncate(depth + 1);
            self.path.truncate(self.levels[depth].path_len);
        }
        if self.levels[depth].fd.is_none() {
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let fd = fs::openat2(&self.root, self.path.as_slice(), flags, Mode::empty(), resolve)
                .call(|| format!("openat2(<layer>, {})", show(&self.path)))?;
            self.levels[depth].fd = Some(Arc::new(fd));
        }
        Ok(())
    }

    fn descend(&mut self, name: &[u8], missing: Missing) -> Result<Step> {
        match open_dir(self.top(), name) {
            Ok(fd) => self.push(fd, name).map(|()| Step::Entered),
            Err(Errno::NOENT) if missing == Missing::Create => {
                self.make_implied(name)?;
                self.descend_new(name)
            }
            Err(Errno::NOENT) => Ok(Step::Missing),
            Err(Errno::LOOP | Errno::NOTDIR) => self.descend_other(name, missing),
            Err(Errno::XDEV) => {
                Err(Fault::new(Kind::Conflict, format!("{} is a mount point", show(&self.child(name)))))
            }
            Err(errno) => Err(self.error("openat2", name, errno)),
        }
    }

    fn descend_new(&mut self, name: &[u8]) -> Result<Step> {
        let fd = open_dir(self.top(), name).map_err(|errno| self.error("openat2", name, errno))?;
        self.push(fd, name).map(|()| Step::Entered)
    }

    /// Something that is no directory stands on the way.
    fn descend_other(&mut self, name: &[u8], missing: Missing) -> Result<Step> {
        let stat = self.stat(name)?.ok_or_else(|| self.error("statat", name, Errno::NOENT))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            let target = fs::readlinkat(self.top(), name, Vec::new());
            return target
                .map(|target| Step::Link(target.into_bytes()))
                .map_err(|errno| self.error("readlinkat", name, errno));
        }
        let is_hidden = if self.is_overlay { is_whiteout(&stat) } else { !self.has_written(name) };
        match (is_hidden, missing) {
            (false, _) => {
                Err(corrupt(format!("{} is no directory, and an entry is below it", show(&self.child(name)))))
            }
            (true, Missing::Stop) => Ok(Step::Missing),
            (true, Missing::Create) => {
                self.remove(name)?;
                self.make_implied(name)?;
                let step = self.descend_new(name)?;
                if self.is_overlay {
                    self.mark_opaque()?;
                }
                Ok(step)
            }
        }
    }

    fn push(&mut self, fd: OwnedFd, name: &[u8]) -> Result<()> {
        let is_plain = self.is_overlay || is_plain(&fd)?;
        if !self.levels.is_empty() {
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name);
            if self.path.len() >= 4096 {
                return Err(exhausted(format!("a path is longer than 4095 bytes: {}", show(&self.path))));
            }
        }
        let path_len = self.path.len();
        self.levels.push(Level { fd: Some(Arc::new(fd)), path_len, is_plain, is_touched: false });
        if self.levels.len() > OPEN_LEVELS {
            let far = self.levels.len() - OPEN_LEVELS;
            self.levels[far].fd = None;
        }
        Ok(())
    }

    fn make_implied(&mut self, name: &[u8]) -> Result<()> {
        self.touch()?;
        self.mkdir(name, 0o755)?;
        let is_fresh = self.is_plain();
        self.dirs.insert(self.child(name), Directory::Implied { is_fresh });
        Ok(())
    }

    fn mkdir(&self, name: &[u8], mode: u32) -> Result<()> {
        fs::mkdirat(self.top(), name, Mode::from_raw_mode(mode))
            .map_err(|errno| self.error("mkdirat", name, errno))
    }

    /// Makes directory `name` on top, or takes the one that is there; its attributes are set at the end.
    /// Returns whether something else was replaced by it.
    pub(super) fn directory(&mut self, name: &[u8], attributes: Attributes) -> Result<bool> {
        self.touch()?;
        let path = self.child(name);
        let mode = Mode::from_raw_mode(attributes.mode & 0o777);
        let (is_fresh, replaced) = match fs::mkdirat(self.top(), name, mode) {
            Ok(()) => (self.is_plain(), false),
            Err(Errno::EXIST) => self.directory_exists(name, &path)?,
            Err(errno) => return Err(self.error("mkdirat", name, errno)),
        };
        if let Some(written) = &mut self.written {
            written.add(&path);
        }
        self.dirs.insert(path, Directory::Named { attributes: Box::new(attributes), is_fresh });
        Ok(replaced)
    }

    fn directory_exists(&mut self, name: &[u8], path: &[u8]) -> Result<(bool, bool)> {
        let stat = self.stat(name)?.ok_or_else(|| self.error("statat", name, Errno::NOENT))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let is_fresh = match self.dirs.get(path) {
                Some(Directory::Named { is_fresh, .. } | Directory::Implied { is_fresh }) => *is_fresh,
                Some(Directory::Found { .. }) | None => false,
            };
            return Ok((is_fresh, false));
        }
        self.remove(name)?;
        self.mkdir(name, 0o700)?;
        Ok((self.is_plain(), true))
    }

    /// Takes attributes for the root directory.
    pub(super) fn root_entry(&mut self, attributes: Attributes) {
        self.table.has_root_entry = true;
        self.dirs.insert(
            Vec::new(),
            Directory::Named { attributes: Box::new(attributes), is_fresh: self.is_overlay },
        );
    }

    /// Has to be called before the directory on top is changed: remembers its times, and that this layer has
    /// been here.
    pub(super) fn touch(&mut self) -> Result<()> {
        let Some(written) = &mut self.written else { return Ok(()) };
        for level in self.levels.iter_mut().rev() {
            if level.is_touched {
                break;
            }
            level.is_touched = true;
            written.add(&self.path[..level.path_len]);
        }
        if !self.dirs.contains_key(&self.path) {
            let stat = fs::fstat(self.top()).call(|| format!("fstat({})", show(&self.path)))?;
            let accessed = Timestamp { secs: stat.st_atime, nanos: stat.st_atime_nsec as u32 };
            let modified = Timestamp { secs: stat.st_mtime, nanos: stat.st_mtime_nsec as u32 };
            self.dirs.insert(self.path.clone(), Directory::Found { accessed, modified });
        }
        Ok(())
    }

    /// Notes that this layer has `name` on top.
    pub(super) fn note_written(&mut self, name: &[u8]) {
        if self.written.is_some() {
            let path = self.child(name);
            if let Some(written) = &mut self.written {
                written.add(&path);
            }
        }
    }

    pub(super) fn has_written(&self, name: &[u8]) -> bool {
        self.written.as_ref().is_none_or(|written| written.has(&self.child(name)))
    }

    /// Forgets the directories at and below `path`, which were removed.
    pub(super) fn forget(&mut self, path: &[u8]) {
        self.dirs.remove(path);
        let below = [path, b"/"].concat();
        let end = [path, b"0"].concat(); // the byte after the slash
        let gone: Vec<_> = self.dirs.range(below..end).map(|(key, _)| key.clone()).collect();
        for key in gone {
            self.dirs.remove(&key);
        }
    }

    /// Makes `name` on top with `make`; what has the name is removed first.
    pub(super) fn place<T>(
        &mut self,
        call: &str,
        name: &[u8],
        make: impl Fn(BorrowedFd<'_>) -> rustix::io::Result<T>,
    ) -> Result<T> {
        self.touch()?;
        let made = match make(self.top()) {
            Err(Errno::EXIST) => {
                self.remove(name)?;
                make(self.top())
            }
            other => other,
        };
        let made = made.map_err(|errno| self.error(call, name, errno))?;
        self.note_written(name);
        Ok(made)
    }

    pub(super) fn stat(&self, name: &[u8]) -> Result<Option<fs::Stat>> {
        match fs::statat(self.top(), name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.error("fstatat", name, errno)),
        }
    }

    /// Marks the directory on top so that overlayfs hides what is below it.
    pub(super) fn mark_opaque(&mut self) -> Result<()> {
        if self.path.is_empty() {
            self.table.opaque_root = true;
        }
        fs::fsetxattr(self.top(), "trusted.overlay.opaque", b"y", fs::XattrFlags::empty())
            .call(|| format!("fsetxattr({}, \"trusted.overlay.opaque\")", show(&self.path)))?;
        Ok(())
    }

    pub(super) fn error(&self, call: &str, name: &[u8], errno: Errno) -> Fault {
        bale_sys::Error::new(format!("{call}({})", show(&self.child(name))), errno).into()
    }

    pub(super) fn warn(&mut self, path: &[u8], words: impl Into<String>) {
        self.table.warnings.add(path, words);
    }

    /// Sets the attributes of all directories, children before parents, and gives the table away.
    pub(super) fn finish(&mut self) -> Result<Table> {
        // The lowest layer may leave out the root itself; then its time is 0, not that of the unpacking.
        let is_lowest = self.is_overlay || self.written.is_none();
        if is_lowest && !self.dirs.contains_key(&b""[..]) {
            self.dirs.insert(Vec::new(), Directory::Implied { is_fresh: true });
        }
        let dirs = std::mem::take(&mut self.dirs);
        let implied =
            dirs.iter().filter(|(path, dir)| !path.is_empty() && matches!(dir, Directory::Implied { .. }));
        self.table.implied_parents = implied.map(|(path, _)| path.clone()).collect();
        for (path, dir) in dirs.into_iter().rev() {
            let components = Path::parse(&path)?;
            if self.enter(components.all(), Missing::Stop)? {
                self.finish_directory(&path, dir)?;
            }
        }
        self.ascend(0)?;
        Ok(std::mem::take(&mut self.table))
    }

    fn finish_directory(&mut self, path: &[u8], dir: Directory) -> Result<()> {
        let (attributes, is_fresh) = match dir {
            Directory::Named { attributes, is_fresh } => (*attributes, is_fresh),
            Directory::Implied { is_fresh } => (Attributes::implied(), is_fresh),
            Directory::Found { accessed, modified } => {
                let times = super::attributes::times(accessed, modified);
                fs::futimens(self.top(), &times).call(|| format!("futimens({})", show(path)))?;
                return Ok(());
            }
        };
        let clean = !is_fresh && !self.is_overlay;
        let Some(fd) = self.top_shared() else { return Ok(()) };
        attributes.set_on_directory(fd.as_fd(), path, clean, self.is_overlay, &mut self.table.warnings)
    }
}

enum Step {
    Entered,
    Missing,
    Link(Vec<u8>),
}

fn open_dir(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    loop {
        match fs::openat2(dir, name, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
}

/// Tells whether new files in `dir` inherit neither its group nor an ACL.
fn is_plain(dir: &OwnedFd) -> Result<bool> {
    let stat = fs::fstat(dir).call(|| "fstat(<directory>)")?;
    if stat.st_mode & 0o2000 != 0 {
        return Ok(false);
    }
    let acl = fs::fgetxattr_query(dir, "system.posix_acl_default");
    Ok(matches!(acl, Err(Errno::NODATA | Errno::OPNOTSUPP)))
}

/// Tells whether this is a whiteout of overlayfs.
pub(super) fn is_whiteout(stat: &fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}
