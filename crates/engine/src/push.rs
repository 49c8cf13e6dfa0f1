//! `push`: an image to a registry.

use std::collections::HashMap;
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use bale_fault::{Context, Fault, Kind, Result};
use bale_registry::{Client, Pushed as Way, Settings};
use bale_spec::image::Descriptor;
use bale_spec::{Digest, Reference};
use bale_store::Store;

use crate::{Engine, Event, LayerState, Progress};

/// Blobs that are sent at a time.
const WORKERS: usize = 3;
/// How often bytes are reported.
const REPORT_BYTES: u64 = 256 << 10;

/// How an image is pushed.
#[derive(Clone, Debug)]
pub struct PushOptions {
    /// How registries are talked to.
    pub registry: Settings,
    /// Set it to have the push end soon.
    pub cancel: Arc<AtomicBool>,
}

impl Default for PushOptions {
    /// Returns the registry settings of this process's environment.
    fn default() -> Self {
        Self { registry: Settings::from_env(), cancel: Arc::default() }
    }
}

/// What was pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Digest of the manifest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

impl Engine {
    /// Sends an image to the registry of its name: layers first, then config, then manifest. Of an image that was
    /// pulled for one platform of several, that one platform is sent.
    ///
    /// # Errors
    /// `NotFound` when there is no image of that name; what the registry says.
    pub fn push(
        &self,
        reference: &Reference,
        options: &PushOptions,
        progress: &mut dyn Progress,
    ) -> Result<Pushed> {
        let store = self.store()?;
        let _hold = store.hold()?;
        let name = store.get_name(reference)?;
        let name = name.ok_or_else(|| {
            let words = format!("no such image: {}", reference.familiar());
            Fault::new(Kind::NotFound, words)
                .hint(format!("bale tag IMAGE {} gives an image that name", reference.familiar()))
        })?;
        let image = crate::Image::named(&store, &name)?;
        let words = || format!("push {}", reference.familiar());
        progress.event(&Event::Begin {
            words: format!(
                "The push refers to repository [{}/{}]",
                reference.registry(),
                reference.repository()
            ),
        });
        let push = Push {
            client: Client::new(options.registry.clone())?,
            origins: origins(&store, reference)?,
            store: &store,
            reference,
            cancel: &options.cancel,
        };
        push.layers(&image.manifest.layers, progress).within(words)?;
        push.blob(&image.manifest.config, &mpsc::channel().0).within(words)?;
        let sent = push.client.push_manifest(reference, &image.descriptor.media_type, &image.manifest_bytes);
        let digest = sent.within(words)?;
        Ok(Pushed { digest, size: image.manifest_bytes.len() as u64 })
    }
}

/// Finds for each blob a repository of the same registry that very likely has it, from where it can be mounted.
fn origins(store: &Store, target: &Reference) -> Result<HashMap<Digest, String>> {
    let mut origins = HashMap::new();
    for name in store.list_names()? {
        let Some(other) = name.reference()? else { continue };
        if other.registry() != target.registry() || other.repository() == target.repository() {
            continue;
        }
        let Ok(image) = crate::Image::named(store, &name) else { continue };
        for blob in image.manifest.layers.iter().chain([&image.manifest.config]) {
            origins.entry(blob.digest).or_insert_with(|| other.repository().to_owned());
        }
    }
    Ok(origins)
}

struct Push<'a> {
    client: Client,
    origins: HashMap<Digest, String>,
    store: &'a Store,
    reference: &'a Reference,
    cancel: &'a AtomicBool,
}

impl Push<'_> {
    fn layers(&self, layers: &[Descriptor], progress: &mut dyn Progress) -> Result<()> {
        let mut unique: Vec<&Descriptor> = Vec::new();
        for layer in layers {
            if !unique.iter().any(|other| other.digest == layer.digest) {
                progress.event(&news(layer, LayerState::Waiting));
                unique.push(layer);
            }
        }
        let (next, stop, failure) = (AtomicUsize::new(0), AtomicBool::new(false), Mutex::new(None::<Fault>));
        std::thread::scope(|scope| {
            let (channel, events) = mpsc::channel();
            for _ in 0..WORKERS.min(unique.len()) {
                let channel = channel.clone();
                let (unique, next, stop, failure) = (&unique, &next, &stop, &failure);
                scope.spawn(move || {
                    while let Some(layer) = unique.get(next.fetch_add(1, Ordering::Relaxed))
                        && !stop.load(Ordering::Relaxed)
                    {
                        if let Err(fault) = self.blob(layer, &channel) {
                            stop.store(true, Ordering::Relaxed);
                            let mut first = failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                            first.get_or_insert(fault);
                        }
                    }
                });
            }
            drop(channel);
            for event in events {
                progress.event(&event);
            }
        });
        if self.cancel.load(Ordering::Relaxed) {
            return Err(Fault::new(Kind::Interrupted, "interrupted"));
        }
        failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).map_or(Ok(()), Err)
    }

    fn blob(&self, blob: &Descriptor, channel: &mpsc::Sender<Event>) -> Result<()> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(Fault::new(Kind::Interrupted, "interrupted"));
        }
        let open = || -> Result<Box<dyn Read + Send>> {
            let file = self.store.open_blob(&blob.digest)?;
            Ok(Box::new(Counted {
                file,
                blob: blob.clone(),
                channel: channel.clone(),
                total: 0,
                reported: 0,
            }))
        };
        let origin = self.origins.get(&blob.digest).map(String::as_str);
        let way = self.client.push_blob(self.reference, blob, &open, origin);
        let way = way.map_err(|fault| self.damaged(fault, &blob.digest));
        let state = match way.within(|| format!("blob {}", blob.digest.short()))? {
            Way::Existed => LayerState::Exists,
            Way::Mounted => LayerState::Mounted,
            Way::Uploaded => LayerState::Done,
        };
        // The caller listens until the last worker is gone.
        let _ = channel.send(news(blob, state));
        Ok(())
    }

    /// The registry hashes what it gets: a refusal may come of a blob that the disk has damaged.
    fn damaged(&self, fault: Fault, digest: &Digest) -> Fault {
        let is_damaged =
            fault.kind() == Kind::InvalidInput && matches!(self.store.is_blob_sound(digest), Ok(false));
        if is_damaged && self.store.discard_blob(digest).is_ok() {
            let words = "it is damaged in the store, and was thrown away".to_owned();
            return Fault::new(Kind::Corrupt, words).hint("pull the image again").caused_by(fault);
        }
        fault
    }
}

fn news(layer: &Descriptor, state: LayerState) -> Event {
    Event::Layer { digest: layer.digest, size: layer.size, state }
}

/// Counts what the client has taken.
struct Counted {
    file: std::fs::File,
    blob: Descriptor,
    channel: mpsc::Sender<Event>,
    total: u64,
    reported: u64,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.total += count as u64;
        if count == 0 || self.total - self.reported >= REPORT_BYTES {
            self.reported = self.total;
            let _ = self.channel.send(news(&self.blob, LayerState::Bytes(self.total)));
        }
        Ok(count)
    }
}
