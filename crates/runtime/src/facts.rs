//! Facts of the host that a plan depends on.

use std::os::fd::OwnedFd;
use std::path::Path;

use bale_fault::{Context, Fault, Result};
use bale_spec::runtime::{NamespaceKind, Process, RuntimeConfig};
use bale_sys::error::Call;
use bale_sys::root::{Links, RelPath, RootFd};
use rustix::fs::{Mode, OFlags};

use crate::cgroup::{Host, Layout};
use crate::container::open_proc;
use crate::options::RootSource;
use crate::plan::{Facts, V1Hierarchy, kind_flag, process};

const PASSWD_LIMIT_BYTES: usize = 1 << 20;

/// Gathers what the plan of `config` needs, and nothing else.
pub fn gather(config: &RuntimeConfig, bundle: &Path, root: &RootSource, preserve_fds: u32) -> Result<Facts> {
    let layout = Host::detect().map_or(Layout::Unified, Host::layout);
    let mounts_cgroups =
        config.mounts.iter().any(|m| matches!(m.kind.as_deref(), Some("cgroup" | "cgroup2")));
    let labels =
        config.linux.as_ref().is_some_and(|l| l.mount_label.as_deref().is_some_and(|l| !l.is_empty()));
    let home = match &config.process {
        Some(process) if process::wants_home(process) => home(config, bundle, root, process),
        _ => "/".to_owned(),
    };
    Ok(Facts {
        layout,
        v1: if mounts_cgroups && layout != Layout::Unified { hierarchies()? } else { Vec::new() },
        capabilities: permitted()?,
        selinux: labels && rustix::fs::access("/sys/fs/selinux/enforce", rustix::fs::Access::EXISTS).is_ok(),
        kcore: rustix::fs::access("/proc/kcore", rustix::fs::Access::EXISTS).is_ok(),
        home,
        links: links(config, bundle),
        own_network: joins_own_network(config),
        resctrl: config.linux.as_ref().and_then(|l| l.intel_rdt.as_ref()).and_then(|_| crate::rdt::mount()),
        listen_fds: listen_fds().filter(|_| preserve_fds > 0),
        own_namespaces: own_namespaces(config),
    })
}

/// Finds the namespaces that the config joins and this process is in: the host's, under the name of the container's. Only
/// kernel parameters depend on it.
fn own_namespaces(config: &RuntimeConfig) -> u64 {
    let linux = config.linux.as_ref().filter(|linux| !linux.sysctl.is_empty());
    let joined =
        linux.iter().flat_map(|linux| &linux.namespaces).filter_map(|n| Some((n.kind, n.path.as_deref()?)));
    let same = |(kind, path): &(NamespaceKind, &str)| {
        let own = rustix::fs::stat(format!("/proc/self/ns/{}", proc_name(*kind)));
        let (Ok(own), Ok(other)) = (own, rustix::fs::stat(*path)) else { return false };
        (own.st_dev, own.st_ino) == (other.st_dev, other.st_ino)
    };
    joined.filter(same).fold(0, |flags, (kind, _)| flags | kind_flag(kind))
}

/// The name of a namespace below `/proc/<pid>/ns`.
const fn proc_name(kind: NamespaceKind) -> &'static str {
    match kind {
        NamespaceKind::Pid => "pid",
        NamespaceKind::Network => "net",
        NamespaceKind::Mount => "mnt",
        NamespaceKind::Ipc => "ipc",
        NamespaceKind::Uts => "uts",
        NamespaceKind::User => "user",
        NamespaceKind::Cgroup => "cgroup",
        NamespaceKind::Time => "time",
    }
}

/// Gathers what the plan of a process in a running container needs. `root` is the container's.
///
/// The caller is in the container's mount namespace: what has a path there is the container's, `/proc` and
/// `/sys/fs/cgroup` too, so nothing is looked up by one. `proc` is procfs as the host has it.
pub fn gather_exec(process: &Process, root: &RootFd, proc: &OwnedFd, preserve_fds: u32) -> Result<Facts> {
    let home = if process::wants_home(process) { home_below(root, proc, process.user.uid) } else { None };
    Ok(Facts {
        // Only mounts depend on it, and there are none to make.
        layout: Layout::Unified,
        v1: Vec::new(),
        capabilities: permitted()?,
        selinux: false,
        kcore: false,
        home: home.unwrap_or_else(|| "/".to_owned()),
        resctrl: None,
        links: std::collections::BTreeMap::new(),
        own_network: false,
        listen_fds: listen_fds().filter(|_| preserve_fds > 0),
        own_namespaces: 0,
    })
}

