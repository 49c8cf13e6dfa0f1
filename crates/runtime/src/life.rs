//! The verbs on a container that exists: state, signals, freezing, limits, removal.

use std::path::Path;

use bale_fault::{Context, Fault, Kind, Result};
use bale_record::{Cgroup, Dir, Phase, ProcessId, Record};
use bale_spec::runtime::{Resources, State, Status};
use bale_sys::process;

use crate::cgroup::{self, Handle};
use crate::container::cgroup_of;
use crate::hooks;
use crate::kept::Kept;
use crate::parent::hook_state;
use crate::shared_mounts;
use crate::timings;

/// How long a killed process may take to end before that is told, in milliseconds.
const END_TIMEOUT_MS: u32 = 10_000;

/// Tells how a container is.
///
/// # Errors
/// `NotFound`, `Corrupt`.
pub fn state(dir: &Dir) -> Result<State> {
    let record = load(dir)?;
    let status = status(&record);
    let alive = status != Status::Stopped;
    Ok(State {
        oci_version: oci_version(&record),
        id: record.id.clone(),
        pid: record.init.as_ref().filter(|_| alive).map_or(0, |init| init.pid),
        status,
        bundle: record.bundle.clone(),
        rootfs: record.rootfs.clone(),
        created: record.created.clone(),
        annotations: record.annotations.clone(),
        owner: String::new(),
    })
}

fn oci_version(record: &Record) -> String {
    let version = Kept::of(record).oci_version;
    if version.is_empty() { bale_spec::runtime::SPEC_VERSION.to_owned() } else { version }
}

/// Reads the record. A directory without one is a container whose making was cut short.
fn load(dir: &Dir) -> Result<Record> {
    match dir.load() {
        Err(fault) if fault.kind() == Kind::NotFound => {
            let words = format!("container {:?} does not exist: its making was cut short", dir.id());
            Err(Fault::new(Kind::NotFound, words)
                .hint(format!("remove what is left of it: delete --force {}", dir.id())))
        }
        other => other,
    }
}

/// Returns the status that record and kernel give together.
pub(crate) fn status(record: &Record) -> Status {
    if !record.init.as_ref().is_some_and(ProcessId::is_alive) {
        return if record.phase == Phase::Creating && record.init.is_none() {
            Status::Creating
        } else {
            Status::Stopped
        };
    }
    let frozen = || open_cgroup(record).is_ok_and(|group| group.is_frozen().unwrap_or(false));
    match record.phase {
        Phase::Configured | Phase::Creating => Status::Creating,
        Phase::Created => {
            if frozen() {
                Status::Paused
            } else {
                Status::Created
            }
        }
        Phase::Starting | Phase::Running | Phase::Removing => {
            if frozen() {
                Status::Paused
            } else {
                Status::Running
            }
        }
        Phase::Stopped => Status::Stopped,
    }
}

fn open_cgroup(record: &Record) -> Result<Handle> {
    let none = Cgroup::default();
    cgroup::open(cgroup_of(record).unwrap_or(&none))
}

/// Opens init, alive.
pub(crate) fn open_init(record: &Record) -> Result<std::os::fd::OwnedFd> {
    let not_running = || Fault::new(Kind::Conflict, "container not running");
    let init = record.init.as_ref().filter(|init| init.is_alive()).ok_or_else(not_running)?;
    init.open()?.ok_or_else(not_running)
}

/// Sends a signal to init.
///
/// # Errors
/// `Conflict` ("container not running") when it has ended.
pub fn kill(dir: &Dir, signal: i32) -> Result<()> {
    let record = load(dir)?;
    let shared = Kept::of(&record).shared_pids;
    // Without a pid namespace the others of the container outlive init: SIGKILL is for all of them (as runc).
    // Looked at first, as it is among them.
    let init = open_init(&record);
    if signal == 9 && shared && cgroup_of(&record).is_some() {
        open_cgroup(&record)?.kill_all()?;
        return init.map(drop);
    }
    process::send_signal(&init?, signal)?;
    // A frozen process would get it only when thawed (as runc: SIGKILL thaws).
    if signal == 9 && cgroup_of(&record).is_some() {
        let group = open_cgroup(&record)?;
        if group.is_frozen().unwrap_or(false) {
            group.freeze(false)?;
        }
    }
    Ok(())
}

