//! A config to start from: what `runc spec` writes, in bale's canonical order.

use super::mounts::mount;
use crate::runtime::{
    Capabilities, DeviceRule, IdMapping, Linux, Mount, Namespace, NamespaceKind, Process, Resources, Rlimit,
    Root, RuntimeConfig, User,
};

const CAPABILITIES: [&str; 3] = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
const ENVIRONMENT: [&str; 2] =
    ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"];
const MASKED: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/proc/scsi",
];

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|w| (*w).to_owned()).collect()
}

/// Makes the config that `runc spec` writes. On a host with cgroup v2 alone (`unified`) it has a cgroup namespace.
#[must_use]
pub fn spec(unified: bool) -> RuntimeConfig {
    let mut kinds = vec![
        NamespaceKind::Pid,
        NamespaceKind::Network,
        NamespaceKind::Ipc,
        NamespaceKind::Uts,
        NamespaceKind::Mount,
    ];
    if unified {
        kinds.push(NamespaceKind::Cgroup);
    }
    let deny = DeviceRule { allow: false, access: Some("rwm".to_owned()), ..DeviceRule::default() };
    let mut config = RuntimeConfig {
        process: Some(process()),
        root: Some(Root { path: "rootfs".to_owned(), readonly: true }),
        hostname: Some("bale".to_owned()),
        mounts: mounts(),
        linux: Some(Linux {
            resources: Some(Resources { devices: vec![deny], ..Resources::default() }),
            namespaces: kinds.into_iter().map(|kind| Namespace { kind, path: None }).collect(),
            masked_paths: strings(&MASKED),
            readonly_paths: strings(&super::READONLY_PATHS),
            ..Linux::default()
        }),
        ..RuntimeConfig::default()
    };
    config.oci_version = config.lowest_version().to_owned();
    config
}

/// Makes the config that `runc spec --rootless` writes for the user `uid`:`gid` of the host.
#[must_use]
pub fn rootless_spec(uid: u32, gid: u32, unified: bool) -> RuntimeConfig {
    let mut config = spec(unified);
    // An unprivileged user may neither mount sysfs without a network of its own nor map group 5.
    for m in &mut config.mounts {
        match m.destination.as_str() {
            "/sys" => *m = mount("/sys", "none", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro"]),
            _ => m.options.retain(|o| !o.starts_with("gid=") && !o.starts_with("uid=")),
        }
    }
    if let Some(linux) = &mut config.linux {
        let one = |host_id| vec![IdMapping { container_id: 0, host_id, size: 1 }];
        (linux.uid_mappings, linux.gid_mappings) = (one(uid), one(gid));
        linux.namespaces.retain(|n| n.kind != NamespaceKind::Network);
        linux.namespaces.push(Namespace { kind: NamespaceKind::User, path: None });
        linux.resources = None;
    }
    config
}

fn process() -> Process {
    Process {
        terminal: true,
        user: User::default(),
        args: strings(&["sh"]),
        env: strings(&ENVIRONMENT),
        cwd: "/".to_owned(),
        capabilities: Some(Capabilities {
            bounding: strings(&CAPABILITIES),
            effective: strings(&CAPABILITIES),
            permitted: strings(&CAPABILITIES),
            ..Capabilities::default()
        }),
        rlimits: vec![Rlimit { kind: "RLIMIT_NOFILE".to_owned(), hard: 1024, soft: 1024 }],
        no_new_privileges: true,
        ..Process::default()
    }
}

fn mounts() -> Vec<Mount> {
    let quiet = ["nosuid", "noexec", "nodev"];
    vec![
        Mount { options: Vec::new(), ..mount("/proc", "proc", "proc", &[]) },
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &quiet),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
    ]
}
