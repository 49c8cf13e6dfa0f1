//! What is to be known of the host.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use bale_fault::{Context, Result};
use bale_spec::capability;
use bale_spec::generate::{HostDevice, HostFacts};
use bale_spec::options::RunOptions;

/// The largest file of `/etc` that is read, in bytes.
const TEXT_LIMIT_BYTES: u64 = 1 << 20;

/// Finds out what generating a config needs; what belongs to one container is left empty.
///
/// # Errors
/// A device that was asked for does not exist.
pub fn facts(run: &RunOptions) -> Result<HostFacts> {
    let capabilities =
        if run.privileged || !run.cap_add.is_empty() { all_capabilities() } else { Vec::new() };
    Ok(HostFacts { devices: devices(run)?, capabilities, hostname: name(), ..HostFacts::default() })
}

/// Returns the names of all capabilities this kernel has.
#[must_use]
pub fn all_capabilities() -> Vec<String> {
    let last = text("/proc/sys/kernel/cap_last_cap").trim().parse().unwrap_or(capability::ALL.len() - 1);
    capability::ALL.iter().take(last + 1).map(|name| (*name).to_owned()).collect()
}

/// Returns the host's name.
#[must_use]
pub fn name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Reads a file of the host, bounded; empty when it cannot be read.
#[must_use]
pub fn text(path: &str) -> String {
    use std::io::Read;
    let mut text = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(TEXT_LIMIT_BYTES).read_to_end(&mut text));
    if read.is_err() {
        return String::new();
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Makes directories that a bind mount of `-v` wants.
///
/// # Errors
/// The failed call.
pub fn make_directories(paths: &[String]) -> Result<()> {
    for path in paths {
        if Path::new(path).symlink_metadata().is_err() {
            std::fs::create_dir_all(path).within(|| format!("make the directory {path:?} for a mount"))?;
        }
    }
    Ok(())
}

fn devices(run: &RunOptions) -> Result<Vec<HostDevice>> {
    let mut found = Vec::new();
    for request in &run.devices {
        let path = Path::new(&request.source);
        let metadata = path.metadata().within(|| format!("find the device {:?}", request.source))?;
        if metadata.is_dir() {
            below(path, &mut found);
        } else {
            found.extend(device(path));
        }
    }
    if run.privileged {
        below(Path::new("/dev"), &mut found);
    }
    Ok(found)
}

/// Collects the device nodes below a directory of devices, except those every container has of its own.
fn below(directory: &Path, found: &mut Vec<HostDevice>) {
    let Ok(entries) = directory.read_dir() else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let own = ["/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd", "/dev/console", "/dev/ptmx"];
        if own.iter().any(|own| path == Path::new(own)) {
            continue;
        }
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => below(&path, found),
            Ok(kind) if kind.is_char_device() || kind.is_block_device() => found.extend(device(&path)),
            _ => {}
        }
    }
}

fn device(path: &Path) -> Option<HostDevice> {
    let metadata = path.metadata().ok()?;
    let kind = match metadata.file_type() {
        kind if kind.is_char_device() => 'c',
        kind if kind.is_block_device() => 'b',
        _ => return None,
    };
    Some(HostDevice {
        path: path.to_str()?.to_owned(),
        kind,
        major: rustix::fs::major(metadata.rdev()),
        minor: rustix::fs::minor(metadata.rdev()),
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_null_device_is_found() {
        let null = device(Path::new("/dev/null")).unwrap();
        assert_eq!((null.kind, null.major, null.minor), ('c', 1, 3));
        assert!(device(Path::new("/etc")).is_none());
        assert!(all_capabilities().contains(&"CAP_CHOWN".to_owned()));
    }
}
