//! How long each stage took, for `--timings`.

use std::io::Write;
use std::time::Instant;

/// A stop watch with named stages.
#[derive(Debug)]
pub struct Timings {
    on: bool,
    last: Instant,
    stages: Vec<(&'static str, u128)>,
}

impl Timings {
    /// Starts it; when it is not `on` nothing is kept.
    pub fn new(on: bool) -> Self {
        Self { on, last: Instant::now(), stages: Vec::new() }
    }

    /// Ends a stage.
    pub fn stage(&mut self, name: &'static str) {
        if self.on {
            let now = Instant::now();
            self.stages.push((name, now.duration_since(self.last).as_micros()));
            self.last = now;
        }
    }

    /// Prints the stages to standard error.
    pub fn print(&self) {
        if !self.on {
            return;
        }
        let mut stderr = std::io::stderr().lock();
        for (name, micros) in &self.stages {
            // Nobody reads it when standard error is closed.
            let _ = writeln!(stderr, "timings: {name:<16} {micros:>7} us");
        }
        let total: u128 = self.stages.iter().map(|s| s.1).sum();
        let _ = writeln!(stderr, "timings: {:<16} {total:>7} us", "total");
    }
}
