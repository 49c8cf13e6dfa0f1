//! What a filter should say and what its program says, for tests and fuzzing.

#[cfg(test)]
use std::collections::BTreeSet;

use bale_spec::runtime::Seccomp;
use bale_sys::seccomp::Instruction;

use super::rules::{self, Compare, Rule};
use super::{AUDIT_I386, AUDIT_X86_64, FIRST_X32, X32_BIT, syscalls};

/// What a program is asked about.
#[derive(Clone, Copy, Debug, Default)]
pub struct Data {
    pub number: u32,
    pub architecture: u32,
    pub args: [u64; 6],
}

/// Runs a program as the kernel would; also counts the steps.
pub fn run(program: &[Instruction], data: &Data) -> (u32, usize) {
    let word = |offset: u32| match offset {
        0 => data.number,
        4 => data.architecture,
        8 | 12 => 0,
        _ => {
            let arg = data.args[(offset as usize - 16) / 8];
            if offset.is_multiple_of(8) { arg as u32 } else { (arg >> 32) as u32 }
        }
    };
    let (mut accumulator, mut at, mut steps) = (0_u32, 0_usize, 0);
    loop {
        steps += 1;
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let jump = |condition: bool| usize::from(if condition { jt } else { jf });
        match code {
            0x20 => accumulator = word(k),
            0x54 => accumulator &= k,
            0x05 => at += k as usize,
            0x15 => at += jump(accumulator == k),
            0x25 => at += jump(accumulator > k),
            0x35 => at += jump(accumulator >= k),
            0x45 => at += jump(accumulator & k != 0),
            0x06 => return (k, steps),
            _ => panic!("unknown instruction {code:#x}"),
        }
    }
}

pub const ARCHITECTURES: [(&str, u32, u32); 3] =
    [("x86_64", AUDIT_X86_64, 0), ("x32", AUDIT_X86_64, X32_BIT), ("x86", AUDIT_I386, 0)];

pub fn number(name: &str, architecture: &str) -> Option<u32> {
    let numbers = syscalls::find(name)?;
    match architecture {
        "x86_64" => numbers.x86_64,
        "x32" => numbers.x32,
        _ => numbers.x86,
    }
}

/// The numbers at which both must agree: all of an own table, only the known ones of x32.
#[cfg(test)]
pub fn numbers(architecture: &str) -> BTreeSet<u32> {
    let all = 0..700;
    if architecture != "x32" {
        return all.collect();
    }
    let known: BTreeSet<u32> = syscalls::names().filter_map(|name| number(name, "x32")).collect();
    all.filter(|n| known.contains(n) || *n > 547).collect()
}

/// Whether x32 shares x86_64's ENOSYS here, which stands before x32's own newest call: the module says why.
pub fn is_early(profile: &Seccomp, architecture: &str, plain: u32) -> bool {
    let named = profile.syscalls.iter().flat_map(|rule| &rule.names);
    architecture == "x32"
        && plain < FIRST_X32
        && named.filter_map(|n| number(n, "x86_64")).max().is_some_and(|n| plain > n)
}

/// Decides as the words of the module say, without any program.
pub fn by_the_words(rules: &[Rule<'_>], default: u32, architecture: &str, data: &Data) -> u32 {
    let bits = if architecture == "x86" { u64::from(u32::MAX) } else { u64::MAX };
    let holds = |c: &rules::Condition, without_first: bool| {
        let (arg, value) = (data.args[c.index as usize], c.value & bits);
        without_first && c.index == 0
            || match c.compare {
                Compare::NotEqual => arg != value,
                Compare::Less => arg < value,
                Compare::AtMost => arg <= value,
                Compare::Equal => arg == value,
                Compare::AtLeast => arg >= value,
                Compare::Greater => arg > value,
                Compare::Masked(mask) => arg & mask & bits == value,
            }
    };
    // Whether a name of the rule is this call: no, directly, or through a multiplexer of i386.
    let plain = data.number & !X32_BIT;
    let names = |rule: &Rule<'_>| {
        let direct = rule.names.iter().any(|name| number(name, architecture) == Some(plain));
        let call = (plain, u32::try_from(data.args[0]).unwrap_or(u32::MAX));
        let through =
            architecture == "x86" && rule.names.iter().any(|name| syscalls::multiplexed(name) == Some(call));
        (direct, through)
    };
    let speaking: Vec<_> = rules.iter().filter(|rule| rule.answer != default).collect();
    let always = speaking.iter().find(|rule| names(rule).0 && rule.any_of == [vec![]]);
    let direct = speaking
        .iter()
        .find(|r| names(r).0 && r.any_of.iter().any(|set| set.iter().all(|c| holds(c, false))));
    let through =
        speaking.iter().find(|r| names(r).1 && r.any_of.iter().any(|set| set.iter().all(|c| holds(c, true))));
    always.or(direct).or(through).map_or(default, |rule| rule.answer)
}
