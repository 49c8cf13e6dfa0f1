//! Files below the container's root, by descriptor, without allocating.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, RawDir, ResolveFlags, Uid};
use rustix::io::Errno;

use super::execute::at;
use super::report::{Call, Failure};
use crate::plan::op::Target;

/// What a target has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// There already.
    Existing,
    /// There already; a link is itself what is meant. Not on a file system of the kernel's own.
    ExistingNoFollow,
    /// A directory, made if absent.
    Directory,
    /// A directory reached without any link, made if absent.
    DirectoryNoLinks,
    /// Anything but a directory, made as an empty file if absent.
    File,
}

const IN_ROOT: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);
const NO_LINKS: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS).union(ResolveFlags::NO_SYMLINKS);

fn open_below(
    root: BorrowedFd<'_>,
    path: &CStr,
    flags: OFlags,
    resolve: ResolveFlags,
) -> rustix::io::Result<OwnedFd> {
    loop {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // A rename elsewhere raced with the walk.
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Opens a target with `O_PATH`, making it if it has to be.
pub fn open_target(root: BorrowedFd<'_>, target: &Target, want: Want) -> Result<OwnedFd, Failure> {
    let resolve = if want == Want::DirectoryNoLinks { NO_LINKS } else { IN_ROOT };
    let mut flags = OFlags::PATH;
    if want == Want::ExistingNoFollow {
        return open_link(root, target);
    }
    if matches!(want, Want::Directory | Want::DirectoryNoLinks) {
        flags |= OFlags::DIRECTORY;
    }
    match open_below(root, &target.path, flags, resolve) {
        Err(Errno::NOENT) if want != Want::Existing => {
            make_target(root, target, want, resolve).map_err(at(Call::MakeTarget))
        }
        other => other.map_err(at(Call::OpenTarget)),
    }
}

/// Opens a target that may be a link (`dest-nofollow`). In procfs, sysfs and devpts links are the kernel's.
fn open_link(root: BorrowedFd<'_>, target: &Target) -> Result<OwnedFd, Failure> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW;
    let found = open_below(root, &target.path, flags, IN_ROOT).map_err(at(Call::OpenTarget))?;
    let kind = rustix::fs::fstatfs(&found).map_err(at(Call::OpenTarget))?.f_type;
    const SYSFS: i64 = 0x6265_6572;
    const DEVPTS: i64 = 0x1cd1;
    if kind == rustix::fs::PROC_SUPER_MAGIC || kind == SYSFS || kind == DEVPTS {
        return Err(at(Call::OpenTarget)(Errno::PERM));
    }
    Ok(found)
}

/// Opens a target with `O_PATH` if it exists.
pub fn open_if_there(root: BorrowedFd<'_>, target: &Target) -> Result<Option<OwnedFd>, Failure> {
    match open_below(root, &target.path, OFlags::PATH, IN_ROOT) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(at(Call::OpenTarget)(errno)),
    }
}

/// Returns the permission bits of a directory below the root, if it is there.
pub fn mode_if_there(root: BorrowedFd<'_>, target: &Target) -> Result<Option<u32>, Failure> {
    let Some(fd) = open_if_there(root, target)? else { return Ok(None) };
    let stat = rustix::fs::fstat(&fd).map_err(at(Call::OpenTarget))?;
    let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    Ok(is_directory.then_some(stat.st_mode & 0o7777))
}

/// Writes permission bits as `0755` and a zero byte: nothing is allocated here.
pub fn octal(mode: u32) -> [u8; 5] {
    let digit = |shift: u32| b'0' + (mode >> shift & 7) as u8;
    [digit(9), digit(6), digit(3), digit(0), 0]
}

/// Opens a directory below the root with `O_PATH`.
pub fn open_directory(root: BorrowedFd<'_>, path: &CStr) -> rustix::io::Result<OwnedFd> {
    open_below(root, path, OFlags::PATH | OFlags::DIRECTORY, IN_ROOT)
}

/// Makes a target component by component, each below the descriptor of the one before.
fn make_target(
    root: BorrowedFd<'_>,
    target: &Target,
    want: Want,
    resolve: ResolveFlags,
) -> rustix::io::Result<OwnedFd> {
    let mut parent: Option<OwnedFd> = None;
    let last = target.names.len().saturating_sub(1);
    for (index, (prefix, name)) in target.prefixes.iter().zip(&target.names).enumerate() {
        let is_file = index == last && want == Want::File;
        let flags = if is_file { OFlags::PATH } else { OFlags::PATH | OFlags::DIRECTORY };
        let next = match open_below(root, prefix, flags, resolve) {
            Ok(next) => next,
            Err(Errno::NOENT) => {
                let above = parent.as_ref().map_or(root, AsFd::as_fd);
                make_one(root, above, prefix, name, is_file)?
            }
            Err(errno) => return Err(errno),
        };
        parent = Some(next);
    }
    parent.ok_or(Errno::NOENT)
}

fn make_one(
    root: BorrowedFd<'_>,
    parent: BorrowedFd<'_>,
    prefix: &CStr,
    name: &CStr,
    is_file: bool,
) -> rustix::io::Result<OwnedFd> {
    let flags = if is_file { OFlags::PATH } else { OFlags::PATH | OFlags::DIRECTORY };
    let made = if is_file {
        let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(parent, name, create, Mode::from_raw_mode(0o644)).map(drop)
    } else {
        rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))
    };
    match made {
        Ok(()) => open_below(parent, name, flags, NO_LINKS),
        // A link to nothing has the name: what it points to is made, still inside the root.
        Err(Errno::EXIST) => make_behind_link(root, prefix, is_file, flags),
        Err(errno) => Err(errno),
    }
}

