//! Flags as typed, and the one step that gives them meaning.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bale_fault::{Context, Fault, Kind, Result};

use super::{
    ExtraHost, HostNamespaces, Limits, MountRequest, Network, RunOptions, device, env, mount, number,
    security, wrong,
};
use crate::image::Platform;
use crate::runtime::Rlimit;
use crate::signal;
use crate::suggest::did_you_mean;

/// Docker's flags as they were typed: text, not yet read. The names are the flags'.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Flags {
    pub name: Option<String>,
    pub command: Vec<String>,
    pub entrypoint: Option<String>,
    pub env: Vec<String>,
    pub env_file: Vec<String>,
    pub user: Option<String>,
    pub group_add: Vec<String>,
    pub workdir: Option<String>,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    pub tty: bool,
    pub interactive: bool,
    pub label: Vec<String>,
    pub label_file: Vec<String>,
    pub annotation: Vec<String>,
    pub volume: Vec<String>,
    pub mount: Vec<String>,
    pub tmpfs: Vec<String>,
    pub network: Option<String>,
    pub publish: Vec<String>,
    pub add_host: Vec<String>,
    pub dns: Vec<String>,
    pub dns_search: Vec<String>,
    pub dns_option: Vec<String>,
    pub device: Vec<String>,
    pub device_cgroup_rule: Vec<String>,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub privileged: bool,
    pub security_opt: Vec<String>,
    pub read_only: bool,
    pub init: bool,
    pub memory: Option<String>,
    pub memory_swap: Option<String>,
    pub memory_reservation: Option<String>,
    pub memory_swappiness: Option<String>,
    pub oom_kill_disable: bool,
    pub oom_score_adj: Option<String>,
    pub cpus: Option<String>,
    pub cpu_shares: Option<String>,
    pub cpu_period: Option<String>,
    pub cpu_quota: Option<String>,
    pub cpuset_cpus: Option<String>,
    pub cpuset_mems: Option<String>,
    pub pids_limit: Option<String>,
    pub blkio_weight: Option<String>,
    pub shm_size: Option<String>,
    pub ulimit: Vec<String>,
    pub sysctl: Vec<String>,
    pub pid: Option<String>,
    pub ipc: Option<String>,
    pub uts: Option<String>,
    pub cgroupns: Option<String>,
    pub stop_signal: Option<String>,
    pub stop_timeout: Option<String>,
    pub rm: bool,
    pub platform: Option<String>,
    pub restart: Option<String>,
}

/// What flags refer to outside of themselves. The caller has it; nothing is looked up here.
pub trait Surroundings {
    /// Returns a variable of the caller's environment (`-e KEY`).
    fn variable(&self, name: &str) -> Option<String>;
    /// Returns the absolute working directory (`-v ./data:/data`).
    fn working_directory(&self) -> String;
    /// Reads a text file of the user's, bounded (`--env-file`, `--security-opt seccomp=`).
    ///
    /// # Errors
    /// The failed read.
    fn read(&self, path: &str) -> Result<String>;
}

