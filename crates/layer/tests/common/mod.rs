//! Layers written as lists, unpacked into scratch folders.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;

use bale_fault::{Fault, Result};
use bale_layer::tar::{Entry, Kind, Timestamp, Writer, Xattr};
use bale_layer::{FlatWriter, LayerWriter, OverlayWriter, UnpackOptions, Unpacked, unpack};
use bale_sys::root::RootFd;
use bale_testkit::Scratch;

pub type Member = (Entry, Vec<u8>);

pub const TIME: i64 = 1_600_000_000;

fn entry(path: &str, kind: Kind) -> Entry {
    let mut entry = Entry::new(path, kind);
    entry.mtime = Timestamp { secs: TIME, nanos: 5 };
    entry
}

pub fn file(path: &str, content: &str) -> Member {
    let mut entry = entry(path, Kind::File);
    entry.size = content.len() as u64;
    (entry, content.as_bytes().to_vec())
}

pub fn dir(path: &str) -> Member {
    (entry(path, Kind::Directory), Vec::new())
}

pub fn fifo(path: &str) -> Member {
    (entry(path, Kind::Fifo), Vec::new())
}

pub fn device(path: &str, major: u32, minor: u32) -> Member {
    let mut entry = entry(path, Kind::CharDevice);
    entry.device = (major, minor);
    (entry, Vec::new())
}

fn link_of(path: &str, kind: Kind, target: &str) -> Member {
    let mut entry = entry(path, kind);
    entry.link = target.as_bytes().to_vec();
    entry.mode = 0o777;
    (entry, Vec::new())
}

pub fn symlink(path: &str, target: &str) -> Member {
    link_of(path, Kind::Symlink, target)
}

pub fn hard_link(path: &str, target: &str) -> Member {
    link_of(path, Kind::HardLink, target)
}

pub fn whiteout(path: &str) -> Member {
    file(path, "")
}

pub fn with(mut member: Member, change: impl FnOnce(&mut Entry)) -> Member {
    change(&mut member.0);
    member
}

pub fn xattr(name: &str, value: &[u8]) -> Xattr {
    Xattr { name: name.as_bytes().to_vec(), value: value.to_vec() }
}

pub fn archive(members: &[Member]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, content) in members {
        writer.append(entry, &mut content.as_slice()).unwrap();
    }
    writer.finish().unwrap()
}

pub fn writer(form: Form, root: &Path) -> Box<dyn LayerWriter> {
    let root = RootFd::open(root).unwrap();
    match form {
        Form::Overlay => Box::new(OverlayWriter::new(root).unwrap()),
        Form::Flat => Box::new(FlatWriter::new(root).unwrap()),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Overlay,
    Flat,
}

pub fn apply(form: Form, root: &Path, members: &[Member]) -> Result<Unpacked> {
    unpack(archive(members).as_slice(), UnpackOptions::default(), writer(form, root).as_mut())
}

/// A root within a folder that would show what escapes from it.
pub struct Jail {
    scratch: Scratch,
}

impl Jail {
    pub fn new() -> Self {
        let scratch = Scratch::new("layer");
        std::fs::create_dir(scratch.join("root")).unwrap();
        std::fs::create_dir(scratch.join("outside")).unwrap();
        std::fs::write(scratch.join("outside/victim"), "untouched").unwrap();
        Self { scratch }
    }

    pub fn root(&self) -> std::path::PathBuf {
        self.scratch.join("root")
    }

    pub fn outside(&self) -> std::path::PathBuf {
        self.scratch.join("outside")
    }

    /// Applies layers; the first failure ends it.
    pub fn layers(&self, form: Form, layers: &[&[Member]]) -> Result<Vec<Unpacked>> {
        layers.iter().map(|members| apply(form, &self.root(), members)).collect()
    }

    /// The tree in short: `kind path` with content, link target or device where there is one.
    pub fn tree(&self) -> Vec<String> {
        tree(&self.root())
    }
}

pub fn tree(root: &Path) -> Vec<String> {
    let entries = bale_testkit::tree::snapshot(root).unwrap();
    let line = |e: &bale_testkit::tree::Entry| {
        let path = e.path.display();
        match (e.kind, &e.same_as) {
            (_, Some(first)) => format!("h {path} = {}", first.display()),
            ('f', None) => format!("f {path} {:?}", std::fs::read_to_string(root.join(&e.path)).unwrap()),
            ('l', None) => format!("l {path} -> {}", e.link.display()),
            ('c', None) => format!("c {path} {}:{}", e.device.0, e.device.1),
            ('d', None) if e.xattrs.iter().any(|(n, _)| n == "trusted.overlay.opaque") => {
                format!("d {path} opaque")
            }
            (kind, None) => format!("{kind} {path}"),
        }
    };
    entries.iter().filter(|e| e.path != Path::new(".")).map(line).collect()
}

pub fn words(fault: &Fault) -> String {
    fault.chain()
}
