//! The same decisions as libseccomp: live where its helper is given, and from a table it made for Docker's profile.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::process::{Command, Stdio};

use super::*;
use crate::seccomp::rules::{Compare, is_permissive, resolve};
use crate::seccomp::simulate::{ARCHITECTURES, by_the_words, is_early, number, numbers};

/// Runs of call numbers with their answers, all arguments zero, and some calls with arguments: made by libseccomp 2.6.1
/// from `docker_default`, written by
/// `BALE_SECCOMP_ORACLE=<tests/seccomp-oracle> BALE_SECCOMP_ACCEPT=1 cargo test -p bale-runtime libseccomp`.
const DOCKER: &str = include_str!("../testdata/docker-default.txt");
const DOCKER_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/seccomp/testdata/docker-default.txt");

/// libseccomp's numbers of the operators (`enum scmp_compare`).
fn operator(compare: Compare) -> u32 {
    match compare {
        Compare::NotEqual => 1,
        Compare::Less => 2,
        Compare::AtMost => 3,
        Compare::Equal => 4,
        Compare::AtLeast => 5,
        Compare::Greater => 6,
        Compare::Masked(_) => 7,
    }
}

fn question(profile: &Seccomp) -> String {
    let default = rules::default_answer(profile).unwrap();
    let mut text = format!("default {default}\narch x86\narch x32\n");
    for rule in resolve(profile).unwrap().iter().filter(|rule| rule.answer != default) {
        for name in rule.names {
            for conditions in &rule.any_of {
                write!(text, "rule {} {name}", rule.answer).unwrap();
                for c in conditions {
                    let (a, b) =
                        if let Compare::Masked(mask) = c.compare { (mask, c.value) } else { (c.value, 0) };
                    write!(text, " {} {} {a} {b}", c.index, operator(c.compare)).unwrap();
                }
                text.push('\n');
            }
        }
    }
    text + "end\n"
}

/// Asks the helper for the programs of all profiles.
fn ask(helper: &str, profiles: &[Seccomp]) -> Vec<Vec<Instruction>> {
    let mut child =
        Command::new("sh").args(["-c", helper]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let text: String = profiles.iter().map(question).collect();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()).unwrap());
    let mut answer = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut answer).unwrap();
    writer.join().unwrap();
    assert!(child.wait().unwrap().success(), "the helper failed");
    let mut rest = answer.as_slice();
    let mut programs = Vec::new();
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        let (program, after) = tail.split_at(u32::from_ne_bytes(*length) as usize);
        programs.push(program.chunks_exact(8).map(instruction).collect());
        rest = after;
    }
    assert_eq!(programs.len(), profiles.len());
    programs
}

fn instruction(bytes: &[u8]) -> Instruction {
    let half = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
    let k = u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
    Instruction { code: half(0), jt: bytes[2], jf: bytes[3], k }
}

/// libseccomp's answer, with runc's stub before it: ENOSYS beyond the newest call that the profile names.
fn expected(program: &[Instruction], profile: &Seccomp, architecture: &str, data: &Data) -> u32 {
    let named = profile.syscalls.iter().flat_map(|rule| &rule.names);
    let newest = named.filter_map(|name| number(name, architecture)).max().unwrap_or(u32::MAX);
    let default = rules::default_answer(profile).unwrap();
    if !is_permissive(default) && data.number & !X32_BIT > newest { RET_ENOSYS } else { run(program, data).0 }
}

/// Interesting values of arguments.
const VALUES: [u64; 14] =
    [0, 1, 2, 8, 38, 39, 40, 41, 0x2_0008, 0x7e02_0000, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0026, u64::MAX];

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % n
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

