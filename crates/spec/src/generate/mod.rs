//! From an image's config and what the user asks for to a `config.json`, as docker makes it.
//!
//! The defaults were compared with what docker 28.5 hands to its runtime; the differences are deliberate:
//!
//! | docker | here | why |
//! |---|---|---|
//! | shares the host's cgroup namespace on cgroup v1 | always a cgroup namespace of its own | CVE-2022-0492, CVE-2023-25809 |
//! | device rules twice | deny all, then what was asked for | the runtime adds the devices that every container has |
//! | `--init` mounts `docker-init` | [`Generated::init`]: the runtime starts the sealed bale binary itself | nothing of the host's is mounted, nothing is left in the root file system |
//! | domain name as sysctl | `domainname` | the specification has the field since 1.1 |
//! | no HOME, the runtime adds it | HOME of passwd, last | the config says what will happen |

mod bundle;
mod default;
mod etc;
mod limits;
mod mounts;
mod process;

use std::collections::BTreeMap;

use bale_fault::{Fault, Kind, Result};
use serde::{Deserialize, Serialize};

pub use bundle::bundle_config;
pub use default::{rootless_spec, spec};
pub use etc::{hostname_file, hosts_file, resolv_conf_file};
pub use mounts::volume_source;
pub use process::capabilities;

use crate::image::{ContainerConfig, ImageConfig};
use crate::options::{Network, RunOptions, SeccompChoice};
use crate::runtime::{Linux, Namespace, NamespaceKind, Root, RuntimeConfig};
use crate::signal;

/// What the caller found out about the host and the root file system.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostFacts {
    /// Id of the container: 64 hexadecimal digits.
    pub container_id: String,
    /// Value of `root.path`: `rootfs` in a bundle.
    pub root_path: String,
    /// Text of the root file system's `/etc/passwd`; absent when it has none.
    pub passwd: Option<String>,
    /// Text of the root file system's `/etc/group`; absent when it has none.
    pub group: Option<String>,
    /// Absolute path of the directory that holds volumes by name: a volume is `<volumes>/<name>/_data`.
    pub volumes: String,
    /// Absolute paths on the host of the files the engine made for `/etc/resolv.conf`, `/etc/hostname` and
    /// `/etc/hosts`; all absent in a self-contained bundle.
    pub etc: EtcFiles,
    /// The nodes found at the paths of [`RunOptions::devices`], and with `--privileged` all below `/dev`.
    pub devices: Vec<HostDevice>,
    /// Names of all capabilities this kernel has, for `--privileged` and `--cap-add ALL`.
    pub capabilities: Vec<String>,
    /// Name of this host: what the container is called on the host's network or with `--uts host`.
    pub hostname: String,
    /// Value of `linux.cgroupsPath`; absent leaves it to the runtime.
    pub cgroups_path: Option<String>,
}

/// Files made by the engine that are bound over those of the root file system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EtcFiles {
    /// For `/etc/resolv.conf`.
    pub resolv_conf: Option<String>,
    /// For `/etc/hostname`.
    pub hostname: Option<String>,
    /// For `/etc/hosts`.
    pub hosts: Option<String>,
}

/// A device node of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostDevice {
    /// Absolute path on the host.
    pub path: String,
    /// `c` or `b`.
    pub kind: char,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A config and what must be there before it can be used.
#[derive(Clone, Debug, PartialEq)]
pub struct Generated {
    /// The config. `linux.seccomp` is set only for a profile that the user gave.
    pub config: RuntimeConfig,
    /// The runtime's docker default profile is to be put into `linux.seccomp`.
    pub default_seccomp: bool,
    /// The runtime is to start the sealed bale binary as pid 1, in the role `@init -- ARGS…`, and not `process.args`.
    pub init: bool,
    /// Volumes to make, or to find, before the start.
    pub volumes: Vec<Volume>,
    /// Directories of the host to make when absent (`-v /host:/container`).
    pub create_directories: Vec<String>,
    /// Labels: the image's with the user's over them.
    pub labels: BTreeMap<String, String>,
    /// Number of the signal that asks the container to stop.
    pub stop_signal: i32,
    /// Lines about what was left out or guessed.
    pub warnings: Vec<String>,
}

/// A volume that a config mounts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Name: the user's, or 64 hexadecimal digits made from container id and destination.
    pub name: String,
    /// Nobody named it: it goes with the container (`--rm`, `rm -v`).
    pub anonymous: bool,
    /// Where it is mounted in the container.
    pub destination: String,
    /// Absolute path of its files on the host.
    pub source: String,
    /// When it is empty, it gets what the image has at the destination (content, owner and mode).
    pub copy_up: bool,
}

