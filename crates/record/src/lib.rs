//! The one record of a container on disk.
//!
//! ```text
//! <root>/<id>/            0700, made by `Dir::reserve`; the name is the container's id
//!   record.json           the record (format `VERSION`), replaced whole by rename
//!   lock                  flock: exclusive for whoever changes the record, see below
//!   start.fifo result.fifo  only while init waits for `start` (bale-runtime)
//!   …                     what else belongs to the container (bundle, log, upper, work)
//! ```
//!
//! Rules:
//! 1. Whoever writes `record.json` holds `lock` exclusively; readers need no lock, as the file is replaced whole.
//! 2. Intent before effect: a phase that ends in `-ing` is written before the step it names, so that whoever comes
//!    next (after a SIGKILL) can finish or undo the step.
//! 3. A process is known by pid, start time and boot id together ([`ProcessId`]); a pid alone is never signalled.
//! 4. Lock order: a container's `lock` before the engine's `names` lock before the store's locks.

pub mod control;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod process;
pub mod settings;
pub mod time;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use bale_fault::{Context, Fault, Kind, Result};
use bale_sys::file::{self, Durability, Lock, LockMode};
use bale_sys::root::{Links, RelPath, RootFd};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

pub use process::{ProcessId, boot_id};

/// The format of `record.json`. Readers refuse a newer one.
pub const VERSION: u32 = 1;
/// The largest record that is read, in bytes: it holds the process of a config (16 MiB at most), with quotes escaped.
const LIMIT_BYTES: usize = 40 << 20;
/// The name of the record's file.
pub const FILE: &str = "record.json";
/// A directory for the socket by which a container tells systemd that it is ready.
pub const NOTIFY_DIRECTORY: &str = "notify";
/// That socket.
pub const NOTIFY_SOCKET: &str = "notify/notify.sock";
/// The name of the lock's file.
pub const LOCK: &str = "lock";

/// What is known of a container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Format, [`VERSION`].
    pub version: u32,
    /// Id: `^[\w+.-]+$`.
    pub id: String,
    /// RFC 3339 time of creation.
    pub created: String,
    /// Where the container is in its life.
    pub phase: Phase,
    /// Absolute path of the bundle.
    pub bundle: String,
    /// Absolute path of the root file system; empty while it is only an overlay inside the container.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rootfs: String,
    /// The container's first process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<ProcessId>,
    /// The process that keeps it (none under `bale runc`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supervisor: Option<ProcessId>,
    /// Its cgroups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<Cgroup>,
    /// How its first process ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// RFC 3339 time at which the first process was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<String>,
    /// The config's annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// What the runtime keeps for its later commands; only bale-runtime knows its shape.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub runtime: serde_json::Value,
    /// What the engine keeps (name, image, flags); only bale-engine knows its shape. Absent under `bale runc`.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub engine: serde_json::Value,
}

/// Where a container is in its life. A phase in `-ing` is an intent that was written before its effects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Known to the engine, no process yet (`bale create`); never under `bale runc`.
    Configured,
    /// Being made: cgroup, mounts and init may exist in part.
    Creating,
    /// Init waits for `start`.
    Created,
    /// `start` was asked for; the program may run already.
    Starting,
    /// The program runs.
    Running,
    /// The program has ended, or its end was seen.
    Stopped,
    /// Being removed: whatever exists is to be removed.
    Removing,
}

/// Where the limits of a container are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    /// Absolute directory on the unified hierarchy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unified: Option<PathBuf>,
    /// Absolute directory by v1 controller (`memory`, `cpu`, `name=systemd`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub v1: BTreeMap<String, PathBuf>,
    /// The systemd unit, with the systemd driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit status as a shell shows it: 0 to 255, 128 + signal when killed by a signal.
    /// `None` when nobody saw it end (its parent was lost).
    pub code: Option<u8>,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// The kernel's OOM killer was at work in its cgroup.
    #[serde(default)]
    pub oom: bool,
    /// RFC 3339 time.
    pub at: String,
    /// Why it never ran, when it never ran: the error chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Record {
    /// Reads the text of a record; `path` is for words.
    fn parse(text: &[u8], path: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let damaged = |error: serde_json::Error| {
            Fault::new(Kind::Corrupt, format!("{path:?} is damaged")).caused_by(error)
        };
        let found: Version = serde_json::from_slice(text).map_err(damaged)?;
        if found.version > VERSION {
            let words = format!("{path:?} has format {}, this bale knows {VERSION}", found.version);
            return Err(
                Fault::new(Kind::Unsupported, words).hint("use the bale that wrote it, or a newer one")
            );
        }
        serde_json::from_slice(text).map_err(damaged)
    }

    /// Makes the record of a container that is about to be made.
    #[must_use]
    pub fn new(id: &str, phase: Phase, bundle: &str, created: String) -> Self {
        Self {
            version: VERSION,
            id: id.to_owned(),
            created,
            phase,
            bundle: bundle.to_owned(),
            rootfs: String::new(),
            init: None,
            supervisor: None,
            cgroup: None,
            exit: None,
            started: None,
            annotations: BTreeMap::new(),
            runtime: serde_json::Value::Null,
            engine: serde_json::Value::Null,
        }
    }
}

