//! Processes: clone3, pidfds, waiting, and starting a process that outlives its starter.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions, WaitStatus};

use crate::error::{Call, Error, Result};
use crate::raw;

/// How a child is cloned.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clone<'a> {
    /// `CLONE_NEW…`, `CLONE_PARENT`: see [`crate::namespace`].
    pub flags: u64,
    /// The cgroup v2 directory that the child is born in.
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// A child.
#[derive(Debug)]
pub struct Child {
    /// Its pid, as the caller sees it.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It exited with this status.
    Code(u8),
    /// This signal ended it.
    Signal(i32),
}

impl Ended {
    /// Returns the status as a shell shows it: 128 + signal for a killed process.
    #[must_use]
    pub fn status(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => u8::try_from(128 + signal).unwrap_or(255),
        }
    }
}

/// Clones this process. The child runs `body` and exits with what it returns: it never returns from here, runs no
/// destructors of the caller, and flushes nothing.
///
/// # Errors
/// `EMFILE`… of clone3; `EINVAL` when this process has more than one thread: the child would inherit locks (of the
/// allocator too) that nobody unlocks.
pub fn clone(how: Clone<'_>, body: impl FnOnce() -> u8) -> Result<Child> {
    one_thread()?;
    let mut pidfd: RawFd = -1;
    let flags = how.flags | libc::CLONE_PIDFD as u64;
    // With CLONE_PARENT the kernel takes the exit signal of this process.
    let parent = how.flags & libc::CLONE_PARENT as u64 != 0;
    let exit_signal = if parent { 0 } else { libc::SIGCHLD as u64 };
    let into = how.cgroup.map(|fd| fd.as_raw_fd());
    match raw::clone3(flags, exit_signal, into, &mut pidfd) {
        Ok(0) => raw::exit_now(i32::from(body())),
        Ok(pid) => {
            // SAFETY: the kernel stored a new descriptor there, as CLONE_PIDFD asks it to, and nobody else has it.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Child { pid, pidfd })
        }
        Err(errno) => Err(Error::new(format!("clone3(flags {flags:#x}, cgroup {into:?})"), errno)),
    }
}

/// Forks: the child is as with [`clone`].
///
/// # Errors
/// As [`clone`].
pub fn fork_once(body: impl FnOnce() -> u8) -> Result<Child> {
    one_thread()?;
    // Not clone3, which Docker's filter answers with ENOSYS: this is also for use inside containers.
    match raw::fork().call(|| "fork()")? {
        0 => raw::exit_now(i32::from(body())),
        pid => {
            let own = rustix::process::Pid::from_raw(pid).ok_or_else(|| Error::new("fork()", Errno::IO))?;
            // The pid cannot mean another process before this one reaps it.
            let pidfd = rustix::process::pidfd_open(own, rustix::process::PidfdFlags::empty());
            Ok(Child { pid, pidfd: pidfd.call(|| format!("pidfd_open({pid})"))? })
        }
    }
}

/// Checks that this process has one thread.
///
/// # Errors
/// `EINVAL` when it has more.
pub fn one_thread() -> Result<()> {
    let call = || "unshare(CLONE_THREAD), to count threads";
    // unshare(2): CLONE_THREAD is refused with EINVAL when there are several threads and has no effect otherwise. It
    // needs no procfs, which is another process namespace's after setns.
    match raw::unshare(libc::CLONE_THREAD) {
        // Inside a container a filter refuses unshare, and procfs is its own.
        Err(Errno::PERM | Errno::NOSYS) => {
            // Each thread is a directory there: the link count is threads plus two.
            let tasks = rustix::fs::stat(c"/proc/self/task").call(|| "stat(\"/proc/self/task\")")?;
            if tasks.st_nlink == 3 { Ok(()) } else { Err(Error::new(call(), Errno::INVAL)) }
        }
        other => other.call(call),
    }
}

/// Waits for the end of a child.
///
/// # Errors
/// `ECHILD` when it is no child of this process.
pub fn wait(pidfd: impl AsFd) -> Result<Ended> {
    loop {
        match rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
            Ok(Some(status)) => return Ok(ended_id(&status)),
            Ok(None) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::new("waitid(P_PIDFD)", errno)),
        }
    }
}

