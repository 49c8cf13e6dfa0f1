//! Tar archives, as the layers of images use them: v7, ustar, GNU, star and PAX.
//!
//! Where the formats leave room, this reads as Go's archive/tar does, since that wrote most images: a size on
//! a link, directory, device or FIFO is ignored; global PAX headers are; the archive ends at two zero blocks
//! or at its end.

mod entry;
mod header;
mod pax;
mod reader;
mod sparse;
mod writer;

pub use entry::{Entry, Extent, Kind, Timestamp, Xattr};
pub use reader::{Event, Reader};
pub use writer::Writer;