/// Checks an id against runc's rule `^[\w+.-]+$`, not `.` or `..`, and a length that fits a file name.
///
/// # Errors
/// `InvalidInput`.
pub fn check_id(id: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_+.-".contains(c);
    if id.is_empty() || id.len() > 200 || id == "." || id == ".." || !id.chars().all(allowed) {
        let words =
            format!("invalid container ID {id:?}: want letters, digits and _ + . - (1 to 200 of them)");
        return Err(Fault::new(Kind::InvalidInput, words));
    }
    Ok(())
}

/// The directory of one container.
#[derive(Debug)]
pub struct Dir {
    fd: RootFd,
    path: PathBuf,
}

/// A container's directory with its lock held: the only way to write its record.
#[derive(Debug)]
pub struct Locked<'a> {
    dir: &'a Dir,
    _lock: Lock,
}

impl Dir {
    /// Makes the directory of a new container below `root` (made too, 0700, if absent).
    ///
    /// # Errors
    /// `AlreadyExists` when the id is taken.
    pub fn reserve(root: &Path, id: &str) -> Result<Self> {
        check_id(id)?;
        make_root(root)?;
        let parent = RootFd::open(root)?;
        match rustix::fs::mkdirat(&parent, id, Mode::from_raw_mode(0o700)) {
            Ok(()) => Self::open(root, id),
            Err(Errno::EXIST) => {
                let words = format!("container with given ID already exists: {id}");
                Err(Fault::new(Kind::AlreadyExists, words)
                    .hint(format!("choose another name, or remove {id} first")))
            }
            Err(errno) => Err(bale_sys::Error::new(format!("mkdir({:?})", root.join(id)), errno).into()),
        }
    }