/// Reads flags.
///
/// # Errors
/// `InvalidInput` names the flag, its value and what would be right; `Unsupported` for what bale does not have.
pub fn resolve(flags: &Flags, around: &dyn Surroundings) -> Result<RunOptions> {
    refuse_missing_features(flags)?;
    let capabilities = capabilities(flags)?;
    let options = RunOptions {
        name: flags.name.as_deref().map(container_name).transpose()?,
        command: flags.command.clone(),
        entrypoint: flags
            .entrypoint
            .as_ref()
            .map(|e| Some(e.clone()).filter(|e| !e.is_empty()).into_iter().collect()),
        env: environment(&flags.env_file, &flags.env, around)?,
        user: flags.user.clone().filter(|u| !u.is_empty()),
        group_add: flags.group_add.clone(),
        workdir: flags.workdir.as_deref().map(workdir).transpose()?,
        hostname: flags.hostname.as_deref().map(|name| host_name("--hostname", name)).transpose()?,
        domainname: flags.domainname.as_deref().map(|name| host_name("--domainname", name)).transpose()?,
        tty: flags.tty,
        interactive: flags.interactive,
        labels: labels(flags, around)?,
        annotations: env::labels("--annotation", flags.annotation.iter().map(String::as_str))?,
        mounts: mounts(flags, around)?,
        network: network(flags.network.as_deref())?,
        extra_hosts: flags.add_host.iter().map(|spec| extra_host(spec)).collect::<Result<_>>()?,
        dns: flags.dns.iter().map(|text| address("--dns", text)).collect::<Result<_>>()?,
        dns_search: flags
            .dns_search
            .iter()
            .map(|word| resolver_word("--dns-search", word))
            .collect::<Result<_>>()?,
        dns_options: flags
            .dns_option
            .iter()
            .map(|word| resolver_word("--dns-option", word))
            .collect::<Result<_>>()?,
        devices: flags.device.iter().map(|spec| device::device(spec)).collect::<Result<_>>()?,
        device_rules: flags
            .device_cgroup_rule
            .iter()
            .map(|spec| device::rule(spec))
            .collect::<Result<_>>()?,
        cap_add: security::capabilities("--cap-add", &flags.cap_add)?,
        cap_drop: security::capabilities("--cap-drop", &flags.cap_drop)?,
        privileged: flags.privileged,
        security: security::options(&flags.security_opt, &capabilities, around)?,
        read_only: flags.read_only,
        init: flags.init,
        limits: limits(flags)?,
        ulimits: ulimits(&flags.ulimit)?,
        sysctls: flags.sysctl.iter().map(|spec| device::sysctl(spec)).collect::<Result<_>>()?,
        shm_size_bytes: shm_size(flags.shm_size.as_deref())?,
        host_namespaces: host_namespaces(flags)?,
        stop_signal: flags.stop_signal.as_deref().map(stop_signal).transpose()?,
        stop_timeout_seconds: whole("--stop-timeout", flags.stop_timeout.as_ref(), -1..=1 << 31)?,
        auto_remove: flags.rm,
        platform: flags.platform.as_deref().map(platform).transpose()?,
    };
    check_sysctls(&options)?;
    Ok(options)
}

/// Refuses what docker has and bale does not, by name.
fn refuse_missing_features(flags: &Flags) -> Result<()> {
    let unsupported = |words: String| Fault::new(Kind::Unsupported, words);
    if let Some(port) = flags.publish.first() {
        let fault = unsupported(format!("--publish {port:?}: publishing ports is not supported yet"));
        return Err(fault.hint("use --net host: the program's ports are then the host's"));
    }
    match flags.restart.as_deref() {
        None | Some("" | "no") => Ok(()),
        Some(policy) => {
            let name = policy.split(':').next().unwrap_or_default();
            if ["always", "unless-stopped", "on-failure"].contains(&name) {
                let fault =
                    unsupported(format!("--restart {policy:?}: restart policies are not supported yet"));
                return Err(fault.hint("leave the flag out, or say --restart no"));
            }
            Err(wrong("--restart", policy, format!("unknown policy{}", did_you_mean(name, ["no", "always"]))))
        }
    }
}

/// The capabilities that `--cap-add` and `--cap-drop` come to, for the conditions of a seccomp profile.
fn capabilities(flags: &Flags) -> Result<Vec<String>> {
    let add = security::capabilities("--cap-add", &flags.cap_add)?;
    let drop = security::capabilities("--cap-drop", &flags.cap_drop)?;
    let all: Vec<String> = crate::capability::ALL.iter().map(|c| (*c).to_owned()).collect();
    Ok(crate::generate::capabilities(&add, &drop, flags.privileged, &all))
}

