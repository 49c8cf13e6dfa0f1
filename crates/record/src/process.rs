//! A process that is known beyond doubt.

use bale_fault::{Fault, Kind, Result};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

/// A process by pid, start time and boot: a reused pid or another boot is another process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Pid as the host sees it.
    pub pid: i32,
    /// Field 22 of `/proc/<pid>/stat`: clock ticks after boot.
    pub start_time: u64,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
}

impl ProcessId {
    /// Describes the live process `pid`.
    ///
    /// # Errors
    /// `NotFound` when it has ended and was reaped.
    pub fn of(pid: i32) -> Result<Self> {
        let start_time =
            start_time(pid).ok_or_else(|| Fault::new(Kind::NotFound, format!("no such process: {pid}")))?;
        Ok(Self { pid, start_time, boot_id: boot_id() })
    }

    /// Opens a pidfd of this very process; `None` when it has ended (a zombie still opens).
    ///
    /// # Errors
    /// The failed call.
    pub fn open(&self) -> Result<Option<OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(None) };
        let fd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => fd,
            Err(Errno::SRCH) => return Ok(None),
            Err(errno) => return Err(bale_sys::Error::new(format!("pidfd_open({})", self.pid), errno).into()),
        };
        // The start time is read while the pidfd keeps the pid from meaning another process unnoticed: a process
        // that took the pid after ours has a later start time.
        let same = start_time(self.pid) == Some(self.start_time) && boot_id() == self.boot_id;
        Ok(same.then_some(fd))
    }

    /// Tells whether this very process exists and is no zombie.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let Some((state, start_time)) = stat(self.pid) else { return false };
        start_time == self.start_time && !matches!(state, 'Z' | 'X') && boot_id() == self.boot_id
    }
}

/// Reads state (field 3) and start time (field 22) of a process.
fn stat(pid: i32) -> Option<(char, u64)> {
    let text = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name in field 2 may hold anything, brackets and spaces too; what follows the last bracket is fields 3 on.
    let rest = &text[text.iter().rposition(|&b| b == b')')? + 2..];
    let rest = std::str::from_utf8(rest).ok()?;
    let mut fields = rest.split(' ');
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

fn start_time(pid: i32) -> Option<u64> {
    stat(pid).map(|(_, start_time)| start_time)
}

/// Returns the kernel's id of this boot; empty when it cannot be read.
#[must_use]
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_itself_and_another_start_time_is_not() {
        let own = ProcessId::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(own.is_alive() && own.open().unwrap().is_some());
        let other = ProcessId { start_time: own.start_time + 1, ..own };
        assert!(!other.is_alive() && other.open().unwrap().is_none());
    }
}
