//! The only mapping from failures to exit codes, and the only place that prints them.

use std::io::Write;

use bale_fault::{Fault, Kind};

/// How this program ends. The standard library's type does not tell its number, which [`bale_sys::entry`] wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitCode(u8);

impl ExitCode {
    /// All went well.
    pub const SUCCESS: Self = Self(0);
    /// It did not.
    pub const FAILURE: Self = Self(1);

    /// Returns the number.
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl From<u8> for ExitCode {
    fn from(code: u8) -> Self {
        Self(code)
    }
}

/// Docker's exit code for a failure of the tool itself.
pub const FAILURE: u8 = 125;
/// Docker's exit code for a program that cannot be executed.
pub const NOT_EXECUTABLE: u8 = 126;
/// Docker's exit code for a program that does not exist.
pub const NOT_FOUND: u8 = 127;

/// How `run`, `start -a`, `create` and `exec` end when the container's program never ran (docker run, "Exit status").
pub fn of_run(fault: &Fault) -> ExitCode {
    ExitCode::from(match fault.kind() {
        Kind::ProgramNotFound => NOT_FOUND,
        Kind::ProgramNotExecutable => NOT_EXECUTABLE,
        _ => FAILURE,
    })
}

/// Prints the chain once, and the hint.
pub fn report(fault: &Fault) {
    let mut stderr = anstream();
    // Nothing is left to tell when standard error is closed.
    let _ = writeln!(stderr, "bale: {}", printable(&fault.chain()));
    let unprivileged = fault.kind() == Kind::PermissionDenied && !rustix::process::geteuid().is_root();
    let hint = fault
        .innermost_hint()
        .or(unprivileged.then_some("run bale as root: containers and images are root's"));
    if let Some(hint) = hint {
        let _ = writeln!(stderr, "  hint: {}", printable(hint));
    }
}

fn anstream() -> std::io::Stderr {
    std::io::stderr()
}

/// Replaces control characters, which a registry's or an image's text may carry, so that they cannot drive a terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}
