//! The plan: every decision about a container, made from config and host facts, before anything is done.
//!
//! It is pure and printable (`{plan}`): golden tests need no root. Sources are what the parent opens before clone,
//! operations are what init does after it, in order.

mod check;
pub mod devices;
mod exec;
mod hooks;
mod init;
mod mounts;
mod namespaces;
mod net_devices;
pub mod op;
pub mod options;
pub mod process;
mod root;
mod sysctl;

use std::ffi::CString;
use std::fmt;
use std::path::{Path, PathBuf};

use bale_fault::{Fault, Kind, Result};
use bale_spec::runtime::{IdMapping, Linux, NamespaceKind, Process, RuntimeConfig, TimeOffset};
use bale_sys::mount::Attributes;
use bale_sys::namespace;

pub use self::exec::{ExecChoices, ExecPlan, exec};
pub(crate) use self::hooks::{check_hook, timeout_ms};
use self::op::{Op, Src};
use crate::cgroup::Layout;
use crate::init::{Filter, Program};
use crate::options::RootSource;

/// What the plan needs to know of the host. Everything else is in the config.
#[derive(Clone, Debug)]
pub struct Facts {
    /// How cgroups are mounted.
    pub layout: Layout,
    /// v1 hierarchies, when the config mounts cgroups and the host has them.
    pub v1: Vec<V1Hierarchy>,
    /// Capabilities of this process, a bit each.
    pub capabilities: u64,
    /// SELinux is on.
    pub selinux: bool,
    /// The host has `/proc/kcore`.
    pub kcore: bool,
    /// Home directory of the user in the container.
    pub home: String,
    /// The network namespace that the config joins is the caller's own.
    pub own_network: bool,
    /// Where resctrl is mounted, when the config asks for it.
    pub resctrl: Option<PathBuf>,
    /// What the sources of mounts with `copy-symlink` point to, by their index, where they are links.
    pub links: std::collections::BTreeMap<usize, PathBuf>,
    /// `LISTEN_FDS` of this process.
    pub listen_fds: Option<u32>,
    /// `CLONE_NEW…` of the namespaces that the config joins and this process is in.
    pub own_namespaces: u64,
    /// Where procfs and sysfs are mounted, last mounted first, when the container is confined without pivot_root.
    pub kernel_mounts: Vec<PathBuf>,
}

/// One v1 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct V1Hierarchy {
    /// Name of its directory below `/sys/fs/cgroup`.
    pub name: String,
    /// Its controllers, or `name=…`.
    pub controllers: Vec<String>,
}

/// What the caller wants, as far as the plan depends on it.
#[derive(Clone, Debug)]
pub struct Choices<'a> {
    /// Container id.
    pub id: &'a str,
    /// Bundle.
    pub bundle: &'a Path,
    /// Root file system.
    pub root: &'a RootSource,
    /// Init waits for start.
    pub wait_for_start: bool,
    /// Given descriptors become the standard streams.
    pub place_stdio: bool,
    /// There is a cgroup for the container.
    pub cgroup: bool,
    /// The systemd driver makes it, around the running init.
    pub systemd: bool,
    /// No pivot_root.
    pub no_pivot: bool,
    /// No session keyring.
    pub no_new_keyring: bool,
}

/// What the parent opens before clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The root file system: a clone of the directory's mounts.
    Root {
        /// Absolute path.
        path: PathBuf,
        /// Propagation of it and all below.
        propagation: u64,
        /// Whether it alone is private: then nothing that is mounted on it later comes into the container.
        private_top: bool,
    },
    /// The root file system: an overlay.
    Overlay {
        /// Top first.
        lowers: Vec<PathBuf>,
        /// Upper.
        upper: PathBuf,
        /// Work.
        work: PathBuf,
    },
    /// A bind source.
    Bind {
        /// Where in config.json it stands.
        place: String,
        /// Path of the host.
        path: CString,
        /// With mounts below.
        recursive: bool,
        /// Links are not followed.
        no_follow: bool,
        /// Changes in order, recursive or not.
        changes: Vec<(bool, Attributes)>,
        /// Mapped ids.
        idmap: Option<IdMap>,
    },
    /// The container's own directory in a v1 hierarchy.
    Cgroup {
        /// A controller of it.
        controller: String,
        /// Change of the mount.
        change: Attributes,
    },
    /// The `tasks` file of a resctrl group.
    Tasks {
        /// Path of the host.
        path: PathBuf,
    },
    /// A namespace to join.
    Namespace {
        /// Where in config.json it stands.
        place: String,
        /// Path of the host.
        path: String,
        /// Its kind.
        kind: NamespaceKind,
    },
}

