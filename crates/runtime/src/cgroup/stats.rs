//! Figures of a cgroup, in the shape that `events --stats` has had since runc 1.0 (go-runc reads it).

use std::collections::BTreeMap;

use bale_fault::Result;
use serde::Serialize;

use super::Handle;
use super::group::Group;

/// All figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    /// Processor time.
    pub cpu: CpuStats,
    /// Processors and memory nodes.
    pub cpuset: CpusetStats,
    /// Memory.
    pub memory: MemoryStats,
    /// Processes.
    pub pids: PidsStats,
    /// Block devices.
    pub blkio: BlkioStats,
    /// Huge pages by size.
    pub hugetlb: BTreeMap<String, HugetlbStats>,
    /// Intel RDT; empty without a group.
    pub intel_rdt: crate::rdt::RdtStats,
    /// Network interfaces; none are looked at.
    pub network_interfaces: Option<Vec<String>>,
}

/// Processor time, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CpuStats {
    /// Used.
    pub usage: CpuUsage,
    /// Held back.
    pub throttling: Throttling,
    /// Pressure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// Used processor time, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CpuUsage {
    /// Altogether.
    pub total: u64,
    /// By processor.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu: Vec<u64>,
    /// In the kernel.
    pub kernel: u64,
    /// In programs.
    pub user: u64,
}

/// Periods in which the quota was used up.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Throttling {
    /// Periods.
    pub periods: u64,
    /// Of them, those held back.
    pub throttled_periods: u64,
    /// Nanoseconds.
    pub throttled_time: u64,
}

/// Processors and memory nodes that may be used.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CpusetStats {
    /// Processors.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpus: Vec<u16>,
    /// Memory nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mems: Vec<u16>,
}

/// Memory in bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct MemoryStats {
    /// Page cache.
    pub cache: u64,
    /// Memory.
    pub usage: MemoryEntry,
    /// Memory plus swap.
    pub swap: MemoryEntry,
    /// Kernel memory.
    pub kernel: MemoryEntry,
    /// Network buffers.
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: MemoryEntry,
    /// `memory.stat`.
    pub raw: BTreeMap<String, u64>,
    /// Pressure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// Use of one kind of memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MemoryEntry {
    /// Limit; the largest number when there is none.
    pub limit: u64,
    /// Now.
    pub usage: u64,
    /// At most.
    pub max: u64,
    /// How often the limit was met.
    pub failcnt: u64,
}

/// Processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PidsStats {
    /// Now.
    pub current: u64,
    /// Limit; 0 when there is none.
    pub limit: u64,
}

/// Block devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BlkioStats {
    /// Bytes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_bytes_recursive: Vec<BlkioEntry>,
    /// Operations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_serviced_recursive: Vec<BlkioEntry>,
    /// Pressure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// One figure of a block device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BlkioEntry {
    /// Major number.
    pub major: u64,
    /// Minor number.
    pub minor: u64,
    /// `Read`, `Write`, …
    pub op: String,
    /// The figure.
    pub value: u64,
}

/// Huge pages of one size, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HugetlbStats {
    /// Now.
    pub usage: u64,
    /// At most.
    pub max: u64,
    /// How often the limit was met.
    pub failcnt: u64,
}

/// Pressure stall information.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pressure {
    /// Some waited.
    pub some: PressureLine,
    /// All waited.
    pub full: PressureLine,
}

/// One line of pressure: shares of time in percent, as the kernel writes them, and microseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PressureLine {
    avg10: String,
    avg60: String,
    avg300: String,
    total: u64,
}

impl Serialize for PressureLine {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let number = |text: &str| text.parse::<f64>().unwrap_or(0.0);
        let mut line = serializer.serialize_struct("PressureLine", 4)?;
        line.serialize_field("avg10", &number(&self.avg10))?;
        line.serialize_field("avg60", &number(&self.avg60))?;
        line.serialize_field("avg300", &number(&self.avg300))?;
        line.serialize_field("total", &self.total)?;
        line.end()
    }
}

impl Handle {
    /// Reads the figures. What a host does not count is 0 or empty.
    ///
    /// # Errors
    /// None today; a reader that must fail will.
    pub fn stats(&self) -> Result<Stats> {
        let mut stats = Stats::default();
        if let Some(group) = &self.unified {
            if self.v1.is_empty() {
                unified_stats(group, &mut stats);
            }
            stats.hugetlb = hugetlb(group, "current", "max_usage", "events");
        }
        self.v1_stats(&mut stats);
        Ok(stats)
    }

