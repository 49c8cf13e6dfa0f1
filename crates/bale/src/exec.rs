//! A process in a running container, connected to the user.
//!
//! What of the user's standard streams is a terminal is relayed over pipes and never handed in: a process that holds
//! a terminal of the host can type into it. Files and pipes are handed in as they are.

use crate::exit::ExitCode;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bale_engine::{DetachKeys, ExecPlan, Execution, Outlet, Raw, block_signals, terminal_size};
use bale_fault::Result;
use bale_runtime::{ExecOptions, InitParent, Stdio};
use bale_sys::error::{Call, Error};
use bale_sys::process;
use bale_sys::signal::SignalFd;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;

const READ_BYTES: usize = 32 << 10;
/// More than a pipe can hold: what was written before the end is shown.
const READS_AT_END: usize = (1 << 20) / READ_BYTES + 2;
const SIGWINCH: i32 = 28;

/// How the user is connected.
#[derive(Clone, Copy, Debug)]
pub struct Streams {
    /// Standard input is passed on.
    pub interactive: bool,
    /// It gets a terminal.
    pub tty: bool,
    /// Not at all: it runs on by itself.
    pub detach: bool,
}

/// Starts the process and stays until it ends, unless it is detached.
///
/// # Errors
/// `ProgramNotFound`, `ProgramNotExecutable`, or the failed step.
pub fn start(plan: ExecPlan, streams: Streams) -> Result<ExitCode> {
    let signals = if streams.detach { None } else { Some(block_signals()?) };
    let (mut ends, stdio) = connect(streams)?;
    let program = Program::start(plan, stdio)?;
    let Some(signals) = signals else { return Ok(ExitCode::SUCCESS) };
    ends.receive_terminal()?;
    let raw = (streams.tty && streams.interactive).then(|| Raw::enter(rustix::stdio::stdin())).transpose()?;
    let code = Relay::new(ends, program, streams).run(&signals);
    drop(raw);
    code.map(ExitCode::from)
}

/// The program that was started.
enum Program {
    /// The supervisor's child.
    Supervised(Execution),
    /// This process's child, by its pidfd.
    Own(OwnedFd),
}

impl Program {
    fn start(plan: ExecPlan, stdio: Stdio) -> Result<Self> {
        let supervised = match &stdio {
            Stdio::Fds { stdin, stdout, stderr } => {
                plan.supervised(&[stdin.as_fd(), stdout.as_fd(), stderr.as_fd()])?
            }
            Stdio::ConsoleSocket(socket) => plan.supervised(&[socket.as_fd()])?,
            Stdio::Inherit => None,
        };
        if let Some(execution) = supervised {
            return Ok(Self::Supervised(execution));
        }
        // The supervisor was killed. This process enters the container itself then, so it must not be what the host's
        // file is; begun anew, it comes here again.
        bale_sys::seal::exec_sealed(std::env::args_os())?;
        let options = ExecOptions {
            process: plan.process,
            stdio,
            parent: InitParent::Own,
            cgroups: Vec::new(),
            pid_file: None,
            pidfd_socket: None,
            preserve_fds: 0,
            ignore_paused: false,
        };
        Ok(Self::Own(bale_runtime::exec(&plan.dir, options)?.pidfd))
    }

    fn pidfd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Supervised(execution) => execution.pidfd(),
            Self::Own(pidfd) => pidfd.as_fd(),
        }
    }

    /// Waits for the end and returns the exit status.
    fn end(&self) -> Result<u8> {
        match self {
            Self::Supervised(execution) => execution.end(),
            Self::Own(pidfd) => Ok(process::wait(pidfd)?.status()),
        }
    }
}

/// This process's ends of what the program got.
#[derive(Default)]
struct Ends {
    input: Option<OwnedFd>,
    outputs: [Option<OwnedFd>; 2],
    console: Option<OwnedFd>,
}

