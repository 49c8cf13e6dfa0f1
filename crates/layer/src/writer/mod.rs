//! Where a layer's entries go.

mod flat;
mod overlay;

use bale_fault::Result;

use crate::Table;
use crate::tar::Entry;

pub use flat::FlatWriter;
pub use overlay::OverlayWriter;

/// Takes the entries of one layer in the archive's order.
pub trait LayerWriter {
    /// Begins an entry and finishes the one before.
    ///
    /// # Errors
    /// An entry that is malformed or leaves the root; a failed system call.
    fn entry(&mut self, entry: Entry) -> Result<()>;

    /// Takes content of the file that began last.
    ///
    /// # Errors
    /// The failed write.
    fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<()>;

    /// Finishes the layer: attributes of directories are set now.
    ///
    /// # Errors
    /// A failed system call.
    fn finish(&mut self) -> Result<Table>;
}