fn container_name(name: &str) -> Result<String> {
    let bare = name.strip_prefix('/').unwrap_or(name);
    let word = |c: char| c.is_ascii_alphanumeric();
    let fits = (2..=200).contains(&bare.len()) && bare.starts_with(word);
    if fits && bare.chars().all(|c| word(c) || "_.-".contains(c)) {
        return Ok(bare.to_owned());
    }
    Err(wrong("--name", name, "invalid container name")
        .hint("2 to 200 of letters, digits, _ . -, beginning with a letter or digit"))
}

/// Reads the variables of `--env-file` and `--env`, in this order.
///
/// # Errors
/// `InvalidInput` names what is no variable; a file that cannot be read.
pub fn environment(files: &[String], specs: &[String], around: &dyn Surroundings) -> Result<Vec<String>> {
    let mut entries = Vec::new();
    for path in files {
        let text = around.read(path).within(|| format!("--env-file {path}"))?;
        entries.extend(env::file(path, &text, around)?);
    }
    for spec in specs {
        entries.push(env::variable(spec, around)?);
    }
    Ok(entries)
}

fn labels(flags: &Flags, around: &dyn Surroundings) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for path in &flags.label_file {
        let text = around.read(path).within(|| format!("--label-file {path}"))?;
        found.extend(env::labels("--label-file", env::label_lines(&text))?);
    }
    found.extend(env::labels("--label", flags.label.iter().map(String::as_str))?);
    Ok(found)
}

fn mounts(flags: &Flags, around: &dyn Surroundings) -> Result<Vec<MountRequest>> {
    let directory = around.working_directory();
    let volumes = flags.volume.iter().map(|spec| mount::volume(spec, &directory));
    let mounts = flags.mount.iter().map(|spec| mount::mount(spec, &directory));
    let tmpfs = flags.tmpfs.iter().map(|spec| mount::tmpfs(spec));
    let mut all: Vec<MountRequest> = Vec::new();
    for request in volumes.chain(mounts).chain(tmpfs) {
        let request = request?;
        // The same twice is once, as for docker.
        if !all.contains(&request) {
            all.push(request);
        }
    }
    let mut taken = BTreeSet::new();
    match all.iter().find(|m| !taken.insert(m.target.as_str())) {
        Some(double) => {
            Err(Fault::new(Kind::InvalidInput, format!("duplicate mount point: {}", double.target)))
        }
        None => Ok(all),
    }
}

fn workdir(path: &str) -> Result<String> {
    if !path.starts_with('/') {
        return Err(wrong("--workdir", path, "the working directory needs to be an absolute path"));
    }
    Ok(mount::clean(path))
}

/// The kernel keeps 64 bytes of either name (uname(2)).
fn host_name(flag: &str, name: &str) -> Result<String> {
    if name.is_empty()
        || name.len() > 64
        || name.contains(|c: char| c.is_control() || c.is_whitespace() || c == '/')
    {
        return Err(wrong(flag, name, "is not a name of 1 to 64 characters without spaces"));
    }
    Ok(name.to_owned())
}

fn network(word: Option<&str>) -> Result<Network> {
    let unsupported = |word: &str, words: &str| {
        let fault = wrong("--network", word, words).with_kind(Kind::Unsupported);
        Err(fault.hint("--net host shares the host's network, --net none has loopback only"))
    };
    match word {
        None | Some("") => Ok(Network::Unset),
        Some("none") => Ok(Network::None),
        Some("host") => Ok(Network::Host),
        Some(word) if word.starts_with("container:") => {
            unsupported(word, "sharing a container's network is not supported yet")
        }
        Some(word @ ("bridge" | "default")) => unsupported(word, "bridge networks are not supported yet"),
        Some(word) => {
            let near = did_you_mean(word, ["host", "none"]);
            unsupported(word, &format!("there is no such network{near}"))
        }
    }
}

fn address(flag: &str, text: &str) -> Result<String> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    bare.parse::<IpAddr>().map(|ip| ip.to_string()).map_err(|_| wrong(flag, text, "is not an IP address"))
}