/// A random profile. The rules of one call have one action: libseccomp refuses most others (EEXIST), and orders
/// conditions by rules of its own. With `alone` a call has one rule: where two compare one argument, libseccomp 2.6.1
/// mixes their words up (`arg0 <= a && arg2 <= 40` beside `arg4 >= b && arg0 <= 0` lets 0x1_0000_0026 pass as the
/// third argument).
fn random_profile(random: &mut Random, alone: bool) -> Seccomp {
    const NAMES: [&str; 16] = [
        "read",
        "socket",
        "clone",
        "personality",
        "execve",
        "ioctl",
        "accept",
        "semop",
        "semget",
        "mmap2",
        "bpf",
        "kill",
        "sendto",
        "llseek",
        "futex_time64",
        "arch_prctl",
    ];
    let actions = ["ERRNO", "ALLOW", "KILL_PROCESS", "TRAP", "LOG", "TRACE"];
    let of_call: Vec<&str> = NAMES.iter().map(|_| random.pick(&actions)).collect();
    let default = random.pick(&["ERRNO", "ALLOW", "KILL_PROCESS", "LOG"]);
    let mut rules = Vec::new();
    for round in 0..random.below(24) {
        let at = if alone { round } else { random.below(NAMES.len()) };
        if at >= NAMES.len() {
            break;
        }
        if random.below(6) == 0 {
            rules.push(rule(&[NAMES[at]], of_call[at], &[]));
            continue;
        }
        let mut indices = vec![0, 1, 2, 3, 4, 5];
        let args: Vec<_> = (0..=random.below(3))
            .map(|_| {
                let index = indices.remove(random.below(indices.len()));
                let op = random.pick(&["EQ", "NE", "LT", "LE", "GT", "GE", "MASKED_EQ"]);
                (index, op, random.pick(&VALUES), random.pick(&VALUES))
            })
            .collect();
        rules.push(rule(&[NAMES[at]], of_call[at], &args));
    }
    profile(default, rules)
}

fn probes(random: &mut Random, data: Data, count: usize) -> Vec<Data> {
    let args = |random: &mut Random| std::array::from_fn(|_| random.pick(&VALUES));
    (0..count).map(|_| Data { args: args(random), ..data }).collect()
}

/// Whether a profile compares with more than 32 bits.
fn is_wide(profile: &Seccomp) -> bool {
    let mut args = profile.syscalls.iter().flat_map(|rule| &rule.args);
    args.any(|arg| arg.value >> 32 != 0 || arg.value_two.unwrap_or(0) >> 32 != 0)
}

fn has_conditional_multiplexed(profile: &Seccomp) -> bool {
    let mut conditional = profile.syscalls.iter().filter(|rule| !rule.args.is_empty());
    conditional.any(|rule| rule.names.iter().any(|name| syscalls::multiplexed(name).is_some()))
}

/// Whether libseccomp forgot to load the number of the call: 2.6.1 does for some profiles with conditions, and then
/// compares the architecture with call numbers.
fn is_broken(program: &[Instruction]) -> bool {
    let mut at = program.iter().enumerate();
    at.any(|(at, i)| {
        i.code == 0x15 && [AUDIT_X86_64, AUDIT_I386].contains(&i.k) && {
            let next = program[at + 1 + usize::from(i.jt)];
            next.code != 0x06 && (next.code, next.k) != (0x20, 0)
        }
    })
}

fn compare(profile: &Seccomp, theirs: &[Instruction], random: &mut Random) -> usize {
    let ours = compile(profile).unwrap().instructions;
    let mut asked = 0;
    for (name, architecture, bit) in ARCHITECTURES {
        for number in numbers(name).into_iter().filter(|n| !is_early(profile, name, *n)) {
            let base = Data { number: number | bit, architecture, ..Data::default() };
            let has_rule = profile
                .syscalls
                .iter()
                .any(|r| r.names.iter().any(|n| self::number(n, name) == Some(number)))
                || (name == "x86" && (number == 102 || number == 117));
            // libseccomp looks at the lower words of x32's arguments only, we at both, as the kernel does.
            if name == "x32" && has_rule && is_wide(profile) {
                continue;
            }
            // Nor is what it makes of conditions on calls in a multiplexer, whose arguments are in memory.
            if name == "x86" && (number == 102 || number == 117) && has_conditional_multiplexed(profile) {
                continue;
            }
            for mut data in probes(random, base, if has_rule { 60 } else { 1 }) {
                // i386 has no more than 32 bits to give.
                if name != "x86_64" {
                    data.args = data.args.map(|arg| arg & 0xffff_ffff);
                }
                let wanted = expected(theirs, profile, name, &data);
                let answer = run(&ours, &data).0;
                assert_eq!(answer, wanted, "{answer:#x} {wanted:#x} {name} {data:x?}\n{}", question(profile));
                asked += 1;
            }
        }
    }
    asked
}

