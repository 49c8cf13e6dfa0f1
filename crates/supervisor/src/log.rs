//! The log of a container: CRI lines, written as the container writes.
//!
//! ```text
//! 2026-11-24T08:06:02.123456789Z stdout F a whole line
//! 2026-11-24T08:06:02.123456789Z stderr P a part of one, to be continued
//! ```
//!
//! Bytes are written when they are read: what does not end in a newline is a part at once. So nothing waits in this
//! process, a prompt is seen by those who follow the log, and the death of this process loses nothing. A part has at
//! most [`PART_LIMIT_BYTES`] bytes.

use std::os::fd::{AsFd, OwnedFd};

use bale_fault::Result;
use bale_record::control::LOG;
use bale_record::time::{TEXT_BYTES, Time};
use bale_sys::error::Call;
use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;

/// The longest text of one line in the log, in bytes: what the kubelet reads at most.
pub const PART_LIMIT_BYTES: usize = 16 << 10;
/// The buffer is written when it is longer than this, in bytes. It bounds this process's memory.
const BATCH_BYTES: usize = 48 << 10;
/// Time, stream (`stdout` or `stderr`), tag and three spaces.
const PREFIX_BYTES: usize = TEXT_BYTES + 10;

/// One of the two streams of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The open log.
#[derive(Debug)]
pub struct Log {
    file: OwnedFd,
    size_bytes: u64,
    batch: Vec<u8>,
    /// Bytes of the container that could not be written since the last success.
    lost_bytes: u64,
}

/// What became of bytes that were given to [`Log::append`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// All are in the log.
    Written,
    /// The log could not be written (a full disk, a broken one); it ends with a whole line all the same.
    Lost,
}

