//! Messages of rtnetlink, written and read. Pure: what the kernel answers is read with bounds, and fuzzed.
//!
//! ```text
//! nlmsghdr: length 4, type 2, flags 2, sequence 4, port 4        then a body of its type, then attributes
//! rtattr:   length 2, type 2, payload                            each padded to 4 bytes
//! ```

use std::fmt;

/// `RTM_…` (linux/rtnetlink.h).
pub(super) mod kind {
    pub const ERROR: u16 = 2;
    pub const DONE: u16 = 3;
    pub const NEW_LINK: u16 = 16;
    pub const GET_LINK: u16 = 18;
    pub const NEW_ADDRESS: u16 = 20;
    pub const GET_ADDRESS: u16 = 22;
}

/// `NLM_F_…` (linux/netlink.h).
pub(super) mod flag {
    pub const REQUEST: u16 = 0x1;
    pub const MULTI: u16 = 0x2;
    pub const ACK: u16 = 0x4;
    pub const DUMP_INTERRUPTED: u16 = 0x10;
    pub const DUMP: u16 = 0x300;
    pub const CREATE_EXCLUSIVELY: u16 = 0x600;
}

const HEADER: usize = 16;
const LINK_BODY: usize = 16;
const ADDRESS_BODY: usize = 8;
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
/// The two upper bits of an attribute's type are flags.
const TYPE_MASK: u16 = 0x3fff;
/// `IFA_F_…`: what of an address's flags is a wish, not a state: no duplicate detection, temporary addresses, no route.
const WISHES: u32 = 0x02 | 0x100 | 0x200;
const PERMANENT: u32 = 0x80;
const SCOPE_GLOBAL: u8 = 0;

/// A message that is not what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the kernel's answer is malformed")
    }
}

impl std::error::Error for Malformed {}

/// A message that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// `RTM_…`.
    pub kind: u16,
    /// `NLM_F_…`.
    pub flags: u16,
    /// Number of the request that it answers.
    pub sequence: u32,
    /// What follows the header.
    pub body: &'a [u8],
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Cuts what the kernel sent into messages.
///
/// # Errors
/// [`Malformed`] for a length that does not fit.
pub fn messages(mut bytes: &[u8]) -> Result<Vec<Message<'_>>, Malformed> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let length = usize::try_from(u32_at(bytes, 0).ok_or(Malformed)?).map_err(|_| Malformed)?;
        let whole = bytes.get(..length).filter(|whole| whole.len() >= HEADER).ok_or(Malformed)?;
        found.push(Message {
            kind: u16_at(whole, 4).ok_or(Malformed)?,
            flags: u16_at(whole, 6).ok_or(Malformed)?,
            sequence: u32_at(whole, 8).ok_or(Malformed)?,
            body: &whole[HEADER..],
        });
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(found)
}

/// Cuts what follows a body into attributes: type and payload.
///
/// # Errors
/// [`Malformed`] for a length that does not fit.
pub fn attributes(mut bytes: &[u8]) -> Result<Vec<(u16, &[u8])>, Malformed> {
    let mut found = Vec::new();
    while bytes.len() >= 4 {
        let length = usize::from(u16_at(bytes, 0).ok_or(Malformed)?);
        let whole = bytes.get(..length).filter(|whole| whole.len() >= 4).ok_or(Malformed)?;
        found.push((u16_at(whole, 2).ok_or(Malformed)? & TYPE_MASK, &whole[4..]));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(found)
}

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// It is up.
    pub up: bool,
}

impl Link {
    /// Reads the body of an `RTM_NEWLINK`.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn read(body: &[u8]) -> Result<Self, Malformed> {
        let index = u32_at(body, 4).ok_or(Malformed)?;
        let flags = u32_at(body, 8).ok_or(Malformed)?;
        let rest = body.get(LINK_BODY..).ok_or(Malformed)?;
        let name = attributes(rest)?.into_iter().find(|(kind, _)| *kind == IFLA_IFNAME).ok_or(Malformed)?.1;
        let name = name.split(|&b| b == 0).next().unwrap_or_default();
        let name = std::str::from_utf8(name).map_err(|_| Malformed)?.to_owned();
        Ok(Self { index, name, up: flags & super::IFF_UP != 0 })
    }
}

