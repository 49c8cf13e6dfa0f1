//! Where the host mounts its hierarchies, and where the caller is in them.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use bale_fault::{Fault, Kind, Result};
use bale_sys::root::RelPath;

use super::group;

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

/// A mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Its v1 controllers (`memory`, `name=systemd`); none for v2.
    pub controllers: Vec<String>,
    /// Where it is mounted.
    pub mount: PathBuf,
    /// The cgroup that is at the mount point; `/` unless a part is mounted.
    root: String,
    /// The caller's own cgroup in it; with `root` not read yet when `None`.
    own: Option<String>,
}

/// The hierarchies of the host.
#[derive(Debug)]
pub struct Host {
    pub(crate) v1: Vec<Hierarchy>,
    pub(crate) unified: Option<Hierarchy>,
}

/// `CGROUP2_SUPER_MAGIC` of linux/magic.h.
const CGROUP2_SUPER_MAGIC: rustix::fs::FsWord = 0x6367_7270;
/// Where supervisors go that leave the units of systemd, below the cgroup in which those are.
pub(super) const SUPERVISORS: &str = "/bale/supervisors";
/// Where everybody mounts the hierarchy of a host that has only one.
const USUAL: &str = "/sys/fs/cgroup";

impl Host {
    /// Looks at the host's mounts, once per process.
    ///
    /// # Errors
    /// `Unsupported` when no hierarchy is mounted.
    pub fn detect() -> Result<&'static Self> {
        static HOST: OnceLock<Host> = OnceLock::new();
        if let Some(host) = HOST.get() {
            return Ok(host);
        }
        // One look instead of three files, one of them as long as the host has mounts.
        let usual = rustix::fs::statfs(USUAL).is_ok_and(|stat| stat.f_type == CGROUP2_SUPER_MAGIC);
        let host = if usual {
            let (controllers, root) = (Vec::new(), "/".to_owned());
            let unified = Hierarchy { controllers, mount: PathBuf::from(USUAL), root, own: None };
            Self { v1: Vec::new(), unified: Some(unified) }
        } else {
            Self::read()?
        };
        Ok(HOST.get_or_init(|| host))
    }

    pub(super) fn read() -> Result<Self> {
        let read = |path: &str| group::read_file(Path::new(path));
        Self::parse(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?)
    }

    /// Reads `/proc/self/mountinfo` and `/proc/self/cgroup`.
    pub(crate) fn parse(mountinfo: &str, own: &str) -> Result<Self> {
        let mut host = Self { v1: Vec::new(), unified: None };
        // Later mounts first: what is mounted over an older mount is what a path reaches.
        for line in mountinfo.lines().rev() {
            let Some(mount) = Mount::parse(line) else { continue };
            if host.v1.iter().chain(&host.unified).any(|known| hides(&known.mount, &mount.point)) {
                continue;
            }
            host.add(&mount, own);
        }
        host.v1.reverse();
        if host.v1.is_empty() && host.unified.is_none() {
            let hint = "mount one: mount -t cgroup2 none /sys/fs/cgroup";
            return Err(Fault::new(Kind::Unsupported, "no cgroup hierarchy is mounted").hint(hint));
        }
        Ok(host)
    }

    fn add(&mut self, mount: &Mount<'_>, own: &str) {
        let make = |controllers: Vec<String>, own: String| Hierarchy {
            controllers,
            mount: mount.point.clone(),
            root: mount.root.to_owned(),
            own: Some(own),
        };
        if mount.kind == "cgroup2" {
            if self.unified.is_none() {
                let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
                self.unified = Some(make(Vec::new(), own.to_owned()));
            }
            return;
        }
        let controllers = v1_controllers(mount.options);
        let known = controllers.iter().any(|name| self.v1.iter().any(|h| h.controllers.contains(name)));
        if !controllers.is_empty() && !known {
            let own = own_v1(own, &controllers);
            self.v1.push(make(controllers, own));
        }
    }

    /// Returns the layout.
    #[must_use]
    pub const fn layout(&self) -> Layout {
        match (self.v1.is_empty(), self.unified.is_some()) {
            (true, _) => Layout::Unified,
            (false, true) => Layout::Hybrid,
            (false, false) => Layout::V1,
        }
    }
}

