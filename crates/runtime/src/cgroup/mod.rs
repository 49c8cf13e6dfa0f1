//! Limits: the cgroups of a container on v1, on v2, and on hosts that mount both.
//!
//! A limit goes to the hierarchy its controller is on: v1's where it is mounted, else v2's. On a host with both, the
//! container has a cgroup in each: the one on v2 gives CLONE_INTO_CGROUP, `cgroup.kill` and events.
//!
//! Joining by writing a pid to `cgroup.procs` takes a lock of the whole host and waits for an RCU grace period, 5 to
//! 16 ms. Neither way here does: on v2 the process is born in its cgroup, on v1 it writes `0` to the `tasks` files
//! itself, which moves the one thread that writes.

pub(crate) mod devices;
mod group;
pub(crate) mod host;
mod join;
mod life;
mod setting;
pub(crate) mod stats;
pub mod systemd;
mod units;
pub(crate) mod v1;
pub(crate) mod v2;

#[cfg(test)]
mod tests;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use bale_fault::{Context, Fault, Kind, Result};
use bale_spec::runtime::Resources;
use bale_sys::root::RelPath;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use group::Group;
use host::Hierarchy;
pub use host::{Host, Layout};
pub use join::{of_process, open_to_join};
use setting::Setting;
pub use stats::Stats;
pub use units::leave_units;
pub use v2::weight_of_shares;

/// The least memory that a container of a small static program can be started with, in bytes.
pub const MEMORY_FLOOR_BYTES: u64 = 512 << 10;

/// The controllers that limits are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Controller {
    Cpuset,
    Memory,
    Cpu,
    Pids,
    Io,
    Hugetlb,
    NetClass,
    NetPriority,
    Rdma,
}

impl Controller {
    /// In the order of writing.
    pub(crate) const ALL: [Self; 9] = [
        Self::Cpuset,
        Self::Memory,
        Self::Cpu,
        Self::Pids,
        Self::Io,
        Self::Hugetlb,
        Self::NetClass,
        Self::NetPriority,
        Self::Rdma,
    ];

    const fn v1_name(self) -> &'static str {
        match self {
            Self::Cpuset => "cpuset",
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Pids => "pids",
            Self::Io => "blkio",
            Self::Hugetlb => "hugetlb",
            Self::NetClass => "net_cls",
            Self::NetPriority => "net_prio",
            Self::Rdma => "rdma",
        }
    }

    const fn v2_name(self) -> Option<&'static str> {
        match self {
            Self::Io => Some("io"),
            Self::NetClass | Self::NetPriority => None,
            other => Some(other.v1_name()),
        }
    }
}

/// The cgroup of a container in one v1 hierarchy.
#[derive(Debug)]
struct V1Group {
    controllers: Vec<String>,
    group: Group,
}

/// The cgroups of one container.
#[derive(Debug, Default)]
pub struct Handle {
    v1: Vec<V1Group>,
    unified: Option<Group>,
    tasks: Vec<OwnedFd>,
    /// The systemd unit that it belongs to.
    unit: Option<String>,
    /// What [`prepare`] made, for [`Handle::unmake`].
    made: Made,
}

/// Whose path it is: one that nobody asked for may be left out where the caller may not write.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wish {
    Asked,
    Default,
}

/// Makes the cgroup `path` (absolute: below the mounts; relative: below the caller's own) in every hierarchy, and
/// writes its limits. On failure what was made is removed again.
///
/// # Errors
/// `Conflict` when it exists and has processes or is frozen; otherwise the field, file, value and likely cause.
pub fn create(host: &Host, path: &str, resources: &Resources) -> Result<Handle> {
    make(host, path, resources, Wish::Asked)
}

/// As [`create`], for a config without `cgroupsPath`: hierarchies that the caller may not write to are left out,
/// unless a limit needs them.
///
/// # Errors
/// As [`create`].
pub fn create_default(host: &Host, path: &str, resources: &Resources) -> Result<Handle> {
    make(host, path, resources, Wish::Default)
}

