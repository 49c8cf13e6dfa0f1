//! What a container is to systemd: the name of its unit, the slice above, and its limits as properties
//! (systemd.resource-control(5), org.freedesktop.systemd1(5)).

use std::collections::BTreeMap;

use bale_fault::{Fault, Kind, Result};
use bale_spec::runtime::{Cpu, Memory, Resources};

use super::annotation;
use super::bus::Whose;
use super::wire::Value;
use crate::cgroup::v2;

/// Properties by name, in the order in which systemd gets them.
pub type Properties = Vec<(String, Value)>;

/// A unit's name and place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// `PREFIX-NAME.scope`.
    pub name: String,
    /// The slice that it is in.
    pub slice: String,
}

/// The longest name of a unit, in bytes (`UNIT_NAME_MAX` of systemd).
const NAME_MAX: usize = 255;

impl Unit {
    /// Reads `linux.cgroupsPath` as `slice:prefix:name`; without it the unit is `bale-ID.scope`.
    ///
    /// # Errors
    /// `InvalidInput` in runc's words, which callers know.
    pub fn new(path: Option<&str>, id: &str, whose: Whose) -> Result<Self> {
        let parts: Vec<&str> = path.map_or_else(|| vec!["", "bale", id], |path| path.split(':').collect());
        let &[slice, prefix, name] = parts.as_slice() else {
            let words = format!(
                "linux.cgroupsPath: expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, \
                 got {:?} instead",
                path.unwrap_or_default()
            );
            let hint = "for example system.slice:bale:web; or leave out --systemd-cgroup";
            return Err(Fault::new(Kind::InvalidInput, words).hint(hint));
        };
        let usual = if whose == Whose::System { "system.slice" } else { "user.slice" };
        let slice = if slice.is_empty() { usual } else { slice };
        slice_path(slice)?;
        if name.ends_with(".slice") {
            let words = format!("{name:?} is a slice, and a container is a scope in one");
            return Err(invalid(&words).hint("name the slice in the first part: slice:prefix:name"));
        }
        let name = if prefix.is_empty() { format!("{name}.scope") } else { format!("{prefix}-{name}.scope") };
        let allowed = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
        if name.len() > NAME_MAX || name.starts_with('.') || !name.chars().all(allowed) {
            return Err(invalid(&format!("{name:?} is no name of a unit")));
        }
        Ok(Self { name, slice: slice.to_owned() })
    }

    /// Returns where the host's systemd makes its cgroup, below the mount.
    ///
    /// # Errors
    /// `InvalidInput`.
    pub fn path(&self) -> Result<String> {
        Ok(format!("{}/{}", slice_path(&self.slice)?.trim_end_matches('/'), self.name))
    }

    /// Returns the properties that make a new unit, around the process `pid`.
    ///
    /// # Errors
    /// `InvalidInput` with the field that systemd cannot be told.
    pub fn properties(
        &self,
        id: &str,
        pid: i32,
        resources: &Resources,
        annotations: &BTreeMap<String, String>,
    ) -> Result<Properties> {
        let text = |text: &str| Value::Text(text.to_owned());
        let mut all = vec![("Description".to_owned(), text(&format!("bale container {id}")))];
        let mut set = |name: &str, value| all.push((name.to_owned(), value));
        set("Slice", text(&self.slice));
        set("Delegate", Value::Bool(true));
        set("PIDs", Value::Numbers(vec![pid.cast_unsigned()]));
        // Init ended by the OOM killer makes the scope a failed one; so it goes all the same.
        set("CollectMode", text("inactive-or-failed"));
        for name in ["CPUAccounting", "MemoryAccounting", "IOAccounting", "TasksAccounting"] {
            set(name, Value::Bool(true));
        }
        set("DefaultDependencies", Value::Bool(false));
        all.extend(limits(resources)?);
        all.extend(annotation::properties(annotations)?);
        Ok(all)
    }
}

/// Returns where a slice is: `a-b.slice` is within `a.slice`.
fn slice_path(slice: &str) -> Result<String> {
    let bad = || invalid(&format!("invalid slice name: {slice}"));
    let name = slice.strip_suffix(".slice").filter(|name| !name.contains('/')).ok_or_else(bad)?;
    if name == "-" {
        return Ok("/".to_owned());
    }
    let mut path = String::new();
    let mut so_far = String::new();
    for part in name.split('-') {
        if part.is_empty() || !part.chars().all(|c| c.is_ascii_alphanumeric() || ":_.\\@".contains(c)) {
            return Err(bad());
        }
        so_far.push_str(part);
        path.push_str(&format!("/{so_far}.slice"));
        so_far.push('-');
    }
    Ok(path)
}

