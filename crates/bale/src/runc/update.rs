//! `update`.

use crate::exit::ExitCode;
use std::ffi::OsString;
use std::io::Read;
use std::path::Path;

use bale_fault::{Context, Fault, Kind, Result};
use bale_spec::runtime::{BlockIo, Cpu, Memory, Pids, Resources};

use super::Global;
use super::args::{Flag, Parsed, parse, value};
use super::create::read_bounded;

const LIMIT_BYTES: usize = 1 << 20;

pub const UPDATE: &[Flag] = &[
    value("resources", "r"),
    value("blkio-weight", ""),
    value("cpu-period", ""),
    value("cpu-quota", ""),
    value("cpu-burst", ""),
    value("cpu-share", ""),
    value("cpu-rt-period", ""),
    value("cpu-rt-runtime", ""),
    value("cpu-idle", ""),
    value("cpuset-cpus", ""),
    value("cpuset-mems", ""),
    value("memory", ""),
    value("memory-reservation", ""),
    value("memory-swap", ""),
    value("kernel-memory", ""),
    value("kernel-memory-tcp", ""),
    value("pids-limit", ""),
    value("l3-cache-schema", ""),
    value("mem-bw-schema", ""),
];

/// `update [flags] ID`.
pub fn update(global: &Global, arguments: &[OsString]) -> Result<ExitCode> {
    let parsed = parse(UPDATE, arguments, false)?.at_most(1)?;
    let dir = global.container(&parsed)?;
    let resources = match parsed.last("resources").filter(|r| !r.is_empty()) {
        Some(path) => read(&path)?,
        None => flags(&parsed)?,
    };
    let (resources, beside) = parts(resources);
    bale_runtime::update(&dir, &resources)?;
    match bale_runtime::update(&dir, &beside) {
        // runc's update does not look at these, and its callers send all that they have.
        Err(fault) if fault.kind() == Kind::Unsupported => super::note(global, &fault.chain()),
        other => other?,
    }
    let schema = |name: &str| parsed.last(name).filter(|line| !line.is_empty());
    let (l3_cache, mem_bw) = (schema("l3-cache-schema"), schema("mem-bw-schema"));
    if l3_cache.is_some() || mem_bw.is_some() {
        bale_runtime::update_rdt(&dir, l3_cache.as_deref(), mem_bw.as_deref())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Parts what must be set from what is set where the host can.
fn parts(mut all: Resources) -> (Resources, Resources) {
    let beside = Resources {
        hugepage_limits: std::mem::take(&mut all.hugepage_limits),
        network: all.network.take(),
        rdma: std::mem::take(&mut all.rdma),
        ..Resources::default()
    };
    (all, beside)
}

fn read(path: &str) -> Result<Resources> {
    let text = if path == "-" {
        let mut text = Vec::new();
        let limit = LIMIT_BYTES as u64 + 1;
        std::io::stdin().lock().take(limit).read_to_end(&mut text).within(|| "read standard input")?;
        text
    } else {
        read_bounded(Path::new(path), LIMIT_BYTES)?
    };
    bale_spec::json::parse(&text, LIMIT_BYTES)
        .map_err(|error| Fault::new(Kind::InvalidInput, format!("parse resources {path:?}")).caused_by(error))
}

fn flags(parsed: &Parsed) -> Result<Resources> {
    let text = |name: &str| parsed.last(name).filter(|v| !v.is_empty());
    let bytes = |name: &str| text(name).map(|v| size(name, &v)).transpose();
    let memory = Memory {
        limit: bytes("memory")?,
        reservation: bytes("memory-reservation")?,
        swap: bytes("memory-swap")?,
        ..Memory::default()
    };
    let cpu = Cpu {
        shares: parsed.number("cpu-share")?,
        quota: parsed.number("cpu-quota")?,
        burst: parsed.number("cpu-burst")?,
        period: parsed.number("cpu-period")?,
        realtime_runtime: parsed.number("cpu-rt-runtime")?,
        realtime_period: parsed.number("cpu-rt-period")?,
        cpus: text("cpuset-cpus"),
        mems: text("cpuset-mems"),
        idle: parsed.number("cpu-idle")?,
    };
    let weight: Option<u16> = parsed.number("blkio-weight")?;
    let limit: Option<i64> = parsed.number("pids-limit")?;
    Ok(Resources {
        memory: (memory != Memory::default()).then_some(memory),
        cpu: (cpu != Cpu::default()).then_some(cpu),
        pids: limit.map(|limit| Pids { limit: Some(limit) }),
        block_io: weight.map(|weight| BlockIo { weight: Some(weight), ..BlockIo::default() }),
        ..Resources::default()
    })
}

/// A size with a suffix, or -1 for no limit.
fn size(name: &str, text: &str) -> Result<i64> {
    if text == "-1" {
        return Ok(-1);
    }
    let bad = || {
        Fault::new(
            Kind::InvalidInput,
            format!("invalid value {text:?} for --{name}: want a size such as 64m"),
        )
    };
    let lower = text.to_ascii_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let shift = match unit.strip_prefix(' ').unwrap_or(unit) {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return Err(bad()),
    };
    // Whole numbers exactly, as most of them are; parts of a unit as docker's sizes have them.
    if let Ok(number) = number.parse::<i64>() {
        return number.checked_mul(1 << shift).ok_or_else(bad);
    }
    let bytes = number.parse::<f64>().ok().map(|number| number * (1_i64 << shift) as f64);
    bytes.filter(|bytes| (0.0..9e18).contains(bytes)).map(|bytes| bytes as i64).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_suffixes() {
        for (text, bytes) in [
            ("-1", -1),
            ("64m", 64 << 20),
            ("1GiB", 1 << 30),
            ("10", 10),
            ("2kb", 2048),
            ("1.5g", 3 << 29),
            ("64 m", 64 << 20),
        ] {
            assert_eq!(size("memory", text).unwrap(), bytes, "{text}");
        }
        for bad in ["", "m", "-2", "1x", "99999999999t", "1..5g", "64  m", "1mbi", "."] {
            assert!(size("memory", bad).is_err(), "{bad:?}");
        }
    }
}
