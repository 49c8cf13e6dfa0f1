#![allow(clippy::type_complexity)]

mod oracle;

use super::simulate::{Data, run};
use super::*;
use bale_spec::runtime::{SeccompArg, SyscallRule};

fn rule(names: &[&str], action: &str, args: &[(u32, &str, u64, u64)]) -> SyscallRule {
    let arg = |&(index, op, value, two): &(u32, &str, u64, u64)| SeccompArg {
        index,
        value,
        value_two: Some(two),
        op: format!("SCMP_CMP_{op}"),
    };
    SyscallRule {
        names: names.iter().map(|n| (*n).to_owned()).collect(),
        action: format!("SCMP_ACT_{action}"),
        errno_ret: None,
        args: args.iter().map(arg).collect(),
    }
}

fn profile(default: &str, syscalls: Vec<SyscallRule>) -> Seccomp {
    Seccomp {
        default_action: format!("SCMP_ACT_{default}"),
        architectures: vec!["SCMP_ARCH_X86".to_owned(), "SCMP_ARCH_X32".to_owned()],
        listener_path: Some("/run/l".to_owned()),
        syscalls,
        ..Seccomp::default()
    }
}

const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;

#[test]
fn operators_compare_all_64_bits() {
    let big = 0x1_0000_0005_u64;
    let cases: &[(&str, u64, u64, &[u64], &[u64])] = &[
        ("EQ", big, 0, &[big], &[5, big + 1, big << 1, 0x2_0000_0005]),
        ("NE", big, 0, &[5, big + 1, 0], &[big]),
        ("LT", big, 0, &[0, 5, 0xffff_ffff, big - 1], &[big, big + 1, u64::MAX, 0x2_0000_0000]),
        ("LE", big, 0, &[0, 5, big], &[big + 1, 0x2_0000_0000, u64::MAX]),
        ("GT", big, 0, &[big + 1, 0x2_0000_0000, u64::MAX], &[0, 5, 0xffff_ffff, big]),
        ("GE", big, 0, &[big, big + 1, u64::MAX], &[0, 6, big - 1]),
        ("GT", u64::MAX, 0, &[], &[0, u64::MAX]),
        ("LT", 0, 0, &[], &[0, u64::MAX]),
        ("GE", 0, 0, &[0, u64::MAX], &[]),
        ("LE", u64::MAX, 0, &[0, u64::MAX], &[]),
        ("EQ", u64::MAX, 0, &[u64::MAX], &[0, 0xffff_ffff, u64::MAX - 1]),
        (
            "MASKED_EQ",
            0xff00_0000_00f0,
            0x1200_0000_0030,
            &[0x1200_0000_0030, 0x12ff_1234_563f],
            &[0x30, 0x1200_0000_0040],
        ),
        ("MASKED_EQ", 0xf0, 0x33, &[0x30, 0xffff_0000_0030], &[0x31 << 4]),
        ("MASKED_EQ", 0x8000_0000, 0, &[0, 1 << 40], &[0x8000_0000]),
        ("MASKED_EQ", 0, 0, &[0, 7], &[]),
    ];
    for (op, value, two, yes, no) in cases {
        let compiled =
            compile(&profile("ERRNO", vec![rule(&["lseek"], "ALLOW", &[(1, op, *value, *two)])])).unwrap();
        let ask = |arg| {
            let data = Data { number: 8, architecture: AUDIT_X86_64, args: [9, arg, 9, 9, 9, 9] };
            run(&compiled.instructions, &data).0
        };
        for arg in *yes {
            assert_eq!(ask(*arg), ALLOW, "{arg:#x} {op} {value:#x} {two:#x}");
        }
        for arg in *no {
            assert_eq!(ask(*arg), EPERM, "{arg:#x} {op} {value:#x} {two:#x}");
        }
    }
}

#[test]
fn conditions_of_a_rule_must_all_hold_and_rules_are_alternatives() {
    let both = rule(&["socket"], "ALLOW", &[(0, "EQ", 2, 0), (1, "MASKED_EQ", 0xff, 1)]);
    let or = rule(&["socket"], "TRAP", &[(2, "EQ", 7, 0), (2, "EQ", 9, 0)]);
    let program = compile(&profile("ERRNO", vec![both, or])).unwrap().instructions;
    let ask = |a: u64, b: u64, c: u64| {
        run(&program, &Data { number: 41, architecture: AUDIT_X86_64, args: [a, b, c, 0, 0, 0] }).0
    };
    assert_eq!((ask(2, 0xf01, 0), ask(2, 2, 0), ask(1, 1, 0)), (ALLOW, EPERM, EPERM));
    // Two conditions on one argument are two rules.
    assert_eq!((ask(1, 1, 7), ask(1, 1, 9), ask(2, 1, 9)), (0x0003_0000, 0x0003_0000, ALLOW));
}

