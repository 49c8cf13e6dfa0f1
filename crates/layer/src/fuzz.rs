//! Fuzz targets; `testkit/src/fuzz.rs` says how they are run. What writes files wants root: the kernel's answers for
//! whiteouts and attributes are part of what is tested.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use bale_fault::Result;
use bale_sys::root::RootFd;

use crate::pack::{PackOptions, Source, pack};
use crate::tar::{Entry, Event, Kind, Reader, Xattr};
use crate::{Compression, FlatWriter, LayerWriter, Limits, OverlayWriter, Table, UnpackOptions, unpack};

/// What was read: entries as words, the count of their content, and how it ended.
fn read(archive: &[u8], step: usize) -> (Vec<String>, u64, Option<String>) {
    let mut reader = Reader::new(Limits::default());
    let (mut entries, mut content) = (Vec::new(), 0);
    for mut piece in archive.chunks(step) {
        loop {
            match reader.next(&mut piece) {
                Ok(Some(Event::Entry(entry))) => entries.push(format!("{entry:?}")),
                Ok(Some(Event::Data { offset, bytes })) => {
                    assert!(!bytes.is_empty() && offset.checked_add(bytes.len() as u64).is_some());
                    content += bytes.len() as u64;
                }
                Ok(None) => break,
                Err(fault) => return (entries, content, Some(fault.chain())),
            }
        }
        assert!(piece.is_empty());
    }
    let end = reader.finish().err().map(|fault| fault.chain());
    (entries, content, end)
}

/// The tar reader: the same events however the archive is cut, and no more content than there are bytes.
pub fn tar(archive: &[u8]) {
    let whole = read(archive, archive.len().max(1));
    assert!(whole.1 <= archive.len() as u64);
    assert_eq!(whole, read(archive, 509));
}

/// A writer that keeps nothing.
#[derive(Default)]
struct Nowhere {
    is_finished: bool,
}

impl LayerWriter for Nowhere {
    fn entry(&mut self, _entry: Entry) -> Result<()> {
        Ok(())
    }

    fn data(&mut self, _offset: u64, _bytes: &[u8]) -> Result<()> {
        Ok(())
    }

    fn finish(&mut self) -> Result<Table> {
        self.is_finished = true;
        Ok(Table::default())
    }
}

fn small() -> UnpackOptions {
    let limits = Limits { tar_bytes: 16 << 20, ..Limits::default() };
    UnpackOptions { limits, ..UnpackOptions::default() }
}

/// The whole pipeline: it ends, and it finishes the writer only when all was sound.
pub fn unpack_blob(blob: &[u8]) {
    let mut writer = Nowhere::default();
    let outcome = unpack(blob, small(), &mut writer);
    assert_eq!(outcome.is_ok(), writer.is_finished);
}

/// A root directory beside a file that must not change, gone at the end.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("bale-fuzz-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let place = Self(std::env::temp_dir().join(name));
        fs::create_dir(&place.0).expect("mkdir");
        fs::create_dir(place.outside()).expect("mkdir");
        fs::write(place.outside().join("victim"), "untouched").expect("write");
        fs::set_permissions(place.outside().join("victim"), fs::Permissions::from_mode(0o640))
            .expect("chmod");
        place
    }

    fn outside(&self) -> PathBuf {
        self.0.join("outside")
    }

    fn root(&self, name: &str) -> (PathBuf, RootFd) {
        let path = self.0.join(name);
        fs::create_dir_all(&path).expect("mkdir");
        let fd = RootFd::open(&path).expect("open");
        (path, fd)
    }

    fn check(&self, roots: usize) {
        let names: Vec<_> =
            fs::read_dir(&self.0).expect("read").map(|e| e.expect("entry").file_name()).collect();
        let outside: Vec<_> = fs::read_dir(self.outside()).expect("read").collect();
        assert!(names.len() == 1 + roots && outside.len() == 1, "{names:?} {outside:?}");
        let victim = self.outside().join("victim");
        let meta = fs::metadata(&victim).expect("victim");
        assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.nlink()), (0o640, 0, 1));
        assert_eq!(fs::read(victim).expect("victim"), b"untouched");
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Attributes by which the kernel would give a lower file another's content or name.
fn has_overlay_magic(path: &Path) -> bool {
    let mut names = [0; 4096];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
    let magic = |name: &[u8]| {
        [
            &b"overlay.redirect"[..],
            b"overlay.metacopy",
            b"overlay.origin",
            b"overlay.nlink",
            b"overlay.impure",
        ]
        .iter()
        .any(|tail| name.ends_with(tail))
    };
    names[..length].split(|b| *b == 0).any(magic)
}

