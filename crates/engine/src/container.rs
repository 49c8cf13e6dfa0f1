//! A container as the engine sees it: its directory, its record, and how it is.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;

use bale_fault::{Context, Fault, Kind, Result};
use bale_record::control::LOG;
use bale_record::{Dir, Phase, Record};
use bale_spec::Digest;
use bale_spec::generate::Volume;
use bale_spec::options::RunOptions;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::Engine;

/// What the engine keeps in a record (`engine`). The supervisor's creator reads `lowers` and `seccomp`, the store's
/// collection reads `image_manifest`; the rest is the engine's alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Details {
    /// Name, unique among containers.
    pub name: String,
    /// The image as it was named, or the bundle's directory.
    pub image: String,
    /// Digest of the image's manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_manifest: Option<Digest>,
    /// Digest of the image's config.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_id: Option<Digest>,
    /// Lower directories of the root file system, top first; absent for a bundle, whose own rootfs is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lowers: Option<Vec<PathBuf>>,
    /// `default`: the runtime adds docker's filter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<String>,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// What the user asked for.
    pub options: RunOptions,
    /// Volumes in use.
    pub volumes: Vec<Volume>,
    /// Labels: the image's with the user's over them.
    pub labels: BTreeMap<String, String>,
    /// Number of the signal that asks it to stop.
    pub stop_signal: i32,
    /// Seconds between that and SIGKILL; -1 waits for ever.
    pub stop_timeout_seconds: i64,
    /// It goes when it ends.
    pub auto_remove: bool,
    /// It has a terminal.
    pub tty: bool,
    /// Its standard input is open.
    pub interactive: bool,
    /// A small init runs as pid 1.
    pub init: bool,
}

/// A container that exists.
#[derive(Debug)]
pub struct Container {
    /// Its directory.
    pub dir: Dir,
    /// Its record as last read.
    pub record: Record,
    /// The engine's part of it.
    pub details: Details,
}

/// How a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Never started, or it could not be.
    Created,
    /// Its program runs. Without a supervisor its output goes nowhere and its exit code will not be known.
    Running {
        /// Its supervisor lives.
        supervised: bool,
    },
    /// Its program has ended; `None` when nobody saw with which code.
    Exited(Option<u8>),
    /// It is being removed.
    Removing,
    /// Its making was broken off.
    Dead,
}

impl Status {
    /// Returns docker's word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running { .. } => "running",
            Self::Exited(_) => "exited",
            Self::Removing => "removing",
            Self::Dead => "dead",
        }
    }

    /// Tells whether its program runs.
    #[must_use]
    pub const fn is_running(self) -> bool {
        matches!(self, Self::Running { .. })
    }
}

/// Tells how the container of `record` is, from what is written and which processes live.
#[must_use]
pub fn status(record: &Record) -> Status {
    let init = record.init.as_ref().is_some_and(|p| p.is_alive());
    let supervisor = record.supervisor.as_ref().is_some_and(|p| p.is_alive());
    match record.phase {
        Phase::Configured => Status::Created,
        Phase::Removing => Status::Removing,
        Phase::Stopped if record.started.is_none() && never_ran(record) => Status::Created,
        Phase::Stopped => Status::Exited(record.exit.as_ref().and_then(|exit| exit.code)),
        Phase::Creating | Phase::Created | Phase::Starting if supervisor => Status::Created,
        _ if init => Status::Running { supervised: supervisor },
        // The supervisor is about to write the end down.
        Phase::Running if supervisor => Status::Running { supervised: true },
        Phase::Creating | Phase::Created | Phase::Starting => Status::Dead,
        Phase::Running => Status::Exited(None),
    }
}

fn never_ran(record: &Record) -> bool {
    record.exit.as_ref().is_some_and(|exit| exit.error.is_some())
}

impl Container {
    /// Opens the container with this id.
    ///
    /// # Errors
    /// As [`Dir::open`] and [`Dir::load`].
    pub fn open(engine: &Engine, id: &str) -> Result<Self> {
        Self::read(Dir::open(&engine.containers(), id)?)
    }

    /// Reads the container in `dir`.
    ///
    /// # Errors
    /// As [`Dir::load`].
    pub fn read(dir: Dir) -> Result<Self> {
        let record = dir.load()?;
        let details = details(&record)?;
        Ok(Self { dir, record, details })
    }

    /// Reads the record again.
    ///
    /// # Errors
    /// `NotFound` when the container is gone.
    pub fn refresh(&mut self) -> Result<()> {
        self.record = self.dir.load()?;
        self.details = details(&self.record)?;
        Ok(())
    }

    /// Returns the id.
    #[must_use]
    pub fn id(&self) -> &str {
        self.dir.id()
    }

    /// Tells how it is.
    #[must_use]
    pub fn status(&self) -> Status {
        status(&self.record)
    }

    /// Opens the log, at its beginning.
    ///
    /// # Errors
    /// `NotFound` when it was never started.
    pub fn open_log(&self) -> Result<File> {
        self.log(OFlags::RDONLY)
    }

    /// Opens the log for reading, and makes it if the container was never started.
    ///
    /// # Errors
    /// The failed call.
    pub(crate) fn create_log(&self) -> Result<File> {
        self.log(OFlags::RDONLY | OFlags::CREATE)
    }

    fn log(&self, flags: OFlags) -> Result<File> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.dir, LOG, flags, Mode::from_raw_mode(0o600));
        let words = || format!("open the log of container {}", self.details.name);
        Ok(File::from(fd.map_err(std::io::Error::from).within(words)?))
    }
}

