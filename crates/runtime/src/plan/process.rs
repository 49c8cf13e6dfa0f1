//! The process: program, environment, identity, limits, scheduling.

use std::ffi::CString;

use bale_fault::{Fault, Kind, Result};
use bale_spec::runtime::{Capabilities, MemoryPolicy, Personality, Process, Scheduler};
use bale_sys::identity::{SchedAttr, capability};
use bale_sys::process::Argv;
use rustix::process::Gid;

use super::op::Op;
use super::{c_string, invalid};
use crate::init::Program;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Resource limits by name and number (asm-generic/resource.h).
const LIMITS: [(&str, i32); 16] = [
    ("RLIMIT_CPU", 0),
    ("RLIMIT_FSIZE", 1),
    ("RLIMIT_DATA", 2),
    ("RLIMIT_STACK", 3),
    ("RLIMIT_CORE", 4),
    ("RLIMIT_RSS", 5),
    ("RLIMIT_NPROC", 6),
    ("RLIMIT_NOFILE", 7),
    ("RLIMIT_MEMLOCK", 8),
    ("RLIMIT_AS", 9),
    ("RLIMIT_LOCKS", 10),
    ("RLIMIT_SIGPENDING", 11),
    ("RLIMIT_MSGQUEUE", 12),
    ("RLIMIT_NICE", 13),
    ("RLIMIT_RTPRIO", 14),
    ("RLIMIT_RTTIME", 15),
];

/// Makes the program: argv, environment (of a name that is there twice the last one holds), and where to look.
pub fn program(process: &Process, home: &str, listen_fds: Option<u32>) -> Result<Program> {
    let Some(name) = process.args.first().filter(|a| !a.is_empty()) else {
        return Err(invalid("process.args", "is empty"));
    };
    let env = environment(process, home, listen_fds)?;
    let path = env.iter().find_map(|e| e.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    let in_path = !name.contains('/');
    let candidates: Result<Vec<CString>> = if in_path {
        let in_dir = |dir: &str| {
            c_string("process.args[0]", format!("{}/{name}", if dir.is_empty() { "." } else { dir }))
        };
        path.split(':').map(in_dir).collect()
    } else {
        Ok(vec![c_string("process.args[0]", name.as_str())?])
    };
    let argv = Argv::new(&process.args).map_err(|_| invalid("process.args", "holds a NUL byte"))?;
    let env = Argv::new(&env).map_err(|_| invalid("process.env", "holds a NUL byte"))?;
    Ok(Program { candidates: candidates?, in_path, argv, env })
}

fn environment(process: &Process, home: &str, listen_fds: Option<u32>) -> Result<Vec<String>> {
    let mut env: Vec<String> = Vec::with_capacity(process.env.len() + 3);
    for (index, entry) in process.env.iter().enumerate() {
        let Some((name, _)) = entry.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(invalid(&format!("process.env[{index}]"), "wants the form NAME=value"));
        };
        let prefix = entry.get(..=name.len()).unwrap_or_default();
        match env.iter_mut().find(|e| e.starts_with(prefix)) {
            Some(earlier) => entry.clone_into(earlier),
            None => env.push(entry.clone()),
        }
    }
    if env.iter().all(|e| e.strip_prefix("HOME=").is_none_or(str::is_empty)) {
        env.retain(|e| !e.starts_with("HOME="));
        env.push(format!("HOME={home}"));
    }
    if let Some(count) = listen_fds {
        env.retain(|e| !e.starts_with("LISTEN_FDS=") && !e.starts_with("LISTEN_PID="));
        env.push(format!("LISTEN_FDS={count}"));
        env.push("LISTEN_PID=1".to_owned());
    }
    Ok(env)
}

/// Tells whether HOME has to be looked up.
#[must_use]
pub fn wants_home(process: &Process) -> bool {
    process.env.iter().rev().find_map(|e| e.strip_prefix("HOME=")).is_none_or(str::is_empty)
}

/// Finds the home directory of `uid` in the text of a passwd file; `/` when it has none.
#[must_use]
pub fn home_of(passwd: &str, uid: u32) -> String {
    let line = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let mut homes = line.filter(|f| f.len() >= 6 && f[2].parse() == Ok(uid)).map(|f| f[5].to_owned());
    homes.next().filter(|home| !home.is_empty()).unwrap_or_else(|| "/".to_owned())
}

