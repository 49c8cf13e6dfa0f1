//! Signals as descriptors, and dispositions.

use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::io::Errno;

use crate::error::{Call, Error, Result};
use crate::raw;

/// Signals that are blocked and read from a descriptor instead.
#[derive(Debug)]
pub struct SignalFd(OwnedFd);

/// Bit n-1 is signal n.
fn mask_of(signals: &[i32]) -> u64 {
    signals
        .iter()
        .filter(|signal| (1..=64).contains(*signal))
        .fold(0, |mask, signal| mask | 1 << (signal - 1))
}

fn block(mask: u64) -> Result<()> {
    let call = "rt_sigprocmask()";
    // All are blocked while the old mask is not known, so that none slips through in between.
    let old = raw::signal_mask(u64::MAX).call(|| call)?;
    raw::signal_mask(old | mask).call(|| call)?;
    Ok(())
}

impl SignalFd {
    /// Blocks `signals` in this thread and opens a non-blocking descriptor that yields them.
    ///
    /// # Errors
    /// The failed call.
    pub fn block(signals: &[i32]) -> Result<Self> {
        let mask = mask_of(signals);
        block(mask)?;
        let fd = raw::signalfd(mask, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK).call(|| "signalfd4()")?;
        // SAFETY: the kernel has just returned this descriptor, so nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Takes the number of the next signal; `None` when none is pending.
    ///
    /// # Errors
    /// The failed call.
    pub fn next(&self) -> Result<Option<i32>> {
        let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
        match rustix::io::read(&self.0, &mut info) {
            // The number is the first field, a u32 (signalfd(2)).
            Ok(length) if length == info.len() => {
                Ok(Some(i32::from_ne_bytes([info[0], info[1], info[2], info[3]])))
            }
            Ok(_) => Err(Error::new("read(<signalfd>)", Errno::IO)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(errno) => Err(Error::new("read(<signalfd>)", errno)),
        }
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Lets `signals` in again that [`SignalFd::block`] keeps out.
///
/// # Errors
/// The failed call.
pub fn unblock(signals: &[i32]) -> Result<()> {
    let call = "rt_sigprocmask()";
    let old = raw::signal_mask(u64::MAX).call(|| call)?;
    raw::signal_mask(old & !mask_of(signals)).call(|| call)?;
    Ok(())
}

/// Lets every signal in for the program that `command` starts: it would inherit what [`SignalFd::block`] keeps out of this
/// thread, and many programs never look, so that SIGTERM does not end them.
pub fn let_in_for(command: &mut Command) -> &mut Command {
    // SAFETY: between fork and exec the closure makes one system call; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(|| Ok(raw::signal_mask(0).map(drop)?)) }
}

/// Ignores `signals` from now on; a program that is executed inherits that.
pub fn ignore(signals: &[i32]) {
    for &signal in signals {
        // SAFETY: SIG_IGN is no function, so no handler can run in a wrong context; a number that is no signal is
        // answered with EINVAL and changes nothing.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_signal_is_read() {
        let signals = SignalFd::block(&[libc::SIGURG]).unwrap();
        assert_eq!(signals.next().unwrap(), None);
        // SAFETY: raise only sends a signal to the calling thread, which blocks it.
        assert_eq!(unsafe { libc::raise(libc::SIGURG) }, 0);
        assert_eq!(signals.next().unwrap(), Some(libc::SIGURG));
        unblock(&[libc::SIGURG]).unwrap();
        assert_eq!(raw::signal_mask(0).unwrap() & mask_of(&[libc::SIGURG]), 0);
    }

    #[test]
    fn a_program_starts_with_every_signal_let_in() {
        let _signals = SignalFd::block(&[libc::SIGTERM]).unwrap();
        let mask = |command: &mut Command| {
            let output = command.args(["SigBlk", "/proc/self/status"]).output().unwrap();
            String::from_utf8(output.stdout).unwrap().split_whitespace().nth(1).unwrap().to_owned()
        };
        assert_eq!(mask(&mut Command::new("grep")), "0000000000004000");
        assert_eq!(mask(let_in_for(&mut Command::new("grep"))), "0000000000000000");
        unblock(&[libc::SIGTERM]).unwrap();
    }
}
