//! seccomp(2): loading a filter program.

use std::os::fd::{FromRawFd, OwnedFd};

use rustix::io::Errno;

/// One classic BPF instruction, laid out as the kernel's `struct sock_filter`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip when a condition holds.
    pub jt: u8,
    /// Instructions to skip when it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// The most instructions of a program (the kernel's `BPF_MAXINSNS`).
pub const MAX_INSTRUCTIONS: usize = 4096;

/// `SECCOMP_FILTER_FLAG_…` bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(u32);

impl Flags {
    /// All threads of the process get the filter.
    pub const TSYNC: Self = Self(1);
    /// Actions other than allow are logged.
    pub const LOG: Self = Self(1 << 1);
    /// Speculative store bypass stays allowed.
    pub const SPEC_ALLOW: Self = Self(1 << 2);
    /// The filter has a listener.
    pub const NEW_LISTENER: Self = Self(1 << 3);
    /// With both, a TSYNC failure is `ESRCH`.
    pub const TSYNC_ESRCH: Self = Self(1 << 4);
    /// A notified call can only be interrupted by a fatal signal.
    pub const WAIT_KILLABLE_RECV: Self = Self(1 << 5);

    /// Returns the bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Reads the bits; `None` when one of them is no flag.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Option<Self> {
        if bits < 1 << 6 { Some(Self(bits)) } else { None }
    }

    /// Returns the flags of both.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Tells whether all flags of `other` are in `self`.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Allows clone, wait4, fsopen, sendmsg and exit_group: for a process that begins a file system and hands it on, so that
/// whoever has power over it can do no more.
pub const BEGIN_FILE_SYSTEM: [Instruction; 11] = [
    // The architecture of struct seccomp_data, then the number of the call.
    Instruction { code: LOAD, jt: 0, jf: 0, k: 4 },
    Instruction { code: EQUALS, jt: 0, jf: 7, k: AUDIT_ARCH_X86_64 },
    Instruction { code: LOAD, jt: 0, jf: 0, k: 0 },
    Instruction { code: EQUALS, jt: 6, jf: 0, k: libc::SYS_clone as u32 },
    Instruction { code: EQUALS, jt: 5, jf: 0, k: libc::SYS_wait4 as u32 },
    Instruction { code: EQUALS, jt: 4, jf: 0, k: libc::SYS_fsopen as u32 },
    Instruction { code: EQUALS, jt: 3, jf: 0, k: libc::SYS_sendmsg as u32 },
    Instruction { code: EQUALS, jt: 2, jf: 0, k: libc::SYS_exit_group as u32 },
    Instruction { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_ERRNO | libc::EPERM as u32 },
    Instruction { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_KILL_PROCESS },
    Instruction { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW },
];

/// `BPF_LD | BPF_W | BPF_ABS`, `BPF_JMP | BPF_JEQ | BPF_K`, `BPF_RET | BPF_K` (linux/bpf_common.h).
const LOAD: u16 = 0x20;
const EQUALS: u16 = 0x15;
const RETURN: u16 = 0x06;
/// linux/audit.h.
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;

const SECCOMP_SET_MODE_FILTER: libc::c_ulong = 1;
const SECCOMP_GET_ACTION_AVAIL: libc::c_ulong = 2;

/// Puts `program` on the calling thread, for ever. Allocates nothing, so it may run in a child after clone.
///
/// The caller has `CAP_SYS_ADMIN` in its user namespace or has set no-new-privileges. With
/// [`Flags::NEW_LISTENER`] the listener's descriptor is returned (close-on-exec).
///
/// # Errors
/// `EINVAL` for a program or flag the kernel refuses, `EACCES` without the privilege, `EBUSY` when a filter with a
/// listener exists already, `ESRCH`/`ECANCELED` when TSYNC fails (the return value is then a thread's id).
pub fn load(program: &[Instruction], flags: Flags) -> rustix::io::Result<Option<OwnedFd>> {
    let length = u16::try_from(program.len()).map_err(|_| Errno::INVAL)?;
    let fprog =
        libc::sock_fprog { len: length, filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut() };
    let operation = SECCOMP_SET_MODE_FILTER;
    // SAFETY: `fprog` points to `length` initialized instructions of the kernel's layout (`repr(C)`, checked below);
    // both live until the call returns, and the kernel copies and never writes them.
    let answer = unsafe {
        libc::syscall(libc::SYS_seccomp, operation, flags.bits() as libc::c_ulong, &raw const fprog)
    };
    match answer {
        0 => Ok(None),
        -1 => Err(last_errno()),
        fd if flags.contains(Flags::NEW_LISTENER) => {
            let fd = i32::try_from(fd).map_err(|_| Errno::INVAL)?;
            // SAFETY: with NEW_LISTENER a positive answer is a new descriptor that nobody else owns.
            Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
        }
        _ => Err(Errno::SRCH),
    }
}

/// Tells whether the kernel knows the action `SECCOMP_RET_…`.
#[must_use]
pub fn action_available(action: u32) -> bool {
    // SAFETY: the kernel reads four bytes from a live local.
    unsafe {
        libc::syscall(libc::SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0 as libc::c_ulong, &raw const action) == 0
    }
}

/// Tells whether the kernel knows the flags: it looks at them before it looks at the program.
#[must_use]
pub fn flags_available(flags: Flags) -> bool {
    let none: *const libc::sock_fprog = std::ptr::null();
    // SAFETY: a null program is answered by EFAULT once the flags are known, and changes nothing.
    let answer = unsafe {
        libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags.bits() as libc::c_ulong, none)
    };
    answer == -1 && last_errno() == Errno::FAULT
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

const _: () = {
    assert!(size_of::<Instruction>() == size_of::<libc::sock_filter>());
    assert!(align_of::<Instruction>() == align_of::<libc::sock_filter>());
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_asked_for_actions_and_flags() {
        assert!(action_available(0x7fff_0000) && !action_available(0x1234_0000));
        assert!(flags_available(Flags::LOG) && !flags_available(Flags(1 << 30)));
    }

    #[test]
    fn a_program_that_is_too_long_or_empty_is_refused() {
        assert_eq!(load(&vec![Instruction::default(); 70_000], Flags::default()).unwrap_err(), Errno::INVAL);
        assert_eq!(load(&[], Flags::default()).unwrap_err(), Errno::INVAL);
    }
}
