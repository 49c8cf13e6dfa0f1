//! What a file is to execve: ELF with its interpreter and libraries, a script, or nothing. Offsets are a stranger's.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

const HEADER_LIMIT: usize = 128;
const STRING_LIMIT: usize = 4096;
const NEEDED_LIMIT: usize = 256;
const DYNAMIC_LIMIT: usize = 64 << 10;

/// A file that the kernel is to execute.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Binary {
    /// An ELF program.
    Elf(Elf),
    /// A script with its first line after `#!`.
    Script(String),
    /// Empty.
    Empty,
    /// Anything else.
    Other,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Elf {
    /// `e_machine`.
    pub(crate) machine: u16,
    /// It is a program or a shared object that can be one.
    pub(super) executable: bool,
    /// The dynamic loader.
    pub(crate) interpreter: Option<String>,
    /// Libraries by name.
    pub(crate) needed: Vec<String>,
    /// DT_RUNPATH or DT_RPATH.
    pub(crate) run_path: Option<String>,
}

/// The name of a machine and whether this one executes it.
pub(crate) fn machine(number: u16) -> (String, bool) {
    let (name, arches): (&str, &[&str]) = match number {
        3 => ("x86 (32 bit)", &["x86", "x86_64"]),
        8 => ("mips", &["mips", "mips64"]),
        21 => ("ppc64", &["powerpc64"]),
        22 => ("s390x", &["s390x"]),
        40 => ("arm (32 bit)", &["arm", "aarch64"]),
        62 => ("amd64", &["x86_64"]),
        183 => ("arm64", &["aarch64"]),
        243 => ("riscv64", &["riscv64"]),
        258 => ("loong64", &["loongarch64"]),
        other => return (format!("machine {other}"), false),
    };
    (name.to_owned(), arches.contains(&std::env::consts::ARCH))
}

/// Looks into an open file.
pub(crate) fn inspect(fd: OwnedFd) -> std::io::Result<Binary> {
    let file = File::from(fd);
    let mut head = [0_u8; 256];
    let length = read_at(&file, &mut head, 0)?;
    let head = &head[..length];
    Ok(match head {
        [] => Binary::Empty,
        [b'#', b'!', rest @ ..] => {
            let line = rest.split(|b| *b == b'\n').next().unwrap_or_default();
            Binary::Script(String::from_utf8_lossy(line).into_owned())
        }
        [0x7f, b'E', b'L', b'F', ..] => {
            Reader::new(&file, head).map_or(Binary::Other, |r| Binary::Elf(r.elf()))
        }
        _ => Binary::Other,
    })
}

fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset.saturating_add(done as u64)) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

#[derive(Clone, Copy, Default)]
struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    size: u64,
}

struct Reader<'a> {
    file: &'a File,
    wide: bool,
    big: bool,
    kind: u16,
    machine: u16,
    segments: Vec<Segment>,
}

impl<'a> Reader<'a> {
    fn new(file: &'a File, head: &[u8]) -> Option<Self> {
        let wide = *head.get(4)? == 2;
        let big = *head.get(5)? == 2;
        let mut reader = Self { file, wide, big, kind: 0, machine: 0, segments: Vec::new() };
        reader.kind = u16::try_from(reader.number(head, 16, 2)?).ok()?;
        reader.machine = u16::try_from(reader.number(head, 18, 2)?).ok()?;
        let (table, size_at) =
            if wide { (reader.number(head, 32, 8)?, 54) } else { (reader.number(head, 28, 4)?, 42) };
        let size = usize::try_from(reader.number(head, size_at, 2)?).ok()?;
        let count = usize::try_from(reader.number(head, size_at + 2, 2)?).ok()?.min(HEADER_LIMIT);
        if !(32..=256).contains(&size) {
            return Some(reader);
        }
        let mut headers = vec![0; size * count];
        let length = read_at(file, &mut headers, table).ok()?;
        reader.segments = headers[..length].chunks_exact(size).filter_map(|h| reader.segment(h)).collect();
        Some(reader)
    }

    fn number(&self, bytes: &[u8], at: usize, size: usize) -> Option<u64> {
        let bytes = bytes.get(at..at + size)?;
        let add = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        Some(if self.big { bytes.iter().fold(0, add) } else { bytes.iter().rev().fold(0, add) })
    }

    fn segment(&self, header: &[u8]) -> Option<Segment> {
        let kind = u32::try_from(self.number(header, 0, 4)?).ok()?;
        let (offset, address, size) = if self.wide { (8, 16, 32) } else { (4, 8, 16) };
        let word = if self.wide { 8 } else { 4 };
        Some(Segment {
            kind,
            offset: self.number(header, offset, word)?,
            address: self.number(header, address, word)?,
            size: self.number(header, size, word)?,
        })
    }

    fn elf(&self) -> Elf {
        const LOADER: u32 = 3;
        let interpreter = self.segments.iter().find(|s| s.kind == LOADER).and_then(|s| self.string(s.offset));
        let mut elf = Elf {
            machine: self.machine,
            executable: matches!(self.kind, 2 | 3),
            interpreter,
            ..Elf::default()
        };
        self.dynamic(&mut elf);
        elf
    }

    fn string(&self, offset: u64) -> Option<String> {
        let mut buffer = vec![0; STRING_LIMIT];
        let length = read_at(self.file, &mut buffer, offset).ok()?;
        let end = buffer[..length].iter().position(|b| *b == 0)?;
        Some(String::from_utf8_lossy(&buffer[..end]).into_owned())
    }

    /// Reads the names of libraries from the dynamic section.
    fn dynamic(&self, elf: &mut Elf) {
        const DYNAMIC: u32 = 2;
        const NEEDED: u64 = 1;
        const STRINGS: u64 = 5;
        const RPATH: u64 = 15;
        const RUNPATH: u64 = 29;
        let Some(segment) = self.segments.iter().find(|s| s.kind == DYNAMIC) else { return };
        let word = if self.wide { 8 } else { 4 };
        let mut bytes = vec![0; usize::try_from(segment.size).unwrap_or(usize::MAX).min(DYNAMIC_LIMIT)];
        let Ok(length) = read_at(self.file, &mut bytes, segment.offset) else { return };
        let entries = bytes[..length].chunks_exact(2 * word);
        let entries: Vec<(u64, u64)> = entries
            .filter_map(|e| Some((self.number(e, 0, word)?, self.number(e, word, word)?)))
            .take_while(|(tag, _)| *tag != 0)
            .collect();
        let Some(strings) =
            entries.iter().find(|(tag, _)| *tag == STRINGS).and_then(|(_, a)| self.offset_of(*a))
        else {
            return;
        };
        let text = |at: u64| self.string(strings.checked_add(at)?);
        let needed = entries.iter().filter(|(tag, _)| *tag == NEEDED).take(NEEDED_LIMIT);
        elf.needed = needed.filter_map(|(_, at)| text(*at)).collect();
        let path = entries.iter().rfind(|(tag, _)| *tag == RUNPATH || *tag == RPATH);
        elf.run_path = path.and_then(|(_, at)| text(*at));
    }

    /// Where in the file an address is.
    fn offset_of(&self, address: u64) -> Option<u64> {
        const LOAD: u32 = 1;
        let inside = |s: &&Segment| s.kind == LOAD && address >= s.address && address - s.address < s.size;
        let segment = self.segments.iter().find(inside)?;
        segment.offset.checked_add(address - segment.address)
    }
}
