//! The writer of archives.

use std::io::{Read, Write};

use bale_fault::{Context, Fault, Kind as FaultKind, Result};

use super::entry::{Entry, Kind, Timestamp};
use super::header::BLOCK;
use crate::fault::{corrupt, show};

const ZEROS: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// Writes an archive: ustar where it suffices, PAX records where it does not, in a fixed order. The same
/// entries give the same bytes. Sparse files are written in full.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
    buffer: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Starts an archive.
    pub fn new(out: W) -> Self {
        Self { out, buffer: vec![0; 128 << 10] }
    }

    /// Writes an entry; exactly `entry.size` bytes are taken from `content`, nothing for what is no file.
    ///
    /// # Errors
    /// The failed read or write; `content` shorter than promised; a name with a NUL byte.
    pub fn append(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<()> {
        let size = if entry.kind == Kind::File { entry.size } else { 0 };
        let mut header = header(entry, size)?;
        let records = records(entry, size, &mut header);
        if !records.is_empty() {
            let mut extended = Entry::new(pax_name(&entry.path), Kind::File);
            extended.size = records.len() as u64;
            let mut block = self::header(&extended, extended.size)?;
            block[156] = b'x';
            self.put(&checked(block))?;
            self.put(&records)?;
            self.pad(extended.size)?;
        }
        self.put(&checked(header))?;
        self.content(entry, size, content)?;
        self.pad(size)
    }

    /// Writes the end of the archive and gives the output back.
    ///
    /// # Errors
    /// The failed write.
    pub fn finish(mut self) -> Result<W> {
        self.put(&ZEROS)?;
        Ok(self.out)
    }

    fn content(&mut self, entry: &Entry, size: u64, content: &mut dyn Read) -> Result<()> {
        let mut left = size;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            let count = match content.read(&mut self.buffer[..want]) {
                Ok(0) => {
                    let words = format!("{} became shorter while it was read", show(&entry.path));
                    return Err(Fault::new(FaultKind::Conflict, words));
                }
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).within(|| format!("read {}", show(&entry.path))),
            };
            self.out.write_all(&self.buffer[..count]).within(|| "write the archive")?;
            left -= count as u64;
        }
        Ok(())
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let padding = (size.wrapping_neg() % BLOCK as u64) as usize;
        self.put(&ZEROS[..padding])
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).within(|| "write the archive")
    }
}

/// Makes the header without its checksum; fields that do not fit are left for [`records`].
fn header(entry: &Entry, size: u64) -> Result<[u8; BLOCK]> {
    if entry.path.contains(&0) || entry.link.contains(&0) {
        return Err(corrupt(format!("a name has a NUL byte: {}", show(&entry.path))));
    }
    let mut block = [0; BLOCK];
    let (prefix, name) = split(&entry.path).unwrap_or((b"", &entry.path[..entry.path.len().min(100)]));
    block[..name.len()].copy_from_slice(name);
    block[345..345 + prefix.len()].copy_from_slice(prefix);
    let link = &entry.link[..entry.link.len().min(100)];
    block[157..157 + link.len()].copy_from_slice(link);
    octal(&mut block[100..108], (entry.mode & 0o7777).into());
    octal(&mut block[108..116], entry.uid.into());
    octal(&mut block[116..124], entry.gid.into());
    octal(&mut block[124..136], size);
    octal(&mut block[136..148], u64::try_from(entry.mtime.secs).unwrap_or(0));
    block[156] = match entry.kind {
        Kind::File => b'0',
        Kind::HardLink => b'1',
        Kind::Symlink => b'2',
        Kind::CharDevice => b'3',
        Kind::BlockDevice => b'4',
        Kind::Directory => b'5',
        Kind::Fifo => b'6',
    };
    block[257..265].copy_from_slice(b"ustar\x0000");
    octal(&mut block[329..337], entry.device.0.into());
    octal(&mut block[337..345], entry.device.1.into());
    Ok(block)
}

/// Returns the PAX records for what the header cannot hold, sorted by key as Go writes them.
fn records(entry: &Entry, size: u64, header: &mut [u8; BLOCK]) -> Vec<u8> {
    let mut records: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut add = |key: &[u8], value: Vec<u8>| records.push((key.to_vec(), value));
    if split(&entry.path).is_none() || !entry.path.is_ascii() {
        add(b"path", entry.path.clone());
    }
    if entry.link.len() > 100 || !entry.link.is_ascii() {
        add(b"linkpath", entry.link.clone());
    }
    for (key, id) in [(b"uid", entry.uid), (b"gid", entry.gid)] {
        if id > 0o777_7777 {
            add(key, id.to_string().into_bytes());
        }
    }
    if size > 0o777_7777_7777 {
        add(b"size", size.to_string().into_bytes());
    }
    let mtime = entry.mtime;
    if mtime.nanos != 0 || !(0..=0o777_7777_7777).contains(&mtime.secs) {
        add(b"mtime", decimal_time(mtime).into_bytes());
        if !(0..=0o777_7777_7777).contains(&mtime.secs) {
            octal(&mut header[136..148], 0);
        }
    }
    for xattr in &entry.xattrs {
        add(&[b"SCHILY.xattr.", &xattr.name[..]].concat(), xattr.value.clone());
    }
    records.sort();
    records.iter().flat_map(|(key, value)| record(key, value)).collect()
}

fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let body = key.len() + value.len() + 3;
    let mut length = body + body.to_string().len();
    // The length counts its own digits.
    if length.to_string().len() != body.to_string().len() {
        length = body + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

fn decimal_time(time: Timestamp) -> String {
    let (sign, secs, nanos) = match (time.secs < 0, time.nanos) {
        (false, nanos) => ("", time.secs.unsigned_abs(), nanos),
        (true, 0) => ("-", time.secs.unsigned_abs(), 0),
        (true, nanos) => ("-", time.secs.unsigned_abs() - 1, 1_000_000_000 - nanos),
    };
    if nanos == 0 {
        return format!("{sign}{secs}");
    }
    let text = format!("{sign}{secs}.{nanos:09}");
    text.trim_end_matches('0').to_owned()
}

/// Splits a path into ustar's prefix and name.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.len() <= 100 {
        return Some((b"", path));
    }
    // The name may be 100 bytes long and must not be empty, the prefix 155.
    let first = path.len().checked_sub(101)?;
    let at = (first..path.len() - 1).find(|&at| path[at] == b'/')?;
    (at <= 155 && at > 0).then_some((&path[..at], &path[at + 1..]))
}

/// The name of the extended header itself, which old readers would extract.
fn pax_name(path: &[u8]) -> Vec<u8> {
    let last = path.split(|&b| b == b'/').rfind(|c| !c.is_empty()).unwrap_or(b"root");
    let ascii: Vec<u8> = last.iter().copied().filter(u8::is_ascii).take(80).collect();
    [b"PaxHeaders.0/", &ascii[..]].concat()
}

/// Writes `value` in octal with a NUL behind it, or nothing but zeros when it does not fit.
fn octal(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let fits = value >> (3 * digits).min(63) == 0;
    let text = format!("{:0digits$o}", if fits { value } else { 0 });
    field[..digits].copy_from_slice(text.as_bytes());
}

fn checked(mut block: [u8; BLOCK]) -> [u8; BLOCK] {
    block[148..156].copy_from_slice(b"        ");
    let sum: u64 = block.iter().map(|&b| u64::from(b)).sum();
    octal(&mut block[148..155], sum);
    block
}