/// Ids of a mount.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdMap {
    /// The user namespace that the container joins has the mappings.
    pub namespace: Option<String>,
    /// Users.
    pub uids: Vec<IdMapping>,
    /// Groups.
    pub gids: Vec<IdMapping>,
    /// Mounts below too.
    pub recursive: bool,
}

/// A network device to move in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetDevice {
    /// Its name outside.
    pub name: String,
    /// Its name inside.
    pub new_name: String,
}

/// All decisions about a container.
#[derive(Debug)]
pub struct Plan {
    /// Namespaces that clone makes.
    pub clone_flags: u64,
    /// Opened by the parent.
    pub sources: Vec<Source>,
    /// Namespaces that are made, by clone or by init itself.
    pub made: u64,
    /// The time namespace: made by the parent before clone, as offsets are fixed once a process is in it.
    pub time: Option<Vec<(String, TimeOffset)>>,
    /// Id maps that the parent writes.
    pub id_maps: Option<(Vec<IdMapping>, Vec<IdMapping>)>,
    /// Network devices that the parent moves in.
    pub net_devices: Vec<NetDevice>,
    /// The group of Intel RDT that the parent makes.
    pub rdt: Option<crate::rdt::Wanted>,
    /// Done by init, in order.
    pub ops: Vec<Op>,
    /// The program.
    pub program: Program,
    /// The filter; where its listener goes.
    pub filter: Filter,
    /// Execution domain.
    pub personality: Option<u64>,
    /// Absolute path of the root file system; empty for an overlay.
    pub rootfs: String,
    /// The root, when it is mounted for all in the mount namespace of this process.
    pub host_root: Option<Src>,
}

/// Returns the `CLONE_NEW…` flag of a kind.
#[must_use]
pub const fn kind_flag(kind: NamespaceKind) -> u64 {
    match kind {
        NamespaceKind::Pid => namespace::NEWPID,
        NamespaceKind::Network => namespace::NEWNET,
        NamespaceKind::Mount => namespace::NEWNS,
        NamespaceKind::Ipc => namespace::NEWIPC,
        NamespaceKind::Uts => namespace::NEWUTS,
        NamespaceKind::User => namespace::NEWUSER,
        NamespaceKind::Cgroup => namespace::NEWCGROUP,
        NamespaceKind::Time => namespace::NEWTIME,
    }
}

/// Says that a field of the config is wrong.
pub(crate) fn invalid(path: &str, reason: &str) -> Fault {
    Fault::new(Kind::InvalidInput, format!("config.json: {path}: {reason}"))
}

/// Names the file in front of a failure that begins with the path in it: rooms that read a section know that alone.
pub(crate) fn of_config(fault: Fault) -> Fault {
    if fault.words().starts_with("linux.") { fault.within("config.json") } else { fault }
}

pub(crate) fn c_string(path: &str, text: impl Into<Vec<u8>>) -> Result<CString> {
    CString::new(text).map_err(|_| invalid(path, "holds a NUL byte"))
}

struct Builder<'a> {
    config: &'a RuntimeConfig,
    process: &'a Process,
    linux: &'a Linux,
    choices: &'a Choices<'a>,
    facts: &'a Facts,
    sources: Vec<Source>,
    ops: Vec<Op>,
    /// Which of the config's mounts is being decided on.
    mount: u16,
    /// Changes of mounts that come after everything was put on them.
    late: Vec<Op>,
    host_root: Option<Src>,
    /// The pid namespace that init enters last.
    late_pids: Option<Src>,
}

