//! The verbs on a container.

use bale_fault::{Fault, Kind, Result};
use bale_record::Dir;
use bale_spec::runtime::{Resources, State};

use crate::options::{CreateOptions, Created, ExecOptions, Executed};

/// Creates a container.
///
/// # Errors
/// The failed step in words; nothing is left of the container then but its directory.
pub fn create(_options: CreateOptions<'_>) -> Result<Created> {
    missing()
}

/// Lets init run its program, and waits until it does.
///
/// # Errors
/// `Conflict` when it does not wait; `ProgramNotFound`, `ProgramNotExecutable`.
pub fn start(_dir: &Dir) -> Result<()> {
    missing()
}

/// Starts a process in a running container. The calling process joins the container's namespaces: it is meant to
/// be a process of this one purpose, sealed, with one thread.
///
/// # Errors
/// `Conflict` when it does not run or is paused; `ProgramNotFound`, `ProgramNotExecutable`.
pub fn exec(_dir: &Dir, _options: ExecOptions<'_>) -> Result<Executed> {
    missing()
}

/// Sends a signal to init.
///
/// # Errors
/// `Conflict` ("container not running") when it has ended.
pub fn kill(_dir: &Dir, _signal: i32) -> Result<()> {
    missing()
}

/// Kills every process of the container.
///
/// # Errors
/// The failed call.
pub fn kill_all(_dir: &Dir) -> Result<()> {
    missing()
}

/// Removes a container: cgroup, poststop hooks, record, directory.
///
/// # Errors
/// `Conflict` when it runs and `force` is not given.
pub fn delete(_dir: Dir, _force: bool) -> Result<()> {
    missing()
}

/// Does what [`delete`] does, except that record and directory stay: for the supervisor, after the end of init.
///
/// # Errors
/// What failed; everything is tried.
pub fn teardown(_dir: &Dir) -> Result<()> {
    missing()
}

/// Tells how a container is.
///
/// # Errors
/// `NotFound`, `Corrupt`.
pub fn state(_dir: &Dir) -> Result<State> {
    missing()
}

/// Lists the pids of a container's processes, as the caller sees them.
///
/// # Errors
/// The failed call.
pub fn processes(_dir: &Dir) -> Result<Vec<i32>> {
    missing()
}

/// Freezes a container.
///
/// # Errors
/// `Conflict` when it does not run.
pub fn pause(_dir: &Dir) -> Result<()> {
    missing()
}

/// Thaws a container.
///
/// # Errors
/// `Conflict` when it is not paused.
pub fn resume(_dir: &Dir) -> Result<()> {
    missing()
}

/// Changes limits of a container.
///
/// # Errors
/// The file that refused the value.
pub fn update(_dir: &Dir, _resources: &Resources) -> Result<()> {
    missing()
}

/// Tells whether the OOM killer was at work in the container: to be asked before [`teardown`].
#[must_use]
pub fn oom_killed(_dir: &Dir) -> bool {
    false
}

fn missing<T>() -> Result<T> {
    Err(Fault::new(Kind::Unsupported, "the runtime is not there yet"))
}