fn make(host: &Host, path: &str, resources: &Resources, wish: Wish) -> Result<Handle> {
    let mut made = Made::default();
    let outcome = make_groups(host, path, resources, wish, &mut made).and_then(|mut handle| {
        handle.restrict_first(resources)?;
        handle.restrict(resources)?;
        handle.open_tasks()?;
        Ok(handle)
    });
    if outcome.is_err() {
        made.undo();
    }
    outcome.map_err(crate::plan::of_config).within(|| format!("make cgroup {path:?}"))
}

/// As [`create`] or, when the path was not `asked` for, [`create_default`], with no more than what must be there before
/// a process is: [`Handle::restrict`] writes the rest while the first process of the cgroup does something else already.
///
/// # Errors
/// As [`create`].
pub fn prepare(host: &Host, path: &str, resources: &Resources, asked: bool) -> Result<Handle> {
    let mut made = Made::default();
    let wish = if asked { Wish::Asked } else { Wish::Default };
    let outcome = make_groups(host, path, resources, wish, &mut made).and_then(|mut handle| {
        handle.restrict_first(resources)?;
        handle.open_tasks()?;
        Ok(handle)
    });
    match outcome {
        Ok(mut handle) => {
            handle.made = made;
            Ok(handle)
        }
        Err(fault) => {
            made.undo();
            Err(crate::plan::of_config(fault)).within(|| format!("make cgroup {path:?}"))
        }
    }
}

fn make_groups(
    host: &Host,
    path: &str,
    resources: &Resources,
    wish: Wish,
    made: &mut Made,
) -> Result<Handle> {
    let mut handle = Handle::default();
    for hierarchy in &host.v1 {
        if let Some(group) = optional(wish, made.group(hierarchy, path))? {
            handle.v1.push(V1Group { controllers: hierarchy.controllers.clone(), group });
            if hierarchy.controllers.iter().any(|name| name == "cpuset") {
                inherit(hierarchy, path)?;
            }
        }
    }
    if let Some(hierarchy) = &host.unified {
        // Beside v1 the v2 hierarchy is a help for processes, not for limits.
        let wish = if host.layout() == Layout::Hybrid { Wish::Default } else { wish };
        handle.unified = optional(wish, made.group(hierarchy, path))?;
        if handle.unified.is_some() {
            let needed: Vec<&str> = handle.needed_of_v2(resources);
            let wanted = if host.layout() == Layout::Hybrid { Some(needed.as_slice()) } else { None };
            v2::give_controllers(&mount_of(hierarchy)?, &hierarchy.below(path)?, wanted)?;
        }
    }
    Ok(handle)
}

/// Tells where [`create`] would make the cgroup `path`, and makes nothing: what a record says before it is made.
///
/// # Errors
/// `InvalidInput` for a bad path.
pub fn locate(host: &Host, path: &str) -> Result<bale_record::Cgroup> {
    let mut record = bale_record::Cgroup::default();
    for hierarchy in &host.v1 {
        let below = hierarchy.below(path)?;
        let leaf = directory(&hierarchy.mount, &below, below.components().len());
        for controller in &hierarchy.controllers {
            record.v1.insert(controller.clone(), leaf.clone());
        }
    }
    if let Some(hierarchy) = &host.unified {
        let below = hierarchy.below(path)?;
        record.unified = Some(directory(&hierarchy.mount, &below, below.components().len()));
    }
    Ok(record)
}

/// Passes over what the caller may not write, when nobody asked for it.
fn optional(wish: Wish, made: Result<Group>) -> Result<Option<Group>> {
    match made {
        Err(fault) if wish == Wish::Default && fault.kind() == Kind::PermissionDenied => Ok(None),
        other => other.map(Some),
    }
}

fn mount_of(hierarchy: &Hierarchy) -> Result<Group> {
    let gone = || Fault::new(Kind::NotFound, format!("{:?} is gone", hierarchy.mount));
    Group::open(&hierarchy.mount)?.ok_or_else(gone)
}

fn inherit(hierarchy: &Hierarchy, path: &str) -> Result<()> {
    v1::inherit_cpuset(&mount_of(hierarchy)?, &hierarchy.below(path)?)
}

/// Directories that were made, to be removed when something fails later.
#[derive(Debug, Default)]
struct Made(Vec<PathBuf>);

