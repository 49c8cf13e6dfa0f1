//! `save`: images as one archive that is an OCI layout and has docker's manifest.json too, so that everybody reads it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};

use bale_fault::{Context, Fault, Kind, Result};
use bale_layer::tar::{Entry, Kind as EntryKind, Writer};
use bale_spec::Digest;
use bale_spec::image::{Descriptor, Index, media_type};
use bale_store::Store;

use crate::load::DockerImage;
use crate::{Engine, Image};

impl Engine {
    /// Writes the images to `out` as a tar archive: the same images give the same bytes.
    ///
    /// # Errors
    /// `NotFound` for an image or a blob of one; the failed write.
    pub fn save<W: Write>(&self, images: &[String], out: W) -> Result<W> {
        let store = self.store()?;
        let _hold = store.hold()?;
        let found = images.iter().map(|name| crate::image::find(&store, name)).collect::<Result<Vec<_>>>()?;
        let blobs = blobs(&store, &found)?;
        let mut archive = Writer::new(out);
        for directory in ["blobs/", "blobs/sha256/", "blobs/sha512/"] {
            let needed =
                directory == "blobs/" || blobs.keys().any(|blob| member(blob).starts_with(directory));
            if needed {
                archive.append(&Entry::new(directory, EntryKind::Directory), &mut std::io::empty())?;
            }
        }
        for (digest, size) in &blobs {
            let mut content = Checked::open(&store, digest)?;
            append(&mut archive, &member(digest), *size, &mut content)?;
            let finished = content.finish(digest);
            finished.map_err(|f| found.iter().fold(f, |f, image| image.discard_damaged(&store, f)))?;
        }
        document(&mut archive, "index.json", &index(&found))?;
        document(&mut archive, "manifest.json", &docker(&found))?;
        let layout = BTreeMap::from([("imageLayoutVersion", "1.0.0")]);
        document(&mut archive, "oci-layout", &layout)?;
        archive.finish()
    }
}

fn member(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

fn blobs(store: &Store, images: &[Image]) -> Result<BTreeMap<Digest, u64>> {
    let mut blobs = BTreeMap::new();
    for image in images {
        blobs.insert(image.manifest_digest, image.manifest_bytes.len() as u64);
        blobs.insert(image.config_digest, image.config_bytes.len() as u64);
        for layer in &image.manifest.layers {
            blobs.insert(layer.digest, store.describe("", &layer.digest)?.size);
        }
    }
    Ok(blobs)
}

/// One entry per image and name: with docker's annotations, of which the second is only the tag.
fn index(images: &[Image]) -> Index {
    let entry = |image: &Image| {
        let mut descriptor = Descriptor::new(
            &image.descriptor.media_type,
            image.manifest_digest,
            image.manifest_bytes.len() as u64,
        );
        let platform = image.platform();
        descriptor.platform =
            (!platform.architecture.is_empty() && !platform.os.is_empty()).then_some(platform);
        descriptor.annotations = image.reference.as_ref().and_then(|reference| {
            let tag = reference.tag()?;
            let name = ("io.containerd.image.name".to_owned(), reference.to_string());
            Some(BTreeMap::from([name, ("org.opencontainers.image.ref.name".to_owned(), tag.to_owned())]))
        });
        descriptor
    };
    let mut manifests: Vec<Descriptor> = Vec::new();
    for descriptor in images.iter().map(entry) {
        if !manifests.contains(&descriptor) {
            manifests.push(descriptor);
        }
    }
    Index { schema_version: 2, media_type: Some(media_type::INDEX.to_owned()), manifests, annotations: None }
}

/// Docker's list: one entry per image, with all its names.
fn docker(images: &[Image]) -> Vec<DockerImage> {
    let mut tags: BTreeMap<Digest, BTreeSet<String>> = BTreeMap::new();
    for image in images {
        let names = tags.entry(image.manifest_digest).or_default();
        names.extend(
            image.reference.as_ref().filter(|r| r.tag().is_some()).map(bale_spec::Reference::familiar),
        );
    }
    let mut list = Vec::new();
    for image in images {
        if let Some(names) = tags.remove(&image.manifest_digest) {
            let names: Vec<String> = names.into_iter().collect();
            list.push(DockerImage {
                config: member(&image.config_digest),
                repo_tags: (!names.is_empty()).then_some(names),
                layers: image.manifest.layers.iter().map(|layer| member(&layer.digest)).collect(),
            });
        }
    }
    list
}

fn document<W: Write, T: serde::Serialize>(archive: &mut Writer<W>, name: &str, value: &T) -> Result<()> {
    let text = serde_json::to_vec(value)
        .map_err(|e| Fault::new(Kind::Internal, format!("write {name}")).caused_by(e))?;
    append(archive, name, text.len() as u64, &mut text.as_slice())
}

fn append<W: Write>(archive: &mut Writer<W>, name: &str, size: u64, content: &mut dyn Read) -> Result<()> {
    let entry = Entry { size, ..Entry::new(name, EntryKind::File) };
    archive.append(&entry, content).within(|| format!("write {name} to the archive"))
}

/// Hashes a blob while it is copied: what the disk has damaged is told, not passed on.
struct Checked {
    file: std::fs::File,
    hasher: bale_spec::digest::Hasher,
}

impl Checked {
    fn open(store: &Store, digest: &Digest) -> Result<Self> {
        Ok(Self {
            file: store.open_blob(digest)?,
            hasher: bale_spec::digest::Hasher::new(digest.algorithm()),
        })
    }

    fn finish(self, digest: &Digest) -> Result<()> {
        let found = self.hasher.finish();
        if found == *digest {
            return Ok(());
        }
        let words = format!("blob {digest} of the store is damaged: it hashes to {found}");
        Err(Fault::new(Kind::Corrupt, words).hint("pull the image again"))
    }
}

impl Read for Checked {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}
