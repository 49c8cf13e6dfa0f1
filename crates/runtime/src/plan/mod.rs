//! The plan: every decision about a container, made from config and host facts, before anything is done.
//!
//! It is pure and printable (`{plan}`): golden tests need no root. Sources are what the parent opens before clone,
//! operations are what init does after it, in order.

pub mod devices;
mod exec;
mod mounts;
mod net_devices;
pub mod op;
pub mod options;
pub mod process;

use std::ffi::CString;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use bale_fault::{Fault, Kind, Result};
use bale_spec::runtime::{
    Hook, IdMapping, Linux, NamespaceKind, Process, RuntimeConfig, State, Status, TimeOffset,
};
use bale_sys::mount::{Attributes, attr, propagation};
use bale_sys::namespace;
use bale_sys::process::Argv;

pub use self::exec::{ExecChoices, ExecPlan, exec};
use self::mounts::destination;
use self::op::{InnerHook, Op, Point, Src};
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
    /// The pid namespace that the parent enters before it clones, where init cannot enter it itself.
    pub join_pid: Option<Src>,
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
        let join_pid = self.namespaces()?;
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
            join_pid,
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

    /// Refuses what contradicts itself or is not done, before anything is decided.
    fn check(&self) -> Result<()> {
        let linux = self.linux;
        if !self.config.oci_version.starts_with("1.") {
            return Err(invalid("ociVersion", &format!("{:?} is no 1.x version", self.config.oci_version))
                .hint("a bundle of an older dialect is converted by `bale upgrade`"));
        }
        if !self.process.cwd.starts_with('/') {
            return Err(invalid("process.cwd", &format!("{:?} is not an absolute path", self.process.cwd)));
        }
        for (index, namespace) in linux.namespaces.iter().enumerate() {
            if linux.namespaces[..index].iter().any(|n| n.kind == namespace.kind) {
                let words = format!("{:?} is there twice", namespace.kind);
                return Err(invalid(&format!("linux.namespaces[{index}]"), &words));
            }
            if namespace.path.as_deref().is_some_and(|p| !p.is_empty() && !p.starts_with('/')) {
                return Err(invalid(&format!("linux.namespaces[{index}].path"), "is not an absolute path"));
            }
        }
        self.check_shared_mounts()?;
        for (name, text) in [("hostname", &self.config.hostname), ("domainname", &self.config.domainname)] {
            let wants_uts = text.as_deref().is_some_and(|t| !t.is_empty());
            if wants_uts && !self.makes(NamespaceKind::Uts) && !self.joins(NamespaceKind::Uts) {
                return Err(invalid(name, "unable to set it without a uts namespace"));
            }
        }
        self.check_user_namespace()
    }

    /// In a mount namespace that is not the container's own every mount is made for all who are in it.
    fn check_shared_mounts(&self) -> Result<()> {
        if self.makes(NamespaceKind::Mount) {
            return Ok(());
        }
        let unsupported = |words: &str| {
            let words =
                format!("config.json: linux.namespaces: {words} without a mount namespace of its own");
            Err(Fault::new(Kind::Unsupported, words).hint("add {\"type\": \"mount\"}"))
        };
        if self.makes(NamespaceKind::User) {
            return unsupported("a user namespace");
        }
        if !matches!(self.choices.root, RootSource::Config) {
            return unsupported("a root that bale makes");
        }
        let linux = self.linux;
        let restricts = !linux.masked_paths.is_empty() || !linux.readonly_paths.is_empty();
        if restricts && !self.joins(NamespaceKind::Mount) {
            let words = "unable to restrict sys entries without a private MNT namespace";
            return Err(invalid("linux.maskedPaths", words));
        }
        Ok(())
    }

    fn check_user_namespace(&self) -> Result<()> {
        let linux = self.linux;
        let maps = !linux.uid_mappings.is_empty() || !linux.gid_mappings.is_empty();
        if self.makes(NamespaceKind::User) && (linux.uid_mappings.is_empty() || linux.gid_mappings.is_empty())
        {
            return Err(invalid("linux.uidMappings", "a user namespace needs uidMappings and gidMappings"));
        }
        if maps && self.joins(NamespaceKind::User) {
            let words =
                "user namespaces enabled, but both namespace path and mapping specified: one is enough";
            return Err(invalid("linux.uidMappings", words));
        }
        if maps && !self.makes(NamespaceKind::User) {
            return Err(invalid("linux.uidMappings", "there are mappings, and no user namespace"));
        }
        if !linux.time_offsets.is_empty() && !self.makes(NamespaceKind::Time) {
            return Err(invalid("linux.timeOffsets", "there are offsets, and no time namespace of its own"));
        }
        Ok(())
    }

    fn clone_flags(&self) -> u64 {
        let made = |n: &&bale_spec::runtime::Namespace| n.path.as_deref().is_none_or(str::is_empty);
        let kinds = self.linux.namespaces.iter().filter(made).map(|n| n.kind);
        // The time namespace is entered by its maker's children; on v1 the cgroup namespace is made by init itself,
        // once it is in its cgroups, as that is where it is rooted.
        let later = |kind: NamespaceKind| {
            kind == NamespaceKind::Time || kind == NamespaceKind::Cgroup && self.late_cgroup_namespace()
        };
        kinds.filter(|kind| !later(*kind)).fold(0, |flags, kind| flags | kind_flag(kind))
    }

    fn late_cgroup_namespace(&self) -> bool {
        self.choices.cgroup && (self.facts.layout != Layout::Unified || self.choices.systemd)
    }

    fn time_offsets(&self) -> Result<Option<Vec<(String, TimeOffset)>>> {
        for clock in self.linux.time_offsets.keys() {
            if !matches!(clock.as_str(), "monotonic" | "boottime") {
                return Err(invalid(
                    "linux.timeOffsets",
                    &format!("{clock:?} is no clock that can be offset"),
                ));
            }
        }
        let offsets =
            self.linux.time_offsets.iter().map(|(clock, offset)| (clock.clone(), *offset)).collect();
        Ok(self.makes(NamespaceKind::Time).then_some(offsets))
    }

    /// Cgroups first, then namespaces: the user namespace before those it may own.
    fn namespaces(&mut self) -> Result<Option<Src>> {
        if self.choices.cgroup && self.choices.systemd {
            self.ops.push(Op::Sync(Point::Unit));
        } else if self.choices.cgroup && self.facts.layout != Layout::Unified {
            self.ops.push(Op::JoinCgroups);
        }
        if let Some(rdt) = self.rdt()? {
            for path in rdt.group().tasks() {
                let shown = c_string("linux.intelRdt", path.as_os_str().as_bytes())?;
                let source = self.source(Source::Tasks { path });
                self.ops.push(Op::JoinGroup { source, path: shown });
            }
        }
        self.ops.push(Op::AllProcessors);
        let mut join_pid = None;
        let listed = self.linux.namespaces.iter().enumerate();
        let mut joined: Vec<_> = listed.filter(|(_, n)| self.joins(n.kind)).collect();
        // A joined mount namespace changes what every path means: it comes last.
        joined.sort_by_key(|(_, n)| match n.kind {
            NamespaceKind::User => 0,
            NamespaceKind::Mount => 2,
            _ => 1,
        });
        for (index, namespace) in joined {
            let path = namespace.path.clone().unwrap_or_default();
            let place = format!("linux.namespaces[{index}].path");
            let source = self.source(Source::Namespace { place, path, kind: namespace.kind });
            if namespace.kind == NamespaceKind::Pid && self.makes(NamespaceKind::User) {
                // From inside a user namespace of its own init has no right to enter it.
                join_pid = Some(source);
            } else if namespace.kind == NamespaceKind::Pid {
                self.late_pids = Some(source);
            } else {
                self.ops.push(Op::Join { source, kind: namespace.kind });
            }
        }
        if self.makes(NamespaceKind::Cgroup) && self.late_cgroup_namespace() {
            self.ops.push(Op::NewCgroupNamespace);
        }
        Ok(join_pid)
    }

    /// What needs the host's procfs or the ids of the caller.
    fn before_mounts(&mut self) -> Result<()> {
        if label(self.process)?.is_some() {
            self.ops.push(open_label(self.process)?);
        }
        if let Some(score) = self.process.oom_score_adj {
            if !(-1000..=1000).contains(&score) {
                return Err(invalid(
                    "process.oomScoreAdj",
                    &format!("{score} is not between -1000 and 1000"),
                ));
            }
            let path = c"self/oom_score_adj".to_owned();
            // Below what this process has it needs CAP_SYS_RESOURCE; then the score stays (as runc in containers).
            self.ops.push(Op::WriteSelf { path, value: score.to_string().into_bytes(), lenient: true });
        }
        if self.makes(NamespaceKind::User) {
            self.ops.push(Op::Sync(Point::IdMaps));
        }
        if self.makes(NamespaceKind::User) || self.joins(NamespaceKind::User) {
            self.ops.push(Op::BecomeRoot);
        }
        Ok(())
    }

    /// Propagation of what comes from the host: slave as runc does it, unless the config says otherwise.
    fn base_propagation(&self) -> u64 {
        match self.linux.rootfs_propagation.as_deref() {
            Some("private" | "rprivate" | "unbindable" | "runbindable") => propagation::PRIVATE,
            Some("shared" | "rshared") => propagation::SHARED,
            _ => propagation::SLAVE,
        }
    }

    fn root(&mut self) -> Result<String> {
        let own = self.makes(NamespaceKind::Mount);
        if own {
            self.ops.push(Op::PrivateMounts);
        }
        let (source, rootfs) = match self.choices.root {
            RootSource::Overlay { lowers, upper, work } => {
                let (lowers, upper, work) = (lowers.clone(), upper.clone(), work.clone());
                (Source::Overlay { lowers, upper, work }, String::new())
            }
            RootSource::Config => {
                let root = self.config.root.as_ref().filter(|r| !r.path.is_empty());
                let root = root.ok_or_else(|| invalid("root.path", "is missing"))?;
                let path = self.choices.bundle.join(&root.path);
                let text = path.to_string_lossy().into_owned();
                let base = self.base_propagation();
                let propagation = if base == propagation::SHARED { 0 } else { base };
                // pivot_root takes no root that is shared; it becomes that again afterwards.
                let unsaid = self.linux.rootfs_propagation.as_deref().is_none_or(str::is_empty);
                let private_top = unsaid || base == propagation::SHARED;
                (Source::Root { path, propagation, private_top }, text)
            }
        };
        // Hooks find the root file system by its path on the host, also in init's mount namespace.
        let hooks = self.config.hooks.as_ref();
        let seen = hooks.is_some_and(|h| {
            !(h.prestart.is_empty() && h.create_runtime.is_empty() && h.create_container.is_empty())
        });
        // In a mount namespace of others it is mounted on itself, so that nobody's root changes.
        let at = match &source {
            Source::Root { path, .. } if seen || !own => {
                Some(c_string("root.path", path.as_os_str().as_bytes())?)
            }
            _ => None,
        };
        let source = self.source(source);
        self.ops.push(Op::AttachRoot { source, at });
        if !own {
            self.keep_to_itself();
            self.host_root = (!self.joins(NamespaceKind::Mount)).then_some(source);
        }
        if !self.linux.masked_paths.is_empty() {
            self.ops.push(Op::OpenNull);
        }
        Ok(rootfs)
    }

    /// On a shared mount the root has become shared as well: what is mounted in it now stays in this namespace.
    fn keep_to_itself(&mut self) {
        let base = self.base_propagation();
        if base == propagation::SHARED {
            return;
        }
        for (propagation, recursive) in [(base, true), (propagation::PRIVATE, false)] {
            let change = Attributes { propagation, ..Attributes::default() };
            self.ops.push(Op::SetRoot { change, recursive });
        }
    }

    fn hooks_before_pivot(&mut self) -> Result<()> {
        let hooks = self.config.hooks.as_ref();
        let outer = hooks.is_some_and(|h| !h.prestart.is_empty() || !h.create_runtime.is_empty());
        if outer || !self.linux.net_devices.is_empty() {
            self.ops.push(Op::Sync(Point::RuntimeHooks));
        }
        let Some(hooks) = hooks else { return Ok(()) };
        for (index, hook) in hooks.create_container.iter().enumerate() {
            let path = format!("hooks.createContainer[{index}]");
            let hook = self.inner_hook(&path, hook, Status::Creating)?;
            self.ops.push(Op::Hook(Box::new(hook)));
        }
        Ok(())
    }

    fn inner_hook(&self, path: &str, hook: &Hook, status: Status) -> Result<InnerHook> {
        check_hook(path, hook)?;
        let bundle = self.choices.bundle.to_string_lossy().into_owned();
        let text = state_text(self.choices.id, &bundle, status, &self.config.annotations);
        let (before, after) = text.split_once("\"pid\":0").unwrap_or((&text, ""));
        let nul = |_| invalid(path, "holds a NUL byte");
        let argv = if hook.args.is_empty() { vec![hook.path.clone()] } else { hook.args.clone() };
        let own = !hook.env.is_empty() || status == Status::Creating;
        let env = if own { &hook.env } else { &self.process.env };
        Ok(InnerHook {
            path: c_string(path, hook.path.as_str())?,
            argv: Argv::new(argv).map_err(nul)?,
            env: Argv::new(env).map_err(nul)?,
            state: [format!("{before}\"pid\":").into_bytes(), after.as_bytes().to_vec()],
            timeout_ms: timeout_ms(path, hook)?,
        })
    }

    fn kernel_parameters(&mut self) -> Result<()> {
        if let Some(name) = self.config.hostname.as_deref().filter(|n| !n.is_empty()) {
            self.ops.push(Op::HostName(name.as_bytes().to_vec()));
        }
        if let Some(name) = self.config.domainname.as_deref().filter(|n| !n.is_empty()) {
            self.ops.push(Op::DomainName(name.as_bytes().to_vec()));
        }
        for (name, value) in &self.linux.sysctl {
            self.check_sysctl(name)?;
            // `/` may stand for `.` and the other way round, as sysctl(8) has it: the first separator decides.
            let dotted = name.find(['.', '/']).is_none_or(|at| name.as_bytes()[at] == b'.');
            let file: String = if dotted {
                name.chars()
                    .map(|c| {
                        if c == '.' {
                            '/'
                        } else if c == '/' {
                            '.'
                        } else {
                            c
                        }
                    })
                    .collect()
            } else {
                name.clone()
            };
            let path = c_string("linux.sysctl", format!("sys/{file}"))?;
            self.ops.push(Op::Sysctl { path, name: name.clone(), value: value.clone().into_bytes() });
        }
        Ok(())
    }

    /// Only parameters that belong to a namespace of the container may be set.
    fn check_sysctl(&self, name: &str) -> Result<()> {
        let refuse = |reason: &str| Err(invalid("linux.sysctl", &format!("{name:?}: {reason}")));
        if name.split(['.', '/']).any(|part| part.is_empty() || part == "..") {
            return refuse("is no name of a parameter");
        }
        // To join the host's own namespace by its path does not make it the container's.
        let has =
            |kind| self.makes(kind) || self.joins(kind) && self.facts.own_namespaces & kind_flag(kind) == 0;
        let dotted = name.replace('/', ".");
        const IPC: [&str; 9] = [
            "kernel.msgmax",
            "kernel.msgmnb",
            "kernel.msgmni",
            "kernel.sem",
            "kernel.shmall",
            "kernel.shmmax",
            "kernel.shmmni",
            "kernel.shm_rmid_forced",
            "kernel.msg_next_id",
        ];
        if IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
            return if has(NamespaceKind::Ipc) {
                Ok(())
            } else {
                refuse("wants an IPC namespace of the container's own")
            };
        }
        if dotted.starts_with("net.") {
            return if has(NamespaceKind::Network) && !self.facts.own_network {
                Ok(())
            } else {
                refuse("wants a network namespace of its own")
            };
        }
        if dotted.starts_with("user.") {
            return if has(NamespaceKind::User) {
                Ok(())
            } else {
                refuse("wants a user namespace of its own")
            };
        }
        match dotted.as_str() {
            "kernel.domainname" if has(NamespaceKind::Uts) => Ok(()),
            "kernel.hostname" => refuse("is set by the field hostname"),
            _ => refuse("is not in a separate kernel namespace"),
        }
    }

    fn paths(&mut self) -> Result<()> {
        for (index, path) in self.linux.readonly_paths.iter().enumerate() {
            let target = destination(&format!("linux.readonlyPaths[{index}]"), path)?;
            self.ops.push(Op::ReadOnly(target));
        }
        for (index, path) in self.linux.masked_paths.iter().enumerate() {
            let target = destination(&format!("linux.maskedPaths[{index}]"), path)?;
            self.ops.push(Op::Mask(target));
        }
        Ok(())
    }

    fn terminal(&mut self) {
        if self.process.terminal {
            let size = self.process.console_size.map(|size| (size.height, size.width));
            self.ops.push(Op::Terminal { size, console: true, control: self.late_pids.is_none() });
        } else if self.choices.place_stdio {
            self.ops.push(Op::PlaceStdio);
        }
    }

    fn enter_root(&mut self) -> Result<()> {
        self.ops.append(&mut self.late);
        self.ops.push(Op::OpenCwd(destination("process.cwd", &self.process.cwd)?));
        // pivot_root would change the root of everybody in the mount namespace.
        let no_pivot = self.choices.no_pivot || !self.makes(NamespaceKind::Mount);
        self.ops.push(Op::PivotRoot { no_pivot });
        if self.config.root.as_ref().is_some_and(|r| r.readonly) {
            let change = Attributes { set: attr::RDONLY, ..Attributes::default() };
            self.ops.push(Op::SetRoot { change, recursive: false });
        }
        if let Some(name) = self.linux.rootfs_propagation.as_deref().filter(|n| !n.is_empty()) {
            let (bits, recursive) = root_propagation(name)?;
            if self.choices.no_pivot && bits == propagation::PRIVATE {
                let words = format!("rootfsPropagation of {name} is not safe without pivot_root");
                return Err(invalid("linux.rootfsPropagation", &words));
            }
            let change = Attributes { propagation: bits, ..Attributes::default() };
            self.ops.push(Op::SetRoot { change, recursive });
        }
        Ok(())
    }

    fn process_settings(&mut self) -> Result<()> {
        if self.makes(NamespaceKind::Network) {
            self.ops.push(Op::LoopbackUp);
        }
        if !self.choices.no_new_keyring {
            self.ops.push(Op::Keyring(c_string("id", format!("_ses.{}", self.choices.id))?));
        }
        if !self.process.terminal && self.late_pids.is_none() {
            self.ops.push(Op::NewSession);
        }
        self.ops.extend(self.personality()?.map(Op::Personality));
        if let Some(policy) = &self.linux.memory_policy {
            self.ops.push(process::memory_policy(policy)?);
        }
        self.ops.append(&mut process::scheduling(self.process)?);
        let mut limits = process::limits(self.process)?;
        if (self.makes(NamespaceKind::User) || self.joins(NamespaceKind::User)) && !limits.is_empty() {
            self.ops.push(Op::Sync(Point::Limits));
        } else {
            self.ops.append(&mut limits);
        }
        self.ops.push(if self.choices.cgroup { Op::Sync(Point::Limited) } else { Op::Announce });
        Ok(())
    }

    fn rdt(&self) -> Result<Option<crate::rdt::Wanted>> {
        let read = |config| crate::rdt::read(config, self.choices.id, self.facts.resctrl.as_deref());
        self.linux.intel_rdt.as_ref().map(read).transpose()
    }

    fn personality(&self) -> Result<Option<u64>> {
        self.linux.personality.as_ref().map(process::personality).transpose()
    }

    fn become_process(&mut self, listener: Option<bool>) -> Result<()> {
        if let Some(source) = self.late_pids {
            // For the process that this one goes on as.
            self.ops.push(Op::Join { source, kind: NamespaceKind::Pid });
        }
        // setgroups is denied only where the caller maps itself alone, which a root caller never does.
        self.ops.push(Op::OwnStdio { uid: self.process.user.uid });
        if let Some(value) = label(self.process)? {
            self.ops.push(Op::WriteLabel { value });
        }
        let mut identity = process::identity_ops(self.process, self.facts.capabilities, listener, true);
        if self.late_pids.is_some() {
            // Its processes may have power over whoever is in it: init goes there when it has nothing of the host any more,
            // neither descriptors nor capabilities (CVE-2016-9962).
            let find = identity.iter().position(|op| matches!(op, Op::FindProgram)).unwrap_or(identity.len());
            identity.insert(find, Op::Session { terminal: self.process.terminal });
            identity.insert(find, Op::EnterPids);
        }
        self.ops.append(&mut identity);
        let late = listener.filter(|_| self.process.no_new_privileges);
        if late == Some(true) {
            // The parent takes the listener, so it is loaded while there is a parent.
            self.ops.push(Op::Seccomp { listener: true });
        }
        if self.choices.wait_for_start {
            self.ops.push(Op::WaitForStart);
        }
        for (index, hook) in self.config.hooks.iter().flat_map(|h| &h.start_container).enumerate() {
            let hook = self.inner_hook(&format!("hooks.startContainer[{index}]"), hook, Status::Created)?;
            self.ops.push(Op::Hook(Box::new(hook)));
        }
        if late == Some(false) {
            self.ops.push(Op::Seccomp { listener: false });
        }
        self.ops.push(Op::Exec);
        Ok(())
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

fn label(process: &Process) -> Result<Option<Vec<u8>>> {
    let given = |label: &Option<String>| label.clone().filter(|l| !l.is_empty());
    match (given(&process.apparmor_profile), given(&process.selinux_label)) {
        (Some(_), Some(_)) => Err(invalid("process.apparmorProfile", "cannot be combined with selinuxLabel")),
        (Some(profile), None) => Ok(Some(format!("exec {profile}").into_bytes())),
        (None, Some(label)) => Ok(Some(label.into_bytes())),
        (None, None) => Ok(None),
    }
}

fn open_label(process: &Process) -> Result<Op> {
    let paths = ["self/attr/apparmor/exec", "self/attr/exec"];
    let selinux = process.selinux_label.as_deref().is_some_and(|l| !l.is_empty());
    let paths = if selinux { &paths[1..] } else { &paths[..] };
    Ok(Op::OpenLabel { paths: paths.iter().map(|p| c_string("process", *p)).collect::<Result<_>>()? })
}

fn root_propagation(name: &str) -> Result<(u64, bool)> {
    let (bare, recursive) = match name {
        "rshared" | "rslave" | "rprivate" | "runbindable" => (&name[1..], true),
        other => (other, false),
    };
    let bits = match bare {
        "shared" => propagation::SHARED,
        "slave" => propagation::SLAVE,
        "private" => propagation::PRIVATE,
        "unbindable" => propagation::UNBINDABLE,
        _ => return Err(invalid("linux.rootfsPropagation", &format!("{name:?} is no propagation"))),
    };
    Ok((bits, recursive))
}

/// Checks what every hook needs.
pub(crate) fn check_hook(path: &str, hook: &Hook) -> Result<()> {
    if !hook.path.starts_with('/') {
        return Err(invalid(&format!("{path}.path"), &format!("{:?} is not an absolute path", hook.path)));
    }
    timeout_ms(path, hook).map(|_| ())
}

/// Returns a hook's timeout.
pub(crate) fn timeout_ms(path: &str, hook: &Hook) -> Result<Option<u32>> {
    let Some(seconds) = hook.timeout else { return Ok(None) };
    let bad = || invalid(&format!("{path}.timeout"), &format!("{seconds} is not positive"));
    let seconds = u32::try_from(seconds).ok().filter(|s| *s > 0).ok_or_else(bad)?;
    Ok(Some(seconds.saturating_mul(1000)))
}

/// Writes the state document that hooks read, with pid 0.
pub(crate) fn state_text(
    id: &str,
    bundle: &str,
    status: Status,
    annotations: &std::collections::BTreeMap<String, String>,
) -> String {
    let state = State {
        oci_version: bale_spec::runtime::SPEC_VERSION.to_owned(),
        id: id.to_owned(),
        pid: 0,
        status,
        bundle: bundle.to_owned(),
        rootfs: String::new(),
        created: String::new(),
        annotations: annotations.clone(),
        owner: String::new(),
    };
    // Plain data with string keys: it cannot fail.
    serde_json::to_string(&state).unwrap_or_default()
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
