//! The proxy of `NOTIFY_SOCKET` (sd_notify(3)): systemd does not know the container's processes, so what one of them
//! says is passed on by this one, and nothing but that it is ready.
//!
//! ```text
//! container ── READY=1 ──► /run/notify/notify.sock = <state>/notify/notify.sock ──► here ──► $NOTIFY_SOCKET
//!                                                          READY=1, MAINPID=<init>, BARRIER=1
//! ```

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use bale_fault::{Fault, Kind, Result};
use bale_record::{Dir, NOTIFY_DIRECTORY, NOTIFY_SOCKET};
use bale_spec::runtime::{Mount, RuntimeConfig};
use bale_sys::error::Call;
use bale_sys::{process, socket};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType};

const PLACE: &str = "/run/notify";
/// How long systemd has to read everything before the barrier.
const BARRIER_MS: u32 = 30_000;

/// The socket in the container's directory, and where what it gets goes.
pub struct Notify {
    host: String,
    socket: Option<OwnedFd>,
}

/// Returns what the caller's `NOTIFY_SOCKET` says.
fn host() -> Option<String> {
    std::env::var("NOTIFY_SOCKET").ok().filter(|path| path.starts_with(['/', '@']))
}

/// Gives a container that is made with `NOTIFY_SOCKET` the directory of its socket, a mount of it, and the variable.
///
/// # Errors
/// The failed call.
pub fn set_up(dir: &Dir, config: &mut RuntimeConfig) -> Result<Option<Notify>> {
    let Some(host) = host() else { return Ok(None) };
    let Some(process) = &mut config.process else { return Ok(None) };
    rustix::fs::mkdirat(dir, NOTIFY_DIRECTORY, Mode::from_raw_mode(0o755))
        .call(|| format!("mkdirat({NOTIFY_DIRECTORY:?})"))?;
    // The caller's umask is not the container's.
    rustix::fs::chmodat(dir, NOTIFY_DIRECTORY, Mode::from_raw_mode(0o755), AtFlags::empty())
        .call(|| format!("fchmodat({NOTIFY_DIRECTORY:?})"))?;
    process.env.push(format!("NOTIFY_SOCKET={PLACE}/notify.sock"));
    config.mounts.push(Mount {
        destination: PLACE.to_owned(),
        kind: Some("bind".to_owned()),
        source: Some(dir.path().join(NOTIFY_DIRECTORY).to_string_lossy().into_owned()),
        options: ["bind", "nosuid", "noexec", "nodev", "ro"].map(ToOwned::to_owned).to_vec(),
        ..Mount::default()
    });
    Ok(Some(Notify { host, socket: None }))
}

/// Finds the proxy of a container that was made with one, when `start` is called with `NOTIFY_SOCKET`.
pub fn of(dir: &Dir) -> Option<Notify> {
    let host = host()?;
    let there = rustix::fs::statat(dir, NOTIFY_DIRECTORY, AtFlags::SYMLINK_NOFOLLOW).is_ok();
    there.then_some(Notify { host, socket: None })
}

impl Notify {
    /// Makes the socket, before the program runs.
    ///
    /// # Errors
    /// The failed call.
    pub fn listen(&mut self, dir: &Dir) -> Result<()> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let place = rustix::fs::openat(dir, NOTIFY_DIRECTORY, flags, Mode::empty())
            .call(|| format!("openat({NOTIFY_DIRECTORY:?})"))?;
        let datagrams =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
                .call(|| "socket(AF_UNIX, SOCK_DGRAM)")?;
        // By its descriptor: an address holds 107 bytes, and the state directory may be longer.
        let path = format!("/proc/self/fd/{}/notify.sock", place.as_raw_fd());
        let address = SocketAddrUnix::new(path.as_str()).call(|| "the socket's address")?;
        rustix::net::bind(&datagrams, &address).call(|| format!("bind({NOTIFY_SOCKET:?})"))?;
        rustix::fs::chmodat(dir, NOTIFY_SOCKET, Mode::from_raw_mode(0o777), AtFlags::empty())
            .call(|| format!("fchmodat({NOTIFY_SOCKET:?})"))?;
        self.socket = Some(datagrams);
        Ok(())
    }

    /// Waits until the container says that it is ready, or ends, and tells the host that `main_pid` is.
    ///
    /// # Errors
    /// The failed call.
    pub fn pass_on(&self, pidfd: &OwnedFd, main_pid: i32) -> Result<()> {
        let Some(socket) = &self.socket else { return Ok(()) };
        match ready_line(socket, pidfd)? {
            Some(line) => tell(&self.host, &line, main_pid),
            None => Ok(()),
        }
    }
}

/// Waits for a datagram with a line `READY=…`; `None` when the container ended before.
fn ready_line(socket: &OwnedFd, pidfd: &OwnedFd) -> Result<Option<Vec<u8>>> {
    loop {
        let mut fds = [PollFd::new(socket, PollFlags::IN), PollFd::new(pidfd, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(bale_sys::Error::new("poll(<notify.sock>)", errno).into()),
        }
        let (said, ended) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
        if said {
            let mut bytes = [0_u8; 4096];
            let (length, _) = rustix::net::recv(socket, &mut bytes[..], RecvFlags::DONTWAIT)
                .or_else(|errno| if errno == Errno::AGAIN { Ok((0, 0)) } else { Err(errno) })
                .call(|| "recv(<notify.sock>)")?;
            let line = bytes[..length].split(|&b| b == b'\n').find(|line| line.starts_with(b"READY="));
            if let Some(line) = line {
                return Ok(Some(line.to_vec()));
            }
        } else if ended {
            return Ok(None);
        }
    }
}

fn tell(host: &str, line: &[u8], main_pid: i32) -> Result<()> {
    let datagrams =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
            .call(|| "socket(AF_UNIX, SOCK_DGRAM)")?;
    let address = match host.strip_prefix('@') {
        Some(name) => SocketAddrUnix::new_abstract_name(name.as_bytes()),
        None => SocketAddrUnix::new(host),
    };
    let connected = address.and_then(|address| rustix::net::connect(&datagrams, &address));
    connected.call(|| format!("connect({host:?})"))?;
    let send = |bytes: &[u8]| socket::send(&datagrams, bytes).call(|| format!("send({host:?})"));
    send(&[line, b"\n"].concat())?;
    send(format!("MAINPID={main_pid}\n").as_bytes())?;
    // systemd closes the pipe when it has come so far; who knows no barrier lets it time out.
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).call(|| "pipe2")?;
    socket::send_fd(&datagrams, b"BARRIER=1", writer.as_fd()).call(|| format!("sendmsg({host:?})"))?;
    drop(writer);
    process::wait_end(&reader, Some(BARRIER_MS)).map(drop).map_err(Fault::from)
}

/// Passes on in a process of its own, while the calling one waits for the program; it ends with the container.
///
/// # Errors
/// The failed fork.
pub fn in_background(notify: &Notify, pidfd: &OwnedFd) -> Result<()> {
    let main_pid = i32::try_from(std::process::id())
        .map_err(|_| Fault::new(Kind::Internal, "the process id is out of range"))?;
    process::fork_once(|| u8::from(notify.pass_on(pidfd, main_pid).is_err())).map(drop).map_err(Fault::from)
}
