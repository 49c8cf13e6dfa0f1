//! What init says to its parent.
//!
//! ```text
//! parent                        init
//!   |  clone3                    |
//!   |--------------------------->|   operations 0, 1, 2 …
//!   |      SYNC(point)           |
//!   |<---------------------------|   only where the plan has Op::Sync
//!   |  (maps, hooks, limits)     |
//!   |      DONE                  |
//!   |--------------------------->|
//!   |      LIMITED               |   at some time: the cgroup's limits are written; init goes no further without it
//!   |--------------------------->|
//!   |      ANNOUNCED             |   the container is set up; what is left is the process
//!   |<---------------------------|
//!   |      READY                 |   only where the plan has Op::WaitForStart
//!   |<---------------------------|   from here on init answers on result.fifo
//!   |                            |
//!   |      end of file           |   exec closed init's side: the program runs
//!   |<---------------------------|
//! ```
//! At any moment instead: FAILURE with the operation's index, the call, its argument's index, errno, and the
//! kernel's words if it had any.

/// First byte of a message.
pub const FAILURE: u8 = 0;
/// First byte of a message.
pub const SYNC: u8 = 1;
/// First byte of a message.
pub const READY: u8 = 2;
/// First byte of a message: the container is set up; what is left is the process.
pub const ANNOUNCED: u8 = 3;
/// The length of [`ANNOUNCED`]: then come seven bytes of nothing and three times of the monotonic clock in nanoseconds,
/// at which init began, had its root, and said this.
pub const ANNOUNCED_LENGTH: usize = 32;
/// First byte of a message that carries a pidfd: the process went on as that one, whose pid follows.
pub const MOVED: u8 = 4;
/// What the parent says, one byte: the point is reached, go on.
pub const DONE: u8 = b'1';
/// What the parent says, one byte, without being asked: the cgroup's limits are written. Most often it is there before
/// init comes to where it waits for it, which is then no wait at all.
pub const LIMITED: u8 = b'2';
/// The longest text of a failure.
pub const TEXT_MAX: usize = 240;
/// The longest message.
pub const MESSAGE_MAX: usize = 16 + TEXT_MAX;

/// The call that failed in an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Call {
    /// No call of its own; errno says it.
    None,
    /// openat2 of the target.
    OpenTarget,
    /// Creation of the target.
    MakeTarget,
    /// fsopen.
    FsOpen,
    /// fsconfig of the option with this index.
    FsConfig,
    /// fsconfig CREATE.
    FsCreate,
    /// fsmount.
    FsMount,
    /// move_mount.
    MoveMount,
    /// open_tree.
    OpenTree,
    /// mount_setattr.
    MountSetattr,
    /// mknodat.
    Mknod,
    /// A file that is there is not the wanted device.
    NotTheDevice,
    /// symlinkat.
    Symlink,
    /// fchownat.
    Chown,
    /// open.
    Open,
    /// write.
    Write,
    /// read.
    Read,
    /// fchdir.
    Chdir,
    /// pivot_root.
    Pivot,
    /// umount2.
    Unmount,
    /// chroot.
    Chroot,
    /// setns.
    Setns,
    /// unshare.
    Unshare,
    /// setresuid.
    Setuid,
    /// setresgid.
    Setgid,
    /// setgroups.
    Setgroups,
    /// capset.
    Capset,
    /// prctl.
    Prctl,
    /// ioctl.
    Ioctl,
    /// sendmsg.
    Send,
    /// dup2.
    Dup,
    /// fork.
    Fork,
    /// A hook ended with this status (argument) or by a signal (256 + signal), or ran out of time (1000).
    HookStatus,
    /// The program was not found in `$PATH`.
    NotInPath,
    /// stat or access of the program.
    Program,
    /// execve.
    Exec,
    /// seccomp.
    Seccomp,
    /// mkdirat, or a copied file.
    CopyUp,
    /// prlimit64.
    Prlimit,
    /// fspick.
    FsPick,
    /// fsconfig RECONFIGURE.
    FsReconfigure,
}

