//! Making an image whole: config and layers from some source into the store, each layer streamed, verified, unpacked.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};

use bale_fault::{Fault, Kind, Result};
use bale_layer::{OverlayWriter, UnpackOptions, Unpacked, unpack};
use bale_spec::Digest;
use bale_spec::image::{Descriptor, ImageConfig, Manifest};
use bale_store::{BlobDraft, Hold, Ingest, Layer, Store};

use crate::{Event, LayerState, Progress};

/// Layers that are worked on at a time: each has two threads, one that inflates and one that writes.
const WORKERS: usize = 3;
/// How often bytes are reported.
const REPORT_BYTES: u64 = 256 << 10;
/// A blob whose size nobody promised may have this many bytes.
const BLOB_LIMIT_BYTES: u64 = 1 << 40;

/// Where the blobs of an image come from.
pub(crate) trait Source: Sync {
    /// Opens a blob. The bytes are verified by whoever reads them.
    fn blob(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>>;

    /// Names where a blob comes from when that is elsewhere: its URL.
    fn place(&self, blob: &Descriptor) -> Option<String>;

    /// What to do when a blob is not what its digest says.
    fn damaged(&self) -> &'static str;
}

/// The source of an image that is in the store and lacks an unpacked layer only.
pub(crate) struct Nowhere;

impl Source for Nowhere {
    fn blob(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>> {
        let words = format!("blob {} is not in the store", blob.digest);
        Err(Fault::new(Kind::NotFound, words).hint("pull the image again"))
    }

    fn place(&self, _blob: &Descriptor) -> Option<String> {
        None
    }

    fn damaged(&self) -> &'static str {
        "the image was damaged when it was written or sent: get it again from where it came from"
    }
}

/// What is made whole, and by what.
pub(crate) struct Install<'a> {
    pub store: &'a Store,
    pub hold: &'a Hold,
    pub ingest: &'a Ingest<'a>,
    pub source: &'a dyn Source,
    /// Set when the user has lost patience.
    pub cancel: &'a AtomicBool,
}

/// One blob to be brought in, and the layer in it.
struct Job<'a> {
    blob: &'a Descriptor,
    diff_id: Digest,
}