    fn v1_stats(&self, stats: &mut Stats) {
        if let Some(group) = self.v1_group("cpuacct") {
            stats.cpu.usage = v1_cpu_usage(group);
        }
        if let Some(group) = self.v1_group("cpu") {
            let values = key_values(group, "cpu.stat");
            stats.cpu.throttling = throttling(&values, "throttled_time", 1);
        }
        if let Some(group) = self.v1_group("cpuset") {
            stats.cpuset = cpuset(group, "cpuset.cpus", "cpuset.mems");
        }
        if let Some(group) = self.v1_group("memory") {
            stats.memory = v1_memory(group);
        }
        if let Some(group) = self.v1_group("pids") {
            stats.pids = pids(group);
        }
        if let Some(group) = self.v1_group("blkio") {
            stats.blkio = v1_blkio(group);
        }
        if let Some(group) = self.v1_group("hugetlb") {
            stats.hugetlb = hugetlb(group, "usage_in_bytes", "max_usage_in_bytes", "failcnt");
        }
    }
}

fn unified_stats(group: &Group, stats: &mut Stats) {
    let values = key_values(group, "cpu.stat");
    let micro = |key: &str| values.get(key).copied().unwrap_or(0).saturating_mul(1000);
    stats.cpu.usage.total = micro("usage_usec");
    stats.cpu.usage.user = micro("user_usec");
    stats.cpu.usage.kernel = micro("system_usec");
    stats.cpu.throttling = throttling(&values, "throttled_usec", 1000);
    stats.cpu.psi = pressure(group, "cpu.pressure");
    stats.cpuset = cpuset(group, "cpuset.cpus.effective", "cpuset.mems.effective");
    stats.memory = v2_memory(group);
    stats.pids = pids(group);
    stats.blkio = v2_io(group);
}

fn key_values(group: &Group, file: &str) -> BTreeMap<String, u64> {
    let text = group.read_if_there(file).ok().flatten().unwrap_or_default();
    let pair =
        |line: &str| line.split_once(' ').and_then(|(key, n)| Some((key.to_owned(), n.trim().parse().ok()?)));
    text.lines().filter_map(pair).collect()
}

fn throttling(values: &BTreeMap<String, u64>, time: &str, nanoseconds: u64) -> Throttling {
    let get = |key: &str| values.get(key).copied().unwrap_or(0);
    Throttling {
        periods: get("nr_periods"),
        throttled_periods: get("nr_throttled"),
        throttled_time: get(time).saturating_mul(nanoseconds),
    }
}

fn v1_cpu_usage(group: &Group) -> CpuUsage {
    let text = |file: &str| group.read_if_there(file).ok().flatten().unwrap_or_default();
    let sum = |file: &str| text(file).trim().parse().unwrap_or(0);
    CpuUsage {
        total: sum("cpuacct.usage"),
        percpu: text("cpuacct.usage_percpu").split_whitespace().filter_map(|n| n.parse().ok()).collect(),
        kernel: sum("cpuacct.usage_sys"),
        user: sum("cpuacct.usage_user"),
    }
}

fn cpuset(group: &Group, cpus: &str, mems: &str) -> CpusetStats {
    let list = |file: &str| numbers(group.read_if_there(file).ok().flatten().unwrap_or_default().trim());
    CpusetStats { cpus: list(cpus), mems: list(mems) }
}

/// Spells out a list such as `0-2,5`.
pub(crate) fn numbers(list: &str) -> Vec<u16> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<u16>().ok()?..=last.parse::<u16>().ok()?)
    };
    list.split(',').filter_map(range).flatten().collect()
}

fn v1_memory(group: &Group) -> MemoryStats {
    let number = |file: String| group.read_number(&file).unwrap_or(0);
    let entry = |kind: &str| MemoryEntry {
        limit: number(format!("memory{kind}.limit_in_bytes")),
        usage: number(format!("memory{kind}.usage_in_bytes")),
        max: number(format!("memory{kind}.max_usage_in_bytes")),
        failcnt: number(format!("memory{kind}.failcnt")),
    };
    let raw = key_values(group, "memory.stat");
    MemoryStats {
        cache: raw.get("cache").copied().unwrap_or(0),
        usage: entry(""),
        swap: entry(".memsw"),
        kernel: entry(".kmem"),
        kernel_tcp: entry(".kmem.tcp"),
        raw,
        psi: None,
    }
}

fn v2_memory(group: &Group) -> MemoryStats {
    let number = |file: String| group.read_number(&file).unwrap_or(0);
    let entry = |kind: &str| MemoryEntry {
        limit: number(format!("memory{kind}.max")),
        usage: number(format!("memory{kind}.current")),
        max: number(format!("memory{kind}.peak")),
        failcnt: 0,
    };
    let raw = key_values(group, "memory.stat");
    let usage = entry("");
    let alone = entry(".swap");
    // Callers know swap as v1 counts it, memory included.
    let limit = if alone.limit == u64::MAX { u64::MAX } else { alone.limit.saturating_add(usage.limit) };
    let swap = MemoryEntry { limit, usage: alone.usage + usage.usage, max: 0, failcnt: 0 };
    MemoryStats {
        cache: raw.get("file").copied().unwrap_or(0),
        usage,
        swap,
        raw,
        psi: pressure(group, "memory.pressure"),
        ..MemoryStats::default()
    }
}