/// Makes what a dangling link points to: the kernel resolves it inside the root. A directory behind a link, or a
/// link to where the parent is missing too, stays an error.
fn make_behind_link(
    root: BorrowedFd<'_>,
    prefix: &CStr,
    is_file: bool,
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    if is_file {
        let create = OFlags::WRONLY | OFlags::CREATE | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::openat2(root, prefix, create, Mode::from_raw_mode(0o644), IN_ROOT)?;
    }
    open_below(root, prefix, flags, IN_ROOT)
}

/// Makes a device node and checks it; one that is there already must be the same device.
pub fn node(
    parent: BorrowedFd<'_>,
    name: &CStr,
    mode: u32,
    device: u64,
    (uid, gid): (u32, u32),
) -> Result<(), Failure> {
    let kind = FileType::from_raw_mode(mode);
    match rustix::fs::mknodat(parent, name, kind, Mode::from_raw_mode(mode & 0o7777), device) {
        Ok(()) => {}
        Err(Errno::EXIST) => {
            let stat =
                rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(at(Call::Mknod))?;
            let same = FileType::from_raw_mode(stat.st_mode) == kind
                && (stat.st_rdev == device || kind == FileType::Fifo);
            return if same { Ok(()) } else { Err(at(Call::NotTheDevice)(Errno::EXIST)) };
        }
        Err(errno) => return Err(at(Call::Mknod)(errno)),
    }
    if uid == 0 && gid == 0 {
        return Ok(());
    }
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(parent, name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), flags)
        .map_err(at(Call::Chown))
}

/// Makes a symbolic link; what else has the name is replaced, unless it is a directory.
pub fn link(parent: BorrowedFd<'_>, name: &CStr, to: &CStr) -> Result<(), Failure> {
    match rustix::fs::symlinkat(to, parent, name) {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) => {
            rustix::fs::unlinkat(parent, name, AtFlags::empty()).map_err(at(Call::Symlink))?;
            rustix::fs::symlinkat(to, parent, name).map_err(at(Call::Symlink))
        }
        Err(errno) => Err(at(Call::Symlink)(errno)),
    }
}

/// Makes a symbolic link; one that is there already must have the same content.
pub fn same_link(parent: BorrowedFd<'_>, name: &CStr, to: &CStr) -> Result<(), Failure> {
    match rustix::fs::symlinkat(to, parent, name) {
        Err(Errno::EXIST) => {}
        made => return made.map_err(at(Call::Symlink)),
    }
    let mut space = [MaybeUninit::<u8>::uninit(); 4096];
    let same = rustix::fs::readlinkat_raw(parent, name, &mut space).is_ok_and(|(c, _)| *c == *to.to_bytes());
    if same { Ok(()) } else { Err(at(Call::Symlink)(Errno::EXIST)) }
}

/// Opens the terminal multiplexer of the container's devpts. What is there is looked at first: the root file system may
/// have another device of that name, and opening one has effects.
pub fn open_multiplexer(root: BorrowedFd<'_>, proc: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    let found = match open_below(root, c"dev/pts/ptmx", OFlags::PATH, NO_LINKS) {
        Err(Errno::NOENT) => open_below(root, c"dev/ptmx", OFlags::PATH, IN_ROOT),
        other => other,
    };
    let found = found.map_err(at(Call::Open))?;
    let stat = rustix::fs::fstat(&found).map_err(at(Call::Open))?;
    let is_ptmx = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_rdev == rustix::fs::makedev(5, 2);
    if !is_ptmx {
        return Err(at(Call::NotTheDevice)(Errno::NODEV));
    }
    bale_sys::file::reopen(proc, &found, OFlags::RDWR | OFlags::NOCTTY).map_err(at(Call::Open))
}