#[test]
fn programs_do_what_the_words_say() {
    let mut random = Random(7);
    for _ in 0..60 {
        let profile = random_profile(&mut random, false);
        let rules = resolve(&profile).unwrap();
        let program = compile(&profile).unwrap().instructions;
        let default = rules::default_answer(&profile).unwrap();
        for (name, architecture, bit) in ARCHITECTURES {
            let named = profile.syscalls.iter().flat_map(|rule| &rule.names);
            let newest = named.filter_map(|call| number(call, name)).max().unwrap_or(u32::MAX);
            let agreed = |n: &u32| is_permissive(default) || *n <= newest && !is_early(&profile, name, *n);
            for number in numbers(name).into_iter().filter(agreed) {
                let base = Data { number: number | bit, architecture, ..Data::default() };
                for mut data in probes(&mut random, base, 12) {
                    if name == "x86" {
                        data.args = data.args.map(|arg| arg & 0xffff_ffff);
                    }
                    let (answer, wanted) =
                        (run(&program, &data).0, by_the_words(&rules, default, name, &data));
                    assert_eq!(
                        answer,
                        wanted,
                        "{answer:#x} {wanted:#x} {name} {data:x?}\n{}",
                        question(&profile)
                    );
                }
            }
        }
    }
}

#[test]
fn libseccomp_decides_the_same() {
    let Ok(helper) = std::env::var("BALE_SECCOMP_ORACLE") else {
        eprintln!(
            "skipped: BALE_SECCOMP_ORACLE names no helper (tests/seccomp-oracle.c says how to build it)"
        );
        return;
    };
    let mut random = Random(1);
    let mut profiles: Vec<Seccomp> = (0..400).map(|_| random_profile(&mut random, true)).collect();
    profiles.push(docker_default::<&str>(&[]));
    profiles.push(docker_default(&["CAP_SYS_ADMIN", "CAP_SYS_TIME"]));
    let theirs = ask(&helper, &profiles);
    let sound: Vec<_> = profiles.iter().zip(&theirs).filter(|(_, program)| !is_broken(program)).collect();
    let asked: usize = sound.iter().map(|(profile, program)| compare(profile, program, &mut random)).sum();
    assert!(sound.len() > profiles.len() / 2, "most programs of libseccomp load the number");
    let docker = profiles.len() - 2;
    let longest = |program: &[Instruction]| {
        (0..450)
            .map(|n| run(program, &Data { number: n, architecture: AUDIT_X86_64, ..Data::default() }).1)
            .max()
    };
    eprintln!(
        "{asked} decisions of {} profiles are the same, {} left out",
        sound.len(),
        profiles.len() - sound.len()
    );
    eprintln!(
        "docker: libseccomp {} instructions, longest way {:?}",
        theirs[docker].len(),
        longest(&theirs[docker])
    );
    if std::env::var_os("BALE_SECCOMP_ACCEPT").is_some() {
        std::fs::write(DOCKER_FILE, table(&profiles[docker], &theirs[docker])).unwrap();
    }
}

