//! Which cgroups a process joins that is started in a running container.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use bale_fault::{Fault, Kind, Result};
use bale_sys::root::{Links, RelPath, RootFd};
use rustix::fs::{Mode, OFlags};

use super::group::Group;
use super::{Handle, directory, open};

/// Opens the cgroups of a record for a process that is to join them. `below` names cgroups in them: by controller, or
/// with an empty name for all.
///
/// # Errors
/// The failed call; `NotFound` when the cgroups are gone, `InvalidInput` for a controller that is not there.
pub fn open_to_join(record: &bale_record::Cgroup, below: &[(String, String)]) -> Result<Handle> {
    let mut handle = open(record)?;
    if handle.v1.is_empty() && handle.unified.is_none() && *record != bale_record::Cgroup::default() {
        return Err(Fault::new(Kind::NotFound, "the container's cgroup does not exist"));
    }
    for (controller, path) in below {
        descend(&mut handle, controller, path)?;
    }
    handle.open_tasks()?;
    Ok(handle)
}

fn descend(handle: &mut Handle, controller: &str, below: &str) -> Result<()> {
    let bad = |e| Fault::new(Kind::InvalidInput, format!("bad sub cgroup path: {below:?}")).caused_by(e);
    let path = RelPath::new(below.trim_matches('/')).map_err(bad)?;
    let mut found = false;
    for v1 in &mut handle.v1 {
        if controller.is_empty() || v1.controllers.iter().any(|name| name == controller) {
            found = true;
            enter(&mut v1.group, &path)?;
        }
    }
    if let Some(group) = handle.unified.as_mut().filter(|_| controller.is_empty()) {
        found = true;
        enter(group, &path)?;
    }
    if found {
        return Ok(());
    }
    let words =
        format!("invalid --cgroup argument: the container has no cgroup of controller {controller:?}");
    Err(Fault::new(Kind::InvalidInput, words).hint("on cgroup v2 give the path alone, for all controllers"))
}

fn enter(group: &mut Group, below: &RelPath) -> Result<()> {
    let path = directory(group.path(), below, below.components().len());
    let gone = || Fault::new(Kind::NotFound, format!("sub cgroup {path:?} does not exist"));
    *group = Group::open(&path)?.ok_or_else(gone)?;
    Ok(())
}

/// Opens the v2 cgroup that the process `pid` is in, where it is below `group`, the one that it was made in: a cgroup
/// whose controllers were given to those below it takes no process any more (`EBUSY`), and init has moved on.
/// `proc` is the host's procfs.
#[must_use]
pub fn of_process(proc: &OwnedFd, pid: i32, handle: &Handle) -> Option<OwnedFd> {
    let group = handle.unified.as_ref()?;
    let file = format!("{pid}/cgroup");
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let text = rustix::fs::openat(proc, file.as_str(), flags, Mode::empty()).ok()?;
    let text = bale_sys::file::read_fd_bounded(text, &file, 1 << 20).ok()?;
    let text = String::from_utf8(text).ok()?;
    let own = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    let rest = RelPath::new(rest_below(group.path(), own)?).ok()?;
    let root = RootFd::from_fd(group.as_fd().try_clone_to_owned().ok()?);
    root.open_at(&rest, OFlags::PATH | OFlags::DIRECTORY, Links::Refused).ok()
}

/// Returns what of `own`, a path in the hierarchy, is below `group`, a path of the host: the mount's own path is the
/// part of `group` that `own` does not begin with.
fn rest_below<'a>(group: &Path, own: &'a str) -> Option<&'a str> {
    let group = group.to_str()?;
    let ends = own.match_indices('/').map(|(at, _)| at).filter(|at| *at > 0).rev();
    let mut above = ends.filter(|at| group.ends_with(&own[..*at]));
    above.next().and_then(|at| own.get(at + 1..)).filter(|rest| !rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_the_containers_cgroup_is_found() {
        let rest = |group: &str, own| rest_below(Path::new(group), own);
        assert_eq!(rest("/sys/fs/cgroup/a/b", "/a/b/init"), Some("init"));
        assert_eq!(rest("/sys/fs/cgroup/a/b", "/a/b/c/init.scope"), Some("c/init.scope"));
        assert_eq!(rest("/sys/fs/cgroup/a/b", "/a/b"), None);
        assert_eq!(rest("/sys/fs/cgroup/a/b", "/elsewhere/x"), None);
        assert_eq!(rest("/sys/fs/cgroup/a/b", "/"), None);
    }
}
