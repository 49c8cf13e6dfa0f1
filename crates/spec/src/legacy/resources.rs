//! Limits: zero meant unset until January 2016, and block I/O had other names until rc5.

use bale_fault::Result;
use serde_json::Value;

use super::convert::Work;
use super::object::{Object, invalid};
use super::{Dialect, Weight};
use crate::runtime::{
    BlockIo, Cpu, HugepageLimit, InterfacePriority, Memory, Network, Pids, Resources, ThrottleDevice,
    WeightDevice,
};

/// Converts `resources` (without its devices).
pub(super) fn convert(work: &mut Work<'_>, old: &mut Object) -> Result<Resources> {
    if work.dialect <= Dialect::V020Early && !old.is_empty() {
        work.say(Weight::Note, old.path(), "every zero, empty and null limit meant unset: dropped");
    }
    let mut memory = memory(work, &mut old.object("memory")?)?;
    out_of_memory(work, old, &mut memory)?;
    let resources = Resources {
        memory: Some(memory).filter(|m| *m != Memory::default()),
        cpu: Some(cpu(work, &mut old.object("cpu")?)?).filter(|c| *c != Cpu::default()),
        pids: pids(work, &mut old.object("pids")?)?,
        block_io: Some(block_io(work, &mut old.object("blockIO")?)?).filter(|b| *b != BlockIo::default()),
        hugepage_limits: hugepages(old)?,
        network: Some(network(work, &mut old.object("network")?)?).filter(|n| *n != Network::default()),
        ..Resources::default()
    };
    Ok(resources)
}

impl Work<'_> {
    /// Tells whether a present zero is a limit: only from the tag v0.2.0 on.
    fn means(&self, number: i128) -> bool {
        number != 0 || self.dialect > Dialect::V020Early
    }
}

fn limit(work: &Work<'_>, old: &mut Object, key: &str) -> Result<Option<i64>> {
    // Unsigned in rc5: what does not fit was "no limit".
    let number = old.number(key)?.filter(|n| work.means(*n));
    Ok(number.map(|n| i64::try_from(n).unwrap_or(-1)))
}

fn unsigned<T: TryFrom<i128>>(work: &Work<'_>, old: &mut Object, key: &str) -> Result<Option<T>> {
    let path = old.at(key);
    let Some(number) = old.number(key)?.filter(|n| work.means(*n)) else { return Ok(None) };
    T::try_from(number).map(Some).map_err(|_| invalid(&path, format!("{number} is out of range")))
}

fn memory(work: &mut Work<'_>, old: &mut Object) -> Result<Memory> {
    let path = old.path().to_owned();
    for key in ["kernel", "kernelTCP"] {
        if old.number(key)?.is_some_and(|n| work.means(n)) {
            work.say(Weight::Note, &format!("{path}.{key}"), "is ignored by every current runtime: dropped");
        }
    }
    let swappiness = old.number("swappiness")?.filter(|s| (0..=100).contains(s));
    let mut swappiness = swappiness.and_then(|s| u64::try_from(s).ok());
    if work.options.faithful && swappiness.is_none() && work.dialect == Dialect::V020Early {
        swappiness = Some(0);
    }
    let memory = Memory {
        limit: limit(work, old, "limit")?,
        reservation: limit(work, old, "reservation")?,
        swap: limit(work, old, "swap")?,
        swappiness,
        ..Memory::default()
    };
    work.drop_rest(old);
    Ok(memory)
}

/// `disableOOMKiller` stood beside `memory` until rc6.
fn out_of_memory(work: &mut Work<'_>, old: &mut Object, memory: &mut Memory) -> Result<()> {
    let path = old.at("disableOOMKiller");
    if old.flag("disableOOMKiller")? == Some(true) {
        memory.disable_oom_killer = Some(true);
        work.say(Weight::Warning, &path, "moved to memory.disableOOMKiller; cgroup v2 cannot do it");
    }
    Ok(())
}

fn cpu(work: &mut Work<'_>, old: &mut Object) -> Result<Cpu> {
    let cpu = Cpu {
        shares: unsigned(work, old, "shares")?,
        quota: limit(work, old, "quota")?,
        period: unsigned(work, old, "period")?,
        realtime_runtime: limit(work, old, "realtimeRuntime")?,
        realtime_period: unsigned(work, old, "realtimePeriod")?,
        cpus: old.word("cpus")?,
        mems: old.word("mems")?,
        ..Cpu::default()
    };
    work.drop_rest(old);
    Ok(cpu)
}

fn pids(work: &mut Work<'_>, old: &mut Object) -> Result<Option<Pids>> {
    let path = old.at("limit");
    let limit = match old.number("limit")? {
        None => return Ok(None),
        Some(0) => {
            let words =
                "0 meant no limit; since runtime-spec 1.3 it is a real one that stops every fork: dropped";
            work.say(Weight::Note, &path, words);
            return Ok(None);
        }
        Some(number) if number < 0 => -1,
        Some(number) => i64::try_from(number).map_err(|_| invalid(&path, "is out of range"))?,
    };
    Ok(Some(Pids { limit: Some(limit) }))
}