impl Plan {
    /// Decides.
    ///
    /// # Errors
    /// `InvalidInput` names the JSON path at fault, `Unsupported` what bale does not do.
    pub fn new(config: &RuntimeConfig, choices: &Choices<'_>, facts: &Facts) -> Result<Self> {
        let process = config.process.as_ref().ok_or_else(|| invalid("process", "is missing"))?;
        let none = Linux::default();
        let linux = config.linux.as_ref().unwrap_or(&none);
        let builder = Builder {
            config,
            process,
            linux,
            choices,
            facts,
            sources: Vec::new(),
            ops: Vec::new(),
            mount: 0,
            late: Vec::new(),
            host_root: None,
            late_pids: None,
        };
        builder.check()?;
        builder.build()
    }
}

impl Builder<'_> {
    fn build(mut self) -> Result<Plan> {
        let filter = compile(self.linux.seccomp.as_ref())?;
        let personality = self.personality()?;
        let net_devices = net_devices::read(self.linux)?;
        let rdt = self.rdt()?;
        self.namespaces()?;
        self.before_mounts()?;
        let rootfs = self.root()?;
        self.mounts()?;
        self.devices()?;
        self.hooks_before_pivot()?;
        self.kernel_parameters()?;
        self.paths()?;
        self.terminal();
        self.enter_root()?;
        self.process_settings()?;
        let listener = filter.as_ref().map(|f| f.flags.contains(bale_sys::seccomp::Flags::NEW_LISTENER));
        self.become_process(listener)?;
        let program = process::program(self.process, &self.facts.home, self.facts.listen_fds)?;
        Ok(Plan {
            clone_flags: self.clone_flags(),
            made: self.made(),
            time: self.time_offsets()?,
            id_maps: self
                .makes(NamespaceKind::User)
                .then(|| (self.linux.uid_mappings.clone(), self.linux.gid_mappings.clone())),
            host_root: self.host_root,
            sources: self.sources,
            net_devices,
            rdt,
            ops: self.ops,
            program,
            filter: filter.unwrap_or_default(),
            personality,
            rootfs,
        })
    }

    fn source(&mut self, source: Source) -> Src {
        self.sources.push(source);
        Src(u16::try_from(self.sources.len() - 1).unwrap_or(u16::MAX))
    }

    fn makes(&self, kind: NamespaceKind) -> bool {
        self.linux.namespaces.iter().any(|n| n.kind == kind && n.path.as_deref().is_none_or(str::is_empty))
    }

    fn joins(&self, kind: NamespaceKind) -> bool {
        self.linux
            .namespaces
            .iter()
            .any(|n| n.kind == kind && n.path.as_deref().is_some_and(|p| !p.is_empty()))
    }

    fn rdt(&self) -> Result<Option<crate::rdt::Wanted>> {
        let read = |config| crate::rdt::read(config, self.choices.id, self.facts.resctrl.as_deref());
        self.linux.intel_rdt.as_ref().map(read).transpose()
    }

    fn personality(&self) -> Result<Option<u64>> {
        self.linux.personality.as_ref().map(process::personality).transpose()
    }
}

fn compile(profile: Option<&bale_spec::runtime::Seccomp>) -> Result<Option<Filter>> {
    let Some(profile) = profile else { return Ok(None) };
    let program = crate::seccomp::compile(profile).map_err(of_config)?;
    if program.instructions.is_empty() {
        return Ok(None);
    }
    Ok(Some(Filter { instructions: program.instructions, flags: program.flags }))
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "clone {:#x}", self.clone_flags)?;
        for (index, source) in self.sources.iter().enumerate() {
            writeln!(f, "source {index}: {source:?}")?;
        }
        for NetDevice { name, new_name } in &self.net_devices {
            writeln!(f, "network device {name} becomes {new_name}")?;
        }
        for (index, op) in self.ops.iter().enumerate() {
            writeln!(f, "{index:3} {op:#}")?;
        }
        let program: Vec<_> = self.program.candidates.iter().map(|c| c.to_string_lossy()).collect();
        writeln!(f, "program {}", program.join(" or "))
    }
}
