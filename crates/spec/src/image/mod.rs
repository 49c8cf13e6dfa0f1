//! Image documents: descriptor, manifest, index, config (image-spec 1.1), and Docker's schema 2 forms of them.

mod config;
mod manifest;
mod platform;

pub use config::{ContainerConfig, History, ImageConfig, RootFs};
pub use manifest::{Compression, Descriptor, Document, Index, Manifest, media_type};
pub use platform::Platform;

/// The largest manifest or index that is read, in bytes (what registries allow).
pub const MANIFEST_LIMIT_BYTES: usize = 4 << 20;
/// The largest image config that is read, in bytes.
pub const CONFIG_LIMIT_BYTES: usize = 8 << 20;