#[test]
fn actions_have_the_kernels_numbers() {
    let cases = [
        ("KILL", None, 0),
        ("KILL_THREAD", None, 0),
        ("KILL_PROCESS", None, 0x8000_0000),
        ("TRAP", None, 0x0003_0000),
        ("ERRNO", None, EPERM),
        ("ERRNO", Some(38), 0x0005_0026),
        ("TRACE", Some(7), 0x7ff0_0007),
        ("LOG", None, 0x7ffc_0000),
        ("NOTIFY", None, 0x7fc0_0000),
        ("ALLOW", Some(1), ALLOW),
    ];
    for (action, errno_ret, answer) in cases {
        let wanted = SyscallRule { errno_ret, ..rule(&["getpid"], action, &[]) };
        let compiled = compile(&profile("TRACE", vec![wanted])).unwrap();
        let data = Data { number: 39, architecture: AUDIT_X86_64, ..Data::default() };
        assert_eq!(run(&compiled.instructions, &data).0, answer, "{action}");
        assert_eq!(compiled.has_listener(), action == "NOTIFY");
    }
}

#[test]
fn architectures_newer_calls_and_skipped_calls() {
    let mut wanted = profile("ERRNO", vec![rule(&["getpid", "execve"], "ALLOW", &[])]);
    let ask = |profile: &Seccomp, architecture, number| {
        run(&compile(profile).unwrap().instructions, &Data { number, architecture, ..Data::default() }).0
    };
    for (architecture, number, answer) in [
        (AUDIT_X86_64, 39, ALLOW),
        (AUDIT_X86_64, 38, EPERM),
        (AUDIT_X86_64, 60, RET_ENOSYS),
        (AUDIT_X86_64, X32_BIT | 39, ALLOW),
        (AUDIT_X86_64, X32_BIT | 520, ALLOW),
        (AUDIT_X86_64, X32_BIT | 519, EPERM),
        (AUDIT_X86_64, X32_BIT | 521, RET_ENOSYS),
        (AUDIT_I386, 20, ALLOW),
        (AUDIT_I386, 39, RET_ENOSYS),
        (0xc000_00b7, 39, RET_KILL_THREAD),
    ] {
        assert_eq!(ask(&wanted, architecture, number), answer, "{architecture:#x} {number}");
    }
    wanted.architectures = vec!["SCMP_ARCH_AARCH64".to_owned()];
    assert_eq!(ask(&wanted, AUDIT_I386, 20), RET_KILL_THREAD);
    assert_eq!((ask(&wanted, AUDIT_X86_64, X32_BIT), ask(&wanted, AUDIT_X86_64, u32::MAX)), (0, EPERM));
    // A default that lets calls through, or that is ENOSYS itself, needs no such answer.
    wanted.default_action = "SCMP_ACT_ALLOW".to_owned();
    assert_eq!(ask(&wanted, AUDIT_X86_64, 400), ALLOW);
}

#[test]
fn precedence_is_libseccomps() {
    let denied = SyscallRule { errno_ret: Some(13), ..rule(&["kill"], "ERRNO", &[(1, "EQ", 9, 0)]) };
    let same = rule(&["tkill"], "ERRNO", &[]);
    let rules = vec![denied, same, rule(&["kill", "tkill"], "ALLOW", &[]), rule(&["tkill"], "TRAP", &[])];
    let program = compile(&profile("ERRNO", rules)).unwrap().instructions;
    let ask = |number| run(&program, &Data { number, architecture: AUDIT_X86_64, args: [9; 6] }).0;
    assert_eq!((ask(62), ask(200)), (ALLOW, ALLOW));
}

#[test]
fn i386_multiplexers_are_covered() {
    let program =
        compile(&profile("ALLOW", vec![rule(&["accept", "semtimedop"], "ERRNO", &[])])).unwrap().instructions;
    let ask = |number, first| {
        run(&program, &Data { number, architecture: AUDIT_I386, args: [first, 0, 0, 0, 0, 0] }).0
    };
    assert_eq!((ask(102, 5), ask(102, 1), ask(117, 4), ask(117, 1)), (EPERM, ALLOW, EPERM, ALLOW));
}

