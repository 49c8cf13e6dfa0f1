//! Ctrl-C during long work: the work is asked to end and to leave nothing behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bale_fault::{Context, Result};
use bale_sys::signal::SignalFd;
use rustix::event::{PollFd, PollFlags, poll};

/// How long the work may take to end. What it leaves then is removed when the store is opened next.
const PATIENCE: Duration = Duration::from_secs(3);
const INT: i32 = 2;
const TERM: i32 = 15;
const HUP: i32 = 1;

/// Sets the answer when the user interrupts. To be called before the first thread is made: threads inherit the mask.
///
/// # Errors
/// The failed call.
pub fn watch() -> Result<Arc<AtomicBool>> {
    let signals = SignalFd::block(&[INT, TERM, HUP]).map_err(bale_fault::Fault::from)?;
    let cancel = Arc::new(AtomicBool::new(false));
    let shared = Arc::clone(&cancel);
    let watcher = std::thread::Builder::new().name("interrupt".to_owned()).stack_size(64 << 10);
    watcher.spawn(move || wait(&signals, &shared)).within(|| "start a thread")?;
    Ok(cancel)
}

fn wait(signals: &SignalFd, cancel: &AtomicBool) {
    let signal = loop {
        // A failed poll comes back at once; the read tells what is there.
        let _ = poll(&mut [PollFd::new(signals, PollFlags::IN)], None);
        match signals.next() {
            Ok(Some(signal)) => break signal,
            Ok(None) => {}
            Err(_) => return,
        }
    };
    cancel.store(true, Ordering::Relaxed);
    std::thread::sleep(PATIENCE);
    #[allow(clippy::exit, reason = "the user does not wait for a registry that stalls")]
    std::process::exit(128 + signal);
}