/// The decisions of a program, as lines `architecture first last answer` and `architecture number argument0 answer`.
fn table(profile: &Seccomp, program: &[Instruction]) -> String {
    let mut text = String::new();
    for (name, architecture, bit) in ARCHITECTURES {
        let mut run: Option<(u32, u32, u32)> = None;
        for number in numbers(name).into_iter().filter(|n| !is_early(profile, name, *n)) {
            let data = Data { number: number | bit, architecture, ..Data::default() };
            let answer = expected(program, profile, name, &data);
            run = match run {
                Some((first, last, same)) if same == answer && last + 1 == number => {
                    Some((first, number, same))
                }
                before => {
                    if let Some((first, last, answer)) = before {
                        writeln!(text, "{name} {first} {last} {answer:#x}").unwrap();
                    }
                    Some((number, number, answer))
                }
            };
        }
        if let Some((first, last, answer)) = run {
            writeln!(text, "{name} {first} {last} {answer:#x}").unwrap();
        }
        for call in ["socket", "personality", "clone"] {
            for arg in VALUES {
                let number = number(call, name).unwrap();
                let data = Data { number: number | bit, architecture, args: [arg, 0, 0, 0, 0, 0] };
                if name == "x86_64" || arg >> 32 == 0 {
                    writeln!(
                        text,
                        "{name} {number} arg {arg:#x} {:#x}",
                        expected(program, profile, name, &data)
                    )
                    .unwrap();
                }
            }
        }
    }
    text
}

#[test]
fn docker_default_is_decided_as_libseccomp_did() {
    let program = compile(&docker_default::<&str>(&[])).unwrap().instructions;
    let hex = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap();
    let mut lines = 0;
    for line in DOCKER.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let (_, architecture, bit) = ARCHITECTURES.into_iter().find(|(name, ..)| *name == words[0]).unwrap();
        let first: u32 = words[1].parse().unwrap();
        let (last, arg) = match words[2] {
            "arg" => (first, hex(words[3])),
            last => (last.parse().unwrap(), 0),
        };
        for number in first..=last {
            let data = Data { number: number | bit, architecture, args: [arg, 0, 0, 0, 0, 0] };
            assert_eq!(u64::from(run(&program, &data).0), hex(words.last().unwrap()), "{line}: {number}");
        }
        lines += 1;
    }
    assert!(lines > 200, "the table is not whole");
}

/// Docker's own file: conditions on capabilities and architectures beside the fields of the specification.
#[test]
fn docker_default_is_mobys() {
    let Some(path) = std::env::var_os("BALE_MOBY_PROFILE") else {
        eprintln!("skipped: BALE_MOBY_PROFILE names no default.json of moby/profiles");
        return;
    };
    let document: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let has = |filter: &serde_json::Value, field: &str, value: &str| {
        filter[field].as_array().is_some_and(|list| list.iter().any(|v| v == value))
    };
    for capabilities in [vec![], vec!["CAP_SYS_ADMIN", "CAP_SYSLOG"], ALL_WITH_RULES.to_vec()] {
        let mut theirs = Seccomp { default_errno_ret: Some(1), ..profile("ERRNO", vec![]) };
        for entry in document["syscalls"].as_array().unwrap() {
            let (includes, excludes) = (&entry["includes"], &entry["excludes"]);
            let wants = includes["caps"]
                .as_array()
                .is_some_and(|caps| !caps.iter().all(|cap| capabilities.iter().any(|have| cap == have)));
            let foreign = includes["arches"].is_array() && !has(includes, "arches", "amd64");
            let refuses =
                capabilities.iter().any(|cap| has(excludes, "caps", cap)) || has(excludes, "arches", "amd64");
            if !wants && !foreign && !refuses {
                theirs.syscalls.push(serde_json::from_value(entry.clone()).unwrap());
            }
        }
        let ours = docker_default(&capabilities);
        assert_eq!(allowed(&ours), allowed(&theirs), "{capabilities:?}");
    }
}

const ALL_WITH_RULES: [&str; 14] = [
    "CAP_DAC_READ_SEARCH",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_CHROOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_PACCT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_SYS_NICE",
    "CAP_SYSLOG",
    "CAP_BPF",
    "CAP_PERFMON",
];

/// What a profile says, without order and names that no ABI of ours has.
fn allowed(profile: &Seccomp) -> BTreeSet<String> {
    let mut said = BTreeSet::new();
    for rule in resolve(profile).unwrap() {
        for name in rule.names.iter().filter(|name| syscalls::find(name).is_some()) {
            said.insert(format!("{name} {:#x} {:?}", rule.answer, rule.any_of));
        }
    }
    said
}
