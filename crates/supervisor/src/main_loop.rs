//! The one loop: output to the log, requests of clients, the ends of children.

use std::os::fd::{AsFd, OwnedFd};

use bale_fault::{Fault, Kind, Result};
use bale_record::Dir;
use bale_record::control::{Event, Failure, Request};
use bale_record::time::Time;
use bale_sys::error::Call;
use bale_sys::process::{self, Ended};
use bale_sys::signal::{SignalFd, unblock};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};
use rustix::termios::Winsize;

use crate::clients::{Client, Heard, LIMIT, Listener};
use crate::log::{Appended, Log, Stream};
use crate::stdio::Channels;
use crate::{creator, executor};

/// Bytes read from the container at once.
const READ_BYTES: usize = 32 << 10;
/// Reads of one stream before the others get their turn.
const READS_PER_TURN: usize = 8;
/// Reads after the end of init: more than a pipe can hold, so that nothing written before the end is missed, and
/// bounded, as a process outside the container's pid namespace may hold the pipe and write for ever.
const READS_AT_END: usize = (1 << 20) / READ_BYTES + 2;

const LISTENER: u64 = 0;
const REPORT: u64 = 1;
const CHILDREN: u64 = 2;
const OUTPUT: u64 = 3;
const CLIENT: u64 = 16;
const EXECUTOR: u64 = 1 << 32;
const SIGCHLD: i32 = 17;

/// What the loop is made of.
pub struct Parts<'a> {
    /// The container's directory.
    pub dir: &'a Dir,
    /// Its log.
    pub log: Log,
    /// Its stdio.
    pub channels: Channels,
    /// Where clients come in.
    pub listener: Listener,
    /// Where the creator reports.
    pub report: OwnedFd,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The container could not be made; the creator wrote it down.
    Failed(Failure),
    /// The creator died; nothing is written down.
    CreatorDied,
    /// Init ended so.
    Exited(Ended),
}

/// What is left when the loop ends.
pub struct End {
    /// How it ended.
    pub outcome: Outcome,
    /// Those who wait for it.
    pub clients: Vec<Client>,
    /// Further ones may be waiting here.
    pub listener: Listener,
}

/// An executor at work.
struct Executor {
    report: OwnedFd,
    /// Index of the client that asked, while that is there.
    client: Option<usize>,
}

/// The state of the loop.
pub struct MainLoop<'a> {
    parts: Parts<'a>,
    epoll: OwnedFd,
    children: SignalFd,
    init: Option<OwnedFd>,
    init_pid: i32,
    clients: Vec<Option<Client>>,
    executors: Vec<Option<Executor>>,
    /// Children that ended before an executor could say that they are its program.
    unclaimed: Vec<(i32, Ended)>,
    /// The input ends when the client that started the container leaves.
    input_once: bool,
    buffer: Vec<u8>,
    outcome: Option<Outcome>,
}

impl<'a> MainLoop<'a> {
    /// Prepares the loop; `starter` is the client that started the container.
    ///
    /// # Errors
    /// The failed call.
    pub fn new(parts: Parts<'a>, starter: OwnedFd, input_once: bool) -> Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).call(|| "epoll_create1()")?;
        let mut this = Self {
            parts,
            epoll,
            children: SignalFd::block(&[SIGCHLD])?,
            init: None,
            init_pid: 0,
            clients: Vec::with_capacity(4),
            executors: Vec::new(),
            unclaimed: Vec::new(),
            input_once,
            buffer: Vec::with_capacity(READ_BYTES),
            outcome: None,
        };
        this.watch(&this.parts.listener, LISTENER)?;
        this.watch(&this.parts.report, REPORT)?;
        this.watch(&this.children, CHILDREN)?;
        this.add_client(Client::new(starter, true));
        Ok(this)
    }

    fn watch(&self, fd: impl AsFd, token: u64) -> Result<()> {
        let added = epoll::add(&self.epoll, fd, EventData::new_u64(token), EventFlags::IN);
        Ok(added.call(|| format!("epoll_ctl(EPOLL_CTL_ADD, {token})"))?)
    }

    /// Runs until the container has ended.
    ///
    /// # Errors
    /// The failed call.
    pub fn run(mut self) -> Result<End> {
        let mut events = [epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 16];
        while self.outcome.is_none() {
            let ready = match epoll::wait(&self.epoll, &mut events[..], None) {
                Err(Errno::INTR) => 0,
                other => other.call(|| "epoll_wait()")?,
            };
            let before = self.parts.log.size_bytes();
            for event in &events[..ready] {
                self.handle(event.data.u64())?;
            }
            if self.parts.log.size_bytes() != before {
                self.tell_growth();
            }
        }
        let outcome = self.outcome.take().unwrap_or(Outcome::CreatorDied);
        let clients = self.clients.into_iter().flatten().collect();
        // What this process becomes or starts from here on would inherit it.
        unblock(&[SIGCHLD])?;
        Ok(End { outcome, clients, listener: self.parts.listener })
    }

