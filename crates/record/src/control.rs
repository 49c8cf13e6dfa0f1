//! The words between the supervisor of a container and its clients.
//!
//! The socket is of type `SOCK_SEQPACKET`: a message is sent whole or not at all, so neither side keeps rests.
//! A message is a header of 8 bytes (type, flags, two zero bytes, length of the payload as u32 in little endian) and
//! a payload of at most 64 KiB.
//!
//! What a container writes is not sent: it is in the log, and a client reads it there at its own pace. A client that
//! has read up to an offset asks [`Request::Watch`] and gets one [`Event::Grown`] as soon as there is more; so there
//! is at most one unread message of that kind, a slow client costs nothing, and it neither holds the container back
//! nor loses anything. Only while the log cannot be written (a full disk) are bytes sent as [`Event::Output`], as far
//! as the client takes them. Standard input does not pass the supervisor either: it hands out the writing end.

use bale_fault::{Fault, Kind};
use rustix::io::Errno;

/// Name of the socket in a container's directory.
pub const SOCKET: &str = "control.sock";
/// Name of the log in a container's directory.
pub const LOG: &str = "log";
/// Length of a message's header in bytes.
pub const HEADER_BYTES: usize = 8;
/// The longest payload in bytes.
pub const PAYLOAD_LIMIT_BYTES: usize = 64 << 10;

/// What a supervisor tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The container's program runs.
    Started {
        /// Pid of the container's first process.
        pid: i32,
    },
    /// The container could not be made; nothing of it runs.
    Failed(Failure),
    /// The log is longer than the client has read.
    Grown {
        /// Its length in bytes.
        size_bytes: u64,
    },
    /// The container's first process has ended and all it wrote is in the log.
    Exited {
        /// Exit status as a shell shows it.
        code: u8,
        /// The OOM killer was at work.
        oom: bool,
    },
    /// Written by the container while the log could not be written.
    Output {
        /// It was standard error.
        stderr: bool,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Answers [`Request::Input`]; the descriptor travels beside it, or none when the container has no input.
    Input,
    /// Answers [`Request::Exec`]: the program runs. Its pidfd travels beside it. [`Event::Failed`] when it does not.
    Executed {
        /// Its pid.
        pid: i32,
    },
    /// The program of [`Request::Exec`] has ended.
    Ended {
        /// Exit status as a shell shows it.
        code: u8,
    },
}

/// Why a container could not be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The kind of the failure.
    pub kind: Kind,
    /// The chain of causes.
    pub words: String,
    /// What to do next; empty when there is no hint.
    pub hint: String,
}

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Tell when the log is longer than this.
    Watch {
        /// What the client has read, in bytes.
        offset_bytes: u64,
    },
    /// Sets the terminal's size.
    Resize {
        /// Rows.
        rows: u16,
        /// Columns.
        columns: u16,
    },
    /// Sends a signal to the container's first process.
    Signal {
        /// Its number.
        number: i32,
    },
    /// Asks for the writing end of standard input.
    Input,
    /// Starts a process in the container, at most one over a connection. Beside it travels a file with the process
    /// (`bale_spec::runtime::Process` as JSON, from its beginning), and then its standard input, output and error, or,
    /// for one with a terminal, the socket to which the terminal's master is sent.
    Exec,
}

impl From<&Fault> for Failure {
    fn from(fault: &Fault) -> Self {
        Self {
            kind: fault.kind(),
            words: fault.chain(),
            hint: fault.innermost_hint().unwrap_or_default().to_owned(),
        }
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        let fault = Self::new(failure.kind, failure.words);
        if failure.hint.is_empty() { fault } else { fault.hint(failure.hint) }
    }
}

const KINDS: [Kind; 14] = [
    Kind::Os,
    Kind::NotFound,
    Kind::AlreadyExists,
    Kind::InvalidInput,
    Kind::PermissionDenied,
    Kind::Unsupported,
    Kind::Conflict,
    Kind::Unavailable,
    Kind::Corrupt,
    Kind::Exhausted,
    Kind::ProgramNotFound,
    Kind::ProgramNotExecutable,
    Kind::Interrupted,
    Kind::Internal,
];

impl Failure {
    /// Writes kind, length of the words (u16), words and hint; both texts are cut to fit a message.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let words = cut(&self.words, 48 << 10);
        let hint = cut(&self.hint, 8 << 10);
        let kind = KINDS.iter().position(|k| *k == self.kind).unwrap_or(0);
        let mut bytes = vec![u8::try_from(kind).unwrap_or(0)];
        bytes.extend_from_slice(&u16::try_from(words.len()).unwrap_or(u16::MAX).to_le_bytes());
        bytes.extend_from_slice(words.as_bytes());
        bytes.extend_from_slice(hint.as_bytes());
        bytes
    }

    /// Reads what [`Failure::encode`] wrote.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&kind, rest) = bytes.split_first()?;
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let (words, hint) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        let text = |part: &[u8]| String::from_utf8_lossy(part).into_owned();
        Some(Self { kind: *KINDS.get(usize::from(kind))?, words: text(words), hint: text(hint) })
    }
}