/// Opens `/dev/console` to mount on it, made as an empty file if absent; links are refused.
pub fn open_console(root: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    let dev =
        open_below(root, c"dev", OFlags::PATH | OFlags::DIRECTORY, IN_ROOT).map_err(at(Call::OpenTarget))?;
    let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(&dev, c"console", create, Mode::from_raw_mode(0o600)) {
        Ok(_) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(at(Call::MakeTarget)(errno)),
    }
    open_below(dev.as_fd(), c"console", OFlags::PATH | OFlags::NOFOLLOW, NO_LINKS)
        .map_err(at(Call::OpenTarget))
}

/// Writes to a file of the host's procfs.
pub fn write_host(proc: BorrowedFd<'_>, path: &CStr, value: &[u8], lenient: bool) -> Result<(), Failure> {
    let refused = |errno: &Errno| lenient && matches!(*errno, Errno::ACCESS | Errno::PERM);
    let file = match rustix::fs::openat(proc, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
        Err(errno) if refused(&errno) => return Ok(()),
        other => other.map_err(at(Call::Open))?,
    };
    match rustix::io::write(&file, value) {
        Err(errno) if !refused(&errno) => Err(at(Call::Write)(errno)),
        _ => Ok(()),
    }
}

/// Opens the first of `paths` below the host's procfs that exists, for writing.
pub fn open_first(proc: BorrowedFd<'_>, paths: &[CString]) -> Result<OwnedFd, Failure> {
    let mut last = Errno::NOENT;
    for path in paths {
        match rustix::fs::openat(proc, path.as_c_str(), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fd) => return Ok(fd),
            Err(errno) => last = errno,
        }
    }
    Err(at(Call::Open)(last))
}

/// How deep `tmpcopyup` goes: each level holds two descriptors and a buffer on the stack.
const COPY_DEPTH: usize = 64;

/// Copies the tree below `from` to the new file system `to`: owners, modes, links; devices and sockets are left out.
pub fn copy_up(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Failure> {
    let from =
        open_below(from, c".", OFlags::RDONLY | OFlags::DIRECTORY, NO_LINKS).map_err(at(Call::CopyUp))?;
    let stat = rustix::fs::fstat(&from).map_err(at(Call::CopyUp))?;
    let owner = (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
    rustix::fs::chownat(to, c"", owner.0, owner.1, AtFlags::EMPTY_PATH).map_err(at(Call::CopyUp))?;
    let to = open_below(to, c".", OFlags::RDONLY | OFlags::DIRECTORY, NO_LINKS).map_err(at(Call::CopyUp))?;
    rustix::fs::fchmod(&to, Mode::from_raw_mode(stat.st_mode & 0o7777)).map_err(at(Call::CopyUp))?;
    copy_directory(from.as_fd(), to.as_fd(), 0).map_err(at(Call::CopyUp))
}

fn copy_directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: usize) -> rustix::io::Result<()> {
    if depth > COPY_DEPTH {
        return Err(Errno::LOOP);
    }
    let mut space = [MaybeUninit::<u8>::uninit(); 2048];
    let mut entries = RawDir::new(from, &mut space);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        copy_entry(from, to, name, depth)?;
    }
    Ok(())
}

fn copy_entry(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, depth: usize) -> rustix::io::Result<()> {
    let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let source = open_below(from, name, OFlags::RDONLY | OFlags::DIRECTORY, NO_LINKS)?;
            rustix::fs::mkdirat(to, name, mode)?;
            let target = open_below(to, name, OFlags::RDONLY | OFlags::DIRECTORY, NO_LINKS)?;
            copy_directory(source.as_fd(), target.as_fd(), depth + 1)?;
        }
        FileType::RegularFile => {
            let source = open_below(from, name, OFlags::RDONLY | OFlags::NONBLOCK, NO_LINKS)?;
            let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let target = rustix::fs::openat(to, name, create, mode)?;
            while rustix::fs::sendfile(&target, &source, None, 1 << 20)? > 0 {}
        }
        FileType::Symlink => {
            let mut space = [MaybeUninit::<u8>::uninit(); 4096];
            let (content, rest) = rustix::fs::readlinkat_raw(from, name, &mut space)?;
            let length = content.len();
            rest.first_mut().ok_or(Errno::NAMETOOLONG)?.write(0);
            let mut text = [0_u8; 4096];
            text[..length].copy_from_slice(content);
            let link = CStr::from_bytes_until_nul(&text).map_err(|_| Errno::NAMETOOLONG)?;
            rustix::fs::symlinkat(link, to, name)?;
        }
        _ => return Ok(()),
    }
    let owner = (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
    rustix::fs::chownat(to, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)
}