/// Sets of capabilities, a bit each. Unknown names are passed over, as the specification wants what cannot be
/// granted to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sets {
    bounding: u64,
    effective: u64,
    inheritable: u64,
    permitted: u64,
    ambient: u64,
}

impl Sets {
    /// Reads the names; `have` is what this process has, beyond which nothing can be given.
    #[must_use]
    pub fn read(capabilities: Option<&Capabilities>, have: u64) -> Self {
        let Some(names) = capabilities else { return Self::default() };
        let set = |names: &[String]| {
            names.iter().filter_map(|n| capability(n)).fold(0, |set, n| set | 1 << n) & have
        };
        Self {
            bounding: set(&names.bounding),
            effective: set(&names.effective),
            inheritable: set(&names.inheritable),
            permitted: set(&names.permitted),
            ambient: set(&names.ambient),
        }
    }
}

/// The operations that turn init into the user's process: ids, capabilities, filter, directory, program.
pub fn identity_ops(process: &Process, have: u64, filter: Option<bool>, groups_allowed: bool) -> Vec<Op> {
    let mut ops = Vec::new();
    let user = &process.user;
    let sets = Sets::read(process.capabilities.as_ref(), have);
    if process.no_new_privileges {
        ops.push(Op::NoNewPrivileges);
    }
    // Without no_new_privs the filter needs CAP_SYS_ADMIN, which goes next.
    let early = filter.filter(|_| !process.no_new_privileges);
    if let Some(listener) = early {
        ops.push(Op::Seccomp { listener });
    }
    ops.push(Op::DropBounding(!sets.bounding & ((1 << 41) - 1)));
    let groups = user.additional_gids.iter().map(|&gid| Gid::from_raw(gid)).collect();
    ops.push(Op::Ids { uid: user.uid, gid: user.gid, groups: groups_allowed.then_some(groups) });
    ops.push(Op::Capabilities {
        effective: sets.effective & sets.permitted,
        permitted: sets.permitted,
        inheritable: sets.inheritable,
        ambient: sets.ambient,
    });
    ops.push(Op::EnterCwd);
    ops.push(Op::Umask(user.umask.unwrap_or(0o022)));
    ops.push(Op::FindProgram);
    ops
}

/// The limits of a process.
pub fn limits(process: &Process) -> Result<Vec<Op>> {
    let mut ops: Vec<Op> = Vec::new();
    for (index, limit) in process.rlimits.iter().enumerate() {
        let path = format!("process.rlimits[{index}]");
        let Some((name, resource)) = LIMITS.iter().find(|(name, _)| *name == limit.kind) else {
            return Err(invalid(&format!("{path}.type"), &format!("{:?} is no resource limit", limit.kind)));
        };
        if process.rlimits[..index].iter().any(|earlier| earlier.kind == limit.kind) {
            return Err(invalid(&path, &format!("{name} is there twice")));
        }
        if limit.soft > limit.hard {
            return Err(invalid(&path, &format!("soft {} is above hard {}", limit.soft, limit.hard)));
        }
        ops.push(Op::Limit {
            resource: *resource,
            name: limit.kind.clone(),
            soft: limit.soft,
            hard: limit.hard,
        });
    }
    Ok(ops)
}

/// Scheduler and I/O priority.
pub fn scheduling(process: &Process) -> Result<Vec<Op>> {
    let mut ops = Vec::new();
    if let Some(scheduler) = &process.scheduler {
        ops.push(Op::Scheduler(sched_attr(scheduler)?));
    }
    if let Some(priority) = &process.io_priority {
        let class = match priority.class.as_str() {
            "IOPRIO_CLASS_RT" => 1,
            "IOPRIO_CLASS_BE" => 2,
            "IOPRIO_CLASS_IDLE" => 3,
            other => return Err(invalid("process.ioPriority.class", &format!("{other:?} is no class"))),
        };
        if !(0..=7).contains(&priority.priority) {
            return Err(invalid("process.ioPriority.priority", "wants 0 to 7"));
        }
        ops.push(Op::IoPriority { class, level: priority.priority });
    }
    Ok(ops)
}