impl Hierarchy {
    /// Returns the cgroup that `path` names, below the mount: absolute from there; relative from the caller's own
    /// cgroup, on v2 from the one above (a cgroup with processes cannot give its controllers to children).
    pub(crate) fn below(&self, path: &str) -> Result<RelPath> {
        let Some(own) = &self.own else {
            if path.starts_with('/') {
                return clean(path, path.to_owned());
            }
            let known = Host::read()?.unified.filter(|known| known.own.is_some());
            let gone = || Fault::new(Kind::Unsupported, "no cgroup hierarchy is mounted");
            return known.ok_or_else(gone)?.below(path);
        };
        let own = own.strip_prefix(self.root.trim_end_matches('/')).unwrap_or(own);
        let base = match own.strip_suffix(SUPERVISORS) {
            // Containers are beside their supervisors, not below them.
            Some(above) => above,
            None if self.controllers.is_empty() => own.rsplit_once('/').map_or("", |(above, _)| above),
            None => own,
        };
        let whole = if path.starts_with('/') { path.to_owned() } else { format!("{base}/{path}") };
        clean(path, whole)
    }
}

impl Hierarchy {
    /// Returns the cgroup in which the caller's first unit of systemd is, if it is in one: below the mount, empty for
    /// the mount itself.
    pub(super) fn above_units(&self) -> Option<String> {
        let own = self.own.as_deref()?;
        let own = own.strip_prefix(self.root.trim_end_matches('/')).unwrap_or(own);
        let components: Vec<&str> = own.split('/').filter(|part| !part.is_empty()).collect();
        let first = components.iter().position(|part| is_unit(part))?;
        Some(components[..first].join("/"))
    }
}

/// Tells whether a cgroup is a unit of systemd by its name.
pub(super) fn is_unit(name: &str) -> bool {
    [".slice", ".scope", ".service"].iter().any(|kind| name.ends_with(kind))
}

fn clean(path: &str, whole: String) -> Result<RelPath> {
    let invalid = |e| {
        Fault::new(Kind::InvalidInput, format!("config.json: linux.cgroupsPath: {path:?} is no path"))
            .caused_by(e)
    };
    let clean = RelPath::clamped(whole).map_err(invalid)?;
    if clean.is_root() {
        let words = format!("config.json: linux.cgroupsPath: {path:?} is the root of the hierarchy");
        return Err(Fault::new(Kind::InvalidInput, words).hint("give a path below it, such as /bale/web"));
    }
    Ok(clean)
}

/// Tells whether this process is in a user namespace of its own: there the kernel takes no device rules.
pub(super) fn in_user_namespace() -> bool {
    !maps_everybody(&group::read_file(Path::new("/proc/self/uid_map")).unwrap_or_default())
}

/// A line of mountinfo (proc_pid_mountinfo(5)).
struct Mount<'a> {
    root: &'a str,
    point: PathBuf,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (front, back) = line.split_once(" - ")?;
        let mut back = back.split(' ');
        let kind = back.next()?;
        if kind != "cgroup" && kind != "cgroup2" {
            return None;
        }
        let options = back.nth(1)?;
        let mut front = front.split(' ').skip(3);
        let (root, point) = (front.next()?, front.next()?);
        Some(Self { root, point: PathBuf::from(unescape(point)), kind, options })
    }
}

