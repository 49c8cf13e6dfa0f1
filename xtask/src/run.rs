//! Child processes: each in a process group of its own, ended when the user interrupts, their output kept in files.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use bale_sys::signal::{SignalFd, let_in_for};
use bale_testkit::command::shown;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open};

/// Why a command of `cargo xtask` ended early.
#[derive(Debug)]
pub enum Failure {
    /// The user pressed Ctrl-C, or somebody sent SIGTERM or SIGHUP; its number.
    Interrupted(i32),
    /// What went wrong.
    Words(String),
    /// What went wrong was told already, where it happened.
    Told,
    /// A command ended with this exit status, which is passed on.
    Ended(i32),
}

/// The result of everything here.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interrupted(signal) => write!(f, "interrupted (signal {signal})"),
            Self::Words(words) => f.write_str(words),
            Self::Told => f.write_str("failed; the reason is above"),
            Self::Ended(code) => write!(f, "exit status {code}"),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Words(error.to_string())
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::Words(format!("JSON: {error}"))
    }
}

/// Makes a failure of words.
pub fn fail<T>(words: impl Into<String>) -> Result<T> {
    Err(Failure::Words(words.into()))
}

/// How a child ended.
#[derive(Clone, Debug)]
pub struct Ran {
    /// The command line.
    pub line: String,
    /// Exit status, 128 + signal as a shell shows it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// From start to end.
    pub took: Duration,
}

impl Ran {
    /// Wants success.
    pub fn success(self) -> Result<Self> {
        if self.code == 0 {
            return Ok(self);
        }
        let said = format!("{}{}", self.stdout, self.stderr);
        fail(format!("{}: exit status {}\n{}", self.line, self.code, said.trim_end()))
    }
}

/// The exit status of a child that was ended because it took too long, as timeout(1) has it.
pub const TOO_LONG: i32 = 124;

/// How long an output may stay open after its command's end.
const HELD: Duration = Duration::from_secs(10);

/// Runs children and notices interruptions.
#[derive(Debug)]
pub struct Runner {
    signals: SignalFd,
    /// Where the output of a running child is kept.
    dir: PathBuf,
    /// The signal that ended the work; from then on children run to their end, as they clean up.
    interrupted: Option<i32>,
    next: u32,
}

/// SIGHUP, SIGINT and SIGTERM.
const ENDING: [i32; 3] = [1, 2, 15];

impl Runner {
    /// Takes over the signals that end a program; `dir` is for the children's output.
    pub fn new(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let signals = SignalFd::block(&ENDING).map_err(|e| Failure::Words(format!("signals: {e}")))?;
        Ok(Self { signals, dir: dir.to_owned(), interrupted: None, next: 0 })
    }

