//! Changing `config.json` by path, with a history.
//!
//! ```text
//! config.json.history/NNNN.json    what config.json was before the change NNNN; the highest is the latest
//! ```
//!
//! A change writes the old text into the history, then replaces `config.json`. A history entry that equals
//! `config.json` is the sign of a change that was interrupted between the two, and is dropped.

pub(crate) mod edit;
mod target;
mod value;

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use bale_fault::{Context, Fault, Kind, Result};
use bale_spec::json::{self, CONFIG_LIMIT_BYTES};
use bale_spec::validate::{self, Finding, Severity};
use bale_sys::error::Call;
use bale_sys::file::{self, Durability};
use bale_sys::root::{Links, RelPath, RootFd};
use rustix::fs::{self, AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use serde_json::Value;

pub use edit::{Change, changes};

use crate::open::{CONFIG, Files, no_bundle};

const HISTORY: &str = "config.json.history";
/// Older entries are dropped when there are more.
const HISTORY_LIMIT: usize = 100;

/// How to change.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Takes unknown keys and values that `check` calls errors.
    pub force: bool,
    /// Tells what would change, and changes nothing.
    pub dry_run: bool,
}

/// An entry of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number.
    pub number: u32,
    /// Seconds since 1970 at which the change was made.
    pub time_s: i64,
    /// What the change did.
    pub changes: Vec<Change>,
}

/// Applies edits such as `process.env.TZ=UTC`, `mounts+=/data,type=tmpfs` or `linux.namespaces-=network`, all or none.
/// Returns what changed; nothing is written when nothing did.
///
/// # Errors
/// `InvalidInput` for a path that is not there (with what was probably meant), a value of the wrong type, and for a
/// config that would be worse than before; `Unsupported` for a bundle in an old format.
pub fn set(path: &Path, edits: &[String], options: Options) -> Result<Vec<Change>> {
    let within = || format!("change {}", path.join(CONFIG).display());
    let bundle = Locked::open(path)?;
    if let Some(dialect) = bundle.files.dialect().within(within)? {
        let fault = Fault::new(Kind::Unsupported, format!("the bundle is in the format {dialect}"));
        return Err(fault.hint(format!("bale upgrade {} converts it", path.display()))).within(within);
    }
    let before = parse(bundle.files.config()).within(within)?;
    let mut after = before.clone();
    for text in edits {
        edit::apply(&mut after, text, options.force).within(|| format!("edit {text:?}")).within(within)?;
    }
    let changes = changes(&before, &after);
    if changes.is_empty() {
        return Ok(changes);
    }
    let text = write_like(&after, bundle.files.config());
    if !options.force {
        refuse_worse(bundle.files.config(), &text).within(within)?;
    }
    if !options.dry_run {
        bundle.replace(&text).within(within)?;
    }
    Ok(changes)
}

/// Takes the latest change back and returns what that changed.
///
/// # Errors
/// `NotFound` when there is no history.
pub fn undo(path: &Path) -> Result<Vec<Change>> {
    let within = || format!("undo the last change of {}", path.join(CONFIG).display());
    let bundle = Locked::open(path)?;
    let history = bundle.history().within(within)?;
    let nothing = || Fault::new(Kind::NotFound, "there is no change to take back");
    let Some(history) = history else { return Err(nothing()).within(within) };
    let Some((number, old)) = history.latest_other_than(bundle.files.config()).within(within)? else {
        return Err(nothing()).within(within);
    };
    let changes = changes(&parse(bundle.files.config()).within(within)?, &parse(&old).within(within)?);
    write_config(bundle.files.dir(), &old).within(within)?;
    history.remove(number).within(within)?;
    Ok(changes)
}

/// Lists the changes that can be taken back, the latest first.
///
/// # Errors
/// A failed read.
pub fn history(path: &Path) -> Result<Vec<Entry>> {
    let within = || format!("read the history of {}", path.join(CONFIG).display());
    let bundle = Locked::open(path)?;
    let Some(history) = bundle.history().within(within)? else { return Ok(Vec::new()) };
    let mut entries = Vec::new();
    let mut newer = parse(bundle.files.config()).within(within)?;
    for number in history.numbers().within(within)?.into_iter().rev() {
        let (text, time_s) = history.read(number).within(within)?;
        let older = parse(&text).within(within)?;
        let changes = changes(&older, &newer);
        if !changes.is_empty() {
            entries.push(Entry { number, time_s, changes });
        }
        newer = older;
    }
    Ok(entries)
}

fn parse(text: &[u8]) -> Result<Value> {
    let value: Value = json::parse(text, CONFIG_LIMIT_BYTES)
        .map_err(|error| Fault::new(Kind::InvalidInput, CONFIG).caused_by(error))?;
    match value {
        Value::Object(_) => Ok(value),
        _ => Err(Fault::new(Kind::InvalidInput, format!("{CONFIG} is not a JSON object"))),
    }
}

/// Writes with the indentation that the file has, so that a diff shows the change alone.
fn write_like(value: &Value, old: &[u8]) -> Vec<u8> {
    let indent: &[u8] = if old.windows(2).any(|w| w == b"\n\t") { b"\t" } else { b"  " };
    let formatter = serde_json::ser::PrettyFormatter::with_indent(indent);
    let mut text = Vec::new();
    // Writing a JSON value into memory cannot fail.
    let _ =
        serde::Serialize::serialize(value, &mut serde_json::Serializer::with_formatter(&mut text, formatter));
    text.push(b'\n');
    text
}

