//! The parent's side of init's set-up: answers where init waits, and turns its failure into words.

use std::os::fd::{AsFd, OwnedFd};

use bale_fault::{Context, Fault, Kind, Result};
use bale_spec::runtime::{IdMapping, State, Status};
use bale_sys::error::Call as _;
use bale_sys::process::{self, Child, Ended};
use bale_sys::{identity, socket};

use crate::init::report::{ANNOUNCED, FAILURE, Failure, MESSAGE_MAX, MOVED, READY, SYNC};
use crate::init::words;
use crate::plan::op::{Op, Point};

/// What init has come to.
#[derive(Debug, Default)]
pub struct Progress {
    /// The terminal's master, if init sent it here.
    pub terminal: Option<OwnedFd>,
    /// The process that it went on as.
    pub moved: Option<Child>,
}

impl Progress {
    fn take(&mut self, message: &[u8], fd: OwnedFd) {
        match *message {
            [MOVED, _, _, _, a, b, c, d] => {
                self.moved = Some(Child { pid: i32::from_ne_bytes([a, b, c, d]), pidfd: fd });
            }
            _ => self.terminal = Some(fd),
        }
    }
}

/// What the parent does where init waits.
pub struct Answers<'a> {
    /// Id maps.
    pub id_maps: Option<&'a (Vec<IdMapping>, Vec<IdMapping>)>,
    /// Limits of init in a user namespace.
    pub limits: &'a [Op],
    /// Hooks prestart and createRuntime.
    pub hooks: &'a dyn Fn(i32) -> Result<()>,
    /// Sends the seccomp listener on, a descriptor of this number in the process.
    pub listener: &'a dyn Fn(&Child, i32) -> Result<()>,
}

/// Follows init until its program runs (or, with a plan that waits for start, until it is ready).
///
/// # Errors
/// Init's failure in words; the parent's own. A process that it went on as is ended then.
pub fn follow(
    socket: &OwnedFd,
    child: &Child,
    ops: &[Op],
    program: &str,
    answers: &Answers<'_>,
) -> Result<Progress> {
    let mut progress = Progress::default();
    let followed = follow_to_end(socket, child, ops, program, answers, &mut progress);
    if let (Err(_), Some(moved)) = (&followed, &progress.moved) {
        end(moved);
    }
    followed.map(|()| progress)
}

fn follow_to_end(
    socket: &OwnedFd,
    child: &Child,
    ops: &[Op],
    program: &str,
    answers: &Answers<'_>,
    progress: &mut Progress,
) -> Result<()> {
    let mut announced = false;
    let mut message = [0_u8; MESSAGE_MAX];
    loop {
        let (length, fd) = socket::receive(socket, &mut message).call(|| "recvmsg(<init>)")?;
        if length == 0 {
            return if announced { Ok(()) } else { Err(silent_end(child)) };
        }
        if let Some(fd) = fd {
            progress.take(&message[..length], fd);
            continue;
        }
        match message[0] {
            FAILURE => {
                let failure = Failure::decode(&message[..length]);
                let failure =
                    failure.ok_or_else(|| Fault::new(Kind::Internal, "init sent a strange message"))?;
                let (failure, text) = failure;
                return Err(words::fault(&failure, &text, ops.get(usize::from(failure.op)), program));
            }
            READY => return Ok(()),
            ANNOUNCED => announced = true,
            SYNC => {
                announced |= message[1] == Point::Limited as u8;
                let detail = i32::from_ne_bytes([message[4], message[5], message[6], message[7]]);
                answer(message[1], detail, progress.moved.as_ref().unwrap_or(child), answers)?;
                socket::send(socket, b"1").call(|| "send(<init>)")?;
            }
            _ => return Err(Fault::new(Kind::Internal, "init sent a strange message")),
        }
    }
}

fn answer(point: u8, detail: i32, child: &Child, answers: &Answers<'_>) -> Result<()> {
    match point {
        p if p == Point::IdMaps as u8 => match answers.id_maps {
            Some((uids, gids)) => crate::sources::write_id_maps(child.pid, uids, gids),
            None => Ok(()),
        },
        p if p == Point::RuntimeHooks as u8 => (answers.hooks)(child.pid),
        // Both are done before init is followed.
        p if p == Point::Unit as u8 || p == Point::Limited as u8 => Ok(()),
        p if p == Point::Limits as u8 => set_limits(child.pid, answers.limits),
        p if p == Point::Listener as u8 => (answers.listener)(child, detail),
        other => Err(Fault::new(Kind::Internal, format!("init waits at an unknown point {other}"))),
    }
}

fn set_limits(pid: i32, limits: &[Op]) -> Result<()> {
    for op in limits {
        if let Op::Limit { resource, soft, hard, .. } = op {
            identity::set_limit_of(pid, *resource, *soft, *hard)
                .call(|| "prlimit64")
                .map_err(Fault::from)
                .within(|| op.to_string())?;
        }
    }
    Ok(())
}

/// Init died without a word: the kernel killed it, most often for memory.
fn silent_end(child: &Child) -> Fault {
    match process::try_wait(&child.pidfd) {
        Ok(Some(Ended::Signal(9))) => {
            Fault::new(Kind::Exhausted, "init was killed while it set the container up")
                .hint("the memory limit may be too low, or somebody killed it")
        }
        Ok(Some(ended)) => {
            Fault::new(Kind::Os, format!("init ended while it set the container up: {ended:?}"))
        }
        _ => Fault::new(Kind::Os, "init closed its socket while it set the container up"),
    }
}

/// Ends a child that could not be finished, and reaps it where it is this process's.
pub fn end(child: &Child) {
    let _ = process::send_signal(&child.pidfd, 9);
    let _ = process::wait_end(child.pidfd.as_fd(), Some(10_000));
    // ECHILD when it is the supervisor's.
    let _ = process::try_wait(&child.pidfd);
}

/// Makes the state document that hooks read.
pub fn hook_state(record: &bale_record::Record, pid: i32, status: Status) -> State {
    State {
        oci_version: bale_spec::runtime::SPEC_VERSION.to_owned(),
        id: record.id.clone(),
        pid,
        status,
        bundle: record.bundle.clone(),
        rootfs: record.rootfs.clone(),
        created: String::new(),
        annotations: record.annotations.clone(),
        owner: String::new(),
    }
}
