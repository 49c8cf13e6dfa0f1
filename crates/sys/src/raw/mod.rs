//! The calls that rustix leaves out, as thin as they can be. Each takes plain numbers and returns the errno; none
//! allocates, so all of them may be used in a child after clone.

use std::ffi::CStr;
use std::mem::size_of;
use std::os::fd::RawFd;

use rustix::io::Errno;

type Result<T> = rustix::io::Result<T>;

fn answer(value: libc::c_long) -> Result<i32> {
    if value < 0 {
        return Err(last());
    }
    Ok(i32::try_from(value).unwrap_or(i32::MAX))
}

fn last() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// clone3(2) without a stack: a fork. Returns 0 in the child. The caller has checked that there is one thread.
pub fn clone3(flags: u64, exit_signal: u64, cgroup: Option<RawFd>, pidfd: &mut RawFd) -> Result<i32> {
    const INTO_CGROUP: u64 = 0x2_0000_0000;
    // SAFETY: all zero is a valid clone_args: every field is a number or an optional address.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags | if cgroup.is_some() { INTO_CGROUP } else { 0 };
    args.exit_signal = exit_signal;
    args.pidfd = std::ptr::from_mut(pidfd) as u64;
    args.cgroup = cgroup.map_or(0, |fd| u64::try_from(fd).unwrap_or(0));
    // SAFETY: without CLONE_VM the child has a copy of this memory and continues on the same stack, as after fork;
    // `args` and `pidfd` are live for the call and have the size that is passed.
    answer(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) })
}

/// fork(2) by the bare call: no handlers of the C library run in the child. The child may only call what is safe
/// after fork in a process with threads: system calls, no allocation.
pub fn fork() -> Result<i32> {
    clone_plain()
}

fn clone_plain() -> Result<i32> {
    // SAFETY: flags are SIGCHLD alone, so this is fork: memory is copied, no stack or address is passed.
    answer(unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) })
}

/// clone(2) of a sibling, with a pidfd. Not clone3, which filters answer with ENOSYS.
pub fn fork_sibling(pidfd: &mut RawFd) -> Result<i32> {
    let flags = libc::CLONE_PARENT | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: no CLONE_VM, so this is a fork on a copy of the stack; with CLONE_PIDFD the third argument is where the
    // descriptor is stored, which is live.
    answer(unsafe { libc::syscall(libc::SYS_clone, flags, 0, std::ptr::from_mut(pidfd), 0, 0, 0) })
}

/// Waits for the child `pid` and forgets how it ended.
pub fn reap(pid: i32) {
    let mut status = 0;
    // SAFETY: `status` is live for the call.
    while unsafe { libc::waitpid(pid, &raw mut status, 0) } < 0 && last() == Errno::INTR {}
}

/// _exit(2): no destructors, no flushing.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: it takes a number and does not return.
    unsafe { libc::_exit(code) }
}

/// pidfd_send_signal(2).
pub fn pidfd_send_signal(pidfd: RawFd, signal: i32) -> Result<()> {
    // SAFETY: three numbers and a null siginfo, which the call allows.
    let value = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd, signal, std::ptr::null::<libc::c_void>(), 0)
    };
    answer(value).map(|_| ())
}

/// PIDFD_GET_INFO for the exit code; `None` when the kernel does not know it (yet).
pub fn pidfd_exit_code(pidfd: RawFd) -> Option<i32> {
    const EXIT: u64 = 1 << 3;
    // struct pidfd_info of linux/pidfd.h: mask, cgroupid, pid, tgid, ppid, 8 ids, exit_code: 64 bytes in version 0
    // end before exit_code, which is at 64.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        mask: u64,
        cgroupid: u64,
        pids: [u32; 3],
        ids: [u32; 8],
        exit_code: i32,
        coredump: [u32; 2],
    }
    let mut info = Info { mask: EXIT, ..Info::default() };
    let size = size_of::<Info>() as libc::c_ulong;
    let request: libc::c_ulong = (3 << 30) | (size << 16) | (0xff << 8) | 11;
    // SAFETY: the request encodes the size of `info`, which is live and plain numbers.
    let value = unsafe { libc::ioctl(pidfd, request, &raw mut info) };
    (value == 0 && info.mask & EXIT != 0).then_some(info.exit_code)
}

/// close_range(2).
pub fn close_range(first: u32, last_fd: u32, flags: u32) -> Result<()> {
    // SAFETY: numbers only. With CLOSE_RANGE_CLOEXEC nothing is closed; callers never close descriptors that an
    // OwnedFd of theirs still has, except right before exec or exit.
    answer(unsafe { libc::syscall(libc::SYS_close_range, first, last_fd, flags) }).map(|_| ())
}

