//! Containers from bundles: create, start, exec, kill, delete, state.

pub mod cgroup;
pub mod seccomp;
