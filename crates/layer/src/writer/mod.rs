//! Where a layer's entries go.
//!
//! Both writers stand on [`tree`]: every step is taken from a descriptor of a directory, one component at a
//! time, and attributes are set on descriptors that the writer itself has made. Decisions that hold for both:
//!
//! - A path with a `..` component is refused; a leading `/` and `./` are dropped. Only a directory entry may
//!   name the root.
//! - An entry **below a symbolic link** is written where the link leads, resolved as if the layer's root were
//!   `/` (Docker, containerd and umoci do the same). A writer sees the links of what it writes into:
//!   [`FlatWriter`] those of lower layers too, [`OverlayWriter`] only those of its own layer; there, `lib/x`
//!   on a lower `lib -> usr/lib` makes a directory `lib` that hides the link, as in Docker's and containerd's
//!   overlay drivers, and is recorded in [`crate::Table::implied_parents`] so that whoever stacks the layers
//!   can see it.
//! - A later entry of the same name replaces an earlier one; a directory on a directory keeps its content and
//!   takes the new attributes. The target of a hard link is resolved within the root, an absolute one too; a
//!   link to itself is nothing to do. A hard link's own attributes are those of its target and the entry's
//!   are ignored.
//! - A whiteout hides what lower layers have, never what this layer has, wherever it stands in the archive: a
//!   directory that has both an entry and a whiteout is opaque. `.wh.` names that are no whiteouts (AUFS's
//!   own) are left out.
//! - Sockets do not exist in archives; unknown types are refused by the reader.

pub(crate) mod attributes;
mod file;
mod flat;
mod name;
mod overlay;
pub(crate) mod remove;
mod tree;
mod written;
pub(crate) mod xattr;

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
