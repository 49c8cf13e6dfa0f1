//! Collection: what no root reaches is removed.

use std::collections::HashSet;

use bale_fault::{Context, Result};
use bale_spec::Digest;
use bale_spec::image::{Document, ImageConfig};
use bale_sys::file::{self, Durability, Lock, LockMode};
use bale_sys::root::RootFd;
use rustix::fs::{AtFlags, Mode};

use crate::blobs::place;
use crate::layers::digests;
use crate::open::names;
use crate::{Ingest, Store};

const WANTED: &str = "collect-wanted";

/// What a collection removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Digests of removed blobs.
    pub blobs: Vec<Digest>,
    /// Diff ids of removed layers.
    pub layers: Vec<Digest>,
}

#[derive(Default)]
struct Marks {
    blobs: HashSet<Digest>,
    layers: HashSet<Digest>,
    chains: HashSet<Digest>,
}

impl Store {
    /// Removes what neither a name nor one of `manifests()` reaches: mark and sweep under the exclusive `store` lock.
    /// `manifests` is called under the lock and gives the manifests that containers were made from.
    ///
    /// Returns `None` when somebody holds content that nothing refers to yet (a pull is at work): the collection is
    /// then left to [`Store::collect_if_wanted`].
    ///
    /// # Errors
    /// What `manifests` gave, a damaged name, or the failed call. Nothing is removed when a root cannot be read.
    pub fn collect(&self, manifests: &dyn Fn() -> Result<Vec<Digest>>) -> Result<Option<Collected>> {
        let Some(alone) = Lock::try_take(&self.locks, "store", LockMode::Exclusive)? else {
            self.want_collection()?;
            return Ok(None);
        };
        // Gone before the work: whoever wants a collection from now on says so again.
        let _ = rustix::fs::unlinkat(&self.locks, WANTED, AtFlags::empty());
        let marks = self.mark(&manifests()?)?;
        let ingest = self.ingest()?;
        let collected = self.sweep(&ingest, &marks)?;
        // The files themselves go when `ingest` is dropped: nobody need wait for that.
        drop(alone);
        drop(ingest);
        Ok(Some(collected))
    }

    /// Leaves a collection to the next pull that comes to its end: one that failed has left whole layers, which its
    /// repetition can use.
    ///
    /// # Errors
    /// The failed call.
    pub fn want_collection(&self) -> Result<()> {
        Ok(file::replace(&self.locks, WANTED, b"", Mode::from_raw_mode(0o600), Durability::Process)?)
    }

    /// Collects when an earlier [`Store::collect`] had to give way. For the end of a pull, after its [`crate::Hold`] is dropped.
    ///
    /// # Errors
    /// As [`Store::collect`].
    pub fn collect_if_wanted(&self, manifests: &dyn Fn() -> Result<Vec<Digest>>) -> Result<()> {
        if rustix::fs::statat(&self.locks, WANTED, AtFlags::empty()).is_ok() {
            self.collect(manifests)?;
        }
        Ok(())
    }

    fn mark(&self, manifests: &[Digest]) -> Result<Marks> {
        let mut marks = Marks::default();
        for name in self.list_names().within(|| "find what is in use")? {
            if let Some(index) = &name.index {
                marks.blobs.insert(index.digest);
            }
            self.mark_manifest(&name.manifest.digest, &mut marks);
        }
        for manifest in manifests {
            self.mark_manifest(manifest, &mut marks);
        }
        Ok(marks)
    }

    /// Marks what a manifest reaches. A document that is absent or damaged reaches nothing: there is nothing to keep.
    fn mark_manifest(&self, manifest: &Digest, marks: &mut Marks) {
        if !marks.blobs.insert(*manifest) {
            return;
        }
        let document = self.read_blob(manifest).ok().and_then(|bytes| Document::parse(&bytes, None).ok());
        let Some(Document::Manifest(manifest)) = document else { return };
        marks.blobs.insert(manifest.config.digest);
        marks.blobs.extend(manifest.layers.iter().map(|layer| layer.digest));
        let config =
            self.read_blob(&manifest.config.digest).ok().and_then(|bytes| ImageConfig::parse(&bytes).ok());
        if let Some(config) = config {
            marks.layers.extend(&config.rootfs.diff_ids);
            marks.chains.extend(config.chain_ids());
        }
    }