/// Kills every process of the container.
///
/// # Errors
/// The failed call.
pub fn kill_all(dir: &Dir) -> Result<()> {
    open_cgroup(&load(dir)?)?.kill_all()
}

/// Removes a container: its processes, cgroup, poststop hooks, record, directory.
///
/// # Errors
/// `Conflict` when it runs and `force` is not given.
#[allow(clippy::needless_pass_by_value, reason = "nothing can be done with it afterwards")]
pub fn delete(dir: Dir, force: bool) -> Result<()> {
    let locked = dir.lock()?;
    let mut record = match locked.load() {
        Ok(record) => record,
        // Killed before it wrote what it was about to do: there is only the directory.
        Err(fault) if fault.kind() == Kind::NotFound => return locked.remove(),
        Err(fault) => return Err(fault),
    };
    let status = status(&record);
    timings::stage("lock, read");
    if matches!(status, Status::Running | Status::Paused) && !force {
        let words = format!("cannot delete container {} that is not stopped: {}", record.id, status.name());
        return Err(
            Fault::new(Kind::Conflict, words).hint(format!("kill it first, or delete --force {}", record.id))
        );
    }
    if status == Status::Creating && record.phase == Phase::Creating && !force && record.init.is_none() {
        let words = format!("cannot delete container {} that is not stopped: creating", record.id);
        return Err(Fault::new(Kind::Conflict, words).hint(format!("delete --force {}", record.id)));
    }
    // Nothing but directories is left of a container without processes and hooks: whoever is killed on the way leaves
    // a record that says so, and what is removed twice is no harm.
    let only_directories = status == Status::Stopped && Kept::of(&record).poststop.is_empty();
    if record.phase != Phase::Removing && !only_directories {
        record.phase = Phase::Removing;
        locked.save(&record)?;
    }
    let ended = end_processes(&record);
    timings::stage("processes and cgroup");
    let hooks = poststop(&record);
    ended?;
    locked.remove()?;
    timings::stage("record removed");
    hooks
}

/// Does what [`delete`] does, except that record and directory stay: for the supervisor, after the end of init.
///
/// # Errors
/// What failed; everything is tried.
pub fn teardown(dir: &Dir) -> Result<()> {
    let record = load(dir)?;
    let ended = end_processes(&record);
    let hooks = poststop(&record);
    ended.and(hooks)
}

fn end_processes(record: &Record) -> Result<()> {
    if let Some(init) = record.init.as_ref().filter(|init| init.is_alive())
        && let Some(pidfd) = init.open()?
    {
        // ESRCH: it has ended meanwhile.
        let _ = process::send_signal(&pidfd, 9);
        if cgroup_of(record).is_some() {
            let group = open_cgroup(record)?;
            if group.is_frozen().unwrap_or(false) {
                group.freeze(false)?;
            }
        }
        if !init.wait_end(&pidfd, Some(END_TIMEOUT_MS))? {
            let words = format!("init ({}) does not end", init.pid);
            return Err(Fault::new(Kind::Conflict, words)
                .hint("it waits in the kernel, for a device or a file server"));
        }
    }
    cgroup_of(record).map_or(Ok(()), remove_cgroup)?;
    Kept::rdt_of(record).map_or(Ok(()), |rdt| rdt.remove())?;
    shared_mounts::remove(record)
}

/// Removes cgroups of a record, with what is still in them.
pub(crate) fn remove_cgroup(cgroup: &Cgroup) -> Result<()> {
    cgroup::remove(cgroup)
}

