//! After the end: the record is written before anybody is told.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use bale_fault::{Context, Fault, Kind, Result, kind_of_io};
use bale_record::control::{Event, Failure};
use bale_record::{Dir, Exit, Phase, time};
use bale_sys::error::Call;
use bale_sys::process::Ended;
use rustix::io::FdFlags;

use crate::clients::{self, Client};
use crate::main_loop::{End, Outcome};

/// Writes the end into the record, tells those who wait, and returns their sockets, which are still open.
///
/// # Errors
/// The failed call; those who wait see the socket close then, and the record still names this supervisor.
pub fn tell(dir: &Dir, end: End) -> Result<Vec<OwnedFd>> {
    let event = match end.outcome {
        Outcome::Failed(failure) => Event::Failed(failure),
        Outcome::CreatorDied => creator_died(dir)?,
        Outcome::Exited(ended) => exited(dir, ended)?,
    };
    // Whoever connects from now on finds nobody and reads the record; whoever has connected is told.
    clients::unlink(dir)?;
    let mut clients = end.clients;
    clients.extend(std::iter::from_fn(|| end.listener.accept()).map(|socket| Client::new(socket, false)));
    for client in &mut clients {
        // Without a pid namespace of the container's own, processes of exec ended only with its cgroup.
        client.tell_ended();
        client.send(&event);
    }
    Ok(clients.into_iter().map(Client::into_socket).collect())
}

/// Init has ended.
fn exited(dir: &Dir, ended: Ended) -> Result<Event> {
    let code = ended.status();
    let signal = match ended {
        Ended::Signal(signal) => Some(signal),
        Ended::Code(_) => None,
    };
    // Read before the cgroup goes.
    let oom = bale_runtime::oom_killed(dir);
    let error = bale_runtime::teardown(dir).err().map(|fault| fault.chain());
    write(dir, Exit { code: Some(code), signal, oom, at: time::now(), error })?;
    Ok(Event::Exited { code, oom })
}

/// The creator was killed: whatever it had made goes.
fn creator_died(dir: &Dir) -> Result<Event> {
    let mut fault = Fault::new(Kind::Interrupted, "the process that was making the container was killed");
    if let Err(rest) = bale_runtime::teardown(dir) {
        fault = fault.hint(format!("something may be left of it: {}", rest.chain()));
    }
    let exit =
        Exit { code: Some(128), signal: None, oom: false, at: time::now(), error: Some(fault.chain()) };
    write(dir, exit)?;
    Ok(Event::Failed(Failure::from(&fault)))
}

fn write(dir: &Dir, exit: Exit) -> Result<()> {
    let locked = dir.lock()?;
    let mut record = locked.load()?;
    record.phase = Phase::Stopped;
    record.init = None;
    record.supervisor = None;
    record.exit = Some(exit);
    locked.save(&record)
}

/// Turns this process into the one that removes the container. It inherits the clients' sockets, so that a client
/// that reads the end of file knows that the container is gone.
///
/// # Errors
/// The failed execve.
pub fn become_remover(dir: &Dir, clients: &[OwnedFd]) -> Result<()> {
    for client in clients {
        rustix::io::fcntl_setfd(client, FdFlags::empty()).call(|| "fcntl(F_SETFD)")?;
    }
    let error = Command::new("/proc/self/exe")
        .arg0("bale")
        .args([OsStr::new("@remove"), OsStr::new("--dir"), dir.path().as_os_str()])
        .exec();
    let kind = kind_of_io(&error);
    Err(error)
        .within(|| "execve(\"/proc/self/exe\", [\"bale\", \"@remove\"])")
        .map_err(|f: Fault| f.with_kind(kind))
}
