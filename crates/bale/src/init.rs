//! The small init of `--init`: pid 1 of a container, which reaps orphans and passes signals on.

use crate::exit::ExitCode;
use std::ffi::OsString;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Command;

use bale_fault::{Context, Fault, Kind};
use bale_sys::process;
use bale_sys::signal::SignalFd;
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, Signal, WaitOptions};

use crate::exit;

const SIGCHLD: i32 = 17;

/// Runs `-- PROGRAM ARGS…` and ends as it ends.
pub fn main(arguments: &[OsString]) -> ExitCode {
    let program = match arguments {
        [dashes, program @ ..] if dashes == "--" && !program.is_empty() => program,
        _ => return fail(&Fault::new(Kind::InvalidInput, "@init wants -- PROGRAM ARGS…")),
    };
    // All that can be blocked, so that none is lost and the terminal can be given away (SIGTTOU).
    let every: Vec<i32> = (1..=31).filter(|signal| ![9, 19].contains(signal)).collect();
    let signals = match SignalFd::block(&every) {
        Ok(signals) => signals,
        Err(error) => return fail(&error.into()),
    };
    match process::fork_once(|| become_program(program)) {
        Ok(child) => keep(&signals, child.pid),
        Err(error) => fail(&error.into()),
    }
}

/// Runs in the child; returns only when the program cannot be executed, with the exit status that says so.
fn become_program(program: &[OsString]) -> u8 {
    process::default_signals();
    let error = Command::new(&program[0]).args(&program[1..]).process_group(0).exec();
    let kind = match error.kind() {
        std::io::ErrorKind::NotFound => Kind::ProgramNotFound,
        _ => Kind::ProgramNotExecutable,
    };
    let fault: bale_fault::Result<()> = Err(error).within(|| format!("exec {:?}", program[0]));
    if let Err(fault) = fault {
        exit::report(&fault);
    }
    if kind == Kind::ProgramNotFound { exit::NOT_FOUND } else { exit::NOT_EXECUTABLE }
}

fn fail(fault: &Fault) -> ExitCode {
    exit::report(fault);
    exit::of_run(fault)
}

fn keep(signals: &SignalFd, child: i32) -> ExitCode {
    let Some(pid) = Pid::from_raw(child) else { return ExitCode::from(exit::FAILURE) };
    // The program's group gets the keys of the terminal, if there is one.
    let _ = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), pid);
    loop {
        // A failed poll comes back at once; the read tells what is there.
        let _ = rustix::event::poll(&mut [PollFd::new(signals, PollFlags::IN)], None);
        while let Ok(Some(signal)) = signals.next() {
            if signal == SIGCHLD {
                if let Some(code) = reap(pid) {
                    return code;
                }
            } else if let Some(signal) = Signal::from_named_raw(signal) {
                // It may have ended: SIGCHLD follows.
                let _ = rustix::process::kill_process(pid, signal);
            }
        }
    }
}

/// Reaps all that have ended; tells how the program did, if it is among them.
fn reap(program: Pid) -> Option<ExitCode> {
    let mut code = None;
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if pid == program {
            let status = std::process::ExitStatus::from_raw(status.as_raw());
            let shown = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
            code = Some(ExitCode::from(u8::try_from(shown & 0xff).unwrap_or(255)));
        }
    }
    code
}
