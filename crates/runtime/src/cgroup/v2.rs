//! Limits in the words of cgroup v2 (the kernel's admin-guide/cgroup-v2.rst), and giving controllers to children.

use bale_fault::{Fault, Kind, Result};
use bale_spec::runtime::{BlockIo, Cpu, HugepageLimit, Memory, Resources};
use bale_sys::root::RelPath;

use super::group::Group;
use super::setting::{self, Setting};
use super::v1::pids_value;
use super::{Controller, io_device, page_size, rdma};

/// What a cgroup says now, for limits that are given in part: the content of a file.
pub type Current<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Returns the limits of one controller.
pub fn settings(controller: Controller, resources: &Resources, current: Current<'_>) -> Result<Vec<Setting>> {
    match controller {
        Controller::Cpuset => Ok(resources.cpu.as_ref().map(cpuset).unwrap_or_default()),
        Controller::Memory => {
            resources.memory.as_ref().map_or_else(|| Ok(Vec::new()), |m| memory(m, current))
        }
        Controller::Cpu => Ok(resources.cpu.as_ref().map(|c| cpu(c, current)).unwrap_or_default()),
        Controller::Pids => {
            let limit = resources.pids.as_ref().and_then(|pids| pids.limit);
            let one = limit.map(|n| Setting::new("pids.max", pids_value(n), "linux.resources.pids.limit"));
            Ok(one.into_iter().collect())
        }
        Controller::Io => Ok(resources.block_io.as_ref().map(|io| block_io(io, current)).unwrap_or_default()),
        Controller::Hugetlb => {
            let limits =
                resources.hugepage_limits.iter().enumerate().map(hugetlb).collect::<Result<Vec<_>>>()?;
            Ok(limits.into_iter().flatten().collect())
        }
        Controller::Rdma => rdma(resources),
        // The caller finds no v2 home for these.
        Controller::NetClass | Controller::NetPriority => Ok(Vec::new()),
    }
}

/// Turns v1's 2 to 262144 shares into a weight of 1 to 10000, so that 1024 is 100: runc's curve since 2025 (and
/// crun's since 1.23), `10^(l²/612 + 125l/612 - 7/34)` with l = log₂ of the shares.
#[must_use]
pub fn weight_of_shares(shares: u64) -> u64 {
    match shares {
        0 => 0,
        1..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let l = (shares as f64).log2();
            let exponent = l.mul_add(l, 125.0 * l) / 612.0 - 7.0 / 34.0;
            10_f64.powf(exponent).ceil() as u64
        }
    }
}

/// Turns blkio's weight of 10 to 1000 into io's of 1 to 10000.
fn io_weight(weight: u16) -> u64 {
    if weight == 0 { 0 } else { 1 + u64::from(weight).saturating_sub(10) * 9999 / 990 }
}

/// The value of `memory.swap.max`: v1 and the specification limit memory plus swap, v2 swap alone.
pub fn swap_alone(limit: Option<i64>, swap: Option<i64>, current: Current<'_>) -> Result<Option<String>> {
    let known = || current("memory.max").and_then(|text| text.trim().parse().ok());
    let invalid =
        |words: &str| Err(Fault::new(Kind::InvalidInput, format!("linux.resources.memory.swap: {words}")));
    let alone = match (limit, swap) {
        (Some(-1), None) | (_, Some(-1)) => return Ok(Some("max".to_owned())),
        (_, None) => return Ok(None),
        (Some(-1), Some(swap)) => swap,
        (limit, Some(swap)) => match limit.or_else(known) {
            None => {
                return invalid("memory plus swap cannot be limited without linux.resources.memory.limit");
            }
            Some(limit) if swap < limit => {
                return invalid("memory plus swap is less than linux.resources.memory.limit");
            }
            Some(limit) => swap - limit,
        },
    };
    Ok(Some(alone.to_string()))
}

fn max_or(value: i64) -> String {
    if value == -1 { "max".to_owned() } else { value.to_string() }
}

