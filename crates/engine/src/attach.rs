//! `attach`, and the foreground of `run`: the user's terminal on one side, log and input of a container on the other.

use std::os::fd::{BorrowedFd, OwnedFd};

use bale_fault::{Context, Fault, Kind, Result};
use bale_record::control::{Event, Request};
use bale_sys::error::Call;
use bale_sys::signal::SignalFd;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use crate::Engine;
use crate::client::{Client, Said};
use crate::container::{Container, Status};
use crate::logs::{Entry, Reader};
use crate::terminal::{DetachKeys, Outlet, Raw, size};

/// Bytes read from the user at once.
const READ_BYTES: usize = 16 << 10;
const SIGHUP: i32 = 1;
const SIGPIPE: i32 = 13;
const SIGWINCH: i32 = 28;
/// HUP, INT, QUIT, USR1, USR2, ALRM, TERM, CONT: what is passed on, or ends the relay of a terminal.
const PASSED_ON: [i32; 8] = [SIGHUP, 2, 3, 10, 12, 14, 15, 18];

/// How a user is connected to a container.
#[derive(Clone, Copy, Debug)]
pub struct AttachOptions {
    /// Passes the user's standard input on.
    pub stdin: bool,
    /// The container has a terminal.
    pub tty: bool,
    /// Passes signals on (without a terminal only: keys arrive as bytes there).
    pub signals: bool,
    /// The log is shown from here on, in bytes.
    pub from_bytes: u64,
}

/// How the connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// The program ended with this status.
    Exited(u8),
    /// The user detached by keys; the container goes on.
    Detached,
    /// This signal ended the connection; the container goes on.
    Signal(i32),
    /// The supervisor was lost.
    Lost,
}

/// Blocks the signals of the relay, before a container is started: one that comes in between reaches it all the same.
///
/// # Errors
/// The failed call.
pub fn block_signals() -> Result<SignalFd> {
    let mut signals = PASSED_ON.to_vec();
    signals.push(SIGWINCH);
    Ok(SignalFd::block(&signals)?)
}

/// Checks that a container's terminal can be connected to the user's standard input.
///
/// # Errors
/// `InvalidInput` when that is no terminal.
pub fn check_terminal(stdin: bool, tty: bool) -> Result<()> {
    if !stdin || !tty || rustix::termios::isatty(rustix::stdio::stdin()) {
        return Ok(());
    }
    let words = "cannot attach standard input to a container's terminal, as it is not a terminal";
    Err(Fault::new(Kind::InvalidInput, words).hint("leave -t away"))
}

/// Relays between the user and a container that runs, until one of them leaves.
///
/// # Errors
/// The failed call.
pub fn relay(
    client: &Client,
    signals: &SignalFd,
    log: std::fs::File,
    options: AttachOptions,
) -> Result<Left> {
    let stdin = rustix::stdio::stdin();
    let raw = (options.tty && options.stdin).then(|| Raw::enter(stdin)).transpose()?;
    let left = Relay::new(client, log, options)?.run(signals);
    drop(raw);
    left
}

struct Relay<'a> {
    client: &'a Client,
    options: AttachOptions,
    log: Reader,
    /// There may be more in the log than was read.
    behind: bool,
    outputs: [Outlet<BorrowedFd<'a>>; 2],
    /// The user's standard input until its end.
    stdin: Option<BorrowedFd<'a>>,
    input: Outlet<OwnedFd>,
    keys: DetachKeys,
    exit: Option<u8>,
    ended: bool,
}

impl<'a> Relay<'a> {
    fn new(client: &'a Client, log: std::fs::File, options: AttachOptions) -> Result<Self> {
        if options.stdin {
            client.ask(&Request::Input)?;
        }
        let relay = Self {
            client,
            options,
            log: Reader::new(log, options.from_bytes),
            behind: true,
            outputs: [Outlet::new(Some(rustix::stdio::stdout())), Outlet::new(Some(rustix::stdio::stderr()))],
            stdin: None,
            input: Outlet::new(None),
            keys: DetachKeys::default(),
            exit: None,
            ended: false,
        };
        relay.resize()?;
        Ok(relay)
    }

