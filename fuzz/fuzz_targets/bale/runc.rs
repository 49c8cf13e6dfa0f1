//! The part of the binary's module `runc` that is fuzzed.

#[path = "../../../crates/bale/src/runc/args.rs"]
pub mod args;
