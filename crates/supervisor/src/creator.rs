//! The creator: a fork of the supervisor that does everything big once, reports, and takes its heap with it.

use std::os::fd::OwnedFd;

use bale_fault::{Context, Fault, Kind, Result};
use bale_record::control::{Event, Failure};
use bale_record::{Dir, Exit, Phase, ProcessId, Record, time};
use bale_runtime::{CgroupManager, CreateOptions, InitParent, RootSource, Stdio};
use bale_spec::runtime::RuntimeConfig;
use bale_sys::error::Call;
use bale_sys::file;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::process::Signal;

/// Below which the cgroups of the engine's containers are made.
const CGROUP_PARENT: &str = "bale";
/// The largest config that is read, in bytes.
const CONFIG_LIMIT_BYTES: usize = bale_spec::json::CONFIG_LIMIT_BYTES;

/// Starts the creator and returns where it reports.
///
/// # Errors
/// The failed call.
pub fn start(dir: &Dir, stdio: Stdio) -> Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        .call(|| "socketpair(AF_UNIX, SOCK_SEQPACKET)")?;
    let supervisor = rustix::process::getpid();
    let body = move || {
        let event = die_with(supervisor).and_then(|()| create(dir, stdio)).map_or_else(
            |fault| {
                give_up(dir, &fault);
                Event::Failed(Failure::from(&fault))
            },
            |pid| Event::Started { pid },
        );
        // Without a supervisor there is nobody to tell.
        let _ = rustix::net::send(&theirs, &event.encode(), SendFlags::NOSIGNAL);
        0
    };
    // Its end needs no watching: it reports, or its end of the socket closes.
    bale_sys::process::fork_once(body)?;
    Ok(ours)
}

/// Reads the creator's report; `None` when it died without one.
#[must_use]
pub fn report(socket: &OwnedFd) -> Option<Event> {
    let mut bytes = vec![0u8; bale_record::control::PAYLOAD_LIMIT_BYTES];
    let (length, _) = rustix::net::recv(socket, &mut bytes, RecvFlags::DONTWAIT).ok()?;
    Event::decode(bytes.get(..length)?).ok()
}

/// Ends this process with the supervisor: what it makes without one would be nobody's child.
///
/// # Errors
/// The failed call; `Interrupted` when the supervisor has ended.
pub fn die_with(supervisor: rustix::process::Pid) -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .call(|| "prctl(PR_SET_PDEATHSIG)")?;
    if rustix::process::getppid() != Some(supervisor) {
        return Err(Fault::new(Kind::Interrupted, "the supervisor died"));
    }
    Ok(())
}

/// Makes the container and runs its program.
fn create(dir: &Dir, stdio: Stdio) -> Result<i32> {
    let record = declare(dir)?;
    let config = config(dir, &record)?;
    let bundle = std::path::Path::new(&record.bundle);
    let options = CreateOptions {
        dir,
        bundle,
        config,
        root: root(dir, &record)?,
        stdio,
        init_parent: InitParent::Sibling,
        wait_for_start: false,
        cgroup_manager: CgroupManager::Cgroupfs,
        default_cgroup_parent: CGROUP_PARENT.to_owned(),
        no_pivot: false,
        no_new_keyring: false,
        preserve_fds: 0,
        pid_file: None,
        pidfd_socket: None,
    };
    bale_runtime::create(options).map(|created| created.pid)
}

/// Writes down that this container is being made, and by whom.
fn declare(dir: &Dir) -> Result<Record> {
    let locked = dir.lock()?;
    let mut record = locked.load()?;
    let supervisor = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    record.phase = Phase::Creating;
    record.supervisor = Some(ProcessId::of(supervisor)?);
    record.init = None;
    record.exit = None;
    record.started = None;
    locked.save(&record)?;
    Ok(record)
}

/// Reads the config that the engine made for this container.
fn config(dir: &Dir, record: &Record) -> Result<RuntimeConfig> {
    let path = bale_sys::root::RelPath::new("bundle/config.json");
    let path = path.map_err(|e| Fault::new(Kind::Internal, e.to_string()))?;
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK;
    let fd = dir.root().open_at(&path, flags, bale_sys::root::Links::Refused)?;
    let text = file::read_fd_bounded(fd, "config.json", CONFIG_LIMIT_BYTES)?;
    let mut config = RuntimeConfig::parse(&text)
        .map_err(|e| Fault::new(Kind::Corrupt, "parse config.json").caused_by(e))
        .within(|| format!("container {}", dir.id()))?;
    if record.engine.get("seccomp").and_then(|v| v.as_str()) == Some("default") {
        set_default_filter(&mut config);
    }
    if record.engine.get("init").and_then(serde_json::Value::as_bool) == Some(true) {
        put_init_in_front(&mut config);
    }
    Ok(config)
}

/// Has the program started by a small init, which is this sealed binary (`bale @init`).
fn put_init_in_front(config: &mut RuntimeConfig) {
    if let Some(process) = &mut config.process {
        let program = std::mem::take(&mut process.args);
        process.args =
            ["/proc/self/exe", "@init", "--"].map(str::to_owned).into_iter().chain(program).collect();
    }
}

/// Adds docker's filter, which is the runtime's data and not part of the config that the engine writes.
fn set_default_filter(config: &mut RuntimeConfig) {
    let capabilities = config.process.as_ref().and_then(|p| p.capabilities.as_ref());
    let bounding: Vec<&str> =
        capabilities.map(|c| c.bounding.iter().map(String::as_str).collect()).unwrap_or_default();
    let filter = bale_runtime::seccomp::docker_default(&bounding);
    config.linux.get_or_insert_default().seccomp = Some(filter);
}

/// Says where the root file system comes from: the engine keeps the layers of an image, the top one first.
fn root(dir: &Dir, record: &Record) -> Result<RootSource> {
    let Some(lowers) = record.engine.get("lowers").and_then(|v| v.as_array()) else {
        return Ok(RootSource::Config);
    };
    let lowers: Option<Vec<_>> =
        lowers.iter().map(|path| path.as_str().map(std::path::PathBuf::from)).collect();
    let words = || Fault::new(Kind::Corrupt, "the record's list of layers is damaged");
    let (upper, work) = (dir.path().join("upper"), dir.path().join("work"));
    Ok(RootSource::Overlay { lowers: lowers.ok_or_else(words)?, upper, work })
}

/// Writes down that the container could not be made.
fn give_up(dir: &Dir, fault: &Fault) {
    let code = match fault.kind() {
        Kind::ProgramNotFound => 127,
        Kind::ProgramNotExecutable => 126,
        _ => 128,
    };
    let error = Some(fault.chain());
    let exit = Exit { code: Some(code), signal: None, oom: false, at: time::now(), error };
    let write = || -> Result<()> {
        let locked = dir.lock()?;
        let mut record = locked.load()?;
        record.phase = Phase::Stopped;
        record.init = None;
        record.supervisor = None;
        record.exit = Some(exit);
        locked.save(&record)
    };
    // The failure itself goes to the client; a second one (a full disk) would only hide it.
    let _ = write();
}
