//! A process in a running container.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

use bale_fault::{Context, Fault, Kind, Result};
use bale_record::{Cgroup, Dir, Record};
use bale_spec::runtime::{Process, Status};
use bale_sys::error::Call;
use bale_sys::process::{self, Child};
use bale_sys::root::RootFd;
use bale_sys::seccomp::Flags;
use bale_sys::{namespace, socket};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::cgroup::{self, Handle};
use crate::container::{open_proc, replace_pid_file, split_pid_file};
use crate::init::{self, Filter, Inherited};
use crate::kept::Kept;
use crate::listener::Keeper;
use crate::options::{ExecOptions, Executed, InitParent, Stdio};
use crate::parent::{self, Answers, Scene, hook_state};
use crate::plan::op::Op;
use crate::plan::{self, ExecChoices, ExecPlan};
use crate::{facts, life, rdt, shared_mounts, timings};

/// Returns the process that the container was made with.
///
/// # Errors
/// `NotFound`, `Corrupt`.
pub fn process_of(dir: &Dir) -> Result<Process> {
    Kept::of(&dir.load()?).process()
}

/// Starts a process in a running container. The calling process joins the container's namespaces: it is meant to
/// be a process of this one purpose, sealed, with one thread.
///
/// # Errors
/// `Conflict` when it does not run or is paused; `ProgramNotFound`, `ProgramNotExecutable`.
#[allow(clippy::needless_pass_by_value, reason = "its descriptors are closed when the process has them")]
pub fn exec(dir: &Dir, options: ExecOptions<'_>) -> Result<Executed> {
    let record = dir.load()?;
    let init = running_init(&record, options.ignore_paused)?;
    let kept = Kept::of(&record);
    // What is on the host is opened before the container's namespaces are joined.
    let group = open_group(&record, &options.cgroups)?;
    let filter = kept.filter()?;
    let proc = open_proc()?;
    let shared_root =
        kept.shared_mounts.then(|| shared_mounts::root_of(&record, &init, &proc)).transpose()?;
    let groups: Vec<PathBuf> = kept.rdt.iter().flat_map(|rdt| rdt.tasks()).collect();
    let mut sources = vec![init];
    for path in &groups {
        sources.push(rdt::open(path)?);
    }
    let keeper = keeper(&record, &kept, filter.as_ref())?;
    let pid_file = options.pid_file.map(split_pid_file).transpose()?;
    timings::stage("open");
    bale_sys::identity::set_dumpable(false).call(|| "prctl(PR_SET_DUMPABLE)")?;
    join(&sources[0], kept.namespaces)?;
    if let Some(root) = shared_root {
        shared_mounts::enter(&root)?;
    }
    let root = open_root()?;
    let process = with_defaults(&options.process, &kept)?;
    let facts = facts::gather_exec(&process, &root, &proc, options.preserve_fds)?;
    let choices = ExecChoices {
        id: &record.id,
        cgroup_namespace: kept.namespaces & namespace::NEWCGROUP != 0,
        pid_namespace: kept.namespaces & namespace::NEWPID != 0,
        join_cgroups: !group.tasks_fds().is_empty(),
        user_namespace: kept.namespaces & namespace::NEWUSER != 0,
        place_stdio: matches!(options.stdio, Stdio::Fds { .. }),
        no_new_keyring: kept.no_new_keyring,
        personality: kept.personality,
        memory_policy: kept.memory_policy.as_ref(),
        groups: &groups,
        filter,
    };
    let plan = plan::exec(&process, choices, &facts)?;
    timings::stage("join and plan");
    let host = Host { group: &group, proc: &proc, keeper: keeper.as_ref(), record: &record };
    let started = start(&options, &plan, &host, &sources, &OwnedFd::from(root))?;
    timings::stage("start");
    let finished = publish(&options, pid_file.as_ref(), &started);
    if finished.is_err() {
        let child = Child { pid: started.pid, pidfd: started.pidfd };
        parent::end(&child);
        finished?;
        return Err(Fault::new(Kind::Internal, "exec"));
    }
    Ok(started)
}

