//! `load`: images from an archive, in OCI's layout or docker's forms of it.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bale_fault::{Context, Fault, Kind, Result};
use bale_spec::image::{Compression, Descriptor, Document, Index, Manifest, Platform, media_type};
use bale_spec::{Digest, Reference, json};
use bale_store::{Hold, Ingest, Name, Store};
use serde::{Deserialize, Serialize};

use crate::install::{Install, Nowhere, check_layers, hint_space};
use crate::pull::{choose, parse_config};
use crate::spool::Spool;
use crate::{Engine, Progress};

const NAME: &str = "io.containerd.image.name";
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const NESTING_LIMIT: u32 = 4;

/// One image of docker's `manifest.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DockerImage {
    pub config: String,
    /// `null` when the image was saved by id.
    pub repo_tags: Option<Vec<String>>,
    pub layers: Vec<String>,
}

/// What was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The image id.
    pub id: Digest,
    /// Its names.
    pub names: Vec<Reference>,
}

/// How an archive is loaded.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Chooses from an index; `None` is this host's platform.
    pub platform: Option<Platform>,
    /// Set it to have the work end soon, cleaned up.
    pub cancel: Arc<AtomicBool>,
}

/// An image of the archive before it is made whole.
struct Candidate {
    descriptor: Descriptor,
    bytes: Vec<u8>,
    manifest: Manifest,
    /// Where the config is, by member.
    config: String,
    /// Where the layers are, by member.
    layers: Vec<String>,
    names: Vec<Reference>,
}

impl Engine {
    /// Loads all images of an archive (plain, gzip or zstd).
    ///
    /// # Errors
    /// `InvalidInput` when it is no archive of images; `Corrupt` for content that is not what its digest says.
    pub fn load<R: Read + Send>(
        &self,
        archive: R,
        options: &LoadOptions,
        progress: &mut dyn Progress,
    ) -> Result<Vec<Loaded>> {
        let store = self.store()?;
        let loaded = load_into(&store, archive, options, progress).map_err(|fault| {
            self.clear_up(&store, &fault);
            hint_space(fault, &store)
        })?;
        store.collect_if_wanted(&|| self.manifests_in_use())?;
        self.make_durable_soon(&store);
        Ok(loaded)
    }
}

fn load_into<R: Read + Send>(
    store: &Store,
    archive: R,
    options: &LoadOptions,
    progress: &mut dyn Progress,
) -> Result<Vec<Loaded>> {
    let hold = store.hold()?;
    let ingest = store.ingest()?;
    let mut spool = Spool::read(&ingest, archive)?;
    let candidates = candidates(&spool, options.platform.as_ref())?;
    let context = Bring { store, hold: &hold, ingest: &ingest, cancel: &options.cancel };
    candidates.into_iter().map(|candidate| context.bring(&mut spool, candidate, progress)).collect()
}

fn candidates(spool: &Spool<'_>, platform: Option<&Platform>) -> Result<Vec<Candidate>> {
    let docker =
        spool.document("manifest.json")?.map(|bytes| parse::<Vec<DockerImage>>(&bytes, "manifest.json"));
    let docker = docker.transpose()?;
    if let Some(bytes) = spool.document("index.json")? {
        let index: Index = parse(&bytes, "index.json")?;
        return index
            .manifests
            .iter()
            .map(|entry| of_layout(spool, entry, docker.as_deref(), platform))
            .collect();
    }
    if let Some(images) = docker {
        return images.iter().map(|image| of_docker(spool, image)).collect();
    }
    let words = "the archive has neither index.json nor manifest.json: it holds no images";
    Err(Fault::new(Kind::InvalidInput, words).hint("`bale import` makes an image of a root file system"))
}

pub(crate) fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8], name: &str) -> Result<T> {
    let parsed = json::parse(bytes, bale_store::DOCUMENT_LIMIT_BYTES);
    parsed.map_err(|e| Fault::new(Kind::InvalidInput, format!("{name} in the archive")).caused_by(e))
}

