//! The parent's side of init's set-up: answers where init waits, and turns its failure into words.

use std::os::fd::{AsFd, OwnedFd};

use bale_fault::{Context, Fault, Kind, Result};
use bale_spec::runtime::{IdMapping, State, Status};
use bale_sys::error::Call as _;
use bale_sys::process::{self, Child, Ended};
use bale_sys::{identity, socket};

use crate::cgroup::Handle;
use crate::init::report::{
    ANNOUNCED, ANNOUNCED_LENGTH, DONE, FAILURE, Failure, LIMITED, MESSAGE_MAX, MOVED, READY, SYNC,
};
use crate::init::words;
use crate::plan::op::{Op, Point};
use crate::timings;

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

/// Where a process is seen from, and what limits it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scene<'a> {
    /// The host's `/proc`, where this process's own is another.
    pub proc: Option<&'a OwnedFd>,
    /// Its cgroups.
    pub group: Option<&'a Handle>,
}

/// What the parent does where init waits.
pub struct Answers<'a> {
    /// The operations are those of a config.json.
    pub of_config: bool,
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
    scene: Scene<'_>,
) -> Result<Progress> {
    let mut progress = Progress::default();
    let mut followed = follow_to_end(socket, child, ops, program, answers, &mut progress);
    let last = progress.moved.as_ref().unwrap_or(child);
    let died = match followed {
        Ok(End::Silent) => true,
        Ok(End::Announced) => !scene.has_executed(last.pid),
        _ => false,
    };
    if died {
        followed = Err(scene.death(last));
    }
    if let (Err(_), Some(moved)) = (&followed, &progress.moved) {
        end(moved);
    }
    followed.map(|_| progress)
}

/// Where init's words end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It waits for start.
    Ready,
    /// The program runs, or init was killed just before.
    Announced,
    /// Init is dead.
    Silent,
}

fn follow_to_end(
    socket: &OwnedFd,
    child: &Child,
    ops: &[Op],
    program: &str,
    answers: &Answers<'_>,
    progress: &mut Progress,
) -> Result<End> {
    if ops.iter().any(|op| matches!(op, Op::Sync(Point::Limited))) {
        // Init may have failed; then it has said so, which is read below.
        let _ = socket::send(socket, &[LIMITED]);
    }
    let mut announced = false;
    let mut message = [0_u8; MESSAGE_MAX];
    loop {
        let (length, fd) = socket::receive(socket, &mut message).call(|| "recvmsg(<init>)")?;
        if length == 0 {
            return Ok(if announced { End::Announced } else { End::Silent });
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
                let op = ops.get(usize::from(failure.op));
                let fault = words::fault(&failure, &text, op, program);
                return Err(match op.and_then(Op::place).filter(|_| answers.of_config) {
                    Some(place) => fault.within(format!("config.json: {place}")),
                    None => fault,
                });
            }
            READY => return Ok(End::Ready),
            ANNOUNCED => {
                announced = true;
                tell_times(&message[..length]);
            }
            SYNC => {
                let detail = i32::from_ne_bytes([message[4], message[5], message[6], message[7]]);
                answer(message[1], detail, progress.moved.as_ref().unwrap_or(child), answers)?;
                socket::send(socket, &[DONE]).call(|| "send(<init>)")?;
            }
            _ => return Err(Fault::new(Kind::Internal, "init sent a strange message")),
        }
    }
}

/// Keeps the times of an announcement, for `--timings`.
fn tell_times(message: &[u8]) {
    let Some(times) = message.get(8..ANNOUNCED_LENGTH) else { return };
    let mut all = times.chunks_exact(8).map(|time| time.try_into().map_or(0, u64::from_ne_bytes));
    let [began, rooted, announced] = [(); 3].map(|()| all.next().unwrap_or(0));
    if rooted == 0 {
        return timings::beside("set-up", began, announced);
    }
    timings::beside("mounts, until it has its root", began, rooted);
    timings::beside("network, keyring, limits", rooted, announced);
}

fn answer(point: u8, detail: i32, child: &Child, answers: &Answers<'_>) -> Result<()> {
    match point {
        p if p == Point::IdMaps as u8 => match answers.id_maps {
            Some((uids, gids)) => crate::sources::write_id_maps(child.pid, uids, gids),
            None => Ok(()),
        },
        p if p == Point::RuntimeHooks as u8 => (answers.hooks)(child.pid),
        // It was made before init is followed.
        p if p == Point::Unit as u8 => Ok(()),
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

/// Flag of a process that has executed no program yet (linux/sched.h).
const PF_FORKNOEXEC: u64 = 0x40;

impl Scene<'_> {
    /// Tells whether a process has become its program: the kernel clears the flag before it closes what is to be closed
    /// by exec. One that was reaped meanwhile counts as one that has.
    pub fn has_executed(self, pid: i32) -> bool {
        let flags = self.stat(pid).and_then(|stat| stat.flags());
        flags.is_none_or(|flags| flags & PF_FORKNOEXEC == 0)
    }

    /// Says how a process ended that did so without a word: the kernel killed it, most often for memory.
    pub fn death(self, child: &Child) -> Fault {
        // It has closed its socket, which is one of the last things that it does.
        let _ = process::wait_end(&child.pidfd, Some(1000));
        let told = process::try_wait(&child.pidfd).ok().flatten().or_else(|| process::exit_of(&child.pidfd));
        // A sibling is its parent's to wait for.
        let ended = told.or_else(|| self.stat(child.pid)?.ended());
        match ended {
            Some(Ended::Signal(9)) => {
                let words = "the process was killed before its program ran";
                match self.group.and_then(Handle::killed_for_memory) {
                    Some(cause) => Fault::new(Kind::Exhausted, words).caused_by(cause),
                    None => Fault::new(Kind::Exhausted, words).hint("somebody killed it"),
                }
            }
            Some(ended) => {
                Fault::new(Kind::Os, format!("the process ended before its program ran: {ended:?}"))
            }
            None => Fault::new(Kind::Os, "the process closed its socket before its program ran"),
        }
    }

    fn stat(self, pid: i32) -> Option<Stat> {
        let dir = self.proc.map_or(rustix::fs::CWD, AsFd::as_fd);
        let path = if self.proc.is_some() { format!("{pid}/stat") } else { format!("/proc/{pid}/stat") };
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
        let file = rustix::fs::openat(dir, path, flags, rustix::fs::Mode::empty()).ok()?;
        let mut text = [0_u8; 1024];
        let length = rustix::io::read(&file, &mut text).ok()?;
        let text = String::from_utf8_lossy(&text[..length]);
        // The name in field 2 may hold anything, brackets and spaces too.
        Some(Stat(text[text.rfind(')')? + 2..].split(' ').map(str::to_owned).collect()))
    }
}

/// Fields 3 on of `/proc/<pid>/stat`.
struct Stat(Vec<String>);

impl Stat {
    fn flags(&self) -> Option<u64> {
        self.0.get(6)?.parse().ok()
    }

    /// How a zombie ended.
    fn ended(&self) -> Option<Ended> {
        let status: i32 = self.0.get(49)?.trim().parse().ok()?;
        let zombie = self.0.first().is_some_and(|state| state == "Z");
        zombie.then_some(match status & 0x7f {
            0 => Ended::Code(u8::try_from(status >> 8 & 0xff).unwrap_or(255)),
            signal => Ended::Signal(signal),
        })
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
