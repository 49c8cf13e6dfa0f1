//! The container's standard input, output and error: pipes, or a terminal whose master arrives over a socket.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bale_fault::Result;
use bale_record::settings::{Input, Settings};
use bale_runtime::Stdio;
use bale_sys::error::{Call, Error};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
};
use rustix::pipe::PipeFlags;

use crate::log::Stream;

/// This process's ends.
#[derive(Debug)]
pub struct Channels {
    /// Writing end of standard input: a pipe, or the terminal.
    input: Option<OwnedFd>,
    /// What is read, by stream; `None` after its end.
    outputs: [Option<OwnedFd>; 2],
    /// Where the terminal's master arrives.
    console: Option<OwnedFd>,
}

/// Makes both sides' ends.
///
/// # Errors
/// The failed call.
pub fn channels(settings: &Settings) -> Result<(Channels, Stdio)> {
    if settings.tty {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .call(|| "socketpair(AF_UNIX)")?;
        let channels = Channels { input: None, outputs: [None, None], console: Some(ours) };
        return Ok((channels, Stdio::ConsoleSocket(theirs)));
    }
    let (input, stdin) = match settings.input {
        Input::Null => (None, open_null()?),
        Input::Once | Input::Open => {
            let (reader, writer) = pipe()?;
            (Some(writer), reader)
        }
    };
    let (stdout_reader, stdout) = pipe()?;
    let (stderr_reader, stderr) = pipe()?;
    for reader in [&stdout_reader, &stderr_reader] {
        rustix::io::ioctl_fionbio(reader, true).call(|| "ioctl(<pipe>, FIONBIO)")?;
    }
    let channels = Channels { input, outputs: [Some(stdout_reader), Some(stderr_reader)], console: None };
    Ok((channels, Stdio::Fds { stdin, stdout, stderr }))
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(PipeFlags::CLOEXEC).call(|| "pipe2()")?)
}

fn open_null() -> Result<OwnedFd> {
    Ok(rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .call(|| "open(\"/dev/null\")")?)
}

impl Channels {
    /// Takes the terminal that the creator has sent; nothing happens without one.
    ///
    /// # Errors
    /// The failed call; `EPROTO` when no descriptor came.
    pub fn receive_console(&mut self) -> Result<()> {
        let Some(socket) = self.console.take() else { return Ok(()) };
        let master = receive(socket.as_fd())?;
        rustix::io::ioctl_fionbio(&master, true).call(|| "ioctl(<terminal>, FIONBIO)")?;
        self.input = Some(rustix::io::fcntl_dupfd_cloexec(&master, 3).call(|| "fcntl(F_DUPFD_CLOEXEC)")?);
        self.outputs[0] = Some(master);
        Ok(())
    }

    /// Returns the descriptor of a stream that has not ended.
    #[must_use]
    pub fn output(&self, stream: Stream) -> Option<BorrowedFd<'_>> {
        self.outputs[stream as usize].as_ref().map(AsFd::as_fd)
    }

    /// Closes a stream that has ended.
    pub fn close_output(&mut self, stream: Stream) {
        self.outputs[stream as usize] = None;
    }

    /// Returns the writing end of standard input.
    #[must_use]
    pub fn input(&self) -> Option<BorrowedFd<'_>> {
        self.input.as_ref().map(AsFd::as_fd)
    }

    /// Gives this process's writing end up: the input ends with the last client that holds it.
    pub fn close_input(&mut self) {
        self.input = None;
    }
}

/// Receives one descriptor.
fn receive(socket: BorrowedFd<'_>) -> Result<OwnedFd> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0u8; 256];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    rustix::net::recvmsg(socket, &mut [std::io::IoSliceMut::new(&mut byte)], &mut control, flags)
        .call(|| "recvmsg(<console socket>)")?;
    let rights = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    Ok(rights.ok_or_else(|| Error::new("recvmsg(<console socket>): no terminal came", Errno::PROTO))?)
}
