//! The operations that init executes after clone, in order, each with everything it needs.

use std::ffi::CString;
use std::fmt;

use bale_spec::runtime::NamespaceKind;
use bale_sys::identity::SchedAttr;
use bale_sys::mount::Attributes;
use bale_sys::process::Argv;
use bale_sys::root::RelPath;
use rustix::process::Gid;

/// A descriptor that the parent opens before clone: an index into [`super::Plan::sources`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Src(pub u16);

/// A path below the container's root, cut up in advance so that init can create it without allocating.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The whole path, without a leading slash; `.` for the root.
    pub path: CString,
    /// The path up to and including each component.
    pub prefixes: Vec<CString>,
    /// Each component.
    pub names: Vec<CString>,
}

impl Target {
    /// Cuts up a path.
    #[must_use]
    pub fn new(path: &RelPath) -> Self {
        // A RelPath holds no NUL byte, so nothing is lost here.
        let string = |bytes: Vec<u8>| CString::new(bytes).unwrap_or_default();
        let names = path.components().to_vec();
        let mut prefixes = Vec::with_capacity(names.len());
        let mut so_far: Vec<u8> = Vec::new();
        for name in &names {
            if !so_far.is_empty() {
                so_far.push(b'/');
            }
            so_far.extend_from_slice(name.as_bytes());
            prefixes.push(string(so_far.clone()));
        }
        Self { path: string(path.to_bytes()), prefixes, names }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.names.is_empty() { f.write_str("/") } else { write!(f, "/{}", self.path.to_string_lossy()) }
    }
}

/// Where init and its parent wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Point {
    /// The parent writes the id maps of the user namespace.
    IdMaps = 1,
    /// The parent asks systemd for a unit around init.
    Unit = 2,
    /// The parent moves network devices and runs the hooks prestart and createRuntime.
    RuntimeHooks = 3,
    /// The parent raises limits that init, in a user namespace, may not.
    Limits = 4,
    /// The parent takes the seccomp listener.
    Listener = 5,
    /// The container is set up; the parent has written the cgroup's limits. What is left is the process.
    Limited = 6,
}

/// A hook that init runs itself.
#[derive(Debug)]
pub struct InnerHook {
    /// The program.
    pub path: CString,
    /// argv.
    pub argv: Argv,
    /// Environment.
    pub env: Argv,
    /// The state document up to the pid, and after it.
    pub state: [Vec<u8>; 2],
    /// Milliseconds until it is killed.
    pub timeout_ms: Option<u32>,
}

