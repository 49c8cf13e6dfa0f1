//! `pull`: from a name to unpacked layers.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bale_fault::{Context, Fault, Kind, Result};
use bale_registry::{Client, Fetched, Settings};
use bale_spec::image::{Descriptor, Document, ImageConfig, Index, Manifest, Platform};
use bale_spec::{Digest, Reference};
use bale_store::{DOCUMENT_LIMIT_BYTES, Name, Store};

use crate::install::{Install, Source, check_layers, hint_space, not_an_image};
use crate::{Engine, Event, Image, Progress};

/// Indexes in indexes: deeper ones are refused.
const NESTING_LIMIT: u32 = 4;

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
    /// Set it to have the pull end soon, cleaned up, with [`Kind::Interrupted`].
    pub cancel: Arc<AtomicBool>,
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

impl Default for PullOptions {
    /// Returns docker's defaults, with the registry settings of this process's environment.
    fn default() -> Self {
        Self {
            platform: None,
            policy: Policy::default(),
            registry: Settings::from_env(),
            cancel: Arc::default(),
        }
    }
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
        let store = self.store()?;
        if let Some(pulled) = local(&store, reference, options)? {
            return Ok(pulled);
        }
        let pulled = self.pull_into(&store, reference, options, progress);
        let pulled = pulled.map_err(|fault| {
            self.clear_up(&store, &fault);
            hint_space(fault.within(format!("pull {}", reference.familiar())), &store)
        })?;
        store.collect_if_wanted(&|| self.manifests_in_use())?;
        if pulled.changed {
            self.make_durable_soon(&store);
        }
        Ok(pulled)
    }

    /// Sees to what a failed pull or load brought: what a repetition can use stays until a later one has succeeded.
    pub(crate) fn clear_up(&self, store: &Store, fault: &Fault) {
        let can_go_on = matches!(fault.kind(), Kind::Unavailable | Kind::Interrupted);
        // The failure itself is the one to tell; what cannot be cleared now is cleared by the next collection.
        let _ = if can_go_on {
            store.want_collection()
        } else {
            store.collect(&|| self.manifests_in_use()).map(drop)
        };
    }

    fn pull_into(
        &self,
        store: &Store,
        reference: &Reference,
        options: &PullOptions,
        progress: &mut dyn Progress,
    ) -> Result<Pulled> {
        let hold = store.hold()?;
        let remote = Remote { client: Client::new(options.registry.clone())?, reference: reference.clone() };
        let answer = remote.client.resolve(reference)?;
        progress.event(&Event::Begin { words: begin(reference) });
        let found = remote.choose(store, &answer, options.platform.as_ref())?;
        let before = store.get_name(reference).ok().flatten();
        let name = Name::new(reference, found.descriptor.clone(), found.index.clone());
        let changed = before.as_ref() != Some(&name);
        let config_bytes = remote.config(store, &found.manifest)?;
        let config = parse_config(&config_bytes)?;
        check_layers(&found.manifest, &config)?;
        check_platform(&config, options.platform.as_ref(), reference, progress)?;

        let ingest = store.ingest()?;
        let install =
            Install { store, hold: &hold, ingest: &ingest, source: &remote, cancel: &options.cancel };
        install.layers(&found.manifest, &config, progress)?;
        // A chain that cannot be stacked (a hard link to nothing) is told now, and the first run need not do the work.
        store.prepare(&config)?;
        ingest.put(&config_bytes)?;
        ingest.put(&found.bytes)?;
        if found.index.is_some() {
            ingest.put(&answer.bytes)?;
        }
        if changed {
            ingest.put_name(&name)?;
        }
        Ok(Pulled { image: Image::named(store, &name)?, digest: answer.digest, changed })
    }
}

/// Docker's first line: `7: Pulling from library/redis`.
fn begin(reference: &Reference) -> String {
    let whole = reference.familiar_repository();
    let repository = if whole.contains('/') { whole } else { reference.repository().to_owned() };
    format!("{}: Pulling from {repository}", reference.manifest_name())
}

/// Returns the image when the policy is content with the local one.
fn local(store: &Store, reference: &Reference, options: &PullOptions) -> Result<Option<Pulled>> {
    if options.policy == Policy::Always {
        return Ok(None);
    }
    let image = store.get_name(reference)?.and_then(|name| Image::named(store, &name).ok());
    let fits = |image: &Image| {
        options.platform.as_ref().is_none_or(|wanted| wanted.rank(&image.platform()).is_some())
    };
    match image.filter(fits) {
        Some(image) => Ok(Some(Pulled { digest: image.repo_digest(), image, changed: false })),
        None if options.policy == Policy::Never => {
            let words = format!("no such image: {}", reference.familiar());
            Err(Fault::new(Kind::NotFound, words).hint(format!("bale pull {}", reference.familiar())))
        }
        None => Ok(None),
    }
}

/// An image of a registry.
struct Remote {
    client: Client,
    reference: Reference,
}

