//! System call filters: the profile of a config becomes a BPF program, without libseccomp.
//!
//! What the kernel pays for at load is the number of instructions (it checks and compiles each, and runs the filter
//! once per call number to fill its bitmap of always-allowed calls). So neighbouring call numbers with one outcome
//! become a range first, and the ranges a binary search; libseccomp writes a comparison per call.
//!
//! The meaning is runc's on libseccomp, where they speak, and tests compare both:
//! - a rule without conditions wins over all with conditions; among equals the first rule of the profile wins;
//! - conditions of one rule must all hold, unless two of them name one argument: then one suffices;
//! - calls newer than the newest one the profile names get `ENOSYS`, unless the default lets them through: a C
//!   library that gets `EPERM` for a call it does not need gives up instead of trying the older one;
//! - architectures that the profile does not name are killed, the native one is always named.
//!
//! x32 calls are looked up in the same ranges as x86_64's below 512, where both have the same calls under the same
//! numbers; a number that only x86_64 has is unknown to x32 and the kernel answers `ENOSYS` whatever the filter says.
//! What is newer than the profile for x86_64 is so for x32, too, below 512; and arguments have 64 bits, where
//! libseccomp looks at 32 (the kernel hands all of them on).

mod arguments;
mod docker;
mod graph;
pub(crate) mod rules;
#[cfg(any(test, fuzzing))]
pub(crate) mod simulate;
mod syscalls;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bale_fault::{Fault, Kind, Result};
use bale_spec::runtime::Seccomp;
use bale_sys::seccomp::{Flags, Instruction};

use arguments::{Conditional, Width};
pub use docker::docker_default;
use graph::{Graph, Id, Test, TooLarge};
use rules::{RET_ENOSYS, RET_KILL_THREAD, Rule};

/// A compiled filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// What [`bale_sys::seccomp::load`] takes; empty when the profile filters nothing, then nothing is to be loaded.
    pub instructions: Vec<Instruction>,
    /// Its flags; `NEW_LISTENER` is among them when some rule notifies.
    pub flags: Flags,
}

impl Program {
    /// Tells whether loading it gives a listener, to be sent to the profile's `listenerPath`.
    #[must_use]
    pub const fn has_listener(&self) -> bool {
        self.flags.contains(Flags::NEW_LISTENER)
    }
}

/// The actions that [`compile`] knows, for `features`.
pub const ACTIONS: [&str; 9] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];
/// The operators that [`compile`] knows, for `features`.
pub const OPERATORS: [&str; 7] = [
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];
/// The architectures that [`compile`] writes code for, for `features`.
pub const ARCHITECTURES: [&str; 3] = ["SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"];
/// The flags that [`compile`] knows, for `features`.
pub const FLAGS: [&str; 4] = [
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];
/// Architectures that exist and never call an x86_64 kernel: named beside ours they need no code.
const FOREIGN: [&str; 18] = [
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_LOONGARCH64",
    "SCMP_ARCH_M68K",
];

// Offsets in `struct seccomp_data` (linux/seccomp.h), and `AUDIT_ARCH_…` (linux/audit.h).
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const AUDIT_X86_64: u32 = 0xc000_003e;
const AUDIT_I386: u32 = 0x4000_0003;
/// The bit of a call number that tells x32, `__X32_SYSCALL_BIT`.
const X32_BIT: u32 = 0x4000_0000;
/// The first number that only x32 has.
const FIRST_X32: u32 = 512;
/// The most conditional rules of one architecture: more do not fit into the kernel's 4096 instructions anyway.
const MOST_CONDITIONAL: usize = 4096;

/// Compiles a profile.
///
/// # Errors
/// `InvalidInput` names the JSON path of what is wrong, or says that the program is too large for the kernel.
pub fn compile(profile: &Seccomp) -> Result<Program> {
    if profile.default_action.is_empty() && profile.syscalls.is_empty() {
        return Ok(Program::default());
    }
    let default = rules::default_answer(profile)?;
    let rules = rules::resolve(profile)?;
    let architectures = Architectures::new(profile)?;
    let flags = flags(profile, &rules)?;
    let rules: Vec<Known<'_>> = rules.iter().map(Known::new).collect();
    let mut compiler =
        Compiler { graph: Graph::default(), rules: &rules, default, newer: newer(profile, default) };
    let root = compiler.root(architectures)?;
    let instructions = compiler.graph.assemble(root).map_err(|TooLarge| too_large())?;
    Ok(Program { instructions, flags })
}

