//! An overlay directory: one layer alone, as overlayfs wants it (whiteouts are 0:0 devices, opaque directories are marked).

use bale_fault::{Fault, Kind, Result};
use bale_sys::root::RootFd;

use super::LayerWriter;
use crate::Table;
use crate::tar::Entry;

/// An overlay directory: one layer alone, as overlayfs wants it (whiteouts are 0:0 devices, opaque directories are marked).
#[derive(Debug)]
pub struct OverlayWriter {
    root: RootFd,
}

impl OverlayWriter {
    /// Writes into `root`, a directory that nobody else writes to.
    ///
    /// # Errors
    /// A failed system call.
    pub fn new(root: RootFd) -> Result<Self> {
        Ok(Self { root })
    }
}

impl LayerWriter for OverlayWriter {
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