impl Source for Remote {
    fn blob(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>> {
        Ok(Box::new(self.client.blob(&self.reference, blob, 0)?))
    }

    fn place(&self, blob: &Descriptor) -> Option<String> {
        Some(self.client.blob_url(&self.reference, &blob.digest))
    }

    fn damaged(&self) -> &'static str {
        bale_registry::DAMAGED
    }
}

/// A manifest that was chosen.
struct Found {
    descriptor: Descriptor,
    manifest: Manifest,
    bytes: Vec<u8>,
    /// What it was chosen from.
    index: Option<Descriptor>,
}

impl Remote {
    /// Finds the manifest for a platform behind what the registry answered.
    fn choose(&self, store: &Store, answer: &Fetched, platform: Option<&Platform>) -> Result<Found> {
        let top = Descriptor::new(&answer.media_type, answer.digest, answer.bytes.len() as u64);
        let (mut descriptor, mut bytes) = (top.clone(), answer.bytes.clone());
        for depth in 0..NESTING_LIMIT {
            match parse(&bytes, &descriptor)? {
                Document::Manifest(manifest) => {
                    let index = (depth > 0).then_some(top);
                    return Ok(Found { descriptor, manifest, bytes, index });
                }
                Document::Index(index) => {
                    descriptor = choose(&index, platform)?.clone();
                    bytes = self.document(store, &descriptor)?;
                }
            }
        }
        Err(Fault::new(Kind::Unsupported, "the index has indexes inside, more than 3 deep"))
    }

    /// Reads a manifest that the store may have.
    fn document(&self, store: &Store, descriptor: &Descriptor) -> Result<Vec<u8>> {
        if let Ok(bytes) = store.read_blob(&descriptor.digest) {
            return Ok(bytes);
        }
        Ok(self.client.manifest(&self.reference.with_digest(descriptor.digest))?.bytes)
    }

    fn config(&self, store: &Store, manifest: &Manifest) -> Result<Vec<u8>> {
        if let Some(kind) = &manifest.artifact_type {
            return Err(not_an_image(&format!("it is of type {kind:?}")));
        }
        if !is_config(&manifest.config.media_type) {
            return Err(not_an_image(&format!("its config is of type {:?}", manifest.config.media_type)));
        }
        if let Ok(bytes) = store.read_blob(&manifest.config.digest) {
            return Ok(bytes);
        }
        let config = self.client.blob_bytes(&self.reference, &manifest.config, DOCUMENT_LIMIT_BYTES);
        config.within(|| "fetch the image's config")
    }
}

/// Old tools leave other words for the same document; an artifact names something else altogether.
fn is_config(media_type: &str) -> bool {
    use bale_spec::image::media_type as m;
    matches!(media_type, m::CONFIG | m::DOCKER_CONFIG | "application/octet-stream" | "text/html" | "")
}

fn parse(bytes: &[u8], descriptor: &Descriptor) -> Result<Document> {
    let parsed = Document::parse(bytes, Some(&descriptor.media_type));
    parsed.map_err(|e| Fault::new(Kind::Corrupt, format!("manifest {}", descriptor.digest)).caused_by(e))
}

pub(crate) fn parse_config(bytes: &[u8]) -> Result<ImageConfig> {
    ImageConfig::parse(bytes).map_err(|e| Fault::new(Kind::Corrupt, "the image's config").caused_by(e))
}

/// Chooses from an index; an index inside (which has no platform) is entered when nothing else fits.
pub(crate) fn choose<'i>(index: &'i Index, platform: Option<&Platform>) -> Result<&'i Descriptor> {
    let host = Platform::host();
    let wanted = platform.unwrap_or(&host);
    if let Some(found) = index.choose(wanted) {
        return Ok(found);
    }
    if let [only] = index.manifests.as_slice()
        && only.platform.is_none()
    {
        return Ok(only);
    }
    let nested = index.manifests.iter().find(|m| m.platform.is_none());
    nested.ok_or_else(|| {
        let offered =
            index.manifests.iter().filter_map(|m| m.platform.as_ref()).filter(|p| p.os != "unknown");
        let offered: Vec<String> = offered.map(ToString::to_string).collect();
        let words = format!("no image for {wanted} in the index");
        Fault::new(Kind::NotFound, words)
            .hint(format!("it has {}; choose one with --platform", offered.join(", ")))
    })
}

/// An image without index may be for another platform: refused when one was asked for, else told.
fn check_platform(
    config: &ImageConfig,
    wanted: Option<&Platform>,
    reference: &Reference,
    progress: &mut dyn Progress,
) -> Result<()> {
    let found = crate::image::platform(config);
    let host = Platform::host();
    if found.architecture.is_empty() || wanted.unwrap_or(&host).rank(&found).is_some() {
        return Ok(());
    }
    let words =
        format!("{} is an image for {found}, not for {}", reference.familiar(), wanted.unwrap_or(&host));
    if wanted.is_some() {
        return Err(Fault::new(Kind::NotFound, words));
    }
    progress.event(&Event::Warning { words });
    Ok(())
}