/// One operation of init.
#[derive(Debug)]
pub enum Op {
    /// Writes `0` to the `tasks` file of every v1 cgroup.
    JoinCgroups,
    /// Writes `0` to the `tasks` file of a resctrl group.
    JoinGroup {
        /// The file.
        source: Src,
        /// Its path, for people.
        path: CString,
    },
    /// Joins a namespace.
    Join {
        /// Which.
        source: Src,
        /// Its kind.
        kind: NamespaceKind,
    },
    /// Leaves the cgroup namespace for a new one, rooted where the process is now.
    NewCgroupNamespace,
    /// Waits for the parent.
    Sync(Point),
    /// Takes ids 0 of the user namespace.
    BecomeRoot,
    /// Writes to a file of the host's procfs about this process.
    WriteSelf {
        /// The file.
        path: CString,
        /// What.
        value: Vec<u8>,
        /// A refusal (`EACCES`, `EPERM`) is no failure.
        lenient: bool,
    },
    /// Opens the file that takes the security label of the next exec.
    OpenLabel {
        /// Files of the host's procfs, the first that exists is taken.
        paths: Vec<CString>,
    },
    /// Writes the security label.
    WriteLabel {
        /// What.
        value: Vec<u8>,
    },
    /// Makes every mount of the new mount namespace private, so that nothing done here is seen outside.
    PrivateMounts,
    /// Attaches the root.
    AttachRoot {
        /// A detached tree.
        source: Src,
        /// Where; `None` on top of `/`.
        at: Option<CString>,
    },
    /// Opens the host's `/dev/null`, to mask files with.
    OpenNull,
    /// Makes a file system and attaches it.
    Mount {
        /// Which of the config's mounts it belongs to.
        index: u16,
        /// Type.
        kind: CString,
        /// Options of the file system.
        options: Vec<(CString, Option<CString>)>,
        /// `MOUNT_ATTR_…`.
        attributes: u64,
        /// Changes afterwards, recursive or not.
        after: Attributes,
        /// Where.
        target: Target,
        /// Links in the target are refused (proc, sysfs).
        no_links: bool,
        /// Copies what the target holds into it (`tmpcopyup`).
        copy_up: bool,
        /// Its root gets the mode of the directory that it covers, if there was one (a tmpfs without `mode=`, as runc).
        keep_mode: bool,
        /// The pid namespace that it shows (proc), where init enters that only later.
        pids: Option<Src>,
    },
    /// Changes a file system that is mounted there already (`remount`).
    Remount {
        /// Which of the config's mounts it is.
        index: u16,
        /// Options of the file system; `None` leaves it alone (`remount,bind`).
        options: Option<Vec<(CString, Option<CString>)>>,
        /// The attributes of the mount.
        change: Attributes,
        /// Where.
        target: Target,
    },
    /// Makes a link that a source is; one that is there must be the same.
    CopyLink {
        /// Which of the config's mounts it is.
        index: u16,
        /// Its directory.
        parent: Target,
        /// Name.
        name: CString,
        /// Content.
        to: CString,
    },
    /// Attaches a tree that the parent cloned.
    Bind {
        /// Which of the config's mounts it belongs to.
        index: u16,
        /// The tree.
        source: Src,
        /// What is bound, for people.
        from: CString,
        /// Where.
        target: Target,
        /// The target is there, and may be a link, which is mounted on.
        no_follow: bool,
    },
    /// Binds a device of the host on a file (where mknod does not work).
    BindDevice {
        /// The device's tree.
        source: Src,
        /// Where.
        target: Target,
    },
    /// Opens the directory of the devices, making it if absent.
    OpenDev {
        /// `/dev`.
        target: Target,
    },
    /// Makes a device node.
    Node {
        /// Its directory; `None` is that of [`Op::OpenDev`].
        parent: Option<Target>,
        /// Its name.
        name: CString,
        /// Type and permission bits.
        mode: u32,
        /// Device number.
        device: u64,
        /// Owner.
        owner: (u32, u32),
    },
    /// Makes a symbolic link in the directory of [`Op::OpenDev`].
    DevLink {
        /// Name.
        name: CString,
        /// Content.
        to: CString,
    },
    /// Makes a symbolic link.
    Link {
        /// Its directory.
        parent: Target,
        /// Name.
        name: CString,
        /// Content.
        to: CString,
    },
    /// Changes a mount.
    SetMount {
        /// Which.
        target: Target,
        /// How.
        change: Attributes,
    },
    /// Runs a hook in the container's namespaces, before the root changes or, for startContainer, after.
    Hook(Box<InnerHook>),
    /// Makes a path unreadable, if it exists.
    Mask(Target),
    /// Makes a path read-only, if it exists.
    ReadOnly(Target),
    /// Makes a terminal, sends its master away, and takes the other side as standard streams.
    Terminal {
        /// Rows and columns.
        size: Option<(u16, u16)>,
        /// `/dev/console` is put on it.
        console: bool,
        /// This process begins the terminal's session; otherwise [`Op::Session`] does.
        control: bool,
    },
    /// Takes the given descriptors as standard streams.
    PlaceStdio,
    /// Sets a kernel parameter through the host's procfs.
    Sysctl {
        /// Path below `/proc/sys`.
        path: CString,
        /// Dotted name.
        name: String,
        /// Value.
        value: Vec<u8>,
    },
    /// Opens the working directory, making it if absent.
    OpenCwd(Target),
    /// Makes the root the container's.
    PivotRoot {
        /// By chroot, as pivot_root does not work on ramfs.
        no_pivot: bool,
    },
    /// Changes the root's mount.
    SetRoot {
        /// How.
        change: Attributes,
        /// All mounts below too.
        recursive: bool,
    },
    /// Sets the host name.
    HostName(Vec<u8>),
    /// Sets the NIS domain name.
    DomainName(Vec<u8>),
    /// Brings `lo` up.
    LoopbackUp,
    /// Begins a session keyring.
    Keyring(CString),
    /// Begins a session.
    NewSession,
    /// Sets a resource limit.
    Limit {
        /// Number.
        resource: i32,
        /// Name.
        name: String,
        /// Soft limit.
        soft: u64,
        /// Hard limit.
        hard: u64,
    },
    /// Sets the execution domain.
    Personality(u64),
    /// Sets the scheduler.
    Scheduler(SchedAttr),
    /// Sets the I/O priority.
    IoPriority {
        /// Class.
        class: i32,
        /// Level.
        level: i32,
    },
    /// Sets the NUMA policy.
    MemoryPolicy {
        /// Mode and flags.
        mode: i32,
        /// Nodes, a bit each.
        nodes: Vec<u64>,
    },
    /// Sets the processors.
    Affinity(Vec<u64>),
    /// Takes all processors, whatever those of the caller are: those of the cgroup remain. No failure.
    AllProcessors,
    /// Gives the standard streams to the user, and takes `/dev/null` from the container.
    OwnStdio {
        /// Whose.
        uid: u32,
    },
    /// Forbids new privileges.
    NoNewPrivileges,
    /// Loads the system call filter.
    Seccomp {
        /// The filter has a listener, which the parent takes.
        listener: bool,
    },
    /// Takes capabilities out of the bounding set.
    DropBounding(u64),
    /// Takes ids, keeping capabilities.
    Ids {
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
        /// Further groups; `None` leaves them (setgroups is denied).
        groups: Option<Vec<Gid>>,
    },
    /// Sets capabilities.
    Capabilities {
        /// Effective.
        effective: u64,
        /// Permitted.
        permitted: u64,
        /// Inheritable.
        inheritable: u64,
        /// Ambient.
        ambient: u64,
    },
    /// Enters the working directory; a refusal is tried again after the user changed.
    EnterCwd,
    /// Enters the working directory by path: in a container that was joined, whose root is this process's.
    Chdir(CString),
    /// Sets the file mode creation mask.
    Umask(u32),
    /// Tells the parent that the container is set up: a silent end after this is the program's.
    Announce,
    /// Goes on in the container's pid namespace, as another child of this process's parent: what the container's
    /// processes can trace from now on has no more rights than they have, and nothing of the host (CVE-2016-9962).
    EnterPids,
    /// Begins a session, of the terminal on standard input if there is one.
    Session {
        /// There is a terminal.
        terminal: bool,
    },
    /// Finds the program.
    FindProgram,
    /// Tells the parent that all is ready, and waits to be started.
    WaitForStart,
    /// Becomes the program.
    Exec,
}