impl Call {
    /// Reads the byte of a message.
    #[must_use]
    pub fn from_byte(byte: u8) -> Self {
        const ALL: [Call; 41] = [
            Call::None,
            Call::OpenTarget,
            Call::MakeTarget,
            Call::FsOpen,
            Call::FsConfig,
            Call::FsCreate,
            Call::FsMount,
            Call::MoveMount,
            Call::OpenTree,
            Call::MountSetattr,
            Call::Mknod,
            Call::NotTheDevice,
            Call::Symlink,
            Call::Chown,
            Call::Open,
            Call::Write,
            Call::Read,
            Call::Chdir,
            Call::Pivot,
            Call::Unmount,
            Call::Chroot,
            Call::Setns,
            Call::Unshare,
            Call::Setuid,
            Call::Setgid,
            Call::Setgroups,
            Call::Capset,
            Call::Prctl,
            Call::Ioctl,
            Call::Send,
            Call::Dup,
            Call::Fork,
            Call::HookStatus,
            Call::NotInPath,
            Call::Program,
            Call::Exec,
            Call::Seccomp,
            Call::CopyUp,
            Call::Prlimit,
            Call::FsPick,
            Call::FsReconfigure,
        ];
        ALL.get(usize::from(byte)).copied().unwrap_or(Call::None)
    }

    /// Returns the name of the system call.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None | Self::NotTheDevice | Self::HookStatus | Self::NotInPath => "",
            Self::OpenTarget => "openat2",
            Self::MakeTarget => "create the mount point",
            Self::FsOpen => "fsopen",
            Self::FsConfig => "fsconfig",
            Self::FsCreate => "fsconfig(CREATE)",
            Self::FsMount => "fsmount",
            Self::MoveMount => "move_mount",
            Self::OpenTree => "open_tree",
            Self::MountSetattr => "mount_setattr",
            Self::Mknod => "mknodat",
            Self::Symlink => "symlinkat",
            Self::Chown => "fchownat",
            Self::Open => "open",
            Self::Write => "write",
            Self::Read => "read",
            Self::Chdir => "chdir",
            Self::Pivot => "pivot_root",
            Self::Unmount => "umount2",
            Self::Chroot => "chroot",
            Self::Setns => "setns",
            Self::Unshare => "unshare",
            Self::Setuid => "setresuid",
            Self::Setgid => "setresgid",
            Self::Setgroups => "setgroups",
            Self::Capset => "capset",
            Self::Prctl => "prctl",
            Self::Ioctl => "ioctl",
            Self::Send => "sendmsg",
            Self::Dup => "dup2",
            Self::Fork => "clone3",
            Self::Program => "access",
            Self::Exec => "exec",
            Self::Seccomp => "seccomp",
            Self::CopyUp => "copy up",
            Self::Prlimit => "prlimit64",
            Self::FsPick => "fspick",
            Self::FsReconfigure => "fsconfig(RECONFIGURE)",
        }
    }
}

/// A failed operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The operation.
    pub op: u16,
    /// The call.
    pub call: Call,
    /// Which of its arguments, where that says more.
    pub argument: u16,
    /// The kernel's answer.
    pub errno: i32,
}

impl Failure {
    /// Makes a failure without words.
    #[must_use]
    pub const fn new(call: Call, errno: i32) -> Self {
        Self { op: 0, call, argument: 0, errno }
    }

    /// Writes the message with the kernel's words, if it had any; returns its length.
    pub fn encode(&self, text: &[u8], message: &mut [u8; MESSAGE_MAX]) -> usize {
        let length = text.len().min(TEXT_MAX);
        message[0] = FAILURE;
        message[1] = self.call as u8;
        message[2..4].copy_from_slice(&self.op.to_ne_bytes());
        message[4..6].copy_from_slice(&self.argument.to_ne_bytes());
        message[8..12].copy_from_slice(&self.errno.to_ne_bytes());
        message[16..16 + length].copy_from_slice(&text[..length]);
        16 + length
    }

    /// Reads a message that begins with [`FAILURE`], and the kernel's words in it.
    #[must_use]
    pub fn decode(message: &[u8]) -> Option<(Self, String)> {
        if message.len() < 16 || message[0] != FAILURE {
            return None;
        }
        let failure = Self {
            op: u16::from_ne_bytes([message[2], message[3]]),
            call: Call::from_byte(message[1]),
            argument: u16::from_ne_bytes([message[4], message[5]]),
            errno: i32::from_ne_bytes([message[8], message[9], message[10], message[11]]),
        };
        Some((failure, String::from_utf8_lossy(&message[16..]).trim().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_read_back() {
        let failure = Failure { op: 7, argument: 3, ..Failure::new(Call::Prlimit, 1) };
        let mut message = [0; MESSAGE_MAX];
        let length = failure.encode(b"hi\n", &mut message);
        assert_eq!(Failure::decode(&message[..length]), Some((failure, "hi".to_owned())));
        assert_eq!(Call::from_byte(Call::Exec as u8), Call::Exec);
        assert_eq!(Call::from_byte(200), Call::None);
    }
}