    fn handle(&mut self, token: u64) -> Result<()> {
        match token {
            LISTENER => self.accept(),
            REPORT => self.hear_creator()?,
            CHILDREN => self.reap()?,
            OUTPUT => self.copy(Stream::Stdout, READS_PER_TURN),
            n if n == OUTPUT + 1 => self.copy(Stream::Stderr, READS_PER_TURN),
            n if n >= EXECUTOR => self.hear_executor(usize::try_from(n - EXECUTOR).unwrap_or(usize::MAX)),
            n => self.serve(usize::try_from(n - CLIENT).unwrap_or(usize::MAX)),
        }
        Ok(())
    }

    /// Learns whether there is a container.
    fn hear_creator(&mut self) -> Result<()> {
        let report = creator::report(&self.parts.report);
        // Removed from the set first, as the end of file after the report would come again and again.
        epoll::delete(&self.epoll, &self.parts.report).call(|| "epoll_ctl(EPOLL_CTL_DEL)")?;
        match report {
            Some(Event::Started { pid }) => self.adopt(pid),
            Some(Event::Failed(failure)) => {
                self.outcome = Some(Outcome::Failed(failure));
                Ok(())
            }
            _ => {
                self.outcome = Some(Outcome::CreatorDied);
                Ok(())
            }
        }
    }

    /// Takes the new container over: its end, its output, and who waits for it.
    fn adopt(&mut self, pid: i32) -> Result<()> {
        let missing = || Fault::new(Kind::Internal, format!("the creator reported the pid {pid}"));
        // The pid cannot mean another process: only its parent, this process, can reap it.
        let child = Pid::from_raw(pid).ok_or_else(missing)?;
        let pidfd =
            rustix::process::pidfd_open(child, PidfdFlags::empty()).call(|| format!("pidfd_open({pid})"))?;
        self.init = Some(pidfd);
        self.init_pid = pid;
        self.parts.channels.receive_console()?;
        for (token, stream) in [(OUTPUT, Stream::Stdout), (OUTPUT + 1, Stream::Stderr)] {
            if let Some(output) = self.parts.channels.output(stream) {
                self.watch(output, token)?;
            }
        }
        for client in self.clients.iter().flatten() {
            client.send(&Event::Started { pid });
        }
        // It may have ended already, and the signal that told was for others too.
        self.reap()
    }

    fn accept(&mut self) {
        while let Some(socket) = self.parts.listener.accept() {
            let client = Client::new(socket, false);
            if self.init.is_some() {
                client.send(&Event::Started { pid: self.init_pid });
            }
            self.add_client(client);
        }
    }

    fn add_client(&mut self, client: Client) {
        let free = self.clients.iter().position(Option::is_none).unwrap_or(self.clients.len());
        if free >= LIMIT || self.watch(&client, CLIENT + free as u64).is_err() {
            // Closing it is the answer.
            return;
        }
        if free == self.clients.len() {
            self.clients.push(Some(client));
        } else {
            self.clients[free] = Some(client);
        }
    }

    /// Does what a client asks.
    fn serve(&mut self, index: usize) {
        let Some(client) = self.clients.get_mut(index).and_then(Option::as_mut) else { return };
        match client.hear() {
            Heard::Nothing => {}
            Heard::Gone => {
                let starter = client.starter;
                // A creator may hold a copy of the socket: then closing it here does not end its being watched, and its
                // hang-up would be told without end. What cannot be taken out was not in.
                let _ = epoll::delete(&self.epoll, &*client);
                self.clients[index] = None;
                self.executors
                    .iter_mut()
                    .flatten()
                    .filter(|e| e.client == Some(index))
                    .for_each(|e| e.client = None);
                if starter && self.input_once {
                    self.parts.channels.close_input();
                }
            }
            Heard::Request(Request::Watch { offset_bytes }, _) => {
                client.watching = Some(offset_bytes);
                self.tell_growth();
            }
            Heard::Request(Request::Resize { rows, columns }, _) => self.resize(rows, columns),
            Heard::Request(Request::Signal { number }, _) => self.signal(number),
            Heard::Request(Request::Exec, descriptors) => self.execute(index, descriptors),
            Heard::Request(Request::Input, _) => {
                client.send_input(self.parts.channels.input());
                if self.input_once && client.starter {
                    self.parts.channels.close_input();
                }
            }
        }
    }

