//! `wait`: the exit status of a container.

use std::os::fd::OwnedFd;

use bale_fault::{Fault, Kind, Result};
use bale_record::Phase;
use bale_record::control::Event;
use bale_sys::error::Call;
use bale_sys::process::{self, Ended};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::Engine;
use crate::client::{Client, Said};
use crate::container::{Container, Status};
use crate::stop::{init_of, wait_end};

/// How long the host's init may take to reap an orphan, in seconds.
const REAP_SECONDS: i64 = 5;

impl Engine {
    /// Waits until a container does not run and returns its exit status; 0 for one that never ran.
    ///
    /// # Errors
    /// `NotFound`; `Unavailable` when nobody saw how it ended.
    pub fn wait(&self, name: &str) -> Result<u8> {
        let mut container = self.container(name)?;
        // Opened first: with it the exit status is known even if the supervisor is killed meanwhile (kernel 6.15).
        let init = init_of(&container)?;
        if let Some(code) = self.hear_exit(&container)? {
            return Ok(code);
        }
        if let Some(init) = init {
            wait_end(&container, &init, None)?;
            if let Some(ended) = exit_of(&init)? {
                return write_down(container, ended).map(|()| ended.status());
            }
        }
        if let Err(fault) = container.refresh() {
            let gone = || unknown(name).hint("it was removed");
            return Err(if fault.kind() == Kind::NotFound { gone() } else { fault });
        }
        match container.status() {
            Status::Exited(None) => Err(unknown(name).hint("its supervisor was killed")),
            _ => Ok(container.record.exit.as_ref().and_then(|exit| exit.code).unwrap_or(0)),
        }
    }

    /// Waits at the supervisor, if there is one.
    fn hear_exit(&self, container: &Container) -> Result<Option<u8>> {
        let Some(client) = Client::connect(&container.dir)? else { return Ok(None) };
        loop {
            match client.listen()? {
                Said::Event(Event::Exited { code, .. }, _) => {
                    crate::spawn::wait_end(&client)?;
                    return Ok(Some(code));
                }
                Said::End => return Ok(None),
                Said::Event(..) => {}
            }
        }
    }
}

/// Does the work of a supervisor that was killed, with the exit status that only this process knows.
fn write_down(mut container: Container, ended: Ended) -> Result<()> {
    match container.refresh() {
        Err(fault) if fault.kind() == Kind::NotFound => return Ok(()),
        other => other?,
    }
    let lost = container.record.supervisor.as_ref().is_some_and(|supervisor| !supervisor.is_alive());
    if container.record.phase == Phase::Running && lost {
        crate::spawn::clean(&container.dir, Some(ended.status()))?;
    }
    Ok(())
}

/// Returns how a process ended that is no child of this one: the kernel tells once its parent has reaped it.
fn exit_of(init: &OwnedFd) -> Result<Option<Ended>> {
    let timeout = Timespec { tv_sec: REAP_SECONDS, tv_nsec: 0 };
    rustix::event::poll(&mut [PollFd::new(init, PollFlags::HUP)], Some(&timeout)).call(|| "poll(<pidfd>)")?;
    Ok(process::exit_of(init))
}

fn unknown(name: &str) -> Fault {
    Fault::new(Kind::Unavailable, format!("the exit status of container {name} is not known"))
}
