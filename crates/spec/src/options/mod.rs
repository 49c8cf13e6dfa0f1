//! What a user asks for on `bale run` and `bale create`: docker's flags as plain data, and their parsers.
//!
//! Flags come as typed ([`Flags`]) and become what is meant ([`RunOptions`]) in one step, [`resolve`]: whatever needs
//! the environment, the working directory or a file is handed in, so everything here can be fuzzed.

pub mod device;
pub mod env;
mod flags;
pub mod mount;
pub mod number;
pub mod security;

use std::collections::BTreeMap;

use bale_fault::{Fault, Kind};
use serde::{Deserialize, Serialize};

pub use flags::{Flags, Surroundings, environment, resolve};

use crate::image::Platform;
use crate::runtime::{Rlimit, Seccomp};

/// What is asked of one container. The image's config gives what is absent here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunOptions {
    /// Name of the container; the engine makes one up when absent.
    pub name: Option<String>,
    /// Words after the image: they replace the image's Cmd.
    pub command: Vec<String>,
    /// Replaces the image's Entrypoint and drops its Cmd; `Some` of an empty list takes the entrypoint away.
    pub entrypoint: Option<Vec<String>>,
    /// `KEY=value`, or `KEY` alone to take the image's value away; later ones win.
    pub env: Vec<String>,
    /// `user`, `uid`, `user:group` and mixtures, as typed; names are looked up in the container's files.
    pub user: Option<String>,
    /// Further groups, by name or number.
    pub group_add: Vec<String>,
    /// Working directory.
    pub workdir: Option<String>,
    /// Host name; the first 12 digits of the id when absent.
    pub hostname: Option<String>,
    /// NIS domain name.
    pub domainname: Option<String>,
    /// Gives the process a terminal (`-t`).
    pub tty: bool,
    /// Keeps standard input open (`-i`).
    pub interactive: bool,
    /// Labels, over the image's.
    pub labels: BTreeMap<String, String>,
    /// OCI annotations of the config.
    pub annotations: BTreeMap<String, String>,
    /// Bind mounts, volumes and tmpfs, in the order given.
    pub mounts: Vec<MountRequest>,
    /// The container's network.
    pub network: Network,
    /// Lines for `/etc/hosts`.
    pub extra_hosts: Vec<ExtraHost>,
    /// Name servers for `/etc/resolv.conf`; the host's when empty.
    pub dns: Vec<String>,
    /// Search domains for `/etc/resolv.conf`.
    pub dns_search: Vec<String>,
    /// Resolver options for `/etc/resolv.conf`.
    pub dns_options: Vec<String>,
    /// Devices of the host.
    pub devices: Vec<DeviceRequest>,
    /// Further rules of the device cgroup, such as `c 42:* rmw`.
    pub device_rules: Vec<crate::runtime::DeviceRule>,
    /// Capabilities to add, as `CAP_…` or `ALL`.
    pub cap_add: Vec<String>,
    /// Capabilities to take away, as `CAP_…` or `ALL`.
    pub cap_drop: Vec<String>,
    /// All capabilities, all devices, nothing masked, no seccomp.
    pub privileged: bool,
    /// `--security-opt`.
    pub security: Security,
    /// Makes the root file system read-only.
    pub read_only: bool,
    /// Runs a small init as pid 1 that reaps orphans and passes signals on.
    pub init: bool,
    /// Limits.
    pub limits: Limits,
    /// Resource limits of the process.
    pub ulimits: Vec<Rlimit>,
    /// Kernel parameters of the container's namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Bytes of `/dev/shm`; 64 MiB when absent.
    pub shm_size_bytes: Option<u64>,
    /// Shares the host's namespace of these kinds.
    pub host_namespaces: HostNamespaces,
    /// Signal that asks the container to stop, as its number; the image's, else SIGTERM.
    pub stop_signal: Option<i32>,
    /// Seconds between that signal and SIGKILL; 10 when absent, -1 waits for ever.
    pub stop_timeout_seconds: Option<i64>,
    /// Removes the container, and its anonymous volumes, when it ends.
    pub auto_remove: bool,
    /// Platform of the image; the host's when absent.
    pub platform: Option<Platform>,
}

