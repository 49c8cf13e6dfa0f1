//! Limits in the words of cgroup v1 (the kernel's admin-guide/cgroup-v1).

use bale_fault::{Context, Fault, Kind, Result};
use bale_spec::runtime::{BlockIo, Cpu, HugepageLimit, Memory, Network, Pids, Resources};
use bale_sys::root::RelPath;

use super::group::Group;
use super::setting::{self, Setting};
use super::{Controller, io_device, page_size, rdma};

/// Returns the limits of one controller.
pub fn settings(controller: Controller, resources: &Resources) -> Result<Vec<Setting>> {
    match controller {
        Controller::Cpuset => Ok(resources.cpu.as_ref().map(cpuset).unwrap_or_default()),
        Controller::Memory => resources.memory.as_ref().map(memory).unwrap_or_else(|| Ok(Vec::new())),
        Controller::Cpu => Ok(resources.cpu.as_ref().map(cpu).unwrap_or_default()),
        Controller::Pids => Ok(resources.pids.as_ref().map(pids).unwrap_or_default()),
        Controller::Io => Ok(resources.block_io.as_ref().map(block_io).unwrap_or_default()),
        Controller::Hugetlb => {
            resources.hugepage_limits.iter().enumerate().map(hugetlb).collect::<Result<Vec<_>>>().map(flat)
        }
        Controller::Rdma => rdma(resources),
        Controller::NetClass => Ok(resources.network.as_ref().map(net_class).unwrap_or_default()),
        Controller::NetPriority => Ok(resources.network.as_ref().map(net_priority).unwrap_or_default()),
    }
}

fn flat(limits: Vec<[Setting; 2]>) -> Vec<Setting> {
    limits.into_iter().flatten().collect()
}

/// Zero means "not set" in every config that Go programs have written.
fn set<T: Default + PartialEq + Copy>(value: Option<T>) -> Option<T> {
    value.filter(|value| *value != T::default())
}

fn memory(memory: &Memory) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    let limit = set(memory.limit);
    let swap = |value: i64| Setting::new("memory.memsw.limit_in_bytes", value, "linux.resources.memory.swap");
    let limit =
        limit.map(|n| Setting::new("memory.limit_in_bytes", n, "linux.resources.memory.limit").depending());
    // Memory must never be above memory plus swap, neither before nor after.
    match (limit, set(memory.swap)) {
        // Memory without limit wants swap without limit; a kernel may count no swap.
        (Some(limit), None) if memory.limit == Some(-1) => settings.extend([swap(-1).if_there(), limit]),
        (Some(limit), Some(-1)) => settings.extend([swap(-1), limit]),
        (limit, value) => {
            settings.extend(limit.into_iter().chain(value.map(|value| swap(value).depending())));
        }
    }
    if let Some(soft) = set(memory.reservation) {
        settings.push(Setting::new("memory.soft_limit_in_bytes", soft, "linux.resources.memory.reservation"));
    }
    if let Some(tcp) = set(memory.kernel_tcp) {
        settings.push(Setting::new(
            "memory.kmem.tcp.limit_in_bytes",
            tcp,
            "linux.resources.memory.kernelTCP",
        ));
    }
    if memory.disable_oom_killer == Some(true) {
        settings.push(Setting::new("memory.oom_control", 1, "linux.resources.memory.disableOOMKiller"));
    }
    match memory.swappiness {
        Some(value @ 0..=100) => {
            settings.push(Setting::new("memory.swappiness", value, "linux.resources.memory.swappiness"));
        }
        // What Docker writes for "not set".
        None | Some(u64::MAX) => {}
        Some(value) => {
            let words = format!("linux.resources.memory.swappiness: {value} is not between 0 and 100");
            return Err(Fault::new(Kind::InvalidInput, words));
        }
    }
    Ok(settings)
}

fn cpu(cpu: &Cpu) -> Vec<Setting> {
    let mut settings = Vec::new();
    // Realtime first: a process that is realtime already could not join otherwise.
    if let Some(period) = set(cpu.realtime_period) {
        settings
            .push(Setting::new("cpu.rt_period_us", period, "linux.resources.cpu.realtimePeriod").depending());
    }
    if let Some(runtime) = set(cpu.realtime_runtime) {
        settings.push(Setting::new("cpu.rt_runtime_us", runtime, "linux.resources.cpu.realtimeRuntime"));
    }
    if let Some(shares) = set(cpu.shares) {
        settings.push(Setting::new("cpu.shares", shares, "linux.resources.cpu.shares"));
    }
    // Period, quota and burst bound each other; each order fails for some change.
    if let Some(period) = set(cpu.period) {
        settings.push(Setting::new("cpu.cfs_period_us", period, "linux.resources.cpu.period").depending());
    }
    if let Some(burst) = cpu.burst {
        settings.push(
            Setting::new("cpu.cfs_burst_us", burst, "linux.resources.cpu.burst").depending().if_there(),
        );
    }
    if let Some(quota) = set(cpu.quota) {
        settings.push(Setting::new("cpu.cfs_quota_us", quota, "linux.resources.cpu.quota"));
    }
    if let Some(idle) = cpu.idle {
        settings.push(Setting::new("cpu.idle", idle, "linux.resources.cpu.idle"));
    }
    settings
}

fn cpuset(cpu: &Cpu) -> Vec<Setting> {
    let list = |file, value: &Option<String>, field| {
        value.as_ref().filter(|v| !v.is_empty()).map(|value| Setting::new(file, value, field))
    };
    let cpus = list("cpuset.cpus", &cpu.cpus, "linux.resources.cpu.cpus");
    cpus.into_iter().chain(list("cpuset.mems", &cpu.mems, "linux.resources.cpu.mems")).collect()
}

