//! Roles that bale starts itself in: never typed by people.

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the inner role `role` (with its `@`).
pub fn main(role: &str, _arguments: &[OsString]) -> ExitCode {
    let fault = bale_fault::Fault::new(bale_fault::Kind::InvalidInput, format!("no inner role {role:?}"));
    crate::exit::report(&fault);
    ExitCode::from(crate::exit::FAILURE)
}