    fn sweep(&self, ingest: &Ingest<'_>, marks: &Marks) -> Result<Collected> {
        let unmarked = |dir: &RootFd, marked: &HashSet<Digest>| -> Result<Vec<Digest>> {
            Ok(digests(dir)?.into_iter().filter(|digest| !marked.contains(digest)).collect())
        };
        let mut collected = Collected::default();
        for chain in unmarked(&self.fixups, &marks.chains)? {
            ingest.bury(&self.fixups, &place(&chain))?;
        }
        for diff_id in unmarked(&self.layers, &marks.layers)? {
            ingest.bury(&self.layers, &place(&diff_id))?;
            collected.layers.push(diff_id);
        }
        for digest in unmarked(&self.blobs, &marks.blobs)? {
            ingest.bury(&self.blobs, &place(&digest))?;
            collected.blobs.push(digest);
        }
        self.sweep_locks()?;
        Ok(collected)
    }

    /// Removes the locks of layers: their takers hold the `store` lock, which is ours now.
    fn sweep_locks(&self) -> Result<()> {
        for name in names(&self.locks)? {
            let bytes = name.to_bytes();
            if bytes.starts_with(b"layer-") || bytes.starts_with(b"fixup-") {
                // One that stays is in nobody's way.
                let _ = rustix::fs::unlinkat(&self.locks, name.as_c_str(), AtFlags::empty());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bale_spec::image::{Descriptor, Manifest, RootFs, media_type};

    use super::*;
    use crate::Name;
    use crate::layers::tests::{layer, publish};

    /// Adds an image of one layer and returns its manifest.
    fn add(store: &Store, content: &str) -> Descriptor {
        let made = layer(content);
        publish(store, &made, "f");
        let ingest = store.ingest().unwrap();
        let config = ImageConfig {
            created: None,
            author: None,
            architecture: "amd64".to_owned(),
            variant: None,
            os: "linux".to_owned(),
            config: None,
            rootfs: RootFs { kind: "layers".to_owned(), diff_ids: vec![made.diff_id] },
            history: Vec::new(),
        };
        let config = serde_json::to_vec(&config).unwrap();
        ingest.put(&config).unwrap();
        let blob = format!("layer {content}");
        ingest.put(blob.as_bytes()).unwrap();
        let manifest = Manifest {
            schema_version: 2,
            media_type: None,
            artifact_type: None,
            config: Descriptor::of(media_type::CONFIG, &config),
            layers: vec![Descriptor::of(media_type::LAYER_GZIP, blob.as_bytes())],
            subject: None,
            annotations: None,
        };
        let manifest = serde_json::to_vec(&manifest).unwrap();
        ingest.put(&manifest).unwrap();
        Descriptor::of(media_type::MANIFEST, &manifest)
    }

    #[test]
    fn only_what_nothing_reaches_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (named, used, lost) = (add(&store, "named"), add(&store, "used"), add(&store, "lost"));
        let reference = "named".parse().unwrap();
        let name = Name::new(&reference, named, None);
        store.ingest().unwrap().put_name(&name).unwrap();
        let collect = |roots: Vec<Digest>| store.collect(&|| Ok(roots.clone())).unwrap().unwrap();

        let removed = collect(vec![used.digest]);
        assert_eq!(removed.layers, [Digest::of(b"lost")]);
        assert_eq!(removed.blobs.len(), 3);
        assert!(!store.has_blob(&lost.digest, None) && store.has_blob(&used.digest, None));
        let removed = collect(Vec::new());
        assert_eq!(removed.layers, [Digest::of(b"used")]);
        assert_eq!(collect(Vec::new()), Collected::default());
        store.remove_name(&name).unwrap();
        assert_eq!(collect(Vec::new()).blobs.len(), 3);
        assert_eq!(std::fs::read_dir(dir.path().join("ingest")).unwrap().count(), 0);
    }

    #[test]
    fn collection_gives_way_to_a_pull_and_is_made_up_for() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let lost = add(&store, "lost");
        let hold = store.hold().unwrap();
        assert_eq!(store.collect(&|| Ok(Vec::new())).unwrap(), None);
        drop(hold);
        store.collect_if_wanted(&|| Ok(Vec::new())).unwrap();
        assert!(!store.has_blob(&lost.digest, None));
    }

    #[test]
    fn nothing_is_removed_when_a_root_cannot_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let lost = add(&store, "lost");
        let fail = || Err(bale_fault::Fault::new(bale_fault::Kind::Corrupt, "record"));
        assert!(store.collect(&fail).is_err() && store.has_blob(&lost.digest, None));
        std::fs::write(dir.path().join("images/x.json"), "{").unwrap();
        assert!(store.collect(&|| Ok(Vec::new())).is_err() && store.has_blob(&lost.digest, None));
    }
}
