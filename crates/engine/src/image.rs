//! Images by name, id or digest.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use bale_fault::{Context, Fault, Kind, Result};
use bale_spec::image::{Descriptor, Document, ImageConfig, Manifest, Platform};
use bale_spec::{Digest, Reference};
use bale_store::{Hold, Name, Store};

use crate::install::{Install, Nowhere};
use crate::{Engine, Quiet};

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
    /// Throws layers' blobs away that a disk or a power cut has damaged when `fault` may come of one: nobody can use them,
    /// and a pull or load would take them for there.
    pub(crate) fn discard_damaged(&self, store: &Store, fault: Fault) -> Fault {
        if fault.kind() != Kind::Corrupt {
            return fault;
        }
        let blobs = self.manifest.layers.iter().map(|blob| &blob.digest);
        let bad: Vec<_> = blobs.filter(|digest| matches!(store.is_blob_sound(digest), Ok(false))).collect();
        match bad.first() {
            Some(digest) if bad.iter().all(|digest| store.discard_blob(digest).is_ok()) => {
                let words = format!("blob {digest} of the store is damaged");
                Fault::new(Kind::Corrupt, words).hint("pull the image again")
            }
            _ => fault,
        }
    }

    /// Reads the image of a manifest.
    pub(crate) fn read(store: &Store, descriptor: &Descriptor) -> Result<Self> {
        let words = || format!("read image {}", descriptor.digest.short());
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

    /// Returns the platform it is for.
    #[must_use]
    pub fn platform(&self) -> Platform {
        platform(&self.config)
    }

    /// Returns the digest that a registry knows it by: that of the index when there was one.
    #[must_use]
    pub fn repo_digest(&self) -> Digest {
        self.index.as_ref().map_or(self.manifest_digest, |index| index.digest)
    }

    pub(crate) fn named(store: &Store, name: &Name) -> Result<Self> {
        let image = Self::read(store, &name.manifest)?;
        Ok(Self { reference: name.reference()?, index: name.index.clone(), ..image })
    }
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
    /// unpacked again from the kept blobs. The caller holds `hold` until a record refers to the image.
    ///
    /// # Errors
    /// As [`Store::prepare`].
    pub fn lowers(&self, store: &Store, hold: &Hold, image: &Image) -> Result<Vec<PathBuf>> {
        match store.prepare(&image.config) {
            Err(fault) if fault.kind() == Kind::NotFound => {}
            other => return other,
        }
        let ingest = store.ingest()?;
        let install =
            Install { store, hold, ingest: &ingest, source: &Nowhere, cancel: &AtomicBool::new(false) };
        install.layers(&image.manifest, &image.config, &mut Quiet)?;
        store.prepare(&image.config)
    }

    /// Sees to it that the layers a container was made from are whole: a power cut may have damaged some since.
    ///
    /// # Errors
    /// `NotFound` when they are gone and cannot be unpacked again.
    pub(crate) fn check_layers(&self, manifest: &Digest) -> Result<()> {
        let store = self.store()?;
        let hold = store.hold()?;
        let image = Image::read(&store, &store.describe("", manifest)?)?;
        self.lowers(&store, &hold, &image).map(drop)
    }

    /// Lists the manifests that containers were made from: roots of collection. A container that is being made holds
    /// the store until its record is written, so a directory without a record refers to nothing.
    pub(crate) fn manifests_in_use(&self) -> Result<Vec<Digest>> {
        Ok(self.users()?.into_iter().map(|user| user.manifest).collect())
    }

    /// Lists the containers that were made from images.
    pub(crate) fn users(&self) -> Result<Vec<User>> {
        let root = self.containers();
        let mut users = Vec::new();
        for id in bale_record::list(&root)? {
            let record = match bale_record::Dir::open(&root, &id).and_then(|dir| dir.load()) {
                Ok(record) => record,
                Err(fault) if fault.kind() == Kind::NotFound => continue,
                Err(fault) => return Err(fault.hint(format!("remove the container: bale rm -f {id}"))),
            };
            let manifest = record.engine.get("image_manifest").and_then(|value| value.as_str());
            let Some(manifest) = manifest.filter(|text| !text.is_empty()) else { continue };
            let damaged = || Fault::new(Kind::Corrupt, format!("the record of container {id:?}"));
            let manifest = manifest.parse::<Digest>().map_err(|e| damaged().caused_by(e))?;
            let running = record.init.as_ref().is_some_and(bale_record::ProcessId::is_alive);
            let name = record.engine.get("name").and_then(|value| value.as_str()).unwrap_or_default();
            users.push(User { name: name.to_owned(), id, manifest, running });
        }
        Ok(users)
    }
}

