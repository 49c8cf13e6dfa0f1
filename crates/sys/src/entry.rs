//! The program's `main`, for a program that is started thousands of times.
//!
//! What the standard library does before a Rust `main` reads and parses `/proc/self/maps`, to tell a stack overflow
//! from other faults, and more that a process of a millisecond has no use for. [`crate::entry`] makes a `main` that
//! does the two things that the program relies on.

use std::io::Write;

use rustix::fs::{Mode, OFlags};

use crate::raw;

/// Makes `$main`, a `fn() -> u8`, what the program does; what it returns is the exit status. For a binary with
/// `#![no_main]`.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        const _: () = {
            #[unsafe(no_mangle)]
            extern "C" fn main(_: i32, _: *const *const std::ffi::c_char) -> i32 {
                $crate::entry::run($main)
            }
        };
    };
}

/// Runs `main` in a process that has standard streams and is told of a broken pipe by an error, and returns its exit
/// status. What it wrote to standard output is flushed.
pub fn run(main: fn() -> u8) -> i32 {
    open_streams();
    raw::ignore_signal(libc::SIGPIPE);
    let code = main();
    // A command whose output matters has written it through and looked at the answer.
    let _ = std::io::stdout().flush();
    i32::from(code)
}

/// Opens `/dev/null` for each standard stream that is closed: another file opened later would get its number.
fn open_streams() {
    for stream in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        if rustix::io::fcntl_getfd(stream).is_err() {
            // The lowest free number is this one's, as they are looked at in order.
            let opened = rustix::fs::open(c"/dev/null", OFlags::RDWR, Mode::empty());
            if opened.map(std::os::fd::IntoRawFd::into_raw_fd).is_err() {
                std::process::abort();
            }
        }
    }
}
