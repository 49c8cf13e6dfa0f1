//! The rules of runtime-spec 1.3 that a shape cannot say.

use std::collections::BTreeSet;

use super::{Findings, Path, Severity};
use crate::capability;
use crate::options::device::RLIMITS;
use crate::options::number::is_set;
use crate::runtime::{
    Capabilities, IdMapping, Linux, Mount, NamespaceKind, Process, Resources, RuntimeConfig, SPEC_VERSION,
};
use crate::suggest::did_you_mean;

/// Options that are flags of mount(2) or words of runtimes, beside what a file system takes as data.
pub const MOUNT_OPTIONS: [&str; 79] = [
    "async",
    "atime",
    "bind",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "noiversion",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "private",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "relatime",
    "remount",
    "rexec",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "runbindable",
    "rw",
    "shared",
    "silent",
    "slave",
    "strictatime",
    "suid",
    "symfollow",
    "sync",
    "tmpcopyup",
    "unbindable",
    "idmap",
    "ridmap",
    "copy-symlink",
    "src-nofollow",
    "dest-nofollow",
    "notmpcopyup",
    "newinstance",
    "none",
    "acl",
    "noacl",
    "user_xattr",
    "nouser_xattr",
    "userxattr",
    "volatile",
    "nsdelegate",
    "memory_recursiveprot",
    "subset=pid",
    "favordynmods",
    "discard",
];

/// The most ranges of a user namespace (user_namespaces(7)).
const MAPPING_LIMIT: usize = 340;
/// Mounts beyond these are not compared with each other, nor capabilities: a hostile config is not worth the time.
const COMPARED_MOUNTS: usize = 2000;
const COMPARED_CAPABILITIES: usize = 100;

const TYPES: [&str; 22] = [
    "bind",
    "proc",
    "sysfs",
    "tmpfs",
    "devpts",
    "mqueue",
    "cgroup",
    "cgroup2",
    "none",
    "overlay",
    "securityfs",
    "debugfs",
    "tracefs",
    "bpf",
    "hugetlbfs",
    "ext4",
    "xfs",
    "btrfs",
    "nfs",
    "fuse",
    "binder",
    "devtmpfs",
];

pub(super) fn rules(findings: &mut Findings, config: &RuntimeConfig) {
    version(findings, &config.oci_version);
    match &config.process {
        Some(process) => self::process(findings, process),
        None => findings.warning(
            "missing",
            &Path::of("process"),
            "is missing: the container can be made but not started",
        ),
    }
    match &config.root {
        Some(root) if root.path.is_empty() => findings.error("empty", &Path::of("root.path"), "is empty"),
        Some(_) => {}
        None => findings.error("missing", &Path::of("root"), "is missing: there is nothing to run in"),
    }
    names(findings, config);
    mounts(findings, &config.mounts);
    hooks(findings, config);
    if let Some(linux) = &config.linux {
        self::linux(findings, linux);
    }
    for key in config.annotations.keys().filter(|k| k.is_empty()) {
        findings.error("empty", &Path::of("annotations").key(key), "an annotation needs a name");
    }
}

/// Reads `MAJOR.MINOR.PATCH[-…][+…]`.
fn version(findings: &mut Findings, version: &str) {
    let path = Path::of("ociVersion");
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let numbers: Vec<Option<u32>> = core.split('.').map(|n| n.parse().ok()).collect();
    match numbers.as_slice() {
        [Some(1), Some(minor), Some(_)] if *minor > 3 => {
            findings.warning(
                "version",
                &path,
                format!("{version:?} is newer than what bale knows, {SPEC_VERSION}"),
            );
        }
        [Some(1), Some(_), Some(_)] => {}
        [Some(0), Some(_), Some(_)] => {
            findings.error("version", &path, format!("{version:?} is a format from before 1.0"));
            findings.hint("bale upgrade DIR converts it");
        }
        _ => findings.error("version", &path, format!("{version:?} is not a version 1.x.y")),
    }
}

