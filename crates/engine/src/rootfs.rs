//! The root file system of a container that does not run, as one tree.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use bale_fault::{Context, Fault, Kind, Result};
use bale_sys::error::Call;
use bale_sys::file;
use bale_sys::mount::FsContext;
use bale_sys::root::{Links, RelPath, RootFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// The largest `/etc/passwd` or `/etc/group` that is read, in bytes.
const ACCOUNTS_LIMIT_BYTES: usize = 4 << 20;
/// `MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC` (linux/mount.h).
const READ_ONLY: u64 = 1 | 2 | 4 | 8;

/// Shows layers (top first) as one read-only tree that is mounted nowhere.
///
/// # Errors
/// The failed call.
pub fn of_layers(lowers: &[PathBuf]) -> Result<RootFd> {
    match lowers {
        [] => Err(Fault::new(Kind::Internal, "an image without a lower directory")),
        [one] => Ok(RootFd::open(one)?),
        many => overlay(many).map(RootFd::from_fd).within(|| "look into the image"),
    }
}

fn overlay(lowers: &[PathBuf]) -> Result<OwnedFd> {
    let context = FsContext::open(c"overlay").call(|| "fsopen(\"overlay\")")?;
    for lower in lowers {
        let path = path_text(lower)?;
        let set = context.set(c"lowerdir+", Some(&path));
        set.call(|| format!("fsconfig(<overlay>, \"lowerdir+\", {lower:?})"))?;
    }
    context.create().call(|| "fsconfig(<overlay>, FSCONFIG_CMD_CREATE)")?;
    Ok(context.mount(READ_ONLY).call(|| "fsmount(<overlay>)")?)
}

/// Returns a path of the host's as text for a system call.
///
/// # Errors
/// `InvalidInput` when it holds a NUL byte.
pub fn path_text(path: &Path) -> Result<CString> {
    let text = CString::new(path.as_os_str().as_bytes());
    text.map_err(|_| Fault::new(Kind::InvalidInput, format!("the path {path:?} holds a NUL byte")))
}

/// Reads a text file of a root file system, `None` when it has none that is regular.
///
/// # Errors
/// The failed call; `Os` when it is too large.
pub fn read_text(root: &RootFd, path: &str) -> Result<Option<String>> {
    let below = RelPath::new(path).map_err(|e| Fault::new(Kind::Internal, e.to_string()))?;
    let words = || format!("read {path} of the root file system");
    let found = match root.open_at(&below, OFlags::PATH, Links::InRoot) {
        Err(error) if matches!(error.errno(), Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
            return Ok(None);
        }
        other => other.map_err(Fault::from).within(words)?,
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = rustix::fs::open("/proc", flags, Mode::empty()).call(|| "open(\"/proc\")")?;
    let fd = match file::open_regular(proc, found, path) {
        Err(error) if error.errno() == Errno::INVAL => return Ok(None),
        other => other.map_err(Fault::from).within(words)?,
    };
    let text = file::read_fd_bounded(fd, path, ACCOUNTS_LIMIT_BYTES).map_err(Fault::from).within(words)?;
    Ok(Some(String::from_utf8_lossy(&text).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_inside_are_read() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("etc/link")).unwrap();
        std::os::unix::fs::symlink("/../../../proc/version", dir.path().join("etc/out")).unwrap();
        rustix::fs::mkfifoat(
            rustix::fs::CWD,
            dir.path().join("etc/fifo"),
            rustix::fs::Mode::from_raw_mode(0o600),
        )
        .unwrap();
        let root = of_layers(&[dir.path().to_owned()]).unwrap();
        for (path, found) in [
            ("/etc/passwd", true),
            ("/etc/link", true),
            ("/etc/out", false),
            ("/etc/fifo", false),
            ("/etc", false),
            ("/none/x", false),
        ] {
            assert_eq!(read_text(&root, path).unwrap().is_some(), found, "{path}");
        }
    }
}