impl Made {
    /// Makes the cgroup in one hierarchy, and those above it.
    fn group(&mut self, hierarchy: &Hierarchy, path: &str) -> Result<Group> {
        let below = hierarchy.below(path)?;
        let leaf = directory(&hierarchy.mount, &below, below.components().len());
        let existed = !self.make(&hierarchy.mount, &below)?;
        let gone = || Fault::new(Kind::Conflict, format!("cgroup {leaf:?} was removed by another"));
        let group = Group::open(&leaf)?.ok_or_else(gone)?;
        if existed {
            refuse_used(&group)?;
        }
        Ok(group)
    }

    /// Tells whether the last directory was made.
    fn make(&mut self, mount: &Path, below: &RelPath) -> Result<bool> {
        let count = below.components().len();
        let mut depth = count;
        // The cgroup above is nearly always there: begin at the end, and step back only while it is not.
        while depth <= count {
            let at = directory(mount, below, depth);
            match rustix::fs::mkdir(&at, Mode::from_raw_mode(0o755)) {
                Ok(()) => {
                    self.0.push(at);
                    if depth == count {
                        return Ok(true);
                    }
                    depth += 1;
                }
                Err(Errno::EXIST) if depth == count => return Ok(false),
                Err(Errno::EXIST) => depth += 1,
                Err(Errno::NOENT) if depth > 1 => depth -= 1,
                Err(errno) => return Err(cannot_make(&at, errno)),
            }
        }
        Ok(false)
    }

    fn undo(&self) {
        for path in self.0.iter().rev() {
            let _ = rustix::fs::rmdir(path);
        }
    }
}

fn directory(mount: &Path, below: &RelPath, depth: usize) -> PathBuf {
    let names = below.components()[..depth].iter().map(|name| name.to_string_lossy().into_owned());
    names.fold(mount.to_owned(), |path, name| path.join(name))
}

fn cannot_make(path: &Path, errno: Errno) -> Fault {
    let fault: Fault = bale_sys::Error::new(format!("mkdir({path:?})"), errno).into();
    match errno {
        // A read-only mount is the same to the caller as a missing permission.
        Errno::ROFS | Errno::ACCESS | Errno::PERM => fault
            .with_kind(Kind::PermissionDenied)
            .hint("run as root, or have a cgroup delegated to this user (systemd: Delegate=yes)"),
        Errno::AGAIN | Errno::NOSPC => fault
            .with_kind(Kind::Exhausted)
            .hint("raise cgroup.max.descendants of the cgroups above, or remove some"),
        _ => fault,
    }
}

/// Refuses a cgroup that another container may be in. The words are runc's, which others look for.
fn refuse_used(group: &Group) -> Result<()> {
    let processes = group.pids()?.len();
    if processes > 0 {
        let words =
            format!("container's cgroup is not empty: {processes} process(es) found in {:?}", group.path());
        return Err(
            Fault::new(Kind::Conflict, words).hint("choose another linux.cgroupsPath, or end the processes")
        );
    }
    if life::frozen(group)? {
        let words = format!("container's cgroup unexpectedly frozen: {:?}", group.path());
        return Err(Fault::new(Kind::Conflict, words).hint("thaw it, or remove it"));
    }
    Ok(())
}

/// Opens the cgroups of a record.
///
/// # Errors
/// The failed call; what is gone is no error.
pub fn open(record: &bale_record::Cgroup) -> Result<Handle> {
    let mut handle = Handle::default();
    for (controller, path) in &record.v1 {
        if let Some(known) = handle.v1.iter_mut().find(|known| known.group.path() == path) {
            known.controllers.push(controller.clone());
        } else if let Some(group) = Group::open(path)? {
            handle.v1.push(V1Group { controllers: vec![controller.clone()], group });
        }
    }
    if let Some(path) = &record.unified {
        handle.unified = Group::open(path)?;
    }
    Ok(handle)
}

