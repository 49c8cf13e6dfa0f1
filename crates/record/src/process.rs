//! A process that is known beyond doubt.

use bale_fault::{Fault, Kind, Result};
use rustix::fd::{AsFd, OwnedFd};
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

    /// Tells whether this very process exists, is no zombie, and does not only wait for others to be reaped
    /// ([`is_over`]).
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let Some(stat) = stat(self.pid) else { return false };
        stat.start_time == self.start_time
            && !matches!(stat.state, 'Z' | 'X')
            && boot_id() == self.boot_id
            && !is_over(self.pid, &stat)
    }

    /// Waits until this process, which `pidfd` is, has ended, at most `timeout_ms`; tells whether it has. The first
    /// process of a pid namespace has also when it only waits for others to be reaped ([`is_over`]).
    ///
    /// # Errors
    /// The failed poll.
    pub fn wait_end(&self, pidfd: impl AsFd, timeout_ms: Option<u32>) -> Result<bool> {
        let mut left_ms = timeout_ms;
        // The first look is for what ends at once; the others cost a walk through /proc each.
        let mut step_ms = 100;
        loop {
            let wait_ms = left_ms.map_or(step_ms, |left| left.min(step_ms));
            if bale_sys::process::wait_end(&pidfd, Some(wait_ms))? {
                return Ok(true);
            }
            if stat(self.pid).is_some_and(|stat| is_over(self.pid, &stat)) {
                return Ok(true);
            }
            left_ms = left_ms.map(|left| left - wait_ms);
            if left_ms == Some(0) {
                return Ok(false);
            }
            step_ms = 1000;
        }
    }
}

/// Flag of a process that ends (linux/sched.h).
const PF_EXITING: u64 = 4;

/// Tells whether nothing of a pid namespace runs any more whose first process is `init`: that one has ended but for
/// the wait for the others to be reaped, and the others are zombies. They are reaped by parents outside the namespace,
/// where exec was called from; one that does not do it keeps init from ever becoming a zombie itself
/// (`zap_pid_ns_processes`).
fn is_over(init: i32, stat: &Stat) -> bool {
    if stat.flags & PF_EXITING == 0 {
        return false;
    }
    let namespace = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let Some(own) = namespace(init) else { return false };
    let listed = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let others = listed.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut unreaped = false;
    for pid in others.filter(|pid| *pid != init && namespace(*pid).as_ref() == Some(&own)) {
        if self::stat(pid).is_some_and(|stat| !matches!(stat.state, 'Z' | 'X')) {
            return false;
        }
        unreaped = true;
    }
    unreaped
}

/// What is read of `/proc/<pid>/stat`.
struct Stat {
    /// Field 3.
    state: char,
    /// Field 9.
    flags: u64,
    /// Field 22.
    start_time: u64,
}

fn stat(pid: i32) -> Option<Stat> {
    let text = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name in field 2 may hold anything, brackets and spaces too; what follows the last bracket is fields 3 on.
    let rest = &text[text.iter().rposition(|&b| b == b')')? + 2..];
    let rest = std::str::from_utf8(rest).ok()?;
    let mut fields = rest.split(' ');
    let state = fields.next()?.chars().next()?;
    let flags = fields.nth(5)?.parse().ok()?;
    Some(Stat { state, flags, start_time: fields.nth(12)?.parse().ok()? })
}

fn start_time(pid: i32) -> Option<u64> {
    stat(pid).map(|stat| stat.start_time)
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
