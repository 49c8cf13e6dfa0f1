//! Making a container and letting it start.

use std::borrow::Cow;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use bale_fault::{Context, Fault, Kind, Result};
use bale_record::{Cgroup, Dir, Locked, Phase, ProcessId, Record};
use bale_spec::runtime::{Resources, Status, TimeOffset};
use bale_sys::error::Call;
use bale_sys::process::{self, Child};
use bale_sys::{namespace, socket};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::cgroup::systemd::Unit;
use crate::cgroup::{self, Handle, Host};
use crate::init::report::{Failure, MESSAGE_MAX};
use crate::init::{self, Inherited, words};
use crate::kept::{Kept, Listener};
use crate::options::{CgroupManager, CreateOptions, Created, InitParent, Stdio};
use crate::parent::{self, Answers, Progress, Scene, hook_state};
use crate::plan::op::Op;
use crate::plan::{Choices, Plan, of_config};
use crate::{facts, hooks, life, net_devices, shared_mounts, sources, timings};

pub(crate) const START_FIFO: &str = "start.fifo";
pub(crate) const RESULT_FIFO: &str = "result.fifo";

/// Creates a container.
///
/// # Errors
/// The failed step in words; nothing is left of the container then but its directory.
#[allow(clippy::needless_pass_by_value, reason = "its descriptors are closed when the container has them")]
pub fn create(options: CreateOptions<'_>) -> Result<Created> {
    let plan = decide(&options)?;
    timings::stage("plan");
    let locked = options.dir.lock()?;
    let before = locked.load().ok();
    let mut record = intent(&options, &plan, before.as_ref())?;
    locked.save(&record)?;
    timings::stage("record");
    let outcome = make(&options, &plan, &mut record, &locked);
    if outcome.is_err() {
        undo(&options, &record, &locked, before.as_ref());
    }
    outcome
}

/// Prints what `create` would do, and does nothing.
///
/// # Errors
/// As [`create`], as far as it decides.
pub fn explain(options: &CreateOptions<'_>) -> Result<String> {
    decide(options).map(|plan| plan.to_string())
}

fn decide(options: &CreateOptions<'_>) -> Result<Plan> {
    let facts = facts::gather(&options.config, options.bundle, &options.root, options.preserve_fds)?;
    let choices = Choices {
        id: options.dir.id(),
        bundle: options.bundle,
        root: &options.root,
        wait_for_start: options.wait_for_start,
        place_stdio: matches!(options.stdio, Stdio::Fds { .. }),
        cgroup: options.cgroup_manager != CgroupManager::Disabled,
        systemd: options.cgroup_manager == CgroupManager::Systemd,
        no_pivot: options.no_pivot,
        no_new_keyring: options.no_new_keyring,
    };
    let terminal = options.config.process.as_ref().is_some_and(|p| p.terminal);
    if matches!(options.stdio, Stdio::ConsoleSocket(_)) && !terminal {
        let words = "cannot use console socket if runc will not detach or allocate tty";
        return Err(
            Fault::new(Kind::InvalidInput, words).hint("set process.terminal, or leave out --console-socket")
        );
    }
    if options.cgroup_manager == CgroupManager::Systemd {
        unit(options)?;
    }
    Plan::new(&options.config, &choices, &facts)
}

/// The systemd unit of the container.
fn unit(options: &CreateOptions<'_>) -> Result<Unit> {
    let path = options.config.linux.as_ref().and_then(|l| l.cgroups_path.as_deref());
    cgroup::systemd::unit(Host::detect()?, path.filter(|path| !path.is_empty()), options.dir.id())
}

/// The path of the container's cgroup, as [`cgroup::create`] takes it.
fn cgroup_path(options: &CreateOptions<'_>) -> (String, bool) {
    let asked = options.config.linux.as_ref().and_then(|l| l.cgroups_path.clone()).filter(|p| !p.is_empty());
    match asked {
        Some(path) => (path, true),
        None => {
            (format!("{}/{}", options.default_cgroup_parent.trim_end_matches('/'), options.dir.id()), false)
        }
    }
}