/// Decodes `\040` and its kin.
fn unescape(text: &str) -> String {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = tail
            .get(..3)
            .and_then(|d| std::str::from_utf8(d).ok())
            .and_then(|d| u8::from_str_radix(d, 8).ok());
        match (byte, octal) {
            (b'\\', Some(value)) => {
                plain.push(value);
                rest = &tail[3..];
            }
            _ => {
                plain.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// Tells whether a mount at `upper`, made later, hides one at `lower`.
fn hides(upper: &Path, lower: &Path) -> bool {
    lower.starts_with(upper)
}

/// The controllers among a v1 mount's options; of the named hierarchies only systemd's, which others expect to find
/// a container's processes in.
fn v1_controllers(options: &str) -> Vec<String> {
    const OTHERS: [&str; 9] = [
        "rw",
        "ro",
        "noprefix",
        "clone_children",
        "xattr",
        "cpuset_v2_mode",
        "favordynmods",
        "nofavordynmods",
        "none",
    ];
    let is_controller = |option: &&str| {
        *option == "name=systemd" || !(option.contains('=') || OTHERS.contains(option) || option.is_empty())
    };
    options.split(',').filter(is_controller).map(str::to_owned).collect()
}

/// The caller's cgroup in the v1 hierarchy of `controllers`.
fn own_v1(own: &str, controllers: &[String]) -> String {
    let find = |line: &str| {
        let (names, path) = line.split_once(':')?.1.split_once(':')?;
        names.split(',').any(|name| controllers.iter().any(|c| c == name)).then(|| path.to_owned())
    };
    own.lines().find_map(find).unwrap_or_else(|| "/".to_owned())
}

/// Tells whether `/proc/self/uid_map` is the first user namespace's.
fn maps_everybody(uid_map: &str) -> bool {
    uid_map.split_whitespace().eq(["0", "0", "4294967295"])
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "\
23 1 0:1 / / rw - rootfs rootfs rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd
41 31 0:39 / /sys/fs/cgroup/other rw - cgroup cgroup rw,name=other
";
    const UNIFIED: &str = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn layouts_are_told_from_mounts() {
        let parse = |mounts: &str| Host::parse(mounts, "1:cpu,cpuacct:/a\n4:memory:/m/x\n0::/u/s\n");
        let host = parse(V1).unwrap();
        assert_eq!(host.layout(), Layout::V1);
        let controllers: Vec<_> = host.v1.iter().map(|h| h.controllers.join("+")).collect();
        assert_eq!(controllers, ["cpu+cpuacct", "memory", "name=systemd"]);
        assert_eq!(parse(&format!("{V1}{UNIFIED}")).unwrap().layout(), Layout::Hybrid);
        // A unified hierarchy over everything hides what was there.
        let over = format!("{V1}50 23 0:40 / /sys/fs/cgroup rw - cgroup2 none rw\n");
        assert_eq!(parse(&over).unwrap().layout(), Layout::Unified);
        assert_eq!(parse("").unwrap_err().kind(), Kind::Unsupported);
    }

    #[test]
    fn units_are_known_by_their_names() {
        for (own, above) in [
            ("/user.slice/user-0.slice/session-3.scope", Some("")),
            ("/system.slice/ssh.service/x", Some("")),
            ("/docker/1a/system.slice/cron.service", Some("docker/1a")),
            ("/", None),
            ("/docker/1a", None),
        ] {
            let host = Host::parse(&format!("{V1}{UNIFIED}"), &format!("1:cpu,cpuacct:{own}\n0::{own}\n"));
            let host = host.unwrap();
            for hierarchy in [&host.v1[0], host.unified.as_ref().unwrap()] {
                assert_eq!(hierarchy.above_units().as_deref(), above, "{own}");
            }
        }
    }

    #[test]
    fn paths_are_below_the_mount_or_below_the_callers_own() {
        let mounts = format!("{V1}{UNIFIED}").replace("0:32 / ", "0:32 /m ");
        let host = Host::parse(&mounts, "1:cpu,cpuacct:/a\n4:memory:/m/x\n0::/u/s\n").unwrap();
        let below = |h: &Hierarchy, path| h.below(path).map(|p| p.to_string());
        assert_eq!(below(&host.v1[0], "/c").unwrap(), "/c");
        assert_eq!(below(&host.v1[0], "c/../../../d").unwrap(), "/d");
        assert_eq!(below(&host.v1[0], "c").unwrap(), "/a/c");
        assert_eq!(below(&host.v1[1], "c").unwrap(), "/x/c");
        assert_eq!(below(host.unified.as_ref().unwrap(), "c").unwrap(), "/u/c");
        let moved = Host::parse(&mounts, "1:cpu:/bale/supervisors\n0::/x/bale/supervisors\n").unwrap();
        assert_eq!(below(&moved.v1[0], "bale/c").unwrap(), "/bale/c");
        assert_eq!(below(moved.unified.as_ref().unwrap(), "bale/c").unwrap(), "/x/bale/c");
        assert_eq!(below(&host.v1[0], "/..").unwrap_err().kind(), Kind::InvalidInput);
        assert_eq!(unescape(r"/a\040b\x"), r"/a b\x");
    }
}