fn cut(text: &str, limit_bytes: usize) -> &str {
    let mut end = text.len().min(limit_bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

impl Event {
    /// Writes the message.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Started { pid } => message(1, 0, &pid.to_le_bytes()),
            Self::Failed(failure) => message(2, 0, &failure.encode()),
            Self::Grown { size_bytes } => message(3, 0, &size_bytes.to_le_bytes()),
            Self::Exited { code, oom } => message(4, 0, &[*code, u8::from(*oom)]),
            Self::Output { stderr, bytes } => message(5, u8::from(*stderr), bytes),
            Self::Input => message(6, 0, &[]),
            Self::Executed { pid } => message(7, 0, &pid.to_le_bytes()),
            Self::Ended { code } => message(8, 0, &[*code]),
        }
    }

    /// Reads one message.
    ///
    /// # Errors
    /// `EPROTO` when it is none; `EOPNOTSUPP` when its type is not known.
    pub fn decode(bytes: &[u8]) -> Result<Self, Errno> {
        let (kind, flags, payload) = open(bytes)?;
        Ok(match kind {
            1 => Self::Started { pid: i32::from_le_bytes(exact(payload)?) },
            2 => Self::Failed(Failure::decode(payload).ok_or(Errno::PROTO)?),
            3 => Self::Grown { size_bytes: u64::from_le_bytes(exact(payload)?) },
            4 => {
                let [code, oom] = exact(payload)?;
                Self::Exited { code, oom: oom != 0 }
            }
            5 => Self::Output { stderr: flags != 0, bytes: payload.to_vec() },
            6 => Self::Input,
            7 => Self::Executed { pid: i32::from_le_bytes(exact(payload)?) },
            8 => {
                let [code] = exact(payload)?;
                Self::Ended { code }
            }
            _ => return Err(Errno::OPNOTSUPP),
        })
    }
}

impl Request {
    /// Writes the message.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Watch { offset_bytes } => message(16, 0, &offset_bytes.to_le_bytes()),
            Self::Resize { rows, columns } => {
                let ([a, b], [c, d]) = (rows.to_le_bytes(), columns.to_le_bytes());
                message(17, 0, &[a, b, c, d])
            }
            Self::Signal { number } => message(18, 0, &number.to_le_bytes()),
            Self::Input => message(19, 0, &[]),
            Self::Exec => message(20, 0, &[]),
        }
    }

    /// Reads one message.
    ///
    /// # Errors
    /// `EPROTO` when it is none; `EOPNOTSUPP` when its type is not known.
    pub fn decode(bytes: &[u8]) -> Result<Self, Errno> {
        let (kind, _, payload) = open(bytes)?;
        Ok(match kind {
            16 => Self::Watch { offset_bytes: u64::from_le_bytes(exact(payload)?) },
            17 => {
                let [a, b, c, d] = exact(payload)?;
                Self::Resize { rows: u16::from_le_bytes([a, b]), columns: u16::from_le_bytes([c, d]) }
            }
            18 => Self::Signal { number: i32::from_le_bytes(exact(payload)?) },
            19 => Self::Input,
            20 => Self::Exec,
            _ => return Err(Errno::OPNOTSUPP),
        })
    }
}

fn message(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let payload = &payload[..payload.len().min(PAYLOAD_LIMIT_BYTES)];
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
    bytes.extend_from_slice(&[kind, flags, 0, 0]);
    bytes.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(0).to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

fn open(bytes: &[u8]) -> Result<(u8, u8, &[u8]), Errno> {
    let (header, payload) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(Errno::PROTO)?;
    let [kind, flags, _, _, length @ ..] = *header;
    if u32::from_le_bytes(length) as usize != payload.len() {
        return Err(Errno::PROTO);
    }
    Ok((kind, flags, payload))
}

fn exact<const N: usize>(payload: &[u8]) -> Result<[u8; N], Errno> {
    payload.try_into().map_err(|_| Errno::PROTO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_back() {
        let failure = Failure {
            kind: Kind::ProgramNotFound,
            words: "exec: \"x\"".to_owned(),
            hint: "make it".to_owned(),
        };
        for event in [
            Event::Started { pid: 7 },
            Event::Failed(failure),
            Event::Grown { size_bytes: 1 << 40 },
            Event::Exited { code: 137, oom: true },
            Event::Output { stderr: true, bytes: b"x".to_vec() },
            Event::Input,
            Event::Executed { pid: 8 },
            Event::Ended { code: 143 },
        ] {
            assert_eq!(Event::decode(&event.encode()), Ok(event));
        }
        for request in [
            Request::Watch { offset_bytes: 3 },
            Request::Resize { rows: 24, columns: 80 },
            Request::Signal { number: 15 },
            Request::Input,
            Request::Exec,
        ] {
            assert_eq!(Request::decode(&request.encode()), Ok(request));
        }
    }

    #[test]
    fn strange_messages_are_refused() {
        for bad in [&b""[..], b"1234567", &[1, 0, 0, 0, 9, 0, 0, 0], &[16, 0, 0, 0, 1, 0, 0, 0, 1]] {
            assert!(Request::decode(bad).is_err() && Event::decode(bad).is_err());
        }
        assert_eq!(Request::decode(&[99, 0, 0, 0, 0, 0, 0, 0]), Err(Errno::OPNOTSUPP));
    }

    #[test]
    fn long_failures_are_cut_to_fit() {
        let failure = Failure { kind: Kind::Os, words: "é".repeat(100_000), hint: String::new() };
        let decoded = Event::decode(&Event::Failed(failure).encode());
        assert!(matches!(decoded, Ok(Event::Failed(f)) if f.words.len() == 48 << 10));
    }
}
