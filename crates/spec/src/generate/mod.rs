//! From an image's config and what the user asks for to a `config.json`, as docker makes it.

use std::collections::BTreeMap;

use bale_fault::{Fault, Kind, Result};
use serde::{Deserialize, Serialize};

use crate::image::ImageConfig;
use crate::options::RunOptions;
use crate::runtime::RuntimeConfig;

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
    /// Absolute path of the bale binary on the host, for `--init`.
    pub init_binary: Option<String>,
    /// Name of this host, for `--uts host`.
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

/// Makes the config of a container.
///
/// # Errors
/// `InvalidInput` with docker's words: a user that is not in passwd, no command, a mount point used twice.
pub fn config(_image: &ImageConfig, _options: &RunOptions, _facts: &HostFacts) -> Result<Generated> {
    Err(Fault::new(Kind::Unsupported, "configs are not generated yet"))
}
