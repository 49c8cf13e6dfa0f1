//! `inspect`: all that is known of a container or volume, under docker's keys where docker has them.

use bale_fault::{Context, Fault, Kind, Result};
use bale_record::{Dir, Phase};
use bale_spec::image::{ContainerConfig, ImageConfig};
use bale_spec::json::CONFIG_LIMIT_BYTES;
use bale_spec::options::{MountKind, RunOptions};
use bale_spec::runtime::{Process, RuntimeConfig};
use bale_sys::file;
use bale_sys::root::{Links, RelPath};
use rustix::fs::OFlags;
use serde_json::{Value, json};

use crate::Engine;
use crate::container::{Container, Status};
use crate::volumes::Info;

/// Docker's word for "not yet".
const NEVER: &str = "0001-01-01T00:00:00Z";

/// Reads the config that a container runs with.
///
/// # Errors
/// `Corrupt`; `NotFound` when its making was broken off before.
pub fn config(dir: &Dir) -> Result<RuntimeConfig> {
    let words = || format!("read the config of container {}", dir.id());
    let path = RelPath::new("bundle/config.json").map_err(|e| Fault::new(Kind::Internal, e.to_string()))?;
    let fd = dir.root().open_at(&path, OFlags::RDONLY | OFlags::NONBLOCK, Links::Refused);
    let fd = fd.map_err(Fault::from).within(words)?;
    let text =
        file::read_fd_bounded(fd, "config.json", CONFIG_LIMIT_BYTES).map_err(Fault::from).within(words)?;
    RuntimeConfig::parse(&text).map_err(|e| Fault::new(Kind::Corrupt, words()).caused_by(e))
}

impl Engine {
    /// Describes a container.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn inspect_container(&self, name: &str) -> Result<Value> {
        let container = self.container(name)?;
        let config = config(&container.dir).unwrap_or_default();
        let record = &container.record;
        let details = &container.details;
        let path = |name: &str| container.dir.path().join(name).to_string_lossy().into_owned();
        let process = config.process.clone().unwrap_or_default();
        let (program, arguments) = process
            .args
            .split_first()
            .map_or((String::new(), Vec::new()), |(first, rest)| (first.clone(), rest.to_vec()));
        Ok(json!({
            "Id": record.id,
            "Created": record.created,
            "Path": program,
            "Args": arguments,
            "State": state(&container),
            "Image": details.image_id.map_or_else(|| details.image.clone(), |digest| digest.to_string()),
            "ResolvConfPath": path("resolv.conf"),
            "HostnamePath": path("hostname"),
            "HostsPath": path("hosts"),
            "LogPath": path(bale_record::control::LOG),
            "Name": format!("/{}", details.name),
            "Driver": if details.lowers.is_some() { "overlay" } else { "bundle" },
            "Platform": "linux",
            "RestartCount": 0,
            "HostConfig": host_config(&container, &config),
            "Mounts": mounts(&container, &config),
            "Config": container_config(&container, &config),
            "NetworkSettings": { "Ports": {}, "Networks": {} },
            "Bale": record,
        }))
    }

    /// Describes a volume.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn inspect_volume(&self, name: &str) -> Result<Value> {
        Ok(volume(&self.volume(name)?))
    }
}

fn state(container: &Container) -> Value {
    let record = &container.record;
    let status = container.status();
    let exit = record.exit.as_ref();
    let code = match status {
        Status::Exited(None) => Value::Null,
        _ => exit.and_then(|exit| exit.code).unwrap_or(0).into(),
    };
    let lost = status == Status::Running { supervised: false } || status == Status::Exited(None);
    let error = exit.and_then(|exit| exit.error.clone());
    let error = if lost { error.or_else(|| Some("the supervisor was lost".to_owned())) } else { error };
    json!({
        "Status": status.name(),
        "Running": status.is_running(),
        "Paused": false,
        "Restarting": false,
        "OOMKilled": exit.is_some_and(|exit| exit.oom),
        "Dead": status == Status::Dead,
        "Pid": if status.is_running() { record.init.as_ref().map_or(0, |init| init.pid) } else { 0 },
        "ExitCode": code,
        "Error": error.unwrap_or_default(),
        "StartedAt": record.started.as_deref().unwrap_or(NEVER),
        "FinishedAt": exit.filter(|_| record.phase == Phase::Stopped).map_or(NEVER, |exit| exit.at.as_str()),
    })
}

fn host_config(container: &Container, config: &RuntimeConfig) -> Value {
    let linux = config.linux.clone().unwrap_or_default();
    let details = &container.details;
    let options = &details.options;
    let limits = &options.limits;
    let network = match options.network {
        bale_spec::options::Network::Host => "host",
        _ => "none",
    };
    json!({
        "NetworkMode": network,
        "AutoRemove": details.auto_remove,
        "CapAdd": options.cap_add,
        "CapDrop": options.cap_drop,
        "Privileged": options.privileged,
        "ReadonlyRootfs": options.read_only,
        "Init": options.init,
        "Binds": binds(options),
        "Tmpfs": tmpfs(options),
        "Ulimits": options.ulimits.iter().map(|limit| json!({
            "Name": limit.kind.trim_start_matches("RLIMIT_").to_lowercase(), "Hard": limit.hard, "Soft": limit.soft,
        })).collect::<Vec<_>>(),
        "MaskedPaths": linux.masked_paths,
        "ReadonlyPaths": linux.readonly_paths,
        "SecurityOpt": options.security.no_new_privileges.then_some(["no-new-privileges"]),
        "CpuShares": limits.cpu_shares.unwrap_or(0),
        "CpuQuota": limits.cpu_quota_us.unwrap_or(0),
        "CpuPeriod": limits.cpu_period_us.unwrap_or(0),
        "MemoryReservation": limits.memory_reservation_bytes.unwrap_or(0),
        "ExtraHosts": options.extra_hosts.iter().map(|host| format!("{}:{}", host.name, host.address)).collect::<Vec<_>>(),
        "Memory": limits.memory_bytes.unwrap_or(0),
        "MemorySwap": limits.memory_swap_bytes.unwrap_or(0),
        "NanoCpus": limits.nano_cpus.unwrap_or(0),
        "PidsLimit": limits.pids,
        "LogConfig": { "Type": "cri", "Config": {} },
        "RestartPolicy": { "Name": "no", "MaximumRetryCount": 0 },
        "Runtime": "bale",
    })
}

