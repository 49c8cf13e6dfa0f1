//! A process that the command waits for: signals are passed on, a terminal is relayed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bale_fault::{Fault, Result};
use bale_sys::process::{self, Ended};
use bale_sys::signal::SignalFd;
use bale_sys::terminal;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

const SIGCHLD: i32 = 17;
const SIGURG: i32 = 23;
const SIGWINCH: i32 = 28;
/// Signals that a user or a caller sends: all but those that cannot be blocked or that a fault raises here.
const FORWARDED: [i32; 22] =
    [1, 2, 3, 10, 12, 13, 14, 15, 16, 17, 18, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30];

/// Signals are blocked before the process exists, so that none is lost.
pub struct Foreground {
    signals: SignalFd,
}

impl Foreground {
    /// Blocks signals.
    pub fn prepare() -> Result<Self> {
        Ok(Self { signals: SignalFd::block(&FORWARDED)? })
    }

    /// Waits for the end of a child and returns its exit status as a shell shows it.
    pub fn follow(&self, pidfd: &OwnedFd, master: Option<&OwnedFd>) -> Result<u8> {
        match master {
            None => self.wait(pidfd),
            Some(master) => self.relay(pidfd, master),
        }
    }

    fn wait(&self, pidfd: &OwnedFd) -> Result<u8> {
        loop {
            let mut fds = [PollFd::new(pidfd, PollFlags::IN), PollFd::new(&self.signals, PollFlags::IN)];
            wait_for(&mut fds)?;
            if ready(&fds[0]) {
                return process::wait(pidfd).map(Ended::status).map_err(Fault::from);
            }
            self.forward(pidfd, None)?;
        }
    }

    fn forward(&self, pidfd: &OwnedFd, master: Option<&OwnedFd>) -> Result<()> {
        while let Some(signal) = self.signals.next()? {
            match (signal, master) {
                (SIGCHLD | SIGURG, _) => {}
                (SIGWINCH, Some(master)) => copy_size(master),
                (SIGWINCH, None) => {}
                // ESRCH: it has just ended, which the next poll tells.
                _ => drop(process::send_signal(pidfd, signal)),
            }
        }
        Ok(())
    }

    fn relay(&self, pidfd: &OwnedFd, master: &OwnedFd) -> Result<u8> {
        copy_size(master);
        let raw = terminal::Raw::enter(rustix::stdio::stdin());
        let mut input = true;
        let mut to_master: Vec<u8> = Vec::new();
        loop {
            let mut events = PollFlags::IN;
            events.set(PollFlags::OUT, !to_master.is_empty());
            let stdin = rustix::stdio::stdin();
            let mut fds = vec![
                PollFd::new(pidfd, PollFlags::IN),
                PollFd::new(&self.signals, PollFlags::IN),
                PollFd::new(master, events),
            ];
            if input && to_master.is_empty() {
                fds.push(PollFd::new(&stdin, PollFlags::IN));
            }
            wait_for(&mut fds)?;
            let (ended, output, writable) =
                (ready(&fds[0]), ready(&fds[2]), fds[2].revents().contains(PollFlags::OUT));
            let typed = fds.get(3).is_some_and(ready);
            drop(fds);
            self.forward(pidfd, Some(master))?;
            if output {
                copy(master.as_fd())?;
            }
            if typed {
                input = read_input(&mut to_master)?;
            }
            if writable && !to_master.is_empty() {
                let written = rustix::io::write(master, &to_master).unwrap_or(to_master.len());
                to_master.drain(..written);
            }
            if ended {
                drain(master)?;
                drop(raw);
                return process::wait(pidfd).map(Ended::status).map_err(Fault::from);
            }
        }
    }
}

fn wait_for(fds: &mut [PollFd<'_>]) -> Result<()> {
    match poll(fds, None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(bale_sys::Error::new("poll", errno).into()),
    }
}

fn ready(fd: &PollFd<'_>) -> bool {
    fd.revents().intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR)
}

fn copy_size(master: &OwnedFd) {
    if let Ok((rows, columns)) = terminal::size(rustix::stdio::stdin()) {
        let _ = terminal::set_size(master, rows, columns);
    }
}

/// Copies what the terminal shows; tells whether there may be more.
fn copy(master: BorrowedFd<'_>) -> Result<bool> {
    let mut buffer = [0_u8; 8192];
    match rustix::io::read(master, &mut buffer) {
        // EIO: every process has closed the other side.
        Ok(0) | Err(Errno::IO) => Ok(false),
        Ok(count) => {
            write_all(&buffer[..count])?;
            Ok(true)
        }
        Err(Errno::INTR | Errno::AGAIN) => Ok(true),
        Err(errno) => Err(bale_sys::Error::new("read(<terminal>)", errno).into()),
    }
}

fn write_all(mut rest: &[u8]) -> Result<()> {
    while !rest.is_empty() {
        match rustix::io::write(rustix::stdio::stdout(), rest) {
            Ok(count) => rest = &rest[count..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(bale_sys::Error::new("write(<stdout>)", errno).into()),
        }
    }
    Ok(())
}

/// Reads what was typed; false at the end of input.
fn read_input(buffer: &mut Vec<u8>) -> Result<bool> {
    let mut read = [0_u8; 4096];
    match rustix::io::read(rustix::stdio::stdin(), &mut read) {
        Ok(0) => {
            // As a terminal tells it: end of transmission.
            buffer.push(4);
            Ok(false)
        }
        Ok(count) => {
            buffer.extend_from_slice(&read[..count]);
            Ok(true)
        }
        Err(Errno::INTR | Errno::AGAIN) => Ok(true),
        Err(Errno::IO) => Ok(false),
        Err(errno) => Err(bale_sys::Error::new("read(<stdin>)", errno).into()),
    }
}

/// Copies what is left in the terminal after the end.
fn drain(master: &OwnedFd) -> Result<()> {
    loop {
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut fds = [PollFd::new(master, PollFlags::IN)];
        match poll(&mut fds, Some(&now)) {
            Ok(0) => return Ok(()),
            Ok(_) if fds[0].revents().contains(PollFlags::IN) && copy(master.as_fd())? => {}
            Err(Errno::INTR) => {}
            _ => return Ok(()),
        }
    }
}
