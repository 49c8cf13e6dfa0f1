//! Who a process is and what it may: ids, capabilities, limits, scheduling. Bare errnos, no allocation.

use std::ffi::CStr;

use rustix::io::{Errno, Result};
use rustix::process::{Gid, Uid};

use crate::raw;
pub use crate::raw::SchedAttr;

/// Every capability by number, with the name that configs use.
pub const CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// CAP_SYS_RESOURCE.
pub const SYS_RESOURCE: u32 = 24;

/// Returns the number of a capability by its name, with or without `CAP_`, in any case.
#[must_use]
pub fn capability(name: &str) -> Option<u32> {
    let bare = |full: &str| full.len() == name.len() + 4 && full[4..].eq_ignore_ascii_case(name);
    let position = CAPABILITIES.iter().position(|full| full.eq_ignore_ascii_case(name) || bare(full))?;
    u32::try_from(position).ok()
}

/// Returns this thread's permitted capabilities, a bit each.
///
/// # Errors
/// The failed capget.
pub fn permitted() -> Result<u64> {
    rustix::thread::capabilities(None).map(|sets| sets.permitted.bits())
}

/// Sets effective, permitted and inheritable capabilities, a bit each.
///
/// # Errors
/// The failed capset.
pub fn set_capabilities(effective: u64, permitted: u64, inheritable: u64) -> Result<()> {
    raw::capset(effective, permitted, inheritable)
}

/// Takes the capabilities of `drop` out of the bounding set; those the kernel does not know are passed over.
///
/// # Errors
/// The failed prctl.
pub fn drop_bounding(drop: u64) -> Result<()> {
    for number in (0..64).filter(|number| drop & (1 << number) != 0) {
        match raw::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) {
            Ok(_) => {}
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Replaces the ambient set. Capabilities that are not permitted and inheritable are passed over.
///
/// # Errors
/// The failed prctl.
pub fn set_ambient(set: u64) -> Result<()> {
    raw::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0, 0, 0)?;
    for number in (0..64).filter(|number| set & (1 << number) != 0) {
        match raw::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, number, 0, 0) {
            Ok(_) | Err(Errno::PERM | Errno::INVAL) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Keeps the permitted capabilities over a change of user, or not.
///
/// # Errors
/// The failed prctl.
pub fn keep_capabilities(keep: bool) -> Result<()> {
    raw::prctl(libc::PR_SET_KEEPCAPS, u64::from(keep), 0, 0, 0).map(|_| ())
}

/// Sets real, effective and saved user id of this thread.
///
/// # Errors
/// The failed setresuid.
pub fn set_uid(uid: u32) -> Result<()> {
    let uid = Uid::from_raw(uid);
    rustix::thread::set_thread_res_uid(uid, uid, uid)
}

/// Sets real, effective and saved group id of this thread.
///
/// # Errors
/// The failed setresgid.
pub fn set_gid(gid: u32) -> Result<()> {
    let gid = Gid::from_raw(gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid)
}

/// Sets the further groups of this thread.
///
/// # Errors
/// The failed setgroups.
pub fn set_groups(groups: &[Gid]) -> Result<()> {
    rustix::thread::set_thread_groups(groups)
}

/// Sets or clears "dumpable": 0 keeps others from reading `/proc/<pid>` and from ptrace.
///
/// # Errors
/// The failed prctl.
pub fn set_dumpable(dumpable: bool) -> Result<()> {
    raw::prctl(libc::PR_SET_DUMPABLE, u64::from(dumpable), 0, 0, 0).map(|_| ())
}

/// Forbids gaining privileges by exec, for good.
///
/// # Errors
/// The failed prctl.
pub fn no_new_privileges() -> Result<()> {
    raw::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).map(|_| ())
}

/// Makes orphans among this process's descendants its children.
///
/// # Errors
/// The failed prctl.
pub fn set_subreaper() -> Result<()> {
    raw::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0).map(|_| ())
}

/// Gives this process a new session keyring with its name, and lets its user search it.
///
/// # Errors
/// The failed keyctl.
pub fn join_session_keyring(name: &CStr) -> Result<()> {
    let key = raw::join_session_keyring(name)?;
    let mut text = [0_u8; 256];
    let length = raw::describe_key(key, &mut text)?.min(text.len());
    // type;uid;gid;permissions in hexadecimal;description
    let field = text[..length].split(|&b| b == b';').nth(3).unwrap_or_default();
    let old =
        field.iter().try_fold(0_u32, |value, &digit| Some(value << 4 | char::from(digit).to_digit(16)?));
    // The search bit of the user, so that `keyctl` works inside (as runc does).
    raw::set_key_permissions(key, old.unwrap_or(0x3f01_0000) | 0x0008_0000)
}

/// Sets the execution domain.
///
/// # Errors
/// The failed personality.
pub fn set_personality(value: u64) -> Result<()> {
    raw::personality(value)
}

/// Sets this thread's I/O priority.
///
/// # Errors
/// The failed ioprio_set.
pub fn set_io_priority(class: i32, level: i32) -> Result<()> {
    raw::ioprio_set(class << 13 | level)
}

/// Sets the NUMA policy; a bit per node.
///
/// # Errors
/// The failed set_mempolicy.
pub fn set_memory_policy(mode: i32, nodes: &[u64]) -> Result<()> {
    raw::set_mempolicy(mode, nodes)
}

/// Sets this thread's scheduler.
///
/// # Errors
/// The failed sched_setattr.
pub fn set_scheduler(attr: &SchedAttr) -> Result<()> {
    raw::sched_setattr(attr)
}

/// Sets the processors this thread may run on; a bit each.
///
/// # Errors
/// The failed sched_setaffinity.
pub fn set_affinity(mask: &[u64]) -> Result<()> {
    raw::sched_setaffinity(mask)
}

/// Sets a limit of this process by its number (`RLIMIT_…`); `u64::MAX` is unlimited.
///
/// # Errors
/// The failed prlimit64.
pub fn set_limit(resource: i32, soft: u64, hard: u64) -> Result<()> {
    raw::prlimit(0, resource, soft, hard)
}

/// Sets a limit of another process.
///
/// # Errors
/// The failed prlimit64.
pub fn set_limit_of(pid: i32, resource: i32, soft: u64, hard: u64) -> Result<()> {
    raw::prlimit(pid, resource, soft, hard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_known_by_name() {
        assert_eq!(capability("CAP_SYS_RESOURCE"), Some(SYS_RESOURCE));
        assert_eq!(capability("chown"), Some(0));
        assert_eq!(capability("CAP_NONE"), None);
        assert_eq!(capability("CAP_CHECKPOINT_RESTORE"), Some(40));
    }
}