fn process(findings: &mut Findings, process: &Process) {
    let at = Path::of("process");
    if process.args.first().is_none_or(String::is_empty) {
        findings.error("empty", &at.key("args"), "names no program to run");
        findings.hint("bale set DIR 'process.args=[\"/bin/sh\"]'");
    }
    if !process.cwd.starts_with('/') {
        findings.error("cwd", &at.key("cwd"), format!("{:?} is not an absolute path", process.cwd));
        findings.hint("bale set DIR process.cwd=/");
    }
    if process.cwd.contains('\0') {
        findings.error("nul", &at.key("cwd"), "holds a NUL byte");
    }
    environment(findings, &process.env, &at.key("env"));
    if process.user.umask.is_some_and(|mask| mask > 0o777) {
        findings.error("out-of-range", &at.key("user").key("umask"), "is larger than 0777 (511)");
    }
    capabilities(findings, process);
    rlimits(findings, process);
    for (words, key) in [(&process.args, "args"), (&process.env, "env")] {
        for (index, _) in words.iter().enumerate().filter(|(_, word)| word.contains('\0')) {
            findings.error("nul", &at.key(key).index(index), "holds a NUL byte");
        }
    }
    let affinity = process.exec_cpu_affinity.as_ref();
    for (list, key) in [
        (affinity.and_then(|a| a.initial.as_ref()), "initial"),
        (affinity.and_then(|a| a.last.as_ref()), "final"),
    ] {
        if list.is_some_and(|list| !is_set(list)) {
            findings.error("list", &at.key("execCPUAffinity").key(key), "is not a list such as 0-3,7");
        }
    }
}

fn environment(findings: &mut Findings, env: &[String], at: &Path) {
    let mut names = BTreeSet::new();
    for (index, entry) in env.iter().enumerate() {
        match entry.split_once('=') {
            None | Some(("", _)) => {
                findings.error("env", &at.index(index), format!("{entry:?} is not KEY=value"));
            }
            Some((name, _)) if !names.insert(name) => {
                findings.warning(
                    "double",
                    &at.index(index),
                    format!("{name} is set a second time: the last one counts"),
                );
            }
            Some(_) => {}
        }
    }
}

fn capabilities(findings: &mut Findings, process: &Process) {
    let Some(sets) = &process.capabilities else { return };
    let at = Path::of("process.capabilities");
    let named = [
        ("bounding", &sets.bounding),
        ("effective", &sets.effective),
        ("inheritable", &sets.inheritable),
        ("permitted", &sets.permitted),
        ("ambient", &sets.ambient),
    ];
    for (set, list) in named {
        if list.len() > COMPARED_CAPABILITIES {
            return findings.error(
                "capabilities",
                &at.key(set),
                "names far more capabilities than there are",
            );
        }
        for (index, name) in list.iter().enumerate().filter(|(_, n)| !capability::ALL.contains(&n.as_str())) {
            let near =
                capability::suggest(name).map(|n| format!("; did you mean {n:?}?")).unwrap_or_default();
            findings.error(
                "unknown-capability",
                &at.key(set).index(index),
                format!("{name:?} is no capability{near}"),
            );
        }
    }
    capability_sets(findings, sets, &at);
}

/// Holds the sets against each other, as the kernel does.
fn capability_sets(findings: &mut Findings, sets: &Capabilities, at: &Path) {
    let lacking = |list: &[String], of: &[String]| list.iter().find(|c| !of.contains(c)).cloned();
    if let Some(name) = lacking(&sets.effective, &sets.permitted) {
        findings.error(
            "capabilities",
            &at.key("effective"),
            format!("{name} is not in the permitted set: the kernel refuses that"),
        );
    }
    if let Some(name) = lacking(&sets.permitted, &sets.bounding) {
        findings.warning(
            "capabilities",
            &at.key("permitted"),
            format!("{name} is not in the bounding set: it is lost at execve"),
        );
    }
    for other in [("permitted", &sets.permitted), ("inheritable", &sets.inheritable)] {
        if let Some(name) = lacking(&sets.ambient, other.1) {
            findings.error(
                "capabilities",
                &at.key("ambient"),
                format!("{name} is not in the {} set: the kernel refuses that", other.0),
            );
        }
    }
}