/// What a process description leaves open is as the container's own process has it (as runc does; limits are not).
fn with_defaults(given: &Process, kept: &Kept) -> Result<Process> {
    let mut process = given.clone();
    let own = kept.process()?;
    let filled = |label: &Option<String>| label.as_ref().is_some_and(|l| !l.is_empty());
    process.capabilities = process.capabilities.or(own.capabilities);
    if !filled(&process.apparmor_profile) {
        process.apparmor_profile = own.apparmor_profile;
    }
    if !filled(&process.selinux_label) {
        process.selinux_label = own.selinux_label;
    }
    process.io_priority = process.io_priority.or(own.io_priority);
    process.scheduler = process.scheduler.or(own.scheduler);
    process.exec_cpu_affinity = process.exec_cpu_affinity.or(own.exec_cpu_affinity);
    process.oom_score_adj = process.oom_score_adj.or(own.oom_score_adj);
    process.user.umask = process.user.umask.or(own.user.umask);
    Ok(process)
}

/// What the process is started from.
struct Host<'a> {
    group: &'a Handle,
    proc: &'a OwnedFd,
    keeper: Option<&'a Keeper>,
    record: &'a Record,
}

fn running_init(record: &Record, ignore_paused: bool) -> Result<OwnedFd> {
    match life::status(record) {
        Status::Running | Status::Created => life::open_init(record),
        Status::Paused if ignore_paused => life::open_init(record),
        Status::Paused => Err(Fault::new(
            Kind::Conflict,
            "cannot exec in a paused container (use --ignore-paused to override)",
        )),
        Status::Stopped => {
            Err(Fault::new(Kind::Conflict, "cannot exec in a stopped container: container not running"))
        }
        Status::Creating => {
            Err(Fault::new(Kind::Conflict, "cannot exec in a container that is being created"))
        }
    }
}

fn open_group(record: &Record, below: &[(String, String)]) -> Result<Handle> {
    let none = Cgroup::default();
    cgroup::open_to_join(record.cgroup.as_ref().unwrap_or(&none), below)
}

fn keeper(record: &Record, kept: &Kept, filter: Option<&Filter>) -> Result<Option<Keeper>> {
    if !filter.is_some_and(|filter| filter.flags.contains(Flags::NEW_LISTENER)) {
        return Ok(None);
    }
    let missing = || crate::plan::invalid("linux.seccomp.listenerPath", "is missing, and a rule notifies");
    let listener = kept.listener.as_ref().ok_or_else(missing)?;
    let pid = record.init.as_ref().map_or(0, |init| init.pid);
    Keeper::start(listener, &hook_state(record, pid, Status::Running)).map(Some)
}

/// Joins everything but the cgroup namespace, which the child joins once it is in the cgroups, and the pid namespace:
/// with CAP_SYS_PTRACE the container's processes have power over whoever is in it, so the child goes on in it only when
/// it has nothing of the host any more, neither descriptors nor capabilities (CVE-2016-9962).
fn join(init: &OwnedFd, namespaces: u64) -> Result<()> {
    let kinds = namespaces & !(namespace::NEWCGROUP | namespace::NEWPID);
    if kinds == 0 {
        return Ok(());
    }
    namespace::join(init, kinds).call(|| format!("setns(<init>, {kinds:#x})")).map_err(Fault::from)
}

fn open_root() -> Result<RootFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, Mode::empty()).call(|| "open(\"/\")")?;
    Ok(RootFd::from_fd(root))
}