/// dup2(2), and when `fd` is at `target` already, takes close-on-exec off.
pub fn place_fd(fd: RawFd, target: RawFd) -> Result<()> {
    if fd == target {
        // SAFETY: numbers only.
        return answer(unsafe { libc::syscall(libc::SYS_fcntl, fd, libc::F_SETFD, 0) }).map(|_| ());
    }
    // SAFETY: numbers only; the caller gives targets below every descriptor that it still owns.
    answer(unsafe { libc::syscall(libc::SYS_dup2, fd, target) }).map(|_| ())
}

/// execve(2); returns on failure only.
pub fn execve(path: &CStr, argv: *const *const libc::c_char, env: *const *const libc::c_char) -> Errno {
    // SAFETY: the arrays come from `Argv`, end with null and point to strings that end with NUL.
    unsafe { libc::syscall(libc::SYS_execve, path.as_ptr(), argv, env) };
    last()
}

/// execveat(2) of an open file; returns on failure only.
pub fn execveat_fd(fd: RawFd, argv: *const *const libc::c_char, env: *const *const libc::c_char) -> Errno {
    // SAFETY: as in `execve`; the path is the empty string, which AT_EMPTY_PATH allows.
    unsafe { libc::syscall(libc::SYS_execveat, fd, c"".as_ptr(), argv, env, libc::AT_EMPTY_PATH) };
    last()
}

/// Sets every signal that can be set to its default action. CLONE_CLEAR_SIGHAND leaves ignored ones ignored.
pub fn default_signals() {
    // The kernel's struct sigaction: handler, flags, restorer, mask. All zero is SIG_DFL.
    let action = [0_u64; 4];
    for signal in 1..=64 {
        if matches!(signal, libc::SIGKILL | libc::SIGSTOP) {
            continue;
        }
        // SAFETY: `action` is live and at least as long as the kernel's struct, with a mask of eight bytes. Not the C
        // library's call: that refuses its own two signals, which a caller may have ignored.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                action.as_ptr(),
                std::ptr::null_mut::<libc::c_void>(),
                size_of::<u64>(),
            )
        };
    }
}

/// Ignores a signal.
pub fn ignore_signal(signal: i32) {
    // The kernel's struct sigaction: handler, flags, restorer, mask.
    let action = [libc::SIG_IGN as u64, 0, 0, 0];
    // SAFETY: as in `default_signals`.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal,
            action.as_ptr(),
            std::ptr::null_mut::<libc::c_void>(),
            size_of::<u64>(),
        )
    };
}

/// Sets the signal mask of this thread and returns the old one. Bit n-1 is signal n.
pub fn signal_mask(mask: u64) -> Result<u64> {
    let mut old = 0_u64;
    // SAFETY: the kernel's set is eight bytes, as passed; both are live.
    let value = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const mask,
            &raw mut old,
            size_of::<u64>(),
        )
    };
    answer(value).map(|_| old)
}

/// signalfd4(2) for the signals of `mask`.
pub fn signalfd(mask: u64, flags: i32) -> Result<RawFd> {
    // SAFETY: the kernel's set is eight bytes, as passed, and live.
    answer(unsafe { libc::syscall(libc::SYS_signalfd4, -1, &raw const mask, size_of::<u64>(), flags) })
}

/// struct mount_attr of linux/mount.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct MountAttr {
    /// `MOUNT_ATTR_…` to set.
    pub set: u64,
    /// `MOUNT_ATTR_…` to clear.
    pub clear: u64,
    /// `MS_PRIVATE` and its kin, or 0.
    pub propagation: u64,
    /// User namespace of `MOUNT_ATTR_IDMAP`.
    pub userns_fd: u64,
}

/// mount_setattr(2) on the mount that `fd` is.
pub fn mount_setattr(fd: RawFd, flags: u32, attr: &MountAttr) -> Result<()> {
    // SAFETY: `attr` is live and of the size passed; the path is empty, as the caller's AT_EMPTY_PATH allows.
    let value = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd,
            c"".as_ptr(),
            flags | libc::AT_EMPTY_PATH as u32,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    };
    answer(value).map(|_| ())
}

/// keyctl(2) KEYCTL_JOIN_SESSION_KEYRING.
pub fn join_session_keyring(name: &CStr) -> Result<i32> {
    // SAFETY: a number and a string that ends with NUL.
    answer(unsafe { libc::syscall(libc::SYS_keyctl, 1, name.as_ptr(), 0, 0, 0) })
}

/// keyctl(2) KEYCTL_SETPERM.
pub fn set_key_permissions(key: i32, permissions: u32) -> Result<()> {
    // SAFETY: numbers only.
    answer(unsafe { libc::syscall(libc::SYS_keyctl, 5, key, permissions, 0, 0) }).map(|_| ())
}

/// keyctl(2) KEYCTL_DESCRIBE, for the permissions: `type;uid;gid;perm;description`.
pub fn describe_key(key: i32, buffer: &mut [u8]) -> Result<usize> {
    // SAFETY: the buffer is live and its length is passed.
    let value = unsafe { libc::syscall(libc::SYS_keyctl, 6, key, buffer.as_mut_ptr(), buffer.len(), 0) };
    answer(value).map(|n| usize::try_from(n).unwrap_or(0))
}

