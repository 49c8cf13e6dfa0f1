//! The binary, sealed: whatever enters a container runs from an image of bale that nobody can write (CVE-2019-5736).
//!
//! A read-only overlay of the binary's directory: it costs no copy, and even a process with CAP_SYS_ADMIN that gets
//! hold of `/proc/<pid>/exe` cannot make it writable. Where overlay is refused, a sealed memfd.

use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use crate::error::{Call, Error, Result};
use crate::process::{Argv, exec_fd};
use crate::raw;

const OVERLAY_MAGIC: u64 = 0x794c_7630;
const PROC_SELF_EXE: &std::ffi::CStr = c"/proc/self/exe";

/// Tells whether this process runs from a sealed image.
#[must_use]
pub fn is_sealed() -> bool {
    // execveat of a descriptor is seen in AT_EXECFN; what kind of file it was is seen in its file system.
    if !raw::exec_name().to_bytes().starts_with(b"/dev/fd/") {
        return false;
    }
    let Ok(stat) = rustix::fs::statfs(PROC_SELF_EXE) else { return false };
    if u64::try_from(stat.f_type) == Ok(OVERLAY_MAGIC) {
        return stat.f_flags as u64 & libc::ST_RDONLY != 0;
    }
    let open = rustix::fs::open(PROC_SELF_EXE, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let seals = open.and_then(rustix::fs::fcntl_get_seals);
    seals.is_ok_and(|seals| seals.contains(SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK))
}

/// Returns a sealed image of this binary, for [`crate::process::exec_fd`] and its kin: this process's own when it is
/// sealed.
///
/// # Errors
/// The failed call, when overlay and memfd are both refused.
pub fn sealed_exe() -> Result<OwnedFd> {
    if is_sealed() {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        return rustix::fs::open(PROC_SELF_EXE, flags, Mode::empty())
            .call(|| "open(\"/proc/self/exe\", O_PATH)");
    }
    let exe = exe_path()?;
    overlay(&exe).or_else(|_| memfd())
}

/// Replaces this process by a sealed image of its binary with `argv` and this process's environment; does nothing
/// when it is sealed already. Returns only then, or on failure.
///
/// # Errors
/// As [`sealed_exe`], and the failed exec.
pub fn exec_sealed<S: AsRef<OsStr>>(argv: impl IntoIterator<Item = S>) -> Result<()> {
    if is_sealed() {
        return Ok(());
    }
    let exe = exe_path()?;
    let argv = Argv::new(argv)?;
    let env = Argv::new(std::env::vars_os().map(|(key, value)| {
        let mut pair = key;
        pair.push("=");
        pair.push(value);
        pair
    }))?;
    let image = overlay(&exe).or_else(|_| memfd())?;
    Err(Error::new("execveat(<sealed image>)", exec_fd(image.as_fd(), &argv, &env)))
}

fn exe_path() -> Result<PathBuf> {
    let link = rustix::fs::readlink(PROC_SELF_EXE, Vec::new()).call(|| "readlink(\"/proc/self/exe\")")?;
    Ok(PathBuf::from(OsString::from(OsStr::from_bytes(link.as_bytes()))))
}

fn overlay(exe: &Path) -> Result<OwnedFd> {
    let invalid = || Error::new(format!("seal {exe:?}"), Errno::INVAL);
    let (dir, name) = exe.parent().zip(exe.file_name()).ok_or_else(invalid)?;
    let dir = CString::new(dir.as_os_str().as_bytes()).map_err(|_| invalid())?;
    let fs = rustix::mount::fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC).call(|| "fsopen(\"overlay\")")?;
    let set = |path: &std::ffi::CStr| {
        rustix::mount::fsconfig_set_string(fs.as_fd(), c"lowerdir+", path)
            .call(|| format!("fsconfig(<overlay>, \"lowerdir+\", {path:?})"))
    };
    set(&dir)?;
    // Overlay wants two layers when there is no upper one; the names below /dev do not matter, the binary's is above.
    set(c"/dev")?;
    rustix::mount::fsconfig_create(fs.as_fd()).call(|| "fsconfig(<overlay>, CREATE)")?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV;
    let mount = rustix::mount::fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .call(|| "fsmount(<overlay>)")?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let image = rustix::fs::openat(&mount, name, flags, Mode::empty())
        .call(|| format!("openat(<overlay>, {name:?})"))?;
    same_file(&image)?;
    Ok(image)
}

/// Checks that the image is the running binary, which may have been replaced on disk since it started.
fn same_file(image: &OwnedFd) -> Result<()> {
    let image = rustix::fs::fstat(image).call(|| "fstat(<image>)")?;
    let own = rustix::fs::stat(PROC_SELF_EXE).call(|| "stat(\"/proc/self/exe\")")?;
    let same = image.st_ino == own.st_ino && image.st_size == own.st_size && image.st_mtime == own.st_mtime;
    if same { Ok(()) } else { Err(Error::new("seal: the binary was replaced meanwhile", Errno::STALE)) }
}

fn memfd() -> Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let image = rustix::fs::memfd_create(c"bale", flags).call(|| "memfd_create")?;
    let source = rustix::fs::open(PROC_SELF_EXE, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .call(|| "open(\"/proc/self/exe\")")?;
    let size = rustix::fs::fstat(&source).call(|| "fstat(\"/proc/self/exe\")")?.st_size;
    let mut left = usize::try_from(size).unwrap_or(0);
    while left > 0 {
        match rustix::fs::sendfile(&image, &source, None, left).call(|| "sendfile(<memfd>)")? {
            0 => return Err(Error::new("sendfile(<memfd>): short file", Errno::IO)),
            count => left -= count.min(left),
        }
    }
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&image, seals).call(|| "fcntl(<memfd>, F_ADD_SEALS)")?;
    Ok(image)
}
