//! The systemd driver: a container's cgroup is a transient scope, made around init by systemd, which stays the only
//! writer of the tree; below the scope, and of its limits, the container is the owner (`Delegate=`).
//!
//! Limits are told to systemd, which would take them back otherwise, and written to the cgroup's files as well, which
//! have more of them. The unit is gone with the container: also one that failed (`CollectMode=`).

mod annotation;
mod bus;
mod unit;
pub(crate) mod wire;

use std::collections::BTreeMap;
use std::path::PathBuf;

use bale_fault::{Context, Fault, Kind, Result};
use bale_record::Cgroup;
use bale_spec::runtime::Resources;
use bale_sys::root::RelPath;
use rustix::process::geteuid;

use super::group::{Group, read_file};
use super::host::{Hierarchy, Host, Layout, in_user_namespace};
use super::{Handle, v2};
use bus::{Answer, Bus, Whose, accept, manager};
pub use unit::Unit;
use wire::Writer;

/// The prefix of annotations that are properties of the unit.
pub const ANNOTATIONS: &str = annotation::PREFIX;

/// Whose systemd makes the units of this process: a user's own, where it may not ask the host's.
fn whose() -> Whose {
    if geteuid().is_root() && !in_user_namespace() { Whose::System } else { Whose::User }
}

/// Names the unit of a container by `linux.cgroupsPath`.
///
/// # Errors
/// `Unsupported` on a host that is not on cgroup v2; `InvalidInput` for a path in another form.
pub fn unit(host: &Host, path: Option<&str>, id: &str) -> Result<Unit> {
    if host.layout() != Layout::Unified {
        let words = "the systemd cgroup driver works on cgroup v2 only, and this host has v1";
        return Err(Fault::new(Kind::Unsupported, words).hint(
            "use the cgroupfs driver: leave out --systemd-cgroup, and give linux.cgroupsPath as a path",
        ));
    }
    Unit::new(path, id, whose())
}

/// Tells where the unit's cgroup will be, as far as that is known before it is there.
///
/// # Errors
/// `InvalidInput`.
pub fn locate(host: &Host, unit: &Unit) -> Result<Cgroup> {
    let mut record = Cgroup { unit: Some(unit.name.clone()), ..Cgroup::default() };
    // A user's systemd has its slices somewhere below the host's.
    if whose() == Whose::System {
        record.unified = Some(below_mount(unified(host)?, &unit.path()?)?);
    }
    Ok(record)
}

/// Has systemd make the unit around the process `pid`, and opens its cgroup.
///
/// # Errors
/// systemd's words; `Unavailable` when it does not answer in time. The unit may be there then, for [`stop`].
pub fn start(
    host: &Host,
    unit: &Unit,
    (id, pid): (&str, i32),
    resources: &Resources,
    annotations: &BTreeMap<String, String>,
) -> Result<Handle> {
    let properties = unit.properties(id, pid, resources, annotations)?;
    let begin = || -> Result<Handle> {
        let mut bus = Bus::open(whose(), bus::PATIENCE)?;
        let job = begin(&mut bus, &unit.name, &properties)?;
        want_done(&bus.wait_job(&job)?, &unit.name)?;
        let group = join(host, unit, pid)?;
        let handle = Handle { unified: Some(group), unit: Some(unit.name.clone()), ..Handle::default() };
        let needed = handle.needed_of_v2(resources);
        let hierarchy = unified(host)?;
        if let Some(path) = handle.unified.as_ref().and_then(|group| rel(hierarchy, group)) {
            // For those that systemd does not know: it gives the others itself.
            v2::give_controllers(&super::mount_of(hierarchy)?, &path, Some(&needed))?;
        }
        Ok(handle)
    };
    begin().within(|| format!("make the systemd unit {:?}", unit.name))
}

/// Asks for the unit, and returns the job. What an earlier container has left as failed is forgotten first.
fn begin(bus: &mut Bus, name: &str, properties: &unit::Properties) -> Result<String> {
    let method = manager("StartTransientUnit");
    let mut answer = bus.call(&method, "ssa(sv)a(sa(sv))", start_words(name, properties))?;
    if let Answer::Refused(error, _) = &answer
        && error.ends_with(".UnitExists")
    {
        forget(bus, name)?;
        answer = bus.call(&method, "ssa(sv)a(sa(sv))", start_words(name, properties))?;
    }
    Ok(accept(answer, &method)?.body().text()?.to_owned())
}

fn start_words(name: &str, properties: &unit::Properties) -> Writer {
    let mut words = Writer::default();
    words.text(name);
    words.text("replace");
    words.properties(properties);
    // No other units with it.
    words.array(8, |_| {});
    words
}

