//! Rules of device access: `devices.allow` and `devices.deny` on v1, an eBPF program on v2.
//!
//! A container starts with no access at all; the config's rules follow in order, then what every container may do.
//! Later rules win. v1 cannot take a part out of a wildcard, which is refused there instead of silently ignored; the
//! program of v2 can.

use bale_fault::{Context, Fault, Kind, Result};
use bale_spec::runtime::DeviceRule;
use bale_sys::bpf::{self, Instruction};

use super::group::Group;

/// Which devices a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// All there are; numbers and access do not matter then.
    All,
    /// Character devices.
    Char,
    /// Block devices.
    Block,
}

/// Reading, of [`Rule::access`].
const READ: u8 = 1 << 1;
/// Writing, of [`Rule::access`].
const WRITE: u8 = 1 << 2;
/// Making a node, of [`Rule::access`].
const MKNOD: u8 = 1;

/// A rule, resolved. The bits of `access` are the kernel's `BPF_DEVCG_ACC_…`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    allow: bool,
    kind: DeviceKind,
    major: Option<u32>,
    minor: Option<u32>,
    access: u8,
}

/// What every container may do, in runc as well: make any node, and use null, zero, full, random, urandom, tty,
/// the terminals of devpts, ptmx, and tun.
const DEFAULT: [Rule; 11] = [
    rule(DeviceKind::Char, None, None, MKNOD),
    rule(DeviceKind::Block, None, None, MKNOD),
    char(1, Some(3)),
    char(1, Some(8)),
    char(1, Some(7)),
    char(5, Some(0)),
    char(1, Some(5)),
    char(1, Some(9)),
    char(136, None),
    char(5, Some(2)),
    // Left out once by runc, and put back: too many VPN containers had come to rely on it.
    char(10, Some(200)),
];

const fn rule(kind: DeviceKind, major: Option<u32>, minor: Option<u32>, access: u8) -> Rule {
    Rule { allow: true, kind, major, minor, access }
}

const fn char(major: u32, minor: Option<u32>) -> Rule {
    rule(DeviceKind::Char, Some(major), minor, READ | WRITE | MKNOD)
}

/// Resolves the config's rules and adds the default ones.
///
/// # Errors
/// `InvalidInput` with the JSON path.
pub fn resolve(rules: &[DeviceRule]) -> Result<Vec<Rule>> {
    let own = rules.iter().enumerate().map(|(at, rule)| resolve_one(at, rule));
    own.chain(DEFAULT.into_iter().map(Ok)).collect()
}

fn resolve_one(at: usize, rule: &DeviceRule) -> Result<Rule> {
    let invalid = |field: &str, words: String| {
        Err(Fault::new(Kind::InvalidInput, format!("linux.resources.devices[{at}].{field}: {words}")))
    };
    let kind = match rule.kind.as_deref() {
        None | Some("a" | "") => DeviceKind::All,
        Some("c") => DeviceKind::Char,
        Some("b") => DeviceKind::Block,
        Some(other) => return invalid("type", format!("{other:?} is none of \"a\", \"b\", \"c\"")),
    };
    let number = |field: &str, value: Option<i64>| match value {
        None | Some(-1) => Ok(None),
        Some(value) => match u32::try_from(value) {
            Ok(value) => Ok(Some(value)),
            Err(_) => invalid(field, format!("{value} is no device number")).map(|_: Rule| None),
        },
    };
    let (major, minor) = (number("major", rule.major)?, number("minor", rule.minor)?);
    let mut access = 0;
    for letter in rule.access.as_deref().unwrap_or_default().chars() {
        access |= match letter {
            'r' => READ,
            'w' => WRITE,
            'm' => MKNOD,
            other => return invalid("access", format!("{other:?} is none of \"r\", \"w\", \"m\"")),
        };
    }
    if access == 0 {
        return invalid("access", "field cannot be empty".to_owned());
    }
    Ok(Rule { allow: rule.allow, kind, major, minor, access })
}

/// A rule as v1 writes it, such as `c 1:3 rwm`.
fn line(rule: &Rule) -> String {
    let kind = match rule.kind {
        DeviceKind::All => return "a".to_owned(),
        DeviceKind::Char => 'c',
        DeviceKind::Block => 'b',
    };
    let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
    let letters = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')].into_iter();
    let access: String =
        letters.filter(|(bit, _)| rule.access & bit != 0).map(|(_, letter)| letter).collect();
    format!("{kind} {}:{} {access}", number(rule.major), number(rule.minor))
}

