//! Containers from bundles: create, start, exec, kill, delete, state.
//!
//! Decide, then do: [`plan`] turns config and host facts into a printable list of operations; after clone the child
//! only executes them, without allocating or parsing, and answers a failure with the operation's index and errno.

mod container;
mod exec;
mod facts;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod hooks;
pub mod init;
mod kept;
mod life;
mod listener;
mod net_devices;
mod options;
mod parent;
pub mod plan;
mod rdt;
mod shared_mounts;
mod sources;

pub mod cgroup;
pub mod seccomp;
pub mod timings;

pub use container::{create, explain, start};
pub use exec::{exec, process_of};
pub use facts::listen_fds;
pub use life::{
    delete, kill, kill_all, oom_killed, pause, processes, resume, state, stats, teardown, update, update_rdt,
};
pub use options::{
    CgroupManager, CreateOptions, Created, ExecOptions, Executed, InitParent, RootSource, Stdio,
};