/// Refuses what the policy does not have (as runc does; the kernel passes some of it over).
fn check_scheduler(scheduler: &Scheduler) -> Result<()> {
    let policy = scheduler.policy.as_str();
    let refuse = |field: &str, words: &str| Err(invalid(&format!("process.scheduler.{field}"), words));
    if matches!(policy, "SCHED_OTHER" | "SCHED_BATCH") && !(-20..=19).contains(&scheduler.nice.unwrap_or(0)) {
        return refuse("nice", "is not between -20 and 19");
    }
    if scheduler.priority.unwrap_or(0) != 0 && !matches!(policy, "SCHED_FIFO" | "SCHED_RR") {
        return refuse("priority", "is only for SCHED_FIFO and SCHED_RR");
    }
    let deadline =
        [("runtime", scheduler.runtime), ("deadline", scheduler.deadline), ("period", scheduler.period)];
    match deadline.iter().find(|(_, value)| value.unwrap_or(0) != 0) {
        Some((field, _)) if policy != "SCHED_DEADLINE" => refuse(field, "is only for SCHED_DEADLINE"),
        _ => Ok(()),
    }
}

fn sched_attr(scheduler: &Scheduler) -> Result<SchedAttr> {
    let policy = match scheduler.policy.as_str() {
        "SCHED_OTHER" => 0,
        "SCHED_FIFO" => 1,
        "SCHED_RR" => 2,
        "SCHED_BATCH" => 3,
        "SCHED_ISO" => 4,
        "SCHED_IDLE" => 5,
        "SCHED_DEADLINE" => 6,
        other => return Err(invalid("process.scheduler.policy", &format!("{other:?} is no policy"))),
    };
    let mut flags = 0_u64;
    for name in &scheduler.flags {
        flags |= match name.as_str() {
            "SCHED_FLAG_RESET_ON_FORK" => 0x1,
            "SCHED_FLAG_RECLAIM" => 0x2,
            "SCHED_FLAG_DL_OVERRUN" => 0x4,
            "SCHED_FLAG_KEEP_POLICY" => 0x8,
            "SCHED_FLAG_KEEP_PARAMS" => 0x10,
            "SCHED_FLAG_UTIL_CLAMP_MIN" => 0x20,
            "SCHED_FLAG_UTIL_CLAMP_MAX" => 0x40,
            other => return Err(invalid("process.scheduler.flags", &format!("{other:?} is no flag"))),
        };
    }
    check_scheduler(scheduler)?;
    let priority = u32::try_from(scheduler.priority.unwrap_or(0))
        .map_err(|_| invalid("process.scheduler.priority", "is negative"))?;
    Ok(SchedAttr {
        size: 48,
        policy,
        flags,
        nice: scheduler.nice.unwrap_or(0),
        priority,
        runtime: scheduler.runtime.unwrap_or(0),
        deadline: scheduler.deadline.unwrap_or(0),
        period: scheduler.period.unwrap_or(0),
    })
}

/// Flags of personality(2) by the kernel's names; the specification names none.
const PERSONALITY_FLAGS: [(&str, u64); 11] = [
    ("UNAME26", 0x002_0000),
    ("ADDR_NO_RANDOMIZE", 0x004_0000),
    ("FDPIC_FUNCPTRS", 0x008_0000),
    ("MMAP_PAGE_ZERO", 0x010_0000),
    ("ADDR_COMPAT_LAYOUT", 0x020_0000),
    ("READ_IMPLIES_EXEC", 0x040_0000),
    ("ADDR_LIMIT_32BIT", 0x080_0000),
    ("SHORT_INODE", 0x100_0000),
    ("WHOLE_SECONDS", 0x200_0000),
    ("STICKY_TIMEOUTS", 0x400_0000),
    ("ADDR_LIMIT_3GB", 0x800_0000),
];

/// Reads an execution domain.
pub fn personality(personality: &Personality) -> Result<u64> {
    let mut value = match personality.domain.as_str() {
        "LINUX" => 0,
        "LINUX32" => 8,
        other => {
            let words = format!("{other:?} is neither LINUX nor LINUX32");
            return Err(invalid("linux.personality.domain", &words));
        }
    };
    for (index, flag) in personality.flags.iter().enumerate() {
        let known = PERSONALITY_FLAGS.iter().find(|(name, _)| name == flag);
        let unknown =
            || invalid(&format!("linux.personality.flags[{index}]"), &format!("{flag:?} is no flag"));
        value |= known.ok_or_else(unknown)?.1;
    }
    Ok(value)
}