fn rlimits(findings: &mut Findings, process: &Process) {
    let mut kinds = BTreeSet::new();
    for (index, limit) in process.rlimits.iter().enumerate() {
        let at = Path::of("process.rlimits").index(index);
        if !RLIMITS.iter().any(|(_, known)| *known == limit.kind) {
            let near = did_you_mean(&limit.kind, RLIMITS.iter().map(|(_, known)| *known));
            findings.error("unknown-word", &at.key("type"), format!("{:?} is no limit{near}", limit.kind));
        } else if !kinds.insert(&limit.kind) {
            findings.error("double", &at.key("type"), format!("{} is limited a second time", limit.kind));
        }
        if limit.soft > limit.hard {
            findings.error(
                "rlimit",
                &at.key("soft"),
                format!("{} is above the hard limit {}", limit.soft, limit.hard),
            );
        }
    }
}

/// Whether the container gets or joins a namespace of its own.
fn has(config: &RuntimeConfig, kind: NamespaceKind) -> bool {
    config.linux.as_ref().is_some_and(|l| l.namespaces.iter().any(|n| n.kind == kind))
}

fn names(findings: &mut Findings, config: &RuntimeConfig) {
    for (name, key) in [(&config.hostname, "hostname"), (&config.domainname, "domainname")] {
        let Some(name) = name.as_ref().filter(|n| !n.is_empty()) else { continue };
        if name.len() > 64 {
            findings.error("too-long", &Path::of(key), "is longer than the 64 bytes that the kernel keeps");
        }
        if !has(config, NamespaceKind::Uts) {
            findings.error("namespace", &Path::of(key), "is set, but the container shares the host's names");
            findings.hint("bale set DIR 'linux.namespaces+={\"type\":\"uts\"}', or take the key away");
        }
    }
}

fn mounts(findings: &mut Findings, mounts: &[Mount]) {
    for (index, mount) in mounts.iter().enumerate() {
        let at = Path::of("mounts").index(index);
        destination(findings, mount, mounts, index);
        let is_bind = mount.options.iter().any(|o| o == "bind" || o == "rbind");
        let kind = mount.kind.as_deref().unwrap_or_default();
        if kind == "bind" && !is_bind {
            findings.error("bind", &at.key("options"), "a bind mount needs the option bind or rbind");
        }
        if kind.is_empty() && !is_bind {
            findings.error(
                "missing",
                &at.key("type"),
                "is missing, and the options have neither bind nor rbind",
            );
        }
        if is_bind && mount.source.as_deref().unwrap_or_default().is_empty() {
            findings.error(
                "missing",
                &at.key("source"),
                "is missing: a bind mount shows a file or directory of the host",
            );
        }
        if !TYPES.contains(&kind) && !kind.is_empty() && !is_bind {
            let near = did_you_mean(kind, TYPES);
            if !near.is_empty() {
                findings.warning(
                    "unknown-word",
                    &at.key("type"),
                    format!("{kind:?} is not a usual file system{near}"),
                );
            }
        }
        options(findings, mount, is_bind, &at.key("options"));
        mappings(findings, &mount.uid_mappings, &at.key("uidMappings"));
        mappings(findings, &mount.gid_mappings, &at.key("gidMappings"));
        if mount.uid_mappings.is_empty() != mount.gid_mappings.is_empty() {
            findings.error("mapping", &at, "has mappings for users or groups alone: it needs both");
        }
    }
}

