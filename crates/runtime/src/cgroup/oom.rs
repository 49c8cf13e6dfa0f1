//! Being told when memory runs out in a cgroup.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use bale_fault::Result;
use bale_sys::error::Call;
use rustix::event::{EventfdFlags, PollFlags, eventfd};
use rustix::fs::OFlags;

use super::Handle;
use super::group::Group;

/// Something to poll, and what it said last.
#[derive(Debug)]
pub struct OomWatch {
    /// An eventfd (v1), or `memory.events` (v2).
    fd: OwnedFd,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// `memory.oom_control` (the kernel's admin-guide/cgroup-v1/memory.rst, section 10).
    Control(OwnedFd),
    /// How often the OOM killer had been at work.
    Kills(u64),
}

impl Handle {
    /// Watches for the end of memory in the container; none without a memory controller.
    ///
    /// # Errors
    /// The failed call.
    pub fn watch_oom(&self) -> Result<Option<OomWatch>> {
        match (self.v1_group("memory"), &self.unified) {
            (Some(group), _) => on_v1(group).map(Some),
            (None, Some(group)) if group.read_if_there("memory.events")?.is_some() => on_v2(group).map(Some),
            _ => Ok(None),
        }
    }
}

fn on_v1(group: &Group) -> Result<OomWatch> {
    let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).call(|| "eventfd")?;
    let control = group.open_file("memory.oom_control", OFlags::RDONLY)?;
    group.write("cgroup.event_control", &format!("{} {}", fd.as_raw_fd(), control.as_raw_fd()))?;
    Ok(OomWatch { fd, source: Source::Control(control) })
}

fn on_v2(group: &Group) -> Result<OomWatch> {
    let fd = group.open_file("memory.events", OFlags::RDONLY)?;
    let kills = kills(&fd).unwrap_or(0);
    Ok(OomWatch { fd, source: Source::Kills(kills) })
}

impl OomWatch {
    /// Returns what is ready when memory may have run out: for poll, with these events.
    #[must_use]
    pub fn poll(&self) -> (BorrowedFd<'_>, PollFlags) {
        let events = match self.source {
            Source::Control(_) => PollFlags::IN,
            Source::Kills(_) => PollFlags::PRI,
        };
        (self.fd.as_fd(), events)
    }

    /// Tells whether memory has run out since this was asked last. The end of the cgroup wakes up as well.
    pub fn has_happened(&mut self) -> bool {
        match &mut self.source {
            Source::Control(control) => {
                let told = rustix::io::read(&self.fd, &mut [0_u8; 8]).is_ok();
                // ENODEV once the cgroup is gone.
                told && rustix::io::pread(control, &mut [0_u8; 1], 0).is_ok()
            }
            Source::Kills(known) => match kills(&self.fd) {
                Some(now) if now > *known => {
                    *known = now;
                    true
                }
                _ => false,
            },
        }
    }
}

fn kills(events: &OwnedFd) -> Option<u64> {
    let mut text = [0_u8; 512];
    let length = rustix::io::pread(events, &mut text, 0).ok()?;
    let text = std::str::from_utf8(&text[..length]).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}
