//! Unix sockets that carry descriptors. Bare errnos, no allocation except where a path is given.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::{Errno, Result};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

/// Makes a pair that keeps message boundaries.
///
/// # Errors
/// The failed socketpair.
pub fn packet_pair() -> Result<(OwnedFd, OwnedFd)> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Connects to the stream socket at `path`, which is the caller's own.
///
/// # Errors
/// The failed call.
pub fn connect_stream(path: &Path) -> Result<OwnedFd> {
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // Longer paths than sun_path holds are reached through an O_PATH descriptor of their directory's file.
    let address = match SocketAddrUnix::new(path) {
        Ok(address) => address,
        Err(_) => {
            let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
            let file = rustix::fs::open(path, flags, rustix::fs::Mode::empty())?;
            let name = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
            rustix::net::connect(&socket, &SocketAddrUnix::new(name)?)?;
            return Ok(socket);
        }
    };
    rustix::net::connect(&socket, &address)?;
    Ok(socket)
}

/// Sends `payload` (not empty) with one descriptor. Usable after clone.
///
/// # Errors
/// The failed sendmsg.
pub fn send_fd(socket: impl AsFd, payload: &[u8], fd: BorrowedFd<'_>) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(Errno::NOBUFS);
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(payload)], &mut control, SendFlags::NOSIGNAL).map(|_| ())
}

/// The most descriptors that [`send_fds`] and [`receive_fds`] take.
pub const FDS_LIMIT: usize = 4;

/// Sends `payload` (not empty) with at most [`FDS_LIMIT`] descriptors.
///
/// # Errors
/// The failed sendmsg; `ENOBUFS` for more descriptors.
pub fn send_fds(socket: impl AsFd, payload: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_LIMIT))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::NOBUFS);
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(payload)], &mut control, SendFlags::NOSIGNAL).map(|_| ())
}

/// Receives one message with the descriptors beside it, without waiting; length 0 is the end. Of more than
/// [`FDS_LIMIT`] descriptors the kernel closes the rest.
///
/// # Errors
/// The failed recvmsg; `EAGAIN` when there is none.
pub fn receive_fds(socket: impl AsFd, buffer: &mut [u8]) -> Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_LIMIT))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let length =
        rustix::net::recvmsg(socket.as_fd(), &mut [IoSliceMut::new(buffer)], &mut control, flags)?.bytes;
    let mut found = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            found.extend(fds);
        }
    }
    Ok((length, found))
}

/// Sends a message. Usable after clone.
///
/// # Errors
/// The failed send.
pub fn send(socket: impl AsFd, payload: &[u8]) -> Result<()> {
    rustix::net::send(socket, payload, SendFlags::NOSIGNAL).map(|_| ())
}

/// Receives one message and at most one descriptor with it; length 0 is the end.
///
/// # Errors
/// The failed recvmsg.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut reset = false;
    loop {
        let got = rustix::net::recvmsg(
            socket.as_fd(),
            &mut [IoSliceMut::new(buffer)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        );
        let length = match got {
            Ok(message) => message.bytes,
            Err(Errno::INTR) => continue,
            // The other side went with messages of ours unread. The kernel tells that once, and before what the other
            // side has said: that comes next, then the end.
            Err(Errno::CONNRESET) if !reset => {
                reset = true;
                continue;
            }
            Err(Errno::CONNRESET) => return Ok((0, None)),
            Err(errno) => return Err(errno),
        };
        let mut found = None;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                found = fds.last().or(found);
            }
        }
        return Ok((length, found));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_heard_of_one_who_did_not_listen() {
        let (near, far) = packet_pair().unwrap();
        send(&near, b"unread").unwrap();
        send(&far, b"last words").unwrap();
        drop(far);
        let mut buffer = [0; 64];
        let (length, _) = receive(&near, &mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"last words");
        assert_eq!(receive(&near, &mut buffer).unwrap().0, 0);
    }
}