/// The NUMA policy.
pub fn memory_policy(policy: &MemoryPolicy) -> Result<Op> {
    let mut mode = match policy.mode.as_str() {
        "MPOL_DEFAULT" => 0,
        "MPOL_PREFERRED" => 1,
        "MPOL_BIND" => 2,
        "MPOL_INTERLEAVE" => 3,
        "MPOL_LOCAL" => 4,
        "MPOL_PREFERRED_MANY" => 5,
        "MPOL_WEIGHTED_INTERLEAVE" => 6,
        other => return Err(invalid("linux.memoryPolicy.mode", &format!("{other:?} is no mode"))),
    };
    for flag in &policy.flags {
        mode |= match flag.as_str() {
            "MPOL_F_STATIC_NODES" => 1 << 15,
            "MPOL_F_RELATIVE_NODES" => 1 << 14,
            "MPOL_F_NUMA_BALANCING" => 1 << 13,
            other => return Err(invalid("linux.memoryPolicy.flags", &format!("{other:?} is no flag"))),
        };
    }
    let nodes = if policy.nodes.is_empty() {
        Vec::new()
    } else {
        bit_list("linux.memoryPolicy.nodes", &policy.nodes)?
    };
    let count: u32 = nodes.iter().map(|word| word.count_ones()).sum();
    let words = match policy.mode.as_str() {
        "MPOL_DEFAULT" | "MPOL_LOCAL" if count > 0 => "takes no nodes",
        "MPOL_BIND" | "MPOL_INTERLEAVE" | "MPOL_PREFERRED_MANY" | "MPOL_WEIGHTED_INTERLEAVE"
            if count == 0 =>
        {
            "needs at least one node"
        }
        _ => return Ok(Op::MemoryPolicy { mode, nodes }),
    };
    Err(invalid("linux.memoryPolicy.nodes", &format!("{} {words}", policy.mode)))
}

/// Reads a list such as `0-3,7` into bits.
///
/// # Errors
/// `InvalidInput` for what is no list, or a number above 8191.
pub fn bit_list(path: &str, list: &str) -> Result<Vec<u64>> {
    let bad =
        || Fault::new(Kind::InvalidInput, format!("config.json: {path}: {list:?} is no list such as 0-3,7"));
    let mut bits: Vec<u64> = Vec::new();
    for part in list.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) =
            (first.parse().map_err(|_| bad())?, last.parse().map_err(|_| bad())?);
        if first > last || last > 8191 {
            return Err(bad());
        }
        for number in first..=last {
            if bits.len() <= number / 64 {
                bits.resize(number / 64 + 1, 0);
            }
            bits[number / 64] |= 1 << (number % 64);
        }
    }
    if bits.is_empty() { Err(bad()) } else { Ok(bits) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_become_bits() {
        assert_eq!(bit_list("x", "0-2,65").unwrap(), [7, 2]);
        for bad in ["", "3-1", "a", "9000", "1-"] {
            assert!(bit_list("x", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_last_of_a_name_holds_and_home_is_filled_in() {
        let process = Process {
            args: vec!["sh".to_owned()],
            env: ["A=1", "PATH=/bin:/x", "A=2", "HOME="].map(ToOwned::to_owned).to_vec(),
            ..Process::default()
        };
        let program = program(&process, "/root", None).unwrap();
        let env: Vec<_> = program.env.strings().iter().map(|s| s.to_str().unwrap()).collect();
        assert_eq!(env, ["A=2", "PATH=/bin:/x", "HOME=/root"]);
        assert_eq!(program.candidates, [c"/bin/sh".to_owned(), c"/x/sh".to_owned()]);
    }

    #[test]
    fn homes_are_found_by_number() {
        let passwd = "root:x:0:0::/root:/bin/sh\n1000:x:0:0::/evil:/bin/sh\nu:x:1000:1000::/home/u:/bin/sh\n";
        assert_eq!(home_of(passwd, 1000), "/home/u");
        assert_eq!(home_of(passwd, 7), "/");
    }
}
