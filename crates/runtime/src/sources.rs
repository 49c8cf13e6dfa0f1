//! Opens what the plan names, before clone: init only consumes descriptors.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use bale_fault::{Context, Fault, Kind, Result};
use bale_record::Cgroup;
use bale_spec::runtime::IdMapping;
use bale_sys::error::Call;
use bale_sys::mount::{self, Attributes, FsContext, propagation};
use bale_sys::{namespace, process};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::plan::{IdMap, Source, kind_flag};

/// Opens every source, in order.
pub fn open(sources: &[Source], cgroup: Option<&Cgroup>) -> Result<Vec<OwnedFd>> {
    sources.iter().map(|source| open_one(source, cgroup)).collect()
}

fn open_one(source: &Source, cgroup: Option<&Cgroup>) -> Result<OwnedFd> {
    match source {
        Source::Root { path, propagation, private_top } => root(path, *propagation, *private_top),
        Source::Overlay { lowers, upper, work } => overlay(lowers, upper, work),
        Source::Bind { place, path, recursive, no_follow, changes, idmap } => {
            let tree = bind(path, *recursive, *no_follow, changes, idmap.as_ref());
            tree.within(|| format!("config.json: {place}"))
        }
        Source::Cgroup { controller, change } => cgroup_directory(controller, *change, cgroup),
        Source::Tasks { path } => crate::rdt::open(path),
        Source::Namespace { place, path, kind } => {
            join(path, kind_flag(*kind)).within(|| format!("config.json: {place}"))
        }
    }
}

fn root(path: &Path, below: u64, private_top: bool) -> Result<OwnedFd> {
    let words = || format!("open root file system {path:?}");
    let name =
        CString::new(path.as_os_str().as_bytes()).map_err(|_| Fault::new(Kind::InvalidInput, words()))?;
    // A link could be exchanged for another between this and the next command.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match rustix::fs::open(name.as_c_str(), flags, Mode::empty()) {
        Ok(directory) => directory,
        Err(Errno::NOENT) => {
            let words = format!(
                "config.json: root.path: the root file system {path:?} does not exist: no such file or directory"
            );
            return Err(Fault::new(Kind::NotFound, words).hint("root.path is relative to the bundle"));
        }
        Err(Errno::NOTDIR | Errno::LOOP) => {
            let words = format!(
                "config.json: root.path: the root file system {path:?} is a symbolic link or not a directory"
            );
            return Err(Fault::new(Kind::InvalidInput, words).hint("name the directory itself in root.path"));
        }
        Err(errno) => return Err(bale_sys::Error::new(format!("open({path:?})"), errno).into()),
    };
    let tree = mount::clone_fd(&directory, true).call(|| format!("open_tree({path:?})")).map_err(Fault::from);
    let tree = tree.within(words)?;
    if below != 0 {
        let change = Attributes { propagation: below, ..Attributes::default() };
        mount::set_attributes(&tree, true, change).call(|| "mount_setattr(<root>)")?;
    }
    if private_top {
        let change = Attributes { propagation: propagation::PRIVATE, ..Attributes::default() };
        mount::set_attributes(&tree, false, change).call(|| "mount_setattr(<root>)")?;
    }
    Ok(tree)
}

fn overlay(lowers: &[PathBuf], upper: &Path, work: &Path) -> Result<OwnedFd> {
    let context = FsContext::open(c"overlay").call(|| "fsopen(\"overlay\")")?;
    let fail = |what: &str, errno: Errno| {
        let mut log = [0_u8; 240];
        let length = context.read_log(&mut log);
        let mut words = format!("mount the root overlay: {what}: {}", bale_sys::error::words(errno));
        if length > 0 {
            words.push_str(&format!(" (kernel: {})", String::from_utf8_lossy(&log[..length]).trim()));
        }
        Fault::new(bale_sys::error::kind(errno), words)
    };
    let set = |key: &CStr, path: &Path| {
        let value = CString::new(path.as_os_str().as_bytes()).unwrap_or_default();
        context.set(key, Some(&value)).map_err(|errno| fail(&format!("fsconfig({key:?}, {path:?})"), errno))
    };
    for lower in lowers {
        set(c"lowerdir+", lower)?;
    }
    set(c"upperdir", upper)?;
    set(c"workdir", work)?;
    context.create().map_err(|errno| fail("fsconfig(CREATE)", errno))?;
    context.mount(0).map_err(|errno| fail("fsmount", errno))
}