/// Tells whether the config's network namespace is this process's own: its parameters are not the container's.
fn joins_own_network(config: &RuntimeConfig) -> bool {
    let Some(linux) = config.linux.as_ref().filter(|l| !l.sysctl.is_empty()) else { return false };
    let network = linux.namespaces.iter().find(|n| n.kind == NamespaceKind::Network);
    let Some(path) = network.and_then(|n| n.path.as_deref()).filter(|path| !path.is_empty()) else {
        return false;
    };
    let stat = |path: &str| rustix::fs::stat(path).map(|stat| (stat.st_dev, stat.st_ino));
    matches!((stat(path), stat("/proc/self/ns/net")), (Ok(theirs), Ok(own)) if theirs == own)
}

/// Reads the sources of mounts with `copy-symlink` that are links.
fn links(config: &RuntimeConfig, bundle: &Path) -> std::collections::BTreeMap<usize, std::path::PathBuf> {
    let asked =
        config.mounts.iter().enumerate().filter(|(_, m)| m.options.iter().any(|o| o == "copy-symlink"));
    let read = |(index, mount): (usize, &bale_spec::runtime::Mount)| {
        Some((index, std::fs::read_link(bundle.join(mount.source.as_ref()?)).ok()?))
    };
    asked.filter_map(read).collect()
}

fn permitted() -> Result<u64> {
    bale_sys::identity::permitted().call(|| "capget").map_err(Fault::from)
}

/// Returns how many sockets the caller hands over (sd_listen_fds(3)); `None` when they are meant for another process.
#[must_use]
pub fn listen_fds() -> Option<u32> {
    let count: u32 = std::env::var("LISTEN_FDS").ok()?.parse().ok()?;
    let others = std::env::var("LISTEN_PID").is_ok_and(|pid| pid.parse() != Ok(std::process::id()));
    (!others && count > 0).then_some(count)
}

fn home(config: &RuntimeConfig, bundle: &Path, root: &RootSource, process: &Process) -> String {
    let found = open_proc().ok().and_then(|proc| {
        let below = |path: &Path| home_below(&RootFd::open(path).ok()?, &proc, process.user.uid);
        match root {
            RootSource::Config => below(&bundle.join(&config.root.as_ref()?.path)),
            RootSource::Overlay { lowers, upper, .. } => {
                std::iter::once(upper).chain(lowers).find_map(|layer| below(layer))
            }
        }
    });
    found.unwrap_or_else(|| "/".to_owned())
}

fn home_below(root: &RootFd, proc: &OwnedFd, uid: u32) -> Option<String> {
    let passwd = RelPath::new("etc/passwd").ok()?;
    let found = root.open_at(&passwd, OFlags::PATH, Links::InRoot).ok()?;
    let file = bale_sys::file::open_regular(proc, found, "etc/passwd").ok()?;
    let text = bale_sys::file::read_fd_bounded(file, "etc/passwd", PASSWD_LIMIT_BYTES).ok()?;
    Some(process::home_of(&String::from_utf8_lossy(&text), uid))
}

/// Reads the v1 hierarchies from `/proc/self/cgroup`: lines `id:controllers:path`, the v2 one without controllers.
fn hierarchies() -> Result<Vec<V1Hierarchy>> {
    let proc = rustix::fs::open("/proc", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let proc = proc.call(|| "open(\"/proc\")").map_err(Fault::from)?;
    let text = rustix::fs::openat(&proc, "self/cgroup", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .call(|| "open(\"/proc/self/cgroup\")")?;
    let text = std::io::read_to_string(std::fs::File::from(text)).within(|| "read \"/proc/self/cgroup\"")?;
    let lines = text.lines().filter_map(|line| line.split(':').nth(1)).filter(|names| !names.is_empty());
    Ok(lines.map(hierarchy).collect())
}

fn hierarchy(names: &str) -> V1Hierarchy {
    let controllers: Vec<String> = names.split(',').map(ToOwned::to_owned).collect();
    V1Hierarchy { name: names.strip_prefix("name=").unwrap_or(names).to_owned(), controllers }
}
