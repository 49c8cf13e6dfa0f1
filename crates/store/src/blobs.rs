//! Content by digest: nothing is visible before it is whole and verified.

use std::fs::File;
use std::io::{self, Read, Write};

use bale_fault::{Context, Fault, Kind, Result};
use bale_spec::Digest;
use bale_spec::digest::Hasher;
use bale_spec::image::Descriptor;
use bale_sys::error::Call;
use bale_sys::file;
use bale_sys::root::Links;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::open::rel;
use crate::{Ingest, Store};

/// The largest document (manifest, index, config) that is read as a whole, in bytes.
pub const DOCUMENT_LIMIT_BYTES: usize = 8 << 20;

/// Content that is being written.
#[derive(Debug)]
pub struct BlobDraft<'a> {
    ingest: &'a Ingest<'a>,
    entry: String,
    file: File,
}

impl Ingest<'_> {
    /// Starts a blob.
    ///
    /// # Errors
    /// The failed call.
    pub fn blob(&self) -> Result<BlobDraft<'_>> {
        let entry = self.fresh("blob");
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.dir, entry.as_str(), flags, Mode::from_raw_mode(0o600));
        let file = File::from(file.call(|| format!("openat({entry:?}, O_CREAT)"))?);
        Ok(BlobDraft { ingest: self, entry, file })
    }

    /// Adds a small document and returns its digest; does nothing when it is there already.
    ///
    /// # Errors
    /// The failed call.
    pub fn put(&self, content: &[u8]) -> Result<Digest> {
        let digest = Digest::of(content);
        // Read back instead of looked up: a document damaged by a power cut is replaced.
        if self.store.read_blob(&digest).is_ok() {
            return Ok(digest);
        }
        let mut draft = self.blob()?;
        draft.file.write_all(content).within(|| format!("write blob {digest}"))?;
        draft.publish(&digest)?;
        Ok(digest)
    }

    /// Stores all that `content` yields, while hashing it, and returns digest and length.
    ///
    /// # Errors
    /// `Exhausted` above `limit_bytes`; the failed read or write.
    pub fn copy(&self, content: &mut dyn io::Read, limit_bytes: u64) -> Result<(BlobDraft<'_>, Digest, u64)> {
        let mut draft = self.blob()?;
        let mut hasher = Hasher::new(bale_spec::digest::Algorithm::Sha256);
        let mut buffer = vec![0; 256 << 10];
        let mut total = 0_u64;
        loop {
            let count = match content.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).within(|| "read"),
            };
            total += count as u64;
            if total > limit_bytes {
                return Err(Fault::new(Kind::Exhausted, format!("more than {limit_bytes} bytes")));
            }
            hasher.update(&buffer[..count]);
            draft.file.write_all(&buffer[..count]).within(|| "write a blob")?;
        }
        Ok((draft, hasher.finish(), total))
    }
}

impl<'a> BlobDraft<'a> {
    /// Returns the file to write to.
    #[must_use]
    pub const fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Makes a second descriptor of the file, for a writer that wants to own one.
    ///
    /// # Errors
    /// The failed call.
    pub fn clone_file(&self) -> Result<File> {
        self.file.try_clone().within(|| "duplicate a descriptor")
    }

    /// Ends the writing, so that a draft costs no descriptor.
    #[must_use]
    pub fn seal(self) -> SealedBlob<'a> {
        SealedBlob { ingest: self.ingest, entry: self.entry }
    }

    /// Makes the content visible under `digest`, which the caller computed over exactly what was written.
    ///
    /// # Errors
    /// The failed rename.
    pub fn publish(self, digest: &Digest) -> Result<()> {
        self.seal().publish(digest)
    }
}

/// Content that was written and is not yet visible.
#[derive(Debug)]
pub struct SealedBlob<'a> {
    ingest: &'a Ingest<'a>,
    entry: String,
}

impl SealedBlob<'_> {
    /// Opens it for reading.
    ///
    /// # Errors
    /// The failed call.
    pub fn open(&self) -> Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.ingest.dir, self.entry.as_str(), flags, Mode::empty());
        Ok(File::from(file.call(|| format!("openat({:?})", self.entry))?))
    }

    /// Makes the content visible under `digest`, which the caller computed over exactly what was written.
    ///
    /// # Errors
    /// The failed rename.
    pub fn publish(self, digest: &Digest) -> Result<()> {
        let target = place(digest);
        let from = &self.ingest.dir;
        let renamed =
            rustix::fs::renameat(from, self.entry.as_str(), &self.ingest.store.blobs, target.as_str());
        Ok(renamed.call(|| format!("renameat({:?}, {target:?})", self.entry))?)
    }
}