/// An address of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The device's number.
    pub index: u32,
    /// `AF_INET` or `AF_INET6`.
    pub family: u8,
    /// Length of the prefix in bits.
    pub prefix: u8,
    /// `RT_SCOPE_…`.
    pub scope: u8,
    /// `IFA_F_…`.
    pub flags: u32,
    /// Its own.
    pub local: Vec<u8>,
    /// The other end's, on a point-to-point link.
    pub peer: Option<Vec<u8>>,
    /// For IPv4.
    pub broadcast: Option<Vec<u8>>,
}

impl Address {
    /// Reads the body of an `RTM_NEWADDR`.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn read(body: &[u8]) -> Result<Self, Malformed> {
        let [family, prefix, flags, scope, ..] = *body else { return Err(Malformed) };
        let index = u32_at(body, 4).ok_or(Malformed)?;
        let length = match i32::from(family) {
            libc::AF_INET => 4,
            libc::AF_INET6 => 16,
            _ => return Err(Malformed),
        };
        let attributes = attributes(body.get(ADDRESS_BODY..).ok_or(Malformed)?)?;
        let get = |wanted: u16| attributes.iter().find(|(kind, _)| *kind == wanted).map(|(_, bytes)| *bytes);
        let (address, local) = (get(IFA_ADDRESS), get(IFA_LOCAL));
        // Without a local address it is the only one there is.
        let own = local.or(address).filter(|own| own.len() == length).ok_or(Malformed)?.to_vec();
        let other = |bytes: Option<&[u8]>| bytes.filter(|b| b.len() == length).map(<[u8]>::to_vec);
        Ok(Self {
            index,
            family,
            prefix,
            scope,
            flags: get(IFA_FLAGS).and_then(|bytes| u32_at(bytes, 0)).unwrap_or(u32::from(flags)),
            peer: other(address).filter(|peer| *peer != own),
            broadcast: other(get(IFA_BROADCAST)),
            local: own,
        })
    }

    /// Tells whether somebody gave it to the device for good, and it means something beyond the link.
    #[must_use]
    pub const fn is_lasting(&self) -> bool {
        self.flags & PERMANENT != 0 && self.scope == SCOPE_GLOBAL
    }
}

/// A message to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request(Vec<u8>);