    /// Runs a child to its end and returns what it said, whatever its exit status.
    pub fn run(&mut self, command: &mut Command) -> Result<Ran> {
        self.next += 1;
        let [out, err] = ["out", "err"].map(|name| self.dir.join(format!("{name}.{}", self.next)));
        command.stdout(File::create(&out)?).stderr(File::create(&err)?);
        let ended = self.watch(command);
        let [stdout, stderr] = [&out, &err].map(|file| fs::read(file).unwrap_or_default());
        let _ = (fs::remove_file(out), fs::remove_file(err));
        let (code, took) = ended?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Ran { line: shown(command), code, stdout: text(stdout), stderr: text(stderr), took })
    }

    /// Runs a child to its end with its output on the terminal and returns its exit status and time.
    pub fn watch(&mut self, command: &mut Command) -> Result<(i32, Duration)> {
        self.check()?;
        let began = Instant::now();
        command.stdin(Stdio::null()).process_group(0);
        let child = spawn(command)?;
        let code = self.wait(child)?;
        Ok((code, began.elapsed()))
    }

    /// Runs a child to its end, for at most `limit`, shows all that it writes line by line, and returns exit status
    /// ([`TOO_LONG`] at the limit) and lines.
    pub fn watch_lines(&mut self, command: &mut Command, limit: Duration) -> Result<(i32, Vec<String>)> {
        self.check()?;
        // One pipe for both, so that what is said on either stays in its order.
        let (pipe, end) = io::pipe()?;
        command.stdin(Stdio::null()).stdout(end.try_clone()?).stderr(end).process_group(0);
        let child = spawn(command)?;
        // Ours must be closed, or the reader never sees the end.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                crate::say(&line);
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let code = self.wait_for(child, Some(limit))?;
        let mut all = Vec::new();
        loop {
            match lines.recv_timeout(HELD) {
                Ok(line) => all.push(line),
                Err(RecvTimeoutError::Disconnected) => return Ok((code, all)),
                Err(RecvTimeoutError::Timeout) => {
                    crate::say("something that the command left behind holds its output open");
                    return Ok((code, all));
                }
            }
        }
    }

    /// Runs a child to its end at the terminal: with its input, and in the foreground.
    pub fn attached(&mut self, command: &mut Command) -> Result<i32> {
        self.check()?;
        let child = spawn(command)?;
        self.wait(child)
    }

    fn wait(&mut self, child: Child) -> Result<i32> {
        self.wait_for(child, None)
    }

    /// Waits for a child; on a signal, and at the end of `limit`, its group is ended.
    fn wait_for(&mut self, mut child: Child, limit: Option<Duration>) -> Result<i32> {
        let pid = pid_of(&child)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from)?;
        let limit = limit.map(|limit| Timespec { tv_sec: limit.as_secs().cast_signed(), tv_nsec: 0 });
        loop {
            let mut ready = [PollFd::new(&pidfd, PollFlags::IN), PollFd::new(&self.signals, PollFlags::IN)];
            // A signal that came during the clean-up stays pending and must not end the waiting.
            let watched = if self.interrupted.is_some() { 1 } else { 2 };
            if poll(&mut ready[..watched], limit.as_ref()).map_err(io::Error::from)? == 0 {
                end_group(&mut child)?;
                return Ok(TOO_LONG);
            }
            if !ready[0].revents().is_empty() {
                let status = child.wait()?;
                return Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)));
            }
            if let Err(failure) = self.check() {
                end_group(&mut child)?;
                return Err(failure);
            }
        }
    }

    /// Fails when a signal has come since the last call; never fails again after that.
    pub fn check(&mut self) -> Result<()> {
        if self.interrupted.is_some() {
            return Ok(());
        }
        match self.signals.next() {
            Ok(Some(signal)) => {
                self.interrupted = Some(signal);
                Err(Failure::Interrupted(signal))
            }
            _ => Ok(()),
        }
    }

    /// Sleeps, unless interrupted.
    pub fn pause(&mut self, time: Duration) -> Result<()> {
        self.check()?;
        let limit =
            Timespec { tv_sec: time.as_secs().cast_signed(), tv_nsec: i64::from(time.subsec_nanos()) };
        let mut ready = [PollFd::new(&self.signals, PollFlags::IN)];
        poll(&mut ready, Some(&limit)).map_err(io::Error::from)?;
        self.check()
    }

    /// Calls `ready` every 20 ms until it returns a value, for at most `limit`.
    pub fn until<T>(
        &mut self,
        limit: Duration,
        mut ready: impl FnMut(&mut Self) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(value) = ready(self)? {
                return Ok(Some(value));
            }
            if Instant::now() > deadline {
                return Ok(None);
            }
            self.pause(Duration::from_millis(20))?;
        }
    }
}

/// Starts a child, which gets the signals that this program has taken over.
fn spawn(command: &mut Command) -> Result<Child> {
    let_in_for(command).spawn().map_err(|e| Failure::Words(format!("{}: {e}", shown(command))))
}

/// Ends a child and its group: asks first, and insists after two seconds.
pub fn end_group(child: &mut Child) -> Result<()> {
    let pid = pid_of(child)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from)?;
    end(pid, Signal::TERM);
    let mut ready = [PollFd::new(&pidfd, PollFlags::IN)];
    poll(&mut ready, Some(&Timespec { tv_sec: 2, tv_nsec: 0 })).map_err(io::Error::from)?;
    end(pid, Signal::KILL);
    child.wait()?;
    Ok(())
}

/// Sends a signal to a group or, where a child was left in the group of its parent, to the child.
fn end(pid: Pid, signal: Signal) {
    if kill_process_group(pid, signal).is_err() {
        let _ = kill_process(pid, signal);
    }
}

fn pid_of(child: &Child) -> Result<Pid> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    pid.map_or_else(|| fail(format!("strange pid {}", child.id())), Ok)
}