fn member(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// Reads an image of an OCI layout; indexes inside are reduced to the one platform.
fn of_layout(
    spool: &Spool<'_>,
    entry: &Descriptor,
    docker: Option<&[DockerImage]>,
    platform: Option<&Platform>,
) -> Result<Candidate> {
    let mut descriptor = entry.clone();
    for _ in 0..NESTING_LIMIT {
        let bytes =
            spool.document(&member(&descriptor.digest))?.ok_or_else(|| missing(&descriptor.digest))?;
        check(&bytes, &descriptor)?;
        let document = Document::parse(&bytes, Some(&descriptor.media_type));
        let document =
            document.map_err(|e| Fault::new(Kind::Corrupt, format!("{}", descriptor.digest)).caused_by(e))?;
        match document {
            Document::Index(index) => descriptor = present(spool, &index, platform)?.clone(),
            Document::Manifest(manifest) => {
                let config = member(&manifest.config.digest);
                let layers = manifest.layers.iter().map(|blob| member(&blob.digest)).collect();
                let names = layout_names(entry, &manifest, docker);
                let descriptor =
                    Descriptor::new(&descriptor.media_type, descriptor.digest, bytes.len() as u64);
                return Ok(Candidate { descriptor, bytes, manifest, config, layers, names });
            }
        }
    }
    Err(Fault::new(Kind::Unsupported, "the archive's index has indexes inside, more than 3 deep"))
}

/// Chooses from what the archive really holds: an index often names platforms that were never saved.
fn present<'i>(spool: &Spool<'_>, index: &'i Index, platform: Option<&Platform>) -> Result<&'i Descriptor> {
    let chosen = choose(index, platform);
    if let Ok(chosen) = &chosen
        && spool.find(&member(&chosen.digest)).is_some()
    {
        return Ok(chosen);
    }
    let there: Vec<&Descriptor> =
        index.manifests.iter().filter(|manifest| spool.find(&member(&manifest.digest)).is_some()).collect();
    match (there.as_slice(), platform) {
        ([only], None) => Ok(only),
        _ => Err(chosen.map_or_else(|fault| fault, |chosen| missing(&chosen.digest))),
    }
}

fn missing(digest: &Digest) -> Fault {
    let words = format!("the archive does not hold {digest}, which its index names");
    Fault::new(Kind::Corrupt, words).hint("save it again for a platform that was pulled")
}

fn check(bytes: &[u8], descriptor: &Descriptor) -> Result<()> {
    let mut hasher = bale_spec::digest::Hasher::new(descriptor.digest.algorithm());
    hasher.update(bytes);
    let found = hasher.finish();
    if found != descriptor.digest {
        let words = format!("{} in the archive hashes to {found}", member(&descriptor.digest));
        return Err(Fault::new(Kind::Corrupt, words));
    }
    Ok(())
}

/// Finds the names of a layout's image: containerd's annotation, a complete one of OCI's, or docker's list.
fn layout_names(entry: &Descriptor, manifest: &Manifest, docker: Option<&[DockerImage]>) -> Vec<Reference> {
    let annotation =
        |key: &str| entry.annotations.as_ref().and_then(|a: &BTreeMap<String, String>| a.get(key));
    if let Some(name) = annotation(NAME).and_then(|name| name.parse().ok()) {
        return vec![name];
    }
    let config = member(&manifest.config.digest);
    let same = |image: &&DockerImage| {
        image.config == config
            || image.config.strip_suffix(".json") == Some(manifest.config.digest.hex().as_str())
    };
    let tags = docker.unwrap_or_default().iter().find(same).and_then(|image| image.repo_tags.as_deref());
    if let Some(tags) = tags.filter(|tags| !tags.is_empty()) {
        return tags.iter().filter_map(|tag| tag.parse().ok()).collect();
    }
    // Many tools put the bare tag here, and a tag alone is no name.
    let complete = annotation(REF_NAME).filter(|name| name.contains([':', '/']));
    complete.and_then(|name| name.parse().ok()).into_iter().collect()
}

/// Makes the manifest that docker's archive does not have.
fn of_docker(spool: &Spool<'_>, image: &DockerImage) -> Result<Candidate> {
    let absent = |name: &str| {
        Fault::new(Kind::Corrupt, format!("the archive has no member {name:?}, which manifest.json names"))
    };
    let config = spool.find(&image.config).ok_or_else(|| absent(&image.config))?;
    let mut layers = Vec::new();
    let mut known: HashMap<&str, Descriptor> = HashMap::new();
    for layer in &image.layers {
        if !known.contains_key(layer.as_str()) {
            let content = spool.find(layer).ok_or_else(|| absent(layer))?;
            known.insert(layer, Descriptor::new(layer_type(content)?, content.digest, content.size));
        }
        layers.push(known[layer.as_str()].clone());
    }
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type::MANIFEST.to_owned()),
        artifact_type: None,
        config: Descriptor::new(media_type::CONFIG, config.digest, config.size),
        layers,
        subject: None,
        annotations: None,
    };
    let bytes = serde_json::to_vec(&manifest)
        .map_err(|e| Fault::new(Kind::Internal, "write a manifest").caused_by(e))?;
    let tags = image.repo_tags.as_deref().unwrap_or_default();
    let names = tags.iter().map(|tag| tag.parse());
    let names = names.collect::<std::result::Result<_, _>>();
    Ok(Candidate {
        descriptor: Descriptor::of(media_type::MANIFEST, &bytes),
        bytes,
        manifest,
        config: image.config.clone(),
        layers: image.layers.clone(),
        names: names.map_err(|e| {
            Fault::new(Kind::InvalidInput, "RepoTags in the archive's manifest.json").caused_by(e)
        })?,
    })
}

