//! Flags as typed, and the one step that gives them meaning.

use bale_fault::{Fault, Kind, Result};

use super::RunOptions;

/// Docker's flags as they were typed: text, not yet read. The names are the flags'.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Flags {
    pub name: Option<String>,
    pub command: Vec<String>,
    pub entrypoint: Option<String>,
    pub env: Vec<String>,
    pub env_file: Vec<String>,
    pub user: Option<String>,
    pub group_add: Vec<String>,
    pub workdir: Option<String>,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    pub tty: bool,
    pub interactive: bool,
    pub label: Vec<String>,
    pub label_file: Vec<String>,
    pub annotation: Vec<String>,
    pub volume: Vec<String>,
    pub mount: Vec<String>,
    pub tmpfs: Vec<String>,
    pub network: Option<String>,
    pub publish: Vec<String>,
    pub add_host: Vec<String>,
    pub dns: Vec<String>,
    pub dns_search: Vec<String>,
    pub dns_option: Vec<String>,
    pub device: Vec<String>,
    pub device_cgroup_rule: Vec<String>,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub privileged: bool,
    pub security_opt: Vec<String>,
    pub read_only: bool,
    pub init: bool,
    pub memory: Option<String>,
    pub memory_swap: Option<String>,
    pub memory_reservation: Option<String>,
    pub memory_swappiness: Option<String>,
    pub oom_kill_disable: bool,
    pub oom_score_adj: Option<String>,
    pub cpus: Option<String>,
    pub cpu_shares: Option<String>,
    pub cpu_period: Option<String>,
    pub cpu_quota: Option<String>,
    pub cpuset_cpus: Option<String>,
    pub cpuset_mems: Option<String>,
    pub pids_limit: Option<String>,
    pub blkio_weight: Option<String>,
    pub shm_size: Option<String>,
    pub ulimit: Vec<String>,
    pub sysctl: Vec<String>,
    pub pid: Option<String>,
    pub ipc: Option<String>,
    pub uts: Option<String>,
    pub cgroupns: Option<String>,
    pub stop_signal: Option<String>,
    pub stop_timeout: Option<String>,
    pub rm: bool,
    pub platform: Option<String>,
    pub restart: Option<String>,
}

/// What flags refer to outside of themselves. The caller has it; nothing is looked up here.
pub trait Surroundings {
    /// Returns a variable of the caller's environment (`-e KEY`).
    fn variable(&self, name: &str) -> Option<String>;
    /// Returns the absolute working directory (`-v ./data:/data`).
    fn working_directory(&self) -> String;
    /// Reads a text file of the user's, bounded (`--env-file`, `--security-opt seccomp=`).
    ///
    /// # Errors
    /// The failed read.
    fn read(&self, path: &str) -> Result<String>;
}

/// Reads flags.
///
/// # Errors
/// `InvalidInput` names the flag, its value and what would be right; `Unsupported` for what bale does not have.
pub fn resolve(_flags: &Flags, _around: &dyn Surroundings) -> Result<RunOptions> {
    Err(Fault::new(Kind::Unsupported, "flags are not read yet"))
}