/// What `-v` asked for, as docker spells it; `--mount` is told under `Mounts`.
fn binds(options: &RunOptions) -> Vec<String> {
    let mounts = options.mounts.iter().filter_map(|mount| {
        let source = match &mount.kind {
            MountKind::Bind { source, create: true, .. } => source,
            MountKind::Volume { name: Some(name), .. } => name,
            _ => return None,
        };
        Some(format!("{source}:{}{}", mount.target, if mount.readonly { ":ro" } else { "" }))
    });
    mounts.collect()
}

fn tmpfs(options: &RunOptions) -> Value {
    let mounts = options.mounts.iter().filter_map(|mount| match &mount.kind {
        MountKind::Tmpfs { options } => {
            let own = ["nosuid", "nodev", "noexec", "rprivate"];
            let given: Vec<&str> =
                options.iter().map(String::as_str).filter(|option| !own.contains(option)).collect();
            Some((mount.target.clone(), Value::from(given.join(","))))
        }
        _ => None,
    });
    Value::Object(mounts.collect())
}

/// The variables that image and user gave: the user's first, as docker has them.
fn variables(container: &Container, image: &ContainerConfig, process: &Process) -> Vec<String> {
    if container.details.image_manifest.is_none() {
        return process.env.clone();
    }
    let name = |variable: &String| variable.split('=').next().unwrap_or_default().to_owned();
    let mut found = container.details.options.env.clone();
    let own: Vec<String> = found.iter().map(name).collect();
    found.retain(|variable| variable.contains('='));
    found.extend(image.env.iter().filter(|variable| !own.contains(&name(variable))).cloned());
    found
}

/// Reads the config of the image that the container was made of.
fn image_config(container: &Container) -> ContainerConfig {
    let read = || -> Option<ContainerConfig> {
        let path = RelPath::new("bundle/image-config.json").ok()?;
        let fd =
            container.dir.root().open_at(&path, OFlags::RDONLY | OFlags::NONBLOCK, Links::Refused).ok()?;
        let text = file::read_fd_bounded(fd, "image-config.json", CONFIG_LIMIT_BYTES).ok()?;
        serde_json::from_slice::<ImageConfig>(&text).ok()?.config
    };
    read().unwrap_or_default()
}

fn mounts(container: &Container, config: &RuntimeConfig) -> Value {
    let shown = config.mounts.iter().filter_map(|mount| {
        let kind = mount.kind.as_deref().unwrap_or("bind");
        let source = mount.source.clone().unwrap_or_default();
        let volume = container.details.volumes.iter().find(|volume| volume.destination == mount.destination);
        let own = std::path::Path::new(&source).starts_with(container.dir.path());
        let read_only = mount.options.iter().any(|option| option == "ro" || option == "rro");
        match (volume, kind) {
            (Some(volume), _) => Some(json!({
                "Type": "volume", "Name": volume.name, "Source": volume.source, "Destination": volume.destination,
                "Driver": "local", "RW": !read_only,
            })),
            (None, "bind") if !own => Some(json!({
                "Type": "bind", "Source": source, "Destination": mount.destination, "RW": !read_only,
            })),
            _ => None,
        }
    });
    Value::Array(shown.collect())
}

fn container_config(container: &Container, config: &RuntimeConfig) -> Value {
    let details = &container.details;
    let process = config.process.clone().unwrap_or_default();
    let image = image_config(container);
    let set = |names: &std::collections::BTreeMap<String, _>| (!names.is_empty()).then(|| json!(names));
    json!({
        "Hostname": config.hostname,
        "Domainname": config.domainname.clone().unwrap_or_default(),
        "User": details.options.user.clone().unwrap_or(image.user.clone()),
        "Tty": details.tty,
        "OpenStdin": details.interactive,
        "Env": variables(container, &image, &process),
        "Cmd": command(container, &image, &process),
        "Entrypoint": details.options.entrypoint.clone().filter(|words| !words.is_empty()).or(image.entrypoint.clone()),
        "ExposedPorts": set(&image.exposed_ports),
        "Volumes": set(&image.volumes),
        "Image": details.image,
        "WorkingDir": process.cwd,
        "Labels": details.labels,
        "StopSignal": bale_spec::signal::name(details.stop_signal),
        "StopTimeout": details.stop_timeout_seconds,
    })
}

/// The command beside the entrypoint.
fn command(container: &Container, image: &ContainerConfig, process: &Process) -> Option<Vec<String>> {
    let options = &container.details.options;
    match (container.details.image_manifest, options.command.as_slice()) {
        (None, _) => Some(process.args.clone()),
        (Some(_), []) if options.entrypoint.is_some() => None,
        (Some(_), []) => image.cmd.clone(),
        (Some(_), words) => Some(words.to_vec()),
    }
}

/// Describes a volume under docker's keys.
#[must_use]
pub fn volume(info: &Info) -> Value {
    json!({
        "CreatedAt": info.created,
        "Driver": "local",
        "Labels": info.labels,
        "Mountpoint": info.mountpoint,
        "Name": info.name,
        "Options": null,
        "Scope": "local",
        "Anonymous": info.anonymous,
    })
}
