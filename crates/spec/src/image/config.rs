//! The image config (image-spec config.md).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Digest;
use crate::json::{Error, null_default, parse};

/// What an image says of itself and of the containers made from it.
///
/// A document that is known by its digest is never written again from this: keep the bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// RFC 3339 time of creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Processor in Go's words.
    #[serde(default)]
    pub architecture: String,
    /// Variant of the processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Operating system.
    #[serde(default)]
    pub os: String,
    /// How to run it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<ContainerConfig>,
    /// Its layers.
    pub rootfs: RootFs,
    /// How it was made.
    #[serde(default, deserialize_with = "null_default")]
    pub history: Vec<History>,
}

/// The section `config`: defaults for the container's process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerConfig {
    /// `user`, `uid`, `user:group`, `uid:gid` and mixtures.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_default")]
    pub user: String,
    /// Ports such as `6379/tcp`; the values are empty objects.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_default")]
    pub exposed_ports: BTreeMap<String, Value>,
    /// `KEY=value`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub env: Vec<String>,
    /// First words of the command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Further words, replaced by what the user gives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Paths that get a volume of their own; the values are empty objects.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_default")]
    pub volumes: BTreeMap<String, Value>,
    /// Working directory.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_default")]
    pub working_dir: String,
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_default")]
    pub labels: BTreeMap<String, String>,
    /// Signal that asks it to stop, by name or number.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_default")]
    pub stop_signal: String,
    /// Docker's health check, kept as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Value>,
    /// Docker's shell for `RUN`, kept as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
}

/// The layers of an image by the digests of their tars.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Digests of the uncompressed layers, the lowest first.
    #[serde(deserialize_with = "null_default")]
    pub diff_ids: Vec<Digest>,
}

/// One step of an image's making.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// RFC 3339 time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Who made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// A remark.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// The step made no layer.
    #[serde(skip_serializing_if = "crate::json::is_false")]
    pub empty_layer: bool,
}

impl ImageConfig {
    /// Parses an image config.
    ///
    /// # Errors
    /// As [`parse`]; `Invalid` when `rootfs.type` is not `layers`.
    pub fn parse(text: &[u8]) -> Result<Self, Error> {
        let config: Self = parse(text, super::CONFIG_LIMIT_BYTES)?;
        if config.rootfs.kind != "layers" {
            let reason = format!("is {:?}, not \"layers\"", config.rootfs.kind);
            return Err(Error::Invalid { path: "rootfs.type".to_owned(), reason });
        }
        Ok(config)
    }

    /// Returns the chain id of each layer (image-spec config.md, section "Layer ChainID"), the lowest first.
    #[must_use]
    pub fn chain_ids(&self) -> Vec<Digest> {
        let mut chain: Vec<Digest> = Vec::with_capacity(self.rootfs.diff_ids.len());
        for diff_id in &self.rootfs.diff_ids {
            let next =
                chain.last().map_or(*diff_id, |parent| Digest::of(format!("{parent} {diff_id}").as_bytes()));
            chain.push(next);
        }
        chain
    }
}