/// Refuses a change that brings an error which was not there before.
pub(crate) fn refuse_worse(before: &[u8], after: &[u8]) -> Result<()> {
    let errors = |text: &[u8]| -> Vec<Finding> {
        let found = validate::validate(text).findings.without_places();
        found.into_iter().filter(|f| f.severity == Severity::Error).collect()
    };
    let known = errors(before);
    match errors(after).into_iter().find(|new| !known.contains(new)) {
        None => Ok(()),
        Some(worse) => {
            let fault =
                Fault::new(Kind::InvalidInput, format!("{} would be wrong: {}", worse.path, worse.words));
            Err(fault.hint(worse.hint.unwrap_or_else(|| "--force writes it nevertheless".to_owned())))
        }
    }
}

/// A bundle whose config nobody else changes.
struct Locked {
    files: Files,
    _lock: OwnedFd,
}

impl Locked {
    fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let lock = match fs::open(path, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Err(no_bundle(path)),
            lock => lock.call(|| format!("open({path:?})"))?,
        };
        fs::flock(&lock, FlockOperation::LockExclusive).call(|| format!("flock({path:?})"))?;
        remove_leftovers(&lock)?;
        // Read under the lock, so that no change of another is lost.
        let bundle = Self { files: Files::open(path)?, _lock: lock };
        if let Some(History(history)) = bundle.history()? {
            remove_leftovers(&history)?;
        }
        Ok(bundle)
    }

    fn history(&self) -> Result<Option<History>> {
        let name = RelPath::new(HISTORY).map_err(|e| Fault::new(Kind::Internal, HISTORY).caused_by(e))?;
        match self.files.dir().open_at(&name, OFlags::RDONLY | OFlags::DIRECTORY, Links::Refused) {
            Ok(fd) => Ok(Some(History(RootFd::from_fd(fd)))),
            Err(error) if error.errno() == Errno::NOENT => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn replace(&self, text: &[u8]) -> Result<()> {
        match fs::mkdirat(self.files.dir(), HISTORY, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(bale_sys::Error::new(format!("mkdirat({HISTORY:?})"), errno).into()),
        }
        let Some(history) = self.history()? else {
            return Err(Fault::new(Kind::Internal, format!("{HISTORY} vanished")));
        };
        history.keep(self.files.config())?;
        write_config(self.files.dir(), text)
    }
}

/// Removes the temporary files (`.<name>.json.<pid>`) of processes that were killed while they replaced a file.
fn remove_leftovers(dir: impl AsFd) -> Result<()> {
    for entry in fs::Dir::read_from(&dir).call(|| "getdents(<bundle>)")? {
        let entry = entry.call(|| "getdents(<bundle>)")?;
        let name = entry.file_name().to_str().unwrap_or_default();
        let maker =
            name.strip_prefix('.').and_then(|n| n.split_once(".json.")).and_then(|(_, pid)| pid.parse().ok());
        if let Some(pid) = maker.and_then(rustix::process::Pid::from_raw)
            && rustix::process::test_kill_process(pid) == Err(Errno::SRCH)
        {
            // Another one may be at the same.
            let _ = fs::unlinkat(&dir, name, AtFlags::empty());
        }
    }
    Ok(())
}

fn write_config(dir: &RootFd, text: &[u8]) -> Result<()> {
    Ok(file::replace(dir, CONFIG, text, Mode::from_raw_mode(0o644), Durability::Power)?)
}

struct History(RootFd);

impl History {
    /// The numbers of the entries, the oldest first.
    fn numbers(&self) -> Result<Vec<u32>> {
        let mut numbers = Vec::new();
        for entry in fs::Dir::read_from(&self.0).call(|| format!("getdents({HISTORY:?})"))? {
            let entry = entry.call(|| format!("getdents({HISTORY:?})"))?;
            let name = entry.file_name().to_str().unwrap_or_default();
            numbers.extend(name.strip_suffix(".json").and_then(|n| n.parse::<u32>().ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn read(&self, number: u32) -> Result<(Vec<u8>, i64)> {
        let name = name(number);
        let text = file::read_bounded(&self.0, &name, CONFIG_LIMIT_BYTES)?;
        let stat = fs::statat(&self.0, name.as_str(), AtFlags::SYMLINK_NOFOLLOW)
            .call(|| format!("stat({name:?})"))?;
        Ok((text, stat.st_mtime))
    }

    fn remove(&self, number: u32) -> Result<()> {
        let name = name(number);
        Ok(fs::unlinkat(&self.0, name.as_str(), AtFlags::empty()).call(|| format!("unlinkat({name:?})"))?)
    }

    /// The latest entry; one that equals `config` is of an interrupted change and is dropped.
    fn latest_other_than(&self, config: &[u8]) -> Result<Option<(u32, Vec<u8>)>> {
        for number in self.numbers()?.into_iter().rev() {
            let (text, _) = self.read(number)?;
            if text != config {
                return Ok(Some((number, text)));
            }
            self.remove(number)?;
        }
        Ok(None)
    }

    fn keep(&self, config: &[u8]) -> Result<()> {
        let latest = self.latest_other_than(config)?.map_or(0, |(number, _)| number);
        let number =
            latest.checked_add(1).ok_or_else(|| Fault::new(Kind::Exhausted, "the history is full"))?;
        file::replace(&self.0, &name(number), config, Mode::from_raw_mode(0o644), Durability::Power)?;
        let numbers = self.numbers()?;
        let surplus = numbers.len().saturating_sub(HISTORY_LIMIT);
        numbers[..surplus].iter().try_for_each(|old| self.remove(*old))
    }
}

fn name(number: u32) -> String {
    format!("{number:04}.json")
}

#[cfg(test)]
mod tests;
