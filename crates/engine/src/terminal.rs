//! The user's terminal: raw mode, size, keys that detach, and writing without blocking on it.

use std::os::fd::{AsFd, BorrowedFd};

use bale_fault::Result;
use bale_sys::error::{Call, Error};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios};

/// A terminal in raw mode until this is dropped.
pub struct Raw<'a> {
    terminal: BorrowedFd<'a>,
    before: Termios,
}

impl<'a> Raw<'a> {
    /// Puts `terminal` into raw mode.
    ///
    /// # Errors
    /// `ENOTTY` when it is none.
    pub fn enter(terminal: BorrowedFd<'a>) -> Result<Self> {
        let before = rustix::termios::tcgetattr(terminal).call(|| "tcgetattr(<terminal>)")?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(terminal, OptionalActions::Now, &raw).call(|| "tcsetattr(<terminal>)")?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Raw<'_> {
    fn drop(&mut self) {
        // A terminal that is gone needs no settings.
        let _ = rustix::termios::tcsetattr(self.terminal, OptionalActions::Flush, &self.before);
    }
}

/// Returns rows and columns of the terminal, if it is one and knows.
#[must_use]
pub fn size(terminal: impl AsFd) -> Option<(u16, u16)> {
    let size = rustix::termios::tcgetwinsize(terminal).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

/// Finds the keys ctrl-p ctrl-q in what is typed.
#[derive(Clone, Copy, Debug, Default)]
pub struct DetachKeys {
    /// ctrl-p was typed and held back.
    held: bool,
}

const CTRL_P: u8 = 16;
const CTRL_Q: u8 = 17;

impl DetachKeys {
    /// Passes what was typed on to `out`; tells whether the user wants to detach.
    pub fn filter(&mut self, typed: &[u8], out: &mut Vec<u8>) -> bool {
        for &byte in typed {
            if std::mem::take(&mut self.held) {
                if byte == CTRL_Q {
                    return true;
                }
                out.push(CTRL_P);
            }
            if byte == CTRL_P {
                self.held = true;
            } else {
                out.push(byte);
            }
        }
        false
    }
}

/// A descriptor that is written when it has room, with what waits for it.
#[derive(Debug)]
pub struct Outlet<F> {
    fd: Option<F>,
    /// What waits, from `written` on.
    waiting: Vec<u8>,
    written: usize,
    /// Bytes that a write takes without blocking once poll says there is room.
    portion_bytes: usize,
}

impl<F: AsFd> Outlet<F> {
    /// Takes a descriptor, or none: what is given to an outlet without one is dropped.
    #[must_use]
    pub fn new(fd: Option<F>) -> Self {
        let pipe = |fd: &F| {
            use rustix::fs::FileType;
            let kind = rustix::fs::fstat(fd).map(|s| FileType::from_raw_mode(s.st_mode));
            !matches!(kind, Ok(FileType::RegularFile | FileType::CharacterDevice))
        };
        // PIPE_BUF: the room that poll promises (pipe(7)).
        let portion_bytes = if fd.as_ref().is_some_and(pipe) { 4096 } else { 64 << 10 };
        Self { fd, waiting: Vec::new(), written: 0, portion_bytes }
    }

    /// Takes bytes to write.
    pub fn give(&mut self, bytes: &[u8]) {
        if self.fd.is_some() {
            self.waiting.extend_from_slice(bytes);
        }
    }

    /// Tells whether nothing waits.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        self.written == self.waiting.len()
    }

    /// Tells whether there is a descriptor to write to.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.fd.is_some()
    }

    /// Closes it; what waits is dropped.
    pub fn close(&mut self) {
        self.fd = None;
        self.waiting.clear();
        self.written = 0;
    }

    /// Returns what poll should watch, when something waits.
    pub fn poll(&self) -> Option<PollFd<'_>> {
        self.fd.as_ref().filter(|_| !self.is_idle()).map(|fd| PollFd::new(fd, PollFlags::OUT))
    }

    /// Writes some of what waits, after poll said there is room.
    ///
    /// # Errors
    /// The failed write; `EPIPE` when nobody reads.
    pub fn write(&mut self) -> std::result::Result<(), Error> {
        let Some(fd) = &self.fd else { return Ok(()) };
        let end = self.waiting.len().min(self.written + self.portion_bytes);
        match rustix::io::write(fd, &self.waiting[self.written..end]) {
            Ok(length) => self.written += length,
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(Error::new("write(<output>)", errno)),
        }
        if self.is_idle() {
            self.waiting.clear();
            self.written = 0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_are_found_and_everything_else_passes() {
        for (typed, passed, detached) in [
            (&[b"abc".as_slice()][..], b"abc".as_slice(), false),
            (&[b"a\x10\x11b"], b"a", true),
            (&[b"\x10", b"\x11"], b"", true),
            (&[b"\x10", b"x"], b"\x10x", false),
            (&[b"\x10\x10\x11"], b"\x10", true),
            (&[b"\x11"], b"\x11", false),
        ] {
            let (mut keys, mut out) = (DetachKeys::default(), Vec::new());
            let found = typed.iter().any(|part| keys.filter(part, &mut out));
            assert_eq!((out.as_slice(), found), (passed, detached), "{typed:?}");
        }
    }
}
