//! Containers from bundles: create, start, exec, kill, delete, state.
//!
//! Decide, then do: the plan turns config and host facts into a printable list of operations; after clone the child
//! only executes them, without allocating or parsing, and answers a failure with the operation's index and errno.

mod container;
mod options;

pub mod cgroup;
pub mod seccomp;

pub use container::{
    create, delete, exec, kill, kill_all, oom_killed, pause, processes, resume, start, state, teardown, update,
};
pub use options::{
    CgroupManager, CreateOptions, Created, ExecOptions, Executed, InitParent, RootSource, Stdio,
};