/// What will exist, written before anything of it does.
fn intent(options: &CreateOptions<'_>, plan: &Plan, before: Option<&Record>) -> Result<Record> {
    let bundle = options.bundle.to_string_lossy();
    let created = before.map_or_else(bale_record::time::now, |b| b.created.clone());
    let mut record = Record::new(options.dir.id(), Phase::Creating, &bundle, created);
    if let Some(before) = before {
        (record.supervisor, record.engine) = (before.supervisor.clone(), before.engine.clone());
    }
    record.rootfs.clone_from(&plan.rootfs);
    record.annotations.clone_from(&options.config.annotations);
    record.cgroup = match options.cgroup_manager {
        CgroupManager::Cgroupfs => Some(cgroup::locate(Host::detect()?, &cgroup_path(options).0)?),
        CgroupManager::Systemd => Some(cgroup::systemd::locate(Host::detect()?, &unit(options)?)?),
        CgroupManager::Disabled => None,
    };
    let mut kept = Kept::new(&options.config, plan);
    kept.no_new_keyring = options.no_new_keyring;
    kept.keep(&mut record)?;
    Ok(record)
}

fn program_name(options: &CreateOptions<'_>) -> String {
    options.config.process.as_ref().and_then(|p| p.args.first().cloned()).unwrap_or_default()
}

fn make(
    options: &CreateOptions<'_>,
    plan: &Plan,
    record: &mut Record,
    locked: &Locked<'_>,
) -> Result<Created> {
    let group = make_cgroup(options)?;
    timings::stage("cgroup");
    let joined = make_rdt(plan, record);
    let made = joined.and_then(|()| make_init(options, plan, record, locked, group.as_ref()));
    if let (Err(_), Some(group)) = (&made, &group) {
        // Init has ended; the first failure is the one that is told.
        let _ = group.remove();
        group.unmake();
    }
    made
}

fn make_init(
    options: &CreateOptions<'_>,
    plan: &Plan,
    record: &mut Record,
    locked: &Locked<'_>,
    group: Option<&Handle>,
) -> Result<Created> {
    if let Some(group) = group {
        record.cgroup = Some(group.record());
    }
    let opened = sources::open(&plan.sources, record.cgroup.as_ref())?;
    timings::stage("mount sources");
    if let Some(root) = plan.host_root.and_then(|source| opened.get(usize::from(source.0))) {
        shared_mounts::announce(record, root)?;
        locked.save(record)?;
    }
    let (ours, theirs) = socket::packet_pair().call(|| "socketpair")?;
    let fifos = if options.wait_for_start { Some(make_fifos(options.dir)?) } else { None };
    let child = spawn(options, plan, group, &opened, (&ours, &theirs), fifos.as_ref())?;
    drop((theirs, fifos, opened));
    timings::stage("clone");
    let limited = match options.cgroup_manager {
        CgroupManager::Systemd => start_unit(options, record, &child),
        _ => restrict(options, group),
    };
    let finished = limited.and_then(|()| {
        timings::stage("limits");
        finish(options, plan, record, locked, (&child, &ours, group))
    });
    match finished {
        Ok(Progress { terminal, moved: None }) => {
            Ok(Created { pid: child.pid, pidfd: child.pidfd, terminal })
        }
        Ok(Progress { terminal, moved: Some(init) }) => {
            // The first process ended once it had told of the second. A sibling is its parent's to reap.
            if options.init_parent == InitParent::Own {
                process::wait(&child.pidfd)?;
            }
            Ok(Created { pid: init.pid, pidfd: init.pidfd, terminal })
        }
        Err(fault) => {
            parent::end(&child);
            Err(fault)
        }
    }
}

fn make_cgroup(options: &CreateOptions<'_>) -> Result<Option<Handle>> {
    // systemd makes it around init, once there is one.
    if options.cgroup_manager != CgroupManager::Cgroupfs {
        return Ok(None);
    }
    let (path, asked) = cgroup_path(options);
    cgroup::prepare(Host::detect()?, &path, &resources_of(options), asked).map(Some).map_err(of_config)
}

fn resources_of<'a>(options: &'a CreateOptions<'_>) -> Cow<'a, Resources> {
    let given = options.config.linux.as_ref().and_then(|l| l.resources.as_ref());
    given.map_or_else(|| Cow::Owned(Resources::default()), Cow::Borrowed)
}

