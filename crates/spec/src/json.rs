//! Reading JSON that strangers wrote: bounded in size, `null` where a list belongs.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

/// The largest `config.json` that is read, in bytes (runc has no limit; a config of a real container is 10 to 60 KiB).
pub const CONFIG_LIMIT_BYTES: usize = 16 << 20;

/// Why a document was refused.
#[derive(Debug)]
pub enum Error {
    /// The document is longer than `limit_bytes`.
    TooLarge {
        /// The limit that was exceeded.
        limit_bytes: usize,
    },
    /// The text is not JSON, or not of the wanted shape; carries serde's words with line and column.
    Malformed(serde_json::Error),
    /// The shape is right and a value is not; `path` is the JSON path of the field at fault.
    Invalid {
        /// JSON path from the root of the document, such as `layers[2].digest`.
        path: String,
        /// What is wrong, in lower case, without the path.
        reason: String,
    },
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLarge { limit_bytes } => write!(f, "the document is larger than {limit_bytes} bytes"),
            Self::Malformed(_) => write!(f, "malformed document"),
            Self::Invalid { path, reason } => write!(f, "{path}: {reason}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Malformed(source) => Some(source),
            _ => None,
        }
    }
}

/// Parses `text` into `T`. serde_json itself refuses nesting deeper than 128.
///
/// # Errors
/// `TooLarge` above `limit_bytes`, `Malformed` when it is not JSON of that shape.
pub fn parse<T: DeserializeOwned>(text: &[u8], limit_bytes: usize) -> Result<T, Error> {
    if text.len() > limit_bytes {
        return Err(Error::TooLarge { limit_bytes });
    }
    serde_json::from_slice(text).map_err(Error::Malformed)
}

/// Reads `null` as the default value: Go writes a nil slice or map as `null`, and so do the bundles of 2015.
pub(crate) fn null_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Tells serde to leave `false` out, as Go's `omitempty` does.
#[allow(clippy::trivially_copy_pass_by_ref)]
pub(crate) fn is_false(value: &bool) -> bool {
    !*value
}
