//! The pipeline from compressed bytes to a writer.

use std::fs::File;
use std::io::Read;

use bale_fault::{Fault, Kind, Result};
use bale_spec::Digest;
use bale_spec::image::Descriptor;

use crate::{Compression, LayerWriter, Limits, Table};

/// How a layer is unpacked.
#[derive(Debug, Default)]
pub struct UnpackOptions {
    /// What the manifest promises of the blob: digest and size are verified, the media type is compared.
    pub expected_blob: Option<Descriptor>,
    /// What the config promises of the uncompressed archive.
    pub expected_diff_id: Option<Digest>,
    /// Where the compressed bytes are kept; written from its current position on.
    pub tee: Option<File>,
    /// Bounds.
    pub limits: Limits,
}

/// What a layer was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// Digest of the compressed bytes.
    pub blob_digest: Digest,
    /// Count of the compressed bytes.
    pub blob_size: u64,
    /// Digest of the uncompressed archive, whatever stands after its end included.
    pub diff_id: Digest,
    /// Count of the uncompressed bytes.
    pub tar_size: u64,
    /// How the blob is compressed, by its first bytes.
    pub compression: Compression,
    /// The media type promised another compression.
    pub mislabelled: bool,
    /// Entries of the archive.
    pub entries: u64,
    /// What the writer tells.
    pub table: Table,
}

/// Unpacks one layer into `writer`. Success means that everything was verified.
///
/// # Errors
/// `Corrupt` for digests, sizes, streams or archives that are not as promised, `Exhausted` above the limits, what
/// `compressed` gave, and the writer's own failures.
pub fn unpack<R: Read + Send>(
    compressed: R,
    options: UnpackOptions,
    writer: &mut dyn LayerWriter,
) -> Result<Unpacked> {
    let _ = (compressed, options, writer);
    Err(Fault::new(Kind::Unsupported, "not yet"))
}
