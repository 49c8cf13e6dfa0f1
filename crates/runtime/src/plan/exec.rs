//! Decisions about a process in a running container.

use std::os::unix::ffi::OsStrExt;

use bale_fault::Result;
use bale_spec::runtime::{NamespaceKind, Process};

use super::op::{Op, Src};
use super::{Facts, c_string, invalid, label, open_label, process};
use crate::init::{Filter, Program};

/// What [`exec`] needs to know.
#[derive(Debug)]
pub struct ExecChoices<'a> {
    /// Container id.
    pub id: &'a str,
    /// The cgroup namespace to join once in the cgroups.
    pub cgroup_namespace: bool,
    /// The container has a pid namespace.
    pub pid_namespace: bool,
    /// There are v1 cgroups to join.
    pub join_cgroups: bool,
    /// The container has a user namespace.
    pub user_namespace: bool,
    /// Given descriptors become the standard streams.
    pub place_stdio: bool,
    /// No session keyring.
    pub no_new_keyring: bool,
    /// Execution domain.
    pub personality: Option<u64>,
    /// NUMA policy.
    pub memory_policy: Option<&'a bale_spec::runtime::MemoryPolicy>,
    /// `tasks` files of resctrl groups to join: sources 1 and on.
    pub groups: &'a [std::path::PathBuf],
    /// The container's filter.
    pub filter: Option<Filter>,
}

/// What a process in a running container is made by.
#[derive(Debug)]
pub struct ExecPlan {
    /// Done by the child, in order. Source 0 is a pidfd of init.
    pub ops: Vec<Op>,
    /// The program.
    pub program: Program,
    /// The filter.
    pub filter: Filter,
}

/// Decides about a process in a running container.
///
/// # Errors
/// As [`Plan::new`].
pub fn exec(process: &Process, choices: ExecChoices<'_>, facts: &Facts) -> Result<ExecPlan> {
    if !process.cwd.starts_with('/') {
        return Err(invalid("process.cwd", &format!("{:?} is not an absolute path", process.cwd)));
    }
    let mut ops = Vec::new();
    let affinity = process.exec_cpu_affinity.as_ref();
    let initial = affinity.and_then(|a| a.initial.as_deref()).filter(|list| !list.is_empty());
    let last = affinity.and_then(|a| a.last.as_deref()).filter(|list| !list.is_empty());
    if let Some(list) = initial {
        ops.push(Op::Affinity(process::bit_list("process.execCPUAffinity.initial", list)?));
    }
    if choices.join_cgroups {
        ops.push(Op::JoinCgroups);
    }
    for (source, path) in (1..).zip(choices.groups) {
        let path = c_string("linux.intelRdt", path.as_os_str().as_bytes())?;
        ops.push(Op::JoinGroup { source: Src(source), path });
    }
    match last {
        Some(list) => ops.push(Op::Affinity(process::bit_list("process.execCPUAffinity.final", list)?)),
        None if initial.is_none() => ops.push(Op::AllProcessors),
        None => {}
    }
    if choices.cgroup_namespace {
        ops.push(Op::Join { source: Src(0), kind: NamespaceKind::Cgroup });
    }
    if choices.pid_namespace {
        // For the process that this one goes on as.
        ops.push(Op::Join { source: Src(0), kind: NamespaceKind::Pid });
    }
    let label = label(process)?;
    if label.is_some() {
        ops.push(open_label(process)?);
    }
    if let Some(score) = process.oom_score_adj {
        let path = c"self/oom_score_adj".to_owned();
        ops.push(Op::WriteSelf { path, value: score.to_string().into_bytes(), lenient: true });
    }
    if choices.user_namespace {
        ops.push(Op::BecomeRoot);
    }
    if process.terminal {
        let size = process.console_size.map(|size| (size.height, size.width));
        ops.push(Op::Terminal { size, console: false, control: false });
    } else if choices.place_stdio {
        ops.push(Op::PlaceStdio);
    }
    if !choices.no_new_keyring {
        ops.push(Op::Keyring(c_string("id", format!("_ses.{}", choices.id))?));
    }
    ops.extend(choices.personality.map(Op::Personality));
    ops.extend(choices.memory_policy.map(process::memory_policy).transpose()?);
    ops.append(&mut process::scheduling(process)?);
    ops.append(&mut process::limits(process)?);
    ops.push(Op::Announce);
    ops.push(Op::OwnStdio { uid: process.user.uid });
    if let Some(value) = label {
        ops.push(Op::WriteLabel { value });
    }
    let filter = choices.filter;
    let listener = filter.as_ref().map(|f| f.flags.contains(bale_sys::seccomp::Flags::NEW_LISTENER));
    ops.append(&mut process::identity_ops(process, facts.capabilities, listener, true));
    let cwd = c_string("process.cwd", process.cwd.as_str())?;
    for op in &mut ops {
        if matches!(op, Op::EnterCwd) {
            *op = Op::Chdir(cwd.clone());
        }
    }
    // What the container sees of this process from here on is what its own processes are.
    let find = ops.iter().position(|op| matches!(op, Op::FindProgram)).unwrap_or(ops.len());
    ops.insert(find, Op::Session { terminal: process.terminal });
    if choices.pid_namespace {
        ops.insert(find, Op::EnterPids);
    }
    if let Some(listener) = listener.filter(|_| process.no_new_privileges) {
        ops.push(Op::Seccomp { listener });
    }
    ops.push(Op::Exec);
    let program = process::program(process, &facts.home, facts.listen_fds)?;
    Ok(ExecPlan { ops, program, filter: filter.unwrap_or_default() })
}