impl Install<'_> {
    /// Brings in what is missing of the layers. `manifest` and `config` belong together ([`check_layers`]).
    pub fn layers(
        &self,
        manifest: &Manifest,
        config: &ImageConfig,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        let jobs = self.plan(manifest, config, progress)?;
        let (next, failure) = (AtomicUsize::new(0), Mutex::new(None::<Fault>));
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (news, events) = mpsc::channel();
            for _ in 0..WORKERS.min(jobs.len()) {
                let news = News { channel: news.clone(), stop: &stop, cancel: self.cancel };
                let (next, failure, jobs) = (&next, &failure, &jobs);
                scope.spawn(move || {
                    while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed))
                        && !news.is_stopped()
                    {
                        if let Err(fault) = self.one(job, &news) {
                            news.stop.store(true, Ordering::Relaxed);
                            let mut first = failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                            first.get_or_insert(fault);
                        }
                    }
                });
            }
            drop(news);
            for event in events {
                progress.event(&event);
            }
        });
        if self.cancel.load(Ordering::Relaxed) {
            return Err(Fault::new(Kind::Interrupted, "interrupted"));
        }
        failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).map_or(Ok(()), Err)
    }

    /// Tells of every layer, and keeps those with something to do, the largest first.
    fn plan<'m>(
        &self,
        manifest: &'m Manifest,
        config: &ImageConfig,
        progress: &mut dyn Progress,
    ) -> Result<Vec<Job<'m>>> {
        let mut seen = HashSet::new();
        let mut jobs = Vec::new();
        for (blob, diff_id) in manifest.layers.iter().zip(&config.rootfs.diff_ids) {
            if !seen.insert(blob.digest) {
                continue;
            }
            let there = self.is_there(blob, diff_id)?;
            let state = if there { LayerState::Exists } else { LayerState::Waiting };
            progress.event(&Event::Layer { digest: blob.digest, size: blob.size, state });
            if !there {
                jobs.push(Job { blob, diff_id: *diff_id });
            }
        }
        jobs.sort_by_key(|job| std::cmp::Reverse(job.blob.size));
        Ok(jobs)
    }

    fn is_there(&self, blob: &Descriptor, diff_id: &Digest) -> Result<bool> {
        Ok(self.store.has_blob(&blob.digest, Some(blob.size)) && self.store.layer(diff_id)?.is_some())
    }

    /// Brings one layer in, unless another process has done so while this one waited.
    fn one(&self, job: &Job<'_>, news: &News<'_>) -> Result<()> {
        let lock = match self.store.try_lock_layer(self.hold, &job.diff_id)? {
            Some(lock) => lock,
            None => self.store.lock_layer(self.hold, &job.diff_id)?,
        };
        if self.is_there(job.blob, &job.diff_id)? {
            news.tell(job, LayerState::Exists);
            return Ok(());
        }
        if self.store.layer(&job.diff_id)?.is_some() {
            self.fetch_only(job, news).map_err(|fault| self.placed(fault, job.blob))?;
        } else {
            let (draft, unpacked) = self.unpack(job, news).map_err(|fault| self.placed(fault, job.blob))?;
            draft.publish(&lock, &Layer::new(&unpacked))?;
        }
        news.tell(job, LayerState::Done);
        Ok(())
    }

    /// Says which layer it was, and where that came from unless the failure says so.
    fn placed(&self, fault: Fault, blob: &Descriptor) -> Fault {
        let layer = blob.digest.short();
        let is_damaged = fault.kind() == Kind::Corrupt;
        let place = self.source.place(blob).filter(|place| !fault.chain().contains(place));
        let words =
            place.map_or_else(|| format!("layer {layer}"), |place| format!("layer {layer} of {place}"));
        let fault = fault.within(words);
        if is_damaged { fault.hint(self.source.damaged()) } else { fault }
    }

    /// Unpacks from the kept blob when there is one, else from the source, keeping the blob.
    fn unpack<'i>(
        &'i self,
        job: &Job<'_>,
        news: &News<'_>,
    ) -> Result<(bale_store::LayerDraft<'i>, Unpacked)> {
        if self.store.has_blob(&job.blob.digest, Some(job.blob.size)) {
            let kept = self.store.open_blob(&job.blob.digest)?;
            match self.unpack_from(Box::new(kept), None, job, news) {
                // A power cut has damaged the blob: it is fetched anew. A sound one will not get better.
                Err(fault)
                    if fault.kind() == Kind::Corrupt && !self.store.is_blob_sound(&job.blob.digest)? =>
                {
                    self.store.discard_blob(&job.blob.digest)?;
                }
                other => return other,
            }
        }
        let blob = self.ingest.blob()?;
        let tee = blob.clone_file()?;
        let (draft, unpacked) = self.unpack_from(self.source.blob(job.blob)?, Some(tee), job, news)?;
        blob.publish(&unpacked.blob_digest)?;
        Ok((draft, unpacked))
    }

    fn unpack_from<'i>(
        &'i self,
        from: Box<dyn Read + Send>,
        tee: Option<File>,
        job: &Job<'_>,
        news: &News<'_>,
    ) -> Result<(bale_store::LayerDraft<'i>, Unpacked)> {
        let draft = self.ingest.layer()?;
        let options = UnpackOptions {
            expected_blob: Some(job.blob.clone()),
            expected_diff_id: Some(job.diff_id),
            tee,
            ..UnpackOptions::default()
        };
        let mut writer = OverlayWriter::new(draft.root()?)?;
        let unpacked = unpack(Counted::new(from, job, news), options, &mut writer)?;
        let warnings = &unpacked.table.warnings;
        for warning in &warnings.kept {
            let path = String::from_utf8_lossy(&warning.path);
            news.warn(format!("layer {}: {path:?}: {}", job.blob.digest.short(), warning.words));
        }
        if warnings.count > warnings.kept.len() as u64 {
            let more = warnings.count - warnings.kept.len() as u64;
            news.warn(format!("layer {}: {more} more such entries", job.blob.digest.short()));
        }
        Ok((draft, unpacked))
    }

    /// Keeps the blob of a layer that is unpacked already (from another compression of it): push and save need it.
    fn fetch_only(&self, job: &Job<'_>, news: &News<'_>) -> Result<()> {
        let mut content = Counted::new(self.source.blob(job.blob)?, job, news);
        let (draft, digest, size) =
            self.ingest.copy(&mut content, job.blob.size.saturating_add(1).min(BLOB_LIMIT_BYTES))?;
        publish(draft, job.blob, &digest, size)
    }
}