fn start(
    options: &ExecOptions<'_>,
    plan: &ExecPlan,
    host: &Host<'_>,
    sources: &[OwnedFd],
    root: &OwnedFd,
) -> Result<Executed> {
    let (ours, theirs) = socket::packet_pair().call(|| "socketpair")?;
    let stdio = match &options.stdio {
        Stdio::Fds { stdin, stdout, stderr } => {
            let copy =
                |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, 3).call(|| "fcntl(F_DUPFD_CLOEXEC)");
            Some([copy(stdin)?, copy(stdout)?, copy(stderr)?])
        }
        _ => None,
    };
    let given = Inherited {
        sources,
        proc: host.proc,
        root: Some(root),
        tasks: host.group.tasks_fds(),
        parent: &theirs,
        fifos: None,
        stdio: stdio.as_ref(),
        console: match &options.stdio {
            Stdio::ConsoleSocket(socket) => Some(socket),
            _ => None,
        },
        preserve_fds: options.preserve_fds,
    };
    let sibling = options.parent == InitParent::Sibling;
    let child = clone(plan, &given, host, options)?;
    drop(theirs);
    let answers = Answers {
        of_config: false,
        id_maps: None,
        limits: &[],
        hooks: &|_| Ok(()),
        listener: &|child, number| match host.keeper {
            Some(keeper) => keeper.send(child, number),
            None => Err(Fault::new(Kind::Internal, "a listener without a keeper")),
        },
    };
    let program = options.process.args.first().map_or("", String::as_str);
    let scene = Scene { proc: Some(host.proc), group: Some(host.group) };
    match parent::follow(&ours, &child, &plan.ops, program, &answers, scene) {
        Ok(progress) => {
            let program = match progress.moved {
                // The first process ends once it has told of the second. A sibling is its parent's to reap.
                Some(moved) => {
                    if !sibling {
                        process::wait(&child.pidfd)?;
                    }
                    moved
                }
                None => child,
            };
            Ok(Executed { pid: program.pid, pidfd: program.pidfd, terminal: progress.terminal })
        }
        Err(fault) => {
            parent::end(&child);
            Err(fault)
        }
    }
}

/// Clones the child into the container's cgroup. When that takes none any more and no other was asked for, it is init's.
fn clone(
    plan: &ExecPlan,
    given: &Inherited<'_>,
    host: &Host<'_>,
    options: &ExecOptions<'_>,
) -> Result<Child> {
    let flags = if options.parent == InitParent::Sibling { namespace::PARENT } else { 0 };
    let may_follow_init = options.cgroups.is_empty();
    let keep = kept_descriptors(given, &plan.ops);
    let into = |cgroup| {
        let how = process::Clone { flags, cgroup };
        process::clone(how, || match process::close_all_but(3 + given.preserve_fds, &keep) {
            Ok(()) => init::run(&plan.ops, given, &plan.program, &plan.filter),
            Err(_) => 1,
        })
    };
    match into(host.group.into_cgroup_fd()) {
        Err(error) if may_follow_init && matches!(error.errno(), Errno::BUSY | Errno::NODEV) => {
            let pid = host.record.init.as_ref().map_or(0, |init| init.pid);
            let inits = cgroup::of_process(host.proc, pid, host.group).ok_or(error)?;
            into(Some(inits.as_fd())).map_err(Fault::from)
        }
        other => other.map_err(Fault::from),
    }
}

/// What the child needs: nothing else of this process's descriptors is open in it.
fn kept_descriptors(given: &Inherited<'_>, ops: &[Op]) -> Vec<RawFd> {
    let writes =
        ops.iter().any(|op| matches!(op, Op::WriteSelf { .. } | Op::OpenLabel { .. } | Op::Terminal { .. }));
    let mut keep: Vec<RawFd> = given.sources.iter().chain(given.tasks).map(AsRawFd::as_raw_fd).collect();
    keep.extend(given.root.into_iter().chain(given.console).map(AsRawFd::as_raw_fd));
    keep.extend(given.stdio.into_iter().flatten().map(AsRawFd::as_raw_fd));
    keep.extend(writes.then(|| given.proc.as_raw_fd()));
    keep.push(given.parent.as_raw_fd());
    keep
}

fn publish(
    options: &ExecOptions<'_>,
    pid_file: Option<&(OwnedFd, String)>,
    started: &Executed,
) -> Result<()> {
    if let Some(socket) = &options.pidfd_socket {
        socket::send_fd(socket, b"setns", started.pidfd.as_fd()).call(|| "sendmsg(<pidfd socket>)")?;
    }
    match pid_file {
        Some((dir, name)) => {
            replace_pid_file(dir, name, started.pid).within(|| format!("write pid file {name:?}"))
        }
        None => Ok(()),
    }
}
