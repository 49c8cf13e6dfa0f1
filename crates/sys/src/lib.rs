//! The kernel in safe Rust: the only crate that may say `unsafe`.
//!
//! One file per subject; rustix is used where it has the call, `raw` has the rest. Descriptors before paths, and
//! every descriptor is born with `O_CLOEXEC`.

pub mod bpf;
#[cfg(target_arch = "x86_64")]
mod early;
pub mod entry;
pub mod error;
pub mod file;
pub mod identity;
pub mod mount;
pub mod namespace;
pub mod netlink;
pub mod process;
pub mod remove;
pub mod root;
pub mod seal;
pub mod seccomp;
pub mod signal;
pub mod socket;
#[cfg(known_start)]
mod start;
pub mod terminal;

mod raw;

pub use error::{Error, Result};