    /// Has a further process started in the container.
    fn execute(&mut self, index: usize, descriptors: Vec<OwnedFd>) {
        let Some(client) = self.clients.get(index).and_then(Option::as_ref) else { return };
        let begun = self.executors.iter().flatten().any(|executor| executor.client == Some(index));
        if begun || client.executed.is_some() {
            let fault = Fault::new(Kind::InvalidInput, "a second exec over one connection");
            return client.send(&Event::Failed(Failure::from(&fault)));
        }
        let slot = self.executors.iter().position(Option::is_none).unwrap_or(self.executors.len());
        let started = executor::start(self.parts.dir, client, descriptors)
            .and_then(|report| self.watch(&report, EXECUTOR + slot as u64).map(|()| report));
        match started {
            Err(fault) => client.send(&Event::Failed(Failure::from(&fault))),
            Ok(report) => {
                let executor = Some(Executor { report, client: Some(index) });
                if slot == self.executors.len() {
                    self.executors.push(executor);
                } else {
                    self.executors[slot] = executor;
                }
            }
        }
    }

    /// Learns which process an executor has started; the client knows it already.
    fn hear_executor(&mut self, slot: usize) {
        let Some(executor) = self.executors.get_mut(slot).and_then(Option::take) else { return };
        let report = executor::report(&executor.report);
        let client = executor.client.and_then(|index| self.clients.get_mut(index)?.as_mut());
        match (report, client) {
            (None, Some(client)) => {
                let words = "the process that was starting the program was killed";
                client.send(&Event::Failed(Failure::from(&Fault::new(Kind::Interrupted, words))));
            }
            (Some(pid), Some(client)) if pid != 0 => {
                match self.unclaimed.iter().position(|(ended, _)| *ended == pid) {
                    Some(at) => client.send(&Event::Ended { code: self.unclaimed.remove(at).1.status() }),
                    None => client.executed = Some(pid),
                }
            }
            _ => {}
        }
        if self.executors.iter().all(Option::is_none) {
            self.unclaimed.clear();
        }
    }

    fn resize(&self, rows: u16, columns: u16) {
        if let Some(output) = self.parts.channels.output(Stream::Stdout) {
            let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
            // A pipe answers ENOTTY: there is no size to set then.
            let _ = rustix::termios::tcsetwinsize(output, size);
        }
    }

    fn signal(&self, number: i32) {
        if let (Some(init), Some(signal)) = (&self.init, Signal::from_named_raw(number)) {
            // It may have ended meanwhile, which the client learns next.
            let _ = rustix::process::pidfd_send_signal(init, signal);
        }
    }

    /// Copies what the container wrote to the log.
    fn copy(&mut self, stream: Stream, reads: usize) {
        for _ in 0..reads {
            let Some(output) = self.parts.channels.output(stream) else { return };
            self.buffer.clear();
            match rustix::io::read(output, rustix::buffer::spare_capacity(&mut self.buffer)) {
                Ok(length) if length > 0 => self.keep(stream),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // The end of a pipe, or EIO: the last process has closed the terminal.
                _ => return self.parts.channels.close_output(stream),
            }
        }
    }

    fn keep(&mut self, stream: Stream) {
        if self.parts.log.append(stream, &self.buffer, Time::now()) == Appended::Written {
            return;
        }
        let output = Event::Output { stderr: stream == Stream::Stderr, bytes: self.buffer.clone() };
        for client in self.clients.iter().flatten() {
            client.send(&output);
        }
    }

    /// Tells those who have read all of the log that there is more.
    fn tell_growth(&mut self) {
        let size_bytes = self.parts.log.size_bytes();
        for client in self.clients.iter_mut().flatten() {
            if client.watching.is_some_and(|offset| offset < size_bytes) {
                client.watching = None;
                client.send(&Event::Grown { size_bytes });
            }
        }
    }

    /// Reaps what has ended: init, the programs of exec, creator and executors.
    fn reap(&mut self) -> Result<()> {
        while self.children.next()?.is_some() {}
        if self.init.is_none() {
            // Which one is init is not known yet, and it must not be taken for another.
            self.reap_executed();
            return Ok(());
        }
        while let Some((pid, ended)) = process::reap_any()? {
            let waits = |client: &&mut Client| client.executed == Some(pid);
            if pid == self.init_pid {
                self.end(ended);
            } else if let Some(client) = self.clients.iter_mut().flatten().find(waits) {
                client.executed = None;
                client.send(&Event::Ended { code: ended.status() });
            } else if self.executors.iter().any(Option::is_some) {
                self.unclaimed.push((pid, ended));
            }
        }
        Ok(())
    }

    /// Reaps programs of exec that clients wait for.
    fn reap_executed(&mut self) {
        for client in self.clients.iter_mut().flatten() {
            client.tell_ended();
        }
    }

    /// Copies what is left in the pipes of init. Its pid namespace is empty by then: the kernel ends the others before
    /// it lets the parent see the end of the first.
    fn end(&mut self, ended: Ended) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.copy(stream, READS_AT_END);
        }
        self.outcome = Some(Outcome::Exited(ended));
    }
}