/// Which file a v1 rule goes to, and the text.
type Line = (&'static str, String);

/// Returns what to write on v1, in order.
///
/// # Errors
/// `Unsupported` for a rule that v1 would silently ignore.
pub fn lines(rules: &[Rule]) -> Result<Vec<Line>> {
    // Everything before the last rule about all devices is of no consequence.
    let last = rules.iter().rposition(|rule| rule.kind == DeviceKind::All);
    let allowing = last.is_some_and(|at| rules[at].allow);
    let rest = &rules[last.map_or(0, |at| at + 1)..];
    let mut lines = vec![(if allowing { "devices.allow" } else { "devices.deny" }, "a".to_owned())];
    for (at, rule) in rest.iter().enumerate() {
        // A rule that takes away from what single rules added must meet these rules exactly.
        let is_wider = |other: &&Rule| other.allow != allowing && cuts(rule, other);
        if rule.allow == allowing
            && let Some(wider) = rest[..at].iter().find(is_wider)
        {
            let (narrow, wide) = (line(rule), line(wider));
            let words = format!(
                "linux.resources.devices: cgroup v1 cannot take {narrow:?} out of {wide:?} \
                 (cannot punch hole in existing wildcard rule)"
            );
            return Err(Fault::new(Kind::Unsupported, words).hint("name the devices one by one instead"));
        }
        lines.push((if rule.allow { "devices.allow" } else { "devices.deny" }, line(rule)));
    }
    Ok(lines)
}

/// Tells whether `rule` is a part of the wildcard `wider`.
fn cuts(rule: &Rule, wider: &Rule) -> bool {
    let covers = |wide: Option<u32>, narrow: Option<u32>| wide.is_none() || wide == narrow;
    rule.kind == wider.kind
        && (rule.major, rule.minor) != (wider.major, wider.minor)
        && covers(wider.major, rule.major)
        && covers(wider.minor, rule.minor)
        && rule.access & wider.access != 0
}

/// Writes the rules to a v1 cgroup.
///
/// # Errors
/// As [`lines`], and the failed write.
pub fn apply_v1(group: &Group, rules: &[Rule]) -> Result<()> {
    for (file, text) in lines(rules)? {
        let words = || format!("linux.resources.devices: write {text:?} to {file} in {:?}", group.path());
        let hint = "a container inside a container has no more devices than the outer one";
        group.write(file, &text).map_err(|error| Fault::from(error).hint(hint)).within(words)?;
    }
    Ok(())
}

// eBPF registers and operations (linux/bpf.h).
const R0: u8 = 0;
const R1: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const LOAD_WORD: u8 = 0x61; // LDX | MEM | W
const MOVE: u8 = 0xb4; // ALU | MOV | K
const MOVE_REGISTER: u8 = 0xbc; // ALU | MOV | X
const AND: u8 = 0x54; // ALU | AND | K
const SHIFT_RIGHT: u8 = 0x74; // ALU | RSH | K
const JUMP_UNEQUAL: u8 = 0x56; // JMP32 | JNE | K
const JUMP_EQUAL: u8 = 0x16; // JMP32 | JEQ | K
const EXIT: u8 = 0x95; // JMP | EXIT
const KIND_BLOCK: i32 = 1;
const KIND_CHAR: i32 = 2;

const fn instruction(code: u8, registers: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers, offset, immediate }
}

/// Returns the program that decides by the rules: from the last to the first, until each asked access was allowed or
/// one was denied.
#[must_use]
pub fn program(rules: &[Rule]) -> Vec<Instruction> {
    // struct bpf_cgroup_dev_ctx: access << 16 | kind, major, minor.
    let mut program = vec![
        instruction(LOAD_WORD, KIND | R1 << 4, 0, 0),
        instruction(MOVE_REGISTER, ACCESS | KIND << 4, 0, 0),
        instruction(AND, KIND, 0, 0xffff),
        instruction(SHIFT_RIGHT, ACCESS, 0, 16),
        instruction(LOAD_WORD, MAJOR | R1 << 4, 4, 0),
        instruction(LOAD_WORD, MINOR | R1 << 4, 8, 0),
    ];
    for rule in rules.iter().rev() {
        if rule.kind == DeviceKind::All {
            program.extend(decide(rule.allow));
            return program;
        }
        program.extend(block(rule));
    }
    program.extend(decide(false));
    program
}

