//! The procfs of a pid namespace that init is not in yet.
//!
//! Before Linux 6.18 a procfs is of the pid namespace of whoever begins it. A process that is in there is exposed to
//! those that have power over others there (CVE-2016-9962), so the one that begins it has nothing worth taking: no
//! descriptor but the one to hand the context over, and since before its birth a filter that lets it do nothing else.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use bale_sys::mount::FsContext;
use bale_sys::process::{close_all_but, close_copy, in_child};
use bale_sys::seccomp::{BEGIN_FILE_SYSTEM, Flags, load};
use bale_sys::{namespace, socket};
use rustix::io::{Errno, Result};

/// Begins a procfs of the pid namespace `pids`. What it is has to be checked once it is made.
pub fn begin(pids: &OwnedFd) -> Result<FsContext> {
    let context = FsContext::open(c"proc")?;
    match context.set_fd(c"pidns", pids.as_fd()) {
        Ok(()) => Ok(context),
        Err(Errno::INVAL) => begin_inside(pids),
        Err(errno) => Err(errno),
    }
}

/// Has a process begin it that is in the namespace.
pub fn begin_inside(pids: &OwnedFd) -> Result<FsContext> {
    let (ours, theirs) = socket::packet_pair()?;
    in_child(|| send_from_inside(pids, &theirs).map_or(1, |()| 0))?;
    drop(theirs);
    let mut word = [0_u8; 8];
    let (_, context) = socket::receive(&ours, &mut word)?;
    context.map(FsContext::from_fd).ok_or(Errno::PERM)
}

/// Runs in a child outside of the namespace, whose own child is in it.
fn send_from_inside(pids: &OwnedFd, to: &OwnedFd) -> Result<()> {
    // Standard streams are the host's too.
    close_all_but(0, &[pids.as_raw_fd(), to.as_raw_fd()])?;
    namespace::join(pids, namespace::NEWPID)?;
    close_copy(pids.as_raw_fd())?;
    load(&BEGIN_FILE_SYSTEM, Flags::default())?;
    in_child(|| {
        let sent = FsContext::open(c"proc")
            .and_then(|context| socket::send_fd(to, b"proc", context.into_fd().as_fd()));
        u8::from(sent.is_err())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On kernels that take the namespace as an option too.
    #[test]
    fn a_process_inside_begins_a_procfs_and_nothing_else() {
        if !rustix::process::geteuid().is_root() {
            // Nothing of it works without.
            return;
        }
        // In a child: this test process has threads, and setns and unshare are for one.
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        bale_sys::process::in_child(|| {
            let made = std::fs::File::open("/proc/self/ns/pid")
                .map_err(|_| Errno::IO)
                .and_then(|pids| begin_inside(&pids.into()))
                .and_then(|context| context.create().and_then(|()| context.mount(0)))
                .and_then(|tree| rustix::fs::fstatfs(&tree));
            let is_proc = made.is_ok_and(|stat| stat.f_type == rustix::fs::PROC_SUPER_MAGIC);
            u8::from(rustix::io::write(&writer, &[u8::from(is_proc)]).is_err())
        })
        .unwrap();
        let mut answer = [0_u8];
        assert_eq!(rustix::io::read(&reader, &mut answer), Ok(1));
        assert_eq!(answer, [1]);
    }
}
