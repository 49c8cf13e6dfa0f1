//! The executor: a fork of the supervisor that starts one further process in the container, tells, and ends. The process
//! is the supervisor's child from its first instruction, so it is reaped whatever becomes of whoever asked for it.

use std::os::fd::{AsFd, OwnedFd};

use bale_fault::{Fault, Kind, Result};
use bale_record::Dir;
use bale_record::control::{Event, Failure};
use bale_runtime::{ExecOptions, Executed, InitParent, Stdio};
use bale_spec::json::CONFIG_LIMIT_BYTES;
use bale_spec::runtime::Process;
use bale_sys::error::Call;
use bale_sys::{file, socket};
use rustix::net::{RecvFlags, SendFlags};

/// Starts an executor and returns where it reports. It tells `client` how it went, before it reports.
///
/// # Errors
/// The failed call.
pub fn start(dir: &Dir, client: impl AsFd, descriptors: Vec<OwnedFd>) -> Result<OwnedFd> {
    let (ours, theirs) = socket::packet_pair().call(|| "socketpair(AF_UNIX, SOCK_SEQPACKET)")?;
    let supervisor = rustix::process::getpid();
    let body = || {
        let done = crate::creator::die_with(supervisor).and_then(|()| execute(dir, descriptors));
        let pid = done.as_ref().map_or(0, |executed| executed.pid);
        // Whoever asked may have left: the program runs all the same.
        let _ = match &done {
            Ok(executed) => {
                socket::send_fd(client, &Event::Executed { pid }.encode(), executed.pidfd.as_fd())
            }
            Err(fault) => socket::send(client, &Event::Failed(Failure::from(fault)).encode()),
        };
        // Without a supervisor there is nobody to tell.
        let _ = rustix::net::send(&theirs, &pid.to_ne_bytes(), SendFlags::NOSIGNAL);
        0
    };
    bale_sys::process::fork_once(body)?;
    Ok(ours)
}

/// Reads an executor's report: the program's pid, 0 when there is none; `None` when it died without a word.
#[must_use]
pub fn report(socket: &OwnedFd) -> Option<i32> {
    let mut bytes = [0_u8; 4];
    let (length, _) = rustix::net::recv(socket, &mut bytes, RecvFlags::DONTWAIT).ok()?;
    (length == bytes.len()).then_some(i32::from_ne_bytes(bytes))
}

fn execute(dir: &Dir, descriptors: Vec<OwnedFd>) -> Result<Executed> {
    let mut descriptors = descriptors.into_iter();
    let mut next = || {
        let words = "a request for exec came without its descriptors";
        descriptors.next().ok_or_else(|| Fault::new(Kind::InvalidInput, words))
    };
    let text = file::read_fd_bounded(next()?, "<the process>", CONFIG_LIMIT_BYTES)?;
    let process: Process = bale_spec::json::parse(&text, CONFIG_LIMIT_BYTES)
        .map_err(|error| Fault::new(Kind::InvalidInput, "parse the process of exec").caused_by(error))?;
    let stdio = if process.terminal {
        Stdio::ConsoleSocket(next()?)
    } else {
        Stdio::Fds { stdin: next()?, stdout: next()?, stderr: next()? }
    };
    let options = ExecOptions {
        process,
        stdio,
        parent: InitParent::Sibling,
        cgroups: Vec::new(),
        pid_file: None,
        pidfd_socket: None,
        preserve_fds: 0,
        ignore_paused: false,
    };
    bale_runtime::exec(dir, options)
}
