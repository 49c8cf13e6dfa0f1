//! The runtime's command line, as runc has it.

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs `bale runc …`, or bale called as `runc`, `crun` or `bale-runc`.
pub fn main(_called_as: &str, _arguments: &[OsString]) -> ExitCode {
    let fault = bale_fault::Fault::new(bale_fault::Kind::Unsupported, "the runtime is not built yet");
    crate::exit::report(&fault);
    ExitCode::FAILURE
}