fn destination(findings: &mut Findings, mount: &Mount, mounts: &[Mount], index: usize) {
    let at = Path::of("mounts").index(index).key("destination");
    let destination = mount.destination.as_str();
    match destination {
        "" => findings.error("empty", &at, "is empty"),
        path if !path.starts_with('/') => {
            findings.warning("relative", &at, format!("{path:?} is relative: older runtimes refuse it"));
            findings.hint(format!("write /{path}"));
        }
        path if path.split('/').all(|c| c.is_empty() || c == ".") => {
            findings.error("destination", &at, "cannot be the root itself");
        }
        _ => {}
    }
    let end = mounts.len().min(COMPARED_MOUNTS);
    let later = mounts.get(index + 1..end).unwrap_or_default();
    if let Some(other) = later.iter().find(|m| !destination.is_empty() && m.destination == destination) {
        findings.warning(
            "hidden",
            &at,
            format!("{:?} is mounted on again later, which hides this one", other.destination),
        );
    } else if let Some(other) = later.iter().find(|m| is_below(destination, &m.destination)) {
        let words = format!("comes before its parent {:?}, which then hides it", other.destination);
        findings.warning("hidden", &at, words);
        findings.hint(format!("put {destination:?} after {:?}", other.destination));
    }
}

fn is_below(path: &str, parent: &str) -> bool {
    parent.starts_with('/')
        && path
            .strip_prefix(parent.trim_end_matches('/'))
            .is_some_and(|rest| rest.starts_with('/') && rest.len() > 1)
}

/// Unknown words go to the file system as data, and a bind mount has none.
fn options(findings: &mut Findings, mount: &Mount, is_bind: bool, at: &Path) {
    for (index, option) in mount.options.iter().enumerate() {
        let word = option.as_str();
        let known =
            MOUNT_OPTIONS.contains(&word) || word.starts_with("idmap=") || word.starts_with("ridmap=");
        if known {
            continue;
        }
        if word.contains(',') {
            findings.error(
                "mount-option",
                &at.index(index),
                format!("{word:?} is several options in one string"),
            );
            findings.hint("make each a string of its own");
        } else if is_bind || !word.contains('=') {
            let near = did_you_mean(word, MOUNT_OPTIONS);
            let severity = if near.is_empty() && !is_bind { Severity::Note } else { Severity::Error };
            findings.add(
                severity,
                "mount-option",
                &at.index(index),
                format!("{word:?} is no mount option{near}"),
            );
        }
    }
}

fn hooks(findings: &mut Findings, config: &RuntimeConfig) {
    let Some(hooks) = &config.hooks else { return };
    let kinds = [
        ("prestart", &hooks.prestart),
        ("createRuntime", &hooks.create_runtime),
        ("createContainer", &hooks.create_container),
        ("startContainer", &hooks.start_container),
        ("poststart", &hooks.poststart),
        ("poststop", &hooks.poststop),
    ];
    for (kind, list) in kinds {
        for (index, hook) in list.iter().enumerate().filter(|(_, h)| !h.path.starts_with('/')) {
            let at = Path::of("hooks").key(kind).index(index).key("path");
            findings.error("relative", &at, format!("{:?} is not an absolute path", hook.path));
        }
    }
}

fn linux(findings: &mut Findings, linux: &Linux) {
    let at = Path::of("linux");
    namespaces(findings, linux);
    sysctls(findings, linux);
    for (key, paths) in [("maskedPaths", &linux.masked_paths), ("readonlyPaths", &linux.readonly_paths)] {
        for (index, path) in paths.iter().enumerate().filter(|(_, p)| !p.starts_with('/')) {
            findings.error(
                "relative",
                &at.key(key).index(index),
                format!("{path:?} is not an absolute path"),
            );
        }
    }
    devices(findings, linux);
    if let Some(resources) = &linux.resources {
        self::resources(findings, resources);
    }
    if let Some(seccomp) = &linux.seccomp {
        let at = at.key("seccomp").key("syscalls");
        for (index, _) in seccomp.syscalls.iter().enumerate().filter(|(_, rule)| rule.names.is_empty()) {
            findings.error("empty", &at.index(index).key("names"), "names no system call");
        }
    }
    if !linux.net_devices.is_empty() && !linux.namespaces.iter().any(|n| n.kind == NamespaceKind::Network) {
        findings.error("namespace", &at.key("netDevices"), "needs a network namespace");
    }
}

