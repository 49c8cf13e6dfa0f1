//! Names of images.

use bale_fault::{Context, Fault, Kind, Result};
use bale_spec::image::Descriptor;
use bale_spec::{Digest, Reference};
use bale_sys::file::{self, LockMode};
use rustix::fs::AtFlags;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::open::names;
use crate::{Ingest, Store};

const VERSION: u32 = 1;
const LIMIT_BYTES: usize = 1 << 20;
/// What the key of a nameless image begins with; no reference does.
const NAMELESS: &str = "@";

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    version: u32,
    name: String,
    /// The image's manifest.
    pub manifest: Descriptor,
    /// The index that the manifest was chosen from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<Descriptor>,
}

impl Name {
    /// Describes an image under a name. A digest beside a tag wins: the tag is dropped.
    #[must_use]
    pub fn new(reference: &Reference, manifest: Descriptor, index: Option<Descriptor>) -> Self {
        Self { version: VERSION, name: key(reference), manifest, index }
    }

    /// Describes an image that has no name at all, such as one imported without.
    #[must_use]
    pub fn nameless(manifest: Descriptor) -> Self {
        Self { version: VERSION, name: format!("{NAMELESS}{}", manifest.digest), manifest, index: None }
    }

    /// Returns the full name; `None` for an image that was never given one.
    ///
    /// # Errors
    /// `Corrupt` when the store's document is damaged.
    pub fn reference(&self) -> Result<Option<Reference>> {
        if self.name.starts_with(NAMELESS) {
            return Ok(None);
        }
        let parsed = self.name.parse().map(Some);
        parsed.map_err(|e| Fault::new(Kind::Corrupt, "a name in the store is damaged").caused_by(e))
    }

    /// Returns the digest that a registry knows the image by: that of the index when there was one.
    #[must_use]
    pub fn repo_digest(&self) -> Digest {
        self.index.as_ref().map_or(self.manifest.digest, |index| index.digest)
    }
}

impl Store {
    /// Looks a name up.
    ///
    /// # Errors
    /// `Corrupt` when the document is damaged, `Unsupported` for a newer format; the failed call.
    pub fn get_name(&self, reference: &Reference) -> Result<Option<Name>> {
        self.read_name(&file_name(&key(reference)))
    }

    /// Lists all names, sorted.
    ///
    /// # Errors
    /// As [`Store::get_name`].
    pub fn list_names(&self) -> Result<Vec<Name>> {
        let mut list = Vec::new();
        for file in names(&self.images)? {
            let Ok(file) = file.into_string() else { continue };
            if file.ends_with(".json") {
                list.extend(self.read_name(&file)?);
            }
        }
        list.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(list)
    }

    /// Removes a name and tells whether it was there.
    ///
    /// # Errors
    /// The failed call.
    pub fn remove_name(&self, name: &Name) -> Result<bool> {
        let _alone = self.take("images", LockMode::Exclusive)?;
        match rustix::fs::unlinkat(&self.images, file_name(&name.name), AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(bale_sys::Error::new(format!("unlinkat(name {})", name.name), errno).into()),
        }
    }

    fn read_name(&self, file: &str) -> Result<Option<Name>> {
        let text = match file::read_bounded(&self.images, file, LIMIT_BYTES) {
            Ok(text) => text,
            Err(error) if error.errno() == Errno::NOENT => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // A power cut before the file was synced leaves it empty: the name was never durably given.
        if text.iter().all(|&b| b == 0) {
            return Ok(None);
        }
        let damaged = |e: serde_json::Error| {
            let words = format!("{:?} is damaged", self.path.join("images").join(file));
            Fault::new(Kind::Corrupt, words).caused_by(e).hint("remove the file and pull the image again")
        };
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let found: Version = serde_json::from_slice(&text).map_err(damaged)?;
        if found.version > VERSION {
            let words = format!("{:?} has format {}", self.path.join("images").join(file), found.version);
            return Err(
                Fault::new(Kind::Unsupported, words).hint("use the bale that wrote it, or a newer one")
            );
        }
        serde_json::from_slice(&text).map_err(damaged).map(Some)
    }
}

impl Ingest<'_> {
    /// Gives a name, or moves it. An image that loses its last name by this is kept under its repository and digest
    /// (docker calls it dangling).
    ///
    /// # Errors
    /// The failed call.
    pub fn put_name(&self, name: &Name) -> Result<()> {
        let _alone = self.store.take("images", LockMode::Exclusive)?;
        if let Some(reference) = name.reference()?.filter(|reference| reference.digest().is_none()) {
            let old = self.store.get_name(&reference).ok().flatten();
            if let Some(old) = old.filter(|old| old.manifest.digest != name.manifest.digest) {
                self.keep_dangling(&reference, old)?;
            }
        }
        self.write_name(name)
    }

