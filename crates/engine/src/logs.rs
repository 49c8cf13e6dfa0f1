//! `logs`: what a container wrote, read back from its log.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;

use bale_fault::{Context, Fault, Kind, Result};
use bale_record::control::{Event, Request};
use bale_record::time::{TEXT_BYTES, Time};

use crate::Engine;
use crate::client::{Client, Said};

/// Bytes read from a log at once.
const CHUNK_BYTES: usize = 64 << 10;
/// Time, stream (`stdout` or `stderr`), tag and three spaces.
const PREFIX_BYTES: usize = TEXT_BYTES + 10;
/// Where the tag (`F` or `P`) stands in a line.
const TAG_AT: usize = PREFIX_BYTES - 2;
/// The longest line that is kept while its end is not there yet; the supervisor writes at most a quarter of it.
const LINE_LIMIT_BYTES: usize = 128 << 10;

/// One line of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// When it was read from the container: RFC 3339 in UTC with nine digits, so that text sorts as time does.
    pub time: &'a [u8],
    /// It was written to standard error.
    pub stderr: bool,
    /// It ended with a newline; otherwise the next entry of the stream continues it.
    pub whole: bool,
    /// The text without a newline.
    pub text: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Reads one line without its newline; `None` when it is none (torn by a full disk or a power cut).
    #[must_use]
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let (prefix, text) = line.split_at_checked(PREFIX_BYTES)?;
        let stderr = match &prefix[TEXT_BYTES..TAG_AT] {
            b" stdout " => false,
            b" stderr " => true,
            _ => return None,
        };
        let whole = match &prefix[TAG_AT..] {
            b"F " => true,
            b"P " => false,
            _ => return None,
        };
        Some(Self { time: &prefix[..TEXT_BYTES], stderr, whole, text })
    }
}

/// Reads a log from an offset on, as far as it goes at the moment.
#[derive(Debug)]
pub struct Reader {
    file: File,
    offset_bytes: u64,
    /// What was read: a whole number of lines, then the beginning of one.
    buffer: Vec<u8>,
    /// Length of the lines in `buffer` that were given out.
    used: usize,
}

impl Reader {
    /// Reads `file` from `offset_bytes` on.
    #[must_use]
    pub const fn new(file: File, offset_bytes: u64) -> Self {
        Self { file, offset_bytes, buffer: Vec::new(), used: 0 }
    }

    /// Returns how far the log was read, in bytes.
    #[must_use]
    pub const fn offset_bytes(&self) -> u64 {
        self.offset_bytes
    }

    /// Reads a piece of the log and hands its lines to `take`, which says whether it wants more of them; tells
    /// whether anything was read.
    ///
    /// # Errors
    /// The failed read, or what `take` says.
    pub fn read(&mut self, mut take: impl FnMut(Entry<'_>) -> Result<()>) -> Result<bool> {
        self.buffer.drain(..self.used);
        self.used = 0;
        if self.buffer.len() > LINE_LIMIT_BYTES {
            self.buffer.clear();
        }
        let kept = self.buffer.len();
        self.buffer.resize(kept + CHUNK_BYTES, 0);
        let read = self.file.read_at(&mut self.buffer[kept..], self.offset_bytes).within(|| "read the log");
        let length = *read.as_ref().unwrap_or(&0);
        self.buffer.truncate(kept + length);
        read?;
        self.offset_bytes += length as u64;
        let end = self.buffer.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
        self.used = end;
        for line in self.buffer[..end].split_inclusive(|&b| b == b'\n') {
            if let Some(entry) = Entry::parse(&line[..line.len() - 1]) {
                take(entry)?;
            }
        }
        Ok(length > 0)
    }
}

/// Finds the offset at which the last `lines` lines of a log begin.
///
/// # Errors
/// The failed read.
pub fn tail_offset(file: &File, lines: u64) -> Result<u64> {
    let words = || "read the log";
    let mut end = file.metadata().within(words)?.len();
    let mut seen = 0;
    let mut start_of_later = end;
    let mut block = vec![0u8; CHUNK_BYTES];
    while end > 0 {
        let begin = end.saturating_sub(CHUNK_BYTES as u64);
        let length = usize::try_from(end - begin).unwrap_or(0);
        file.read_exact_at(&mut block[..length], begin).within(words)?;
        for at in (0..length).rev() {
            // A line begins behind a newline, or at the beginning of the log.
            let start = begin + at as u64;
            let begins =
                start == 0 || (at > 0 && block[at - 1] == b'\n') || (at == 0 && ends_line(file, start)?);
            if !begins {
                continue;
            }
            let mut tag = [0u8];
            let whole = file.read_at(&mut tag, start + TAG_AT as u64).within(words)? == 0 || tag != *b"P";
            // What ends without a newline at the end of the log is a line too.
            if whole || seen == 0 {
                if seen == lines {
                    return Ok(start_of_later);
                }
                seen += 1;
            }
            start_of_later = start;
        }
        end = begin;
    }
    Ok(0)
}

fn ends_line(file: &File, start: u64) -> Result<bool> {
    let mut before = [0u8];
    Ok(file.read_at(&mut before, start - 1).within(|| "read the log")? == 1 && before == *b"\n")
}

/// What of a log is shown.
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    /// Goes on until the container ends.
    pub follow: bool,
    /// Only so many lines from the end.
    pub tail: Option<u64>,
    /// Only what was written at this time or later.
    pub since: Option<Time>,
    /// Only what was written at this time or earlier.
    pub until: Option<Time>,
    /// Puts the time before each line.
    pub timestamps: bool,
}