fn want_done(result: &str, name: &str) -> Result<()> {
    if result == "done" {
        return Ok(());
    }
    let words = format!("systemd's job to start {name:?} ended as {result:?}");
    Err(Fault::new(Kind::Os, words).hint(format!("see `systemctl status {name}` and `journalctl -u {name}`")))
}

/// Finds the cgroup that systemd has moved the process to.
fn join(host: &Host, unit: &Unit, pid: i32) -> Result<Group> {
    let hierarchy = unified(host)?;
    let text = read_file(&PathBuf::from(format!("/proc/{pid}/cgroup")))?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"));
    // The kernel's word, not systemd's: it is what the process is limited by.
    let path =
        path.filter(|path| path.rsplit('/').next() == Some(&unit.name)).ok_or_else(|| not_there(unit))?;
    Group::open(&below_mount(hierarchy, path)?)?.ok_or_else(|| not_there(unit))
}

fn not_there(unit: &Unit) -> Fault {
    Fault::new(Kind::Os, format!("systemd did not take init into {:?}", unit.name))
}

/// Tells systemd of changed limits. (Their files are written by [`Handle::update`].)
///
/// # Errors
/// As [`start`].
pub fn update(name: &str, resources: &Resources) -> Result<()> {
    let properties = unit::limits(resources)?;
    if properties.is_empty() {
        return Ok(());
    }
    let method = manager("SetUnitProperties");
    let mut words = Writer::default();
    words.text(name);
    // Until the unit is gone, that is.
    words.boolean(true);
    words.properties(&properties);
    let set = || accept(Bus::open(whose(), bus::PATIENCE)?.call(&method, "sba(sv)", words)?, &method);
    set().map(drop).within(|| format!("change the systemd unit {name:?}"))
}

/// Stops a unit, whose processes have ended, and waits until it is gone. A unit that is not there is no error.
///
/// # Errors
/// As [`start`].
pub fn stop(name: &str) -> Result<()> {
    let end = || {
        let mut bus = Bus::open(whose(), bus::PATIENCE_AT_THE_END)?;
        let method = manager("StopUnit");
        let mut words = Writer::default();
        words.text(name);
        words.text("replace");
        match accept(bus.call(&method, "ss", words)?, &method) {
            Err(fault) if fault.kind() == Kind::NotFound => return Ok(()),
            answer => bus.wait_job(answer?.body().text()?).map(drop)?,
        }
        forget(&mut bus, name)
    };
    end().within(|| format!("stop the systemd unit {name:?}"))
}

/// Forgets that a unit failed.
fn forget(bus: &mut Bus, name: &str) -> Result<()> {
    let method = manager("ResetFailedUnit");
    let mut words = Writer::default();
    words.text(name);
    match accept(bus.call(&method, "s", words)?, &method) {
        Err(fault) if fault.kind() != Kind::NotFound => Err(fault),
        _ => Ok(()),
    }
}

/// Reads the words of a config that decide of a unit; see [`crate::fuzz`].
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz_words(path: &str, processors: &str, name: &str, value: &str) {
    if let Ok(unit) = Unit::new(Some(path), "id", Whose::System) {
        assert!(unit.name.ends_with(".scope") && !unit.name.contains('/'), "{unit:?}");
        let path = unit.path().expect("a slice that was accepted");
        assert!(path.split('/').all(|part| part != ".." && part != "."), "{path}");
    }
    if let Some(bits) = unit::bits(processors) {
        assert!(bits.last().is_some_and(|byte| *byte != 0) && bits.len() <= 1 << 13);
    }
    let annotations = BTreeMap::from([(format!("{ANNOTATIONS}{name}"), value.to_owned())]);
    if let Ok(properties) = annotation::properties(&annotations) {
        assert!(properties.iter().all(|(name, _)| name.bytes().all(|byte| byte.is_ascii_alphabetic())));
    }
}

fn unified(host: &Host) -> Result<&Hierarchy> {
    host.unified.as_ref().ok_or_else(|| Fault::new(Kind::Unsupported, "cgroup v2 is not mounted"))
}

/// A cgroup's directory by its path in the hierarchy.
fn below_mount(hierarchy: &Hierarchy, path: &str) -> Result<PathBuf> {
    let below = hierarchy.below(path)?;
    Ok(super::directory(&hierarchy.mount, &below, below.components().len()))
}

fn rel(hierarchy: &Hierarchy, group: &Group) -> Option<RelPath> {
    let below = group.path().strip_prefix(&hierarchy.mount).ok()?;
    RelPath::new(below.to_str()?).ok()
}
