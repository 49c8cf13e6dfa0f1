//! Times, medians, tables.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use bale_testkit::command::shown;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::inside::OWN;
use crate::run::{Result, fail};
use crate::say;

/// The slowest peer pulls the image of the bench in a few seconds.
const LIMIT_S: i64 = 60;

/// Runs a command to its end and returns its time; anything but success ends the bench with the command's words.
pub fn time(command: &mut Command) -> Result<Duration> {
    Ok(time_and_output(command)?.0)
}

/// Runs a command to its end and returns its time and what it wrote to standard output.
pub fn time_and_output(command: &mut Command) -> Result<(Duration, String)> {
    // Files, not pipes: what a container leaves running must not keep us waiting for an end of file.
    let [out, err] = ["out", "err"].map(|name| Path::new(OWN).join(name));
    command.stdin(Stdio::null()).stdout(File::create(&out)?).stderr(File::create(&err)?);
    let began = Instant::now();
    let mut child = command.spawn()?;
    let status = wait(&mut child, command)?;
    let took = began.elapsed();
    let text =
        |file| fs::read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    if !status.success() {
        return fail(format!("{}: {status}\n{}{}", shown(command), text(&out), text(&err)));
    }
    Ok((took, text(&out)))
}

/// Runs a command to its end and returns its time and what it wrote to standard error.
pub fn time_and_errors(command: &mut Command) -> Result<(Duration, String)> {
    let took = time(command)?;
    Ok((took, fs::read_to_string(Path::new(OWN).join("err"))?))
}

/// Waits for a child, and ends it when it takes longer than anything that is measured here could.
fn wait(child: &mut Child, command: &Command) -> Result<ExitStatus> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let Some(pid) = pid else { return fail("strange pid") };
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from)?;
    let limit = Timespec { tv_sec: LIMIT_S, tv_nsec: 0 };
    if poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit)).map_err(io::Error::from)? == 0 {
        child.kill()?;
        child.wait()?;
        return fail(format!("{} did not end within {LIMIT_S} s", shown(command)));
    }
    Ok(child.wait()?)
}

/// A contender's measurements of one thing, in the unit of the table.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Adds a time in milliseconds.
    pub fn add_ms(&mut self, time: Duration) {
        self.0.push(time.as_secs_f64() * 1000.0);
    }

    /// Adds a number.
    pub fn add(&mut self, number: f64) {
        self.0.push(number);
    }

    /// Adds another's measurements.
    pub fn append(&mut self, other: &Self) {
        self.0.extend_from_slice(&other.0);
    }

    /// Returns the value below which `share` (0 to 1) of the measurements lie.
    pub fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "small"
        )]
        let at = (share * (sorted.len().saturating_sub(1)) as f64).round() as usize;
        sorted.get(at).copied().unwrap_or(f64::NAN)
    }

    /// Returns the median.
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }
}

/// A table whose first column is left-aligned and whose others are numbers.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Begins a table with its headings.
    pub fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|text| (*text).to_owned()).collect()] }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Prints it as Markdown, which is readable on a terminal too.
    pub fn print(&self) {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for (number, row) in self.rows.iter().enumerate() {
            let cell = |(column, text): (usize, &String)| {
                let width = widths[column];
                if column == 0 { format!("{text:<width$}") } else { format!("{text:>width$}") }
            };
            say(&format!("| {} |", row.iter().enumerate().map(cell).collect::<Vec<_>>().join(" | ")));
            if number == 0 {
                let rule = |(column, width): (usize, &usize)| {
                    if column == 0 {
                        "-".repeat(*width)
                    } else {
                        format!("{}:", "-".repeat(width.saturating_sub(1)))
                    }
                };
                say(&format!("| {} |", widths.iter().enumerate().map(rule).collect::<Vec<_>>().join(" | ")));
            }
        }
    }
}

/// Prints whether a promise holds.
pub fn verdict(what: &str, have: f64, most: f64, unit: &str) {
    let word = if have <= most { "holds" } else { "MISSED" };
    say(&format!("  {word}: {what}: {have:.2} {unit}, at most {most:.2}"));
}

#[cfg(test)]
mod tests {
    use super::Samples;

    #[test]
    fn the_median_is_in_the_middle() {
        let mut samples = Samples::default();
        for n in [5.0, 1.0, 9.0] {
            samples.add(n);
        }
        assert!((samples.median() - 5.0).abs() < f64::EPSILON);
        assert!((samples.quantile(1.0) - 9.0).abs() < f64::EPSILON);
    }
}