/// Has systemd take init, which waits for it before anything else, into a unit with the limits.
fn start_unit(options: &CreateOptions<'_>, record: &mut Record, child: &Child) -> Result<()> {
    let (resources, init) = (resources_of(options), (options.dir.id(), child.pid));
    let annotations = &options.config.annotations;
    let group = cgroup::systemd::start(Host::detect()?, &unit(options)?, init, &resources, annotations)?;
    record.cgroup = Some(group.record());
    timings::stage("systemd unit");
    restrict(options, Some(&group))
}

fn make_rdt(plan: &Plan, record: &Record) -> Result<()> {
    let Some(wanted) = &plan.rdt else { return Ok(()) };
    Kept::rdt_of(record).map_or(Ok(()), |rdt| rdt.make(wanted))
}

/// Writes limits and device rules while init sets the container up; it waits for them before its program.
fn restrict(options: &CreateOptions<'_>, group: Option<&Handle>) -> Result<()> {
    let Some(group) = group else { return Ok(()) };
    let limited = group.restrict(&resources_of(options)).map_err(of_config);
    limited.within(|| format!("limit cgroup {:?}", cgroup_path(options).0))
}

fn make_fifos(dir: &Dir) -> Result<(OwnedFd, OwnedFd)> {
    for name in [START_FIFO, RESULT_FIFO] {
        rustix::fs::mkfifoat(dir, name, Mode::from_raw_mode(0o600)).call(|| format!("mkfifoat({name:?})"))?;
    }
    let open = |name: &str, flags: OFlags| {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(dir, name, flags, Mode::empty()).call(|| format!("openat({name:?})"))
    };
    // Init reads and holds the writing side too, or it would see an end of file while nobody starts it.
    let start = open(START_FIFO, OFlags::RDWR)?;
    // A writer needs a reader to open it.
    let both = open(RESULT_FIFO, OFlags::RDWR)?;
    let result = open(RESULT_FIFO, OFlags::WRONLY)?;
    drop(both);
    Ok((start, result))
}

fn spawn(
    options: &CreateOptions<'_>,
    plan: &Plan,
    group: Option<&Handle>,
    opened: &[OwnedFd],
    (ours, theirs): (&OwnedFd, &OwnedFd),
    fifos: Option<&(OwnedFd, OwnedFd)>,
) -> Result<Child> {
    let proc = open_proc()?;
    let stdio = match &options.stdio {
        Stdio::Fds { stdin, stdout, stderr } => {
            let copy =
                |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, 3).call(|| "fcntl(F_DUPFD_CLOEXEC)");
            Some([copy(stdin)?, copy(stdout)?, copy(stderr)?])
        }
        _ => None,
    };
    let given = Inherited {
        sources: opened,
        proc: &proc,
        root: None,
        tasks: group.map_or(&[], Handle::tasks_fds),
        parent: theirs,
        fifos,
        stdio: stdio.as_ref(),
        console: match &options.stdio {
            Stdio::ConsoleSocket(socket) => Some(socket),
            _ => None,
        },
        preserve_fds: options.preserve_fds,
    };
    // Nobody in the container may look into this process's child before it is the user's program.
    bale_sys::identity::set_dumpable(false).call(|| "prctl(PR_SET_DUMPABLE)")?;
    let entered = Entered::enter(plan, opened)?;
    let sibling = if options.init_parent == InitParent::Sibling { namespace::PARENT } else { 0 };
    let how =
        process::Clone { flags: plan.clone_flags | sibling, cgroup: group.and_then(Handle::into_cgroup_fd) };
    // With a copy of this process's end, init would wait for ever for the word of a parent that was killed.
    let ours = ours.as_raw_fd();
    let child = process::clone(how, || match process::close_copy(ours) {
        Ok(()) => init::run(&plan.ops, &given, &plan.program, &plan.filter),
        Err(_) => 1,
    });
    entered.leave()?;
    child.map_err(Fault::from).map_err(|fault| fault.within("clone the container's init"))
}