fn block_io(work: &mut Work<'_>, old: &mut Object) -> Result<BlockIo> {
    let mut renamed = false;
    let mut weights = |work: &Work<'_>, old: &mut Object, key: &str, before: &str| {
        renamed |= old.has(before);
        let before: Option<u16> = unsigned(work, old, before)?;
        Ok::<_, bale_fault::Fault>(unsigned(work, old, key)?.or(before))
    };
    let weight = weights(work, old, "weight", "blkioWeight")?;
    let leaf_weight = weights(work, old, "leafWeight", "blkioLeafWeight")?;
    let block_io = BlockIo {
        weight,
        leaf_weight,
        weight_device: weight_devices(old)?,
        throttle_read_bps_device: throttle(old, "throttleReadBpsDevice", "blkioThrottleReadBpsDevice")?,
        throttle_write_bps_device: throttle(old, "throttleWriteBpsDevice", "blkioThrottleWriteBpsDevice")?,
        throttle_read_iops_device: throttle(old, "throttleReadIOPSDevice", "blkioThrottleReadIOPSDevice")?,
        throttle_write_iops_device: throttle(old, "throttleWriteIOPSDevice", "blkioThrottleWriteIOPSDevice")?,
    };
    if renamed && block_io != BlockIo::default() {
        work.say(Weight::Note, old.path(), "the names have lost their \"blkio\"");
    }
    work.drop_rest(old);
    Ok(block_io)
}

fn throttle(old: &mut Object, key: &str, before: &str) -> Result<Vec<ThrottleDevice>> {
    let mut devices = Vec::new();
    let small = before.replace("IOPS", "Iops");
    let spellings = if small == before { vec![key, before] } else { vec![key, before, &small] };
    for key in spellings {
        let path = old.at(key);
        for (i, value) in old.list(key)?.into_iter().enumerate() {
            let path = format!("{path}[{i}]");
            devices.push(match value {
                Value::String(text) => {
                    let (major, minor, rate) = device_text(&path, &text)?;
                    ThrottleDevice { major, minor, rate }
                }
                other => {
                    let mut entry = Object::new(&path, other)?;
                    let (major, minor) = numbers(&mut entry)?;
                    ThrottleDevice { major, minor, rate: entry.fitting("rate")?.unwrap_or(0) }
                }
            });
        }
    }
    Ok(devices)
}

fn weight_devices(old: &mut Object) -> Result<Vec<WeightDevice>> {
    let mut devices = Vec::new();
    for key in ["weightDevice", "blkioWeightDevice"] {
        let path = old.at(key);
        for (i, value) in old.list(key)?.into_iter().enumerate() {
            let path = format!("{path}[{i}]");
            devices.push(match value {
                Value::String(text) => {
                    let (major, minor, weight) = device_text(&path, &text)?;
                    let weight =
                        u16::try_from(weight).map_err(|_| invalid(&path, "the weight is out of range"))?;
                    WeightDevice { major, minor, weight: Some(weight), leaf_weight: None }
                }
                other => {
                    let mut entry = Object::new(&path, other)?;
                    let (major, minor) = numbers(&mut entry)?;
                    let weight = entry.fitting::<u16>("weight")?.filter(|w| *w != 0);
                    let leaf_weight = entry.fitting::<u16>("leafWeight")?.filter(|w| *w != 0);
                    WeightDevice { major, minor, weight, leaf_weight }
                }
            });
        }
    }
    Ok(devices)
}

fn numbers(entry: &mut Object) -> Result<(i64, i64)> {
    Ok((entry.fitting("major")?.unwrap_or(0), entry.fitting("minor")?.unwrap_or(0)))
}

/// Reads `8:0 500`, how 0.1.0 and before wrote a device's limit.
fn device_text(path: &str, text: &str) -> Result<(i64, i64, u64)> {
    let parse = || {
        let (device, value) = text.trim().split_once(' ')?;
        let (major, minor) = device.split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?, value.trim().parse().ok()?))
    };
    parse().ok_or_else(|| invalid(path, format!("{text:?} is not \"major:minor value\"")))
}

fn hugepages(old: &mut Object) -> Result<Vec<HugepageLimit>> {
    let path = old.at("hugepageLimits");
    let mut limits = Vec::new();
    for mut entry in old.objects("hugepageLimits")? {
        let page_size = entry.word("pageSize")?.or(entry.word("pagesize")?);
        let page_size = page_size.ok_or_else(|| invalid(&path, "an entry has no pageSize"))?;
        limits.push(HugepageLimit { page_size, limit: entry.fitting("limit")?.unwrap_or(0) });
    }
    Ok(limits)
}

fn network(work: &mut Work<'_>, old: &mut Object) -> Result<Network> {
    let mut class_id = None;
    for key in ["classId", "classID"] {
        let path = old.at(key);
        class_id = match old.take(key) {
            None => class_id,
            Some(Value::String(text)) if text.is_empty() => class_id,
            Some(Value::String(text)) => {
                work.say(Weight::Note, &path, "a string became a number");
                Some(class(&path, &text)?)
            }
            Some(number) => {
                let number = super::object::whole(&path, &number)?;
                Some(u32::try_from(number).map_err(|_| invalid(&path, "is out of range"))?)
                    .filter(|n| *n != 0)
            }
        };
    }
    let mut priorities = Vec::new();
    for mut entry in old.objects("priorities")? {
        let name = entry.text("name")?.unwrap_or_default();
        priorities.push(InterfacePriority { name, priority: entry.fitting("priority")?.unwrap_or(0) });
    }
    work.drop_rest(old);
    Ok(Network { class_id, priorities })
}

fn class(path: &str, text: &str) -> Result<u32> {
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| invalid(path, format!("{text:?} is neither a decimal nor a 0x number of 32 bits")))
}