/// Tells a layer's type by its first bytes: docker's archives hold plain and compressed ones alike.
fn layer_type(content: &crate::spool::Content<'_>) -> Result<&'static str> {
    let mut magic = [0; 4];
    let mut file = content.open()?;
    let mut have = 0;
    while have < magic.len() {
        match file.read(&mut magic[have..]).within(|| "read a layer of the archive")? {
            0 => break,
            count => have += count,
        }
    }
    Ok(media_type_of(&magic))
}

/// Names the type of a layer that begins with `magic`.
pub(crate) fn media_type_of(magic: &[u8]) -> &'static str {
    match compression_of(magic) {
        Compression::Gzip => media_type::LAYER_GZIP,
        Compression::Zstd => media_type::LAYER_ZSTD,
        Compression::None => media_type::LAYER_TAR,
    }
}

fn compression_of(magic: &[u8]) -> Compression {
    match magic {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        _ => Compression::None,
    }
}

/// What bringing an image in needs.
struct Bring<'a> {
    store: &'a Store,
    hold: &'a Hold,
    ingest: &'a Ingest<'a>,
    cancel: &'a AtomicBool,
}

impl Bring<'_> {
    fn bring(
        &self,
        spool: &mut Spool<'_>,
        candidate: Candidate,
        progress: &mut dyn Progress,
    ) -> Result<Loaded> {
        let Candidate { descriptor, bytes, manifest, config, layers, names } = candidate;
        let config_bytes = spool.document(&config)?;
        let config_bytes = config_bytes.map_or_else(|| self.store.read_blob(&manifest.config.digest), Ok)?;
        check(&config_bytes, &manifest.config)?;
        let config = parse_config(&config_bytes)?;
        check_layers(&manifest, &config)?;
        for (blob, member) in manifest.layers.iter().zip(&layers) {
            self.keep(spool, blob, member)?;
        }
        let install = Install {
            store: self.store,
            hold: self.hold,
            ingest: self.ingest,
            source: &Nowhere,
            cancel: self.cancel,
        };
        install.layers(&manifest, &config, progress)?;
        self.store.prepare(&config)?;
        self.ingest.put(&config_bytes)?;
        self.ingest.put(&bytes)?;
        for name in &names {
            self.ingest.put_name(&Name::new(name, descriptor.clone(), None))?;
        }
        if names.is_empty() {
            self.ingest.put_name(&Name::nameless(descriptor))?;
        }
        Ok(Loaded { id: manifest.config.digest, names })
    }

    /// Publishes a layer's blob from the archive, unless the store has it.
    fn keep(&self, spool: &mut Spool<'_>, blob: &Descriptor, member: &str) -> Result<()> {
        if self.store.has_blob(&blob.digest, Some(blob.size)) {
            if self.store.is_blob_sound(&blob.digest)? {
                return Ok(());
            }
            // A power cut has damaged it, and here it is whole.
            self.store.discard_blob(&blob.digest)?;
        }
        let content = spool.find(member).ok_or_else(|| missing(&blob.digest))?;
        if content.digest != blob.digest && blob.digest.algorithm() == content.digest.algorithm()
            || content.size != blob.size
        {
            let words = format!(
                "layer {} in the archive is {} of {} bytes",
                blob.digest, content.digest, content.size
            );
            return Err(Fault::new(Kind::Corrupt, words));
        }
        if blob.digest.algorithm() != content.digest.algorithm() {
            return Err(Fault::new(
                Kind::Unsupported,
                format!("layer {}: archives are read with sha256 only", blob.digest),
            ));
        }
        let sealed = spool.take(member).ok_or_else(|| missing(&blob.digest))?;
        sealed.publish(&blob.digest)
    }
}
