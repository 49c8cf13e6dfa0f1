//! The writer of archives.

use std::io::{Read, Write};

use bale_fault::{Fault, Kind, Result};

use super::Entry;

/// Writes an archive: ustar where it suffices, PAX records where it does not. The same entries give the same bytes.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
}

impl<W: Write> Writer<W> {
    /// Starts an archive.
    pub fn new(out: W) -> Self {
        Self { out }
    }

    /// Writes an entry; exactly `entry.size` bytes are taken from `content`.
    ///
    /// # Errors
    /// The failed read or write; `content` shorter than promised.
    pub fn append(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<()> {
        let _ = (entry, content, &mut self.out);
        Err(Fault::new(Kind::Unsupported, "not yet"))
    }

    /// Writes the end of the archive and gives the output back.
    ///
    /// # Errors
    /// The failed write.
    pub fn finish(self) -> Result<W> {
        Ok(self.out)
    }
}
