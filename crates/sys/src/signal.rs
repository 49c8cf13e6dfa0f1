//! Signals as descriptors, and dispositions.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use crate::error::{Error, Result};

/// Signals that are blocked and read from a descriptor instead.
#[derive(Debug)]
pub struct SignalFd(OwnedFd);

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

fn set_of(signals: &[i32]) -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset wants a pointer to writable memory of a sigset_t, which `set` is.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    for &signal in signals {
        // SAFETY: `set` was initialised by sigemptyset; a wrong number is answered with EINVAL and changes nothing.
        unsafe { libc::sigaddset(set.as_mut_ptr(), signal) };
    }
    // SAFETY: sigemptyset initialised it and cannot fail with a valid pointer.
    unsafe { set.assume_init() }
}

fn change_mask(how: i32, signals: &[i32]) -> Result<()> {
    let set = set_of(signals);
    // SAFETY: `set` is an initialised set that outlives the call; the old mask is not asked for.
    let answer = unsafe { libc::pthread_sigmask(how, &raw const set, std::ptr::null_mut()) };
    if answer == 0 { Ok(()) } else { Err(Error::new("rt_sigprocmask()", Errno::from_raw_os_error(answer))) }
}

impl SignalFd {
    /// Blocks `signals` in this thread and opens a non-blocking descriptor that yields them.
    ///
    /// # Errors
    /// The failed call.
    pub fn block(signals: &[i32]) -> Result<Self> {
        change_mask(libc::SIG_BLOCK, signals)?;
        let set = set_of(signals);
        // SAFETY: `set` is an initialised set that outlives the call; -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(Error::new("signalfd4()", last_errno()));
        }
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
        change_mask(libc::SIG_SETMASK, &[]).unwrap();
    }
}
