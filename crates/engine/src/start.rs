//! `start`: a supervisor takes a container over and runs its program.

use std::fs::File;

use bale_fault::{Context, Fault, Kind, Result};
use bale_record::settings::{Input, Settings};
use bale_record::{Phase, ProcessId, Record};
use bale_sys::signal::SignalFd;

use crate::Engine;
use crate::attach::{AttachOptions, Left, block_signals, check_terminal, exit_of_record, relay};
use crate::container::{Container, Status, status};
use crate::spawn;

/// How a container is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the background.
    Detached,
    /// With the user connected to it.
    Attached {
        /// The user's standard input is passed on.
        stdin: bool,
        /// The user's signals are passed on.
        signals: bool,
    },
}

/// A container that runs.
#[derive(Debug)]
pub enum Ran {
    /// It goes on without the user.
    InBackground,
    /// The user was connected until this happened.
    Foreground(Left),
}

impl Engine {
    /// Starts a container that does not run; nothing happens when it does and nobody wants to be connected.
    ///
    /// # Errors
    /// Why its program does not run: `ProgramNotFound`, `ProgramNotExecutable`, or the failed step.
    pub fn start(&self, name: &str, mode: Mode) -> Result<Ran> {
        let mut container = self.container(name)?;
        if container.status().is_running() {
            return match mode {
                Mode::Detached => Ok(Ran::InBackground),
                Mode::Attached { stdin, signals } => self.attach(name, stdin, signals).map(Ran::Foreground),
            };
        }
        if !matches!(container.record.phase, Phase::Configured | Phase::Stopped) {
            // A supervisor that was killed left its cgroup.
            container = self.settle(container)?;
        }
        if let Some(manifest) = &container.details.image_manifest {
            self.check_layers(manifest).map_err(|fault| fault.within(format!("start container {name}")))?;
        }
        let before = reserve(&container)?;
        let ran = launch(&container, mode);
        if let Err(Launch::NotSpawned(_)) = &ran {
            container.dir.lock()?.save(&before)?;
        }
        ran.map_err(Launch::into_fault).map_err(|fault| fault.within(format!("start container {name}")))
    }
}

/// Claims the right to start the container, so that nobody else starts it too; returns the record as it was.
fn reserve(container: &Container) -> Result<Record> {
    let locked = container.dir.lock()?;
    let before = locked.load()?;
    let startable = matches!(before.phase, Phase::Configured | Phase::Stopped);
    if !startable {
        let now = status(&before).name();
        let words = format!("container {} is {now}, and cannot be started", container.details.name);
        let fault = Fault::new(Kind::Conflict, words);
        let broken = status(&before) == Status::Dead;
        return Err(if broken {
            fault.hint("its making was broken off; remove it with `bale rm`")
        } else {
            fault
        });
    }
    let mut record = before.clone();
    record.phase = Phase::Creating;
    record.supervisor = Some(ProcessId::of(rustix::process::getpid().as_raw_nonzero().get())?);
    locked.save(&record)?;
    Ok(before)
}

/// Where a start failed.
pub(crate) enum Launch {
    /// There is no supervisor, so nobody has written the failure down.
    NotSpawned(Fault),
    /// The supervisor told, and wrote it down.
    Failed(Fault),
}

impl Launch {
    pub(crate) fn into_fault(self) -> Fault {
        match self {
            Self::NotSpawned(fault) | Self::Failed(fault) => fault,
        }
    }
}

/// Starts the supervisor of a container that this process owns, and connects the user if wanted.
pub(crate) fn launch(container: &Container, mode: Mode) -> std::result::Result<Ran, Launch> {
    let details = &container.details;
    let input = match mode {
        Mode::Attached { stdin: true, .. } => Input::Once,
        _ if details.interactive => Input::Open,
        _ => Input::Null,
    };
    let settings = Settings {
        dir: container.dir.path().to_owned(),
        tty: details.tty,
        input,
        remove: details.auto_remove,
    };
    let prepared = match mode {
        Mode::Detached => None,
        Mode::Attached { stdin, signals } => {
            Some(prepare(container, stdin, signals).map_err(Launch::NotSpawned)?)
        }
    };
    let client = spawn::supervise(&settings).map_err(Launch::NotSpawned)?;
    spawn::wait_started(&client).map_err(Launch::Failed)?;
    let Some(foreground) = prepared else { return Ok(Ran::InBackground) };
    let left =
        relay(&client, &foreground.blocked, foreground.log, foreground.options).map_err(Launch::Failed)?;
    Ok(Ran::Foreground(if left == Left::Lost { exit_of_record(container) } else { left }))
}

/// What the user's side of a container needs.
struct Foreground {
    blocked: SignalFd,
    log: File,
    options: AttachOptions,
}

/// Gets the user's side ready before the container exists: no signal is lost in between, and the log of one that is
/// gone again in no time can still be read.
fn prepare(container: &Container, stdin: bool, signals: bool) -> Result<Foreground> {
    let tty = container.details.tty;
    check_terminal(stdin, tty)?;
    let log = container.create_log()?;
    let from_bytes = log.metadata().within(|| "stat the log")?.len();
    Ok(Foreground {
        blocked: block_signals()?,
        log,
        options: AttachOptions { stdin, tty, signals, from_bytes },
    })
}
