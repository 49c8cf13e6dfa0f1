//! Terminals by descriptor. Bare errnos, no allocation: usable after clone.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Result;
use rustix::pty::OpenptFlags;
use rustix::termios::{OptionalActions, OutputModes, Termios, Winsize};

/// Prepares the master of a pair: unlocks the other side, opens it by TIOCGPTPEER (never by its name, which an
/// attacker could exchange: CVE-2025-52565).
///
/// # Errors
/// The failed ioctl.
pub fn peer_of(master: impl AsFd) -> Result<OwnedFd> {
    rustix::pty::unlockpt(&master)?;
    let peer = rustix::pty::ioctl_tiocgptpeer(
        &master,
        OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
    )?;
    Ok(peer)
}

/// Has newlines pass as they are, for a terminal that is relayed to another one, which adds the carriage returns.
///
/// # Errors
/// The failed ioctl.
pub fn keep_newlines(master: impl AsFd) -> Result<()> {
    let mut modes = rustix::termios::tcgetattr(&master)?;
    modes.output_modes.remove(OutputModes::ONLCR);
    rustix::termios::tcsetattr(&master, OptionalActions::Now, &modes)
}

/// Sets the size in characters.
///
/// # Errors
/// The failed ioctl.
pub fn set_size(terminal: impl AsFd, rows: u16, columns: u16) -> Result<()> {
    rustix::termios::tcsetwinsize(
        terminal,
        Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 },
    )
}

/// Returns the size in characters: rows, columns.
///
/// # Errors
/// `ENOTTY` when it is no terminal.
pub fn size(terminal: impl AsFd) -> Result<(u16, u16)> {
    rustix::termios::tcgetwinsize(terminal).map(|size| (size.ws_row, size.ws_col))
}

/// Makes it the controlling terminal of this process, which leads a session.
///
/// # Errors
/// The failed ioctl.
pub fn make_controlling(terminal: impl AsFd) -> Result<()> {
    rustix::process::ioctl_tiocsctty(terminal)
}

/// A terminal of the user's in raw mode, until dropped.
#[derive(Debug)]
pub struct Raw<F: AsFd> {
    terminal: F,
    old: Termios,
}

impl<F: AsFd> Raw<F> {
    /// Puts it into raw mode.
    ///
    /// # Errors
    /// `ENOTTY` when it is no terminal.
    pub fn enter(terminal: F) -> Result<Self> {
        let old = rustix::termios::tcgetattr(&terminal)?;
        let mut modes = old.clone();
        modes.make_raw();
        rustix::termios::tcsetattr(&terminal, OptionalActions::Now, &modes)?;
        Ok(Self { terminal, old })
    }
}

impl<F: AsFd> Drop for Raw<F> {
    fn drop(&mut self) {
        // The terminal may be gone; there is nobody to tell.
        let _ = rustix::termios::tcsetattr(&self.terminal, OptionalActions::Now, &self.old);
    }
}
