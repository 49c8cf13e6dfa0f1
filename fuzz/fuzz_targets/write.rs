//! Entries of few names, all types and every kind of path, written to both forms: nothing outside the root changes.
//! Run it as root, in a directory that may be thrown away (`TMPDIR`).
#![no_main]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use bale_layer::tar::{Entry, Kind};
use bale_layer::{FlatWriter, LayerWriter, OverlayWriter};
use bale_sys::root::RootFd;
use libfuzzer_sys::fuzz_target;

const NAMES: [&str; 8] = ["a", "b", "..", ".wh.a", ".wh..wh..opq", "", "outside", "victim"];

fn base() -> &'static Path {
    static BASE: OnceLock<PathBuf> = OnceLock::new();
    BASE.get_or_init(|| {
        let base = std::env::temp_dir().join(format!("bale-fuzz-{}", std::process::id()));
        fs::create_dir_all(base.join("outside")).expect("mkdir");
        fs::write(base.join("outside/victim"), "untouched").expect("write");
        base
    })
}

fn path(bits: u16) -> Vec<u8> {
    let depth = usize::from(bits >> 13) % 4 + 1;
    let names: Vec<&str> = (0..depth).map(|at| NAMES[usize::from(bits >> (3 * at)) % NAMES.len()]).collect();
    names.join("/").into_bytes()
}

fn entry(bytes: &[u8]) -> Entry {
    let kinds = [Kind::File, Kind::Directory, Kind::Symlink, Kind::HardLink, Kind::Fifo, Kind::CharDevice];
    let mut entry = Entry::new(path(u16::from_le_bytes([bytes[1], bytes[2]])), kinds[usize::from(bytes[0]) % kinds.len()]);
    entry.link = path(u16::from_le_bytes([bytes[3], bytes[4]]));
    entry.mode = 0o777;
    entry
}

fn apply(writer: &mut dyn LayerWriter, program: &[u8]) {
    for bytes in program.chunks_exact(5) {
        if writer.entry(entry(bytes)).is_err() {
            return;
        }
    }
    let _ = writer.finish();
}

fuzz_target!(|program: &[u8]| {
    let root = base().join("root");
    let half = program.len() / 2;
    for (is_flat, layers) in [(false, vec![program]), (true, vec![&program[..half], &program[half..]])] {
        fs::create_dir(&root).expect("mkdir");
        for layer in layers {
            let fd = RootFd::open(&root).expect("open");
            let mut writer: Box<dyn LayerWriter> = match is_flat {
                true => Box::new(FlatWriter::new(fd).expect("flat")),
                false => Box::new(OverlayWriter::new(fd).expect("overlay")),
            };
            apply(writer.as_mut(), layer);
        }
        let names: Vec<_> = fs::read_dir(base()).expect("read").map(|e| e.expect("entry").file_name()).collect();
        let outside: Vec<_> = fs::read_dir(base().join("outside")).expect("read").collect();
        assert!(names.len() == 2 && outside.len() == 1, "{names:?} {outside:?}");
        let meta = fs::metadata(base().join("outside/victim")).expect("victim");
        assert_eq!(std::os::unix::fs::MetadataExt::mode(&meta) & 0o7777, 0o644);
        assert_eq!(fs::read(base().join("outside/victim")).expect("victim"), b"untouched");
        fs::remove_dir_all(&root).expect("remove");
    }
});
