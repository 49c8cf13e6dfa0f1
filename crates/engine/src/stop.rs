//! `stop` and `kill`: signals to a container's first process, and waiting for its end.

use std::os::fd::{AsFd, OwnedFd};

use bale_fault::{Fault, Kind, Result};
use bale_record::Phase;
use bale_sys::error::Call;
use bale_sys::process;
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::Engine;
use crate::client::{Client, Said};
use crate::container::{Container, Status};
use crate::spawn;

const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;
/// How long a supervisor may take to clear away after the end of its container, in milliseconds.
const SETTLE_MS: u32 = 20_000;

impl Engine {
    /// Asks a container to stop with `signal` (`None`: its own), and kills it when it has not after `timeout_seconds`
    /// (-1 waits for ever; `None` is the container's own). Nothing happens to one that does not run.
    ///
    /// # Errors
    /// The failed call.
    pub fn stop(&self, name: &str, signal: Option<i32>, timeout_seconds: Option<i64>) -> Result<()> {
        let container = self.container(name)?;
        let Some(init) = init_of(&container)? else { return self.settle(container).map(|_| ()) };
        let own = match container.details.stop_signal {
            0 => SIGTERM,
            signal => signal,
        };
        send(&init, signal.unwrap_or(own))?;
        let seconds = timeout_seconds.unwrap_or(container.details.stop_timeout_seconds);
        let timeout = u32::try_from(seconds).ok().map(|s| s.saturating_mul(1000));
        if !wait_end(&container, &init, timeout)? {
            send(&init, SIGKILL)?;
            wait_end(&container, &init, None)?;
        }
        self.settle(container).map(|_| ())
    }

    /// Sends a signal to a container's first process; after SIGKILL its end is waited for.
    ///
    /// # Errors
    /// `Conflict` when it does not run.
    pub fn kill(&self, name: &str, signal: i32) -> Result<()> {
        let container = self.container(name)?;
        let Some(init) = init_of(&container)? else {
            return Err(Fault::new(Kind::Conflict, format!("container {name} is not running")));
        };
        send(&init, signal)?;
        if signal == SIGKILL {
            wait_end(&container, &init, None)?;
            self.settle(container)?;
        }
        Ok(())
    }

    /// Brings the record of a container whose program has ended to rest: waits for its supervisor, or does the
    /// supervisor's work when that was lost. Returns the container as it is then; one that was to be removed at its
    /// end is gone, and returned as it was.
    ///
    /// # Errors
    /// The failed call; `Unavailable` when the supervisor hangs.
    pub(crate) fn settle(&self, mut container: Container) -> Result<Container> {
        if matches!(container.record.phase, Phase::Configured | Phase::Removing) {
            return Ok(container);
        }
        if let Some(client) = Client::connect(&container.dir)? {
            wait_for_end(&client, &container)?;
        } else if let Some(supervisor) = container.record.supervisor.as_ref().and_then(|s| s.open().ok()?) {
            // It has closed its socket already and is about to leave.
            if !process::wait_end(&supervisor, Some(SETTLE_MS))? {
                return Err(hangs(&container));
            }
        }
        if let Err(fault) = container.refresh() {
            return if fault.kind() == Kind::NotFound { Ok(container) } else { Err(fault) };
        }
        if container.record.phase != Phase::Stopped && !container.status().is_running() {
            spawn::clean(&container.dir, None)?;
            container.refresh()?;
        }
        Ok(container)
    }
}

fn hangs(container: &Container) -> Fault {
    let words = format!("the supervisor of container {} does not answer", container.details.name);
    Fault::new(Kind::Unavailable, words).hint("kill the supervisor and try again")
}

/// Waits until the supervisor closes the connection, within bounds.
fn wait_for_end(client: &Client, container: &Container) -> Result<()> {
    loop {
        let mut polled = [PollFd::new(client, PollFlags::IN)];
        let timeout = Timespec { tv_sec: i64::from(SETTLE_MS / 1000), tv_nsec: 0 };
        if rustix::event::poll(&mut polled, Some(&timeout)).call(|| "poll(<control socket>)")? == 0 {
            return Err(hangs(container));
        }
        if let Said::End = client.listen()? {
            return Ok(());
        }
    }
}

/// Waits until a container's first process, which `init` is, has ended.
pub(crate) fn wait_end(container: &Container, init: &OwnedFd, timeout_ms: Option<u32>) -> Result<bool> {
    container.record.init.as_ref().map_or(Ok(true), |known| known.wait_end(init, timeout_ms))
}

/// Opens a container's first process, if it runs.
pub(crate) fn init_of(container: &Container) -> Result<Option<OwnedFd>> {
    if !matches!(container.status(), Status::Running { .. }) {
        return Ok(None);
    }
    container.record.init.as_ref().map_or(Ok(None), |init| init.open())
}

/// Sends a signal to a process that may just have ended.
fn send(init: impl AsFd, signal: i32) -> Result<()> {
    match process::send_signal(init, signal) {
        Err(error) if error.errno() == rustix::io::Errno::SRCH => Ok(()),
        other => Ok(other?),
    }
}
