//! Processes of a cgroup: listing, killing, freezing, and the cgroup's end.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use bale_fault::{Context, Fault, Kind, Result};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use super::Handle;
use super::group::{Group, pause, wait_for};

/// What v1 shows for no limit is the largest number of whole pages; v2's `max` is read as the largest number.
const UNLIMITED_BYTES: u64 = 1 << 62;
/// How long processes may take to die or to freeze; both are a matter of microseconds unless one waits for a device.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often v1's freezer, which has no event, is asked again.
const FREEZER_PAUSE: Duration = Duration::from_millis(1);

/// Tells whether a cgroup itself (not one above it) is frozen, in either dialect.
pub fn frozen(group: &Group) -> Result<bool> {
    if let Some(text) = group.read_if_there("cgroup.freeze")? {
        return Ok(text.trim() == "1");
    }
    Ok(group.read_if_there("freezer.self_freezing")?.is_some_and(|text| text.trim() == "1"))
}

impl Handle {
    /// Returns the pids of all processes in the cgroup and below, ascending.
    ///
    /// # Errors
    /// The failed read.
    pub fn pids(&self) -> Result<Vec<i32>> {
        let on_v1 = self.v1_group("devices").or_else(|| self.v1.first().map(|v1| &v1.group));
        let group = on_v1.or(self.unified.as_ref());
        group.map_or_else(|| Ok(Vec::new()), |group| group.pids().map_err(Fault::from))
    }

    /// Kills all processes in the cgroup and below by SIGKILL, frozen or not. They may still be dying afterwards.
    ///
    /// # Errors
    /// The failed call.
    pub fn kill_all(&self) -> Result<()> {
        self.signal_all().within(|| "kill the processes of the cgroup")
    }

    fn signal_all(&self) -> Result<()> {
        let at_once = match &self.unified {
            // Linux 5.14; also kills what is being forked.
            Some(group) => match group.write("cgroup.kill", "1") {
                Ok(()) => true,
                Err(error) if matches!(error.errno(), Errno::NOENT | Errno::NODEV) => false,
                Err(error) => return Err(error.into()),
            },
            None => false,
        };
        if at_once && self.v1.is_empty() {
            return Ok(());
        }
        let left = self.pids()?;
        if left.is_empty() {
            return self.thaw_v1();
        }
        // Whatever forks faster than it is killed stands still meanwhile.
        let still = self.freeze_within(true, Instant::now() + Duration::from_millis(100)).is_ok();
        let pids = if still { self.pids()? } else { left };
        let killed = pids.iter().try_for_each(|&pid| kill(pid));
        self.set_frozen(false)?;
        killed
    }