impl Log {
    /// Opens the log in the container's directory, after what earlier runs left there.
    ///
    /// # Errors
    /// The failed call.
    pub fn open(directory: impl AsFd) -> Result<Self> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(directory, LOG, flags, Mode::from_raw_mode(0o600))
            .call(|| "openat(\"log\", O_CREAT)")?;
        let size = fs::fstat(&file).call(|| "fstat(\"log\")")?.st_size;
        // Reserved once, so that the allocator never keeps an old copy; untouched pages cost nothing.
        let batch = Vec::with_capacity(BATCH_BYTES + PART_LIMIT_BYTES + PREFIX_BYTES + 1);
        let mut log = Self { file, size_bytes: u64::try_from(size).unwrap_or(0), batch, lost_bytes: 0 };
        log.mend();
        Ok(log)
    }

    /// Ends a line that a power cut tore.
    fn mend(&mut self) {
        let mut last = [b'\n'];
        let torn = self.size_bytes > 0
            && rustix::io::pread(&self.file, &mut last, self.size_bytes - 1) == Ok(1)
            && last != [b'\n'];
        if torn {
            self.batch.push(b'\n');
            self.flush();
        }
    }

    /// Returns the length of the log in bytes.
    #[must_use]
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Writes what the container wrote at `time`.
    pub fn append(&mut self, stream: Stream, bytes: &[u8], time: Time) -> Appended {
        if self.lost_bytes > 0 && !self.tell_loss(time) {
            self.lost_bytes += bytes.len() as u64;
            return Appended::Lost;
        }
        let prefix = prefix(stream, time);
        let mut unwritten = bytes.len();
        let mut rest = bytes;
        while !rest.is_empty() {
            let length = add_line(&mut self.batch, &prefix, rest);
            rest = &rest[length..];
            if self.batch.len() <= BATCH_BYTES && !rest.is_empty() {
                continue;
            }
            if !self.flush() {
                self.lost_bytes += unwritten as u64;
                return Appended::Lost;
            }
            unwritten = rest.len();
        }
        Appended::Written
    }

    /// Says in the log how much is missing from it.
    fn tell_loss(&mut self, time: Time) -> bool {
        let text = format!(
            "bale: {} bytes of output are missing here: the log could not be written\n",
            self.lost_bytes
        );
        add_line(&mut self.batch, &prefix(Stream::Stderr, time), text.as_bytes());
        let written = self.flush();
        if written {
            self.lost_bytes = 0;
        }
        written
    }

    /// Writes the batch whole, or takes back what was written of it.
    fn flush(&mut self) -> bool {
        let mut rest = self.batch.as_slice();
        while !rest.is_empty() {
            match rustix::io::write(&self.file, rest) {
                Ok(0) => break,
                Ok(length) => rest = &rest[length..],
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        let whole = rest.is_empty();
        if whole {
            self.size_bytes += self.batch.len() as u64;
        } else {
            // A torn line would be read as one with the next. If even this fails, the reader skips what is no line.
            let _ = fs::ftruncate(&self.file, self.size_bytes);
        }
        self.batch.clear();
        whole
    }
}

fn prefix(stream: Stream, time: Time) -> [u8; PREFIX_BYTES] {
    let mut prefix = [b' '; PREFIX_BYTES];
    prefix[..TEXT_BYTES].copy_from_slice(&time.text());
    let name = if stream == Stream::Stdout { b" stdout F " } else { b" stderr F " };
    prefix[TEXT_BYTES..].copy_from_slice(name);
    prefix
}

/// Adds the first line, or part of one, of `bytes` to `batch` and returns how many bytes it took.
fn add_line(batch: &mut Vec<u8>, prefix: &[u8; PREFIX_BYTES], bytes: &[u8]) -> usize {
    let most = &bytes[..bytes.len().min(PART_LIMIT_BYTES)];
    batch.extend_from_slice(prefix);
    let (text, taken) = match find_newline(most) {
        Some(end) => (&most[..end], end + 1),
        // The newline right behind the limit still belongs to this line.
        None if bytes.get(most.len()) == Some(&b'\n') => (most, most.len() + 1),
        None => {
            let tag = batch.len() - 2;
            batch[tag] = b'P';
            (most, most.len())
        }
    };
    batch.extend_from_slice(text);
    batch.push(b'\n');
    taken
}

/// Finds the first newline, eight bytes at a time: the standard library's search is only quick for single bytes of
/// `str`, and lines of 64 bytes are the common case.
fn find_newline(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word) ^ (ONES * b'\n' as u64);
        // A zero byte borrows from its high bit; the lowest marked byte is always a true one.
        let found = word.wrapping_sub(ONES) & !word & HIGHS;
        if found != 0 {
            return Some(index * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    rest.iter().position(|&b| b == b'\n').map(|at| words.len() * 8 + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8]) -> Vec<(char, Vec<u8>)> {
        let mut batch = Vec::new();
        let mut rest = bytes;
        let prefix = prefix(Stream::Stdout, Time { seconds: 0, nanoseconds: 0 });
        while !rest.is_empty() {
            let taken = add_line(&mut batch, &prefix, rest);
            rest = &rest[taken..];
        }
        assert!(batch.is_empty() || batch.ends_with(b"\n"));
        let mut found = Vec::new();
        for line in batch.split_inclusive(|&b| b == b'\n') {
            assert!(line.starts_with(b"1970-01-01T00:00:00.000000000Z stdout "));
            found.push((line[38] as char, line[40..line.len() - 1].to_vec()));
        }
        found
    }

    #[test]
    fn lines_are_whole_and_the_rest_is_a_part() {
        assert_eq!(lines(b"one\n\ntwo"), [('F', b"one".to_vec()), ('F', vec![]), ('P', b"two".to_vec())]);
        assert_eq!(lines(b""), []);
        let long = vec![b'x'; PART_LIMIT_BYTES];
        let with_newline = [long.as_slice(), b"\n"].concat();
        assert_eq!(lines(&with_newline), [('F', long.clone())]);
        let longer = [long.as_slice(), b"y\n"].concat();
        assert_eq!(lines(&longer), [('P', long), ('F', b"y".to_vec())]);
    }

    #[test]
    fn the_newline_is_found_wherever_it_is() {
        for length in 0..40 {
            for at in 0..length {
                let mut bytes = vec![0x0bu8; length];
                bytes[at] = b'\n';
                assert_eq!(find_newline(&bytes), Some(at));
                bytes[at] = 0x8a;
                assert_eq!(find_newline(&bytes), None);
            }
        }
    }

    #[test]
    fn a_log_that_cannot_be_written_says_so_later() {
        let dir = tempfile::tempdir().unwrap();
        let fd = bale_sys::root::RootFd::open(dir.path()).unwrap();
        let full = fs::open("/dev/full", OFlags::RDWR, Mode::empty()).unwrap();
        let mut log = Log::open(&fd).unwrap();
        let good = std::mem::replace(&mut log.file, full);
        let time = Time { seconds: 0, nanoseconds: 0 };
        assert_eq!(log.append(Stream::Stdout, b"gone\n", time), Appended::Lost);
        assert_eq!(log.append(Stream::Stdout, b"too\n", time), Appended::Lost);
        log.file = good;
        assert_eq!(log.append(Stream::Stdout, b"here\n", time), Appended::Written);
        let text = std::fs::read_to_string(dir.path().join(LOG)).unwrap();
        assert_eq!(text.len() as u64, log.size_bytes());
        assert!(text.contains(" stderr F bale: 9 bytes of output are missing here"), "{text}");
        assert!(text.ends_with(" stdout F here\n"), "{text}");
    }

    #[test]
    fn a_torn_line_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let fd = bale_sys::root::RootFd::open(dir.path()).unwrap();
        std::fs::write(dir.path().join(LOG), "2026-").unwrap();
        assert_eq!(Log::open(&fd).unwrap().size_bytes(), 6);
    }
}
