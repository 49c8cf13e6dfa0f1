//! `events`.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use bale_fault::{Fault, Kind, Result};
use bale_record::Dir;
use bale_runtime::OomWatch;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::args::{Flag, flag, parse, value};
use super::{Global, print};
use crate::exit::ExitCode;

pub const EVENTS: &[Flag] = &[flag("stats", ""), value("interval", "")];

/// `events [--stats] [--interval DURATION] ID`: a line of statistics, once or until the container ends, and a line
/// whenever its memory has run out.
pub fn events(global: &Global, arguments: &[OsString]) -> Result<ExitCode> {
    let parsed = parse(EVENTS, arguments, false)?.at_most(1)?;
    let dir = global.container(&parsed)?;
    let interval = interval(&parsed.last("interval").unwrap_or_else(|| "5s".to_owned()))?;
    if parsed.has("stats") {
        return Ok(print(&line(&dir)?));
    }
    let record = dir.load()?;
    let gone = || Fault::new(Kind::Conflict, "container not running");
    let init = record.init.as_ref().filter(|init| init.is_alive()).ok_or_else(gone)?;
    let pidfd = init.open()?.ok_or_else(gone)?;
    let mut watch = bale_runtime::watch_oom(&dir)?;
    let mut next = Instant::now();
    loop {
        if Instant::now() >= next {
            // It may have ended just now.
            line(&dir).map(|line| print(&line)).ok();
            next = Instant::now() + interval;
        }
        let ended = wait(&pidfd, watch.as_ref(), next)?;
        if watch.as_mut().is_some_and(OomWatch::has_happened) {
            print(&format!("{}\n", serde_json::json!({"type": "oom", "id": dir.id()})));
        }
        if ended {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// Waits until the process has ended, memory has run out or it is time; tells whether it has ended.
fn wait(pidfd: &OwnedFd, watch: Option<&OomWatch>, until: Instant) -> Result<bool> {
    let left = until.saturating_duration_since(Instant::now());
    let timeout = Timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: left.subsec_nanos().into(),
    };
    let mut fds = vec![PollFd::new(pidfd, PollFlags::IN)];
    let watched = watch.map(OomWatch::poll);
    fds.extend(watched.as_ref().map(|(fd, events)| PollFd::new(fd, *events)));
    match poll(&mut fds, Some(&timeout)) {
        Ok(_) => Ok(!fds[0].revents().is_empty()),
        Err(Errno::INTR) => Ok(false),
        Err(errno) => Err(bale_sys::Error::new("poll(<init>, <memory events>)", errno).into()),
    }
}

fn line(dir: &Dir) -> Result<String> {
    let stats = bale_runtime::stats(dir)?;
    let text = serde_json::json!({"type": "stats", "id": dir.id(), "data": stats});
    Ok(format!("{text}\n"))
}

/// A duration as Go writes it: `1h30m`, `1.5s`, `500us`.
fn interval(text: &str) -> Result<Duration> {
    let bad =
        || Fault::new(Kind::InvalidInput, format!("duration interval must be greater than 0: {text:?}"));
    duration(text).filter(|length| !length.is_zero()).ok_or_else(bad)
}

fn duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, f64); 8] = [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("µs", 1e-6),
        ("μs", 1e-6),
        ("ms", 1e-3),
        ("h", 3600.0),
        ("m", 60.0),
        ("s", 1.0),
    ];
    let mut seconds = 0.0;
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let (unit, scale) = UNITS.into_iter().find(|(unit, _)| rest[digits..].starts_with(unit))?;
        seconds += number * scale;
        rest = &rest[digits + unit.len()..];
    }
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (text, ms) in
            [("5s", 5000), ("1h30m", 5_400_000), ("1.5s", 1500), ("250ms", 250), ("2m3s", 123_000)]
        {
            assert_eq!(duration(text).unwrap().as_millis(), ms, "{text}");
        }
        assert_eq!(duration("500us").unwrap().as_micros(), 500);
        for bad in ["", "0s", "5", "-1s", "s", "1x", "1s2", "1.2.3s"] {
            assert!(interval(bad).is_err(), "{bad:?}");
        }
    }
}