/// A container that was made from an image.
pub(crate) struct User {
    pub id: String,
    pub name: String,
    pub manifest: Digest,
    pub running: bool,
}

/// Returns the platform a config names.
pub(crate) fn platform(config: &ImageConfig) -> Platform {
    Platform {
        architecture: config.architecture.clone(),
        os: config.os.clone(),
        os_version: None,
        os_features: None,
        variant: config.variant.clone(),
    }
}

/// How a user may name an image.
enum Asked {
    /// A name, and perhaps the beginning of an id that looks like one.
    Name(Reference),
    /// `sha256:…`, or what is no name.
    Id,
}

/// Finds an image by what a user typed: names come before ids, as with docker.
pub(crate) fn find(store: &Store, typed: &str) -> Result<Image> {
    let asked = match typed.parse::<Reference>() {
        Ok(reference) if !typed.starts_with("sha256:") => Asked::Name(reference),
        _ => Asked::Id,
    };
    if let Asked::Name(reference) = &asked
        && let Some(name) = by_name(store, reference)?
    {
        return Image::named(store, &name);
    }
    let prefix = typed.strip_prefix("sha256:").unwrap_or(typed);
    let is_id = !prefix.is_empty()
        && prefix.len() <= 64
        && prefix.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    match asked {
        _ if is_id => by_id(store, typed, prefix),
        Asked::Name(reference) => Err(no_image(&reference.familiar())),
        Asked::Id => {
            let error = typed.parse::<Reference>().err();
            Err(Fault::new(
                Kind::InvalidInput,
                error.map_or_else(|| format!("invalid image name {typed:?}"), |e| e.to_string()),
            ))
        }
    }
}

fn no_image(name: &str) -> Fault {
    Fault::new(Kind::NotFound, format!("no such image: {name}")).hint("bale images lists what is there")
}

/// Looks a name up; one with a digest also finds a tagged image of the same repository and digest.
fn by_name(store: &Store, reference: &Reference) -> Result<Option<Name>> {
    if let Some(name) = store.get_name(reference)? {
        return Ok(Some(name));
    }
    let Some(digest) = reference.digest() else { return Ok(None) };
    let fits = |name: &Name| {
        let other = name.reference().ok().flatten();
        let same = other.is_some_and(|other| other.familiar_repository() == reference.familiar_repository());
        same && (name.repo_digest() == *digest || name.manifest.digest == *digest)
    };
    Ok(store.list_names()?.into_iter().find(fits))
}

fn by_id(store: &Store, typed: &str, prefix: &str) -> Result<Image> {
    let mut found: Option<Image> = None;
    for name in store.list_names()? {
        let Ok(image) = Image::named(store, &name) else { continue };
        let ids = [image.config_digest, image.manifest_digest, image.repo_digest()];
        if !ids.iter().any(|id| id.hex().starts_with(prefix)) {
            continue;
        }
        match &mut found {
            None => found = Some(image),
            Some(other) if other.config_digest == image.config_digest => other.reference = None,
            Some(_) => {
                let words = format!("{typed:?} is the beginning of several image ids");
                return Err(Fault::new(Kind::InvalidInput, words).hint("give more digits"));
            }
        }
    }
    found.ok_or_else(|| no_image(typed))
}