fn namespaces(findings: &mut Findings, linux: &Linux) {
    let at = Path::of("linux.namespaces");
    let mut kinds = BTreeSet::new();
    for (index, namespace) in linux.namespaces.iter().enumerate() {
        if !kinds.insert(namespace.kind) {
            findings.error(
                "double",
                &at.index(index).key("type"),
                "this kind of namespace stands here a second time",
            );
        }
        if namespace.path.as_ref().is_some_and(|p| !p.is_empty() && !p.starts_with('/')) {
            findings.error("relative", &at.index(index).key("path"), "is not an absolute path");
        }
    }
    if !kinds.contains(&NamespaceKind::Mount) {
        findings.error(
            "namespace",
            &at,
            "has no mount namespace: the container's mounts would be the host's",
        );
        findings.hint("bale set DIR 'linux.namespaces+={\"type\":\"mount\"}'");
    }
    user_namespace(findings, linux, &at);
    clocks(findings, linux, kinds.contains(&NamespaceKind::Time));
}

fn user_namespace(findings: &mut Findings, linux: &Linux, at: &Path) {
    let user = linux.namespaces.iter().find(|n| n.kind == NamespaceKind::User);
    let mapped = !linux.uid_mappings.is_empty() || !linux.gid_mappings.is_empty();
    match user {
        None if mapped => findings.error(
            "namespace",
            &Path::of("linux.uidMappings"),
            "ids are mapped, but there is no user namespace",
        ),
        Some(new)
            if new.path.as_ref().is_none_or(String::is_empty)
                && (linux.uid_mappings.is_empty() || linux.gid_mappings.is_empty()) =>
        {
            findings.error("mapping", at, "a new user namespace needs uidMappings and gidMappings");
        }
        _ => {}
    }
    mappings(findings, &linux.uid_mappings, &Path::of("linux.uidMappings"));
    mappings(findings, &linux.gid_mappings, &Path::of("linux.gidMappings"));
}

fn clocks(findings: &mut Findings, linux: &Linux, has_namespace: bool) {
    for clock in linux.time_offsets.keys() {
        let at = Path::of("linux.timeOffsets");
        if !["monotonic", "boottime"].contains(&clock.as_str()) {
            let near = did_you_mean(clock, ["monotonic", "boottime"]);
            findings.error("unknown-word", &at.key(clock), format!("{clock:?} is no clock{near}"));
        } else if !has_namespace {
            findings.error("namespace", &at.key(clock), "needs a time namespace");
        }
    }
}

fn mappings(findings: &mut Findings, list: &[IdMapping], at: &Path) {
    if list.len() > MAPPING_LIMIT {
        return findings.error(
            "mapping",
            at,
            format!("has more than {MAPPING_LIMIT} ranges: the kernel refuses that"),
        );
    }
    let end = |from: u32, size: u32| u64::from(from) + u64::from(size);
    for (index, one) in list.iter().enumerate() {
        if one.size == 0 {
            findings.error(
                "mapping",
                &at.index(index).key("size"),
                "is 0: the kernel refuses an empty range",
            );
        }
        if end(one.container_id, one.size) > 1 << 32 || end(one.host_id, one.size) > 1 << 32 {
            findings.error("mapping", &at.index(index), "reaches beyond the largest id");
        }
        let overlaps =
            |a: u32, b: u32, size: u32| u64::from(a) < end(b, size) && u64::from(b) < end(a, one.size);
        let clash = |other: &IdMapping| {
            overlaps(one.container_id, other.container_id, other.size)
                || overlaps(one.host_id, other.host_id, other.size)
        };
        if list[..index].iter().any(clash) {
            findings.error("mapping", &at.index(index), "overlaps with an earlier range");
        }
    }
}