fn invalid(words: &str) -> Fault {
    Fault::new(Kind::InvalidInput, format!("linux.cgroupsPath: {words}"))
}

/// Returns the limits that systemd writes too, whenever it writes a cgroup's files anew: were it not told, it would take
/// them back. What it does not know is written to the files alone.
///
/// # Errors
/// `InvalidInput`.
pub fn limits(resources: &Resources) -> Result<Properties> {
    let mut all = Properties::new();
    if let Some(memory) = &resources.memory {
        memory_limits(memory, &mut all)?;
    }
    if let Some(cpu) = &resources.cpu {
        cpu_limits(cpu, &mut all)?;
    }
    if let Some(limit) = resources.pids.as_ref().and_then(|pids| pids.limit) {
        // 0 is no limit that systemd takes, see v1::pids_value.
        all.push(("TasksMax".to_owned(), Value::U64(if limit == 0 { 1 } else { or_max(limit) })));
    }
    for (file, value) in &resources.unified {
        all.extend(of_file(file, value));
    }
    Ok(all)
}

fn or_max(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

fn memory_limits(memory: &Memory, all: &mut Properties) -> Result<()> {
    let given = |value: Option<i64>| value.filter(|value| *value != 0);
    let mut set = |name: &str, value: u64| all.push((name.to_owned(), Value::U64(value)));
    if let Some(limit) = given(memory.limit) {
        set("MemoryMax", or_max(limit));
    }
    if let Some(low) = given(memory.reservation) {
        set("MemoryLow", or_max(low));
    }
    match v2::swap_alone(given(memory.limit), given(memory.swap), &|_| None) {
        Ok(Some(value)) => set("MemorySwapMax", value.parse().unwrap_or(u64::MAX)),
        Ok(None) => {}
        // In an update the limit may be the one that holds already; the files tell then.
        Err(_) if memory.limit.is_none() => {}
        Err(fault) => return Err(fault),
    }
    Ok(())
}

fn cpu_limits(cpu: &Cpu, all: &mut Properties) -> Result<()> {
    let weight = v2::weight_of_shares(cpu.shares.unwrap_or(0));
    if cpu.idle == Some(1) {
        // systemd's word for an idle cgroup since 252; before, it is refused.
        all.push(("CPUWeight".to_owned(), Value::U64(0)));
    } else if weight != 0 {
        all.push(("CPUWeight".to_owned(), Value::U64(weight)));
    }
    all.extend(quota(cpu.quota.filter(|quota| *quota != 0), cpu.period.filter(|period| *period != 0)));
    let lists = [("AllowedCPUs", &cpu.cpus, "cpus"), ("AllowedMemoryNodes", &cpu.mems, "mems")];
    for (name, list, field) in lists {
        if let Some(list) = list.as_deref().filter(|list| !list.is_empty()) {
            let bad = || {
                let words = format!("linux.resources.cpu.{field}: {list:?} is no list of numbers");
                Fault::new(Kind::InvalidInput, words).hint("write it as 0-3,7")
            };
            all.push((name.to_owned(), Value::Bytes(bits(list).ok_or_else(bad)?)));
        }
    }
    Ok(())
}

/// systemd counts the time for each second, and rounds it to hundredths of one.
fn quota(quota: Option<i64>, period: Option<u64>) -> Properties {
    /// The kernel's period when none is given, in microseconds.
    const USUAL: u64 = 100_000;
    let mut all = Properties::new();
    if let Some(period) = period {
        all.push(("CPUQuotaPeriodUSec".to_owned(), Value::U64(period)));
    }
    if let Some(quota) = quota {
        let each_second = match u64::try_from(quota) {
            Ok(quota) => {
                let exact = u128::from(quota) * 1_000_000 / u128::from(period.unwrap_or(USUAL));
                u64::try_from(exact.next_multiple_of(10_000)).unwrap_or(u64::MAX)
            }
            Err(_) => u64::MAX,
        };
        all.push(("CPUQuotaPerSecUSec".to_owned(), Value::U64(each_second)));
    }
    all
}

/// Turns `0-3,7` into bits, the lowest byte first.
pub fn bits(list: &str) -> Option<Vec<u8>> {
    /// More processors than Linux can have.
    const MOST: usize = 1 << 16;
    let mut bits = Vec::new();
    for part in list.trim().split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= MOST {
            return None;
        }
        if bits.len() <= last / 8 {
            bits.resize(last / 8 + 1, 0);
        }
        (first..=last).for_each(|number| bits[number / 8] |= 1 << (number % 8));
    }
    (!bits.is_empty()).then_some(bits)
}

