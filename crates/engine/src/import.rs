//! `import`: an image of one layer from the archive of a root file system.

use std::io::Read;

use bale_fault::{Fault, Kind, Result};
use bale_layer::{Compression, OverlayWriter, UnpackOptions, Unpacked, unpack};
use bale_spec::image::{
    ContainerConfig, Descriptor, History, ImageConfig, Manifest, Platform, RootFs, media_type,
};
use bale_spec::{Digest, Reference};
use bale_store::{Hold, Ingest, Layer, Name, Store};

use crate::Engine;
use crate::change::change;
use crate::install::hint_space;

/// How an archive is imported.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// The image's name; none leaves it nameless.
    pub name: Option<Reference>,
    /// Dockerfile instructions for the config.
    pub changes: Vec<String>,
    /// A remark for the history.
    pub message: Option<String>,
    /// The platform; `None` is this host's.
    pub platform: Option<Platform>,
    /// RFC 3339 time of creation; `None` is now.
    pub created: Option<String>,
}

impl Engine {
    /// Makes an image of an archive (plain, gzip or zstd; it is kept as it comes) and returns the image id.
    ///
    /// # Errors
    /// `InvalidInput` for a malformed change; `Corrupt` for a malformed archive.
    pub fn import<R: Read + Send>(&self, archive: R, options: &ImportOptions) -> Result<Digest> {
        let mut section = ContainerConfig::default();
        for instruction in &options.changes {
            change(&mut section, instruction)?;
        }
        let store = self.store()?;
        let hold = store.hold()?;
        let ingest = store.ingest()?;
        let unpacked = layer(&store, &hold, &ingest, archive);
        let unpacked = unpacked.map_err(|fault| hint_space(fault.within("import the archive"), &store))?;
        let json = |e: serde_json::Error| Fault::new(Kind::Internal, "write a document").caused_by(e);
        let config = serde_json::to_vec(&config(options, section, unpacked.diff_id)).map_err(json)?;
        let manifest = manifest(&config, &unpacked);
        let manifest_bytes = serde_json::to_vec(&manifest).map_err(json)?;
        let id = ingest.put(&config)?;
        ingest.put(&manifest_bytes)?;
        let descriptor = Descriptor::of(media_type::MANIFEST, &manifest_bytes);
        let name = match &options.name {
            Some(name) => Name::new(name, descriptor, None),
            None => Name::nameless(descriptor),
        };
        ingest.put_name(&name)?;
        Ok(id)
    }
}

/// Unpacks the archive and keeps it. The diff id is not known before, so the layer's lock is taken at the end.
fn layer<R: Read + Send>(store: &Store, hold: &Hold, ingest: &Ingest<'_>, archive: R) -> Result<Unpacked> {
    let draft = ingest.layer()?;
    let blob = ingest.blob()?;
    let options = UnpackOptions { tee: Some(blob.clone_file()?), ..UnpackOptions::default() };
    let unpacked = unpack(archive, options, &mut OverlayWriter::new(draft.root()?)?)?;
    blob.publish(&unpacked.blob_digest)?;
    let lock = store.lock_layer(hold, &unpacked.diff_id)?;
    draft.publish(&lock, &Layer::new(&unpacked))?;
    Ok(unpacked)
}

fn config(options: &ImportOptions, section: ContainerConfig, diff_id: Digest) -> ImageConfig {
    let platform = options.platform.clone().unwrap_or_else(Platform::host);
    let created = options.created.clone().unwrap_or_else(bale_record::time::now);
    let comment = options.message.clone().unwrap_or_else(|| "Imported by bale".to_owned());
    ImageConfig {
        created: Some(created.clone()),
        author: None,
        architecture: platform.architecture,
        variant: platform.variant,
        os: platform.os,
        config: Some(section),
        rootfs: RootFs { kind: "layers".to_owned(), diff_ids: vec![diff_id] },
        history: vec![History { created: Some(created), comment: Some(comment), ..History::default() }],
    }
}

fn manifest(config: &[u8], unpacked: &Unpacked) -> Manifest {
    let layer = match unpacked.compression {
        Compression::Gzip => media_type::LAYER_GZIP,
        Compression::Zstd => media_type::LAYER_ZSTD,
        Compression::None => media_type::LAYER_TAR,
    };
    Manifest {
        schema_version: 2,
        media_type: Some(media_type::MANIFEST.to_owned()),
        artifact_type: None,
        config: Descriptor::of(media_type::CONFIG, config),
        layers: vec![Descriptor::new(layer, unpacked.blob_digest, unpacked.blob_size)],
        subject: None,
        annotations: None,
    }
}
