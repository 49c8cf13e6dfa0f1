//! The kernel in safe Rust.