    fn run(mut self, signals: &SignalFd) -> Result<Left> {
        loop {
            self.read_log()?;
            if self.ended && !self.behind && self.outputs.iter().all(Outlet::is_idle) {
                return Ok(self.exit.map_or(Left::Lost, Left::Exited));
            }
            let ready = self.wait(signals)?;
            for at in 0..2 {
                if ready.outputs[at] && !self.write_output(at)? {
                    return Ok(Left::Signal(SIGPIPE));
                }
            }
            if ready.input && self.input.write().is_err() {
                // The program has closed its input: what is typed further goes nowhere.
                self.input.close();
                self.stdin = None;
            }
            if ready.signal
                && let Some(left) = self.take_signals(signals)?
            {
                return Ok(left);
            }
            if ready.client {
                self.hear()?;
            }
            if ready.stdin && self.read_stdin()? {
                return Ok(Left::Detached);
            }
        }
    }

    /// Waits until something can be done.
    fn wait(&self, signals: &SignalFd) -> Result<Ready> {
        let stdin = self.stdin.as_ref().filter(|_| self.input.is_idle());
        let watched = [
            (!self.ended).then(|| PollFd::new(self.client, PollFlags::IN)),
            Some(PollFd::new(signals, PollFlags::IN)),
            stdin.map(|fd| PollFd::new(fd, PollFlags::IN)),
            self.outputs[0].poll(),
            self.outputs[1].poll(),
            self.input.poll(),
        ];
        let present: [bool; 6] = std::array::from_fn(|at| watched[at].is_some());
        let mut polled: Vec<PollFd<'_>> = watched.into_iter().flatten().collect();
        match rustix::event::poll(&mut polled, None) {
            Err(Errno::INTR) => return Ok(Ready::default()),
            other => other.call(|| "poll()")?,
        };
        let mut answers = polled.iter().map(|fd| !fd.revents().is_empty());
        let mut next = |at: usize| present[at] && answers.next().unwrap_or(false);
        Ok(Ready {
            client: next(0),
            signal: next(1),
            stdin: next(2),
            outputs: [next(3), next(4)],
            input: next(5),
        })
    }

    /// Moves a piece of the log to the outputs once they have taken the last one.
    fn read_log(&mut self) -> Result<()> {
        while self.behind && self.outputs.iter().all(Outlet::is_idle) {
            let outputs = &mut self.outputs;
            let more = self.log.read(|entry| {
                pass(outputs, entry);
                Ok(())
            })?;
            if !more {
                self.behind = false;
                if self.exit.is_none() && !self.ended {
                    self.client.ask(&Request::Watch { offset_bytes: self.log.offset_bytes() })?;
                }
            }
        }
        Ok(())
    }

    fn hear(&mut self) -> Result<()> {
        match self.client.listen()? {
            Said::Event(Event::Grown { .. }, _) => self.behind = true,
            Said::Event(Event::Exited { code, .. }, _) => {
                self.exit = Some(code);
                self.behind = true;
                self.stdin = None;
            }
            Said::Event(Event::Output { stderr, bytes }, _) => {
                // What the log holds was written earlier.
                self.behind = true;
                while self.log.read(|entry| {
                    pass(&mut self.outputs, entry);
                    Ok(())
                })? {}
                self.outputs[usize::from(stderr)].give(&bytes);
            }
            Said::Event(Event::Input, Some(fd)) => {
                self.input = Outlet::new(Some(fd));
                self.stdin = Some(rustix::stdio::stdin());
            }
            Said::Event(..) => {}
            Said::End => {
                self.ended = true;
                self.behind = true;
                self.stdin = None;
            }
        }
        Ok(())
    }

    /// Writes to an output; `false` when nobody reads standard output any more.
    fn write_output(&mut self, at: usize) -> Result<bool> {
        match self.outputs[at].write() {
            Err(error) if error.errno() == Errno::PIPE => {
                self.outputs[at].close();
                Ok(at == 1)
            }
            other => other.map(|()| true).map_err(Fault::from).within(|| "show the container's output"),
        }
    }