/// The kernel has no limit of 0 that systemd could write too, so 0 is 1, as in runc since 1.4: init itself.
pub fn pids_value(limit: i64) -> String {
    match limit {
        0 => "1".to_owned(),
        1.. => limit.to_string(),
        _ => "max".to_owned(),
    }
}

fn pids(pids: &Pids) -> Vec<Setting> {
    pids.limit
        .map(|n| Setting::new("pids.max", pids_value(n), "linux.resources.pids.limit"))
        .into_iter()
        .collect()
}

fn block_io(io: &BlockIo) -> Vec<Setting> {
    let mut settings = Vec::new();
    if let Some(weight) = set(io.weight) {
        let weight_setting = Setting::new("blkio.weight", weight, "linux.resources.blockIO.weight");
        settings.push(weight_setting.or("blkio.bfq.weight", weight));
    }
    if let Some(weight) = set(io.leaf_weight) {
        settings.push(Setting::new("blkio.leaf_weight", weight, "linux.resources.blockIO.leafWeight"));
    }
    for (at, device) in io.weight_device.iter().enumerate() {
        let name = io_device(device.major, device.minor);
        if let Some(weight) = set(device.weight) {
            let field = format!("linux.resources.blockIO.weightDevice[{at}].weight");
            let value = format!("{name} {weight}");
            settings.push(
                Setting::new("blkio.weight_device", &value, field).or("blkio.bfq.weight_device", &value),
            );
        }
        if let Some(weight) = set(device.leaf_weight) {
            let field = format!("linux.resources.blockIO.weightDevice[{at}].leafWeight");
            settings.push(Setting::new("blkio.leaf_weight_device", format!("{name} {weight}"), field));
        }
    }
    let throttles = [
        (&io.throttle_read_bps_device, "blkio.throttle.read_bps_device", "throttleReadBpsDevice"),
        (&io.throttle_write_bps_device, "blkio.throttle.write_bps_device", "throttleWriteBpsDevice"),
        (&io.throttle_read_iops_device, "blkio.throttle.read_iops_device", "throttleReadIOPSDevice"),
        (&io.throttle_write_iops_device, "blkio.throttle.write_iops_device", "throttleWriteIOPSDevice"),
    ];
    for (devices, file, field) in throttles {
        for (at, device) in devices.iter().enumerate() {
            let value = format!("{} {}", io_device(device.major, device.minor), device.rate);
            settings.push(Setting::new(file, value, format!("linux.resources.blockIO.{field}[{at}]")));
        }
    }
    settings
}

fn hugetlb((at, limit): (usize, &HugepageLimit)) -> Result<[Setting; 2]> {
    let size = page_size(at, &limit.page_size)?;
    let field = format!("linux.resources.hugepageLimits[{at}]");
    Ok([
        Setting::new(format!("hugetlb.{size}.limit_in_bytes"), limit.limit, field.clone()),
        Setting::new(format!("hugetlb.{size}.rsvd.limit_in_bytes"), limit.limit, field).if_there(),
    ])
}

fn net_class(network: &Network) -> Vec<Setting> {
    let id = set(network.class_id);
    id.map(|id| Setting::new("net_cls.classid", id, "linux.resources.network.classID")).into_iter().collect()
}

fn net_priority(network: &Network) -> Vec<Setting> {
    let one = |(at, priority): (usize, &bale_spec::runtime::InterfacePriority)| {
        let value = format!("{} {}", priority.name, priority.priority);
        Setting::new("net_prio.ifpriomap", value, format!("linux.resources.network.priorities[{at}]"))
    };
    network.priorities.iter().enumerate().map(one).collect()
}

/// Gives the cgroups above a new cpuset cgroup the processors and memory nodes of their parents where they have none:
/// no process can be in an empty cpuset.
pub fn inherit_cpuset(mount: &Group, path: &RelPath) -> Result<()> {
    let mut parent = [read_cpuset(mount, "cpuset.cpus")?, read_cpuset(mount, "cpuset.mems")?];
    let mut at = mount.path().to_owned();
    for component in path.components() {
        at.push(component.to_string_lossy().as_ref());
        let gone = || Fault::new(Kind::NotFound, format!("{at:?} is gone"));
        let group = Group::open(&at)?.ok_or_else(gone)?;
        for (file, inherited) in ["cpuset.cpus", "cpuset.mems"].into_iter().zip(&mut parent) {
            let own = read_cpuset(&group, file)?;
            if own.is_empty() {
                group.write(file, inherited).map_err(Fault::from).within(|| "inherit the parent's cpuset")?;
            } else {
                *inherited = own;
            }
        }
    }
    Ok(())
}

fn read_cpuset(group: &Group, file: &str) -> Result<String> {
    Ok(group.read(file)?.trim().to_owned())
}

/// Checks that the kernel took the shares as they were given: it clamps them silently.
pub fn check_shares(group: &Group, resources: &Resources) -> Result<()> {
    let wanted = resources.cpu.as_ref().and_then(|cpu| set(cpu.shares));
    let (Some(wanted), Some(taken)) = (wanted, group.read_number("cpu.shares")) else { return Ok(()) };
    let bound = match wanted.cmp(&taken) {
        std::cmp::Ordering::Greater => "maximum",
        std::cmp::Ordering::Less => "minimum",
        std::cmp::Ordering::Equal => return Ok(()),
    };
    let words = format!("linux.resources.cpu.shares: the {bound} allowed cpu-shares is {taken}");
    Err(Fault::new(Kind::InvalidInput, words))
}

/// Writes the limits of one controller.
pub fn apply(group: &Group, controller: Controller, resources: &Resources) -> Result<()> {
    setting::apply(group, &settings(controller, resources)?)?;
    if controller == Controller::Cpu { check_shares(group, resources) } else { Ok(()) }
}
