//! `events`.

use crate::exit::ExitCode;
use std::ffi::OsString;

use bale_fault::{Fault, Kind, Result};
use bale_record::Dir;

use super::args::{Flag, flag, parse, value};
use super::{Global, print};

pub const EVENTS: &[Flag] = &[flag("stats", ""), value("interval", "")];

/// `events [--stats] [--interval DURATION] ID`: a line of statistics, once or until the container ends.
pub fn events(global: &Global, arguments: &[OsString]) -> Result<ExitCode> {
    let parsed = parse(EVENTS, arguments, false)?.at_most(1)?;
    let dir = global.container(&parsed)?;
    let interval_ms = interval(&parsed.last("interval").unwrap_or_else(|| "5s".to_owned()))?;
    if parsed.has("stats") {
        return Ok(print(&line(&dir)?));
    }
    let record = dir.load()?;
    let gone = || Fault::new(Kind::Conflict, "container not running");
    let init = record.init.as_ref().filter(|init| init.is_alive()).ok_or_else(gone)?;
    let pidfd = init.open()?.ok_or_else(gone)?;
    loop {
        print(&line(&dir)?);
        if bale_sys::process::wait_end(&pidfd, Some(interval_ms))? {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

fn line(dir: &Dir) -> Result<String> {
    let stats = bale_runtime::stats(dir)?;
    let text = serde_json::json!({"type": "stats", "id": dir.id(), "data": stats});
    Ok(format!("{text}\n"))
}

/// A duration as Go writes it, in seconds or milliseconds; a bare number is seconds.
fn interval(text: &str) -> Result<u32> {
    let (number, scale) = match (text.strip_suffix("ms"), text.strip_suffix('s'), text.strip_suffix('m')) {
        (Some(number), ..) => (number, 1.0),
        (None, Some(number), _) => (number, 1000.0),
        (None, None, Some(number)) => (number, 60_000.0),
        _ => (text, 1000.0),
    };
    let value = number.parse::<f64>().ok().map(|n| n * scale).filter(|ms| (1.0..86_400_000.0).contains(ms));
    let bad =
        || Fault::new(Kind::InvalidInput, format!("duration interval must be greater than 0: {text:?}"));
    // In range, so nothing is lost but the fraction.
    value.map(|ms| ms as u32).ok_or_else(bad)
}
