//! A layer as a stream: decompress, digest, tar events, writers, and the way back.
//!
//! ```text
//! compressed ─► read, sha256, keep, inflate ─► 4 x 1 MiB ─► sha256, tar events ─► writer ─► files
//!               (thread of its own)            (bounded)    (thread of the caller)
//! ```
//!
//! [`unpack`] returns success only when both digests and the size are what was promised and the writer has
//! finished; until then nothing of the layer may be shown to anybody. [`pack`] is the way back.

pub mod codec;
mod fault;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod limits;
pub mod pack;
mod table;
pub mod tar;
mod unpack;
pub mod writer;

pub use codec::Compression;
pub use limits::Limits;
pub use table::{DeferredLink, Table, Warning, Warnings};
pub use unpack::{UnpackOptions, Unpacked, unpack};
pub use writer::{FlatWriter, LayerWriter, OverlayWriter};
