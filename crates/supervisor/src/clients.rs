//! The control socket and those who are connected to it.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use bale_fault::Result;
use bale_record::Dir;
use bale_record::control::{Event, HEADER_BYTES, Request, SOCKET};
use bale_sys::error::{Call, Error};
use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType,
};

/// The most clients at a time; further ones are turned away.
pub const LIMIT: usize = 512;

/// The listening socket in the container's directory.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl Listener {
    /// Binds the socket, mode 0600, in place of one that an earlier supervisor left.
    ///
    /// # Errors
    /// The failed call.
    pub fn bind(dir: &Dir) -> Result<Self> {
        unlink(dir)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
            .call(|| "socket(AF_UNIX, SOCK_SEQPACKET)")?;
        // The directory's own path may be longer than the 107 bytes of a socket's address.
        let path = format!("/proc/self/fd/{}/{SOCKET}", dir.as_fd().as_raw_fd());
        let address = SocketAddrUnix::new(path).call(|| "bind(\"control.sock\")")?;
        let mask = rustix::process::umask(Mode::from_raw_mode(0o177));
        let bound = rustix::net::bind(&socket, &address);
        rustix::process::umask(mask);
        bound.call(|| "bind(\"control.sock\")")?;
        rustix::net::listen(&socket, 32).call(|| "listen(\"control.sock\")")?;
        Ok(Self(socket))
    }

    /// Takes the next connection; `None` when nobody waits.
    #[must_use]
    pub fn accept(&self) -> Option<OwnedFd> {
        // A client that gave up meanwhile, or a lack of descriptors, is no reason to leave the container alone.
        rustix::net::accept_with(&self.0, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).ok()
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Removes the socket's name.
///
/// # Errors
/// The failed call.
pub fn unlink(dir: &Dir) -> Result<()> {
    match rustix::fs::unlinkat(dir, SOCKET, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(Error::new("unlinkat(\"control.sock\")", errno).into()),
    }
}

/// A connected client.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
    /// It has read the log up to here and wants to know when there is more.
    pub watching: Option<u64>,
    /// It started the container.
    pub starter: bool,
    /// The process of [`Request::Exec`] whose end it waits for.
    pub executed: Option<i32>,
}

/// What a client's socket yields.
#[derive(Debug)]
pub enum Heard {
    /// A request, and the descriptors that came beside it.
    Request(Request, Vec<OwnedFd>),
    /// Nothing now.
    Nothing,
    /// The client has left.
    Gone,
}

impl Client {
    /// Takes a connected socket.
    #[must_use]
    pub const fn new(socket: OwnedFd, starter: bool) -> Self {
        Self { socket, watching: None, starter, executed: None }
    }

    /// Sends an event if the client's socket has room; a client that never reads is served no further.
    pub fn send(&self, event: &Event) {
        // EAGAIN cannot happen to a client that keeps to the protocol, and one that is gone is noticed by its hang-up.
        let _ = rustix::net::send(&self.socket, &event.encode(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }

    /// Tells the client when the process whose end it waits for has ended; reaps that.
    pub fn tell_ended(&mut self) {
        let Some(pid) = self.executed else { return };
        // No child of this process can be gone without having been reaped here.
        if let Ok(Some(ended)) = bale_sys::process::reap(pid) {
            self.executed = None;
            self.send(&Event::Ended { code: ended.status() });
        }
    }

    /// Answers a request for standard input, with or without one.
    pub fn send_input(&self, input: Option<BorrowedFd<'_>>) {
        let Some(input) = input else { return self.send(&Event::Input) };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let rights = [input];
        control.push(SendAncillaryMessage::ScmRights(&rights));
        let bytes = Event::Input.encode();
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        // As in `send`.
        let _ = rustix::net::sendmsg(&self.socket, &[IoSlice::new(&bytes)], &mut control, flags);
    }

    /// Reads the next request. What is no request is passed over, as a later bale may know more of them.
    #[must_use]
    pub fn hear(&self) -> Heard {
        let mut bytes = [0u8; HEADER_BYTES + 64];
        match bale_sys::socket::receive_fds(&self.socket, &mut bytes) {
            Ok((0, _)) => Heard::Gone,
            Ok((length, fds)) => Request::decode(&bytes[..length])
                .map_or(Heard::Nothing, |request| Heard::Request(request, fds)),
            Err(Errno::AGAIN | Errno::INTR) => Heard::Nothing,
            Err(_) => Heard::Gone,
        }
    }

    /// Gives the socket up.
    #[must_use]
    pub fn into_socket(self) -> OwnedFd {
        self.socket
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
