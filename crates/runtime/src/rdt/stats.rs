//! What a group may use and uses, as `runc events` prints it.

use std::path::Path;

use bale_fault::Result;
use serde::Serialize;

use super::{Group, read_file};

/// Numbers of Intel RDT.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RdtStats {
    /// What the L3 cache can do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l3_cache_info: Option<L3Cache>,
    /// The default class's line.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub l3_cache_schema_root: String,
    /// The group's line.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub l3_cache_schema: String,
    /// What memory bandwidth can be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_bw_info: Option<MemoryBandwidth>,
    /// The default class's line.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mem_bw_schema_root: String,
    /// The group's line.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mem_bw_schema: String,
    /// The group's lines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub schemata: Vec<String>,
    /// Bytes moved, for each cache.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mbm_stats: Vec<Bandwidth>,
    /// Bytes held, for each cache.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cmt_stats: Vec<Occupancy>,
}

/// `info/L3`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct L3Cache {
    /// All bits.
    pub cbm_mask: String,
    /// The fewest bits.
    pub min_cbm_bits: u64,
    /// Classes.
    pub num_closids: u64,
}

/// `info/MB`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MemoryBandwidth {
    /// Step.
    pub bandwidth_gran: u64,
    /// Delay is linear.
    pub delay_linear: u64,
    /// Least.
    pub min_bandwidth: u64,
    /// Classes.
    pub num_closids: u64,
}

/// Bytes moved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Bandwidth {
    /// All.
    pub mbm_total_bytes: u64,
    /// To the nearest memory.
    pub mbm_local_bytes: u64,
}

/// Bytes held.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Occupancy {
    /// In the last level cache.
    pub llc_occupancy: u64,
}

/// Reads a group below `root`.
pub(super) fn read(root: &Path, group: &Group) -> Result<RdtStats> {
    let (above, own) = (read_file(&root.join("schemata"))?, read_file(&group.path.join("schemata"))?);
    let info = root.join("info");
    let mut stats =
        RdtStats { schemata: own.lines().map(|l| l.trim().to_owned()).collect(), ..RdtStats::default() };
    if info.join("L3").is_dir() {
        let file = |name: &str| info.join("L3").join(name);
        stats.l3_cache_info = Some(L3Cache {
            cbm_mask: read_file(&file("cbm_mask"))?.trim().to_owned(),
            min_cbm_bits: number(&file("min_cbm_bits")),
            num_closids: number(&file("num_closids")),
        });
        (stats.l3_cache_schema_root, stats.l3_cache_schema) = (line(&above, "L3"), line(&own, "L3"));
    }
    if info.join("MB").is_dir() {
        let file = |name: &str| info.join("MB").join(name);
        stats.mem_bw_info = Some(MemoryBandwidth {
            bandwidth_gran: number(&file("bandwidth_gran")),
            delay_linear: number(&file("delay_linear")),
            min_bandwidth: number(&file("min_bandwidth")),
            num_closids: number(&file("num_closids")),
        });
        (stats.mem_bw_schema_root, stats.mem_bw_schema) = (line(&above, "MB"), line(&own, "MB"));
    }
    monitor(&info, group, &mut stats);
    Ok(stats)
}

/// What is counted, where the processor counts: without a monitoring group it is the class's.
fn monitor(info: &Path, group: &Group, stats: &mut RdtStats) {
    let features = read_file(&info.join("L3_MON/mon_features")).unwrap_or_default();
    let counts = |name: &str| features.lines().any(|line| line == name);
    let data = group.monitor.as_ref().unwrap_or(&group.path).join("mon_data");
    let entries = std::fs::read_dir(data).into_iter().flatten().flatten();
    let mut caches: Vec<_> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    caches.sort();
    for cache in caches {
        if counts("mbm_total_bytes") || counts("mbm_local_bytes") {
            stats.mbm_stats.push(Bandwidth {
                mbm_total_bytes: number(&cache.join("mbm_total_bytes")),
                mbm_local_bytes: number(&cache.join("mbm_local_bytes")),
            });
        }
        if counts("llc_occupancy") {
            stats.cmt_stats.push(Occupancy { llc_occupancy: number(&cache.join("llc_occupancy")) });
        }
    }
}

/// 0 for what the kernel does not say ("Unavailable").
fn number(path: &Path) -> u64 {
    read_file(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

fn line(schemata: &str, resource: &str) -> String {
    schemata.lines().map(str::trim).find(|line| line.starts_with(resource)).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_where_the_kernel_has_them() {
        let root = bale_testkit::Scratch::new("rdt");
        for (file, text) in [
            ("schemata", "    L3:0=fffff\n    MB:0=100\n"),
            ("web/schemata", "    L3:0=ff\n    MB:0=20\n"),
            ("info/L3/cbm_mask", "fffff\n"),
            ("info/L3/min_cbm_bits", "1\n"),
            ("info/L3/num_closids", "16\n"),
            ("info/L3_MON/mon_features", "llc_occupancy\nmbm_total_bytes\nmbm_local_bytes\n"),
            ("web/mon_data/mon_L3_00/llc_occupancy", "4096\n"),
            ("web/mon_data/mon_L3_00/mbm_total_bytes", "12\n"),
            ("web/mon_data/mon_L3_00/mbm_local_bytes", "Unavailable\n"),
        ] {
            std::fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
            std::fs::write(root.join(file), text).unwrap();
        }
        let group = Group { path: root.join("web"), ..Group::default() };
        let stats = read(root.path(), &group).unwrap();
        let shown = serde_json::to_value(&stats).unwrap();
        let expected = serde_json::json!({
            "l3_cache_info": {"cbm_mask": "fffff", "min_cbm_bits": 1, "num_closids": 16},
            "l3_cache_schema_root": "L3:0=fffff",
            "l3_cache_schema": "L3:0=ff",
            "schemata": ["L3:0=ff", "MB:0=20"],
            "mbm_stats": [{"mbm_total_bytes": 12, "mbm_local_bytes": 0}],
            "cmt_stats": [{"llc_occupancy": 4096}],
        });
        assert_eq!(shown, expected);
    }
}