    /// Freezes or thaws, and waits until it is so.
    ///
    /// # Errors
    /// `Unsupported` without a freezer; `Unavailable` when a process does not stop in time: all are thawed then.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        let words = if frozen { "freeze the cgroup" } else { "thaw the cgroup" };
        let outcome = self.freeze_within(frozen, Instant::now() + PATIENCE).within(|| words);
        if outcome.is_err() && frozen {
            // To leave it half frozen would be worse.
            let _ = self.set_frozen(false);
        }
        outcome
    }

    fn freeze_within(&self, frozen: bool, deadline: Instant) -> Result<()> {
        self.set_frozen(frozen)?;
        if !frozen {
            return Ok(());
        }
        let reached = match (&self.unified, self.v1_group("freezer")) {
            (Some(group), _) => group.wait_event("frozen 1", deadline)?,
            (None, Some(group)) => self.wait_freezer(group, deadline)?,
            (None, None) => {
                return Err(Fault::new(Kind::Unsupported, "this host has no freezer for the container"));
            }
        };
        if reached {
            Ok(())
        } else {
            Err(Fault::new(Kind::Unavailable, "unable to freeze: a process does not stop"))
        }
    }

    /// Asks for it: by v2 where there is one. v1's freezer is thawed with it, as others may have frozen that.
    fn set_frozen(&self, frozen: bool) -> Result<()> {
        if let Some(group) = &self.unified {
            group.write("cgroup.freeze", if frozen { "1" } else { "0" })?;
            return if frozen { Ok(()) } else { self.thaw_v1() };
        }
        if !frozen {
            return self.thaw_v1();
        }
        self.v1_group("freezer")
            .map_or(Ok(()), |group| group.write("freezer.state", "FROZEN").map_err(Fault::from))
    }

    fn thaw_v1(&self) -> Result<()> {
        match self.v1_group("freezer").map(|group| group.write("freezer.state", "THAWED")) {
            Some(Err(error)) if !matches!(error.errno(), Errno::NOENT | Errno::NODEV) => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn wait_freezer(&self, group: &Group, deadline: Instant) -> Result<bool> {
        loop {
            // Reading brings the kernel's state up to date; writing again catches what came in meanwhile.
            if group.read("freezer.state")?.trim() == "FROZEN" {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            pause(FREEZER_PAUSE);
            group.write("freezer.state", "FROZEN")?;
        }
    }

    /// Tells whether it is frozen, by us or by others.
    ///
    /// # Errors
    /// The failed read.
    pub fn is_frozen(&self) -> Result<bool> {
        for group in self.unified.iter().chain(self.v1_group("freezer")) {
            if frozen(group)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns how often the kernel's OOM killer was at work in it; 0 where the memory controller is not.
    ///
    /// # Errors
    /// The failed read.
    pub fn oom_kills(&self) -> Result<u64> {
        let text = match (self.v1_group("memory"), &self.unified) {
            (Some(group), _) => group.read_if_there("memory.oom_control")?,
            (None, Some(group)) => group.read_if_there("memory.events")?,
            (None, None) => None,
        };
        let count = |line: &str| line.strip_prefix("oom_kill ").and_then(|n| n.trim().parse().ok());
        Ok(text.unwrap_or_default().lines().find_map(count).unwrap_or(0))
    }

    /// Says what the memory limit was, where a process of it was killed and the OOM killer has been at work in it.
    #[must_use]
    pub fn killed_for_memory(&self) -> Option<Fault> {
        let kills = self.oom_kills().ok().filter(|kills| *kills > 0)?;
        let group = self.v1_group("memory").or(self.unified.as_ref())?;
        let read = |v1, v2| group.read_number(v1).or_else(|| group.read_number(v2));
        let limit = read("memory.limit_in_bytes", "memory.max").filter(|limit| *limit < UNLIMITED_BYTES);
        let peak = read("memory.max_usage_in_bytes", "memory.peak");
        let peak = peak.map_or_else(String::new, |peak| format!(", at most {peak} were used"));
        let Some(limit) = limit else {
            let words =
                format!("memory ran out in a cgroup above, or on the host (OOM kills: {kills}{peak})");
            return Some(Fault::new(Kind::Exhausted, words));
        };
        let words = format!("memory ran out: the limit is {limit} bytes{peak} (OOM kills: {kills})");
        let fault = Fault::new(Kind::Exhausted, words);
        Some(if limit < super::MEMORY_FLOOR_BYTES {
            let floor = super::MEMORY_FLOOR_BYTES;
            fault.hint(format!(
                "raise linux.resources.memory.limit to {floor} at least, which is what starting a small program takes"
            ))
        } else {
            fault.hint("raise linux.resources.memory.limit (--memory)")
        })
    }

    /// Removes the cgroup in all hierarchies, with all below; kills what is left in it, and waits for its end.
    ///
    /// # Errors
    /// `Conflict` when a process does not die in time.
    pub fn remove(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = self.remove_directories() {
            if error.errno() != Errno::BUSY {
                return Err(error.into());
            }
            if Instant::now() >= deadline {
                let words =
                    format!("remove the container's cgroup: {} process(es) do not end", self.pids()?.len());
                let hint = "a process may be waiting for a device or a network file system (state D in ps)";
                return Err(Fault::new(Kind::Conflict, words).caused_by(error).hint(hint));
            }
            self.end_processes(deadline)?;
        }
        Ok(())
    }

    /// Kills what is left in it, and waits for its end.
    pub(super) fn end_all(&self) -> Result<()> {
        if self.pids()?.is_empty() { Ok(()) } else { self.end_processes(Instant::now() + PATIENCE) }
    }

    fn remove_directories(&self) -> bale_sys::Result<()> {
        self.groups().try_for_each(Group::remove)
    }

    /// Kills what is left and waits for the end of each.
    fn end_processes(&self, deadline: Instant) -> Result<()> {
        let watched: Vec<OwnedFd> = self.pids()?.into_iter().filter_map(open_process).collect();
        self.kill_all()?;
        if watched.is_empty() {
            // The last one is on its way out of the cgroup, past the point at which pidfds tell; there is no event for
            // what is left but v2's, and that is not there on v1.
            match &self.unified {
                Some(group) => drop(group.wait_event("populated 0", deadline)?),
                None => pause(FREEZER_PAUSE),
            }
        }
        for process in &watched {
            wait_for(process, PollFlags::IN, deadline)?;
        }
        Ok(())
    }
}

fn open_process(pid: i32) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()
}

fn kill(pid: i32) -> Result<()> {
    let Some(pid) = Pid::from_raw(pid) else { return Ok(()) };
    match kill_process(pid, Signal::KILL) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(errno) => Err(bale_sys::Error::new(format!("kill({pid:?}, SIGKILL)"), errno).into()),
    }
}