impl Ends {
    fn receive_terminal(&mut self) -> Result<()> {
        let Some(socket) = self.console.take() else { return Ok(()) };
        let mut bytes = [0u8; 256];
        let (_, master) =
            bale_sys::socket::receive(&socket, &mut bytes).call(|| "recvmsg(<console socket>)")?;
        let missing = || Error::new("recvmsg(<console socket>): no terminal came", Errno::PROTO);
        let master = master.ok_or_else(missing)?;
        rustix::io::ioctl_fionbio(&master, true).call(|| "ioctl(<terminal>, FIONBIO)")?;
        self.input = Some(rustix::io::fcntl_dupfd_cloexec(&master, 3).call(|| "fcntl(F_DUPFD_CLOEXEC)")?);
        self.outputs[0] = Some(master);
        Ok(())
    }
}

fn connect(streams: Streams) -> Result<(Ends, Stdio)> {
    let mut ends = Ends::default();
    if streams.tty {
        let flags = rustix::net::SocketFlags::CLOEXEC;
        let (kind, family) = (rustix::net::SocketType::STREAM, rustix::net::AddressFamily::UNIX);
        let (ours, theirs) =
            rustix::net::socketpair(family, kind, flags, None).call(|| "socketpair(AF_UNIX)")?;
        ends.console = Some(ours);
        return Ok((ends, Stdio::ConsoleSocket(theirs)));
    }
    let stdin = if streams.interactive && !streams.detach {
        own_or(rustix::stdio::stdin(), || {
            let (reader, writer) = pipe()?;
            ends.input = Some(writer);
            Ok(reader)
        })?
    } else {
        null()?
    };
    let mut outputs =
        [rustix::stdio::stdout(), rustix::stdio::stderr()].into_iter().enumerate().map(|(at, own)| {
            if streams.detach {
                return null();
            }
            own_or(own, || {
                let (reader, writer) = pipe()?;
                rustix::io::ioctl_fionbio(&reader, true).call(|| "ioctl(<pipe>, FIONBIO)")?;
                ends.outputs[at] = Some(reader);
                Ok(writer)
            })
        });
    let (stdout, stderr) = (outputs.next().unwrap_or_else(null)?, outputs.next().unwrap_or_else(null)?);
    drop(outputs);
    Ok((ends, Stdio::Fds { stdin, stdout, stderr }))
}

/// Copies the user's own descriptor, unless it is a terminal.
fn own_or(own: BorrowedFd<'_>, relayed: impl FnOnce() -> Result<OwnedFd>) -> Result<OwnedFd> {
    if rustix::termios::isatty(own) {
        return relayed();
    }
    match rustix::io::fcntl_dupfd_cloexec(own, 3) {
        Err(Errno::BADF) => null(),
        other => Ok(other.call(|| "fcntl(F_DUPFD_CLOEXEC)")?),
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(PipeFlags::CLOEXEC).call(|| "pipe2()")?)
}

fn null() -> Result<OwnedFd> {
    Ok(rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .call(|| "open(\"/dev/null\")")?)
}

struct Relay {
    program: Program,
    sources: [Option<OwnedFd>; 2],
    sinks: [Outlet<BorrowedFd<'static>>; 2],
    stdin: Option<BorrowedFd<'static>>,
    input: Outlet<OwnedFd>,
    keys: DetachKeys,
    tty: bool,
}

impl Relay {
    fn new(ends: Ends, program: Program, streams: Streams) -> Self {
        let relayed = ends.input.is_some() && streams.interactive;
        Self {
            program,
            sources: ends.outputs,
            sinks: [Outlet::new(Some(rustix::stdio::stdout())), Outlet::new(Some(rustix::stdio::stderr()))],
            stdin: relayed.then(rustix::stdio::stdin),
            input: Outlet::new(ends.input),
            keys: DetachKeys::default(),
            tty: streams.tty,
        }
    }

    fn run(mut self, signals: &SignalFd) -> Result<u8> {
        self.resize();
        loop {
            let ready = self.wait(signals)?;
            if ready[0] {
                return self.end();
            }
            if ready[1] {
                self.pass_signals(signals)?;
            }
            for at in 0..2 {
                if ready[2 + at] {
                    self.read_output(at);
                }
                if ready[4 + at] {
                    self.write_output(at);
                }
            }
            if ready[6] && self.input.write().is_err() {
                self.input.close();
                self.stdin = None;
            }
            if ready[7] && self.read_stdin() {
                return Ok(0);
            }
        }
    }