fn extra_host(spec: &str) -> Result<ExtraHost> {
    let flag = "--add-host";
    let (name, text) = spec.split_once(['=', ':']).ok_or_else(|| wrong(flag, spec, "is not NAME:ADDRESS"))?;
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '#') {
        return Err(wrong(flag, spec, "the name is malformed"));
    }
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    let address =
        bare.parse::<IpAddr>().map_err(|_| wrong(flag, spec, format!("{text:?} is not an IP address")))?;
    Ok(ExtraHost { name: name.to_owned(), address: address.to_string() })
}

fn resolver_word(flag: &str, word: &str) -> Result<String> {
    if word.is_empty() || word.len() > 253 || word.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(wrong(flag, word, "is not one word"));
    }
    Ok(word.to_owned())
}

fn whole(flag: &str, text: Option<&String>, range: std::ops::RangeInclusive<i64>) -> Result<Option<i64>> {
    text.map(|text| number::whole(flag, text, range)).transpose()
}

fn limits(flags: &Flags) -> Result<Limits> {
    let size = |flag: &str, text: &Option<String>| text.as_deref().map(|t| number::size(flag, t)).transpose();
    let unsigned = |n: Option<i64>| n.and_then(|n| u64::try_from(n).ok());
    let positive = |n: Option<i64>| n.filter(|n| *n != 0);
    let limits = Limits {
        memory_bytes: positive(size("--memory", &flags.memory)?),
        memory_swap_bytes: match flags.memory_swap.as_deref() {
            Some("-1") => Some(-1),
            _ => positive(size("--memory-swap", &flags.memory_swap)?),
        },
        memory_reservation_bytes: positive(size("--memory-reservation", &flags.memory_reservation)?),
        memory_swappiness: unsigned(whole(
            "--memory-swappiness",
            flags.memory_swappiness.as_ref(),
            -1..=100,
        )?),
        oom_kill_disable: flags.oom_kill_disable,
        oom_score_adj: whole("--oom-score-adj", flags.oom_score_adj.as_ref(), -1000..=1000)?
            .and_then(|n| i32::try_from(n).ok()),
        nano_cpus: flags.cpus.as_deref().map(|t| number::cpus("--cpus", t)).transpose()?.filter(|n| *n != 0),
        cpu_shares: unsigned(positive(whole("--cpu-shares", flags.cpu_shares.as_ref(), 0..=262_144)?)),
        cpu_period_us: unsigned(positive(whole("--cpu-period", flags.cpu_period.as_ref(), 0..=1_000_000)?)),
        cpu_quota_us: positive(whole("--cpu-quota", flags.cpu_quota.as_ref(), -1..=i64::MAX)?),
        cpuset_cpus: flags.cpuset_cpus.as_deref().map(|t| number::set("--cpuset-cpus", t)).transpose()?,
        cpuset_mems: flags.cpuset_mems.as_deref().map(|t| number::set("--cpuset-mems", t)).transpose()?,
        pids: whole("--pids-limit", flags.pids_limit.as_ref(), -1..=i64::MAX)?,
        blkio_weight: flags.blkio_weight.as_deref().map(device::blkio_weight).transpose()?.flatten(),
    };
    check_limits(&limits)?;
    Ok(limits)
}

/// The smallest limit of memory that docker's daemon takes, in bytes.
const MEMORY_LEAST_BYTES: i64 = 6 << 20;

