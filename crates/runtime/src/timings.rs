//! How long each stage of a command took, for `--timings`.
//!
//! A process does one command, so there is one stop watch in it. Nothing is kept until [`enable`] is called.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::time::{ClockId, clock_gettime};

/// When the last stage ended, in nanoseconds of the monotonic clock; 0 while nothing is kept.
static LAST: AtomicU64 = AtomicU64::new(0);
static STAGES: Mutex<Vec<Stage>> = Mutex::new(Vec::new());

struct Stage {
    name: &'static str,
    nanos: u64,
    /// Another process's, beside this one's.
    beside: bool,
}

/// Returns the monotonic clock in nanoseconds. For init too: allocates nothing.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// Starts the watch.
pub fn enable() {
    LAST.store(now(), Ordering::Relaxed);
}

/// Ends a stage.
pub fn stage(name: &'static str) {
    let last = LAST.load(Ordering::Relaxed);
    if last == 0 {
        return;
    }
    let now = now();
    LAST.store(now, Ordering::Relaxed);
    add(Stage { name, nanos: now.saturating_sub(last), beside: false });
}

/// Tells of a stage of init, which works beside this process.
pub(crate) fn beside(name: &'static str, from: u64, to: u64) {
    if LAST.load(Ordering::Relaxed) != 0 && from != 0 {
        add(Stage { name, nanos: to.saturating_sub(from), beside: true });
    }
}

fn add(stage: Stage) {
    STAGES.lock().unwrap_or_else(PoisonError::into_inner).push(stage);
}

/// Prints the stages to standard error, and their sum without those of init, which pass in the same time.
pub fn print() {
    let stages = STAGES.lock().unwrap_or_else(PoisonError::into_inner);
    if stages.is_empty() {
        return;
    }
    let mut stderr = std::io::stderr().lock();
    let micros = |nanos: u64| nanos / 1000;
    for Stage { name, nanos, beside } in stages.iter() {
        let name = if *beside { format!("(init) {name}") } else { (*name).to_owned() };
        // Nobody reads it when standard error is closed.
        let _ = writeln!(stderr, "timings: {name:<32} {:>7} us", micros(*nanos));
    }
    let total: u64 = stages.iter().filter(|stage| !stage.beside).map(|stage| stage.nanos).sum();
    let _ = writeln!(stderr, "timings: {:<32} {:>7} us", "total", micros(total));
}