    fn wait(&self, signals: &SignalFd) -> Result<[bool; 8]> {
        let source = |at: usize| self.sources[at].as_ref().filter(|_| self.sinks[at].is_idle());
        let input = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let pidfd = self.program.pidfd();
        let watched = [
            Some(PollFd::new(&pidfd, PollFlags::IN)),
            Some(PollFd::new(signals, PollFlags::IN)),
            source(0).map(|fd| input(fd.as_fd())),
            source(1).map(|fd| input(fd.as_fd())),
            self.sinks[0].poll(),
            self.sinks[1].poll(),
            self.input.poll(),
            self.stdin.filter(|_| self.input.is_idle()).map(input),
        ];
        let present: [bool; 8] = std::array::from_fn(|at| watched[at].is_some());
        let mut polled: Vec<PollFd<'_>> = watched.into_iter().flatten().collect();
        match rustix::event::poll(&mut polled, None) {
            Err(Errno::INTR) => return Ok([false; 8]),
            other => other.call(|| "poll()")?,
        };
        let mut answers = polled.iter().map(|fd| !fd.revents().is_empty());
        Ok(std::array::from_fn(|at| present[at] && answers.next().unwrap_or(false)))
    }

    /// Reads once; tells whether there may be more.
    fn read_output(&mut self, at: usize) -> bool {
        let Some(source) = &self.sources[at] else { return false };
        let mut bytes = [0u8; READ_BYTES];
        match rustix::io::read(source, &mut bytes) {
            Ok(length) if length > 0 => {
                self.sinks[at].give(&bytes[..length]);
                true
            }
            Err(Errno::INTR) => true,
            Err(Errno::AGAIN) => false,
            _ => {
                self.sources[at] = None;
                false
            }
        }
    }

    fn write_output(&mut self, at: usize) {
        // Nobody reads any more: the program learns it from its own pipe.
        if self.sinks[at].write().is_err() {
            self.sinks[at].close();
            self.sources[at] = None;
        }
    }

    /// Passes on what was typed; tells whether the user detaches.
    fn read_stdin(&mut self) -> bool {
        let Some(stdin) = self.stdin else { return false };
        let mut typed = [0u8; READ_BYTES];
        let length = match rustix::io::read(stdin, &mut typed) {
            Err(Errno::INTR | Errno::AGAIN) => return false,
            other => other.unwrap_or(0),
        };
        if length == 0 {
            self.stdin = None;
            self.input.close();
            return false;
        }
        if !self.tty {
            self.input.give(&typed[..length]);
            return false;
        }
        let mut passed = Vec::with_capacity(length + 1);
        let detach = self.keys.filter(&typed[..length], &mut passed);
        self.input.give(&passed);
        detach
    }

    fn pass_signals(&self, signals: &SignalFd) -> Result<()> {
        while let Some(signal) = signals.next()? {
            if signal == SIGWINCH {
                self.resize();
            } else {
                // It may have ended meanwhile.
                let _ = process::send_signal(self.program.pidfd(), signal);
            }
        }
        Ok(())
    }

    fn resize(&self) {
        if let (true, Some(master), Some((rows, columns))) =
            (self.tty, &self.sources[0], terminal_size(rustix::stdio::stdout()))
        {
            // A terminal that is gone needs no size.
            let _ = bale_sys::terminal::set_size(master, rows, columns);
        }
    }

    fn end(&mut self) -> Result<u8> {
        let code = self.program.end()?;
        for at in 0..2 {
            for _ in 0..READS_AT_END {
                if !self.read_output(at) {
                    break;
                }
            }
            while !self.sinks[at].is_idle() && self.sinks[at].is_open() {
                self.write_output(at);
            }
        }
        Ok(code)
    }
}