    /// Opens the directory of a container.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    pub fn open(root: &Path, id: &str) -> Result<Self> {
        check_id(id)?;
        let path = root.join(id);
        let open = RootFd::open(root).and_then(|parent| {
            let name = RelPath::new(id).map_err(|_| bale_sys::Error::new("open", Errno::INVAL))?;
            parent.open_at(&name, OFlags::RDONLY | OFlags::DIRECTORY, Links::Refused)
        });
        match open {
            Ok(fd) => Ok(Self { fd: RootFd::from_fd(fd), path }),
            Err(error) if error.errno() == Errno::NOENT => {
                Err(Fault::new(Kind::NotFound, format!("container {id:?} does not exist")))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a directory by its own path, whose last component is the id.
    ///
    /// # Errors
    /// As [`Dir::open`].
    pub fn open_path(path: &Path) -> Result<Self> {
        let id = path.file_name().and_then(|n| n.to_str());
        let id =
            id.ok_or_else(|| Fault::new(Kind::InvalidInput, format!("{path:?} is no container directory")))?;
        Self::open(path.parent().unwrap_or(Path::new("/")), id)
    }

    /// Returns the directory's path, for messages and for those who must hand a path on.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the id: the name of the directory.
    #[must_use]
    pub fn id(&self) -> &str {
        self.path.file_name().and_then(|n| n.to_str()).unwrap_or_default()
    }

    /// Returns the directory as a root for what else is in it.
    #[must_use]
    pub const fn root(&self) -> &RootFd {
        &self.fd
    }

    /// Reads the record.
    ///
    /// # Errors
    /// `NotFound` when there is none (yet), `Corrupt` when it cannot be read, `Unsupported` for a newer format.
    pub fn load(&self) -> Result<Record> {
        let text = file::read_bounded(&self.fd, FILE, LIMIT_BYTES).map_err(Fault::from);
        let text = text.within(|| format!("read the record of container {:?}", self.id()))?;
        Record::parse(&text, &self.path.join(FILE))
    }

    /// Takes the lock, waiting for whoever holds it.
    ///
    /// # Errors
    /// `NotFound` when the container was removed meanwhile.
    pub fn lock(&self) -> Result<Locked<'_>> {
        let lock = Lock::take(&self.fd, LOCK, LockMode::Exclusive)?;
        Ok(Locked { dir: self, _lock: lock })
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Locked<'_> {
    /// Replaces the record. It survives the death of any process, not a power cut (which ends containers anyway).
    ///
    /// # Errors
    /// The failed call.
    pub fn save(&self, record: &Record) -> Result<()> {
        self.write(record, Durability::Process)
    }

    /// Replaces the record so that it survives a power cut.
    ///
    /// # Errors
    /// The failed call.
    pub fn save_durably(&self, record: &Record) -> Result<()> {
        self.write(record, Durability::Power)
    }

    fn write(&self, record: &Record, durability: Durability) -> Result<()> {
        let words = || format!("write the record of container {:?}", self.dir.id());
        let text =
            serde_json::to_vec(record).map_err(|e| Fault::new(Kind::Internal, words()).caused_by(e))?;
        let written = file::replace(&self.dir.fd, FILE, &text, Mode::from_raw_mode(0o600), durability);
        written.map_err(Fault::from).within(words)
    }

    /// Reads the record under the lock.
    ///
    /// # Errors
    /// As [`Dir::load`].
    pub fn load(&self) -> Result<Record> {
        self.dir.load()
    }

    /// Removes the files this crate knows and then the directory, which must hold nothing else any more.
    ///
    /// # Errors
    /// `Conflict` when something is left.
    pub fn remove(self) -> Result<()> {
        for name in [FILE, "start.fifo", "result.fifo", LOCK] {
            match rustix::fs::unlinkat(&self.dir.fd, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(bale_sys::Error::new(format!("unlinkat({name:?})"), errno).into()),
            }
        }
        let mut removed = rustix::fs::rmdir(&self.dir.path);
        if removed == Err(Errno::NOTEMPTY) {
            // Few containers have it. What is in it is only a socket.
            let _ = rustix::fs::unlinkat(&self.dir.fd, NOTIFY_SOCKET, AtFlags::empty());
            let _ = rustix::fs::unlinkat(&self.dir.fd, NOTIFY_DIRECTORY, AtFlags::REMOVEDIR);
            removed = rustix::fs::rmdir(&self.dir.path);
        }
        removed.map_err(|errno| bale_sys::Error::new(format!("rmdir({:?})", self.dir.path), errno).into())
    }
}

/// Lists the ids below `root`, sorted; none when `root` does not exist.
///
/// # Errors
/// The failed call.
pub fn list(root: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).within(|| format!("list {root:?}")),
    };
    let mut ids: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| check_id(name).is_ok() && !name.starts_with('.'))
        .collect();
    ids.sort_unstable();
    Ok(ids)
}

fn make_root(root: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(root).within(|| format!("make {root:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_reserved_once_and_read_back() {
        let root = tempfile::tempdir().unwrap();
        let dir = Dir::reserve(root.path(), "web").unwrap();
        assert_eq!(Dir::reserve(root.path(), "web").unwrap_err().kind(), Kind::AlreadyExists);
        assert_eq!(dir.load().unwrap_err().kind(), Kind::NotFound);
        let record = Record::new("web", Phase::Creating, "/b", "2026-01-01T00:00:00Z".to_owned());
        let locked = dir.lock().unwrap();
        locked.save(&record).unwrap();
        assert_eq!(dir.load().unwrap(), record);
        assert_eq!(list(root.path()).unwrap(), ["web"]);
        locked.remove().unwrap();
        assert_eq!(Dir::open(root.path(), "web").unwrap_err().kind(), Kind::NotFound);
    }

    #[test]
    fn strange_ids_and_newer_formats_are_refused() {
        for id in ["", ".", "..", "a/b", "a b", &"x".repeat(201)] {
            assert!(check_id(id).is_err(), "{id:?}");
        }
        let root = tempfile::tempdir().unwrap();
        let dir = Dir::reserve(root.path(), "x").unwrap();
        std::fs::write(dir.path().join(FILE), r#"{"version":2}"#).unwrap();
        assert_eq!(dir.load().unwrap_err().kind(), Kind::Unsupported);
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        assert_eq!(dir.load().unwrap_err().kind(), Kind::Corrupt);
    }
}
