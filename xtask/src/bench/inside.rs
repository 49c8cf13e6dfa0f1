//! The peers' tree as the root of private namespaces.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_change,
    unmount,
};

use crate::run::{Failure, Result};

/// Where the prepared folder is seen inside.
pub const PREPARED: &str = "/mnt";
/// The bench's own folder, in memory.
pub const OWN: &str = "/run/bench";
/// The name of the cgroup below which every contender works.
pub const BENCH_CGROUP: &str = "bale-bench";
/// The same where the bench has mounted cgroup2.
pub const CGROUP: &str = "/sys/fs/cgroup/bale-bench";
/// Where a host with cgroup v1 has its hierarchies.
pub const V1: &str = "/sys/fs/cgroup";

/// Whose cgroups the tree shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cgroups {
    /// A mount of cgroup2 of the bench's own.
    Unified,
    /// The host's mounts.
    Host,
}

/// Makes `tree` the root, with a fresh `/run`, the host's devices, `cgroups`, and `prepared` at [`PREPARED`].
///
/// The caller is alone in a mount and a pid namespace (`unshare` has made them).
pub fn enter(tree: &Path, prepared: &Path, cgroups: Cgroups) -> Result<()> {
    let at = |name: &str| tree.join(name);
    let step = |what: &str, done: rustix::io::Result<()>| {
        done.map_err(|errno| Failure::Words(format!("{what} in {}: {errno}", tree.display())))
    };
    step(
        "make mounts private",
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC),
    )?;
    step("bind", mount_bind(tree, tree))?;
    step("mount proc", mount("proc", at("proc"), "proc", MountFlags::empty(), None))?;
    step("bind /dev", mount_bind_recursive("/dev", at("dev")))?;
    step("mount sysfs", mount("sysfs", at("sys"), "sysfs", MountFlags::empty(), None))?;
    let mounted = match cgroups {
        Cgroups::Unified => mount("cgroup2", at("sys/fs/cgroup"), "cgroup2", MountFlags::empty(), None),
        Cgroups::Host => mount_bind_recursive("/sys/fs/cgroup", at("sys/fs/cgroup")),
    };
    step("mount the cgroups", mounted)?;
    step("mount /run", mount("tmpfs", at("run"), "tmpfs", MountFlags::empty(), None))?;
    step("mount /tmp", mount("tmpfs", at("tmp"), "tmpfs", MountFlags::empty(), None))?;
    step("bind the prepared folder", mount_bind(prepared, tree.join(&PREPARED[1..])))?;
    std::env::set_current_dir(tree)?;
    // The old root is stacked on the new one and taken away there: no folder for it is needed (pivot_root(2)).
    step("pivot_root", rustix::process::pivot_root(".", "."))?;
    step("unmount the old root", unmount(".", UnmountFlags::DETACH))?;
    std::env::set_current_dir("/")?;
    own_folder()
}

/// Copies the binaries to memory, so that no contender waits for a disk.
fn own_folder() -> Result<()> {
    let own = PathBuf::from(OWN);
    fs::create_dir_all(own.join("bin"))?;
    for name in ["bale", "floor", "payload", "peak", "true"] {
        fs::copy(Path::new(PREPARED).join("bin").join(name), own.join("bin").join(name))?;
    }
    remove_cgroups();
    hierarchies().iter().try_for_each(|place| fs::create_dir_all(place.join(BENCH_CGROUP)))?;
    Ok(())
}

/// The roots of the hierarchies that are mounted: one of v2, or all of a host with v1. A link names the same as its
/// target.
fn hierarchies() -> Vec<PathBuf> {
    let root = PathBuf::from(V1);
    if root.join("cgroup.procs").exists() {
        return vec![root];
    }
    let entries = fs::read_dir(&root).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Ends what still runs in the bench's cgroups, and removes them: they are the host's.
pub fn remove_cgroups() {
    for hierarchy in hierarchies() {
        let own = hierarchy.join(BENCH_CGROUP);
        let _ = fs::write(own.join("cgroup.kill"), "1");
        // The processes need a moment to go; there is no event to wait for on a cgroup that is about to vanish.
        for _ in 0..100 {
            remove_below(&own);
            if !own.exists() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

fn remove_below(cgroup: &Path) {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_below(&entry.path());
        }
    }
    let _ = fs::remove_dir(cgroup);
}