fn memory(memory: &Memory, current: Current<'_>) -> Result<Vec<Setting>> {
    let unset_zero = |value: Option<i64>| value.filter(|v| *v != 0);
    let (limit, swap) = (unset_zero(memory.limit), unset_zero(memory.swap));
    if memory.check_before_update == Some(true) {
        check_usage(limit, swap, current)?;
    }
    let mut settings = Vec::new();
    if let Some(value) = swap_alone(limit, swap, current)? {
        let none = value == "max" || value == "0";
        let setting = Setting::new("memory.swap.max", value, "linux.resources.memory.swap");
        // Without swap accounting there is no swap to limit to nothing, or to leave without limit.
        settings.push(if none { setting.if_there() } else { setting });
    }
    if let Some(limit) = limit {
        settings.push(Setting::new("memory.max", max_or(limit), "linux.resources.memory.limit"));
    }
    if let Some(low) = unset_zero(memory.reservation) {
        settings.push(Setting::new("memory.low", max_or(low), "linux.resources.memory.reservation"));
    }
    // Swappiness and the OOM killer's switch exist on v1 only; runc passes them over here, and Docker sends them.
    Ok(settings)
}

fn check_usage(limit: Option<i64>, swap: Option<i64>, current: Current<'_>) -> Result<()> {
    let Some(usage) = current("memory.current").and_then(|text| text.trim().parse::<i64>().ok()) else {
        return Ok(());
    };
    for (name, field, value) in [("memory+swap", "swap", swap), ("memory", "limit", limit)] {
        if let Some(value) = value.filter(|value| *value > 0 && *value <= usage) {
            let words =
                format!("linux.resources.memory.{field}: rejecting {name} limit {value} <= usage {usage}");
            return Err(Fault::new(Kind::Conflict, words));
        }
    }
    Ok(())
}

fn cpu(cpu: &Cpu, current: Current<'_>) -> Vec<Setting> {
    let mut settings = Vec::new();
    if let Some(idle) = cpu.idle {
        settings.push(Setting::new("cpu.idle", idle, "linux.resources.cpu.idle"));
    }
    let weight = weight_of_shares(cpu.shares.unwrap_or(0));
    // An idle cgroup has the weight 0 and takes no other.
    if weight != 0 && cpu.idle != Some(1) {
        settings.push(Setting::new("cpu.weight", weight, "linux.resources.cpu.shares"));
    }
    if let Some(burst) = cpu.burst {
        settings.push(Setting::new("cpu.max.burst", burst, "linux.resources.cpu.burst").depending());
    }
    let (quota, period) = (cpu.quota.filter(|q| *q != 0), cpu.period.filter(|p| *p != 0));
    let field = if quota.is_some() { "linux.resources.cpu.quota" } else { "linux.resources.cpu.period" };
    let now = || current("cpu.max").and_then(|text| text.split_whitespace().next().map(str::to_owned));
    let value = match (quota, period) {
        (None, None) => None,
        (Some(quota), None) => Some(quota_or_max(quota)),
        (Some(quota), Some(period)) => Some(format!("{} {period}", quota_or_max(quota))),
        (None, Some(period)) => Some(format!("{} {period}", now().unwrap_or_else(|| "max".to_owned()))),
    };
    settings.extend(value.map(|value| Setting::new("cpu.max", value, field)));
    settings
}

fn quota_or_max(quota: i64) -> String {
    if quota > 0 { quota.to_string() } else { "max".to_owned() }
}

fn cpuset(cpu: &Cpu) -> Vec<Setting> {
    let list = |file, value: &Option<String>, field| {
        value.as_ref().filter(|v| !v.is_empty()).map(|value| Setting::new(file, value, field))
    };
    let cpus = list("cpuset.cpus", &cpu.cpus, "linux.resources.cpu.cpus");
    cpus.into_iter().chain(list("cpuset.mems", &cpu.mems, "linux.resources.cpu.mems")).collect()
}