/// Refuses limits that contradict each other (as docker's daemon does).
fn check_limits(limits: &Limits) -> Result<()> {
    let conflict = |words: &str, hint: &str| Err(Fault::new(Kind::InvalidInput, words).hint(hint));
    if limits.memory_bytes.is_some_and(|memory| memory < MEMORY_LEAST_BYTES) {
        return conflict(
            "--memory is below 6 MiB",
            "docker takes no less either; a bundle's linux.resources.memory.limit may go down to 512k",
        );
    }
    match (limits.memory_bytes, limits.memory_swap_bytes) {
        (None, Some(_)) => {
            return conflict(
                "--memory-swap without --memory",
                "set --memory too: the swap limit counts memory and swap",
            );
        }
        (Some(memory), Some(swap)) if swap != -1 && swap < memory => {
            return conflict(
                "--memory-swap is below --memory",
                "the swap limit counts memory and swap together",
            );
        }
        _ => {}
    }
    if let (Some(memory), Some(reservation)) = (limits.memory_bytes, limits.memory_reservation_bytes)
        && reservation > memory
    {
        return conflict(
            "--memory-reservation is above --memory",
            "the reservation is the soft limit below the hard one",
        );
    }
    if limits.nano_cpus.is_some() && (limits.cpu_quota_us.is_some() || limits.cpu_period_us.is_some()) {
        return conflict(
            "--cpus beside --cpu-quota or --cpu-period",
            "--cpus 1.5 is --cpu-period 100000 --cpu-quota 150000",
        );
    }
    Ok(())
}

/// A limit given twice counts once, the later one; in the order of their names.
fn ulimits(specs: &[String]) -> Result<Vec<Rlimit>> {
    let mut found = BTreeMap::new();
    for spec in specs {
        let limit = device::ulimit(spec)?;
        found.insert(limit.kind.clone(), limit);
    }
    Ok(found.into_values().collect())
}

fn shm_size(text: Option<&str>) -> Result<Option<u64>> {
    let bytes = text.map(|t| number::size("--shm-size", t)).transpose()?;
    // 0 asks for the default, as docker reads it.
    Ok(bytes.and_then(|b| u64::try_from(b).ok()).filter(|b| *b != 0))
}

fn host_namespaces(flags: &Flags) -> Result<HostNamespaces> {
    let is_host = |flag: &str, word: &Option<String>, own: &[&str]| match word.as_deref() {
        None | Some("") => Ok(false),
        Some("host") => Ok(true),
        Some(word) if own.contains(&word) => Ok(false),
        Some(word) if word.starts_with("container:") || word == "none" => {
            Err(wrong(flag, word, "is not supported yet").with_kind(Kind::Unsupported))
        }
        Some(word) => {
            Err(wrong(flag, word, format!("is not \"host\"{}", did_you_mean(word, ["host", "private"]))))
        }
    };
    Ok(HostNamespaces {
        pid: is_host("--pid", &flags.pid, &[])?,
        ipc: is_host("--ipc", &flags.ipc, &["private", "shareable"])?,
        uts: is_host("--uts", &flags.uts, &[])?,
        cgroup: is_host("--cgroupns", &flags.cgroupns, &["private"])?,
    })
}

fn stop_signal(text: &str) -> Result<i32> {
    let near =
        || did_you_mean(text.to_ascii_uppercase().trim_start_matches("SIG"), signal::names().iter().copied());
    signal::parse(text).ok_or_else(|| wrong("--stop-signal", text, format!("invalid signal{}", near())))
}

fn platform(text: &str) -> Result<Platform> {
    text.parse().map_err(|words: String| Fault::new(Kind::InvalidInput, format!("--platform: {words}")))
}

/// A parameter of a namespace that is the host's would change the host.
fn check_sysctls(options: &RunOptions) -> Result<()> {
    let of_host = |name: &str| {
        (name.starts_with("net.") && options.network == Network::Host)
            || (!name.starts_with("net.") && options.host_namespaces.ipc)
    };
    match options.sysctls.keys().find(|name| of_host(name)) {
        Some(name) => {
            let words = format!("--sysctl {name:?}: not allowed, as its namespace is the host's");
            Err(Fault::new(Kind::InvalidInput, words)
                .hint("set it on the host, or give the container its own namespace"))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
pub(super) mod tests;
