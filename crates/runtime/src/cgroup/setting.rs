//! A limit as a file and a value, and writing it so that a failure tells the likely cause.

use std::borrow::Cow;

use bale_fault::{Fault, Kind, Result};
use bale_sys::error::Error;
use rustix::io::Errno;

use super::group::Group;

/// One limit, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Files and values; the first file that exists is written.
    pub choices: Vec<(Cow<'static, str>, String)>,
    /// JSON path of the field it comes from.
    pub field: Cow<'static, str>,
    /// Needs another limit that stands later: tried again at the end when the kernel calls it invalid.
    pub depends: bool,
    /// A kernel without the file has nothing to limit.
    pub may_lack: bool,
}

impl Setting {
    /// Makes a limit that must be written.
    #[allow(clippy::needless_pass_by_value)] // most values are numbers
    pub fn new(
        file: impl Into<Cow<'static, str>>,
        value: impl ToString,
        field: impl Into<Cow<'static, str>>,
    ) -> Self {
        let choices = vec![(file.into(), value.to_string())];
        Self { choices, field: field.into(), depends: false, may_lack: false }
    }

    /// Adds a file to write when the ones before do not exist.
    #[allow(clippy::needless_pass_by_value)] // as in `new`
    pub fn or(mut self, file: impl Into<Cow<'static, str>>, value: impl std::fmt::Display) -> Self {
        self.choices.push((file.into(), value.to_string()));
        self
    }

    /// Says that it may have to wait for a later limit.
    pub const fn depending(mut self) -> Self {
        self.depends = true;
        self
    }

    /// Says that the file may be absent.
    pub const fn if_there(mut self) -> Self {
        self.may_lack = true;
        self
    }
}

/// Writes limits, in order.
pub fn apply(group: &Group, settings: &[Setting]) -> Result<()> {
    let mut later = Vec::new();
    for setting in settings {
        match write(group, setting) {
            Err((_, error)) if setting.depends && error.errno() == Errno::INVAL => later.push(setting),
            Err((choice, error)) => return Err(explain(group, setting, choice, error)),
            Ok(()) => {}
        }
    }
    for setting in later {
        write(group, setting).map_err(|(choice, error)| explain(group, setting, choice, error))?;
    }
    Ok(())
}

fn write(group: &Group, setting: &Setting) -> std::result::Result<(), (usize, Error)> {
    let last = setting.choices.len() - 1;
    for (at, (file, value)) in setting.choices.iter().enumerate() {
        match group.write(file, value) {
            Err(error) if error.errno() == Errno::NOENT && at < last => {}
            Err(error) if error.errno() == Errno::NOENT && setting.may_lack => {}
            Err(error) => return Err((at, error)),
            Ok(()) => return Ok(()),
        }
    }
    Ok(())
}

fn explain(group: &Group, setting: &Setting, choice: usize, error: Error) -> Fault {
    let (file, value) = &setting.choices[choice];
    let words = format!("{}: set {file} to {value:?} in {:?}", setting.field, group.path());
    let controller = file.split('.').next().unwrap_or_default();
    let cause = match error.errno() {
        Errno::NOENT => Some(missing(group, controller, file)),
        // v1 answers EACCES for processors that the parent lacks, and ERANGE for those that no host has.
        Errno::INVAL | Errno::ACCESS | Errno::RANGE if controller == "cpuset" => {
            Some(("not within the parent's processors or memory nodes".to_owned(), allowed(group)))
        }
        Errno::ACCESS | Errno::PERM | Errno::ROFS => not_enabled(group, controller).or_else(|| {
            let words = "the cgroup is not this user's to write".to_owned();
            Some((words, "run as root, or have the cgroup delegated (systemd: Delegate=yes)".to_owned()))
        }),
        Errno::BUSY | Errno::INVAL if controller == "memory" => usage(group),
        _ => None,
    };
    let fault: Fault = error.into();
    let kind = match fault.kind() {
        Kind::Os => Kind::InvalidInput,
        Kind::PermissionDenied if controller == "cpuset" => Kind::InvalidInput,
        // The limit is known and the file is not there: it is the host that lacks something.
        Kind::NotFound => Kind::Unsupported,
        kind => kind,
    };
    match cause {
        Some((cause, hint)) => {
            Fault::new(kind, words).caused_by(Fault::new(kind, cause).hint(hint).caused_by(fault))
        }
        None => Fault::new(kind, words).caused_by(fault),
    }
}

/// Says whether a controller of v2 is not enabled for the cgroup.
fn not_enabled(group: &Group, controller: &str) -> Option<(String, String)> {
    let enabled = group.read_if_there("cgroup.controllers").ok().flatten()?;
    if controller == "cgroup" || enabled.split_whitespace().any(|name| name == controller) {
        return None;
    }
    let words = format!("controller {controller:?} is not available here (there are: {})", enabled.trim());
    let hint = format!(
        "enable it in cgroup.subtree_control of the cgroups above, or have it delegated (systemd: Delegate={controller})"
    );
    Some((words, hint))
}

fn missing(group: &Group, controller: &str, file: &str) -> (String, String) {
    not_enabled(group, controller).unwrap_or_else(|| {
        let words = format!("this kernel has no {file}");
        (words, "leave the limit out, or use a kernel with it".to_owned())
    })
}

fn usage(group: &Group) -> Option<(String, String)> {
    let read = |v1, v2| group.read_number(v1).or_else(|| group.read_number(v2));
    let now = read("memory.usage_in_bytes", "memory.current")?;
    let peak = read("memory.max_usage_in_bytes", "memory.peak").unwrap_or(now);
    let words = format!("unable to set memory limit (current usage: {now}, peak usage: {peak})");
    let least = now.next_multiple_of(rustix::param::page_size() as u64).max(super::MEMORY_FLOOR_BYTES);
    Some((
        words,
        format!("the smallest limit that works now is {least}; memory plus swap is at least memory"),
    ))
}

fn allowed(group: &Group) -> String {
    let above = group.path().parent().and_then(|path| Group::open(path).ok().flatten());
    let read =
        |name: &str| above.as_ref().and_then(|g| g.read_if_there(name).ok().flatten()).unwrap_or_default();
    let either = |a: &str, b: &str| Some(read(a)).filter(|t| !t.trim().is_empty()).unwrap_or_else(|| read(b));
    format!(
        "allowed are processors {} and memory nodes {}",
        either("cpuset.cpus.effective", "cpuset.effective_cpus").trim(),
        either("cpuset.mems.effective", "cpuset.effective_mems").trim()
    )
}