pub(crate) fn open_proc() -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let proc = rustix::fs::open("/proc", flags, Mode::empty()).call(|| "open(\"/proc\")")?;
    let stat = rustix::fs::fstatfs(&proc).call(|| "fstatfs(\"/proc\")")?;
    if stat.f_type != rustix::fs::PROC_SUPER_MAGIC {
        return Err(Fault::new(Kind::Unsupported, "/proc is not procfs").hint("mount -t proc proc /proc"));
    }
    Ok(proc)
}

/// Namespaces that this process's children are born in: pid and time cannot be changed for a living process.
struct Entered {
    pid: Option<OwnedFd>,
    time: Option<OwnedFd>,
}

impl Entered {
    fn enter(plan: &Plan, opened: &[OwnedFd]) -> Result<Self> {
        let mut entered = Self { pid: None, time: None };
        if let Some(source) = plan.join_pid {
            entered.pid = Some(own("pid")?);
            let target = opened.get(usize::from(source.0));
            let target = target.ok_or_else(|| Fault::new(Kind::Internal, "a source is missing"))?;
            namespace::join(target, namespace::NEWPID).call(|| "setns(CLONE_NEWPID)")?;
        }
        if let Some(offsets) = &plan.time {
            entered.time = Some(own("time")?);
            namespace::unshare(namespace::NEWTIME).call(|| "unshare(CLONE_NEWTIME)")?;
            write_offsets(offsets)?;
        }
        Ok(entered)
    }

    fn leave(self) -> Result<()> {
        if let Some(pid) = self.pid {
            namespace::join(pid, namespace::NEWPID).call(|| "setns(CLONE_NEWPID)")?;
        }
        if let Some(time) = self.time {
            namespace::join(time, namespace::NEWTIME).call(|| "setns(CLONE_NEWTIME)")?;
        }
        Ok(())
    }
}

