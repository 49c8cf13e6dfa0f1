//! The listener of a filter with `SCMP_ACT_NOTIFY`: fetched from the process that loaded it, and sent to whoever
//! answers its notifications.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use bale_fault::{Context, Fault, Kind, Result};
use bale_spec::runtime::State;
use bale_sys::error::Call;
use bale_sys::process::{self, Child};
use bale_sys::socket;
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};

use crate::kept::Listener;

/// The longest message between the two sides of [`Keeper`].
const MESSAGE_MAX: usize = 1000;

impl Listener {
    /// Fetches descriptor `number` of the process `pid` and sends it with the state that its reader wants
    /// (runtime-spec, "The Container Process State").
    pub fn send(&self, state: &State, pid: i32, pidfd: &OwnedFd, number: i32) -> Result<()> {
        let path = &self.path;
        let fd = pidfd_getfd(pidfd, number, PidfdGetfdFlags::empty());
        let fd = fd.call(|| format!("pidfd_getfd(<process {pid}>, {number})"))?;
        let message = serde_json::json!({
            "ociVersion": bale_spec::runtime::SPEC_VERSION,
            "fds": ["seccompFd"],
            "pid": pid,
            "metadata": self.metadata,
            "state": state,
        });
        let words = || "linux.seccomp.listenerPath";
        let socket = socket::connect_stream(Path::new(path))
            .call(|| format!("connect({path:?})"))
            .map_err(Fault::from);
        let socket = socket.within(words)?;
        socket::send_fd(&socket, message.to_string().as_bytes(), fd.as_fd())
            .call(|| format!("sendmsg({path:?})"))
            .map_err(Fault::from)
            .within(words)
    }
}

/// A process that stays on the host while `exec` joins the container: in the container's user namespace there is no
/// power over a process that is not dumpable, and in its mount namespace no such socket.
#[derive(Debug)]
pub struct Keeper {
    socket: OwnedFd,
    child: Child,
}

impl Keeper {
    /// Starts it.
    pub fn start(listener: &Listener, state: &State) -> Result<Self> {
        let (ours, theirs) = socket::packet_pair().call(|| "socketpair")?;
        let near = std::os::fd::AsRawFd::as_raw_fd(&ours);
        let child = process::fork_once(|| {
            // With a copy of the other end it would never see that end go.
            let served = process::close_copy(near).is_ok() && serve(&theirs, listener, state).is_some();
            u8::from(!served)
        })?;
        Ok(Self { socket: ours, child })
    }

    /// Has the listener of a process sent on.
    pub fn send(&self, process: &Child, number: i32) -> Result<()> {
        let mut message = [0_u8; 8];
        message[..4].copy_from_slice(&process.pid.to_ne_bytes());
        message[4..].copy_from_slice(&number.to_ne_bytes());
        socket::send_fd(&self.socket, &message, process.pidfd.as_fd())
            .call(|| "sendmsg(<listener's keeper>)")?;
        let mut answer = [0_u8; MESSAGE_MAX];
        let (length, _) =
            socket::receive(&self.socket, &mut answer).call(|| "recvmsg(<listener's keeper>)")?;
        match answer[..length].split_first() {
            Some((b'+', _)) => Ok(()),
            Some((_, words)) => {
                Err(Fault::new(Kind::Unavailable, String::from_utf8_lossy(words).into_owned()))
            }
            None => Err(Fault::new(Kind::Internal, "the listener's keeper ended")),
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // It may have ended; the socket's end would end it too.
        let _ = process::send_signal(&self.child.pidfd, 9);
        let _ = process::wait(&self.child.pidfd);
    }
}

/// Answers one request; `None` when none came.
fn serve(socket: &OwnedFd, listener: &Listener, state: &State) -> Option<()> {
    let mut message = [0_u8; 8];
    let (length, pidfd) = socket::receive(socket, &mut message).ok()?;
    let pidfd = pidfd.filter(|_| length == message.len())?;
    let number = |at: usize| Some(i32::from_ne_bytes(message.get(at..at + 4)?.try_into().ok()?));
    let answer = match listener.send(state, number(0)?, &pidfd, number(4)?) {
        Ok(()) => "+".to_owned(),
        Err(fault) => format!("-{}", fault.chain()),
    };
    let bytes = answer.as_bytes();
    socket::send(socket, &bytes[..bytes.len().min(MESSAGE_MAX)]).ok()
}