/// A mount that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountRequest {
    /// Absolute path in the container, cleaned.
    pub target: String,
    /// Makes it read-only.
    pub readonly: bool,
    /// What is mounted.
    pub kind: MountKind,
}

/// What a mount shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "type")]
pub enum MountKind {
    /// A file or directory of the host.
    Bind {
        /// Absolute path on the host.
        source: String,
        /// Makes the directory when it is absent: `-v` does, `--mount` does not.
        create: bool,
        /// Mounts below the source come too.
        recursive: bool,
        /// `private`, `rprivate`, `shared`, `rshared`, `slave`, `rslave`; `rprivate` when absent.
        propagation: Option<String>,
    },
    /// A volume.
    Volume {
        /// Its name; an anonymous volume when absent.
        name: Option<String>,
        /// Fills an empty volume with what the image has at the target.
        copy_up: bool,
    },
    /// A file system in memory.
    Tmpfs {
        /// Mount options, such as `size=64m`, beside `nosuid,nodev,noexec` which docker sets.
        options: Vec<String>,
    },
}

/// The network of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// Nothing was asked: a network namespace with loopback only, and `run` says so.
    #[default]
    Unset,
    /// A network namespace with loopback only.
    None,
    /// The host's network.
    Host,
}

/// A line of `/etc/hosts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraHost {
    /// Name.
    pub name: String,
    /// IPv4 or IPv6 address.
    pub address: String,
}

/// A device of the host, or a directory of devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRequest {
    /// Absolute path on the host.
    pub source: String,
    /// Absolute path in the container.
    pub target: String,
    /// Some of `r`, `w`, `m`.
    pub access: String,
}

/// Confinement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Security {
    /// Sets the no_new_privs bit.
    pub no_new_privileges: bool,
    /// The system call filter.
    pub seccomp: SeccompChoice,
    /// AppArmor profile.
    pub apparmor: Option<String>,
    /// SELinux labelling, as given after `label=`.
    pub label: Vec<String>,
    /// Masks nothing and makes nothing read-only (`systempaths=unconfined`).
    pub unmasked_paths: bool,
}

/// Which system call filter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SeccompChoice {
    /// Docker's default profile.
    #[default]
    Default,
    /// None.
    Unconfined,
    /// A profile that the user gave.
    Profile(Box<Seccomp>),
}

/// Limits of the cgroup. Absent is unlimited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Bytes of memory.
    pub memory_bytes: Option<i64>,
    /// Bytes of memory and swap together; -1 is unlimited.
    pub memory_swap_bytes: Option<i64>,
    /// Soft limit in bytes.
    pub memory_reservation_bytes: Option<i64>,
    /// 0 to 100.
    pub memory_swappiness: Option<u64>,
    /// Leaves the container alone when memory is short.
    pub oom_kill_disable: bool,
    /// -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// Processors in billionths (`--cpus 1.5` is 1 500 000 000).
    pub nano_cpus: Option<u64>,
    /// Relative share.
    pub cpu_shares: Option<u64>,
    /// Microseconds of a period.
    pub cpu_period_us: Option<u64>,
    /// Microseconds of time in a period.
    pub cpu_quota_us: Option<i64>,
    /// CPU list.
    pub cpuset_cpus: Option<String>,
    /// NUMA node list.
    pub cpuset_mems: Option<String>,
    /// Most processes; -1 or 0 is unlimited, as docker says.
    pub pids: Option<i64>,
    /// 10 to 1000.
    pub blkio_weight: Option<u16>,
}

/// Namespaces that are shared with the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostNamespaces {
    /// `--pid host`.
    pub pid: bool,
    /// `--ipc host`.
    pub ipc: bool,
    /// `--uts host`.
    pub uts: bool,
    /// `--cgroupns host`.
    pub cgroup: bool,
}

/// Says what is wrong with the value of a flag.
fn wrong(flag: &str, value: &str, reason: impl std::fmt::Display) -> Fault {
    let shown: String = value.chars().take(200).collect();
    Fault::new(Kind::InvalidInput, format!("{flag} {shown:?}: {reason}"))
}