/// Reads the engine's part of a record.
///
/// # Errors
/// `Corrupt`.
pub fn details(record: &Record) -> Result<Details> {
    if record.engine.is_null() {
        return Ok(Details::default());
    }
    serde_json::from_value(record.engine.clone()).map_err(|error| {
        Fault::new(Kind::Corrupt, format!("the engine's part of the record of {} is damaged", record.id))
            .caused_by(error)
    })
}

impl Details {
    /// Writes the engine's part of a record.
    ///
    /// # Errors
    /// `Internal`, which does not happen for plain data.
    pub fn to_value(&self) -> Result<serde_json::Value> {
        let words = "write the engine's part of a record";
        serde_json::to_value(self).map_err(|error| Fault::new(Kind::Internal, words).caused_by(error))
    }
}

/// Returns a new id: 64 hexadecimal digits, random.
///
/// # Errors
/// The failed getrandom.
pub fn new_id() -> Result<String> {
    use bale_sys::error::Call;
    use std::fmt::Write;
    let mut bytes = [0u8; 32];
    let mut filled = 0;
    while filled < bytes.len() {
        let got = rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty());
        filled += got.call(|| "getrandom(32)")?;
    }
    let mut id = String::with_capacity(64);
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(id, "{byte:02x}");
    }
    Ok(id)
}

impl Engine {
    /// Finds a container by name, id, or the beginning of its id.
    ///
    /// # Errors
    /// `NotFound`; `InvalidInput` when the beginning fits several.
    pub fn container(&self, wanted: &str) -> Result<Container> {
        Container::read(self.container_dir(wanted)?)
    }

    /// Finds the directory of a container, which may have no readable record.
    ///
    /// # Errors
    /// As [`Engine::container`].
    pub fn container_dir(&self, wanted: &str) -> Result<Dir> {
        let containers = self.containers();
        if let Some(id) = self.id_of_name(wanted)
            && let Ok(dir) = Dir::open(&containers, &id)
        {
            return Ok(dir);
        }
        let ids = bale_record::list(&containers)?;
        let hexadecimal = !wanted.is_empty() && wanted.bytes().all(|b| b.is_ascii_hexdigit());
        let matches = || ids.iter().filter(|id| hexadecimal && id.starts_with(&wanted.to_ascii_lowercase()));
        match (matches().next(), matches().nth(1)) {
            (Some(id), None) => return Dir::open(&containers, id),
            (Some(_), Some(_)) => {
                let words = format!("several containers have an id that begins with {wanted:?}");
                return Err(Fault::new(Kind::InvalidInput, words).hint("give more digits, or the name"));
            }
            _ => {}
        }
        self.search(wanted, &ids)
    }

    /// Looks through all records: a name's link may be missing after a kill.
    fn search(&self, wanted: &str, ids: &[String]) -> Result<Dir> {
        let containers = self.containers();
        let mut names = Vec::new();
        for id in ids {
            let Ok(container) = Container::open(self, id) else { continue };
            if container.details.name == wanted {
                return Dir::open(&containers, id);
            }
            names.push(container.details.name);
        }
        let near = bale_spec::suggest::did_you_mean(wanted, names.iter().map(String::as_str));
        let fault = Fault::new(Kind::NotFound, format!("no such container: {wanted}{near}"));
        Err(if near.is_empty() { fault.hint("`bale ps -a` lists containers") } else { fault })
    }
}

#[cfg(test)]
mod tests {
    use bale_record::{Exit, ProcessId};

    use super::*;

    fn record(phase: Phase, init: bool, supervisor: bool) -> Record {
        let own = ProcessId::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        let dead = ProcessId { start_time: 1, ..own.clone() };
        let mut record = Record::new("x", phase, "/b", String::new());
        record.init = Some(if init { own.clone() } else { dead.clone() });
        record.supervisor = Some(if supervisor { own } else { dead });
        record
    }

    #[test]
    fn a_container_is_what_its_record_and_processes_say() {
        let running = |supervised| Status::Running { supervised };
        for (phase, init, supervisor, wanted) in [
            (Phase::Configured, false, false, Status::Created),
            (Phase::Creating, false, true, Status::Created),
            (Phase::Creating, false, false, Status::Dead),
            (Phase::Starting, true, false, running(false)),
            (Phase::Running, true, true, running(true)),
            (Phase::Running, true, false, running(false)),
            (Phase::Running, false, true, running(true)),
            (Phase::Running, false, false, Status::Exited(None)),
            (Phase::Removing, false, false, Status::Removing),
        ] {
            assert_eq!(status(&record(phase, init, supervisor)), wanted, "{phase:?} {init} {supervisor}");
        }
        let mut stopped = record(Phase::Stopped, false, false);
        let exit = Exit { code: Some(3), signal: None, oom: false, at: String::new(), error: None };
        stopped.exit = Some(exit.clone());
        assert_eq!(status(&stopped), Status::Exited(Some(3)));
        stopped.exit = Some(Exit { error: Some("no".to_owned()), ..exit });
        assert_eq!(status(&stopped), Status::Created);
    }

    #[test]
    fn ids_are_random_digits() {
        let (a, b) = (new_id().unwrap(), new_id().unwrap());
        assert!(a != b && a.len() == 64 && a.bytes().all(|c| c.is_ascii_hexdigit()));
    }
}
