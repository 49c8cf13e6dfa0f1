//! Plain data and pure functions: OCI types, digests, references, validation, config generation, legacy dialects.
//!
//! No file system, no clock, no environment: everything here can be fuzzed.

pub mod capability;
pub mod digest;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod generate;
pub mod image;
pub mod json;
pub mod legacy;
pub mod options;
pub mod reference;
pub mod runtime;
pub mod signal;
pub mod suggest;
pub mod user;
pub mod validate;

pub use digest::Digest;
pub use reference::Reference;
