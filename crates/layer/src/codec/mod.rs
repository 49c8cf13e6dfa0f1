//! Compressed layers: gzip, zstd, or none, told apart by their first bytes.
//!
//! The first bytes win over the media type, as in Docker and containerd: a gzip layer that is labelled as
//! plain tar is read, and so is a plain tar labelled as gzip; the digests are what is trusted.
//! [`crate::Unpacked::mislabelled`] tells of it.

mod gzip;
mod zstd;

use bale_fault::{Fault, Kind, Result};

pub use bale_spec::image::Compression;

use crate::fault::corrupt;

/// How many bytes [`detect`] wants to see, unless the stream is shorter.
pub(crate) const MAGIC_BYTES: usize = 6;

/// Tells the compression by the first bytes of a stream; anything unknown is taken as plain tar.
///
/// # Errors
/// `Unsupported` for compressions that layers may not have.
pub(crate) fn detect(first: &[u8]) -> Result<Compression> {
    let skippable = first.len() >= 4 && first[0] & 0xf0 == 0x50 && first[1..4] == [0x2a, 0x4d, 0x18];
    if first.starts_with(&[0x1f, 0x8b]) {
        Ok(Compression::Gzip)
    } else if first.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || skippable {
        Ok(Compression::Zstd)
    } else if first.starts_with(b"BZh") || first.starts_with(&[0xfd, b'7', b'z', b'X', b'Z', 0]) {
        let name = if first[0] == b'B' { "bzip2" } else { "xz" };
        Err(Fault::new(Kind::Unsupported, format!("the layer is compressed with {name}"))
            .hint("layers are plain tar, gzip or zstd; convert the image first"))
    } else {
        Ok(Compression::None)
    }
}

/// Decompresses a stream that comes in pieces.
pub(crate) enum Decoder {
    None,
    Gzip(Box<gzip::Gzip>),
    Zstd(zstd::Zstd),
}

impl Decoder {
    pub(crate) fn new(compression: Compression) -> Result<Self> {
        Ok(match compression {
            Compression::None => Self::None,
            Compression::Gzip => Self::Gzip(Box::new(gzip::Gzip::new())),
            Compression::Zstd => Self::Zstd(zstd::Zstd::new()?),
        })
    }

    /// Takes bytes off `input`, puts bytes into `output` and returns how many. Less than `output` holds means
    /// that all of `input` was taken and more is wanted.
    pub(crate) fn decode(&mut self, input: &mut &[u8], output: &mut [u8]) -> Result<usize> {
        match self {
            Self::None => {
                let count = input.len().min(output.len());
                let (now, later) = input.split_at(count);
                output[..count].copy_from_slice(now);
                *input = later;
                Ok(count)
            }
            Self::Gzip(gzip) => gzip.decode(input, output),
            Self::Zstd(zstd) => zstd.decode(input, output),
        }
    }

    /// Checks that the stream may end here.
    pub(crate) fn finish(&self) -> Result<()> {
        let complete = match self {
            Self::None => true,
            Self::Gzip(gzip) => gzip.is_complete(),
            Self::Zstd(zstd) => zstd.is_complete(),
        };
        if complete { Ok(()) } else { Err(corrupt("the compressed stream ends too early")) }
    }
}

#[cfg(test)]
mod tests;