/// Removes the cgroups of a record, with all processes that are left in them, and its systemd unit.
///
/// # Errors
/// `Conflict` when a process does not die in time; systemd's words.
pub fn remove(record: &bale_record::Cgroup) -> Result<()> {
    let handle = open(record)?;
    let Some(unit) = &record.unit else { return handle.remove() };
    // With its last process a scope ends; without its cgroup there is none.
    if record.unified.is_some() && handle.unified.is_none() {
        return Ok(());
    }
    handle.end_all()?;
    systemd::stop(unit)?;
    handle.remove()
}

impl Handle {
    /// Returns the directory for `CLONE_INTO_CGROUP`; none without a v2 hierarchy.
    #[must_use]
    #[allow(clippy::wrong_self_convention)] // the kernel's words
    pub fn into_cgroup_fd(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(AsFd::as_fd)
    }

    /// Returns the open `tasks` files of v1: the child joins by writing `0` to each, while it has one thread.
    #[must_use]
    pub fn tasks_fds(&self) -> &[OwnedFd] {
        &self.tasks
    }

    /// Returns [`Handle::tasks_fds`] as numbers, for a child that must not allocate.
    #[must_use]
    pub fn tasks_raw_fds(&self) -> Vec<RawFd> {
        self.tasks.iter().map(AsRawFd::as_raw_fd).collect()
    }

    /// Moves a process in by its pid. Slow, see the module: for what was not born in it.
    ///
    /// # Errors
    /// The failed write.
    pub fn add(&self, pid: i32) -> Result<()> {
        let join = |group: &Group| group.write("cgroup.procs", &pid.to_string());
        self.groups()
            .try_for_each(join)
            .map_err(Fault::from)
            .within(|| format!("move process {pid} into its cgroup"))
    }

    /// Returns what the record keeps.
    #[must_use]
    pub fn record(&self) -> bale_record::Cgroup {
        let paths = |v1: &V1Group| {
            let path = v1.group.path().to_owned();
            v1.controllers.iter().map(move |name| (name.clone(), path.clone())).collect::<Vec<_>>()
        };
        bale_record::Cgroup {
            unified: self.unified.as_ref().map(|group| group.path().to_owned()),
            v1: self.v1.iter().flat_map(paths).collect(),
            unit: self.unit.clone(),
        }
    }

    /// Writes the limits that are set in `resources`; device rules only when there are some.
    ///
    /// # Errors
    /// As [`create`].
    pub fn update(&self, resources: &Resources) -> Result<()> {
        self.limit(resources)?;
        if resources.devices.is_empty() || host::in_user_namespace() {
            return Ok(());
        }
        self.write_device_rules(resources)
    }

    fn groups(&self) -> impl Iterator<Item = &Group> {
        self.v1.iter().map(|v1| &v1.group).chain(&self.unified)
    }

    fn v1_group(&self, controller: &str) -> Option<&Group> {
        self.v1.iter().find(|v1| v1.controllers.iter().any(|name| name == controller)).map(|v1| &v1.group)
    }

    /// Removes the directories that [`prepare`] made and that are empty: the container's own, and those above it.
    pub fn unmake(&self) {
        self.made.undo();
    }

    /// Writes v1's device rules: one by one, beginning with none at all, so that a process that makes its devices
    /// meanwhile would be refused. (v2's program comes at once.)
    fn restrict_first(&self, resources: &Resources) -> Result<()> {
        if self.v1_group("devices").is_some() { self.restrict_devices(resources) } else { Ok(()) }
    }

    /// Writes limits and v2's device rules of a new cgroup.
    ///
    /// # Errors
    /// The field, file, value and likely cause.
    pub fn restrict(&self, resources: &Resources) -> Result<()> {
        self.limit(resources)?;
        if self.v1_group("devices").is_some() { Ok(()) } else { self.restrict_devices(resources) }
    }

    fn limit(&self, resources: &Resources) -> Result<()> {
        for controller in Controller::ALL {
            let asked = v1::settings(controller, resources)?;
            let Some(first) = asked.first() else { continue };
            match (self.v1_group(controller.v1_name()), &self.unified, controller.v2_name()) {
                (Some(group), ..) => v1::apply(group, controller, resources)?,
                (None, Some(group), Some(_)) => v2::apply(group, controller, resources)?,
                _ => return Err(no_home(controller, first)),
            }
        }
        let unified = v2::unified(resources)?;
        match (&self.unified, unified.first()) {
            (_, None) => Ok(()),
            (Some(group), Some(_)) => setting::apply(group, &unified),
            (None, Some(_)) => {
                let words = "linux.resources.unified: invalid configuration: cannot use unified on cgroup v1";
                Err(Fault::new(Kind::Unsupported, words).hint("use the fields of linux.resources instead"))
            }
        }
    }