/// personality(2).
pub fn personality(value: u64) -> Result<()> {
    // SAFETY: a number.
    answer(unsafe { libc::syscall(libc::SYS_personality, value) }).map(|_| ())
}

/// ioprio_set(2) for this thread.
pub fn ioprio_set(value: i32) -> Result<()> {
    // SAFETY: numbers only; 1 is IOPRIO_WHO_PROCESS.
    answer(unsafe { libc::syscall(libc::SYS_ioprio_set, 1, 0, value) }).map(|_| ())
}

/// set_mempolicy(2); `nodes` is a bit per node.
pub fn set_mempolicy(mode: i32, nodes: &[u64]) -> Result<()> {
    let bits = nodes.len() * 64 + 1;
    let address = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // SAFETY: the mask is live and has the number of bits passed (the kernel takes one off).
    answer(unsafe {
        libc::syscall(libc::SYS_set_mempolicy, mode, address, if nodes.is_empty() { 0 } else { bits })
    })
    .map(|_| ())
}

/// struct sched_attr of linux/sched/types.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedAttr {
    /// Size of this struct.
    pub size: u32,
    /// `SCHED_…`.
    pub policy: u32,
    /// `SCHED_FLAG_…`.
    pub flags: u64,
    /// Nice value.
    pub nice: i32,
    /// Static priority.
    pub priority: u32,
    /// Nanoseconds, `SCHED_DEADLINE`.
    pub runtime: u64,
    /// Nanoseconds, `SCHED_DEADLINE`.
    pub deadline: u64,
    /// Nanoseconds, `SCHED_DEADLINE`.
    pub period: u64,
}

/// sched_setattr(2) for this thread.
pub fn sched_setattr(attr: &SchedAttr) -> Result<()> {
    // SAFETY: `attr` is live and carries its size.
    answer(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, std::ptr::from_ref(attr), 0) }).map(|_| ())
}

/// sched_setaffinity(2) for this thread; a bit per processor.
pub fn sched_setaffinity(mask: &[u64]) -> Result<()> {
    // SAFETY: the mask is live and its length in bytes is passed.
    answer(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, mask.len() * 8, mask.as_ptr()) })
        .map(|_| ())
}

/// NS_GET_NSTYPE: the `CLONE_NEW…` flag of a namespace.
pub fn namespace_type(fd: RawFd) -> Result<i32> {
    // SAFETY: the request takes no argument.
    answer(libc::c_long::from(unsafe { libc::ioctl(fd, 0xb703) }))
}

/// setns(2) with any set of flags, on a namespace or a pidfd.
pub fn setns(fd: RawFd, flags: i32) -> Result<()> {
    // SAFETY: numbers only. Callers have one thread, so no thread of theirs stays behind.
    answer(unsafe { libc::syscall(libc::SYS_setns, fd, flags) }).map(|_| ())
}

/// unshare(2).
pub fn unshare(flags: i32) -> Result<()> {
    // SAFETY: numbers only; CLONE_FILES is not among the flags that callers give, so no OwnedFd changes its meaning.
    answer(unsafe { libc::syscall(libc::SYS_unshare, flags) }).map(|_| ())
}

/// capset(2), version 3, for this thread.
pub fn capset(effective: u64, permitted: u64, inheritable: u64) -> Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    let header = Header { version: 0x2008_0522, pid: 0 };
    let low = |set: u64| (set & 0xffff_ffff) as u32;
    let high = |set: u64| (set >> 32) as u32;
    let data = [
        low(effective),
        low(permitted),
        low(inheritable),
        high(effective),
        high(permitted),
        high(inheritable),
    ];
    // SAFETY: version 3 takes two triples of u32, which is what `data` is; both are live.
    answer(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(|_| ())
}

/// prctl(2) with numbers only.
pub fn prctl(option: i32, a: u64, b: u64, c: u64, d: u64) -> Result<i32> {
    // SAFETY: callers use options whose arguments are numbers, none an address.
    answer(unsafe { libc::syscall(libc::SYS_prctl, option, a, b, c, d) })
}

/// Where the kernel says this program was found (AT_EXECFN).
pub fn exec_name() -> &'static CStr {
    // SAFETY: a number; the answer is an address or 0.
    let address = unsafe { libc::getauxval(libc::AT_EXECFN) };
    if address == 0 {
        return c"";
    }
    // SAFETY: the kernel put a string that ends with NUL at that address, above the stack, where it stays.
    unsafe { CStr::from_ptr(address as *const libc::c_char) }
}

/// prlimit64(2), setting only.
pub fn prlimit(pid: i32, resource: i32, soft: u64, hard: u64) -> Result<()> {
    let limit = [soft, hard];
    // SAFETY: the kernel's rlimit64 is two u64, live for the call; the old limit is not asked for.
    let value = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            pid,
            resource,
            limit.as_ptr(),
            std::ptr::null_mut::<libc::c_void>(),
        )
    };
    answer(value).map(|_| ())
}