fn bind(
    path: &CStr,
    recursive: bool,
    no_follow: bool,
    changes: &[(bool, Attributes)],
    idmap: Option<&IdMap>,
) -> Result<OwnedFd> {
    let shown = path.to_string_lossy();
    let tree = mount::clone_host(path, recursive, no_follow).map_err(|errno| bind_fault(&shown, errno))?;
    for (below, change) in changes {
        mount::set_attributes(&tree, *below && recursive, *change)
            .call(|| format!("mount_setattr({shown:?}, {change:?})"))?;
    }
    if let Some(map) = idmap {
        let userns = match &map.namespace {
            Some(path) => join(path, namespace::NEWUSER)?,
            None => user_namespace(&map.uids, &map.gids)?,
        };
        let mapped = mount::map_ids(&tree, map.recursive, userns.as_fd());
        mapped.call(|| format!("mount_setattr({shown:?}, MOUNT_ATTR_IDMAP)")).map_err(|error| {
            let fault = Fault::from(error);
            fault.hint("not every file system can map ids; the kernel's documentation lists them")
        })?;
    }
    Ok(tree)
}

fn bind_fault(path: &str, errno: Errno) -> Fault {
    let words = format!("bind source {path:?}: {}", bale_sys::error::words(errno));
    let fault = Fault::new(bale_sys::error::kind(errno), words);
    if errno == Errno::NOENT { fault.hint("make it first, or correct mounts[].source") } else { fault }
}

fn cgroup_directory(controller: &str, change: Attributes, cgroup: Option<&Cgroup>) -> Result<OwnedFd> {
    let path = cgroup.and_then(|c| c.v1.get(controller));
    let path = path
        .ok_or_else(|| Fault::new(Kind::Unsupported, format!("the container has no {controller} cgroup")))?;
    let name = CString::new(path.as_os_str().as_bytes()).unwrap_or_default();
    let tree = mount::clone_host(&name, false, true).call(|| format!("open_tree({path:?})"))?;
    mount::set_attributes(&tree, false, change).call(|| format!("mount_setattr({path:?})"))?;
    Ok(tree)
}

fn join(path: &str, flag: u64) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::empty()).call(|| format!("open({path:?})"))?;
    match namespace::kind(&fd) {
        Ok(kind) if kind == flag => Ok(fd),
        _ => Err(Fault::new(Kind::InvalidInput, format!("{path:?} is no namespace of the wanted kind"))
            .hint("linux.namespaces[].type and path must fit together")),
    }
}

/// Makes a user namespace with these maps: a child that does nothing holds it while it is opened.
fn user_namespace(uids: &[IdMapping], gids: &[IdMapping]) -> Result<OwnedFd> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).call(|| "pipe2")?;
    let how = process::Clone { flags: namespace::NEWUSER, cgroup: None };
    let child = process::clone(how, || {
        // SIGKILL ends it.
        let mut byte = [0_u8; 1];
        let _ = rustix::io::read(&reader, &mut byte);
        0
    })?;
    let opened = write_id_maps(child.pid, uids, gids).and_then(|()| {
        let path = format!("/proc/{}/ns/user", child.pid);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        rustix::fs::open(path.as_str(), flags, Mode::empty())
            .call(|| format!("open({path:?})"))
            .map_err(Fault::from)
    });
    drop(writer);
    let _ = process::send_signal(&child.pidfd, 9);
    process::wait(&child.pidfd)?;
    opened
}

/// Writes the id maps of the user namespace that the process `pid` made.
pub fn write_id_maps(pid: i32, uids: &[IdMapping], gids: &[IdMapping]) -> Result<()> {
    for (file, maps) in [("uid_map", uids), ("gid_map", gids)] {
        let lines = maps.iter().map(|m| format!("{} {} {}\n", m.container_id, m.host_id, m.size));
        let text: String = lines.collect();
        let path = format!("/proc/{pid}/{file}");
        let opened = rustix::fs::open(path.as_str(), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
        let written = opened.and_then(|fd| rustix::io::write(&fd, text.as_bytes()));
        written.call(|| format!("write({path:?}, {text:?})")).map_err(|error| {
            Fault::from(error)
                .hint("mappings may not overlap, and every host id must be mapped for the caller")
        })?;
    }
    Ok(())
}
