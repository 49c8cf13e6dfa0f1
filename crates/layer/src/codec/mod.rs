//! Compressed layers: gzip, zstd, or none.

pub use bale_spec::image::Compression;