fn pids(group: &Group) -> PidsStats {
    let limit = group.read_number("pids.max").filter(|n| *n != u64::MAX).unwrap_or(0);
    PidsStats { current: group.read_number("pids.current").unwrap_or(0), limit }
}

fn v1_blkio(group: &Group) -> BlkioStats {
    let first = |files: [&str; 4]| {
        let entries = |file| v1_blkio_entries(&group.read_if_there(file).ok().flatten().unwrap_or_default());
        files.into_iter().map(entries).find(|entries| !entries.is_empty()).unwrap_or_default()
    };
    BlkioStats {
        io_service_bytes_recursive: first([
            "blkio.bfq.io_service_bytes_recursive",
            "blkio.io_service_bytes_recursive",
            "blkio.throttle.io_service_bytes_recursive",
            "blkio.throttle.io_service_bytes",
        ]),
        io_serviced_recursive: first([
            "blkio.bfq.io_serviced_recursive",
            "blkio.io_serviced_recursive",
            "blkio.throttle.io_serviced_recursive",
            "blkio.throttle.io_serviced",
        ]),
        psi: None,
    }
}

/// Reads lines such as `8:0 Read 1282048`; the line `Total 5` is passed over.
pub(crate) fn v1_blkio_entries(text: &str) -> Vec<BlkioEntry> {
    let entry = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (device, op, value) = match words.as_slice() {
            [device, op, value] => (*device, *op, *value),
            [device, value] => (*device, "", *value),
            _ => return None,
        };
        blkio_entry(device, op, value)
    };
    text.lines().filter_map(entry).collect()
}

fn blkio_entry(device: &str, op: &str, value: &str) -> Option<BlkioEntry> {
    let (major, minor) = device.split_once(':')?;
    let op = op.to_owned();
    Some(BlkioEntry {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        op,
        value: value.parse().ok()?,
    })
}

fn v2_io(group: &Group) -> BlkioStats {
    let mut stats = BlkioStats { psi: pressure(group, "io.pressure"), ..BlkioStats::default() };
    for line in group.read_if_there("io.stat").ok().flatten().unwrap_or_default().lines() {
        let mut words = line.split_whitespace();
        let Some(device) = words.next() else { continue };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let (list, op) = match key {
                "rbytes" => (&mut stats.io_service_bytes_recursive, "Read"),
                "wbytes" => (&mut stats.io_service_bytes_recursive, "Write"),
                "rios" => (&mut stats.io_serviced_recursive, "Read"),
                "wios" => (&mut stats.io_serviced_recursive, "Write"),
                _ => continue,
            };
            list.extend(blkio_entry(device, op, value));
        }
    }
    stats
}

fn hugetlb(group: &Group, usage: &str, max: &str, failed: &str) -> BTreeMap<String, HugetlbStats> {
    let sizes = std::fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    let kib = |name: String| name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse::<u64>().ok();
    let sizes = sizes.filter_map(|entry| kib(entry.file_name().into_string().ok()?));
    let read = |size: u64| {
        let name = page_size_name(size);
        let number = |what: &str| {
            let rsvd = group.read_number(&format!("hugetlb.{name}.rsvd.{what}"));
            rsvd.or_else(|| group.read_number(&format!("hugetlb.{name}.{what}")))
        };
        let found = number(usage)?;
        let failcnt = match failed {
            "events" => key_values(group, &format!("hugetlb.{name}.events")).get("max").copied().unwrap_or(0),
            file => number(file).unwrap_or(0),
        };
        let stats = HugetlbStats { usage: found, max: number(max).unwrap_or(0), failcnt };
        Some((name, stats))
    };
    sizes.filter_map(read).collect()
}

/// The name that hugetlb's files have for a size in KiB.
fn page_size_name(kib: u64) -> String {
    match kib {
        1_048_576.. => format!("{}GB", kib >> 20),
        1024.. => format!("{}MB", kib >> 10),
        _ => format!("{kib}KB"),
    }
}

fn pressure(group: &Group, file: &str) -> Option<Pressure> {
    let text = group.read_if_there(file).ok().flatten()?;
    let line = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind)).unwrap_or_default();
        let get = |key: &str| {
            line.split_whitespace().find_map(|word| word.strip_prefix(key)).unwrap_or("0").to_owned()
        };
        PressureLine {
            avg10: get("avg10="),
            avg60: get("avg60="),
            avg300: get("avg300="),
            total: get("total=").parse().unwrap_or(0),
        }
    };
    Some(Pressure { some: line("some"), full: line("full") })
}
