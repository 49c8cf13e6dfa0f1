//! How much a layer may ask for.

/// Bounds on what one layer may make bale do. A caller that unpacks an image lowers `entries` and `tar_bytes`
/// by what the layers before have used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries of the archive.
    pub entries: u64,
    /// Bytes of the uncompressed archive.
    pub tar_bytes: u64,
    /// Bytes of the compressed layer, for layers whose size nobody promised.
    pub blob_bytes: u64,
    /// Bytes of output for each byte of input, once `ratio_from_bytes` have come out (gzip cannot exceed
    /// 1032).
    pub ratio: u64,
    /// Bytes of output below which the ratio is not looked at.
    pub ratio_from_bytes: u64,
    /// Bytes of a path, and of a link's target (`PATH_MAX`, its NUL included).
    pub path_bytes: usize,
    /// Bytes of PAX records or of a GNU long name before one entry.
    pub pax_bytes: usize,
    /// Extents of one sparse file (CVE-2025-58183).
    pub sparse_extents: usize,
    /// Extended attributes of one entry.
    pub xattrs: usize,
    /// Bytes of one extended attribute's value (`XATTR_SIZE_MAX`).
    pub xattr_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 10_000_000,
            tar_bytes: 1 << 40,
            blob_bytes: 1 << 40,
            ratio: 1000,
            ratio_from_bytes: 1 << 30,
            path_bytes: 4096,
            pax_bytes: 1 << 20,
            sparse_extents: 10_000,
            xattrs: 128,
            xattr_bytes: 64 << 10,
        }
    }
}