    fn keep_dangling(&self, reference: &Reference, old: Name) -> Result<()> {
        let all = self.store.list_names()?;
        let mut others = all.iter().filter(|other| other.name != old.name);
        if others.any(|other| other.manifest.digest == old.manifest.digest) {
            return Ok(());
        }
        let untagged = reference.with_digest(old.repo_digest());
        self.write_name(&Name { name: key(&untagged), ..old })
    }

    fn write_name(&self, name: &Name) -> Result<()> {
        let words = || format!("write the name {}", name.name);
        let text = serde_json::to_vec(name).map_err(|e| Fault::new(Kind::Internal, words()).caused_by(e))?;
        self.place(&text, &self.store.images, &file_name(&name.name)).within(words)
    }
}

/// Returns the text that a name is filed under.
fn key(reference: &Reference) -> String {
    reference
        .digest()
        .map_or_else(|| reference.to_string(), |digest| reference.with_digest(*digest).to_string())
}

/// Names are longer than file names may be, and hold slashes.
fn file_name(key: &str) -> String {
    format!("{}.json", Digest::of(key.as_bytes()).hex())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str, content: &str) -> Name {
        Name::new(&text.parse().unwrap(), Descriptor::of("m", content.as_bytes()), None)
    }

    #[test]
    fn names_are_given_moved_listed_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let ingest = store.ingest().unwrap();
        let listed = || -> Vec<String> { store.list_names().unwrap().into_iter().map(|n| n.name).collect() };
        ingest.put_name(&name("redis:7", "one")).unwrap();
        ingest.put_name(&name("docker.io/library/redis:7", "one")).unwrap();
        assert_eq!(listed(), ["docker.io/library/redis:7"]);
        ingest.put_name(&name("redis:7", "two")).unwrap();
        let dangling = format!("docker.io/library/redis@{}", Digest::of(b"one"));
        assert_eq!(listed(), ["docker.io/library/redis:7", dangling.as_str()]);
        ingest.put_name(&name("web", "two")).unwrap();
        ingest.put_name(&name("redis:7", "three")).unwrap();
        assert_eq!(listed().len(), 3, "{:?}: the image has another name, so nothing dangles", listed());
        assert_eq!(store.get_name(&"redis:7".parse().unwrap()).unwrap(), Some(name("redis:7", "three")));
        assert!(store.remove_name(&name("web", "two")).unwrap());
        assert!(!store.remove_name(&name("web", "two")).unwrap());
        let nameless = Name::nameless(Descriptor::of("m", b"four"));
        ingest.put_name(&nameless).unwrap();
        assert!(store.list_names().unwrap().contains(&nameless) && nameless.reference().unwrap().is_none());
        assert!(store.remove_name(&nameless).unwrap());
        let pinned = format!("web:1@{}", Digest::of(b"two"));
        ingest.put_name(&name(&pinned, "two")).unwrap();
        assert!(store.get_name(&format!("web@{}", Digest::of(b"two")).parse().unwrap()).unwrap().is_some());
    }

    #[test]
    fn damaged_and_newer_documents_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let reference: Reference = "x".parse().unwrap();
        let path = dir.path().join("images").join(file_name(&key(&reference)));
        for (text, kind) in [("{", Kind::Corrupt), (r#"{"version":2}"#, Kind::Unsupported)] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(store.get_name(&reference).unwrap_err().kind(), kind);
        }
        std::fs::write(&path, "").unwrap();
        assert_eq!(store.get_name(&reference).unwrap(), None);
    }
}