/// Tells how a child ended, if it has; it is reaped then.
///
/// # Errors
/// `ECHILD` when it is no child of this process.
pub fn try_wait(pidfd: impl AsFd) -> Result<Option<Ended>> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    let status =
        rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), options).call(|| "waitid(P_PIDFD, WNOHANG)")?;
    Ok(status.map(|status| ended_id(&status)))
}

fn ended_id(status: &rustix::process::WaitIdStatus) -> Ended {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Ended::Code((code & 0xff) as u8),
        (None, Some(signal)) => Ended::Signal(signal),
        (None, None) => Ended::Code(255),
    }
}

/// Reaps any child that has ended, and tells which and how: for a process that has children it did not make.
///
/// # Errors
/// The failed waitpid; no child at all is no error.
pub fn reap_any() -> Result<Option<(i32, Ended)>> {
    match rustix::process::wait(WaitOptions::NOHANG) {
        Ok(reaped) => Ok(reaped.map(|(pid, status)| (pid.as_raw_nonzero().get(), ended(status)))),
        Err(Errno::CHILD) => Ok(None),
        Err(errno) => Err(Error::new("waitpid(-1, WNOHANG)", errno)),
    }
}

/// Reaps the child `pid` if it has ended.
///
/// # Errors
/// `ECHILD` when it is no child of this process.
pub fn reap(pid: i32) -> Result<Option<Ended>> {
    let call = || format!("waitpid({pid}, WNOHANG)");
    let child = Pid::from_raw(pid).ok_or_else(|| Error::new(call(), Errno::CHILD))?;
    let reaped = rustix::process::waitpid(Some(child), WaitOptions::NOHANG).call(call)?;
    Ok(reaped.map(|(_, status)| ended(status)))
}

fn ended(status: WaitStatus) -> Ended {
    match status.terminating_signal() {
        Some(signal) => Ended::Signal(signal),
        None => Ended::Code(u8::try_from(status.exit_status().unwrap_or(255) & 0xff).unwrap_or(255)),
    }
}

/// Sends a signal, real-time ones too.
///
/// # Errors
/// `ESRCH` when the process has ended and was reaped.
pub fn send_signal(pidfd: impl AsFd, signal: i32) -> Result<()> {
    raw::pidfd_send_signal(pidfd.as_fd().as_raw_fd(), signal).call(|| format!("pidfd_send_signal({signal})"))
}

/// Waits until the process of `pidfd` has ended, a child or not, at most `timeout_ms`; tells whether it has.
///
/// # Errors
/// The failed poll.
pub fn wait_end(pidfd: impl AsFd, timeout_ms: Option<u32>) -> Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let limit = timeout_ms.map(|ms| std::time::Instant::now() + std::time::Duration::from_millis(ms.into()));
    loop {
        let left = limit.map(|limit| limit.saturating_duration_since(std::time::Instant::now()));
        let timeout = left.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], timeout.as_ref()) {
            Ok(count) => return Ok(count > 0),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::new("poll(<pidfd>)", errno)),
        }
    }
}

/// Returns how the process of `pidfd` ended, a child or not, where the kernel keeps it (6.15); `None` otherwise.
#[must_use]
pub fn exit_of(pidfd: impl AsFd) -> Option<Ended> {
    let status = raw::pidfd_exit_code(pidfd.as_fd().as_raw_fd())?;
    let signal = status & 0x7f;
    Some(if signal == 0 { Ended::Code(((status >> 8) & 0xff) as u8) } else { Ended::Signal(signal) })
}

/// A program and its arguments, ready for an exec after fork.
#[derive(Debug)]
pub struct Argv {
    strings: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

// SAFETY: the pointers point into `strings`, which are on the heap and never change while this value lives.
unsafe impl Send for Argv {}

impl Argv {
    /// Prepares strings for execve(2).
    ///
    /// # Errors
    /// `EINVAL` for a string with a NUL byte.
    pub fn new<S: AsRef<OsStr>>(strings: impl IntoIterator<Item = S>) -> Result<Self> {
        let strings: std::result::Result<Vec<CString>, _> =
            strings.into_iter().map(|s| CString::new(s.as_ref().as_bytes())).collect();
        let strings = strings.map_err(|_| Error::new("execve: a string with a NUL byte", Errno::INVAL))?;
        let mut pointers: Vec<_> = strings.iter().map(|s| s.as_ptr()).collect();
        pointers.push(std::ptr::null());
        Ok(Self { strings, pointers })
    }