fn walk(dir: &Path, see: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(dir).expect("read").flatten() {
        see(&entry.path());
        if entry.file_type().expect("type").is_dir() {
            walk(&entry.path(), see);
        }
    }
}

const NAMES: [&str; 8] = ["a", "b", "..", ".wh.a", ".wh..wh..opq", "", "outside", "victim"];
const ATTRIBUTES: [&str; 8] = [
    "user.a",
    "trusted.overlay.redirect",
    "trusted.overlay.opaque",
    "user.overlay.redirect",
    "security.capability",
    "trusted.overlay.metacopy",
    "system.posix_acl_access",
    "trusted.overlay.whiteout",
];

fn path(bits: u16) -> Vec<u8> {
    let depth = usize::from(bits >> 13) % 4 + 1;
    let names: Vec<&str> = (0..depth).map(|at| NAMES[usize::from(bits >> (3 * at)) % NAMES.len()]).collect();
    names.join("/").into_bytes()
}

fn entry(bytes: &[u8]) -> Entry {
    let kinds = [Kind::File, Kind::Directory, Kind::Symlink, Kind::HardLink, Kind::Fifo, Kind::CharDevice];
    let mut entry = Entry::new(
        path(u16::from_le_bytes([bytes[1], bytes[2]])),
        kinds[usize::from(bytes[0]) % kinds.len()],
    );
    entry.link = path(u16::from_le_bytes([bytes[3], bytes[4]]));
    entry.mode = 0o777;
    entry.device = (0, u32::from(bytes[5] & 1));
    if bytes[5] & 0x80 != 0 {
        let name = ATTRIBUTES[usize::from(bytes[5] >> 1) % ATTRIBUTES.len()].into();
        entry.xattrs.push(Xattr { name, value: b"/outside".to_vec() });
    }
    entry
}

fn apply(writer: &mut dyn LayerWriter, program: &[u8]) {
    for bytes in program.chunks_exact(6) {
        if writer.entry(entry(bytes)).is_err() {
            return;
        }
    }
    let _ = writer.finish();
}

/// Entries of few names, all types and every kind of path, written to both forms: nothing outside the root changes.
pub fn write(program: &[u8]) {
    let place = Place::new();
    let (overlay, fd) = place.root("overlay");
    apply(&mut OverlayWriter::new(fd).expect("overlay"), program);
    for layer in program.chunks(program.len().div_ceil(2).next_multiple_of(6).max(6)) {
        let (_, fd) = place.root("flat");
        apply(&mut FlatWriter::new(fd).expect("flat"), layer);
    }
    place.check(if program.is_empty() { 1 } else { 2 });
    walk(&overlay, &mut |path| assert!(!has_overlay_magic(path), "{path:?}"));
}

/// A hostile archive as a layer, written to both forms; what came of it is packed, and that can be unpacked again.
pub fn layer(archive: &[u8]) {
    let place = Place::new();
    let (tree, fd) = place.root("overlay");
    let overlay = OverlayWriter::new(fd).and_then(|mut writer| unpack(archive, small(), &mut writer)).is_ok();
    let (_, fd) = place.root("flat");
    let flat = FlatWriter::new(fd).and_then(|mut writer| unpack(archive, small(), &mut writer)).is_ok();
    place.check(2);
    walk(&tree, &mut |path| assert!(!has_overlay_magic(path), "{path:?}"));
    let sources = [("overlay", overlay, Source::OverlayUpper), ("flat", flat, Source::Tree)];
    for (name, _, source) in sources.into_iter().filter(|(_, sound, _)| *sound) {
        let (_, fd) = place.root(name);
        let options = PackOptions::new(source, Compression::None);
        let Ok((again, packed)) = pack(&fd, &options, Vec::new()) else { continue };
        let mut writer = Nowhere::default();
        let unpacked =
            unpack(again.as_slice(), UnpackOptions::default(), &mut writer).expect("our own archive");
        assert_eq!((unpacked.diff_id, unpacked.entries), (packed.diff_id, packed.entries));
    }
}

#[cfg(test)]
bale_testkit::fuzz_targets! {
    tar: 5000,
    unpack_blob: 2000,
    write: 300 (root),
    layer: 300 (root),
}