fn block_io(io: &BlockIo, current: Current<'_>) -> Vec<Setting> {
    let mut settings = Vec::new();
    if let Some(weight) = io.weight.filter(|w| *w != 0) {
        let setting = Setting::new("io.bfq.weight", weight, "linux.resources.blockIO.weight");
        settings.push(setting.or("io.weight", io_weight(weight)));
    }
    // Only BFQ since Linux 5.4 knows weights of devices: it then shows more than one number.
    let bfq = current("io.bfq.weight").is_some_and(|text| text.trim().parse::<u64>().is_err());
    for (at, device) in io.weight_device.iter().enumerate().filter(|_| bfq) {
        if let Some(weight) = device.weight.filter(|w| *w != 0) {
            let value = format!("{} {weight}", io_device(device.major, device.minor));
            let field = format!("linux.resources.blockIO.weightDevice[{at}].weight");
            settings.push(Setting::new("io.bfq.weight", value, field));
        }
    }
    let throttles = [
        (&io.throttle_read_bps_device, "rbps", "throttleReadBpsDevice"),
        (&io.throttle_write_bps_device, "wbps", "throttleWriteBpsDevice"),
        (&io.throttle_read_iops_device, "riops", "throttleReadIOPSDevice"),
        (&io.throttle_write_iops_device, "wiops", "throttleWriteIOPSDevice"),
    ];
    for (devices, key, field) in throttles {
        for (at, device) in devices.iter().enumerate() {
            let rate = if device.rate == 0 { "max".to_owned() } else { device.rate.to_string() };
            let value = format!("{} {key}={rate}", io_device(device.major, device.minor));
            settings.push(Setting::new("io.max", value, format!("linux.resources.blockIO.{field}[{at}]")));
        }
    }
    settings
}

fn hugetlb((at, limit): (usize, &HugepageLimit)) -> Result<[Setting; 2]> {
    let size = page_size(at, &limit.page_size)?;
    let field = format!("linux.resources.hugepageLimits[{at}]");
    Ok([
        Setting::new(format!("hugetlb.{size}.max"), limit.limit, field.clone()),
        Setting::new(format!("hugetlb.{size}.rsvd.max"), limit.limit, field).if_there(),
    ])
}

/// Returns the files of `linux.resources.unified`.
pub fn unified(resources: &Resources) -> Result<Vec<Setting>> {
    let one = |(file, value): (&String, &String)| {
        let field = format!("linux.resources.unified[{file:?}]");
        let invalid = |words: &str| Err(Fault::new(Kind::InvalidInput, format!("{field}: {words}")));
        if file.contains('/') || file.contains('\0') {
            return invalid("must be a file name (no slashes)");
        }
        if !file.contains('.') {
            return invalid("must be in the form CONTROLLER.PARAMETER");
        }
        Ok(Setting::new(file.clone(), value, field))
    };
    resources.unified.iter().map(one).collect()
}

/// Gives the controllers `wanted` (all that there are, when `None`) to the children of every cgroup from the mount
/// down to the parent of `path`. Nothing is written where they are given already: giving takes a lock of the whole
/// host when the children have processes.
///
/// What cannot be given is told later, by the limit that needs it.
pub fn give_controllers(mount: &Group, path: &RelPath, wanted: Option<&[&str]>) -> Result<()> {
    let mut at = mount.path().to_owned();
    for component in path.components() {
        let Some(group) = Group::open(&at)? else { return Ok(()) };
        let there = group.read_if_there("cgroup.controllers")?.unwrap_or_default();
        let given = group.read_if_there("cgroup.subtree_control")?.unwrap_or_default();
        let is_wanted = |name: &&str| wanted.is_none_or(|wanted| wanted.contains(name));
        let is_given = |name: &str| given.split_whitespace().any(|other| other == name);
        let lacking: Vec<&str> =
            there.split_whitespace().filter(is_wanted).filter(|name| !is_given(name)).collect();
        if !lacking.is_empty() {
            let all = lacking.iter().map(|name| format!("+{name}")).collect::<Vec<_>>().join(" ");
            if group.write("cgroup.subtree_control", &all).is_err() {
                for name in lacking {
                    let _ = group.write("cgroup.subtree_control", &format!("+{name}"));
                }
            }
        }
        at.push(component.to_string_lossy().as_ref());
    }
    Ok(())
}

/// Writes the limits of one controller.
pub fn apply(group: &Group, controller: Controller, resources: &Resources) -> Result<()> {
    let current = |file: &str| group.read_if_there(file).ok().flatten();
    setting::apply(group, &settings(controller, resources, &current)?)
}
