//! Hooks that init runs itself: createContainer and startContainer.

use std::os::fd::{AsFd, AsRawFd};

use bale_sys::process::{self, Ended, close_on_exec_from, default_signals, exec, place_fd};
use rustix::fs::{MemfdFlags, SeekFrom, memfd_create, seek};
use rustix::io::Errno;

use super::execute::at;
use super::report::{Call, Failure};
use crate::plan::op::InnerHook;

/// What [`Failure::argument`] says when a hook ran out of time.
pub const TIMED_OUT: u16 = 1000;

/// Runs one hook and waits for it: state on standard input, its own environment, killed when its time is over.
pub fn run(hook: &InnerHook) -> Result<(), Failure> {
    // In memory, not in a pipe: a hook that reads nothing of a long state would hold init back, beyond its timeout too.
    let state = memfd_create(c"state", MemfdFlags::CLOEXEC).map_err(at(Call::Fork))?;
    write_state(&state, hook);
    seek(&state, SeekFrom::Start(0)).map_err(at(Call::Fork))?;
    let child = process::fork_once(|| {
        let placed = place_fd(state.as_raw_fd(), 0).and_then(|()| close_on_exec_from(3));
        if placed.is_ok() {
            default_signals();
            let _ = exec(&hook.path, &hook.argv, &hook.env);
        }
        127
    });
    let child = child.map_err(|error| at(Call::Fork)(error.errno()))?;
    drop(state);
    let ended =
        process::wait_end(&child.pidfd, hook.timeout_ms).map_err(|error| at(Call::Fork)(error.errno()))?;
    if !ended {
        let _ = process::send_signal(&child.pidfd, 9);
    }
    let status = process::wait(&child.pidfd).map_err(|error| at(Call::Fork)(error.errno()))?;
    let mut failure = Failure::new(Call::HookStatus, 0);
    failure.argument = match status {
        _ if !ended => TIMED_OUT,
        Ended::Code(0) => return Ok(()),
        Ended::Code(code) => code.into(),
        Ended::Signal(signal) => 256 + u16::try_from(signal).unwrap_or(0),
    };
    Err(failure)
}

/// Writes the state document with this process's pid.
fn write_state(writer: impl AsFd, hook: &InnerHook) {
    let mut digits = [0_u8; 12];
    let mut start = digits.len();
    let mut pid = rustix::process::getpid().as_raw_nonzero().get().unsigned_abs();
    loop {
        start -= 1;
        digits[start] = b'0' + (pid % 10) as u8;
        pid /= 10;
        if pid == 0 {
            break;
        }
    }
    for part in [&hook.state[0][..], &digits[start..], &hook.state[1][..]] {
        let mut rest = part;
        while !rest.is_empty() {
            match rustix::io::write(&writer, rest) {
                Ok(count) => rest = &rest[count..],
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }
}
