//! A connection with systemd: authentication, calls with a deadline, and the ends of jobs.
//!
//! As root systemd is spoken to directly, by its own socket: the bus in between is a program more that can be slow,
//! and on a busy host it is (runc #3904, #4853). As a user it is the user's own systemd.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bale_fault::{Context, Fault, Kind, Result};
use bale_sys::error::{Call as _, Error};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

use super::wire::{self, Message, Method, Reader, Type, Writer};
use crate::cgroup::group::{pause, wait_for};
use crate::cgroup::host::in_user_namespace;

/// How long systemd may take for everything that one command asks of it. A scope takes a few milliseconds; a host that
/// boots, or has thousands of units, seconds.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// The same where the container's processes have ended already: what is left undone is an empty unit.
pub const PATIENCE_AT_THE_END: Duration = Duration::from_secs(10);
/// Ends of jobs that are kept while an answer is waited for; older ones are of jobs that are not ours.
const MOST_ENDS: usize = 1024;
/// The longest answer to the authentication, in bytes.
const WORDS_MAX: usize = 4096;

/// Whose systemd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The host's.
    System,
    /// The calling user's.
    User,
}

/// Who is at the other end of the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    /// systemd.
    Direct,
    /// The bus.
    Bus,
}

/// A connection.
#[derive(Debug)]
pub struct Bus {
    socket: OwnedFd,
    deadline: Instant,
    patience: Duration,
    serial: u32,
    unread: Vec<u8>,
    /// Jobs and their results.
    ends: Vec<(String, String)>,
}

/// The answer to a call: what systemd refused has a name that programs can tell apart.
#[derive(Debug)]
pub enum Answer {
    /// The values.
    Values(Message),
    /// Name and words of an error.
    Refused(String, String),
}

const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const SYSTEMD: &str = "org.freedesktop.systemd1";
const SYSTEMD_PATH: &str = "/org/freedesktop/systemd1";

impl Bus {
    /// Connects, for calls that together take no longer than `patience`.
    ///
    /// # Errors
    /// `Unsupported` where there is no systemd, `Unavailable` when it does not answer in time.
    pub fn open(whose: Whose, patience: Duration) -> Result<Self> {
        Self::open_within(&sockets(whose), patience)
    }

    fn open_within(sockets: &[(Peer, PathBuf)], patience: Duration) -> Result<Self> {
        let deadline = Instant::now() + patience;
        let mut first = None;
        for (peer, path) in sockets {
            match connect(path, deadline) {
                Ok(socket) => {
                    let (unread, ends) = (Vec::new(), Vec::new());
                    let mut bus = Self { socket, deadline, patience, serial: 0, unread, ends };
                    return bus
                        .greet(*peer)
                        .within(|| format!("connect to systemd at {path:?}"))
                        .map(|()| bus);
                }
                Err(error) => {
                    first.get_or_insert(error);
                }
            }
        }
        let fault = Fault::new(Kind::Unsupported, "systemd cannot be reached for the container's cgroup");
        let fault = first.into_iter().fold(fault, Fault::caused_by);
        Err(fault.hint("is systemd the first process of this host? otherwise leave out --systemd-cgroup"))
    }

    /// Authenticates by the socket's own credentials, and says hello where there is somebody to greet.
    fn greet(&mut self, peer: Peer) -> Result<()> {
        // Everything at once: nobody waits for the answers but us.
        self.send(greeting(in_user_namespace()).as_bytes())?;
        let mut accepted = false;
        while !accepted {
            let line = self.line()?;
            accepted = line.starts_with("OK");
            if !accepted && !line.starts_with("DATA") {
                let words = format!("systemd does not let this user in: {line:?}");
                return Err(Fault::new(Kind::PermissionDenied, words));
            }
        }
        if peer == Peer::Bus {
            let hello = Method {
                destination: "org.freedesktop.DBus",
                path: "/org/freedesktop/DBus",
                interface: "org.freedesktop.DBus",
                member: "Hello",
            };
            accept(self.call(&hello, "", Writer::default())?, &hello)?;
            let mut rule = Writer::default();
            rule.text(&format!("type='signal',interface='{MANAGER}',member='JobRemoved'"));
            let listen = Method { member: "AddMatch", ..hello };
            accept(self.call(&listen, "s", rule)?, &listen)?;
            let subscribe = manager("Subscribe");
            accept(self.call(&subscribe, "", Writer::default())?, &subscribe)?;
        }
        Ok(())
    }

