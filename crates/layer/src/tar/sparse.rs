//! Sparse files.