fn decide(allow: bool) -> [Instruction; 2] {
    [instruction(MOVE, R0, 0, i32::from(allow)), instruction(EXIT, 0, 0, 0)]
}

fn block(rule: &Rule) -> Vec<Instruction> {
    let kind = if rule.kind == DeviceKind::Block { KIND_BLOCK } else { KIND_CHAR };
    let mut tests = vec![(KIND, kind)];
    tests.extend(rule.major.map(|n| (MAJOR, n.cast_signed())));
    tests.extend(rule.minor.map(|n| (MINOR, n.cast_signed())));
    let access = i32::from(rule.access);
    let mut body = if rule.allow {
        // What is allowed here need not be asked further; when nothing is left, the answer is yes.
        vec![instruction(AND, ACCESS, 0, !access), instruction(JUMP_UNEQUAL, ACCESS, 2, 0)]
    } else {
        // What is denied here ends it: skip the verdict when no denied bit is asked.
        vec![
            instruction(MOVE_REGISTER, R0 | ACCESS << 4, 0, 0),
            instruction(AND, R0, 0, access),
            instruction(JUMP_EQUAL, R0, 2, 0),
        ]
    };
    body.extend(decide(rule.allow));
    let mut block = Vec::with_capacity(tests.len() + body.len());
    for (at, (register, value)) in tests.iter().enumerate() {
        // To the end of the block: the tests after this one, and the body.
        let skip = tests.len() - at - 1 + body.len();
        block.push(instruction(JUMP_UNEQUAL, *register, i16::try_from(skip).unwrap_or(i16::MAX), *value));
    }
    block.extend(body);
    block
}

/// Puts the program on a v2 cgroup, in place of those that are there.
///
/// # Errors
/// `Unsupported` and `PermissionDenied` as bpf(2) answers.
pub fn apply_v2(group: &Group, rules: &[Rule]) -> Result<()> {
    let words = || format!("linux.resources.devices: filter devices of {:?}", group.path());
    let hint =
        "device rules on cgroup v2 need bpf(2): run as root, and not within a container that forbids it";
    replace(group, &program(rules)).map_err(|error| Fault::from(error).hint(hint)).within(words)
}

fn replace(group: &Group, program: &[Instruction]) -> bale_sys::Result<()> {
    // A program that may not be opened (systemd's, under an LSM) can only restrict further: it stays.
    let old: Vec<_> =
        bpf::device_programs(group)?.into_iter().filter_map(|id| bpf::open_program(id).ok()).collect();
    let new = bpf::load_device_program(program)?;
    if let [one] = old.as_slice() {
        return bpf::attach_device_program(group, &new, Some(std::os::fd::AsFd::as_fd(one)));
    }
    bpf::attach_device_program(group, &new, None)?;
    old.iter().try_for_each(|program| bpf::detach_device_program(group, program))
}

/// What the rules should say and what the program says, for tests and fuzzing.
#[cfg(any(test, fuzzing))]
pub mod simulate {
    use super::*;

    /// Runs a device program.
    pub fn run(program: &[Instruction], kind: u32, access: u32, major: u32, minor: u32) -> u32 {
        let context = [access << 16 | kind, major, minor];
        let (mut registers, mut at) = ([0_u32; 11], 0_usize);
        loop {
            let Instruction { code, registers: r, offset, immediate } = program[at];
            let (to, from) = (usize::from(r & 15), usize::from(r >> 4));
            let k = immediate.cast_unsigned();
            at += 1;
            match code {
                LOAD_WORD => registers[to] = context[usize::try_from(offset).expect("forwards") / 4],
                MOVE => registers[to] = k,
                MOVE_REGISTER => registers[to] = registers[from],
                AND => registers[to] &= k,
                SHIFT_RIGHT => registers[to] >>= k,
                JUMP_UNEQUAL if registers[to] != k => at += usize::try_from(offset).expect("forwards"),
                JUMP_EQUAL if registers[to] == k => at += usize::try_from(offset).expect("forwards"),
                JUMP_UNEQUAL | JUMP_EQUAL => {}
                EXIT => return registers[0],
                _ => panic!("unknown instruction {code:#x}"),
            }
        }
    }

