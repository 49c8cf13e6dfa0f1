//! The way back: a deterministic compressed archive from a directory.
//!
//! ```text
//! files ─► walk, tar, sha256 ─► 4 x 1 MiB ─► compress, sha256 ─► output
//!          (the caller's thread)             (thread of its own)
//! ```

mod compress;
mod walk;

use std::io::Write;

use bale_fault::Result;
use bale_spec::Digest;
use bale_sys::root::RootFd;

use crate::Compression;
use crate::tar::Timestamp;

/// What the directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A tree of files, taken as it is; `.wh.` names are refused, as they would become whiteouts.
    Tree,
    /// The upper directory of an overlay: 0:0 devices become `.wh.` entries, opaque marks `.wh..wh..opq`.
    OverlayUpper,
}

/// How a directory is packed.
#[derive(Clone, Debug)]
pub struct PackOptions {
    /// What the directory is.
    pub source: Source,
    /// The compression.
    pub compression: Compression,
    /// Its level; `None` is 6 for gzip and 3 for zstd.
    pub level: Option<u32>,
    /// Later modification times are set to this one (`SOURCE_DATE_EPOCH`).
    pub clamp_mtime: Option<Timestamp>,
    /// The root directory gets an entry too.
    pub root_entry: bool,
}

impl PackOptions {
    /// Packs `source` with `compression` at its usual level, times as they are, without an entry for the
    /// root.
    #[must_use]
    pub const fn new(source: Source, compression: Compression) -> Self {
        Self { source, compression, level: None, clamp_mtime: None, root_entry: false }
    }
}

/// What was packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Digest of the compressed bytes.
    pub blob_digest: Digest,
    /// Count of the compressed bytes.
    pub blob_size: u64,
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
    /// Count of the uncompressed bytes.
    pub tar_size: u64,
    /// Entries of the archive.
    pub entries: u64,
}

/// Packs the directory `root` into `out`: the same tree gives the same bytes.
///
/// Entries are sorted by the bytes of their names, hard links keep their first name, sockets are left out;
/// `user.*`, `security.capability` and ACLs are kept. Mount points below `root` are not entered.
///
/// # Errors
/// A failed system call, the failed write, or a file that became shorter meanwhile.
pub fn pack<W: Write + Send>(root: &RootFd, options: &PackOptions, out: W) -> Result<(W, Packed)> {
    compress::pipeline(options, out, |archive| walk::walk(root, options, archive))
}
