//! Unpacked layers by diff id.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use bale_fault::{Context, Fault, Kind, Result};
use bale_layer::Unpacked;
use bale_spec::Digest;
use bale_sys::error::Call;
use bale_sys::file::{self, Durability};
use bale_sys::root::{Links, RootFd};
use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::blobs::place;
use crate::open::{names, readable, rel};
use crate::{Ingest, LayerLock, Store};

const VERSION: u32 = 1;
/// The largest `layer.json` that is read, in bytes: a layer of millions of implied parents is refused.
const LIMIT_BYTES: usize = 256 << 20;
const FILE: &str = "layer.json";

/// What is known of an unpacked layer beside its files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    version: u32,
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
    /// Digest of the blob it was unpacked from.
    pub blob: Digest,
    /// Bytes of the uncompressed archive.
    pub tar_size: u64,
    /// Bytes of file content.
    pub content_size: u64,
    /// Entries of the archive.
    pub entries: u64,
    /// Directories that the layer does not give attributes for, parents before children.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub implied: Vec<PathText>,
    /// Hard links to files of lower layers; nothing was written for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Deferred>,
    /// The layer gives attributes for the root directory.
    pub has_root_entry: bool,
    /// The layer hides everything below it.
    #[serde(default)]
    pub opaque_root: bool,
    /// The files were synced after they were written.
    pub durable: bool,
    /// The boot in which it was written.
    pub boot_id: String,
}

/// A hard link to a file of a lower layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deferred {
    /// Where the link is, from the layer's root, without a leading slash.
    pub path: PathText,
    /// What it names.
    pub target: PathText,
}

/// A path that need not be UTF-8: JSON has it as a string when it is, else as a list of bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PathText {
    /// UTF-8.
    Text(String),
    /// Anything else.
    Bytes(Vec<u8>),
}

impl PathText {
    /// Returns the bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }
}

impl From<&[u8]> for PathText {
    fn from(bytes: &[u8]) -> Self {
        std::str::from_utf8(bytes)
            .map_or_else(|_| Self::Bytes(bytes.to_vec()), |text| Self::Text(text.to_owned()))
    }
}

impl Layer {
    /// Describes what was just unpacked.
    #[must_use]
    pub fn new(unpacked: &Unpacked) -> Self {
        let table = &unpacked.table;
        let links = table.deferred_links.iter();
        let deferred = |link: &bale_layer::DeferredLink| Deferred {
            path: link.path.as_slice().into(),
            target: link.target.as_slice().into(),
        };
        Self {
            version: VERSION,
            diff_id: unpacked.diff_id,
            blob: unpacked.blob_digest,
            tar_size: unpacked.tar_size,
            content_size: table.content_bytes,
            entries: unpacked.entries,
            implied: table.implied_parents.iter().map(|path| path.as_slice().into()).collect(),
            links: links.map(deferred).collect(),
            has_root_entry: table.has_root_entry,
            opaque_root: table.opaque_root,
            durable: false,
            boot_id: boot_id(),
        }
    }

    /// Tells whether the files can be trusted: they are synced, or the page cache they were written to still lives.
    fn is_sound(&self) -> bool {
        self.durable || (!self.boot_id.is_empty() && self.boot_id == boot_id())
    }
}

/// A layer that is being unpacked.
#[derive(Debug)]
pub struct LayerDraft<'a> {
    ingest: &'a Ingest<'a>,
    entry: String,
    dir: OwnedFd,
}

impl Ingest<'_> {
    /// Starts a layer.
    ///
    /// # Errors
    /// The failed call.
    pub fn layer(&self) -> Result<LayerDraft<'_>> {
        let entry = self.fresh("layer");
        let dir = self.subdir(&entry)?;
        // What a layer does not say about its root is 0755, root: the same as an implied parent.
        rustix::fs::mkdirat(&dir, "diff", Mode::from_raw_mode(0o755)).call(|| "mkdirat(\"diff\")")?;
        let diff = readable(&dir, "diff")?;
        rustix::fs::fchmod(&diff, Mode::from_raw_mode(0o755)).call(|| "fchmod(\"diff\")")?;
        Ok(LayerDraft { ingest: self, entry, dir })
    }
}

