//! The log that `--log` names: only the error that ends a command, as one object or line of a file; or as a message of
//! the journal (`journald:ID`) or of syslog (`syslog:ID`), as crun has it.

use std::ffi::OsString;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use bale_fault::{Fault, Kind, Result};
use bale_sys::error::Call as _;
use rustix::fs::{Mode, OFlags, openat};

use super::Global;

/// Where the error goes.
pub enum Log {
    /// A file's place, opened at the start: `exec` is in the container's file system when it fails.
    File {
        /// Its folder.
        directory: OwnedFd,
        /// Its name.
        name: OsString,
    },
    /// A connected socket of systemd's journal, and who speaks.
    Journal(UnixDatagram, String),
    /// A connected socket of syslog.
    Syslog(UnixDatagram, String),
}

/// The journal's own socket (systemd.io/JOURNAL_NATIVE_PROTOCOL).
const JOURNAL: &str = "/run/systemd/journal/socket";
const SYSLOG: &str = "/dev/log";

impl Log {
    /// Opens it. A journal that is not there is no error, as with crun.
    ///
    /// # Errors
    /// The folder of the file cannot be opened.
    pub fn open(target: &str) -> Result<Option<Self>> {
        let connect = |path: &str| {
            let socket = UnixDatagram::unbound().ok()?;
            socket.connect(path).ok().map(|()| socket)
        };
        if let Some(id) = target.strip_prefix("journald:") {
            return Ok(connect(JOURNAL).map(|socket| Self::Journal(socket, id.to_owned())));
        }
        if let Some(id) = target.strip_prefix("syslog:") {
            return Ok(connect(SYSLOG).map(|socket| Self::Syslog(socket, id.to_owned())));
        }
        let path = Path::new(target.strip_prefix("file:").unwrap_or(target));
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(parent.unwrap_or(Path::new(".")), flags, Mode::empty());
        let directory = opened.call(|| format!("open({path:?})"))?;
        let missing = || Fault::new(Kind::InvalidInput, format!("--log {target:?} names no file"));
        Ok(Some(Self::File { directory, name: path.file_name().ok_or_else(missing)?.to_owned() }))
    }

    fn write(&self, global: &Global, message: &str) -> std::io::Result<()> {
        match self {
            Self::File { directory, name } => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::CLOEXEC;
                let file = openat(directory, name, flags, Mode::from_raw_mode(0o644))?;
                std::fs::File::from(file).write_all(line(global, message).as_bytes())
            }
            Self::Journal(socket, id) => socket.send(&entry(&global.called_as, id, message)).map(drop),
            // Facility "user", severity "error" (RFC 3164).
            Self::Syslog(socket, id) => {
                let name = if id.is_empty() { &global.called_as } else { id };
                let text = format!("<11>{name}[{}]: {}", std::process::id(), message.replace('\n', " "));
                socket.send(text.as_bytes()).map(drop)
            }
        }
    }
}

/// A message of the journal. A value that may have line ends has its length in front.
fn entry(called_as: &str, id: &str, message: &str) -> Vec<u8> {
    let id: String = id.chars().filter(|c| !c.is_control()).collect();
    let mut entry = format!("PRIORITY=3\nSYSLOG_IDENTIFIER={called_as}\nID={id}\nMESSAGE\n").into_bytes();
    entry.extend((message.len() as u64).to_le_bytes());
    entry.extend(message.as_bytes());
    entry.push(b'\n');
    entry
}

/// Writes the error. Podman parses the whole file as one object, so nothing else is ever written.
pub fn error(global: &Global, fault: &Fault) {
    // A log that cannot be written is not worth hiding the error itself.
    let _ = global.log.as_ref().map(|log| log.write(global, &super::words(fault)));
}

fn line(global: &Global, message: &str) -> String {
    let time = bale_record::time::now();
    if global.json {
        format!("{}\n", serde_json::json!({"level": "error", "msg": message, "time": time}))
    } else {
        format!("time={} level=error msg={}\n", quoted(&time), quoted(message))
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_the_journal_has_its_message_by_length() {
        let entry = entry("crun", "a\nb", "two\nlines");
        let begin = b"PRIORITY=3\nSYSLOG_IDENTIFIER=crun\nID=ab\nMESSAGE\n\x09\0\0\0\0\0\0\0two\nlines\n";
        assert_eq!(entry, begin);
    }
}
