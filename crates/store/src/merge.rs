//! Layers seen as one tree, as overlayfs shows them: whiteouts, opaque directories, directories that merge.
//!
//! Nothing is followed and nothing is named by a path string: each step is one openat of one component.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use bale_fault::{Fault, Kind, Result};
use bale_spec::Digest;
use bale_sys::error::Call;
use bale_sys::root::{RelPath, RootFd};
use rustix::fs::{AtFlags, FileType, Stat};
use rustix::io::Errno;

use crate::Layer;
use crate::open::readable;

/// As the kernel's `MAXSYMLINKS`.
const LINKS_LIMIT: u32 = 40;

/// One layer of a view.
pub(crate) struct Lower {
    pub diff_id: Digest,
    pub root: Rc<OwnedFd>,
    /// Directories that the layer gives no attributes for; the empty path is the root.
    implied: HashSet<Vec<u8>>,
    /// Hard links to files of lower layers.
    pub links: Vec<(Path, Path)>,
}

/// A path as components, without `.` and `..`.
pub(crate) type Path = Vec<CString>;

impl Lower {
    pub fn new(layer: &Layer, root: &RootFd) -> Result<Self> {
        let mut implied: HashSet<Vec<u8>> = layer.implied.iter().map(|path| path.bytes().to_vec()).collect();
        if !layer.has_root_entry {
            implied.insert(Vec::new());
        }
        let links = layer.links.iter().map(|link| Ok((path(link.path.bytes())?, path(link.target.bytes())?)));
        Ok(Self {
            diff_id: layer.diff_id,
            root: Rc::new(readable(root, ".")?),
            implied,
            links: links.collect::<Result<_>>()?,
        })
    }

    /// Tells whether the layer has the directory without giving attributes for it.
    pub fn implies(&self, path: &[CString]) -> bool {
        self.implied.contains(&join(path))
    }

    pub fn implied(&self) -> impl Iterator<Item = &[u8]> {
        self.implied.iter().map(Vec::as_slice)
    }
}

/// Cuts a path of a layer into components.
pub(crate) fn path(bytes: &[u8]) -> Result<Path> {
    let path =
        RelPath::new(bytes).map_err(|e| Fault::new(Kind::Corrupt, "a path of a layer").caused_by(e))?;
    Ok(path.components().to_vec())
}

pub(crate) fn join(path: &[CString]) -> Vec<u8> {
    path.iter().map(|c| c.as_bytes()).collect::<Vec<_>>().join(&b'/')
}

/// Shows a path to people.
pub(crate) fn show(path: &[CString]) -> String {
    format!("/{}", String::from_utf8_lossy(&join(path)).escape_debug())
}

/// One layer's part of a merged directory.
#[derive(Clone)]
pub(crate) struct Part {
    /// Index of the layer.
    pub layer: usize,
    pub fd: Rc<OwnedFd>,
}

/// What a path is.
pub(crate) enum Found {
    Nothing,
    /// A directory and the layers that it is merged from, top first.
    Directory(Vec<Part>),
    /// Anything else; one layer gives it.
    Leaf(Leaf),
}

pub(crate) struct Leaf {
    pub layer: usize,
    pub parent: Rc<OwnedFd>,
    pub name: CString,
    pub stat: Stat,
}

/// Layers, top first.
pub(crate) struct View {
    pub layers: Vec<Lower>,
}

impl View {
    /// Looks `path` up in the layers from index `from` down. Links are not followed.
    pub fn find(&self, from: usize, path: &[CString]) -> Result<Found> {
        let roots = self.layers.iter().enumerate().skip(from);
        let mut parts: Vec<Part> =
            roots.map(|(layer, lower)| Part { layer, fd: Rc::clone(&lower.root) }).collect();
        for (at, name) in path.iter().enumerate() {
            match step(&parts, name)? {
                Found::Directory(next) => parts = next,
                Found::Leaf(leaf) if at + 1 == path.len() => return Ok(Found::Leaf(leaf)),
                _ => return Ok(Found::Nothing),
            }
        }
        Ok(if parts.is_empty() { Found::Nothing } else { Found::Directory(parts) })
    }

    /// Finds the layer whose attributes the directory at `path` is to have: the uppermost that gives some. An opaque
    /// mark hides what is in a directory, not what the directory is.
    pub fn giver(&self, path: &[CString]) -> Result<Option<Part>> {
        let Some((name, parent)) = path.split_last() else {
            let given = self.layers.iter().position(|lower| !lower.implies(path));
            return Ok(given.map(|layer| Part { layer, fd: Rc::clone(&self.layers[layer].root) }));
        };
        let Found::Directory(parts) = self.find(0, parent)? else { return Ok(None) };
        for part in &parts {
            match look(part, name)? {
                Look::Directory { fd, .. } if !self.layers[part.layer].implies(path) => {
                    return Ok(Some(Part { layer: part.layer, fd }));
                }
                Look::Directory { .. } | Look::Absent => {}
                Look::Whiteout | Look::Other(_) => break,
            }
        }
        Ok(None)
    }