impl Op {
    /// Returns where in config.json it comes from.
    #[must_use]
    pub fn place(&self) -> Option<String> {
        let place = match self {
            Self::Mount { index, .. }
            | Self::Bind { index, .. }
            | Self::Remount { index, .. }
            | Self::CopyLink { index, .. } => return Some(format!("mounts[{index}]")),
            Self::BindDevice { .. } | Self::Node { .. } => "linux.devices",
            Self::Mask(_) => "linux.maskedPaths",
            Self::ReadOnly(_) => "linux.readonlyPaths",
            Self::Sysctl { .. } => "linux.sysctl",
            Self::Personality(_) => "linux.personality",
            Self::MemoryPolicy { .. } => "linux.memoryPolicy",
            Self::Seccomp { .. } => "linux.seccomp",
            Self::HostName(_) => "hostname",
            Self::DomainName(_) => "domainname",
            Self::OpenCwd(_) | Self::EnterCwd | Self::Chdir(_) => "process.cwd",
            Self::WriteLabel { .. } => "process.apparmorProfile or selinuxLabel",
            Self::Limit { .. } => "process.rlimits",
            Self::Scheduler(_) => "process.scheduler",
            Self::IoPriority { .. } => "process.ioPriority",
            Self::Affinity(_) => "process.execCPUAffinity",
            Self::Ids { .. } => "process.user",
            Self::Capabilities { .. } => "process.capabilities",
            Self::Hook(_) => "hooks",
            _ => return None,
        };
        Some(place.to_owned())
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy;
        match self {
            Self::JoinCgroups => write!(f, "join the cgroups"),
            Self::JoinGroup { path, .. } => write!(f, "join {}", path.to_string_lossy()),
            Self::Join { kind, .. } => write!(f, "join the {kind:?} namespace"),
            Self::NewCgroupNamespace => write!(f, "make a cgroup namespace"),
            Self::Sync(point) => write!(f, "wait for the parent ({point:?})"),
            Self::BecomeRoot => write!(f, "become root of the user namespace"),
            Self::WriteSelf { path, value, .. } => {
                write!(f, "write {:?} to {}", text(value), path.to_string_lossy())
            }
            Self::OpenLabel { .. } => write!(f, "open the file of the security label"),
            // SELinux's labels have no verb in front.
            Self::WriteLabel { value } => match value.strip_prefix(b"exec ") {
                Some(profile) => write!(f, "apply the apparmor profile {:?}", text(profile)),
                None => write!(f, "set the security label {:?}", text(value)),
            },
            Self::PrivateMounts => write!(f, "make mounts private"),
            Self::AttachRoot { at: None, .. } => write!(f, "attach the root file system"),
            Self::AttachRoot { at: Some(at), .. } => {
                write!(f, "attach the root file system at {}", at.to_string_lossy())
            }
            Self::OpenNull => write!(f, "open /dev/null"),
            Self::Mount { kind, target, options, attributes, copy_up, keep_mode, .. } => {
                write!(f, "mount {} on {target}", kind.to_string_lossy())?;
                if f.alternate() {
                    write!(f, " attributes {attributes:#x}")?;
                    for (key, value) in options {
                        write!(f, " {}", key.to_string_lossy())?;
                        if let Some(value) = value {
                            write!(f, "={}", value.to_string_lossy())?;
                        }
                    }
                    f.write_str(if *copy_up { " (copy up)" } else { "" })?;
                    f.write_str(if *keep_mode { " (mode kept)" } else { "" })?;
                }
                Ok(())
            }
            Self::Remount { target, options, change, .. } => {
                write!(f, "remount {target}")?;
                if f.alternate() {
                    write!(f, " set {:#x} clear {:#x}", change.set, change.clear)?;
                    for (key, value) in options.iter().flatten() {
                        let value = value.as_ref().map(|v| format!("={}", v.to_string_lossy()));
                        write!(f, " {}{}", key.to_string_lossy(), value.unwrap_or_default())?;
                    }
                }
                Ok(())
            }
            Self::CopyLink { parent, name, to, .. } => {
                write!(f, "copy the link {parent}/{} to {}", name.to_string_lossy(), to.to_string_lossy())
            }
            Self::Bind { from, target, .. } => write!(f, "mount {} on {target}", from.to_string_lossy()),
            Self::BindDevice { target, .. } => write!(f, "bind device {target}"),
            Self::OpenDev { target } => write!(f, "open {target}"),
            Self::Node { name, device, mode, .. } => {
                let (major, minor) = (rustix::fs::major(*device), rustix::fs::minor(*device));
                write!(f, "make device {} ({major}:{minor}, mode {mode:o})", name.to_string_lossy())
            }
            Self::DevLink { name, to } => {
                write!(f, "link /dev/{} to {}", name.to_string_lossy(), to.to_string_lossy())
            }
            Self::Link { parent, name, to } => {
                write!(f, "link {parent}/{} to {}", name.to_string_lossy(), to.to_string_lossy())
            }
            Self::SetMount { target, change } => write!(f, "change mount {target}: set {:#x}", change.set),
            Self::Hook(hook) => write!(f, "hook {}", hook.path.to_string_lossy()),
            Self::Mask(target) => write!(f, "mask {target}"),
            Self::ReadOnly(target) => write!(f, "make {target} read-only"),
            Self::Terminal { .. } => write!(f, "make a terminal"),
            Self::PlaceStdio => write!(f, "place the standard streams"),
            Self::Sysctl { name, value, .. } => write!(f, "set sysctl {name} to {:?}", text(value)),
            Self::OpenCwd(target) => write!(f, "open working directory {target}"),
            Self::PivotRoot { no_pivot: false } => write!(f, "pivot root"),
            Self::PivotRoot { no_pivot: true } => write!(f, "change root"),
            Self::SetRoot { change, .. } => {
                write!(
                    f,
                    "change the root's mount: set {:#x} propagation {:#x}",
                    change.set, change.propagation
                )
            }
            Self::HostName(name) => write!(f, "set host name {:?}", text(name)),
            Self::DomainName(name) => write!(f, "set domain name {:?}", text(name)),
            Self::LoopbackUp => write!(f, "bring lo up"),
            Self::Keyring(name) => write!(f, "join session keyring {}", name.to_string_lossy()),
            Self::NewSession => write!(f, "begin a session"),
            Self::Limit { name, soft, hard, .. } => write!(f, "set {name} to {soft}:{hard}"),
            Self::Personality(value) => write!(f, "set personality {value:#x}"),
            Self::Scheduler(attr) => {
                let (policy, priority) = (attr.policy, attr.priority);
                write!(f, "set scheduler policy {policy} nice {} priority {priority}", attr.nice)
            }
            Self::IoPriority { class, level } => write!(f, "set I/O priority {class}:{level}"),
            Self::MemoryPolicy { mode, nodes } => write!(f, "set memory policy {mode:#x} {nodes:x?}"),
            Self::AllProcessors => write!(f, "use all CPUs"),
            Self::Affinity(mask) => write!(f, "set CPU affinity {mask:x?}"),
            Self::OwnStdio { uid } => write!(f, "give the standard streams to user {uid}"),
            Self::NoNewPrivileges => write!(f, "forbid new privileges"),
            Self::Seccomp { .. } => write!(f, "load the seccomp filter"),
            Self::DropBounding(set) => write!(f, "drop bounding capabilities {set:#x}"),
            Self::Ids { uid, gid, groups } => {
                write!(f, "become user {uid}, group {gid}")?;
                for group in groups.iter().flatten() {
                    write!(f, ", {}", group.as_raw())?;
                }
                Ok(())
            }
            Self::Capabilities { effective, permitted, inheritable, ambient } => {
                write!(f, "set capabilities {effective:#x} {permitted:#x} {inheritable:#x} {ambient:#x}")
            }
            Self::EnterCwd => write!(f, "enter the working directory"),
            Self::Chdir(path) => write!(f, "chdir to cwd ({:?})", path.to_string_lossy()),
            Self::Umask(mask) => write!(f, "set umask {mask:03o}"),
            Self::EnterPids => write!(f, "enter the pid namespace"),
            Self::Session { .. } => write!(f, "begin a session"),
            Self::Announce => write!(f, "announce"),
            Self::FindProgram => write!(f, "find the program"),
            Self::WaitForStart => write!(f, "wait for start"),
            Self::Exec => write!(f, "exec"),
        }
    }
}
