//! Filters in the kernel. A filter is the thread's that loads it, so each test loads it in a thread of its own.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::time::{Duration, Instant};

use bale_runtime::seccomp::{compile, docker_default};
use bale_spec::runtime::{Seccomp, SyscallRule};
use bale_sys::seccomp::{Flags, load};

fn is_root() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(
        std::env::var_os("BALE_TEST_UNPRIVILEGED").is_some(),
        "needs root (or BALE_TEST_UNPRIVILEGED=1 to skip)"
    );
    eprintln!("skipped: needs root");
    false
}

/// Runs `what` in a thread of its own.
fn apart<T: Send>(what: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(what).join().unwrap())
}

#[test]
fn dockers_profile_in_the_kernel() {
    if !is_root() {
        return;
    }
    let program = compile(&docker_default::<&str>(&[])).unwrap();
    let (answers, took) = apart(|| {
        let start = Instant::now();
        assert!(load(&program.instructions, program.flags).unwrap().is_none());
        let took = start.elapsed();
        let socket = |family| {
            use rustix::net::{AddressFamily, SocketType, socket};
            socket(AddressFamily::from_raw(family), SocketType::DGRAM, None).map(drop)
        };
        let answers = (
            rustix::system::sethostname(b"never").map_err(|e| e.raw_os_error()),
            socket(1).map_err(|e| e.raw_os_error()),
            socket(40).map_err(|e| e.raw_os_error()),
            socket(38).map_err(|e| e.raw_os_error()),
        );
        (answers, took)
    });
    assert_eq!(answers, (Err(1), Ok(()), Err(1), Err(1)));
    eprintln!("docker default: {} instructions, loaded in {took:?}", program.instructions.len());
}

#[test]
fn a_notifying_filter_gives_its_listener() {
    if !is_root() {
        return;
    }
    let rule = SyscallRule {
        names: vec!["acct".into()],
        action: "SCMP_ACT_NOTIFY".into(),
        ..SyscallRule::default()
    };
    let profile = Seccomp {
        default_action: "SCMP_ACT_ALLOW".into(),
        listener_path: Some("/run/l".into()),
        flags: vec!["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV".into()],
        syscalls: vec![rule],
        ..Seccomp::default()
    };
    let program = compile(&profile).unwrap();
    assert!(program.has_listener() && program.flags.contains(Flags::WAIT_KILLABLE_RECV));
    assert!(apart(|| load(&program.instructions, program.flags).unwrap()).is_some());
}

/// Prints what the profile costs. Not a promise: the machine is shared.
#[test]
#[ignore = "measures"]
fn cost_of_dockers_profile() {
    if !is_root() {
        return;
    }
    let mut loads: Vec<Duration> = Vec::new();
    let mut compiles: Vec<Duration> = Vec::new();
    for _ in 0..200 {
        let start = Instant::now();
        let program = compile(&docker_default::<&str>(&[])).unwrap();
        compiles.push(start.elapsed());
        loads.push(apart(|| {
            let start = Instant::now();
            load(&program.instructions, program.flags).unwrap();
            start.elapsed()
        }));
    }
    for (what, mut times) in [("compile", compiles), ("load", loads)] {
        times.sort_unstable();
        eprintln!("{what}: best {:?}, median {:?}, worst {:?}", times[0], times[100], times[199]);
    }
}
