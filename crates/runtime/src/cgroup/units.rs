//! Out of the units of systemd, which ends all that is in a session's scope or a service when that ends.

use std::os::fd::OwnedFd;
use std::path::Path;

use bale_sys::error::{Call, Error, Result};
use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;

use super::group;
use super::host::{self, Hierarchy, Host, SUPERVISORS};

/// Takes the calling process, which has one thread, out of the units of systemd that it is in: on v1 it is out when
/// this returns, for v2 a cgroup is returned in which it has to be born anew. Nothing happens to one that is in none,
/// or that may not leave; a process that a container is to outlive the session with does no worse by staying.
#[must_use]
pub fn leave_units() -> Option<OwnedFd> {
    let own = group::read_file(Path::new("/proc/self/cgroup")).ok()?;
    if !own.split(['/', '\n']).any(host::is_unit) {
        return None;
    }
    let host = Host::read().ok()?;
    for hierarchy in &host.v1 {
        let Some(above) = hierarchy.above_units() else { continue };
        // A write to cgroup.procs would wait for a lock of the whole host; this moves the one thread there is.
        let _ = make(hierarchy, &above).and_then(|dir| join(&dir));
    }
    let unified = host.unified.as_ref()?;
    make(unified, &unified.above_units()?).ok()
}

/// Makes the supervisors' cgroup, which is there for all of them and stays.
fn make(hierarchy: &Hierarchy, above: &str) -> Result<OwnedFd> {
    let mut path = hierarchy.mount.join(above);
    for part in SUPERVISORS.split('/').filter(|part| !part.is_empty()) {
        path.push(part);
        match fs::mkdir(&path, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(Error::new(format!("mkdir({path:?})"), errno)),
        }
    }
    fs::open(&path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .call(|| format!("open({path:?})"))
}

fn join(dir: &OwnedFd) -> Result<()> {
    let call = || "write(<supervisors>/tasks, \"0\")";
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let tasks = fs::openat(dir, c"tasks", flags, Mode::empty()).call(call)?;
    rustix::io::write(&tasks, b"0").map(drop).call(call)
}