fn too_large() -> Fault {
    let words = "linux.seccomp: the filter needs more instructions than the kernel takes (4096)";
    Fault::new(Kind::InvalidInput, words).hint("use fewer rules with conditions on arguments")
}

/// The answer to calls that are newer than the profile.
fn newer(profile: &Seccomp, default: u32) -> u32 {
    let has_enosys = profile.default_errno_ret == Some(RET_ENOSYS & 0xffff);
    if has_enosys || rules::is_permissive(default) { default } else { RET_ENOSYS }
}

fn flags(profile: &Seccomp, rules: &[Rule<'_>]) -> Result<Flags> {
    // A profile that asks for no flag gets runc's: without SPEC_ALLOW old kernels slow every thread down.
    let mut flags = if profile.flags.is_empty() { Flags::SPEC_ALLOW } else { Flags::default() };
    let mut killable = false;
    for (at, flag) in profile.flags.iter().enumerate() {
        match flag.as_str() {
            // A container's process has one thread when the filter is loaded.
            "SECCOMP_FILTER_FLAG_TSYNC" => {}
            "SECCOMP_FILTER_FLAG_LOG" => flags = flags.union(Flags::LOG),
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => flags = flags.union(Flags::SPEC_ALLOW),
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => killable = true,
            _ => {
                let words = format!("linux.seccomp.flags[{at}]: unknown flag {flag:?}");
                return Err(Fault::new(Kind::InvalidInput, words));
            }
        }
    }
    if rules.iter().any(|rule| rules::notifies(rule.answer)) {
        if profile.listener_path.as_ref().is_none_or(String::is_empty) {
            let words = "linux.seccomp.listenerPath: SCMP_ACT_NOTIFY needs a socket to send the listener to";
            return Err(Fault::new(Kind::InvalidInput, words));
        }
        flags = flags.union(Flags::NEW_LISTENER);
        // The kernel takes this flag only together with a listener.
        if killable {
            flags = flags.union(Flags::WAIT_KILLABLE_RECV);
        }
    }
    Ok(flags)
}

/// What beside x86_64 may call.
#[derive(Clone, Copy, Debug, Default)]
struct Architectures {
    x86: bool,
    x32: bool,
}

impl Architectures {
    fn new(profile: &Seccomp) -> Result<Self> {
        let mut found = Self::default();
        for (at, name) in profile.architectures.iter().enumerate() {
            match name.as_str() {
                "SCMP_ARCH_X86_64" | "SCMP_ARCH_NATIVE" => {}
                "SCMP_ARCH_X86" => found.x86 = true,
                "SCMP_ARCH_X32" => found.x32 = true,
                foreign if FOREIGN.contains(&foreign) => {}
                _ => {
                    let words = format!("linux.seccomp.architectures[{at}]: unknown architecture {name:?}");
                    return Err(Fault::new(Kind::InvalidInput, words));
                }
            }
        }
        Ok(found)
    }
}

/// The rules of one call.
#[derive(Debug, Default)]
struct Call {
    always: Option<u32>,
    conditional: Vec<Conditional>,
}

/// The rules of one architecture by call number, and the largest number that the profile names.
#[derive(Debug, Default)]
struct Calls {
    by_number: BTreeMap<u32, Call>,
    newest: Option<u32>,
    conditional: usize,
}

impl Calls {
    fn add(
        &mut self,
        number: u32,
        rule: &Rule<'_>,
        default: u32,
        adapt: impl Fn(&Conditional) -> Conditional,
    ) {
        self.newest = self.newest.max(Some(number));
        // libseccomp refuses a rule that says what the default says, and runc passes it over: a later rule for the
        // same call counts then.
        if rule.answer == default {
            return;
        }
        let call = self.by_number.entry(number).or_default();
        for conditions in &rule.any_of {
            let adapted = adapt(&(conditions.clone(), rule.answer));
            if adapted.0.is_empty() {
                call.always = call.always.or(Some(rule.answer));
            } else if self.conditional < MOST_CONDITIONAL {
                call.conditional.push(adapted);
                self.conditional += 1;
            }
        }
    }
}

/// A rule with the numbers of its calls; names that no table knows are passed over, as runc does.
struct Known<'a> {
    rule: &'a Rule<'a>,
    numbers: Vec<syscalls::Numbers>,
}

