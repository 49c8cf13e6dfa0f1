//! The runtime configuration `config.json` (runtime-spec 1.3, config.md and config-linux.md), and the state document.
//!
//! Field order is the canonical order in which bale writes a config. Unknown keys are ignored, as the specification
//! wants; `check` warns about them.

mod hooks;
mod linux;
mod process;
mod resources;
mod seccomp;
mod state;
mod version;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use hooks::{Hook, Hooks};
pub use linux::{
    Device, IdMapping, IntelRdt, Linux, MemoryPolicy, Namespace, NamespaceKind, NetDevice, Personality,
    TimeOffset,
};
pub use process::{Capabilities, ConsoleSize, ExecCpuAffinity, IoPriority, Process, Rlimit, Scheduler, User};
pub use resources::{
    BlockIo, Cpu, DeviceRule, HugepageLimit, InterfacePriority, Memory, Network, Pids, Rdma, Resources,
    ThrottleDevice, WeightDevice,
};
pub use seccomp::{Seccomp, SeccompArg, SyscallRule};
pub use state::{State, Status};
pub use version::Need;

use crate::json::{CONFIG_LIMIT_BYTES, Error, null_default, parse};

/// The newest version of the runtime specification that bale knows; what it makes says [`RuntimeConfig::lowest_version`].
pub const SPEC_VERSION: &str = "1.3.0";

/// A `config.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeConfig {
    /// Version of the specification.
    pub oci_version: String,
    /// The container's process; may be absent in a config that is never started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// The root file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<Root>,
    /// Host name; wants a UTS namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// NIS domain name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domainname: Option<String>,
    /// Mounts, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub mounts: Vec<Mount>,
    /// Hooks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Hooks>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_default")]
    pub annotations: BTreeMap<String, String>,
    /// Linux.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub linux: Option<Linux>,
}

impl RuntimeConfig {
    /// Parses a `config.json` of any 1.x version.
    ///
    /// # Errors
    /// As [`parse`], with a limit of [`CONFIG_LIMIT_BYTES`].
    pub fn parse(text: &[u8]) -> Result<Self, Error> {
        parse(text, CONFIG_LIMIT_BYTES)
    }

    /// Writes the canonical text: the order of the fields here, indented by two spaces, a newline at the end.
    #[must_use]
    pub fn to_canonical(&self) -> String {
        // Serializing plain data into a string fails only for maps whose keys are no strings; there are none.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }
}

/// The root file system of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// Path, relative to the bundle or absolute.
    pub path: String,
    /// Makes `/` read-only.
    #[serde(default)]
    pub readonly: bool,
}

/// One mount.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// Where, inside the container.
    pub destination: String,
    /// File system type; `bind` or absent for a bind mount.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Source: device, name, or for a bind mount a path (relative to the bundle or absolute).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Options as of fstab(5), with runc's additions.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub options: Vec<String>,
    /// Mapping of user ids for this mount.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub uid_mappings: Vec<IdMapping>,
    /// Mapping of group ids for this mount.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub gid_mappings: Vec<IdMapping>,
}
