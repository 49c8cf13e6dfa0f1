//! The reader: bytes in, events out, no input or output of its own.

use bale_fault::Result;

use super::entry::{Entry, Extent, Kind, Timestamp};
use super::header::{BLOCK, Header, text};
use super::pax::Records;
use super::sparse::{self, MapReader};
use crate::Limits;
use crate::fault::{corrupt, exhausted, show};

/// How many headers may stand before one member (long name, long link, pax, global pax).
const META_LIMIT: u32 = 16;

/// What comes next in an archive.
#[derive(Debug)]
pub enum Event<'a> {
    /// A member begins, and the one before is complete.
    Entry(Box<Entry>),
    /// Bytes of a regular file, to be placed at `offset`.
    Data {
        /// Where in the file, in bytes.
        offset: u64,
        /// The bytes, never empty.
        bytes: &'a [u8],
    },
}

/// Cuts an archive into events. Bytes are pushed in pieces of any length.
#[derive(Debug)]
pub struct Reader {
    limits: Limits,
    state: State,
    block: [u8; BLOCK],
    filled: usize,
    pending: Pending,
    entries: u64,
}

#[derive(Debug)]
enum State {
    /// A header comes, or the end.
    Header,
    /// One block of zeros was read.
    Zeros,
    /// The content of a header that speaks about the next one.
    Meta { what: Meta, left: u64, padding: u64, content: Vec<u8> },
    /// More blocks of an old GNU sparse map.
    GnuMap { entry: Box<Entry>, stored: u64, extents: Vec<Extent> },
    /// Blocks of a sparse map in front of the data.
    PaxMap { entry: Box<Entry>, stored: u64, map: MapReader },
    /// Content.
    Data(Content),
    /// Bytes up to the next block.
    Padding(u64),
    /// Behind the end, where anything may stand.
    Ended,
}

#[derive(Clone, Copy, Debug)]
enum Meta {
    Pax,
    Global,
    LongName,
    LongLink,
}

#[derive(Debug, Default)]
struct Pending {
    headers: u32,
    pax: Option<Records>,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

/// The stored bytes of a file that are still to come.
#[derive(Debug)]
struct Content {
    left: u64,
    padding: u64,
    offset: u64,
    /// The extents to come, last first, and what is left of the present one.
    extents: Option<(Vec<Extent>, u64)>,
}

impl Reader {
    /// Starts at the beginning of an archive.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let (state, block, pending) = (State::Header, [0; BLOCK], Pending::default());
        Self { limits, state, block, filled: 0, pending, entries: 0 }
    }

    /// Returns how many entries were read.
    #[must_use]
    pub const fn entries(&self) -> u64 {
        self.entries
    }