/// Paths that docker hides (moby, oci/defaults.go).
pub const MASKED_PATHS: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Paths that docker makes read-only.
pub const READONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Makes the config of a container.
///
/// # Errors
/// `InvalidInput` with docker's words: a user that is not in passwd, no command, a mount point used twice.
pub fn config(image: &ImageConfig, options: &RunOptions, facts: &HostFacts) -> Result<Generated> {
    let defaults = image.config.clone().unwrap_or_default();
    let hostname = hostname(options, facts);
    let process = process::process(&defaults, options, facts, &hostname)?;
    let mounted = mounts::mounts(&defaults, options, facts)?;
    let mut config = RuntimeConfig {
        oci_version: String::new(),
        process: Some(process),
        root: Some(Root { path: facts.root_path.clone(), readonly: options.read_only }),
        hostname: (!options.host_namespaces.uts).then_some(hostname),
        domainname: options.domainname.clone(),
        mounts: mounted.mounts,
        hooks: None,
        annotations: options.annotations.clone(),
        linux: Some(linux(options, facts)?),
    };
    config.oci_version = config.lowest_version().to_owned();
    let mut labels = defaults.labels.clone();
    labels.extend(options.labels.clone());
    let default_seccomp = options.security.seccomp == SeccompChoice::Default && !options.privileged;
    Ok(Generated {
        config,
        default_seccomp,
        init: options.init,
        volumes: mounted.volumes,
        create_directories: mounted.create_directories,
        labels,
        stop_signal: stop_signal(&defaults, options)?,
        warnings: warnings(options),
    })
}

/// The host's name on the host's network, as docker does, or what was asked for, or the short id.
fn hostname(options: &RunOptions, facts: &HostFacts) -> String {
    let shared = options.host_namespaces.uts || options.network == Network::Host;
    let short = || facts.container_id.chars().take(12).collect();
    let fallback = || if shared && !facts.hostname.is_empty() { facts.hostname.clone() } else { short() };
    options.hostname.clone().unwrap_or_else(fallback)
}

fn linux(options: &RunOptions, facts: &HostFacts) -> Result<Linux> {
    let open = options.privileged || options.security.unmasked_paths;
    let paths =
        |list: &[&str]| if open { Vec::new() } else { list.iter().map(|p| (*p).to_owned()).collect() };
    Ok(Linux {
        sysctl: sysctls(options),
        resources: Some(limits::resources(options, facts)?),
        cgroups_path: facts.cgroups_path.clone(),
        namespaces: namespaces(options),
        devices: limits::devices(options, facts)?,
        seccomp: match &options.security.seccomp {
            SeccompChoice::Profile(profile) if !options.privileged => Some(profile.as_ref().clone()),
            _ => None,
        },
        masked_paths: paths(&MASKED_PATHS),
        readonly_paths: paths(&READONLY_PATHS),
        ..Linux::default()
    })
}

fn namespaces(options: &RunOptions) -> Vec<Namespace> {
    let host = options.host_namespaces;
    let kinds = [
        (NamespaceKind::Pid, !host.pid),
        (NamespaceKind::Network, options.network != Network::Host),
        (NamespaceKind::Ipc, !host.ipc),
        (NamespaceKind::Uts, !host.uts),
        (NamespaceKind::Mount, true),
        (NamespaceKind::Cgroup, !host.cgroup),
    ];
    kinds.into_iter().filter(|(_, own)| *own).map(|(kind, _)| Namespace { kind, path: None }).collect()
}

/// In a network of its own every port is the container's, and anybody may ping (docker since 20.10).
fn sysctls(options: &RunOptions) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    if options.network != Network::Host {
        found.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
        found.insert("net.ipv4.ping_group_range".to_owned(), "0 2147483647".to_owned());
    }
    found.extend(options.sysctls.clone());
    found
}

fn stop_signal(defaults: &ContainerConfig, options: &RunOptions) -> Result<i32> {
    const SIGTERM: i32 = 15;
    match (options.stop_signal, defaults.stop_signal.as_str()) {
        (Some(number), _) => Ok(number),
        (None, "") => Ok(SIGTERM),
        (None, text) => signal::parse(text).ok_or_else(|| {
            let fault =
                Fault::new(Kind::InvalidInput, format!("the image's stop signal {text:?} is no signal"));
            fault.hint("say --stop-signal TERM")
        }),
    }
}

fn warnings(options: &RunOptions) -> Vec<String> {
    let mut lines = Vec::new();
    if !options.security.label.is_empty() && options.security.label != ["disable"] {
        lines.push("--security-opt label=… is ignored: bale does not set SELinux labels".to_owned());
    }
    lines
}

#[cfg(test)]
mod tests;
