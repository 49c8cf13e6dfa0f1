//! The log file that `--log` names: only the error that ends a command, as one object or line.

use std::ffi::OsString;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;

use bale_fault::Fault;
use rustix::fs::{Mode, OFlags, openat};

use super::Global;

/// The file's place, opened at the start: `exec` is in the container's file system when it fails.
pub struct Log {
    directory: OwnedFd,
    name: OsString,
}

impl Log {
    /// Opens the folder of the file; `None` when there is none, so that the error itself is told all the same.
    pub fn open(path: &Path) -> Option<Self> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(parent.unwrap_or(Path::new(".")), flags, Mode::empty()).ok()?;
        Some(Self { directory, name: path.file_name()?.to_owned() })
    }

    fn append(&self, text: &str) -> std::io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::CLOEXEC;
        let file = openat(&self.directory, &self.name, flags, Mode::from_raw_mode(0o644))?;
        std::fs::File::from(file).write_all(text.as_bytes())
    }
}

/// Appends the error. Podman parses the whole file as one object, so nothing else is ever written.
pub fn error(global: &Global, fault: &Fault) {
    let Some(log) = &global.log else { return };
    let time = bale_record::time::now();
    let message = super::words(fault);
    let line = if global.json {
        serde_json::json!({"level": "error", "msg": message, "time": time}).to_string()
    } else {
        format!("time={} level=error msg={}", quoted(&time), quoted(&message))
    };
    // A log that cannot be written is not worth hiding the error itself.
    let _ = log.append(&format!("{line}\n"));
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