    /// Returns the strings.
    #[must_use]
    pub fn strings(&self) -> &[CString] {
        &self.strings
    }

    pub(crate) fn as_ptr(&self) -> *const *const libc::c_char {
        self.pointers.as_ptr()
    }
}

/// Gives every signal its default effect and unblocks it, as a program expects at its start. CLONE_CLEAR_SIGHAND
/// would leave ignored signals ignored. Usable after clone: allocates nothing.
pub fn default_signals() {
    raw::default_signals();
    // A mask of the kernel's size cannot be refused.
    let _ = raw::signal_mask(0);
}

/// Replaces this process by the program at `path`; allocates nothing. Returns only on failure.
#[must_use]
pub fn exec(path: &std::ffi::CStr, argv: &Argv, env: &Argv) -> Errno {
    raw::execve(path, argv.as_ptr(), env.as_ptr())
}

/// Replaces this process by the program that `fd` is; allocates nothing. Returns only on failure.
#[must_use]
pub fn exec_fd(fd: BorrowedFd<'_>, argv: &Argv, env: &Argv) -> Errno {
    raw::execveat_fd(fd.as_raw_fd(), argv.as_ptr(), env.as_ptr())
}

/// Marks every descriptor from `first` on close-on-exec. Usable after clone: allocates nothing.
///
/// # Errors
/// The failed call.
pub fn close_on_exec_from(first: u32) -> rustix::io::Result<()> {
    raw::close_range(first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

/// Closes every descriptor from `first` on but those of `keep`. Usable after clone, and only there: whoever owns a
/// descriptor in this process must not use it again. Allocates nothing.
///
/// # Errors
/// The failed call.
pub fn close_all_but(first: u32, keep: &[RawFd]) -> rustix::io::Result<()> {
    let mut from = first;
    loop {
        let kept = keep.iter().filter_map(|&fd| u32::try_from(fd).ok());
        let Some(next) = kept.filter(|&fd| fd >= from).min() else {
            return raw::close_range(from, u32::MAX, 0);
        };
        if next > from {
            raw::close_range(from, next - 1, 0)?;
        }
        from = next + 1;
    }
}

/// Closes the child's copy of a descriptor that is the parent's alone. Usable after clone, and only there, as
/// [`close_all_but`].
///
/// # Errors
/// The failed call.
pub fn close_copy(fd: RawFd) -> rustix::io::Result<()> {
    u32::try_from(fd).map_or(Ok(()), |fd| raw::close_range(fd, fd, 0))
}

/// Forks a sibling: the new process is a child of this one's parent. `None` in the new process. For a child after
/// clone, which has one thread: allocates nothing.
///
/// # Errors
/// The failed clone.
pub fn fork_sibling() -> rustix::io::Result<Option<Child>> {
    let mut pidfd: RawFd = -1;
    match raw::fork_sibling(&mut pidfd)? {
        0 => Ok(None),
        // SAFETY: the kernel stored a new descriptor there, as CLONE_PIDFD asks it to, and nobody else has it.
        pid => Ok(Some(Child { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })),
    }
}

/// Runs `body` in a child and waits for its end. For a child after clone, which has one thread: allocates nothing, and
/// makes no other calls than clone, wait4 and exit_group ([`crate::seccomp::BEGIN_FILE_SYSTEM`]).
///
/// # Errors
/// The failed clone.
pub fn in_child(body: impl FnOnce() -> u8) -> rustix::io::Result<()> {
    match raw::fork()? {
        0 => raw::exit_now(i32::from(body())),
        pid => {
            raw::reap(pid);
            Ok(())
        }
    }
}

/// Ends this process at once: no destructors, no flushing. For a child after clone.
pub fn exit_now(code: u8) -> ! {
    raw::exit_now(i32::from(code))
}

/// Puts `fd` at the number `target`, without close-on-exec. Usable after clone: allocates nothing.
///
/// # Errors
/// The failed call.
pub fn place_fd(fd: RawFd, target: RawFd) -> rustix::io::Result<()> {
    raw::place_fd(fd, target)
}

/// Starts the program `exe` (such as [`crate::seal::sealed_exe`]) so that it outlives this process: forked twice,
/// in a session of its own, standard streams on `/dev/null`, and with `fds` at the wanted numbers (3 and up) and no
/// other descriptor. Returns its pid once the program runs.
///
/// # Errors
/// The step that failed in one of the children, or here.
pub fn spawn_detached<S: AsRef<OsStr>>(
    exe: BorrowedFd<'_>,
    argv: impl IntoIterator<Item = S>,
    fds: &[(OwnedFd, RawFd)],
) -> Result<i32> {
    let argv = Argv::new(argv)?;
    let env = Argv::new(
        std::env::vars_os().map(|(k, v)| [k.as_bytes(), b"=", v.as_bytes()].concat()).map(os_string),
    )?;
    let null = rustix::fs::open(
        c"/dev/null",
        rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .call(|| "open(\"/dev/null\")")?;
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).call(|| "pipe2")?;
    // What the targets would overwrite is first moved above all of them.
    let above = fds.iter().map(|(_, target)| target + 1).max().unwrap_or(3).max(3);
    let high = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, above).call(|| "fcntl(F_DUPFD_CLOEXEC)");
    let exe = rustix::io::fcntl_dupfd_cloexec(exe, above).call(|| "fcntl(F_DUPFD_CLOEXEC)")?;
    let low = writer;
    let writer = high(&low)?;
    // Both ends of this process must be closed for the end of the answer to be seen.
    drop(low);
    let null = high(&null)?;
    let mut placed: Vec<(OwnedFd, RawFd)> = Vec::with_capacity(fds.len());
    for (fd, target) in fds {
        placed.push((high(fd)?, *target));
    }
    let starter = raw::fork().call(|| "fork")?;
    if starter == 0 {
        start_detached(&exe, &argv, &env, &placed, &null, &writer);
    }
    drop(writer);
    let mut answer = [0_u8; 8];
    let read = read_all(&reader, &mut answer)?;
    raw::reap(starter);
    let number = |at: usize| i32::from_ne_bytes([answer[at], answer[at + 1], answer[at + 2], answer[at + 3]]);
    match read {
        4 => Ok(number(0)),
        8 => Err(Error::new("start a detached process", Errno::from_raw_os_error(number(4)))),
        _ => Err(Error::new("start a detached process: no answer", Errno::CHILD)),
    }
}

fn os_string(bytes: Vec<u8>) -> std::ffi::OsString {
    std::os::unix::ffi::OsStringExt::from_vec(bytes)
}

fn read_all(fd: &OwnedFd, buffer: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match rustix::io::read(fd, &mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::new("read(<pipe>)", errno)),
        }
    }
    Ok(filled)
}