/// Reads a time as docker's `--since` does: RFC 3339 (also without a zone, which is UTC here, or a date alone),
/// seconds since 1970 with a fraction, or a span before `now` such as `1h30m`.
///
/// # Errors
/// `InvalidInput`.
pub fn parse_time(text: &str, now: Time) -> Result<Time> {
    let dated = || {
        let whole = match text.len() {
            10 => format!("{text}T00:00:00Z"),
            13 => format!("{text}:00:00Z"),
            16 => format!("{text}:00Z"),
            _ if text.ends_with(['Z', 'z']) || text.get(19..).is_some_and(|z| z.contains(['+', '-'])) => {
                text.to_owned()
            }
            _ => format!("{text}Z"),
        };
        Time::parse(&whole)
    };
    let found = seconds(text).or_else(|| before(text, now)).or_else(dated);
    found.ok_or_else(|| {
        Fault::new(Kind::InvalidInput, format!("invalid time {text:?}"))
            .hint("want 2026-11-24T08:00:00Z, seconds since 1970, or a span such as 10m")
    })
}

fn seconds(text: &str) -> Option<Time> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    Some(Time { seconds: whole.parse().ok()?, nanoseconds: format!("{fraction:0<9}").parse().ok()? })
}

/// Reads Go's words for a span: numbers with a fraction, each with a unit.
fn before(text: &str, now: Time) -> Option<Time> {
    let mut nanoseconds: i128 = 0;
    let mut rest = text;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let unit = rest[number..]
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .map_or(rest.len(), |at| number + at);
        let length: i128 = match &rest[number..unit] {
            "ns" => 1,
            "us" | "µs" => 1000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = rest[..number].split_once('.').unwrap_or((&rest[..number], ""));
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        let fraction: i128 = format!("{:0<9}", fraction.get(..9).unwrap_or(fraction)).parse().ok()?;
        nanoseconds =
            nanoseconds.checked_add(whole.checked_mul(length)? + fraction * length / 1_000_000_000)?;
        rest = &rest[unit..];
    }
    let then = i128::from(now.seconds) * 1_000_000_000 + i128::from(now.nanoseconds) - nanoseconds;
    let seconds = i64::try_from(then.div_euclid(1_000_000_000)).ok()?;
    Some(Time { seconds, nanoseconds: u32::try_from(then.rem_euclid(1_000_000_000)).ok()? })
}

/// Writes entries as a user reads them.
struct Printer<'a> {
    options: &'a LogOptions,
    since: Option<[u8; TEXT_BYTES]>,
    until: Option<[u8; TEXT_BYTES]>,
    /// The last entry of each stream had no newline.
    open: [bool; 2],
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
}

impl Printer<'_> {
    fn print(&mut self, entry: Entry<'_>) -> Result<()> {
        let early = self.since.as_ref().is_some_and(|since| entry.time < since.as_slice());
        let late = self.until.as_ref().is_some_and(|until| entry.time > until.as_slice());
        if early || late {
            return Ok(());
        }
        let open = &mut self.open[usize::from(entry.stderr)];
        let to: &mut dyn Write = if entry.stderr { self.err } else { self.out };
        let stamped = self.options.timestamps && !*open;
        *open = !entry.whole;
        let mut write = || -> std::io::Result<()> {
            if stamped {
                to.write_all(entry.time)?;
                to.write_all(b" ")?;
            }
            to.write_all(entry.text)?;
            if entry.whole { to.write_all(b"\n") } else { Ok(()) }
        };
        write().within(|| "write the log")
    }

    fn flush(&mut self) -> Result<()> {
        self.out.flush().and_then(|()| self.err.flush()).within(|| "write the log")
    }
}