/// The property of a file of `linux.resources.unified`; none for a file, or a value, that systemd does not know.
fn of_file(file: &str, value: &str) -> Properties {
    let value = value.trim();
    let number = || if value == "max" { Some(u64::MAX) } else { value.parse::<u64>().ok() };
    let one = |name: &str| number().map(|n| (name.to_owned(), Value::U64(n))).into_iter().collect();
    match file {
        "cpu.weight" => one("CPUWeight"),
        "memory.min" => one("MemoryMin"),
        "memory.low" => one("MemoryLow"),
        "memory.high" => one("MemoryHigh"),
        "memory.max" => one("MemoryMax"),
        "memory.swap.max" => one("MemorySwapMax"),
        "pids.max" => one("TasksMax"),
        "cpu.max" => {
            let mut words = value.split_whitespace();
            let first = words.next().unwrap_or_default();
            let limit = if first == "max" { Some(-1) } else { first.parse().ok() };
            limit.map_or_else(Properties::new, |limit| {
                quota(Some(limit), words.next().and_then(|w| w.parse().ok()))
            })
        }
        "cpuset.cpus" => list("AllowedCPUs", value),
        "cpuset.mems" => list("AllowedMemoryNodes", value),
        _ => Properties::new(),
    }
}

fn list(name: &str, value: &str) -> Properties {
    bits(value).map(|bits| (name.to_owned(), Value::Bytes(bits))).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_units_and_slices() {
        let unit = |path| Unit::new(Some(path), "id", Whose::System);
        let named = |path| unit(path).map(|unit| (unit.name.clone(), unit.path().unwrap()));
        let cases = [
            ("system.slice:docker:abc", "docker-abc.scope", "/system.slice/docker-abc.scope"),
            (":cri:abc", "cri-abc.scope", "/system.slice/cri-abc.scope"),
            ("a-b-c.slice:p:n", "p-n.scope", "/a.slice/a-b.slice/a-b-c.slice/p-n.scope"),
            ("-.slice:p:n", "p-n.scope", "/p-n.scope"),
            ("a.slice::n", "n.scope", "/a.slice/n.scope"),
        ];
        for (given, name, path) in cases {
            assert_eq!(named(given).unwrap(), (name.to_owned(), path.to_owned()), "{given}");
        }
        let plain = Unit::new(None, "id", Whose::User).unwrap();
        assert_eq!((plain.name.as_str(), plain.slice.as_str()), ("bale-id.scope", "user.slice"));
        for bad in [
            "/a/b",
            "a:b",
            "a:b:c",
            "a/b.slice:p:n",
            "-a.slice:p:n",
            "a--b.slice:p:n",
            "a.slice:p:x y",
            "a.slice:p:b.slice",
        ] {
            let fault = unit(bad).unwrap_err();
            assert_eq!(fault.kind(), Kind::InvalidInput, "{bad}");
            assert!(fault.chain().starts_with("linux.cgroupsPath: "), "{}", fault.chain());
        }
        assert!(unit("/a/b").unwrap_err().chain().contains(
            "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got \"/a/b\" instead"
        ));
    }

    #[test]
    fn limits_are_properties() {
        let resources: Resources = serde_json::from_str(
            r#"{"memory": {"limit": 1000, "swap": 1500, "reservation": 500},
                "cpu": {"shares": 1024, "quota": 2500, "period": 10000, "cpus": "0-1,9"},
                "pids": {"limit": -1},
                "unified": {"memory.high": "700", "cpu.max": "max", "io.weight": "10"}}"#,
        )
        .unwrap();
        let expected = [
            ("MemoryMax", Value::U64(1000)),
            ("MemoryLow", Value::U64(500)),
            ("MemorySwapMax", Value::U64(500)),
            ("CPUWeight", Value::U64(100)),
            ("CPUQuotaPeriodUSec", Value::U64(10000)),
            ("CPUQuotaPerSecUSec", Value::U64(250_000)),
            ("AllowedCPUs", Value::Bytes(vec![3, 2])),
            ("TasksMax", Value::U64(u64::MAX)),
            ("CPUQuotaPerSecUSec", Value::U64(u64::MAX)),
            ("MemoryHigh", Value::U64(700)),
        ];
        let found = limits(&resources).unwrap();
        let found: Vec<_> = found.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        assert_eq!(found, expected);
        for bad in ["1-", "3-1", "a", "70000", ","] {
            assert_eq!(bits(bad), None, "{bad}");
        }
        // 1/3 of a second is rounded up to the hundredth that systemd would otherwise round down from.
        assert_eq!(quota(Some(1000), Some(3000))[1].1, Value::U64(340_000));
    }
}