    /// Takes bytes off the front of `input` and returns the next event; `None` when it needs more input.
    ///
    /// # Errors
    /// `Corrupt` for what is no archive, `Exhausted` above the limits. The reader is of no use afterwards.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>> {
        loop {
            match &mut self.state {
                State::Ended => {
                    *input = &[];
                    return Ok(None);
                }
                State::Data(content) => {
                    if let Some(event) = content.take(input)? {
                        return Ok(Some(event));
                    }
                    if content.left != 0 {
                        return Ok(None);
                    }
                    self.state = State::Padding(content.padding);
                }
                State::Padding(left) => {
                    *left -= skip(input, *left);
                    if *left != 0 {
                        return Ok(None);
                    }
                    self.state = State::Header;
                }
                State::Meta { left, padding, content, .. } => {
                    let (now, later) = input.split_at(usize_min(input.len(), *left));
                    content.extend_from_slice(now);
                    *left -= now.len() as u64;
                    *input = later;
                    if *left == 0 {
                        *padding -= skip(input, *padding);
                    }
                    if *left != 0 || *padding != 0 {
                        return Ok(None);
                    }
                    self.end_meta()?;
                }
                State::Header | State::Zeros | State::GnuMap { .. } | State::PaxMap { .. } => {
                    let Some(block) = self.fill(input) else { return Ok(None) };
                    if let Some(entry) = self.take_block(&block)? {
                        return Ok(Some(Event::Entry(entry)));
                    }
                }
            }
        }
    }

    /// Checks that the input may end here: at a block where a member could begin, or behind the end.
    ///
    /// # Errors
    /// `Corrupt` when it ends inside a member.
    pub fn finish(&self) -> Result<()> {
        let between =
            matches!(self.state, State::Header | State::Zeros | State::Padding(0)) && self.filled == 0;
        let complete = between && self.pending.headers == 0;
        if complete || matches!(self.state, State::Ended) {
            return Ok(());
        }
        Err(corrupt("the archive ends too early"))
    }

    fn fill(&mut self, input: &mut &[u8]) -> Option<[u8; BLOCK]> {
        let (now, later) = input.split_at(input.len().min(BLOCK - self.filled));
        self.block[self.filled..self.filled + now.len()].copy_from_slice(now);
        self.filled += now.len();
        *input = later;
        if self.filled < BLOCK {
            return None;
        }
        self.filled = 0;
        Some(self.block)
    }

    fn take_block(&mut self, block: &[u8; BLOCK]) -> Result<Option<Box<Entry>>> {
        match std::mem::replace(&mut self.state, State::Header) {
            State::GnuMap { entry, stored, mut extents } => {
                sparse::gnu_extents(&block[..504], self.limits.sparse_extents, &mut extents)?;
                self.gnu_map(entry, stored, extents, block[504] != 0)
            }
            State::PaxMap { entry, stored, map } => self.pax_map(entry, stored, map, block),
            before if block.iter().all(|&b| b == 0) => {
                let ended = matches!(before, State::Zeros);
                self.state = if ended { State::Ended } else { State::Zeros };
                if ended && self.pending.headers != 0 {
                    Err(corrupt("the archive ends too early"))
                } else {
                    Ok(None)
                }
            }
            State::Zeros => Err(corrupt("the archive goes on after a block of zeros")),
            _ => self.header(&Header::verified(block)?),
        }
    }

    fn header(&mut self, header: &Header) -> Result<Option<Box<Entry>>> {
        let meta = match header.type_flag() {
            b'x' => Meta::Pax,
            b'g' => Meta::Global,
            b'L' => Meta::LongName,
            b'K' => Meta::LongLink,
            _ => return self.member(header),
        };
        let size = header.size()?;
        self.pending.headers += 1;
        if size > self.limits.pax_bytes as u64 || self.pending.headers > META_LIMIT {
            return Err(exhausted("the extended headers of an entry are too long"));
        }
        self.state = State::Meta { what: meta, left: size, padding: padding(size), content: Vec::new() };
        Ok(None)
    }

    fn end_meta(&mut self) -> Result<()> {
        let State::Meta { what, content, .. } = std::mem::replace(&mut self.state, State::Header) else {
            return Ok(());
        };
        match what {
            Meta::Pax => self.pending.pax = Some(Records::parse(&content, &self.limits)?),
            Meta::LongName => self.pending.name = Some(text(&content).to_vec()),
            Meta::LongLink => self.pending.link = Some(text(&content).to_vec()),
            // Go does not apply them, and so neither did whoever built and ran the image. They do not need a
            // member.
            Meta::Global => self.pending.headers -= 1,
        }
        Ok(())
    }

    /// Makes an entry of a header and what was said before it.
    fn member(&mut self, header: &Header) -> Result<Option<Box<Entry>>> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(exhausted(format!("the layer has more than {} entries", self.limits.entries)));
        }
        let Pending { pax, name, link, .. } = std::mem::take(&mut self.pending);
        let pax = pax.unwrap_or_default();
        let path = name.or(pax.path).unwrap_or_else(|| header.name());
        let kind = kind(header.type_flag(), &path)?;
        let mut entry = Box::new(Entry::new(path, kind));
        if matches!(kind, Kind::HardLink | Kind::Symlink) {
            entry.link = link.or(pax.link).unwrap_or_else(|| header.link());
        }
        // A pax size counts for the data and for the way to the next header (CVE-2025-62518).
        let stored = if kind == Kind::File { pax.size.map_or_else(|| header.size(), Ok)? } else { 0 };
        entry.size = stored;
        entry.mode = (header.number("the mode", 100, 8)? & 0o7777) as u32;
        entry.uid = pax.uid.map_or_else(|| id(header, "the owner", 108), Ok)?;
        entry.gid = pax.gid.map_or_else(|| id(header, "the group", 116), Ok)?;
        entry.mtime = match pax.mtime {
            Some(mtime) => mtime,
            None => Timestamp { secs: header.number("the modification time", 136, 12)?, nanos: 0 },
        };
        entry.xattrs = pax.xattrs;
        if matches!(kind, Kind::CharDevice | Kind::BlockDevice) {
            entry.device = device(header)?;
        }
        self.check_names(&entry)?;
        if header.type_flag() == b'S' {
            return self.gnu_sparse(header, entry, stored);
        }
        if kind == Kind::File { self.file(entry, stored, pax.sparse) } else { Ok(Some(entry)) }
    }

    fn check_names(&self, entry: &Entry) -> Result<()> {
        for name in [&entry.path, &entry.link] {
            if name.len() >= self.limits.path_bytes {
                return Err(exhausted(format!(
                    "a path is longer than {} bytes: {}",
                    self.limits.path_bytes,
                    show(name)
                )));
            }
            if name.contains(&0) {
                return Err(corrupt(format!("a path has a NUL byte: {}", show(name))));
            }
        }
        Ok(())
    }

    fn file(
        &mut self,
        mut entry: Box<Entry>,
        stored: u64,
        sparse: super::pax::Sparse,
    ) -> Result<Option<Box<Entry>>> {
        let version = (sparse.major.as_deref(), sparse.minor.as_deref());
        match version {
            (Some(b"1"), Some(b"0")) | (Some(b"0"), Some(b"0" | b"1")) => {}
            (None, None) if !sparse.map.is_empty() => {}
            (None, None) => {
                self.state = Content::plain(stored);
                return Ok(Some(entry));
            }
            _ => return Err(sparse::malformed()),
        }
        if let Some(name) = sparse.name {
            entry.path = name;
            self.check_names(&entry)?;
        }
        entry.size = sparse.size.or(sparse.real_size).unwrap_or(stored);
        if version.0 == Some(b"1") {
            self.state = State::PaxMap { entry, stored, map: MapReader::default() };
            return Ok(None);
        }
        if sparse.blocks.is_some_and(|n| n != sparse.map.len() as u64 / 2) {
            return Err(sparse::malformed());
        }
        let extents = sparse::pairs(&sparse.map, self.limits.sparse_extents)?;
        self.sparse_file(entry, stored, extents, padding(stored)).map(Some)
    }

    fn gnu_sparse(
        &mut self,
        header: &Header,
        mut entry: Box<Entry>,
        stored: u64,
    ) -> Result<Option<Box<Entry>>> {
        let size = header.number("the real size", 483, 12)?;
        entry.size = u64::try_from(size).map_err(|_| sparse::malformed())?;
        let mut extents = Vec::new();
        sparse::gnu_extents(header.field(386, 96), self.limits.sparse_extents, &mut extents)?;
        self.gnu_map(entry, stored, extents, header.0[482] != 0)
    }

    fn gnu_map(
        &mut self,
        entry: Box<Entry>,
        stored: u64,
        extents: Vec<Extent>,
        more: bool,
    ) -> Result<Option<Box<Entry>>> {
        if more {
            self.state = State::GnuMap { entry, stored, extents };
            return Ok(None);
        }
        self.sparse_file(entry, stored, extents, padding(stored)).map(Some)
    }

    fn pax_map(
        &mut self,
        entry: Box<Entry>,
        stored: u64,
        mut map: MapReader,
        block: &[u8; BLOCK],
    ) -> Result<Option<Box<Entry>>> {
        let stored_left = stored.checked_sub(BLOCK as u64).ok_or_else(sparse::malformed)?;
        if !map.block(block, self.limits.sparse_extents)? {
            self.state = State::PaxMap { entry, stored: stored_left, map };
            return Ok(None);
        }
        let extents = map.extents(self.limits.sparse_extents)?;
        self.sparse_file(entry, stored_left, extents, padding(stored_left)).map(Some)
    }

    fn sparse_file(
        &mut self,
        mut entry: Box<Entry>,
        stored: u64,
        extents: Vec<Extent>,
        padding: u64,
    ) -> Result<Box<Entry>> {
        sparse::check(&extents, entry.size, stored)?;
        let mut coming = extents.clone();
        coming.reverse();
        entry.sparse = Some(extents);
        self.state = State::Data(Content { left: stored, padding, offset: 0, extents: Some((coming, 0)) });
        Ok(entry)
    }
}