    /// Reads what the user typed; tells whether they detach.
    fn read_stdin(&mut self) -> Result<bool> {
        let Some(stdin) = self.stdin else { return Ok(false) };
        let mut typed = [0u8; READ_BYTES];
        let length = match rustix::io::read(stdin, &mut typed) {
            Err(Errno::INTR | Errno::AGAIN) => return Ok(false),
            other => other.unwrap_or(0),
        };
        if length == 0 {
            // The end of the input is the container's too, unless others hold its writing end.
            self.stdin = None;
            self.input.close();
            return Ok(false);
        }
        if !self.options.tty {
            self.input.give(&typed[..length]);
            return Ok(false);
        }
        let mut passed = Vec::with_capacity(length + 1);
        let detach = self.keys.filter(&typed[..length], &mut passed);
        self.input.give(&passed);
        Ok(detach)
    }

    fn take_signals(&self, signals: &SignalFd) -> Result<Option<Left>> {
        while let Some(signal) = signals.next()? {
            if signal == SIGWINCH {
                self.resize()?;
            } else if self.options.tty || !self.options.signals {
                return Ok(Some(Left::Signal(signal)));
            } else {
                self.client.ask(&Request::Signal { number: signal })?;
            }
        }
        Ok(None)
    }

    fn resize(&self) -> Result<()> {
        match size(rustix::stdio::stdout()) {
            Some((rows, columns)) if self.options.tty => self.client.ask(&Request::Resize { rows, columns }),
            _ => Ok(()),
        }
    }
}

#[derive(Default)]
struct Ready {
    client: bool,
    signal: bool,
    stdin: bool,
    outputs: [bool; 2],
    input: bool,
}

fn pass(outputs: &mut [Outlet<BorrowedFd<'_>>; 2], entry: Entry<'_>) {
    let output = &mut outputs[usize::from(entry.stderr)];
    output.give(entry.text);
    if entry.whole {
        output.give(b"\n");
    }
}

impl Engine {
    /// Connects the user to a running container until one of them leaves.
    ///
    /// # Errors
    /// `Conflict` when it does not run or has no supervisor.
    pub fn attach(&self, name: &str, stdin: bool, signals: bool) -> Result<Left> {
        let container = self.container(name)?;
        let words =
            |why: &str| Fault::new(Kind::Conflict, format!("cannot attach to container {name}: {why}"));
        match container.status() {
            Status::Running { supervised: true } => {}
            Status::Running { .. } => return Err(words("its supervisor is lost")),
            _ => return Err(words("it is not running").hint(format!("start it first: bale start {name}"))),
        }
        let tty = container.details.tty;
        let stdin = stdin && container.details.interactive;
        check_terminal(stdin, tty)?;
        let log = container.open_log()?;
        let from_bytes = log.metadata().within(|| "stat the log")?.len();
        let blocked = block_signals()?;
        let client = Client::connect(&container.dir)?.ok_or_else(|| words("it has just ended"))?;
        let left = relay(&client, &blocked, log, AttachOptions { stdin, tty, signals, from_bytes })?;
        if left == Left::Lost { Ok(exit_of_record(&container)) } else { Ok(left) }
    }
}

/// Reads how a container ended whose supervisor closed the connection without a word.
#[must_use]
pub fn exit_of_record(container: &Container) -> Left {
    let exit = container.dir.load().ok().and_then(|record| record.exit?.code);
    exit.map_or(Left::Lost, Left::Exited)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_go_to_their_stream() {
        let mut outputs = [Outlet::new(Some(rustix::stdio::stdout())), Outlet::new(None)];
        let entry = |stderr, whole, text| Entry { time: b"", stderr, whole, text };
        pass(&mut outputs, entry(true, true, b"dropped"));
        assert!(outputs[1].is_idle() && outputs[0].is_idle());
        pass(&mut outputs, entry(false, false, b"kept"));
        assert!(!outputs[0].is_idle());
        outputs[0].close();
        assert!(outputs[0].is_idle() && !outputs[0].is_open());
    }
}
