//! The way back: a deterministic compressed archive from a directory.

use std::io::Write;

use bale_fault::{Fault, Kind, Result};
use bale_spec::Digest;
use bale_sys::root::RootFd;

use crate::Compression;
use crate::tar::Timestamp;

/// What the directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A tree of files, taken as it is.
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
/// # Errors
/// A failed system call, or the failed write.
pub fn pack<W: Write + Send>(root: &RootFd, options: &PackOptions, out: W) -> Result<(W, Packed)> {
    let _ = (root, options);
    drop(out);
    Err(Fault::new(Kind::Unsupported, "not yet"))
}
