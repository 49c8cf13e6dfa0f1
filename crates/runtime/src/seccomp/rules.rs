//! Rules as the specification writes them, resolved: actions and operators checked, values ready to compare.

use bale_fault::{Fault, Kind, Result};
use bale_spec::runtime::{Seccomp, SeccompArg, SyscallRule};

const RET_KILL_PROCESS: u32 = 0x8000_0000;
/// The answer to what no table knows: the thread dies.
pub const RET_KILL_THREAD: u32 = 0;
const RET_TRAP: u32 = 0x0003_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_NOTIFY: u32 = 0x7fc0_0000;
const RET_TRACE: u32 = 0x7ff0_0000;
const RET_LOG: u32 = 0x7ffc_0000;
const RET_ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
/// The kernel's `MAX_ERRNO`.
const MAX_ERRNO: u32 = 4095;
/// "No such system call".
pub const RET_ENOSYS: u32 = RET_ERRNO | ENOSYS;

/// Whether an answer lets calls through that the profile does not know; then newer calls need no ENOSYS.
pub const fn is_permissive(answer: u32) -> bool {
    matches!(answer & 0xffff_0000, RET_ALLOW | RET_LOG | RET_TRACE)
}

/// Whether an answer asks a listener.
pub const fn notifies(answer: u32) -> bool {
    answer == RET_NOTIFY
}

/// How an argument is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// `SCMP_CMP_NE`.
    NotEqual,
    /// `SCMP_CMP_LT`.
    Less,
    /// `SCMP_CMP_LE`.
    AtMost,
    /// `SCMP_CMP_EQ`.
    Equal,
    /// `SCMP_CMP_GE`.
    AtLeast,
    /// `SCMP_CMP_GT`.
    Greater,
    /// `SCMP_CMP_MASKED_EQ`, with the mask.
    Masked(u64),
}

/// A condition on an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Which argument, 0 to 5.
    pub index: u32,
    /// How.
    pub compare: Compare,
    /// With what.
    pub value: u64,
}

/// What a rule wants of the calls it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule<'a> {
    /// The calls.
    pub names: &'a [String],
    /// The kernel's answer.
    pub answer: u32,
    /// Sets of conditions: one set must hold; in it, all. One empty set: always.
    pub any_of: Vec<Vec<Condition>>,
}

/// Resolves the rules of a profile.
///
/// # Errors
/// `InvalidInput` with the JSON path.
pub fn resolve(profile: &Seccomp) -> Result<Vec<Rule<'_>>> {
    profile.syscalls.iter().enumerate().map(|(at, rule)| resolve_one(at, rule)).collect()
}

fn resolve_one(at: usize, rule: &SyscallRule) -> Result<Rule<'_>> {
    let path = format!("linux.seccomp.syscalls[{at}]");
    let answer =
        answer(&rule.action, rule.errno_ret, &format!("{path}.action"), &format!("{path}.errnoRet"))?;
    // The child tells its parent the listener's number by write(2), which would then wait for that very listener.
    if notifies(answer) && rule.names.iter().any(|name| name == "write") {
        let words = format!("{path}: SCMP_ACT_NOTIFY cannot be used for the write syscall");
        return Err(Fault::new(Kind::InvalidInput, words));
    }
    let conditions: Vec<Condition> =
        rule.args.iter().enumerate().map(|(n, arg)| condition(arg, &path, n)).collect::<Result<_>>()?;
    let mut uses = [0_u32; 6];
    conditions.iter().for_each(|condition| uses[condition.index as usize] += 1);
    // libseccomp takes an argument once per rule; runc and crun then make each condition a rule of its own, and
    // profiles are written with that in mind.
    let any_of = if uses.iter().any(|&n| n > 1) {
        conditions.iter().map(|condition| vec![*condition]).collect()
    } else {
        vec![conditions]
    };
    Ok(Rule { names: &rule.names, answer, any_of })
}

/// Resolves the default action.
///
/// # Errors
/// `InvalidInput` with the JSON path.
pub fn default_answer(profile: &Seccomp) -> Result<u32> {
    let path = "linux.seccomp.defaultAction";
    let number = "linux.seccomp.defaultErrnoRet";
    let answer = answer(&profile.default_action, profile.default_errno_ret, path, number)?;
    if notifies(answer) {
        return Err(Fault::new(
            Kind::InvalidInput,
            format!("{path}: SCMP_ACT_NOTIFY cannot be used as default action"),
        ));
    }
    Ok(answer)
}

fn answer(action: &str, number: Option<u32>, path: &str, number_path: &str) -> Result<u32> {
    let invalid = |words: String| Err(Fault::new(Kind::InvalidInput, words));
    let base = match action {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => RET_KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => RET_KILL_PROCESS,
        "SCMP_ACT_TRAP" => RET_TRAP,
        "SCMP_ACT_ERRNO" => RET_ERRNO,
        "SCMP_ACT_TRACE" => RET_TRACE,
        "SCMP_ACT_ALLOW" => RET_ALLOW,
        "SCMP_ACT_LOG" => RET_LOG,
        "SCMP_ACT_NOTIFY" => RET_NOTIFY,
        _ => return invalid(format!("{path}: unknown action {action:?}")),
    };
    let largest = if base == RET_ERRNO { MAX_ERRNO } else { 0xffff };
    match number {
        // Docker's profiles carry an errno beside actions that have none; runc passes it over.
        _ if base != RET_ERRNO && base != RET_TRACE => Ok(base),
        None => Ok(base | EPERM),
        Some(number) if number <= largest => Ok(base | number),
        Some(number) => invalid(format!("{number_path}: {number} is above {largest}")),
    }
}

fn condition(arg: &SeccompArg, rule: &str, n: usize) -> Result<Condition> {
    let invalid = |field: &str, words: String| {
        Err(Fault::new(Kind::InvalidInput, format!("{rule}.args[{n}].{field}: {words}")))
    };
    if arg.index > 5 {
        return invalid("index", format!("{} is no argument (0 to 5)", arg.index));
    }
    let compare = match arg.op.as_str() {
        "SCMP_CMP_NE" => Compare::NotEqual,
        "SCMP_CMP_LT" => Compare::Less,
        "SCMP_CMP_LE" => Compare::AtMost,
        "SCMP_CMP_EQ" => Compare::Equal,
        "SCMP_CMP_GE" => Compare::AtLeast,
        "SCMP_CMP_GT" => Compare::Greater,
        "SCMP_CMP_MASKED_EQ" => {
            let value = arg.value_two.unwrap_or(0) & arg.value;
            return Ok(Condition { index: arg.index, compare: Compare::Masked(arg.value), value });
        }
        other => return invalid("op", format!("unknown operator {other:?}")),
    };
    Ok(Condition { index: arg.index, compare, value: arg.value })
}
