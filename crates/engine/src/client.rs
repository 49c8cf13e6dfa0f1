//! The engine's side of a supervisor's control socket.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use bale_fault::{Fault, Kind, Result};
use bale_record::Dir;
use bale_record::control::{Event, HEADER_BYTES, PAYLOAD_LIMIT_BYTES, Request, SOCKET};
use bale_sys::error::{Call, Error};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};

/// A connection to a supervisor.
#[derive(Debug)]
pub struct Client(OwnedFd);

/// What a supervisor said.
#[derive(Debug)]
pub enum Said {
    /// An event, with the descriptor that came beside it.
    Event(Event, Option<OwnedFd>),
    /// The supervisor is gone, and with `--rm` the container too.
    End,
}

impl Client {
    /// Takes a connected socket.
    #[must_use]
    pub const fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Connects to the supervisor of a container; `None` when it has none.
    ///
    /// # Errors
    /// The failed call.
    pub fn connect(dir: &Dir) -> Result<Option<Self>> {
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
        let socket = socket.call(|| "socket(AF_UNIX, SOCK_SEQPACKET)")?;
        let path = format!("/proc/self/fd/{}/{SOCKET}", dir.as_fd().as_raw_fd());
        let address = SocketAddrUnix::new(path).call(|| "connect(\"control.sock\")")?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) => Ok(Some(Self(socket))),
            Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(None),
            Err(errno) => Err(Error::new("connect(\"control.sock\")", errno).into()),
        }
    }

    /// Asks for something. A supervisor that has just left cannot hear it, which [`Client::listen`] tells.
    ///
    /// # Errors
    /// The failed call.
    pub fn ask(&self, request: &Request) -> Result<()> {
        match rustix::net::send(&self.0, &request.encode(), SendFlags::NOSIGNAL) {
            Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
            Err(errno) => Err(Error::new(format!("send(<control socket>, {request:?})"), errno).into()),
        }
    }

    /// Asks for something with descriptors, as [`Client::ask`].
    ///
    /// # Errors
    /// The failed call.
    pub fn ask_with(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<()> {
        match bale_sys::socket::send_fds(&self.0, &request.encode(), fds) {
            Ok(()) | Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
            Err(errno) => Err(Error::new(format!("sendmsg(<control socket>, {request:?})"), errno).into()),
        }
    }

    /// Waits for the next event.
    ///
    /// # Errors
    /// The failed call; `Internal` for what is no event.
    pub fn listen(&self) -> Result<Said> {
        let mut bytes = vec![0u8; HEADER_BYTES + PAYLOAD_LIMIT_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut parts = [std::io::IoSliceMut::new(&mut bytes)];
            match rustix::net::recvmsg(&self.0, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
                // The kernel reports once, and before what is still to be read, that the supervisor left without having
                // read a request: what it said before it left comes next.
                Err(Errno::INTR | Errno::CONNRESET) => {}
                other => break other.call(|| "recvmsg(<control socket>)")?,
            }
        };
        if received.bytes == 0 {
            return Ok(Said::End);
        }
        let fd = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        let strange = |errno| {
            Fault::from(Error::new("read an event of the supervisor", errno)).with_kind(Kind::Internal)
        };
        Ok(Said::Event(Event::decode(&bytes[..received.bytes]).map_err(strange)?, fd))
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
