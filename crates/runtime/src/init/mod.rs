//! What the child of clone does: it executes the plan's operations, without a choice, an allocation or a parser.

mod execute;
mod files;
mod hook;
mod procfs;
pub mod report;
pub mod words;

use std::ffi::CString;
use std::os::fd::OwnedFd;

use bale_sys::process::Argv;
use bale_sys::seccomp::{Flags, Instruction};

pub use execute::run;

/// The program that init becomes.
#[derive(Debug)]
pub struct Program {
    /// Paths to try, in the order of `$PATH`; one when argv[0] has a slash.
    pub candidates: Vec<CString>,
    /// argv[0] has no slash.
    pub in_path: bool,
    /// argv.
    pub argv: Argv,
    /// Environment.
    pub env: Argv,
}

/// The filter that init loads.
#[derive(Debug, Default)]
pub struct Filter {
    /// Program.
    pub instructions: Vec<Instruction>,
    /// Flags.
    pub flags: Flags,
}

/// What init inherits: everything was opened before clone.
#[derive(Debug)]
pub struct Inherited<'a> {
    /// The sources of the plan.
    pub sources: &'a [OwnedFd],
    /// The host's `/proc`.
    pub proc: &'a OwnedFd,
    /// The root, when the caller has joined a container already.
    pub root: Option<&'a OwnedFd>,
    /// `tasks` files of v1 cgroups.
    pub tasks: &'a [OwnedFd],
    /// Init's side of the socket to its parent.
    pub parent: &'a OwnedFd,
    /// `start.fifo` (read and write) and `result.fifo` (write).
    pub fifos: Option<&'a (OwnedFd, OwnedFd)>,
    /// Standard streams to take.
    pub stdio: Option<&'a [OwnedFd; 3]>,
    /// Where the terminal's master goes; to the parent when there is none.
    pub console: Option<&'a OwnedFd>,
    /// How many descriptors after 2 the program keeps.
    pub preserve_fds: u32,
}
