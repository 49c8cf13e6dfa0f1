//! What tests and `cargo xtask` need: root or a loud failure, scratch folders, the binary and its answers, images
//! made of Debian packages, and the machine before and after.
//!
//! ```text
//! #[test]
//! fn echoes() {
//!     bale_testkit::require_root!();
//!     let bale = bale_testkit::bale!();              // its own BALE_ROOT, emptied at the end
//!     bale.ok(["load", "-i", bale_testkit::image::busybox().to_str().unwrap()]);
//!     assert_eq!(bale.ok(["run", "--rm", "busybox", "echo", "hello"]), "hello\n");
//! }
//! ```
//!
//! Everything here but [`command`] returns `io::Result` (with words); tests unwrap it, `xtask` prints it.

pub mod command;
pub mod debian;
pub mod fuzz;
pub mod image;
pub mod machine;
pub mod peers;
#[cfg(feature = "registry")]
pub mod registry;
pub mod scratch;
pub mod service;
pub mod tree;

pub use command::{Bale, Outcome};
pub use scratch::Scratch;

use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Set to `1` by `cargo xtask test --unprivileged`: tests that need root end early instead of failing.
pub const UNPRIVILEGED: &str = "BALE_TEST_UNPRIVILEGED";
/// Why a test ends early outside of the project's virtual machine.
pub const WANTS_VM: &str = "runs in the virtual machine: cargo xtask vm test";
/// Is `1` in the project's virtual machine.
pub const VM: &str = "BALE_VM";
/// Names a static busybox, for machines that have one and no network to fetch it from.
pub const BUSYBOX: &str = "BALE_TEST_BUSYBOX";
/// Names a file that gets one line for each test that ended early, for the closing count.
pub const SKIPS: &str = "BALE_TEST_SKIPS";

/// Ends the test early when `BALE_TEST_UNPRIVILEGED=1`, and fails it without root otherwise.
///
/// # Panics
/// Without root, unless told that there is none.
#[macro_export]
macro_rules! require_root {
    () => {
        if !$crate::has_root("root") {
            return;
        }
    };
}

/// Makes a [`Bale`] of the binary that cargo built for this integration test.
#[macro_export]
macro_rules! bale {
    () => {
        $crate::Bale::new(env!("CARGO_BIN_EXE_bale"))
    };
}

/// Tells whether the test may go on; see [`require_root!`].
///
/// # Panics
/// Without root, unless `BALE_TEST_UNPRIVILEGED=1`.
#[must_use]
pub fn has_root(need: &str) -> bool {
    // Told so, root runs what a user could run, so that both see the same.
    if std::env::var_os(UNPRIVILEGED).is_some_and(|v| v == "1") {
        note_skip(&format!("needs {need}"));
        return false;
    }
    let root = rustix::process::geteuid().is_root();
    assert!(root, "this test needs {need}: run it as root, or set {UNPRIVILEGED}=1 to leave it out");
    true
}

/// Ends the test early outside of the project's virtual machine (`cargo xtask vm test`).
#[macro_export]
macro_rules! require_vm {
    () => {
        if !$crate::in_vm() {
            return;
        }
    };
}

/// Tells whether the test may go on; see [`require_vm!`].
#[must_use]
pub fn in_vm() -> bool {
    let inside = std::env::var_os(VM).is_some_and(|v| v == "1");
    if !inside {
        note_skip(WANTS_VM);
    }
    inside
}

/// Notes that the calling test ends early for `reason`, so that the closing count can say so.
#[allow(clippy::print_stdout, reason = "the test harness shows it with the test's output")]
pub fn note_skip(reason: &str) {
    use std::io::Write as _;
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("?");
    println!("skipped: {name}: {reason}");
    let Some(path) = std::env::var_os(SKIPS) else { return };
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    // The count is a courtesy: a test must not fail for it.
    let _ = file.and_then(|mut file| file.write_all(format!("{reason}\t{name}\n").as_bytes()));
}

/// Returns the folder in which tests keep what they downloaded (`BALE_TEST_CACHE`, default `target/test-cache`).
#[must_use]
pub fn cache_dir() -> PathBuf {
    let set = std::env::var_os("BALE_TEST_CACHE").map(PathBuf::from);
    let below_target = || {
        let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
        target.unwrap_or_else(|| workspace_dir().join("target")).join("test-cache")
    };
    set.unwrap_or_else(below_target)
}

/// Returns the root folder of the workspace.
#[must_use]
pub fn workspace_dir() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map_or(here.clone(), PathBuf::from)
}

/// Runs a helper program to its end and returns its standard output.
///
/// # Errors
/// With the command line and what it wrote to standard error, when it cannot be run or fails.
pub fn output_of(command: &mut Command) -> io::Result<Vec<u8>> {
    let shown = command::shown(command);
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|e| io::Error::new(e.kind(), format!("{shown}: {e}")))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{shown}: {}: {}", output.status, words.trim_end())))
}
