//! The reader: bytes in, events out, no input or output of its own.

use bale_fault::{Fault, Kind, Result};

use super::Entry;
use crate::Limits;

/// What comes next in an archive.
#[derive(Debug)]
pub enum Event<'a> {
    /// A member begins.
    Entry(Box<Entry>),
    /// Bytes of a regular file, to be placed at `offset`.
    Data {
        /// Where in the file, in bytes.
        offset: u64,
        /// The bytes, never empty.
        bytes: &'a [u8],
    },
    /// The member that began last is complete.
    EntryEnd,
}

/// Cuts an archive into events. Bytes are pushed in pieces of any length.
#[derive(Debug)]
pub struct Reader {
    limits: Limits,
}

impl Reader {
    /// Starts at the beginning of an archive.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits }
    }

    /// Takes bytes off the front of `input` and returns the next event; `None` when it needs more input.
    ///
    /// # Errors
    /// `Corrupt` for what is no archive, `Exhausted` above the limits.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>> {
        let _ = (&self.limits, input);
        Err(Fault::new(Kind::Unsupported, "not yet"))
    }

    /// Checks that the input may end here.
    ///
    /// # Errors
    /// `Corrupt` when it ends inside a member.
    pub fn finish(&self) -> Result<()> {
        Err(Fault::new(Kind::Unsupported, "not yet"))
    }
}