    /// Decides without a program: each asked bit by the last rule that is about it.
    pub fn by_the_words(rules: &[Rule], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let is_about = |rule: &Rule, bit: u32| {
            let of_kind = match rule.kind {
                DeviceKind::All => return true,
                DeviceKind::Char => kind == KIND_CHAR.cast_unsigned(),
                DeviceKind::Block => kind == KIND_BLOCK.cast_unsigned(),
            };
            let number = |wanted: Option<u32>, asked| wanted.is_none_or(|n| n == asked);
            of_kind
                && number(rule.major, major)
                && number(rule.minor, minor)
                && u32::from(rule.access) & bit != 0
        };
        let allowed =
            |bit: u32| rules.iter().rev().find(|rule| is_about(rule, bit)).is_some_and(|rule| rule.allow);
        [1, 2, 4].into_iter().filter(|bit| access & bit != 0).all(allowed)
    }
}

#[cfg(test)]
mod tests {
    use super::simulate::run;
    use super::*;

    fn from(text: &str) -> DeviceRule {
        let words: Vec<&str> = text.split(' ').collect();
        let number = |n: usize| words[2].split(':').nth(n).and_then(|n| n.parse().ok());
        DeviceRule {
            allow: words[0] == "allow",
            kind: Some(words[1].to_owned()),
            major: number(0),
            minor: number(1),
            access: Some(words[3].to_owned()),
        }
    }

    #[test]
    fn the_last_rule_wins_bit_by_bit() {
        let rules =
            ["allow a -:- rwm", "deny a -:- rwm", "allow c 10:- rw", "deny c 10:5 w", "allow b 8:0 r"];
        let rules = resolve(&rules.map(from)).unwrap();
        let program = program(&rules);
        let (r, w, m) = (u32::from(READ), u32::from(WRITE), u32::from(MKNOD));
        let cases = [
            ((2, r | w, 10, 4), 1),
            ((2, r, 10, 5), 1),
            ((2, w, 10, 5), 0),
            ((2, r | w, 10, 5), 0),
            ((2, r | w | m, 10, 4), 1), // made by the default rule, used by the config's
            ((1, r, 8, 0), 1),
            ((1, w, 8, 0), 0),
            ((1, m, 9, 9), 1),
            ((2, r | w, 1, 3), 1),
            ((2, r | w, 136, 77), 1),
            ((2, r, 1, 1), 0),
        ];
        for ((kind, access, major, minor), verdict) in cases {
            assert_eq!(run(&program, kind, access, major, minor), verdict, "{kind} {access} {major}:{minor}");
        }
        let open = resolve(&[from("allow a -:- rwm"), from("deny c 1:3 r")]).unwrap();
        // The default rules stand last, as in runc: they cannot be denied.
        assert_eq!(run(&super::program(&open), 2, r, 1, 3), 1);
        assert_eq!(run(&super::program(&open), 1, r | w, 99, 99), 1);
    }

    #[test]
    fn v1_lines_and_what_v1_cannot_do() {
        let rules =
            resolve(&[from("deny a -:- rwm"), from("allow c 10:229 rwm"), from("deny c 10:229 m")]).unwrap();
        let lines = lines(&rules).unwrap();
        let text = |n: usize| format!("{} {}", lines[n].0, lines[n].1);
        assert_eq!(text(0), "devices.deny a");
        assert_eq!(
            (text(1), text(2)),
            ("devices.allow c 10:229 rwm".into(), "devices.deny c 10:229 m".into())
        );
        assert_eq!((text(3), lines.len()), ("devices.allow c *:* m".into(), 14));
        let hole = [rule(DeviceKind::Char, Some(10), None, READ), Rule { allow: false, ..char(10, Some(5)) }];
        assert_eq!(super::lines(&hole).unwrap_err().kind(), Kind::Unsupported);
    }

    #[test]
    fn bad_rules_are_named() {
        for (rule, field) in [
            (DeviceRule { kind: Some("x".into()), ..from("allow c 1:1 r") }, "[0].type"),
            (DeviceRule { major: Some(1 << 32), ..from("allow c 1:1 r") }, "[0].major"),
            (DeviceRule { access: None, ..from("allow c 1:1 r") }, "[0].access"),
            (DeviceRule { access: Some("rx".into()), ..from("allow c 1:1 r") }, "[0].access"),
        ] {
            let found = resolve(&[rule]).unwrap_err().chain();
            assert!(found.starts_with(&format!("linux.resources.devices{field}: ")), "{found}");
        }
    }
}