    /// The controllers of v2 that limits need, on a host with v1 as well.
    fn needed_of_v2(&self, resources: &Resources) -> Vec<&'static str> {
        let is_needed = |controller: &Controller| {
            let asked = v1::settings(*controller, resources).is_ok_and(|asked| !asked.is_empty());
            let named =
                |name: &str| resources.unified.keys().any(|file| file.split('.').next() == Some(name));
            self.v1_group(controller.v1_name()).is_none()
                && (asked || controller.v2_name().is_some_and(named))
        };
        Controller::ALL.iter().filter(|c| is_needed(c)).filter_map(|c| c.v2_name()).collect()
    }

    fn restrict_devices(&self, resources: &Resources) -> Result<()> {
        // The kernel takes no rules from another user namespace; runc passes them over there as well. Neither can
        // rules be where the caller could not make a cgroup.
        if self.groups().next().is_none() || host::in_user_namespace() {
            return Ok(());
        }
        self.write_device_rules(resources)
    }

    fn write_device_rules(&self, resources: &Resources) -> Result<()> {
        let rules = devices::resolve(&resources.devices)?;
        match (self.v1_group("devices"), &self.unified) {
            (Some(group), _) => devices::apply_v1(group, &rules),
            (None, Some(group)) => devices::apply_v2(group, &rules),
            (None, None) => {
                let words = "linux.resources.devices: no devices controller is mounted";
                let hint = "mount it: mount -t cgroup -o devices none /sys/fs/cgroup/devices";
                Err(Fault::new(Kind::Unsupported, words).hint(hint))
            }
        }
    }

    fn open_tasks(&mut self) -> Result<()> {
        let open = |v1: &V1Group| v1.group.open_file("tasks", OFlags::WRONLY);
        self.tasks = self.v1.iter().map(open).collect::<bale_sys::Result<_>>()?;
        Ok(())
    }
}

fn no_home(controller: Controller, asked: &Setting) -> Fault {
    let name = controller.v1_name();
    let words = format!(
        "{}: cannot set {name} limit: this host has no {name} controller for containers",
        asked.field
    );
    Fault::new(Kind::Unsupported, words).hint(format!("leave the limit out, or mount the {name} controller"))
}

/// Checks the name of a page size, such as `2MB`, which becomes a part of a file's name.
fn page_size(at: usize, size: &str) -> Result<&str> {
    let digits = size.trim_end_matches(|c: char| c.is_ascii_uppercase());
    let unit = &size[digits.len()..];
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) || !["KB", "MB", "GB"].contains(&unit)
    {
        let words = format!("linux.resources.hugepageLimits[{at}].pageSize: {size:?} is no page size");
        return Err(Fault::new(Kind::InvalidInput, words).hint("write it as 64KB, 2MB or 1GB"));
    }
    Ok(size)
}

fn io_device(major: i64, minor: i64) -> String {
    format!("{major}:{minor}")
}

/// The limits of RDMA devices, the same on v1 and v2.
fn rdma(resources: &Resources) -> Result<Vec<Setting>> {
    let one = |(device, limit): (&String, &bale_spec::runtime::Rdma)| {
        let field = format!("linux.resources.rdma[{device:?}]");
        if device.is_empty() || device.contains(char::is_whitespace) {
            return Err(Fault::new(Kind::InvalidInput, format!("{field}: no name of a device")));
        }
        let handles = limit.hca_handles.map(|n| format!(" hca_handle={n}")).unwrap_or_default();
        let objects = limit.hca_objects.map(|n| format!(" hca_object={n}")).unwrap_or_default();
        Ok(Setting::new("rdma.max", format!("{device}{handles}{objects}"), field))
    };
    resources.rdma.iter().map(one).collect()
}