/// A parameter belongs to the namespace it is of, or to the host (runc refuses those).
fn sysctls(findings: &mut Findings, linux: &Linux) {
    let own = |kind| linux.namespaces.iter().any(|n| n.kind == kind);
    for name in linux.sysctl.keys() {
        let at = Path::of("linux.sysctl").key(name);
        let dotted = name.replace('/', ".");
        let needs = match dotted.as_str() {
            n if n.starts_with("net.") => Some((NamespaceKind::Network, "network")),
            n if n.starts_with("fs.mqueue.")
                || n.starts_with("kernel.msg")
                || n.starts_with("kernel.shm")
                || n == "kernel.sem" =>
            {
                Some((NamespaceKind::Ipc, "ipc"))
            }
            "kernel.domainname" | "kernel.hostname" => Some((NamespaceKind::Uts, "uts")),
            n if n.starts_with("user.") => Some((NamespaceKind::User, "user")),
            _ => None,
        };
        match needs {
            Some((kind, word)) if !own(kind) => {
                findings.error(
                    "namespace",
                    &at,
                    format!("needs a {word} namespace: it would change the host"),
                );
            }
            Some(_) => {}
            None => findings.error("sysctl", &at, "belongs to no namespace: it would change the host"),
        }
    }
}

fn devices(findings: &mut Findings, linux: &Linux) {
    let mut paths = BTreeSet::new();
    for (index, device) in linux.devices.iter().enumerate() {
        let at = Path::of("linux.devices").index(index);
        if !device.path.starts_with('/') {
            findings.error("relative", &at.key("path"), format!("{:?} is not an absolute path", device.path));
        } else if !paths.insert(&device.path) {
            findings.error("double", &at.key("path"), format!("{:?} is listed a second time", device.path));
        }
        if device.kind != "p" && (device.major < 0 || device.minor < 0) {
            findings.error(
                "out-of-range",
                &at,
                "a device node needs major and minor numbers that are not negative",
            );
        }
    }
    let rules = linux.resources.as_ref().map(|r| r.devices.as_slice()).unwrap_or_default();
    for (index, rule) in rules.iter().enumerate() {
        let access = rule.access.as_deref().unwrap_or_default();
        if access.chars().any(|c| !"rwm".contains(c)) {
            let at = Path::of("linux.resources.devices").index(index).key("access");
            findings.error("unknown-word", &at, format!("{access:?} is not some of r, w and m"));
        }
    }
}

fn resources(findings: &mut Findings, resources: &Resources) {
    let at = Path::of("linux.resources");
    if let Some(memory) = &resources.memory
        && let (Some(limit), Some(swap)) = (memory.limit, memory.swap)
        && swap > 0
        && limit > 0
        && swap < limit
    {
        findings.error(
            "limits",
            &at.key("memory").key("swap"),
            "is below the memory limit: it counts memory and swap together",
        );
    }
    if let Some(cpu) = &resources.cpu {
        for (list, key) in [(&cpu.cpus, "cpus"), (&cpu.mems, "mems")] {
            if list.as_ref().is_some_and(|list| !list.is_empty() && !is_set(list)) {
                findings.error("list", &at.key("cpu").key(key), "is not a list such as 0-3,7");
            }
        }
        if cpu.period.is_some_and(|p| p != 0 && !(1_000..=1_000_000).contains(&p)) {
            findings.error(
                "out-of-range",
                &at.key("cpu").key("period"),
                "is not 1000 to 1000000 microseconds",
            );
        }
        if cpu.quota.is_some_and(|q| q > 0 && q < 1_000) {
            findings.error("out-of-range", &at.key("cpu").key("quota"), "is below 1000 microseconds");
        }
    }
    for name in resources.unified.keys().filter(|n| n.contains('/') || n.is_empty()) {
        findings.error("unified", &at.key("unified").key(name), "is not the name of a file in a cgroup");
    }
}
