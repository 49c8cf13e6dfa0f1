//! A socket of rtnetlink.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::message::{Address, Link, Request, flag, kind, messages};
use crate::error::{Call, Error, Result};

/// More of an answer than this is not read, in bytes: hundreds of thousands of addresses.
const ANSWER_LIMIT_BYTES: usize = 64 << 20;
/// A list that changes while it is made is asked for again, so many times.
const ATTEMPTS: u32 = 20;

/// Types and bodies of messages.
type Answer = Vec<(u16, Vec<u8>)>;

/// A socket in one network namespace: the one that its maker was in.
#[derive(Debug)]
pub struct Route {
    socket: OwnedFd,
    sequence: u32,
}

impl Route {
    /// Opens it.
    ///
    /// # Errors
    /// The failed call.
    pub fn open() -> Result<Self> {
        let socket =
            rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None);
        Ok(Self { socket: socket.call(|| "socket(AF_NETLINK)")?, sequence: 0 })
    }

    /// Finds a device by name.
    ///
    /// # Errors
    /// `ENODEV` when there is none.
    pub fn link(&mut self, name: &str) -> Result<Link> {
        let call = || format!("netlink RTM_GETLINK({name:?})");
        let answer = self.ask(&Request::find_link(name), call)?;
        let body = answer.iter().find(|(found, _)| *found == kind::NEW_LINK).map(|(_, body)| body);
        let link = body.and_then(|body| Link::read(body).ok());
        link.filter(|link| link.name == name).ok_or_else(|| Error::new(call(), Errno::PROTO))
    }

    /// Lists the addresses of a device.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn addresses(&mut self, index: u32) -> Result<Vec<Address>> {
        let call = || format!("netlink RTM_GETADDR({index})");
        let answer = self.ask(&Request::list_addresses(), call)?;
        let bodies = answer.iter().filter(|(found, _)| *found == kind::NEW_ADDRESS);
        let all: std::result::Result<Vec<_>, _> = bodies.map(|(_, body)| Address::read(body)).collect();
        let all = all.map_err(|_| Error::new(call(), Errno::PROTO))?;
        Ok(all.into_iter().filter(|address| address.index == index).collect())
    }

    /// Sets a device up or down.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn set_up(&mut self, link: &Link, up: bool) -> Result<()> {
        let call = || format!("netlink RTM_NEWLINK({:?}, {})", link.name, if up { "up" } else { "down" });
        self.ask(&Request::set_up(link.index, up), call).map(drop)
    }

    /// Moves a device into another network namespace, under a name there.
    ///
    /// # Errors
    /// `EEXIST` when the name is taken there, `EINVAL` for a device that stays where it is.
    pub fn move_link(&mut self, link: &Link, name: &str, namespace: impl AsFd) -> Result<()> {
        let call = || format!("netlink RTM_NEWLINK({:?}, name {name:?}, netns)", link.name);
        let namespace = namespace.as_fd().as_raw_fd();
        self.ask(&Request::move_link(link.index, name, namespace), call).map(drop)
    }

    /// Gives an address to a device.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn add_address(&mut self, link: &Link, address: &Address) -> Result<()> {
        let call = || format!("netlink RTM_NEWADDR({:?}, {:?}/{})", link.name, address.local, address.prefix);
        self.ask(&Request::add_address(address, link.index), call).map(drop)
    }

    /// Sends a request and collects its answer.
    fn ask(&mut self, request: &Request, call: impl Fn() -> String) -> Result<Answer> {
        for _ in 0..ATTEMPTS {
            if let Some(answer) = self.ask_once(request, &call)? {
                return Ok(answer);
            }
        }
        Err(Error::new(call(), Errno::AGAIN))
    }

    /// `None` when what was listed changed meanwhile.
    fn ask_once(&mut self, request: &Request, call: &impl Fn() -> String) -> Result<Option<Answer>> {
        self.sequence += 1;
        let to = SocketAddrNetlink::new(0, 0);
        rustix::net::sendto(&self.socket, &request.bytes(self.sequence), SendFlags::empty(), &to)
            .call(call)?;
        let mut answer = Vec::new();
        let mut interrupted = false;
        let mut total = 0;
        loop {
            let part = self.receive(call)?;
            total += part.len();
            let parts = messages(&part).map_err(|_| Error::new(call(), Errno::PROTO))?;
            if total > ANSWER_LIMIT_BYTES || parts.is_empty() {
                return Err(Error::new(call(), Errno::PROTO));
            }
            for message in parts.iter().filter(|message| message.sequence == self.sequence) {
                interrupted |= message.flags & flag::DUMP_INTERRUPTED != 0;
                match message.kind {
                    kind::ERROR | kind::DONE => {
                        let code = message.body.get(..4).and_then(|code| code.try_into().ok());
                        return match code.map_or(0, i32::from_ne_bytes) {
                            0 => Ok((!interrupted).then_some(answer)),
                            // Errnos are small; what is none would make from_raw_os_error panic.
                            code if (-4095..0).contains(&code) => {
                                Err(Error::new(call(), Errno::from_raw_os_error(-code)))
                            }
                            _ => Err(Error::new(call(), Errno::PROTO)),
                        };
                    }
                    other => answer.push((other, message.body.to_vec())),
                }
                if message.flags & flag::MULTI == 0 {
                    return Ok(Some(answer));
                }
            }
        }
    }

    /// Receives one datagram of the kernel.
    fn receive(&self, call: &impl Fn() -> String) -> Result<Vec<u8>> {
        let mut buffer = vec![0_u8; 1 << 16];
        loop {
            let flags = RecvFlags::TRUNC;
            let (length, whole, from) = match rustix::net::recvfrom(&self.socket, &mut buffer[..], flags) {
                Ok((length, whole, from)) => (length, whole, from),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(Error::new(call(), errno)),
            };
            if whole > buffer.len() {
                return Err(Error::new(call(), Errno::MSGSIZE));
            }
            // Anybody may send to the socket; only the kernel is port 0.
            let sender = from.and_then(|from| SocketAddrNetlink::try_from(from).ok());
            if sender.is_some_and(|sender| sender.pid() == 0) {
                buffer.truncate(length);
                return Ok(buffer);
            }
        }
    }
}