impl Content {
    fn plain(stored: u64) -> State {
        State::Data(Self { left: stored, padding: padding(stored), offset: 0, extents: None })
    }

    /// Takes the next run of content off `input`; `None` at the end of either.
    fn take<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>> {
        if self.left == 0 || input.is_empty() {
            return Ok(None);
        }
        let mut run = self.left;
        if let Some((coming, in_extent)) = &mut self.extents {
            while *in_extent == 0 {
                let next = coming.pop().ok_or_else(sparse::malformed)?;
                (self.offset, *in_extent) = (next.offset, next.length);
            }
            run = run.min(*in_extent);
        }
        let (bytes, later) = input.split_at(usize_min(input.len(), run));
        let (offset, count) = (self.offset, bytes.len() as u64);
        if let Some((_, in_extent)) = &mut self.extents {
            *in_extent -= count;
        }
        self.left -= count;
        self.offset += count;
        *input = later;
        Ok(Some(Event::Data { offset, bytes }))
    }
}

fn kind(flag: u8, path: &[u8]) -> Result<Kind> {
    Ok(match flag {
        // v7 had no type for directories but a slash.
        0 if path.ends_with(b"/") => Kind::Directory,
        // Type 7 is "contiguous", which POSIX lets be read as regular.
        0 | b'0' | b'7' | b'S' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => Kind::CharDevice,
        b'4' => Kind::BlockDevice,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        other => {
            return Err(corrupt(format!("entry {} has the unknown type {}", show(path), show(&[other]))));
        }
    })
}

fn id(header: &Header, what: &str, offset: usize) -> Result<u32> {
    let id = header.number(what, offset, 8)?;
    u32::try_from(id).map_err(|_| corrupt(format!("{what} of an entry is out of range: {id}")))
}

fn device(header: &Header) -> Result<(u32, u32)> {
    let (major, minor) = (header.number("the major", 329, 8)?, header.number("the minor", 337, 8)?);
    // The kernel's dev_t has 12 and 20 bits.
    match (u32::try_from(major), u32::try_from(minor)) {
        (Ok(major), Ok(minor)) if major < 1 << 12 && minor < 1 << 20 => Ok((major, minor)),
        _ => Err(corrupt(format!("the number of a device is out of range: {major}:{minor}"))),
    }
}

fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

fn skip(input: &mut &[u8], count: u64) -> u64 {
    let count = usize_min(input.len(), count);
    *input = &input[count..];
    count as u64
}

/// Returns the smaller one, which the first makes a usize.
fn usize_min(length: usize, other: u64) -> usize {
    usize::try_from(other).map_or(length, |other| other.min(length))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