impl LayerDraft<'_> {
    /// Opens the directory to unpack into.
    ///
    /// # Errors
    /// The failed call.
    pub fn root(&self) -> Result<RootFd> {
        Ok(RootFd::from_fd(readable(&self.dir, "diff")?))
    }

    /// Makes the layer visible. When a sound one is there already, that one stays.
    ///
    /// # Errors
    /// The failed call.
    pub fn publish(self, _lock: &LayerLock, layer: &Layer) -> Result<()> {
        let words = || format!("publish layer {}", layer.diff_id);
        let text = serde_json::to_vec(layer).map_err(|e| Fault::new(Kind::Internal, words()).caused_by(e))?;
        file::replace(&self.dir, FILE, &text, Mode::from_raw_mode(0o600), Durability::Process)?;
        let store = self.ingest.store;
        let target = place(&layer.diff_id);
        let rename =
            || rustix::fs::renameat(&self.ingest.dir, self.entry.as_str(), &store.layers, target.as_str());
        match rename() {
            Ok(()) => return Ok(()),
            Err(Errno::EXIST | Errno::NOTEMPTY) => {}
            Err(errno) => {
                return Err(
                    Fault::from(bale_sys::Error::new(format!("renameat({target:?})"), errno)).within(words())
                );
            }
        }
        if store.layer(&layer.diff_id)?.is_some() {
            return Ok(());
        }
        self.ingest.bury(&store.layers, &target)?;
        rename().call(|| format!("renameat({target:?})")).map_err(Fault::from).within(words)
    }
}

impl Store {
    /// Looks an unpacked layer up. One that may have been damaged by a power cut counts as absent.
    ///
    /// # Errors
    /// `Unsupported` for a newer format; the failed call.
    pub fn layer(&self, diff_id: &Digest) -> Result<Option<Layer>> {
        let path = format!("{}/{FILE}", place(diff_id));
        let text = match file::read_bounded(&self.layers, &path, LIMIT_BYTES) {
            Ok(text) => text,
            Err(error) if error.errno() == Errno::NOENT => return Ok(None),
            Err(error) => return Err(Fault::from(error).within(format!("look layer {diff_id} up"))),
        };
        let Ok(layer) = serde_json::from_slice::<Layer>(&text) else {
            return self.unreadable(diff_id, &text);
        };
        if layer.version > VERSION {
            return self.unreadable(diff_id, &text);
        }
        Ok(Some(layer).filter(|layer| layer.is_sound() && layer.diff_id == *diff_id))
    }

    fn unreadable(&self, diff_id: &Digest, text: &[u8]) -> Result<Option<Layer>> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        match serde_json::from_slice::<Version>(text) {
            Ok(found) if found.version > VERSION => {
                let words =
                    format!("layer {diff_id} has format {}, this bale knows {VERSION}", found.version);
                Err(Fault::new(Kind::Unsupported, words).hint("use the bale that wrote it, or a newer one"))
            }
            // Cut short by a power cut: absent, and replaced by whoever unpacks it anew.
            _ => Ok(None),
        }
    }

    /// Returns the directory of an unpacked layer that overlay takes as a lower directory.
    #[must_use]
    pub fn layer_path(&self, diff_id: &Digest) -> PathBuf {
        self.path.join("layers").join(place(diff_id)).join("diff")
    }

    pub(crate) fn layer_root(&self, diff_id: &Digest) -> Result<RootFd> {
        let path = rel(&format!("{}/diff", place(diff_id)))?;
        self.layers
            .subdir(&path, Links::Refused)
            .map_err(Fault::from)
            .within(|| format!("open layer {diff_id}"))
    }

    /// Lists the diff ids of what is under `layers`, sound or not.
    pub(crate) fn layer_ids(&self) -> Result<Vec<Digest>> {
        digests(&self.layers)
    }

    /// Tells whether there are layers to be made durable that were published `age` ago or earlier.
    ///
    /// # Errors
    /// The failed call.
    pub fn has_undurable(&self, age: Duration) -> Result<bool> {
        Ok(!self.undurable(age)?.is_empty())
    }

    /// Syncs everything to disk and marks the layers of this boot as durable that were published `age` ago or earlier.
    /// It may take many seconds on a busy disk: for a process of its own.
    ///
    /// # Errors
    /// The failed call.
    pub fn make_durable(&self, age: Duration) -> Result<()> {
        let waiting = self.undurable(age)?;
        if waiting.is_empty() {
            return Ok(());
        }
        // Without a lock: collection need not wait for a disk.
        rustix::fs::syncfs(readable(&self.root, ".")?).call(|| "syncfs(<store>)")?;
        let _hold = self.hold()?;
        for before in waiting {
            // It may have been removed meanwhile, even unpacked anew.
            let Some(layer) = self.layer(&before.diff_id)?.filter(|layer| *layer == before) else { continue };
            let dir = self.layers.subdir(&rel(&place(&layer.diff_id))?, Links::Refused)?;
            let durable = Layer { durable: true, ..layer };
            let text = serde_json::to_vec(&durable).within_internal()?;
            file::replace(&dir, FILE, &text, Mode::from_raw_mode(0o600), Durability::Power)?;
        }
        Ok(())
    }

    fn undurable(&self, age: Duration) -> Result<Vec<Layer>> {
        let mut waiting = Vec::new();
        for diff_id in self.layer_ids()? {
            let Some(layer) = self.layer(&diff_id)?.filter(|layer| !layer.durable) else { continue };
            let dir = self.layers.subdir(&rel(&place(&diff_id))?, Links::Refused)?;
            if self.age_of(&dir)? >= age {
                waiting.push(layer);
            }
        }
        Ok(waiting)
    }

    fn age_of(&self, layer: &RootFd) -> Result<Duration> {
        let stat =
            rustix::fs::statat(layer, FILE, AtFlags::SYMLINK_NOFOLLOW).call(|| "fstatat(layer.json)")?;
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec;
        Ok(Duration::from_secs(u64::try_from(now - stat.st_mtime).unwrap_or(0)))
    }
}

