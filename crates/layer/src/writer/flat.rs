//! A root file system: each layer is applied on what the layers below have left.

use bale_fault::{Fault, Kind, Result};
use bale_sys::root::RootFd;

use super::LayerWriter;
use crate::Table;
use crate::tar::Entry;

/// A root file system: each layer is applied on what the layers below have left.
#[derive(Debug)]
pub struct FlatWriter {
    root: RootFd,
}

impl FlatWriter {
    /// Writes into `root`, a directory that nobody else writes to.
    ///
    /// # Errors
    /// A failed system call.
    pub fn new(root: RootFd) -> Result<Self> {
        Ok(Self { root })
    }
}

impl LayerWriter for FlatWriter {
    fn entry(&mut self, entry: Entry) -> Result<()> {
        let _ = (entry, &self.root);
        Err(Fault::new(Kind::Unsupported, "not yet"))
    }

    fn data(&mut self, _offset: u64, _bytes: &[u8]) -> Result<()> {
        Err(Fault::new(Kind::Unsupported, "not yet"))
    }

    fn finish(&mut self) -> Result<Table> {
        Err(Fault::new(Kind::Unsupported, "not yet"))
    }
}