    /// Tells whether layers `above..below` hide or replace what layer `below` has at `path`.
    pub fn is_hidden(&self, above: usize, below: usize, path: &[CString]) -> Result<bool> {
        let layers = self.layers[..below].iter().enumerate().skip(above);
        let mut parts: Vec<Part> =
            layers.map(|(layer, lower)| Part { layer, fd: Rc::clone(&lower.root) }).collect();
        for (at, name) in path.iter().enumerate() {
            let mut next = Vec::new();
            for part in &parts {
                match look(part, name)? {
                    Look::Absent => {}
                    Look::Directory { opaque: false, fd } if at + 1 < path.len() => {
                        next.push(Part { layer: part.layer, fd });
                    }
                    _ => return Ok(true),
                }
            }
            parts = next;
        }
        Ok(false)
    }

    /// Tells whether the layer itself has something at `path`.
    pub fn has(&self, layer: usize, path: &[CString]) -> Result<bool> {
        let mut part = Part { layer, fd: Rc::clone(&self.layers[layer].root) };
        for (at, name) in path.iter().enumerate() {
            match look(&part, name)? {
                Look::Directory { fd, .. } => part.fd = fd,
                Look::Other(_) => return Ok(at + 1 == path.len()),
                Look::Absent | Look::Whiteout => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Follows the links in the directories of `path` (not at its end), within the root, in the layers from `from` down.
    pub fn resolve_parent(&self, from: usize, path: &[CString]) -> Result<Path> {
        let mut left: Vec<CString> = path.iter().rev().cloned().collect();
        let mut done: Path = Vec::new();
        let mut links = 0;
        while let Some(name) = left.pop() {
            done.push(name);
            if left.is_empty() {
                break;
            }
            let Found::Leaf(leaf) = self.find(from, &done)? else { continue };
            if FileType::from_raw_mode(leaf.stat.st_mode) != FileType::Symlink {
                continue;
            }
            links += 1;
            if links > LINKS_LIMIT {
                return Err(Fault::new(
                    Kind::Corrupt,
                    format!("{}: too many levels of symbolic links", show(path)),
                ));
            }
            done.pop();
            let target = rustix::fs::readlinkat(&leaf.parent, leaf.name.as_c_str(), Vec::new());
            let target = target.call(|| format!("readlinkat({:?})", leaf.name))?;
            splice(target.to_bytes(), &mut done, &mut left)?;
        }
        Ok(done)
    }
}

/// Puts the target of a link in place of the link: `..` is taken here, as `done` holds no links.
fn splice(target: &[u8], done: &mut Path, left: &mut Vec<CString>) -> Result<()> {
    if target.starts_with(b"/") {
        done.clear();
    }
    let mut ahead = Vec::new();
    for component in target.split(|&b| b == b'/') {
        match component {
            b"" | b"." => {}
            // A `..` after a component that may itself be a link cannot be folded in words: such targets are rare
            // enough to take the lexical answer.
            b".." => {
                if ahead.pop().is_none() {
                    done.pop();
                }
            }
            name => {
                ahead
                    .push(CString::new(name).map_err(|_| Fault::new(Kind::Corrupt, "a NUL byte in a link"))?);
            }
        }
    }
    left.extend(ahead.into_iter().rev());
    Ok(())
}

/// Goes one component down.
fn step(parts: &[Part], name: &CStr) -> Result<Found> {
    let mut below = Vec::new();
    for part in parts {
        match look(part, name)? {
            Look::Absent => {}
            Look::Directory { opaque, fd } => {
                below.push(Part { layer: part.layer, fd });
                if opaque {
                    break;
                }
            }
            Look::Other(stat) if below.is_empty() => {
                let parent = Rc::clone(&part.fd);
                return Ok(Found::Leaf(Leaf { layer: part.layer, parent, name: name.to_owned(), stat }));
            }
            Look::Whiteout | Look::Other(_) => break,
        }
    }
    Ok(if below.is_empty() { Found::Nothing } else { Found::Directory(below) })
}

enum Look {
    Absent,
    Whiteout,
    Directory { opaque: bool, fd: Rc<OwnedFd> },
    Other(Stat),
}

fn look(part: &Part, name: &CStr) -> Result<Look> {
    let stat = match rustix::fs::statat(&part.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(Look::Absent),
        Err(errno) => return Err(bale_sys::Error::new(format!("fstatat({name:?})"), errno).into()),
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let fd = readable(&part.fd, name)?;
            Ok(Look::Directory { opaque: is_opaque(fd.as_fd())?, fd: Rc::new(fd) })
        }
        FileType::CharacterDevice if stat.st_rdev == 0 => Ok(Look::Whiteout),
        _ => Ok(Look::Other(stat)),
    }
}

fn is_opaque(dir: BorrowedFd<'_>) -> Result<bool> {
    let mut value = [0_u8; 2];
    match rustix::fs::fgetxattr(dir, "trusted.overlay.opaque", &mut value) {
        Ok(length) => Ok(length == 1 && value[0] == b'y'),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
        Err(errno) => Err(bale_sys::Error::new("fgetxattr(trusted.overlay.opaque)", errno).into()),
    }
}
