//! A failure of init in words, with the operation's arguments, in the parent.

use bale_fault::{Fault, Kind};
use rustix::io::Errno;

use super::hook::TIMED_OUT;
use super::report::{Call, Failure};
use crate::plan::op::Op;

/// Says what failed in `op`, with the kernel's own words if it had any; `program` is argv[0].
#[must_use]
pub fn fault(failure: &Failure, text: &str, op: Option<&Op>, program: &str) -> Fault {
    // A hook's failure has none; from_raw_os_error takes 1 to 4095.
    let errno =
        if (1..4096).contains(&failure.errno) { Errno::from_raw_os_error(failure.errno) } else { Errno::IO };
    match failure.call {
        Call::NotInPath | Call::Program | Call::Exec => program_fault(failure.call, errno, program),
        Call::HookStatus => Fault::new(Kind::Os, format!("{}: {}", title(op), hook_status(failure.argument))),
        Call::NotTheDevice => {
            let words = format!("{}: what is there is not that device", title(op));
            Fault::new(Kind::InvalidInput, words)
                .hint("remove it from the root file system, or mount a tmpfs on /dev")
        }
        _ => call_fault(failure, text, errno, op),
    }
}

fn title(op: Option<&Op>) -> String {
    op.map_or_else(|| "start the container".to_owned(), ToString::to_string)
}

fn program_fault(call: Call, errno: Errno, program: &str) -> Fault {
    let words = bale_sys::error::words(errno);
    let (kind, text) = match (call, errno) {
        (Call::NotInPath, Errno::NOENT) => {
            (Kind::ProgramNotFound, format!("exec: {program:?}: executable file not found in $PATH"))
        }
        (_, Errno::NOENT | Errno::NOTDIR) => {
            (Kind::ProgramNotFound, format!("exec: {program:?}: stat {program}: {words}"))
        }
        _ => (Kind::ProgramNotExecutable, format!("exec: {program:?}: {words}")),
    };
    let fault = Fault::new(kind, text);
    match (call, errno) {
        (Call::Exec, Errno::NOENT) => {
            fault.hint("the program is there: its interpreter (#! line or ELF loader) is not")
        }
        (_, Errno::NOEXEC) => {
            fault.hint("the program is made for another machine, or a script without a #! line")
        }
        _ => fault,
    }
}

fn hook_status(argument: u16) -> String {
    match argument {
        TIMED_OUT => "ran out of time and was killed".to_owned(),
        127 => "could not be executed (exit status 127)".to_owned(),
        0..=255 => format!("exit status {argument}"),
        signal => format!("ended by signal {}", signal - 256),
    }
}

fn call_fault(failure: &Failure, text: &str, errno: Errno, op: Option<&Op>) -> Fault {
    let mut words = title(op);
    if let (Call::FsConfig, Some(Op::Mount { options, .. } | Op::Remount { options: Some(options), .. })) =
        (failure.call, op)
    {
        if let Some((key, value)) = options.get(usize::from(failure.argument)) {
            words.push_str(&format!(": fsconfig({:?}", key.to_string_lossy()));
            if let Some(value) = value {
                words.push_str(&format!(", {:?}", value.to_string_lossy()));
            }
            words.push(')');
        }
    } else if let (Call::Write, Some(Op::WriteLabel { .. })) = (failure.call, op) {
        // Podman finds out by the quoted path that it was the label.
        words.push_str(": write `/proc/self/attr/exec`");
    } else if !failure.call.name().is_empty() {
        words.push_str(": ");
        words.push_str(failure.call.name());
    }
    words.push_str(": ");
    words.push_str(&bale_sys::error::words(errno));
    if !text.is_empty() {
        words.push_str(&format!(" (kernel: {text})"));
    }
    let fault = Fault::new(call_kind(errno, op), words);
    match hint(failure.call, errno, op) {
        Some(hint) => fault.hint(hint),
        None => fault,
    }
}

fn call_kind(errno: Errno, op: Option<&Op>) -> Kind {
    match (op, errno) {
        // Docker's exit codes for the working directory of exec are those for the program.
        (Some(Op::Chdir(_)), Errno::NOENT | Errno::NOTDIR) => Kind::ProgramNotFound,
        (Some(Op::Chdir(_)), Errno::ACCESS) => Kind::ProgramNotExecutable,
        // What is missing is no container, image or file that the user named.
        _ => match bale_sys::error::kind(errno) {
            Kind::NotFound => Kind::Os,
            kind => kind,
        },
    }
}

fn hint(call: Call, errno: Errno, op: Option<&Op>) -> Option<&'static str> {
    match (op?, call, errno) {
        (Op::Limit { .. }, _, Errno::PERM) => {
            Some("the hard limit is above this process's own, and raising it needs CAP_SYS_RESOURCE")
        }
        (Op::Mount { .. } | Op::Bind { .. }, Call::OpenTarget, Errno::LOOP) => {
            Some("the mount point is a symbolic link; proc and sysfs must be mounted on ordinary directory")
        }
        (Op::Remount { .. }, Call::FsPick | Call::MountSetattr, Errno::INVAL) => {
            Some("there is no mount at this place to change")
        }
        (Op::CopyLink { .. }, _, Errno::EXIST) => Some("what has the name there is another file"),
        (Op::Bind { no_follow: true, .. }, Call::OpenTarget, Errno::PERM) => {
            Some("dest-nofollow is not for procfs, sysfs and devpts")
        }
        (Op::Bind { .. }, Call::OpenTarget | Call::MakeTarget | Call::MoveMount, Errno::NOTDIR) => Some(
            "one side is a directory and the other is a file: is the source there, and of the right kind?",
        ),
        (Op::Mount { .. }, Call::FsMount | Call::FsCreate, Errno::PERM) => {
            Some("in a user namespace this file system wants a network, pid or IPC namespace of its own")
        }
        (Op::Ids { .. } | Op::BecomeRoot, Call::Setuid | Call::Setgid | Call::Setgroups, Errno::INVAL) => {
            Some("the id is not mapped in the container's user namespace")
        }
        (Op::Sysctl { .. }, Call::Open, Errno::NOENT) => {
            Some("the kernel, or this namespace, has no such parameter")
        }
        (Op::WriteLabel { .. }, _, Errno::NOENT) => {
            Some("the profile is not loaded: apparmor_parser --replace FILE")
        }
        (Op::EnterCwd, _, Errno::ACCESS) => Some("the user may not enter process.cwd"),
        (Op::Seccomp { .. }, _, Errno::ACCESS) => Some("set process.noNewPrivileges, or keep CAP_SYS_ADMIN"),
        (Op::PivotRoot { .. }, Call::Pivot, Errno::INVAL) => {
            Some("the host's root is no mount: try --no-pivot")
        }
        _ => None,
    }
}
