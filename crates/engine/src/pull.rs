//! `pull`.

use bale_fault::{Fault, Kind, Result};
use bale_registry::Settings;
use bale_spec::image::Platform;
use bale_spec::{Digest, Reference};

use crate::{Engine, Image, Progress};

/// When a registry is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Always: the tag may have moved.
    Always,
    /// When the image is not there.
    #[default]
    Missing,
    /// Never.
    Never,
}

/// How an image is pulled.
#[derive(Clone, Debug)]
pub struct PullOptions {
    /// The platform wanted; `None` is this host's.
    pub platform: Option<Platform>,
    /// When the registry is asked.
    pub policy: Policy,
    /// How registries are talked to.
    pub registry: Settings,
}

/// What a pull did.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The image.
    pub image: Image,
    /// Digest of what the registry answered for the name (the index, when there is one).
    pub digest: Digest,
    /// The name stands for another image than before.
    pub changed: bool,
}

impl Engine {
    /// Makes an image of a registry available: pulls what is missing of it, all layers unpacked.
    ///
    /// # Errors
    /// `NotFound` when it does not exist (or with [`Policy::Never`] is not there); what registry, layers and store say.
    pub fn pull(
        &self,
        reference: &Reference,
        options: &PullOptions,
        progress: &mut dyn Progress,
    ) -> Result<Pulled> {
        let _ = (reference, options, progress);
        Err(Fault::new(Kind::Unsupported, "pull is not built yet"))
    }
}
