//! What callers ask of the runtime, and what they get back.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use bale_record::Dir;
use bale_spec::runtime::{Process, RuntimeConfig};

/// Where the root file system comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootSource {
    /// `root.path` of the config.
    Config,
    /// An overlay that is mounted inside the container only: nothing appears among the host's mounts.
    Overlay {
        /// Lower directories, top first.
        lowers: Vec<PathBuf>,
        /// Upper directory.
        upper: PathBuf,
        /// Work directory, on the file system of `upper`.
        work: PathBuf,
    },
}

/// What becomes of standard input, output and error.
#[derive(Debug)]
pub enum Stdio {
    /// The caller's own. With `process.terminal` the caller relays the terminal (see [`crate::Created::terminal`]).
    Inherit,
    /// These.
    Fds {
        /// Standard input.
        stdin: OwnedFd,
        /// Standard output.
        stdout: OwnedFd,
        /// Standard error.
        stderr: OwnedFd,
    },
    /// A new terminal, whose master is sent over this connected stream socket by `SCM_RIGHTS`.
    ConsoleSocket(OwnedFd),
}

/// Whose child the container's first process, or one of exec, is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitParent {
    /// The calling process's.
    Own,
    /// The calling process's parent's (`CLONE_PARENT`): the supervisor's, when its forked creator calls.
    Sibling,
}

/// Who makes cgroups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CgroupManager {
    /// bale, in the cgroup file system.
    #[default]
    Cgroupfs,
    /// systemd, asked over its bus.
    Systemd,
    /// Nobody: the container stays in the caller's cgroup.
    Disabled,
}

/// How a container is made.
#[derive(Debug)]
pub struct CreateOptions<'a> {
    /// Its directory, reserved by the caller. An existing record's `engine` and `supervisor` parts are kept.
    pub dir: &'a Dir,
    /// The bundle: what relative paths of the config are relative to.
    pub bundle: &'a Path,
    /// The config.
    pub config: RuntimeConfig,
    /// Where the root file system comes from.
    pub root: RootSource,
    /// Standard streams.
    pub stdio: Stdio,
    /// Whose child init is.
    pub init_parent: InitParent,
    /// Init waits for [`crate::start`] after it is made; otherwise it runs the program at once.
    pub wait_for_start: bool,
    /// Who makes the cgroup.
    pub cgroup_manager: CgroupManager,
    /// Below which the cgroup is made when the config has no `cgroupsPath`: `<this>/<id>`.
    pub default_cgroup_parent: String,
    /// Moves the root instead of pivot_root (for a host root on ramfs).
    pub no_pivot: bool,
    /// Makes no session keyring.
    pub no_new_keyring: bool,
    /// How many descriptors after 2 the program gets.
    pub preserve_fds: u32,
    /// Gets the pid, decimal, without a newline, before `create` returns.
    pub pid_file: Option<&'a Path>,
    /// Gets init's pidfd by `SCM_RIGHTS`.
    pub pidfd_socket: Option<OwnedFd>,
}

/// A container that was made.
#[derive(Debug)]
pub struct Created {
    /// Init's pid, as the caller sees it.
    pub pid: i32,
    /// Init's pidfd.
    pub pidfd: OwnedFd,
    /// The terminal's master, with [`Stdio::Inherit`] and `process.terminal`.
    pub terminal: Option<OwnedFd>,
}

/// How a process is started in a running container.
#[derive(Debug)]
pub struct ExecOptions<'a> {
    /// The process, complete.
    pub process: Process,
    /// Standard streams.
    pub stdio: Stdio,
    /// Whose child it is.
    pub parent: InitParent,
    /// Cgroups below the container's own: a controller (empty for all) and the path.
    pub cgroups: Vec<(String, String)>,
    /// Gets the pid, as [`CreateOptions::pid_file`].
    pub pid_file: Option<&'a Path>,
    /// Gets the pidfd, as [`CreateOptions::pidfd_socket`].
    pub pidfd_socket: Option<OwnedFd>,
    /// How many descriptors after 2 the program gets.
    pub preserve_fds: u32,
    /// Starts it in a frozen container too (it runs when that is thawed).
    pub ignore_paused: bool,
}

/// A process that was started in a container.
#[derive(Debug)]
pub struct Executed {
    /// Its pid, as the caller sees it.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
    /// The terminal's master, with [`Stdio::Inherit`] and `process.terminal`.
    pub terminal: Option<OwnedFd>,
}