#[test]
fn what_is_wrong_is_named() {
    let bad = |change: &dyn Fn(&mut Seccomp)| {
        let mut wanted = profile("ERRNO", vec![rule(&["getpid"], "ALLOW", &[(0, "EQ", 0, 0)])]);
        change(&mut wanted);
        compile(&wanted).unwrap_err().chain()
    };
    let cases: &[(&dyn Fn(&mut Seccomp), &str)] = &[
        (&|p| p.default_action = "x".to_owned(), "linux.seccomp.defaultAction: unknown action \"x\""),
        (
            &|p| p.default_action = "SCMP_ACT_NOTIFY".to_owned(),
            "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot",
        ),
        (&|p| p.default_errno_ret = Some(5000), "linux.seccomp.defaultErrnoRet: 5000 is above 4095"),
        (&|p| p.architectures[1] = "x".to_owned(), "linux.seccomp.architectures[1]: unknown architecture"),
        (&|p| p.flags.push("x".to_owned()), "linux.seccomp.flags[0]: unknown flag"),
        (&|p| p.syscalls[0].action = "x".to_owned(), "linux.seccomp.syscalls[0].action: unknown action"),
        (&|p| p.syscalls[0].args[0].index = 6, "linux.seccomp.syscalls[0].args[0].index: 6 is no argument"),
        (
            &|p| p.syscalls[0].args[0].op = "x".to_owned(),
            "linux.seccomp.syscalls[0].args[0].op: unknown operator",
        ),
        (
            &|p| p.syscalls = vec![rule(&["write"], "NOTIFY", &[])],
            "linux.seccomp.syscalls[0]: SCMP_ACT_NOTIFY cannot",
        ),
        (
            &|p| {
                p.listener_path = None;
                p.syscalls = vec![rule(&["mkdir"], "NOTIFY", &[])];
            },
            "linux.seccomp.listenerPath",
        ),
    ];
    for (change, words) in cases {
        let found = bad(change);
        assert!(found.starts_with(words), "{found:?} should start with {words:?}");
    }
}

#[test]
fn hostile_profiles_are_refused_quickly() {
    let many: Vec<_> = (0..20_000)
        .map(|n| rule(&["ioctl", "kill", "mmap"], "ALLOW", &[(1, "MASKED_EQ", 7 + n, n)]))
        .collect();
    assert_eq!(compile(&profile("ERRNO", many)).unwrap_err().kind(), Kind::InvalidInput);
    let ranges: Vec<_> = (0..4_000).map(|n| rule(&["ioctl"], "ALLOW", &[(1, "EQ", 3 * n, 0)])).collect();
    assert_eq!(compile(&profile("ERRNO", ranges)).unwrap_err().kind(), Kind::InvalidInput);
    let long: Vec<_> =
        (0..300).map(|n| rule(&["ioctl"], "ALLOW", &[(1, "MASKED_EQ", 7 + n, n & 7)])).collect();
    let program = compile(&profile("ERRNO", long)).unwrap().instructions;
    assert!(program.len() > 600, "long jumps are needed here");
    let last = Data { number: 16, architecture: AUDIT_X86_64, args: [0, 306 & 299, 0, 0, 0, 0] };
    assert_eq!(run(&program, &last).0, ALLOW);
}

#[test]
fn every_jump_goes_forward_and_ends() {
    for capabilities in [&[][..], &["CAP_SYS_ADMIN", "CAP_SYS_PTRACE"]] {
        let program = compile(&docker_default(capabilities)).unwrap().instructions;
        for (at, Instruction { code, jt, jf, k }) in program.iter().enumerate() {
            let furthest = if *code == 0x05 { *k as usize } else { usize::from(*jt.max(jf)) };
            assert!(at + 1 + furthest < program.len() || *code == 0x06);
        }
        let longest = (0..600).map(|n| {
            let data = Data { number: n, architecture: AUDIT_X86_64, ..Data::default() };
            run(&program, &data).1
        });
        eprintln!(
            "docker default {capabilities:?}: {} instructions, longest way {:?}",
            program.len(),
            longest.max()
        );
        assert!(program.len() < 260);
    }
}