/// Lists the digests that name the entries of `<dir>/<alg>/`.
pub(crate) fn digests(dir: &RootFd) -> Result<Vec<Digest>> {
    let mut found = Vec::new();
    for algorithm in ["sha256", "sha512"] {
        for name in names(dir.subdir(&rel(algorithm)?, Links::Refused)?)? {
            let name = name.to_string_lossy();
            found.extend(format!("{algorithm}:{name}").parse::<Digest>().ok());
        }
    }
    Ok(found)
}

/// A document of ours that cannot be written as JSON is a broken promise of bale.
pub(crate) trait Internal<T> {
    fn within_internal(self) -> Result<T>;
}

impl<T> Internal<T> for serde_json::Result<T> {
    fn within_internal(self) -> Result<T> {
        self.map_err(|e| Fault::new(Kind::Internal, "write a document").caused_by(e))
    }
}

/// Returns the kernel's id of this boot; empty when it cannot be read, and then nothing counts as of this boot.
pub(crate) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn layer(content: &str) -> Layer {
        Layer {
            version: VERSION,
            diff_id: Digest::of(content.as_bytes()),
            blob: Digest::of(b"blob"),
            tar_size: 1024,
            content_size: 7,
            entries: 1,
            implied: vec![b"a".as_slice().into(), b"a/\xff".as_slice().into()],
            links: Vec::new(),
            has_root_entry: false,
            opaque_root: false,
            durable: false,
            boot_id: boot_id(),
        }
    }

    pub(crate) fn publish(store: &Store, layer: &Layer, file: &str) {
        let hold = store.hold().unwrap();
        let lock = store.lock_layer(&hold, &layer.diff_id).unwrap();
        let ingest = store.ingest().unwrap();
        let draft = ingest.layer().unwrap();
        let root = draft.root().unwrap();
        rustix::fs::mkdirat(&root, file, 0o755.into()).unwrap();
        draft.publish(&lock, layer).unwrap();
    }

    #[test]
    fn the_first_sound_layer_wins_and_one_of_another_boot_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let made = layer("x");
        assert_eq!(store.layer(&made.diff_id).unwrap(), None);
        publish(&store, &made, "first");
        assert_eq!(store.layer(&made.diff_id).unwrap().as_ref(), Some(&made));
        publish(&store, &made, "second");
        let diff = store.layer_path(&made.diff_id);
        assert!(diff.join("first").exists() && !diff.join("second").exists());

        let json = diff.parent().unwrap().join(FILE);
        for damage in [
            serde_json::to_string(&Layer { boot_id: "another".to_owned(), ..made.clone() }).unwrap(),
            String::new(),
        ] {
            std::fs::write(&json, damage).unwrap();
            assert_eq!(store.layer(&made.diff_id).unwrap(), None);
            publish(&store, &made, "third");
            assert!(diff.join("third").exists() && !diff.join("first").exists());
        }
        std::fs::write(&json, r#"{"version":2}"#).unwrap();
        assert_eq!(store.layer(&made.diff_id).unwrap_err().kind(), Kind::Unsupported);
    }

    #[test]
    fn synced_layers_survive_a_boot() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let made = layer("x");
        publish(&store, &made, "f");
        store.make_durable(Duration::from_secs(3600)).unwrap();
        assert!(!store.layer(&made.diff_id).unwrap().unwrap().durable, "too young");
        store.make_durable(Duration::ZERO).unwrap();
        let json = store.layer_path(&made.diff_id).parent().unwrap().join(FILE);
        let text = std::fs::read_to_string(&json).unwrap().replace(&made.boot_id, "another");
        std::fs::write(&json, text).unwrap();
        assert!(store.layer(&made.diff_id).unwrap().is_some_and(|l| l.durable && l.implied == made.implied));
    }
}
