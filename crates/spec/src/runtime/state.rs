//! The state document (runtime-spec runtime.md, section "State"), as runc prints it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Being made.
    Creating,
    /// Made; its process waits for `start`.
    Created,
    /// Its process runs.
    Running,
    /// Its processes are frozen (runc's extension).
    Paused,
    /// Its process has ended.
    Stopped,
}

impl Status {
    /// Returns the word of the specification.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// What `state` prints and hooks read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// Version of the specification.
    pub oci_version: String,
    /// Container id.
    pub id: String,
    /// Pid of the first process as the runtime sees it; 0 when it has ended.
    pub pid: i32,
    /// Where it is in its life.
    pub status: Status,
    /// Absolute path of the bundle.
    pub bundle: String,
    /// Absolute path of the root file system (runc's extension).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rootfs: String,
    /// RFC 3339 time of creation (runc's extension).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub created: String,
    /// The config's annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Owner (runc's extension, empty there too for root).
    #[serde(default)]
    pub owner: String,
}