fn poststop(record: &Record) -> Result<()> {
    let kept = Kept::of(record);
    if kept.poststop.is_empty() {
        return Ok(());
    }
    let state = hook_state(record, 0, Status::Stopped);
    // All of them run, whatever the others did (runtime-spec: a failure is logged, the rest goes on).
    let mut first = Ok(());
    for hook in &kept.poststop {
        let ran = hooks::run("poststop", std::slice::from_ref(hook), &state, Path::new(&record.bundle));
        first = first.and(ran);
    }
    first
}

/// Lists the pids of a container's processes, as the caller sees them.
///
/// # Errors
/// The failed call.
pub fn processes(dir: &Dir) -> Result<Vec<i32>> {
    let record = load(dir)?;
    match cgroup_of(&record) {
        Some(_) => open_cgroup(&record)?.pids(),
        None => Ok(record.init.iter().filter(|init| init.is_alive()).map(|init| init.pid).collect()),
    }
}

/// Freezes a container.
///
/// # Errors
/// `Conflict` when it does not run.
pub fn pause(dir: &Dir) -> Result<()> {
    let record = load(dir)?;
    match status(&record) {
        Status::Running | Status::Created => freeze(&record, true),
        other => {
            Err(Fault::new(Kind::Conflict, format!("container not running or created: {}", other.name())))
        }
    }
}

/// Thaws a container.
///
/// # Errors
/// `Conflict` when it is not paused.
pub fn resume(dir: &Dir) -> Result<()> {
    let record = load(dir)?;
    match status(&record) {
        Status::Paused => freeze(&record, false),
        _ => Err(Fault::new(Kind::Conflict, "container not paused")),
    }
}

fn freeze(record: &Record, frozen: bool) -> Result<()> {
    if cgroup_of(record).is_none() {
        return Err(Fault::new(Kind::Unsupported, "a container without a cgroup cannot be frozen"));
    }
    open_cgroup(record)?.freeze(frozen)
}

/// Changes limits of a container.
///
/// # Errors
/// The file that refused the value.
pub fn update(dir: &Dir, resources: &Resources) -> Result<()> {
    let record = load(dir)?;
    if status(&record) == Status::Stopped {
        return Err(Fault::new(Kind::Conflict, "container not running"));
    }
    let limit = || {
        if let Some(unit) = cgroup_of(&record).and_then(|cgroup| cgroup.unit.as_deref()) {
            cgroup::systemd::update(unit, resources)?;
        }
        open_cgroup(&record)?.update(resources)
    };
    limit().within(|| "update the limits")
}

/// Changes what a container may use of cache and memory bandwidth.
///
/// # Errors
/// `Unsupported` for a container that was made without `linux.intelRdt`.
pub fn update_rdt(dir: &Dir, l3_cache: Option<&str>, mem_bw: Option<&str>) -> Result<()> {
    let missing = || {
        let words = "updating a non-existent Intel RDT configuration is not supported";
        Fault::new(Kind::Unsupported, words).hint("make the container with linux.intelRdt")
    };
    Kept::rdt_of(&load(dir)?).ok_or_else(missing)?.update(l3_cache, mem_bw)
}

/// Tells whether the OOM killer was at work in the container: to be asked before [`teardown`].
#[must_use]
pub fn oom_killed(dir: &Dir) -> bool {
    let kills = load(dir).and_then(|record| open_cgroup(&record)).and_then(|group| group.oom_kills());
    kills.is_ok_and(|kills| kills > 0)
}

/// Returns what a container has used.
///
/// # Errors
/// `Conflict` when it does not run.
pub fn stats(dir: &Dir) -> Result<cgroup::Stats> {
    let record = load(dir)?;
    if status(&record) == Status::Stopped {
        return Err(Fault::new(Kind::Conflict, "container not running"));
    }
    let mut stats = open_cgroup(&record)?.stats()?;
    if let Some(rdt) = Kept::rdt_of(&record) {
        stats.intel_rdt = rdt.stats()?;
    }
    Ok(stats)
}
