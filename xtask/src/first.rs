//! The first process of a pid namespace (a bare container, `unshare --pid`) has to collect the orphans of all others,
//! or they stay as zombies, and a container's own pid namespace never ends. Here a child does the work meanwhile.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use bale_sys::signal::{SignalFd, let_in_for};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};

use crate::run::{Failure, Result};

/// SIGHUP, SIGINT and SIGTERM go to the child; SIGCHLD says that somebody ended.
const PASSED_ON: [i32; 3] = [1, 2, 15];
const SIGCHLD: i32 = 17;

/// Tells whether this process is the first of its pid namespace.
pub fn am_first() -> bool {
    std::process::id() == 1
}

/// Runs the same command in a child, collects every process that ends, and returns how the child ended.
pub fn run_in_child() -> Result<ExitCode> {
    let [hup, int, term] = PASSED_ON;
    let signals = SignalFd::block(&[hup, int, term, SIGCHLD]);
    let signals = signals.map_err(|e| Failure::Words(format!("signals: {e}")))?;
    let mut command = Command::new(std::env::current_exe()?);
    // A group of its own: what the terminal sends to ours is passed on, and must not come twice.
    let child = let_in_for(command.args(std::env::args_os().skip(1)).process_group(0)).spawn()?;
    let child = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let Some(child) = child else { return Err(Failure::Words("strange pid".to_owned())) };
    loop {
        if let Some(code) = collect(child)? {
            return Ok(ExitCode::from(code));
        }
        poll(&mut [PollFd::new(&signals, PollFlags::IN)], None).map_err(std::io::Error::from)?;
        while let Ok(Some(signal)) = signals.next() {
            let known = [(hup, Signal::HUP), (int, Signal::INT), (term, Signal::TERM)];
            if let Some((_, signal)) = known.into_iter().find(|(number, _)| *number == signal) {
                let _ = kill_process(child, signal);
            }
        }
    }
}

/// Collects all that have ended; the child's exit status if it is among them.
fn collect(child: Pid) -> Result<Option<u8>> {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == child => {
                let code =
                    status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
                return Ok(Some(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)));
            }
            Ok(Some(_)) => {}
            Ok(None) => return Ok(None),
            Err(errno) => return Err(std::io::Error::from(errno).into()),
        }
    }
}
