//! The client's face.

use std::io::{self, BufRead, Read};

use bale_fault::{Fault, Kind, Result};
use bale_spec::image::Descriptor;
use bale_spec::{Digest, Reference};

use crate::{Credential, Settings};

/// A manifest or index as the registry sent it; `bytes` hash to `digest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The document, byte for byte.
    pub bytes: Vec<u8>,
    /// Its media type (Content-Type, held against the document's own `mediaType`).
    pub media_type: String,
    /// The digest that was computed over `bytes`.
    pub digest: Digest,
}

/// A registry client. Clones share connections, tokens and the thread behind them.
#[derive(Clone)]
pub struct Client(());

fn unfinished<T>() -> Result<T> {
    Err(Fault::new(Kind::Unsupported, "the registry client is not finished"))
}

#[allow(clippy::missing_errors_doc, missing_docs, clippy::needless_pass_by_value)]
impl Client {
    pub fn new(settings: Settings) -> Result<Self> {
        drop(settings);
        Ok(Self(()))
    }
    pub fn resolve(&self, _reference: &Reference) -> Result<Fetched> {
        unfinished()
    }
    pub fn manifest(&self, _reference: &Reference) -> Result<Fetched> {
        unfinished()
    }
    pub fn head(&self, _reference: &Reference) -> Result<Option<Descriptor>> {
        unfinished()
    }
    pub fn tags(&self, _reference: &Reference) -> Result<Vec<String>> {
        unfinished()
    }
    pub fn blob(&self, _reference: &Reference, _blob: &Descriptor, _offset: u64) -> Result<Blob> {
        unfinished()
    }
    pub fn blob_bytes(
        &self,
        _reference: &Reference,
        _blob: &Descriptor,
        _limit_bytes: usize,
    ) -> Result<Vec<u8>> {
        unfinished()
    }
    pub fn blob_exists(&self, _reference: &Reference, _digest: &Digest) -> Result<bool> {
        unfinished()
    }
    pub fn push_blob(
        &self,
        _reference: &Reference,
        _blob: &Descriptor,
        _open: &dyn Fn() -> Result<Box<dyn Read + Send>>,
        _mount_from: Option<&str>,
    ) -> Result<()> {
        unfinished()
    }
    pub fn push_manifest(&self, _reference: &Reference, _media_type: &str, _bytes: &[u8]) -> Result<Digest> {
        unfinished()
    }
    pub fn login(&self, _registry: &str, _credential: &Credential) -> Result<()> {
        unfinished()
    }
}

/// The bytes of a blob, as they arrive. They are not hashed here: the reader hashes what it uses.
pub struct Blob(());

impl Read for Blob {
    fn read(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
        Ok(0)
    }
}

impl BufRead for Blob {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        Ok(&[])
    }
    fn consume(&mut self, _amount: usize) {}
}