/// Publishes a blob that is what its descriptor says.
pub(crate) fn publish(draft: BlobDraft<'_>, expected: &Descriptor, digest: &Digest, size: u64) -> Result<()> {
    if *digest != expected.digest || size != expected.size {
        let words =
            format!("the content is {digest} of {size} bytes, not {} of {}", expected.digest, expected.size);
        return Err(Fault::new(Kind::Corrupt, words));
    }
    draft.publish(digest)
}

/// Refuses what is no image that can be unpacked, and documents that do not belong together.
pub(crate) fn check_layers(manifest: &Manifest, config: &ImageConfig) -> Result<()> {
    let (blobs, diff_ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
    if blobs != diff_ids {
        let words = format!("the manifest has {blobs} layers, the config {diff_ids}");
        return Err(Fault::new(Kind::Corrupt, words));
    }
    match manifest.layers.iter().find(|blob| blob.layer_compression().is_none()) {
        None => Ok(()),
        Some(blob) => Err(not_an_image(&format!("a layer is of type {:?}", blob.media_type))),
    }
}

/// What is to be said of an artifact.
pub(crate) fn not_an_image(why: &str) -> Fault {
    Fault::new(Kind::Unsupported, format!("this is no container image: {why}")).hint(
        "it is an artifact (a chart, a signature, a file); fetch it with a tool for artifacts, such as oras",
    )
}

/// Says what to do about a full disk. Limits of bale's own have the same kind, and these words tell them apart.
pub(crate) fn hint_space(fault: Fault, store: &Store) -> Fault {
    let chain = fault.chain();
    if chain.ends_with("no space left on device") || chain.ends_with("quota exceeded") {
        let place = store.path().display();
        return fault.hint(format!("free space where {place} is, or choose another place with --root"));
    }
    fault
}

/// The way of a worker's news to the caller.
struct News<'a> {
    channel: mpsc::Sender<Event>,
    stop: &'a AtomicBool,
    cancel: &'a AtomicBool,
}

impl News<'_> {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.cancel.load(Ordering::Relaxed)
    }

    fn tell(&self, job: &Job<'_>, state: LayerState) {
        // The caller listens until the last worker is gone.
        let _ = self.channel.send(Event::Layer { digest: job.blob.digest, size: job.blob.size, state });
    }

    fn warn(&self, words: String) {
        let _ = self.channel.send(Event::Warning { words });
    }
}

/// Counts what is read, and ends early when another layer has failed.
struct Counted<'a> {
    inner: Box<dyn Read + Send>,
    job: &'a Job<'a>,
    news: &'a News<'a>,
    total: u64,
    reported: u64,
}

impl<'a> Counted<'a> {
    fn new(inner: Box<dyn Read + Send>, job: &'a Job<'a>, news: &'a News<'a>) -> Self {
        Self { inner, job, news, total: 0, reported: 0 }
    }
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.news.is_stopped() {
            return Err(io::Error::other("stopped, as another layer has failed"));
        }
        let count = self.inner.read(buffer)?;
        self.total += count as u64;
        if count == 0 || self.total - self.reported >= REPORT_BYTES {
            self.reported = self.total;
            self.news.tell(self.job, LayerState::Bytes(self.total));
        }
        Ok(count)
    }
}