fn own(kind: &str) -> Result<OwnedFd> {
    let path = format!("/proc/self/ns/{kind}");
    rustix::fs::open(path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .call(|| format!("open({path:?})"))
        .map_err(Fault::from)
}

fn write_offsets(offsets: &[(String, TimeOffset)]) -> Result<()> {
    let lines = offsets.iter().map(|(clock, o)| format!("{clock} {} {}\n", o.secs, o.nanosecs));
    let text: String = lines.collect();
    if text.is_empty() {
        return Ok(());
    }
    std::fs::write("/proc/self/timens_offsets", &text)
        .within(|| format!("write({text:?}) to /proc/self/timens_offsets"))
        .map_err(|fault| fault.hint("linux.timeOffsets may not make a clock negative"))
}

/// Follows init, and writes what is known of it while it works.
fn finish(
    options: &CreateOptions<'_>,
    plan: &Plan,
    record: &mut Record,
    locked: &Locked<'_>,
    (child, ours, group): (&Child, &OwnedFd, Option<&Handle>),
) -> Result<Progress> {
    record.init = Some(ProcessId::of(child.pid)?);
    record.phase = if options.wait_for_start { Phase::Created } else { Phase::Running };
    if record.phase == Phase::Running {
        record.started = Some(bale_record::time::now());
    }
    // Init works meanwhile. A record that says Created a moment early is no harm: the lock is held.
    locked.save(record)?;
    timings::stage("record of init");
    let limits = limits_of(options)?;
    let shown = &*record;
    let answers = Answers {
        of_config: true,
        id_maps: plan.id_maps.as_ref(),
        limits: &limits,
        hooks: &|pid| {
            net_devices::move_in(&plan.net_devices, pid)?;
            runtime_hooks(options, shown, pid)
        },
        listener: &|child, detail| send_listener(options, shown, child, detail),
    };
    let scene = Scene { proc: None, group };
    let progress = parent::follow(ours, child, &plan.ops, &program_name(options), &answers, scene)?;
    timings::stage("wait for init");
    let published = publish(options, record, locked, progress.moved.as_ref().unwrap_or(child));
    if let (Err(_), Some(moved)) = (&published, &progress.moved) {
        parent::end(moved);
    }
    timings::stage("pid file, hooks");
    published.map(|()| progress)
}

/// Tells whoever wants to know which process init is.
fn publish(
    options: &CreateOptions<'_>,
    record: &mut Record,
    locked: &Locked<'_>,
    init: &Child,
) -> Result<()> {
    if record.init.as_ref().is_some_and(|known| known.pid != init.pid) {
        record.init = Some(ProcessId::of(init.pid)?);
        locked.save(record)?;
    }
    if let Some(socket) = &options.pidfd_socket {
        socket::send_fd(socket, b"standard", init.pidfd.as_fd()).call(|| "sendmsg(<pidfd socket>)")?;
    }
    if let Some(path) = options.pid_file {
        write_pid_file(path, init.pid)?;
    }
    if !options.wait_for_start {
        let state = hook_state(record, init.pid, Status::Running);
        hooks::run("poststart", &Kept::of(record).poststart, &state, options.bundle)?;
    }
    Ok(())
}

fn limits_of(options: &CreateOptions<'_>) -> Result<Vec<Op>> {
    options.config.process.as_ref().map_or(Ok(Vec::new()), crate::plan::process::limits)
}

fn runtime_hooks(options: &CreateOptions<'_>, record: &Record, pid: i32) -> Result<()> {
    let Some(config) = &options.config.hooks else { return Ok(()) };
    // Hooks of this old kind were written for a container that is created and about to start (runtime-spec 1.0.0,
    // "Lifecycle"); the newer kinds are told what is true.
    let state = hook_state(record, pid, Status::Created);
    hooks::run("prestart", &config.prestart, &state, options.bundle)?;
    let state = hook_state(record, pid, Status::Creating);
    hooks::run("createRuntime", &config.create_runtime, &state, options.bundle)
}

fn send_listener(options: &CreateOptions<'_>, record: &Record, child: &Child, detail: i32) -> Result<()> {
    let profile = options.config.linux.as_ref().and_then(|l| l.seccomp.as_ref());
    let to = Listener::of(profile);
    let to = to.ok_or_else(|| {
        crate::plan::invalid("linux.seccomp.listenerPath", "is missing, and a rule notifies")
    })?;
    to.send(&hook_state(record, child.pid, Status::Creating), child.pid, &child.pidfd, detail)
}

/// Writes a pid, decimal, without a newline: by rename, so that whoever waits for the file reads a whole number.
pub(crate) fn write_pid_file(path: &Path, pid: i32) -> Result<()> {
    let (dir, name) = split_pid_file(path)?;
    replace_pid_file(&dir, &name, pid).within(|| format!("write pid file {path:?}"))
}

pub(crate) fn split_pid_file(path: &Path) -> Result<(OwnedFd, String)> {
    let name = path.file_name().and_then(|n| n.to_str());
    let name = name.ok_or_else(|| Fault::new(Kind::InvalidInput, format!("{path:?} names no file")))?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(&parent, flags, Mode::empty()).call(|| format!("open({parent:?})"))?;
    Ok((dir, name.to_owned()))
}

pub(crate) fn replace_pid_file(dir: &OwnedFd, name: &str, pid: i32) -> Result<()> {
    let mode = Mode::from_raw_mode(0o644);
    let durability = bale_sys::file::Durability::Process;
    bale_sys::file::replace(dir, name, pid.to_string().as_bytes(), mode, durability).map_err(Fault::from)
}

/// Takes back what was done; the first failure is the one that is told.
fn undo(options: &CreateOptions<'_>, record: &Record, locked: &Locked<'_>, before: Option<&Record>) {
    if let Some(cgroup) = &record.cgroup {
        let _ = life::remove_cgroup(cgroup);
    }
    if let Some(rdt) = Kept::rdt_of(record) {
        let _ = rdt.remove();
    }
    let _ = shared_mounts::remove(record);
    for name in [START_FIFO, RESULT_FIFO] {
        let _ = rustix::fs::unlinkat(options.dir, name, rustix::fs::AtFlags::empty());
    }
    let _ = match before {
        Some(before) => locked.save(before).map_err(drop),
        None => {
            rustix::fs::unlinkat(options.dir, bale_record::FILE, rustix::fs::AtFlags::empty()).map_err(drop)
        }
    };
}

/// Lets init run its program, and waits until it does.
///
/// # Errors
/// `Conflict` when it does not wait; `ProgramNotFound`, `ProgramNotExecutable`.
pub fn start(dir: &Dir) -> Result<()> {
    let locked = dir.lock()?;
    let mut record = locked.load()?;
    check_startable(&record)?;
    timings::stage("lock, read");
    record.phase = Phase::Starting;
    locked.save(&record)?;
    timings::stage("record");
    let started = let_go(dir, &record);
    timings::stage("wait for init");
    record.phase = if started.is_ok() { Phase::Running } else { Phase::Stopped };
    record.started = started.is_ok().then(bale_record::time::now);
    locked.save(&record)?;
    drop(locked);
    timings::stage("record");
    started?;
    let kept = Kept::of(&record);
    if kept.poststart.is_empty() {
        return Ok(());
    }
    let pid = record.init.as_ref().map_or(0, |init| init.pid);
    let state = hook_state(&record, pid, Status::Running);
    hooks::run("poststart", &kept.poststart, &state, Path::new(&record.bundle))
}

fn check_startable(record: &Record) -> Result<()> {
    let alive = record.init.as_ref().is_some_and(ProcessId::is_alive);
    let words = match record.phase {
        Phase::Created if alive => return Ok(()),
        Phase::Created | Phase::Stopped => "cannot start a container that has stopped",
        Phase::Running | Phase::Starting if alive => "cannot start an already running container",
        Phase::Running | Phase::Starting => "cannot start a container that has stopped",
        Phase::Configured | Phase::Creating => "cannot start a container that is not created yet",
        Phase::Removing => "cannot start a container that is being removed",
    };
    Err(Fault::new(Kind::Conflict, words))
}

fn let_go(dir: &Dir, record: &Record) -> Result<()> {
    let open = |name: &str, flags: OFlags| {
        rustix::fs::openat(
            dir,
            name,
            flags | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )
    };
    let result = open(RESULT_FIFO, OFlags::RDONLY).call(|| format!("openat({RESULT_FIFO:?})"))?;
    let start = match open(START_FIFO, OFlags::WRONLY) {
        Err(Errno::NXIO) => {
            return Err(Fault::new(Kind::Conflict, "cannot start a container that has stopped"));
        }
        other => other.call(|| format!("openat({START_FIFO:?})"))?,
    };
    rustix::io::write(&start, b"1").call(|| "write(<start.fifo>)")?;
    let mut message = [0_u8; MESSAGE_MAX];
    let length = read_result(&result, &mut message)?;
    if length == 0 {
        return check_executed(record);
    }
    let failure = Failure::decode(&message[..length]);
    let failure = failure.ok_or_else(|| Fault::new(Kind::Internal, "init sent a strange message"))?;
    let (failure, text) = failure;
    Err(words::fault(&failure, &text, None, &Kept::of(record).program))
}

/// Init has closed its side: it became its program, or was killed.
fn check_executed(record: &Record) -> Result<()> {
    let Some(init) = &record.init else { return Ok(()) };
    if Scene::default().has_executed(init.pid) {
        return Ok(());
    }
    let group = record.cgroup.as_ref().and_then(|cgroup| cgroup::open(cgroup).ok());
    let scene = Scene { proc: None, group: group.as_ref() };
    // One that is gone was seen to be so by others.
    init.open()?.map_or(Ok(()), |pidfd| Err(scene.death(&Child { pid: init.pid, pidfd })))
}

/// Reads init's answer: 0 bytes when exec (or death) closed its side.
fn read_result(result: &OwnedFd, message: &mut [u8]) -> Result<usize> {
    use rustix::event::{PollFd, PollFlags, poll};
    loop {
        match poll(&mut [PollFd::new(result, PollFlags::IN)], None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(bale_sys::Error::new("poll(<result.fifo>)", errno).into()),
        }
        match rustix::io::read(result, &mut *message) {
            Ok(length) => return Ok(length),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(bale_sys::Error::new("read(<result.fifo>)", errno).into()),
        }
    }
}

/// Returns the cgroups of a record, none when there are none.
pub(crate) fn cgroup_of(record: &Record) -> Option<&Cgroup> {
    record.cgroup.as_ref()
}