impl Engine {
    /// Writes what a container wrote to `out` and `err`.
    ///
    /// # Errors
    /// `NotFound` without such a container; the failed read or write.
    pub fn logs(
        &self,
        name: &str,
        options: &LogOptions,
        out: &mut dyn Write,
        err: &mut dyn Write,
    ) -> Result<()> {
        let container = self.container(name)?;
        let file = match container.open_log() {
            Err(fault) if fault.kind() == Kind::NotFound && !options.follow => return Ok(()),
            other => other?,
        };
        // Connected before the first read: whatever is written in between is heard of.
        let client = if options.follow { Client::connect(&container.dir)? } else { None };
        let offset = options.tail.map_or(Ok(0), |lines| tail_offset(&file, lines))?;
        let mut reader = Reader::new(file, offset);
        let text = |time: Option<Time>| time.map(Time::text);
        let (since, until) = (text(options.since), text(options.until));
        let mut printer = Printer { options, since, until, open: [false; 2], out, err };
        loop {
            while reader.read(|entry| printer.print(entry))? {}
            printer.flush()?;
            let Some(client) = &client else { return Ok(()) };
            if !wait_for_more(client, reader.offset_bytes())? {
                while reader.read(|entry| printer.print(entry))? {}
                return printer.flush();
            }
        }
    }
}

/// Waits until the log is longer than `offset_bytes`; `false` when the container has ended.
fn wait_for_more(client: &Client, offset_bytes: u64) -> Result<bool> {
    client.ask(&Request::Watch { offset_bytes })?;
    loop {
        match client.listen()? {
            Said::Event(Event::Grown { .. }, _) => return Ok(true),
            Said::Event(Event::Exited { .. } | Event::Failed(_), _) | Said::End => return Ok(false),
            Said::Event(..) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: &str = "2026-11-24T08:06:02.000000001Z";

    fn log(lines: &[&str]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        for line in lines {
            writeln!(file, "{T} {line}").unwrap();
        }
        file
    }

    fn read(file: File, offset: u64) -> Vec<String> {
        let mut reader = Reader::new(file, offset);
        let mut found = Vec::new();
        let mut take = |e: Entry<'_>| {
            found.push(format!(
                "{}{}{}",
                u8::from(e.stderr),
                u8::from(e.whole),
                String::from_utf8_lossy(e.text)
            ));
            Ok(())
        };
        while reader.read(&mut take).unwrap() {}
        found
    }

    #[test]
    fn lines_are_read_back_and_torn_ones_passed_over() {
        let file = log(&["stdout F one", "stderr P tw", "stdout F ", "nonsense", "stderr F o"]);
        assert_eq!(read(file, 0), ["01one", "10tw", "01", "11o"]);
    }

    #[test]
    fn a_tail_counts_whole_lines() {
        let lines = ["stdout F a", "stdout P b1", "stdout F b2", "stdout F c", "stdout P d"];
        for (count, wanted) in [
            (0, &[][..]),
            (1, &["00d"]),
            (2, &["01c", "00d"]),
            (3, &["00b1", "01b2", "01c", "00d"]),
            (4, &["01a", "00b1", "01b2", "01c", "00d"]),
            (9, &["01a", "00b1", "01b2", "01c", "00d"]),
        ] {
            let file = log(&lines);
            let offset = tail_offset(&file, count).unwrap();
            assert_eq!(read(file, offset), wanted, "{count}");
        }
        let many: Vec<String> = (0..5000).map(|n| format!("stdout F {n}")).collect();
        let file = log(&many.iter().map(String::as_str).collect::<Vec<_>>());
        let offset = tail_offset(&file, 3000).unwrap();
        assert_eq!(read(file, offset).first().map(String::as_str), Some("012000"));
    }

    #[test]
    fn times_are_read_as_docker_reads_them() {
        let now = Time { seconds: 1_000_000, nanoseconds: 0 };
        let time = |text| parse_time(text, now).map(|t| (t.seconds, t.nanoseconds)).ok();
        for (text, wanted) in [
            ("1000", Some((1000, 0))),
            ("1000.5", Some((1000, 500_000_000))),
            ("100000.5", Some((100_000, 500_000_000))),
            ("10m", Some((999_400, 0))),
            ("1h30m", Some((994_600, 0))),
            ("1.5s", Some((999_998, 500_000_000))),
            ("1970-01-02", Some((86_400, 0))),
            ("1970-01-01T00:01", Some((60, 0))),
            ("1970-01-01T00:01:00", Some((60, 0))),
            ("1970-01-01T01:00:00+01:00", Some((0, 0))),
            ("yesterday", None),
            ("", None),
            ("5x", None),
        ] {
            assert_eq!(time(text), wanted, "{text}");
        }
    }
}
