//! The cgroup's limits and the devices.

use bale_fault::{Fault, Kind, Result};

use super::{HostDevice, HostFacts};
use crate::options::{DeviceRequest, Limits, RunOptions};
use crate::runtime::{BlockIo, Cpu, Device, DeviceRule, Memory, Pids, Resources};

/// Length of the period that `--cpus` counts in, in microseconds (docker's).
const PERIOD_US: u64 = 100_000;

pub(super) fn resources(options: &RunOptions, facts: &HostFacts) -> Result<Resources> {
    let limits = &options.limits;
    Ok(Resources {
        devices: rules(options, facts)?,
        memory: memory(limits),
        cpu: cpu(limits),
        // Docker's 0 and -1 are both unlimited; to the specification 0 is a limit.
        pids: limits.pids.map(|most| Pids { limit: Some(if most <= 0 { -1 } else { most }) }),
        block_io: limits.blkio_weight.map(|weight| BlockIo { weight: Some(weight), ..BlockIo::default() }),
        ..Resources::default()
    })
}

/// With a limit and no word about swap, docker allows as much swap again.
fn memory(limits: &Limits) -> Option<Memory> {
    let swap = match (limits.memory_swap_bytes, limits.memory_bytes) {
        (Some(-1), _) | (None, None) => None,
        (Some(swap), _) => Some(swap),
        (None, Some(memory)) => Some(memory.saturating_mul(2)),
    };
    let memory = Memory {
        limit: limits.memory_bytes,
        reservation: limits.memory_reservation_bytes,
        swap,
        swappiness: limits.memory_swappiness,
        disable_oom_killer: limits.oom_kill_disable.then_some(true),
        ..Memory::default()
    };
    (memory != Memory::default()).then_some(memory)
}

fn cpu(limits: &Limits) -> Option<Cpu> {
    let (period, quota) = match limits.nano_cpus {
        Some(nano) => {
            let quota = u128::from(nano) * u128::from(PERIOD_US) / 1_000_000_000;
            (Some(PERIOD_US), i64::try_from(quota).ok())
        }
        None => (limits.cpu_period_us, limits.cpu_quota_us),
    };
    let cpu = Cpu {
        shares: limits.cpu_shares,
        quota,
        period,
        cpus: limits.cpuset_cpus.clone(),
        mems: limits.cpuset_mems.clone(),
        ..Cpu::default()
    };
    (cpu != Cpu::default()).then_some(cpu)
}

/// Nothing but what was asked for; the runtime adds the devices that every container has.
fn rules(options: &RunOptions, facts: &HostFacts) -> Result<Vec<DeviceRule>> {
    let rwm = Some("rwm".to_owned());
    if options.privileged {
        return Ok(vec![DeviceRule { allow: true, access: rwm, ..DeviceRule::default() }]);
    }
    let mut rules = vec![DeviceRule { allow: false, access: rwm, ..DeviceRule::default() }];
    for request in &options.devices {
        rules.extend(nodes(request, facts)?.into_iter().map(|node| DeviceRule {
            allow: true,
            kind: Some(node.kind.to_string()),
            major: Some(i64::from(node.major)),
            minor: Some(i64::from(node.minor)),
            access: Some(request.access.clone()),
        }));
    }
    rules.extend(options.device_rules.iter().cloned());
    Ok(rules)
}

/// The device nodes: those asked for, or with `--privileged` all of the host's.
pub(super) fn devices(options: &RunOptions, facts: &HostFacts) -> Result<Vec<Device>> {
    let mut found: Vec<Device> = Vec::new();
    if options.privileged {
        let hidden = |path: &str| {
            ["/dev/pts/", "/dev/shm/", "/dev/mqueue/", "/dev/fd/"].iter().any(|p| path.starts_with(p))
        };
        let nodes = facts
            .devices
            .iter()
            .filter(|d| !hidden(&d.path) && d.path != "/dev/console" && d.path != "/dev/ptmx");
        found.extend(nodes.map(|node| device(node, node.path.clone())));
    }
    for request in &options.devices {
        for node in nodes(request, facts)? {
            let path = format!("{}{}", request.target, &node.path[request.source.len()..]);
            found.retain(|d| d.path != path);
            found.push(device(node, path));
        }
    }
    Ok(found)
}

/// The nodes at the requested path or, when it is a directory, below it.
fn nodes<'a>(request: &DeviceRequest, facts: &'a HostFacts) -> Result<Vec<&'a HostDevice>> {
    let below = format!("{}/", request.source);
    let found: Vec<_> =
        facts.devices.iter().filter(|d| d.path == request.source || d.path.starts_with(&below)).collect();
    if found.is_empty() {
        let words = format!("--device {:?}: there is no device at this path of the host", request.source);
        return Err(Fault::new(Kind::NotFound, words).hint("a device's path, or a directory with devices"));
    }
    Ok(found)
}

fn device(node: &HostDevice, path: String) -> Device {
    Device {
        path,
        kind: node.kind.to_string(),
        major: i64::from(node.major),
        minor: i64::from(node.minor),
        file_mode: Some(node.mode & 0o7777),
        uid: Some(node.uid),
        gid: Some(node.gid),
    }
}