impl Request {
    fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        let mut bytes = vec![0_u8; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flag::REQUEST | flags).to_ne_bytes());
        bytes.extend_from_slice(body);
        Self(bytes)
    }

    fn attribute(mut self, kind: u16, payload: &[u8]) -> Self {
        // Names, addresses and numbers: far below 64 KiB.
        let length = u16::try_from(payload.len() + 4).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(payload);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn name(self, name: &str) -> Self {
        let name = [name.as_bytes(), b"\0"].concat();
        self.attribute(IFLA_IFNAME, &name)
    }

    fn link(kind: u16, flags: u16, index: u32, set: u32, change: u32) -> Self {
        let mut body = [0_u8; LINK_BODY];
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        body[8..12].copy_from_slice(&set.to_ne_bytes());
        body[12..16].copy_from_slice(&change.to_ne_bytes());
        Self::new(kind, flags, &body)
    }

    /// Asks for the device of this name.
    #[must_use]
    pub fn find_link(name: &str) -> Self {
        Self::link(kind::GET_LINK, 0, 0, 0, 0).name(name)
    }

    /// Sets a device up or down.
    #[must_use]
    pub fn set_up(index: u32, up: bool) -> Self {
        let set = if up { super::IFF_UP } else { 0 };
        Self::link(kind::NEW_LINK, flag::ACK, index, set, super::IFF_UP)
    }

    /// Moves a device into the network namespace that descriptor `namespace` is, under the name `name` there: in one
    /// step, so that no name is taken in either namespace meanwhile.
    #[must_use]
    pub fn move_link(index: u32, name: &str, namespace: i32) -> Self {
        let moved = Self::link(kind::NEW_LINK, flag::ACK, index, 0, 0).name(name);
        moved.attribute(IFLA_NET_NS_FD, &namespace.to_ne_bytes())
    }

    /// Asks for all addresses.
    #[must_use]
    pub fn list_addresses() -> Self {
        Self::new(kind::GET_ADDRESS, flag::DUMP, &[0; ADDRESS_BODY])
    }

    /// Gives an address to the device `index`.
    #[must_use]
    pub fn add_address(address: &Address, index: u32) -> Self {
        let mut body = [address.family, address.prefix, 0, address.scope, 0, 0, 0, 0];
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        let flags = flag::ACK | flag::CREATE_EXCLUSIVELY;
        let mut request = Self::new(kind::NEW_ADDRESS, flags, &body)
            .attribute(IFA_LOCAL, &address.local)
            .attribute(IFA_ADDRESS, address.peer.as_deref().unwrap_or(&address.local));
        if let Some(broadcast) = &address.broadcast {
            request = request.attribute(IFA_BROADCAST, broadcast);
        }
        let wishes = address.flags & WISHES;
        if wishes != 0 {
            request = request.attribute(IFA_FLAGS, &wishes.to_ne_bytes());
        }
        request
    }

    /// Returns the bytes to send as request `sequence`.
    #[must_use]
    pub fn bytes(&self, sequence: u32) -> Vec<u8> {
        let mut bytes = self.0.clone();
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_a_message() {
        let bytes = Request::move_link(7, "eth0", 5).bytes(9);
        let read = messages(&bytes).unwrap();
        assert_eq!((read.len(), read[0].kind, read[0].sequence), (1, kind::NEW_LINK, 9));
        let link = Link::read(read[0].body).unwrap();
        assert_eq!(link, Link { index: 7, name: "eth0".to_owned(), up: false });
        let found = attributes(&read[0].body[LINK_BODY..]).unwrap();
        assert_eq!(found, [(IFLA_IFNAME, &b"eth0\0"[..]), (IFLA_NET_NS_FD, &5_i32.to_ne_bytes()[..])]);
    }

    #[test]
    fn an_address_is_carried_over() {
        let address = Address {
            index: 3,
            family: 2,
            prefix: 24,
            scope: 0,
            flags: PERMANENT | 0x200,
            local: vec![10, 0, 0, 2],
            peer: None,
            broadcast: Some(vec![10, 0, 0, 255]),
        };
        let bytes = Request::add_address(&address, 8).bytes(1);
        let read = Address::read(messages(&bytes).unwrap()[0].body).unwrap();
        assert_eq!(read, Address { index: 8, flags: 0x200, ..address.clone() });
        assert!(address.is_lasting());
        assert!(!Address { flags: 0, ..address.clone() }.is_lasting());
        assert!(!Address { scope: 253, ..address }.is_lasting());
    }

    #[test]
    fn what_is_cut_short_is_malformed() {
        let bytes = Request::list_addresses().bytes(1);
        for length in 1..bytes.len() {
            assert!(messages(&bytes[..length]).is_err(), "{length}");
        }
        let mut long = bytes.clone();
        long[0] = 200;
        assert_eq!(messages(&long), Err(Malformed));
        assert_eq!(attributes(&[3, 0, 1, 0]), Err(Malformed));
        assert_eq!(attributes(&[9, 0, 1, 0, 0, 0, 0, 0]), Err(Malformed));
        assert_eq!(Address::read(&[2, 24, 0, 0, 1, 0, 0, 0]), Err(Malformed));
        assert_eq!(Address::read(&[99, 24, 0, 0, 1, 0, 0, 0]), Err(Malformed));
        assert_eq!(Link::read(&[0; 16]), Err(Malformed));
    }
}