    /// Calls a method and waits for its answer.
    ///
    /// # Errors
    /// `Unavailable` when it does not come in time; `Corrupt` when it is none.
    pub fn call(&mut self, method: &Method<'_>, signature: &str, body: Writer) -> Result<Answer> {
        self.serial += 1;
        let serial = self.serial;
        self.send(&wire::call(serial, method, signature, body))
            .within(|| format!("ask systemd: {}", method.member))?;
        loop {
            let message = self.message().within(|| format!("ask systemd: {}", method.member))?;
            match message.kind {
                Type::Answer if message.answers == Some(serial) => return Ok(Answer::Values(message)),
                Type::Error if message.answers == Some(serial) => {
                    let words = message.body().text().unwrap_or_default().to_owned();
                    return Ok(Answer::Refused(message.error, words));
                }
                _ => self.note(&message),
            }
        }
    }

    /// Waits for the end of a job and returns its result: `done`, `failed`, `canceled`, `timeout`, ….
    ///
    /// # Errors
    /// As [`Bus::call`].
    pub fn wait_job(&mut self, job: &str) -> Result<String> {
        loop {
            if let Some(at) = self.ends.iter().position(|(ended, _)| ended == job) {
                return Ok(self.ends.swap_remove(at).1);
            }
            let message = self.message().within(|| format!("wait for systemd's job {job}"))?;
            self.note(&message);
        }
    }

    /// Keeps the end of a job.
    fn note(&mut self, message: &Message) {
        if message.kind != Type::Signal || message.interface != MANAGER || message.member != "JobRemoved" {
            return;
        }
        let read = |mut values: Reader<'_>| {
            values.u32()?;
            let job = values.text()?.to_owned();
            values.text()?;
            Ok::<_, Fault>((job, values.text()?.to_owned()))
        };
        if message.signature == "uoss"
            && let Ok(end) = read(message.body())
        {
            if self.ends.len() >= MOST_ENDS {
                self.ends.remove(0);
            }
            self.ends.push(end);
        }
    }

    fn line(&mut self) -> Result<String> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|pair| pair == b"\r\n") {
                let line = String::from_utf8_lossy(&self.unread[..end]).into_owned();
                self.unread.drain(..end + 2);
                return Ok(line);
            }
            if self.unread.len() > WORDS_MAX {
                return Err(Fault::new(Kind::Corrupt, "systemd's answer has no end"));
            }
            self.receive()?;
        }
    }

    fn message(&mut self) -> Result<Message> {
        loop {
            if let Some(length) = wire::length_of(&self.unread)?
                && self.unread.len() >= length
            {
                let message = wire::parse(&self.unread[..length]);
                self.unread.drain(..length);
                return message;
            }
            self.receive()?;
        }
    }

    fn send(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            match rustix::net::send(&self.socket, bytes, SendFlags::NOSIGNAL) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT)?,
                Err(Errno::INTR) => {}
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(closed()),
                Err(errno) => return Err(Error::new("send(<systemd>)", errno).into()),
            }
        }
        Ok(())
    }

    /// Receives some bytes.
    fn receive(&mut self) -> Result<()> {
        let mut space = [0_u8; 4096];
        loop {
            match rustix::net::recv(&self.socket, &mut space[..], RecvFlags::empty()) {
                Ok((_, 0)) | Err(Errno::CONNRESET) => return Err(closed()),
                Ok((_, count)) => {
                    self.unread.extend(&space[..count]);
                    return Ok(());
                }
                Err(Errno::AGAIN) => self.wait(PollFlags::IN)?,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::new("recv(<systemd>)", errno).into()),
            }
        }
    }

    fn wait(&self, events: PollFlags) -> Result<()> {
        if wait_for(&self.socket, events, self.deadline)? { Ok(()) } else { Err(late(self.patience)) }
    }
}

/// The words of the authentication. In a user namespace no user is named: the other side sees another number than we do;
/// elsewhere one is, as systemd before 252 wants it.
fn greeting(in_user_namespace: bool) -> String {
    if in_user_namespace {
        return "\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n".to_owned();
    }
    let user = rustix::process::geteuid().as_raw().to_string();
    let digits: String = user.bytes().map(|digit| format!("{digit:02x}")).collect();
    format!("\0AUTH EXTERNAL {digits}\r\nBEGIN\r\n")
}

/// Names a method of systemd itself.
pub const fn manager(member: &str) -> Method<'_> {
    Method { destination: SYSTEMD, path: SYSTEMD_PATH, interface: MANAGER, member }
}

/// Makes a failure of what systemd refused.
///
/// # Errors
/// systemd's words.
pub fn accept(answer: Answer, method: &Method<'_>) -> Result<Message> {
    match answer {
        Answer::Values(message) => Ok(message),
        Answer::Refused(name, words) => {
            let kind = match name.rsplit('.').next() {
                Some("AccessDenied" | "InteractiveAuthorizationRequired") => Kind::PermissionDenied,
                Some("UnitExists") => Kind::Conflict,
                Some("NoSuchUnit") => Kind::NotFound,
                Some("InvalidArgs" | "PropertyReadOnly" | "UnknownProperty") => Kind::InvalidInput,
                Some("UnknownMethod") => Kind::Unsupported,
                _ => Kind::Os,
            };
            Err(Fault::new(kind, format!("systemd refuses {}: {words} ({name})", method.member)))
        }
    }
}

