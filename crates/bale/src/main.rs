//! The binary: picks a role before any thread or parser exists.
fn main() {}
