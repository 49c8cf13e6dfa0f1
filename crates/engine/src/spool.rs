//! The members of an archive as files of an ingest directory: archives come from pipes, and name things before and
//! after their content. Members are found by name in a map; no name of an archive ever becomes a path.

use std::collections::HashMap;
use std::io::{Read, Write};

use bale_fault::{Context, Fault, Kind, Result};
use bale_layer::tar::{Entry, Kind as EntryKind};
use bale_layer::{LayerWriter, Table, UnpackOptions, unpack};
use bale_spec::Digest;
use bale_spec::digest::{Algorithm, Hasher};
use bale_store::{BlobDraft, DOCUMENT_LIMIT_BYTES, Ingest, SealedBlob};

/// The most members that are kept: an image has one per layer, and docker's old form three.
const MEMBERS_LIMIT: usize = 20_000;
/// How many links may lead to one another.
const LINKS_LIMIT: u32 = 8;

/// An archive that was read to its end.
#[derive(Debug)]
pub(crate) struct Spool<'a> {
    ingest: &'a Ingest<'a>,
    members: HashMap<Vec<u8>, Member<'a>>,
    open: Option<Open<'a>>,
}

#[derive(Debug)]
enum Member<'a> {
    File(Content<'a>),
    Link(Vec<u8>),
}

/// A member's bytes, hashed while they were written.
#[derive(Debug)]
pub(crate) struct Content<'a> {
    blob: Option<SealedBlob<'a>>,
    pub digest: Digest,
    pub size: u64,
}

#[derive(Debug)]
struct Open<'a> {
    name: Vec<u8>,
    draft: BlobDraft<'a>,
    hasher: Hasher,
    written: u64,
    size: u64,
}

impl<'a> Spool<'a> {
    /// Reads an archive, which may be compressed with gzip or zstd.
    pub fn read<R: Read + Send>(ingest: &'a Ingest<'a>, archive: R) -> Result<Self> {
        let mut spool = Self { ingest, members: HashMap::new(), open: None };
        unpack(archive, UnpackOptions::default(), &mut spool).within(|| "read the archive")?;
        Ok(spool)
    }

    /// Finds a member, following links between members.
    pub fn find(&self, name: &str) -> Option<&Content<'a>> {
        match self.members.get(&self.resolve(name)?)? {
            Member::File(content) => Some(content),
            Member::Link(_) => None,
        }
    }

    fn resolve(&self, name: &str) -> Option<Vec<u8>> {
        let mut name = normal(name.as_bytes(), b"")?;
        for _ in 0..LINKS_LIMIT {
            match self.members.get(&name)? {
                Member::File(_) => return Some(name),
                Member::Link(target) => name.clone_from(target),
            }
        }
        None
    }

    /// Reads a member that is a document.
    pub fn document(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(content) = self.find(name) else { return Ok(None) };
        if content.size > DOCUMENT_LIMIT_BYTES as u64 {
            let words = format!("{name:?} in the archive is larger than {DOCUMENT_LIMIT_BYTES} bytes");
            return Err(Fault::new(Kind::Exhausted, words));
        }
        let mut bytes = Vec::new();
        content.open()?.read_to_end(&mut bytes).within(|| format!("read {name:?} of the archive"))?;
        Ok(Some(bytes))
    }

    /// Takes a member's content out, to be published.
    pub fn take(&mut self, name: &str) -> Option<SealedBlob<'a>> {
        let name = self.resolve(name)?;
        match self.members.get_mut(&name)? {
            Member::File(content) => content.blob.take(),
            Member::Link(_) => None,
        }
    }

    fn begin(&mut self, entry: &Entry, name: Vec<u8>) -> Result<()> {
        let draft = self.ingest.blob()?;
        let hasher = Hasher::new(Algorithm::Sha256);
        self.open = Some(Open { name, draft, hasher, written: 0, size: entry.size });
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        open.fill_to(open.size)?;
        let content =
            Content { blob: Some(open.draft.seal()), digest: open.hasher.finish(), size: open.written };
        self.members.insert(open.name, Member::File(content));
        Ok(())
    }
}

impl Content<'_> {
    /// Opens the content.
    pub fn open(&self) -> Result<std::fs::File> {
        let gone = || Fault::new(Kind::Internal, "the content was taken out of the archive already");
        self.blob.as_ref().ok_or_else(gone)?.open()
    }
}

impl Open<'_> {
    /// Writes the zeros of a hole: digests are over what a file reads as.
    fn fill_to(&mut self, offset: u64) -> Result<()> {
        let zeros = [0_u8; 16 << 10];
        while self.written < offset {
            let count = usize::try_from(offset - self.written).unwrap_or(usize::MAX).min(zeros.len());
            self.write(&zeros[..count])?;
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.written += bytes.len() as u64;
        self.draft.file().write_all(bytes).within(|| "write a member of the archive")
    }
}

impl LayerWriter for Spool<'_> {
    fn entry(&mut self, entry: Entry) -> Result<()> {
        self.end()?;
        // A name that leads out of the archive can never be asked for.
        let Some(name) = normal(&entry.path, b"") else { return Ok(()) };
        if self.members.len() >= MEMBERS_LIMIT {
            let words = format!("the archive has more than {MEMBERS_LIMIT} members");
            return Err(
                Fault::new(Kind::Exhausted, words).hint("`bale import` makes an image of a root file system")
            );
        }
        let parent = name.iter().rposition(|&b| b == b'/').map_or(&b""[..], |at| &name[..at]);
        match entry.kind {
            // Stored holes cost nothing in the archive; no part of an image has any.
            EntryKind::File if entry.sparse.is_some() => Ok(()),
            EntryKind::File => self.begin(&entry, name),
            EntryKind::Symlink => {
                if let Some(target) = normal(&entry.link, parent) {
                    self.members.insert(name, Member::Link(target));
                }
                Ok(())
            }
            EntryKind::HardLink => {
                if let Some(target) = normal(&entry.link, b"") {
                    self.members.insert(name, Member::Link(target));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        open.fill_to(offset)?;
        open.write(bytes)
    }

    fn finish(&mut self) -> Result<Table> {
        self.end()?;
        Ok(Table::default())
    }
}

/// Folds a name, seen from the folder `base` of the archive; `None` when it leads out or to nothing.
pub(crate) fn normal(name: &[u8], base: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = if name.starts_with(b"/") { Vec::new() } else { split(base).collect() };
    for part in split(name) {
        if part == b".." {
            parts.pop()?;
        } else {
            parts.push(part);
        }
    }
    (!parts.is_empty()).then(|| parts.join(&b'/'))
}

fn split(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    name.split(|&b| b == b'/').filter(|part| !part.is_empty() && *part != b".")
}

#[cfg(test)]
mod tests {
    use super::normal;

    #[test]
    fn names_are_folded_and_never_lead_out() {
        for (name, base, folded) in [
            ("./a//b/", "", Some("a/b")),
            ("/a", "x", Some("a")),
            ("../b/layer.tar", "a", Some("b/layer.tar")),
            ("../../b", "a", None),
            ("..", "", None),
            (".", "", None),
        ] {
            assert_eq!(
                normal(name.as_bytes(), base.as_bytes()).as_deref(),
                folded.map(str::as_bytes),
                "{name} in {base}"
            );
        }
    }
}