fn closed() -> Fault {
    Fault::new(Kind::Unavailable, "systemd closed the connection")
}

fn late(patience: Duration) -> Fault {
    let words = format!("systemd did not answer within {patience:?}");
    Fault::new(Kind::Unavailable, words)
        .hint("it hangs or is overloaded: see `systemctl list-jobs`; the cgroupfs driver does not need it")
}

/// Where systemd listens, the best first.
fn sockets(whose: Whose) -> Vec<(Peer, PathBuf)> {
    if whose == Whose::System {
        let direct = (Peer::Direct, "/run/systemd/private".into());
        return vec![direct, (Peer::Bus, "/run/dbus/system_bus_socket".into())];
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let address = std::env::var("DBUS_SESSION_BUS_ADDRESS").unwrap_or_default();
    let named = address.strip_prefix("unix:path=").and_then(|path| path.split([',', ';']).next());
    let direct = runtime.iter().map(|dir| (Peer::Direct, dir.join("systemd/private")));
    let bus = named.map(PathBuf::from).into_iter().chain(runtime.iter().map(|dir| dir.join("bus")));
    direct.chain(bus.map(|path| (Peer::Bus, path))).collect()
}

fn connect(path: &PathBuf, deadline: Instant) -> Result<OwnedFd> {
    let call = || format!("connect({path:?})");
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).call(call)?;
    let address = SocketAddrUnix::new(path).call(call)?;
    loop {
        match rustix::net::connect(&socket, &address) {
            // Its queue is full; a socket cannot be waited for before it is connected.
            Err(Errno::AGAIN) if Instant::now() < deadline => pause(Duration::from_millis(5)),
            Err(Errno::INTR) => {}
            answer => return answer.map(|()| socket).call(call).map_err(Fault::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    /// Begins to listen in the place of systemd, and lets `speak` have the first connection.
    fn serve(speak: impl FnOnce(UnixStream) + Send + 'static) -> (tempfile::TempDir, Vec<(Peer, PathBuf)>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("private");
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut words = vec![0; greeting(in_user_namespace()).len()];
            stream.read_exact(&mut words).unwrap();
            assert!(words.starts_with(b"\0AUTH EXTERNAL") && words.ends_with(b"\r\nBEGIN\r\n"));
            speak(stream);
        });
        (dir, vec![(Peer::Direct, path)])
    }

    #[test]
    fn a_systemd_that_hangs_is_not_waited_for_for_ever() {
        let (end, wait) = std::sync::mpsc::channel::<()>();
        let (_dir, sockets) = serve(move |mut stream| {
            stream.write_all(b"DATA\r\nOK 0123\r\n").unwrap();
            let _ = wait.recv();
        });
        let mut bus = Bus::open_within(&sockets, Duration::from_millis(300)).unwrap();
        let fault = bus.call(&manager("Subscribe"), "", Writer::default()).unwrap_err();
        assert_eq!(fault.kind(), Kind::Unavailable);
        assert_eq!(fault.chain(), "ask systemd: Subscribe: systemd did not answer within 300ms");
        assert!(fault.innermost_hint().is_some());
        drop(end);
    }

    #[test]
    fn what_closes_refuses_or_babbles_is_told() {
        let cases: [(&[u8], &str); 4] = [
            (b"", "systemd closed the connection"),
            (b"REJECTED EXTERNAL\r\n", "does not let this user in"),
            (b"DATA\r\nOK 0\r\nthis is not D-Bus", "no message of D-Bus: byte order 0x74"),
            (&[b'x'; 5000], "has no end"),
        ];
        for (said, part) in cases {
            let (_dir, sockets) = serve(move |mut stream| {
                stream.write_all(said).unwrap();
                // Nothing said is a closed connection; otherwise the other side closes it.
                if !said.is_empty() {
                    let _ = stream.read_to_end(&mut Vec::new());
                }
            });
            let opened = Bus::open_within(&sockets, PATIENCE);
            let asked = opened.and_then(|mut bus| bus.call(&manager("Subscribe"), "", Writer::default()));
            let chain = asked.unwrap_err().chain();
            assert!(chain.contains(part), "{part:?} is not in {chain:?}");
        }
    }

    #[test]
    fn no_systemd_is_told_with_what_to_do() {
        let fault = Bus::open_within(&[(Peer::Direct, "/nonexistent/private".into())], PATIENCE).unwrap_err();
        assert_eq!(fault.kind(), Kind::Unsupported);
        assert!(
            fault.chain().contains("connect(\"/nonexistent/private\"): no such file"),
            "{}",
            fault.chain()
        );
    }
}
