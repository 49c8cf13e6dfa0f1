//! A process in a running container.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::Path;

use bale_fault::{Context, Fault, Kind, Result};
use bale_record::{Cgroup, Dir, Record};
use bale_spec::runtime::{RuntimeConfig, Seccomp, Status};
use bale_sys::error::Call;
use bale_sys::process::{self, Child};
use bale_sys::root::RootFd;
use bale_sys::{namespace, socket};
use rustix::fs::{Mode, OFlags};

use crate::cgroup::{self, Handle};
use crate::container::{Kept, open_proc, replace_pid_file, split_pid_file};
use crate::init::{self, Inherited};
use crate::options::{ExecOptions, Executed, Stdio};
use crate::parent::{self, Answers};
use crate::plan::op::Op;
use crate::plan::{self, ExecChoices, ExecPlan};
use crate::timings::Timings;
use crate::{facts, life};

/// Starts a process in a running container. The calling process joins the container's namespaces: it is meant to
/// be a process of this one purpose, sealed, with one thread.
///
/// # Errors
/// `Conflict` when it does not run or is paused; `ProgramNotFound`, `ProgramNotExecutable`.
#[allow(clippy::needless_pass_by_value, reason = "its descriptors are closed when the process has them")]
pub fn exec(dir: &Dir, options: ExecOptions<'_>) -> Result<Executed> {
    let mut timings = Timings::new(options.timings);
    let record = dir.load()?;
    let init = running_init(&record, options.ignore_paused)?;
    // What is on the host is opened before the container's namespaces are joined.
    let group = open_group(&record, options.cgroup)?;
    let seccomp = container_filter(&record)?;
    let pid_file = options.pid_file.map(split_pid_file).transpose()?;
    let proc = open_proc()?;
    timings.stage("open");
    let kept = Kept::of(&record);
    bale_sys::identity::set_dumpable(false).call(|| "prctl(PR_SET_DUMPABLE)")?;
    join(&init, kept.namespaces)?;
    let root = open_root()?;
    let facts = facts::gather_exec(&options.process, &root, options.preserve_fds)?;
    let choices = ExecChoices {
        id: &record.id,
        cgroup_namespace: kept.namespaces & namespace::NEWCGROUP != 0,
        pid_namespace: kept.namespaces & namespace::NEWPID != 0,
        join_cgroups: !group.tasks_fds().is_empty(),
        user_namespace: kept.namespaces & namespace::NEWUSER != 0,
        place_stdio: matches!(options.stdio, Stdio::Fds { .. }),
        seccomp: seccomp.as_ref(),
    };
    let plan = plan::exec(&options.process, &choices, &facts)?;
    timings.stage("join and plan");
    let root = OwnedFd::from(root);
    let started = start(&options, &plan, &group, init, &proc, &root, &record)?;
    timings.stage("start");
    let finished = publish(&options, pid_file.as_ref(), &started);
    if finished.is_err() {
        let child = Child { pid: started.pid, pidfd: started.pidfd };
        parent::end(&child);
        finished?;
        return Err(Fault::new(Kind::Internal, "exec"));
    }
    timings.print();
    Ok(started)
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

fn open_group(record: &Record, below: Option<&str>) -> Result<Handle> {
    let none = Cgroup::default();
    let cgroup = record.cgroup.as_ref().unwrap_or(&none);
    let below = below.map(|path| path.trim_start_matches('/')).filter(|path| !path.is_empty());
    cgroup::open_to_join(cgroup, below)
}

/// The container's filter is for every process in it; its config is in the bundle.
fn container_filter(record: &Record) -> Result<Option<Seccomp>> {
    let path = Path::new(&record.bundle).join("config.json");
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) => return Err(error).within(|| format!("read {path:?}")),
    };
    // The engine's containers name docker's filter instead of spelling it out (`bale_supervisor` puts it in).
    let by_name = record.engine.get("seccomp").and_then(|name| name.as_str()) == Some("default");
    // Most configs have no filter; the whole is only parsed when the word is there.
    let needle = b"\"seccomp\"";
    if !by_name && !text.windows(needle.len()).any(|window| window == needle) {
        return Ok(None);
    }
    let config = RuntimeConfig::parse(&text)
        .map_err(|error| Fault::new(Kind::InvalidInput, format!("{path:?}")).caused_by(error))?;
    if by_name {
        let capabilities = config.process.and_then(|process| process.capabilities).unwrap_or_default();
        return Ok(Some(crate::seccomp::docker_default(&capabilities.bounding)));
    }
    Ok(config.linux.and_then(|linux| linux.seccomp))
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
    group: &Handle,
    init: OwnedFd,
    proc: &OwnedFd,
    root: &OwnedFd,
    record: &Record,
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
    let sources = [init];
    let given = Inherited {
        sources: &sources,
        proc,
        root: Some(root),
        tasks: group.tasks_fds(),
        parent: &theirs,
        fifos: None,
        stdio: stdio.as_ref(),
        console: match &options.stdio {
            Stdio::ConsoleSocket(socket) => Some(socket),
            _ => None,
        },
        preserve_fds: options.preserve_fds,
    };
    let how = process::Clone { flags: 0, cgroup: group.into_cgroup_fd() };
    let keep = kept_descriptors(&given, &plan.ops);
    let child = process::clone(how, || match process::close_all_but(3 + given.preserve_fds, &keep) {
        Ok(()) => init::run(&plan.ops, &given, &plan.program, &plan.filter),
        Err(_) => 1,
    })?;
    drop(theirs);
    let answers = Answers {
        id_maps: None,
        limits: &[],
        hooks: &|_| Ok(()),
        unit: &|_| Ok(()),
        listener: &|child, fd| send_listener(record, child, &fd),
    };
    let program = options.process.args.first().map_or("", String::as_str);
    match parent::follow(&ours, &child, &plan.ops, program, &answers) {
        Ok(progress) => {
            let program = match progress.moved {
                // The first process ends once it has told of the second.
                Some(moved) => {
                    process::wait(&child.pidfd)?;
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

/// What the child needs: nothing else of this process's descriptors is open in it.
fn kept_descriptors(given: &Inherited<'_>, ops: &[Op]) -> Vec<RawFd> {
    let writes = ops.iter().any(|op| matches!(op, Op::WriteSelf { .. } | Op::OpenLabel { .. }));
    let mut keep: Vec<RawFd> = given.sources.iter().chain(given.tasks).map(AsRawFd::as_raw_fd).collect();
    keep.extend(given.root.into_iter().chain(given.console).map(AsRawFd::as_raw_fd));
    keep.extend(given.stdio.into_iter().flatten().map(AsRawFd::as_raw_fd));
    keep.extend(writes.then(|| given.proc.as_raw_fd()));
    keep.push(given.parent.as_raw_fd());
    keep
}

fn send_listener(record: &Record, _child: &Child, fd: &OwnedFd) -> Result<()> {
    let words = format!(
        "container {}: exec under a notifying seccomp filter (listener {})",
        record.id,
        fd.as_raw_fd()
    );
    Err(Fault::new(Kind::Unsupported, words))
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