impl<'a> Known<'a> {
    fn new(rule: &'a Rule<'a>) -> Self {
        Self { rule, numbers: rule.names.iter().filter_map(|name| syscalls::find(name)).collect() }
    }
}

struct Compiler<'a> {
    graph: Graph,
    rules: &'a [Known<'a>],
    default: u32,
    newer: u32,
}

impl Compiler<'_> {
    fn root(&mut self, architectures: Architectures) -> Result<Id> {
        let kill = self.graph.ret(RET_KILL_THREAD);
        let other = if architectures.x86 {
            let calls = self.x86_calls()?;
            let decision = self.search(&calls, 0, Width::Word);
            let number = self.graph.load(NUMBER, decision);
            self.graph.branch(Test::Equal, AUDIT_I386, number, kill)
        } else {
            kill
        };
        let native = self.x86_64(architectures.x32)?;
        let number = self.graph.load(NUMBER, native);
        let by_architecture = self.graph.branch(Test::Equal, AUDIT_X86_64, number, other);
        Ok(self.graph.load(ARCHITECTURE, by_architecture))
    }

    fn x86_64(&mut self, with_x32: bool) -> Result<Id> {
        let calls = self.calls(|numbers| numbers.x86_64)?;
        let native = self.search(&calls, 0, Width::Double);
        let foreign = if with_x32 {
            let calls = self.calls(|numbers| numbers.x32)?;
            let own = self.search(&calls, FIRST_X32, Width::Double);
            let split = self.graph.branch(Test::AtLeast, FIRST_X32, own, native);
            self.graph.and(!X32_BIT, split)
        } else {
            // A tracer skips a call by making its number -1; that is no x32 call.
            let skipped = self.graph.ret(self.default);
            let kill = self.graph.ret(RET_KILL_THREAD);
            self.graph.branch(Test::Equal, u32::MAX, skipped, kill)
        };
        Ok(self.graph.branch(Test::AtLeast, X32_BIT, foreign, native))
    }

    fn calls(&self, number: impl Fn(syscalls::Numbers) -> Option<u32>) -> Result<Calls> {
        let mut calls = Calls::default();
        for known in self.rules {
            for number in known.numbers.iter().copied().filter_map(&number) {
                calls.add(number, known.rule, self.default, Clone::clone);
            }
        }
        if calls.conditional >= MOST_CONDITIONAL { Err(too_large()) } else { Ok(calls) }
    }

    fn x86_calls(&self) -> Result<Calls> {
        let mut calls = self.calls(|numbers| numbers.x86)?;
        for Known { rule, .. } in self.rules {
            for (multiplexer, call) in rule.names.iter().filter_map(|name| syscalls::multiplexed(name)) {
                calls.add(multiplexer, rule, self.default, |rule| through_multiplexer(rule, call));
            }
        }
        if calls.conditional >= MOST_CONDITIONAL { Err(too_large()) } else { Ok(calls) }
    }

    /// Decides by the number in the accumulator; numbers below `from` never come here.
    fn search(&mut self, calls: &Calls, from: u32, width: Width) -> Id {
        let default = self.graph.ret(self.default);
        let mut ranges = vec![(0, default)];
        for (&number, call) in calls.by_number.range(from..) {
            let decision = match call.always {
                Some(answer) => self.graph.ret(answer),
                None => arguments::decide(&mut self.graph, &call.conditional, default, width),
            };
            match ranges.last_mut() {
                Some(last) if last.0 == number => last.1 = decision,
                _ => ranges.push((number, decision)),
            }
            ranges.push((number + 1, default));
        }
        // Without any call there is nothing newer than it.
        if let Some(newest) = calls.newest {
            let newer = self.graph.ret(self.newer);
            ranges.retain(|&(start, _)| start <= newest);
            ranges.push((newest + 1, newer));
        }
        self.graph.ranges(&ranges)
    }
}

/// The rule of a call that i386 also reaches through socketcall(2) or ipc(2): the first argument there is the number
/// of the call, so a condition on the call's own first argument cannot be asked (its arguments are in memory).
fn through_multiplexer((conditions, answer): &Conditional, call: u32) -> Conditional {
    let number = rules::Condition { index: 0, compare: rules::Compare::Equal, value: u64::from(call) };
    let others = conditions.iter().filter(|condition| condition.index != 0).copied();
    (std::iter::once(number).chain(others).collect(), *answer)
}