/// Runs in the first child: makes the second, which becomes the program. Allocates nothing.
fn start_detached(
    exe: &OwnedFd,
    argv: &Argv,
    env: &Argv,
    fds: &[(OwnedFd, RawFd)],
    null: &OwnedFd,
    writer: &OwnedFd,
) -> ! {
    let _ = rustix::process::setsid();
    match raw::fork() {
        Ok(0) => {
            let errno = become_detached(exe, argv, env, fds, null).unwrap_or_else(|errno| errno);
            let _ = rustix::io::write(writer, &errno.raw_os_error().to_ne_bytes());
            raw::exit_now(127)
        }
        Ok(pid) => {
            let _ = rustix::io::write(writer, &pid.to_ne_bytes());
            raw::exit_now(0)
        }
        Err(errno) => {
            let _ = rustix::io::write(writer, &0_i32.to_ne_bytes());
            let _ = rustix::io::write(writer, &errno.raw_os_error().to_ne_bytes());
            raw::exit_now(1)
        }
    }
}

fn become_detached(
    exe: &OwnedFd,
    argv: &Argv,
    env: &Argv,
    fds: &[(OwnedFd, RawFd)],
    null: &OwnedFd,
) -> rustix::io::Result<Errno> {
    close_on_exec_from(3)?;
    for target in 0..3 {
        place_fd(null.as_raw_fd(), target)?;
    }
    for (fd, target) in fds {
        place_fd(fd.as_raw_fd(), *target)?;
    }
    default_signals();
    Ok(exec_fd(exe.as_fd(), argv, env))
}
