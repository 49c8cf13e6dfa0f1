//! One small process that keeps one container: stdio, log, exit, attach.
//!
//! ```text
//! bale run ── spawns ──► bale @supervise (sealed, own session, cwd /, stdio /dev/null)
//!                          │  opens log, pipes, control.sock
//!                          ├─ fork ──► creator: parses, plans, clones init with CLONE_PARENT, reports, exits
//!                          │             └─ init is the supervisor's child from its first instruction
//!                          ├─ fork ──► executor, for each `bale exec`: the same for one further process
//!                          └─ epoll: stdout, stderr or terminal ─► log; control.sock ◄─► clients; SIGCHLD
//!                               └─ init ended: drain, waitid, OOM?, teardown, record Stopped, tell clients,
//!                                  with --rm become `bale @remove`
//! ```
//!
//! It stays small because nothing big ever happens in it before the container has ended: whatever parses or plans
//! does so in the creator or an executor. It has one thread and ignores the signals that end terminals and sessions; to stop a
//! container, signal the container. What a client reads it reads from the log ([`bale_record::control`]), so a client
//! that is slow, stopped or gone cannot hold the container back.
//!
//! It leaves the units of systemd that it was started in (a session's scope, a service): those end with all that is in
//! them, and a container outlives its session. Elsewhere it stays in its starter's cgroup, which nobody ends.

mod clients;
mod creator;
mod executor;
mod exit;
mod log;
mod main_loop;
mod stdio;

use std::os::fd::{AsFd, OwnedFd};

use bale_fault::Result;
use bale_record::Dir;
use bale_record::settings::{Input, Settings};
use bale_sys::error::Call;
use rustix::fs::{Mode, OFlags};

pub use log::PART_LIMIT_BYTES;

/// Keeps the container in `settings.dir` from its creation to its end. Standard input is the socket of the client
/// that starts it.
///
/// # Errors
/// What kept the supervisor from coming to life; failures of the container go to the client and the record.
pub fn main(settings: &Settings) -> Result<()> {
    let Some(cgroup) = bale_runtime::cgroup::leave_units() else { return keep(settings) };
    // On cgroup v2 a process is cheaply moved only by being born elsewhere.
    let how = bale_sys::process::Clone { flags: 0, cgroup: Some(cgroup.as_fd()) };
    match bale_sys::process::clone(how, || u8::from(keep(settings).is_err())) {
        Ok(_) => Ok(()),
        // The cgroup takes no processes, or was removed meanwhile.
        Err(_) => keep(settings),
    }
}

fn keep(settings: &Settings) -> Result<()> {
    let starter = leave_caller()?;
    let dir = Dir::open_path(&settings.dir)?;
    let log = log::Log::open(&dir)?;
    let (channels, theirs) = stdio::channels(settings)?;
    let listener = clients::Listener::bind(&dir)?;
    let report = creator::start(&dir, theirs)?;
    // From here on this process ends with its container only. The creator was forked before, so that the container
    // does not inherit it.
    bale_sys::signal::ignore(&IGNORED);
    let parts = main_loop::Parts { dir: &dir, log, channels, listener, report };
    // A terminal has no end of input that a client could give it by leaving.
    let once = settings.input == Input::Once && !settings.tty;
    let end = main_loop::MainLoop::new(parts, starter, once)?.run()?;
    let clients = exit::tell(&dir, end)?;
    if settings.remove { exit::become_remover(&dir, &clients) } else { Ok(()) }
}

/// What ends terminals and sessions: HUP, INT, QUIT, USR1, USR2, PIPE, TERM.
const IGNORED: [i32; 7] = [1, 2, 3, 10, 12, 13, 15];

/// Takes the client's socket from standard input and leaves the directory the caller was in.
fn leave_caller() -> Result<OwnedFd> {
    let starter =
        rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3).call(|| "fcntl(0, F_DUPFD_CLOEXEC)")?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    let null = null.call(|| "open(\"/dev/null\")")?;
    rustix::stdio::dup2_stdin(&null).call(|| "dup2(0)")?;
    rustix::process::chdir("/").call(|| "chdir(\"/\")")?;
    Ok(starter)
}
