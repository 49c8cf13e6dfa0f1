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
    bale_runtime::update(&dir, &resources)?;
    let schema = |name: &str| parsed.last(name).filter(|line| !line.is_empty());
    let (l3_cache, mem_bw) = (schema("l3-cache-schema"), schema("mem-bw-schema"));
    if l3_cache.is_some() || mem_bw.is_some() {
        bale_runtime::update_rdt(&dir, l3_cache.as_deref(), mem_bw.as_deref())?;
    }
    Ok(ExitCode::SUCCESS)
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
    let lower = text.trim().to_ascii_lowercase();
    let bare = lower.strip_suffix('b').unwrap_or(&lower);
    let bare = bare.strip_suffix('i').unwrap_or(bare);
    let (number, shift) = match bare.chars().last() {
        Some('k') => (&bare[..bare.len() - 1], 10),
        Some('m') => (&bare[..bare.len() - 1], 20),
        Some('g') => (&bare[..bare.len() - 1], 30),
        Some('t') => (&bare[..bare.len() - 1], 40),
        _ => (bare, 0),
    };
    let bad = || {
        Fault::new(
            Kind::InvalidInput,
            format!("invalid value {text:?} for --{name}: want a size such as 64m"),
        )
    };
    let number: i64 = number.parse().ok().filter(|n| *n >= 0).ok_or_else(bad)?;
    number.checked_mul(1 << shift).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_suffixes() {
        for (text, bytes) in [("-1", -1), ("64m", 64 << 20), ("1GiB", 1 << 30), ("10", 10), ("2kb", 2048)] {
            assert_eq!(size("memory", text).unwrap(), bytes, "{text}");
        }
        for bad in ["", "m", "-2", "1x", "99999999999t"] {
            assert!(size("memory", bad).is_err(), "{bad:?}");
        }
    }
}