impl Store {
    /// Tells whether a blob is there; with `size`, whether it also has that length in bytes (a power cut may have
    /// shortened it, then it counts as absent).
    #[must_use]
    pub fn has_blob(&self, digest: &Digest, size: Option<u64>) -> bool {
        let stat = rustix::fs::statat(&self.blobs, place(digest).as_str(), AtFlags::SYMLINK_NOFOLLOW);
        stat.is_ok_and(|s| size.is_none_or(|size| u64::try_from(s.st_size) == Ok(size)))
    }

    /// Opens a blob. Its content is not hashed here.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        let fd = self.blobs.open_at(&rel(&place(digest))?, OFlags::RDONLY, Links::Refused);
        fd.map(File::from).map_err(|error| absent(digest, error))
    }

    /// Reads a document of at most [`DOCUMENT_LIMIT_BYTES`] and verifies it.
    ///
    /// # Errors
    /// `NotFound`; `Corrupt` when it does not hash to `digest`.
    pub fn read_blob(&self, digest: &Digest) -> Result<Vec<u8>> {
        let bytes = file::read_bounded(&self.blobs, &place(digest), DOCUMENT_LIMIT_BYTES);
        let bytes = bytes.map_err(|error| absent(digest, error))?;
        let mut hasher = Hasher::new(digest.algorithm());
        hasher.update(&bytes);
        let found = hasher.finish();
        if found != *digest {
            let words = format!("blob {digest} is damaged: it hashes to {found}");
            return Err(Fault::new(Kind::Corrupt, words).hint("pull the image again"));
        }
        Ok(bytes)
    }

    /// Hashes a blob of any length: tells a damaged one from one that was never right.
    ///
    /// # Errors
    /// `NotFound`; the failed read.
    pub fn is_blob_sound(&self, digest: &Digest) -> Result<bool> {
        let mut file = self.open_blob(digest)?;
        let mut hasher = Hasher::new(digest.algorithm());
        let mut buffer = vec![0; 256 << 10];
        loop {
            match file.read(&mut buffer).within(|| format!("read blob {digest}"))? {
                0 => return Ok(hasher.finish() == *digest),
                count => hasher.update(&buffer[..count]),
            }
        }
    }

    /// Removes a blob that was found damaged, so that it is fetched again.
    ///
    /// # Errors
    /// The failed call.
    pub fn discard_blob(&self, digest: &Digest) -> Result<()> {
        match rustix::fs::unlinkat(&self.blobs, place(digest).as_str(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(bale_sys::Error::new(format!("unlinkat(blob {digest})"), errno).into()),
        }
    }

    /// Describes a blob as it is: for descriptors that must carry a size.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn describe(&self, media_type: &str, digest: &Digest) -> Result<Descriptor> {
        let stat = rustix::fs::statat(&self.blobs, place(digest).as_str(), AtFlags::SYMLINK_NOFOLLOW);
        let stat = stat.call(|| format!("fstatat(blob {digest})")).map_err(|error| absent(digest, error))?;
        Ok(Descriptor::new(media_type, *digest, u64::try_from(stat.st_size).unwrap_or(0)))
    }
}

fn absent(digest: &Digest, error: bale_sys::Error) -> Fault {
    if error.errno() == Errno::NOENT {
        return Fault::new(Kind::NotFound, format!("blob {digest} is not in the store"))
            .hint("pull the image again");
    }
    error.into()
}

/// Returns the place of a blob below `blobs`.
pub(crate) fn place(digest: &Digest) -> String {
    format!("{}/{}", digest.algorithm().name(), digest.hex())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_absent_until_published_and_a_damaged_one_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let ingest = store.ingest().unwrap();
        let (draft, digest, size) = ingest.copy(&mut &b"content"[..], 100).unwrap();
        assert!(!store.has_blob(&digest, None));
        draft.publish(&digest).unwrap();
        assert!(store.has_blob(&digest, Some(size)) && !store.has_blob(&digest, Some(size + 1)));
        assert_eq!(store.read_blob(&digest).unwrap(), b"content");
        std::fs::write(dir.path().join("blobs").join(place(&digest)), "c0ntent").unwrap();
        assert_eq!(store.read_blob(&digest).unwrap_err().kind(), Kind::Corrupt);
        assert_eq!(ingest.put(b"content").unwrap(), digest);
        assert_eq!(store.read_blob(&digest).unwrap(), b"content");
        assert_eq!(ingest.copy(&mut &b"content"[..], 3).map(|_| ()).unwrap_err().kind(), Kind::Exhausted);
        assert_eq!(store.open_blob(&Digest::of(b"other")).unwrap_err().kind(), Kind::NotFound);
    }
}
