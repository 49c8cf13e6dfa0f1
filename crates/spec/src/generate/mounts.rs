//! The mounts: docker's defaults, the user's, the image's volumes, and the files of `/etc`.

use std::collections::BTreeSet;

use bale_fault::{Fault, Kind, Result};

use super::{HostFacts, Volume};
use crate::Digest;
use crate::image::ContainerConfig;
use crate::options::mount::clean;
use crate::options::{MountKind, MountRequest, RunOptions};
use crate::runtime::Mount;

const SHM_BYTES: u64 = 64 << 20;

pub(super) struct Mounted {
    pub(super) mounts: Vec<Mount>,
    pub(super) volumes: Vec<Volume>,
    pub(super) create_directories: Vec<String>,
}

/// Makes a mount.
pub(super) fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    Mount {
        destination: destination.to_owned(),
        kind: Some(kind.to_owned()),
        source: Some(source.to_owned()),
        options: options.iter().map(|o| (*o).to_owned()).collect(),
        ..Mount::default()
    }
}

/// Returns the path of a volume's files.
#[must_use]
pub fn volume_source(volumes: &str, name: &str) -> String {
    format!("{}/{name}/_data", volumes.trim_end_matches('/'))
}

pub(super) fn mounts(image: &ContainerConfig, options: &RunOptions, facts: &HostFacts) -> Result<Mounted> {
    let mut wanted: Vec<MountRequest> = options.mounts.clone();
    wanted.extend(image_volumes(image, &wanted)?);
    refuse_doubles(&wanted)?;
    // A mount above another must come first; those of one depth keep their order (docker sorts so too).
    wanted.sort_by_key(|m| m.target.matches('/').count());

    let mut mounted = Mounted { mounts: Vec::new(), volumes: Vec::new(), create_directories: Vec::new() };
    let overridden = |path: &str| wanted.iter().any(|w| covers(&w.target, path));
    mounted.mounts.extend(defaults(options).into_iter().filter(|m| !overridden(&m.destination)));
    for request in &wanted {
        add(&mut mounted, request, facts);
    }
    let taken = |path: &str| wanted.iter().any(|w| w.target == path);
    mounted.mounts.extend(etc(facts, options.read_only).into_iter().filter(|m| !taken(&m.destination)));
    Ok(mounted)
}

/// A mount of the user's takes the place of the default one, and one on `/dev` of those below it.
fn covers(target: &str, default: &str) -> bool {
    target == default || (target == "/dev" && default.starts_with("/dev/"))
}

fn refuse_doubles(wanted: &[MountRequest]) -> Result<()> {
    let mut taken = BTreeSet::new();
    match wanted.iter().find(|m| !taken.insert(m.target.as_str())) {
        Some(double) => {
            Err(Fault::new(Kind::InvalidInput, format!("duplicate mount point: {}", double.target)))
        }
        None => Ok(()),
    }
}

/// The image's volumes that nothing else is mounted on.
fn image_volumes(image: &ContainerConfig, wanted: &[MountRequest]) -> Result<Vec<MountRequest>> {
    let mut found: Vec<MountRequest> = Vec::new();
    for path in image.volumes.keys() {
        let target = clean(path);
        if target == "/" || path.contains('\0') {
            let words = format!("the image declares a volume at {path:?}");
            return Err(Fault::new(Kind::InvalidInput, words));
        }
        if wanted.iter().chain(&found).all(|m| m.target != target) {
            found.push(MountRequest {
                target,
                readonly: false,
                kind: MountKind::Volume { name: None, copy_up: true },
            });
        }
    }
    Ok(found)
}

fn defaults(options: &RunOptions) -> Vec<Mount> {
    let host = options.host_namespaces;
    let access: &[&str] = if options.privileged { &[] } else { &["ro"] };
    let size = format!("size={}", options.shm_size_bytes.unwrap_or(SHM_BYTES));
    let with = |base: &[&'static str]| -> Vec<&str> { base.iter().chain(access).copied().collect() };
    let dev = ["nosuid", "strictatime", "mode=755", "size=65536k"];
    let pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];
    let quiet = ["nosuid", "noexec", "nodev"];
    let shm = if host.ipc {
        mount("/dev/shm", "bind", "/dev/shm", &["rbind", "rprivate"])
    } else {
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &size])
    };
    vec![
        mount("/proc", "proc", "proc", &quiet),
        mount("/dev", "tmpfs", "tmpfs", &dev),
        mount("/dev/pts", "devpts", "devpts", &pts),
        mount("/sys", "sysfs", "sysfs", &with(&quiet)),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &with(&quiet)),
        // In the host's IPC namespace this shows the host's queues, whether or not the host mounts them.
        mount("/dev/mqueue", "mqueue", "mqueue", &quiet),
        shm,
    ]
}

fn add(mounted: &mut Mounted, request: &MountRequest, facts: &HostFacts) {
    let target = request.target.as_str();
    match &request.kind {
        MountKind::Bind { source, create, recursive, propagation } => {
            let mut options = vec![if *recursive { "rbind" } else { "bind" }];
            options.extend(read_only(request.readonly, *recursive));
            // Docker follows what the host mounts later when a bind is read-only and recursive only if asked to.
            options.push(propagation.as_deref().unwrap_or("rprivate"));
            if *create {
                mounted.create_directories.push(source.clone());
            }
            mounted.mounts.push(mount(target, "bind", source, &options));
        }
        MountKind::Volume { name, copy_up } => {
            let anonymous = name.is_none();
            let name = name.clone().unwrap_or_else(|| anonymous_name(&facts.container_id, target));
            let source = volume_source(&facts.volumes, &name);
            let options: Vec<&str> =
                std::iter::once("rbind").chain(read_only(request.readonly, true)).collect();
            mounted.mounts.push(mount(target, "bind", &source, &options));
            let destination = target.to_owned();
            mounted.volumes.push(Volume { name, anonymous, destination, source, copy_up: *copy_up });
        }
        MountKind::Tmpfs { options } => {
            let mut options: Vec<&str> = options.iter().map(String::as_str).collect();
            if request.readonly && !options.contains(&"ro") {
                options.push("ro");
            }
            mounted.mounts.push(mount(target, "tmpfs", "tmpfs", &options));
        }
    }
}

/// `ro` on a recursive bind leaves the mounts below writable; `rro` does not (docker 25 and later).
fn read_only(readonly: bool, recursive: bool) -> Option<&'static str> {
    readonly.then_some(if recursive { "rro" } else { "ro" })
}

/// A name nobody else can have: the id is random, and a container has one mount per path.
fn anonymous_name(container_id: &str, target: &str) -> String {
    Digest::of(format!("bale volume\0{container_id}\0{target}").as_bytes()).hex()
}

/// The files of `/etc`; a read-only root makes them read-only too.
fn etc(facts: &HostFacts, read_only: bool) -> Vec<Mount> {
    let files = [
        ("/etc/resolv.conf", &facts.etc.resolv_conf),
        ("/etc/hostname", &facts.etc.hostname),
        ("/etc/hosts", &facts.etc.hosts),
    ];
    let bind = |(path, source): (&str, &Option<String>)| {
        let options: &[&str] = if read_only { &["rbind", "ro", "rprivate"] } else { &["rbind", "rprivate"] };
        Some(mount(path, "bind", source.as_deref()?, options))
    };
    files.into_iter().filter_map(bind).collect()
}
