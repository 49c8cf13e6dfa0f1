//! From a chain of layers to overlay's lower directories, with what single layers could not know repaired on top.
//!
//! A layer is unpacked alone. If it names `tmp/x` but not `tmp`, its directory `tmp` is 0755 and hides the 1777 of the
//! layer below; if it has a hard link to a file of a lower layer, there was nothing to link to. The fixup is a small
//! directory above all layers of one chain: it has the first kind of directory with the attributes of the nearest
//! lower layer that gives some, and the second kind of file copied up, linked to its siblings.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use bale_fault::{Context, Fault, Kind, Result};
use bale_spec::Digest;
use bale_spec::image::ImageConfig;
use bale_sys::error::Call;
use bale_sys::file::{self, Durability, LockMode};
use bale_sys::root::RootFd;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::attributes::Attributes;
use crate::blobs::place;
use crate::layers::{Internal, boot_id};
use crate::merge::{Found, Leaf, Lower, Path, View, path, show};
use crate::open::readable;
use crate::{Ingest, Layer, Store};

const VERSION: u32 = 1;
const FILE: &str = "fixup.json";
const LIMIT_BYTES: usize = 1 << 20;
/// How many deferred links may lead to one another.
const HOPS_LIMIT: u32 = 64;

/// What a chain of layers is mounted from. It holds for one boot: layers are looked at anew after a power cut.
#[derive(Debug, Serialize, Deserialize)]
struct Prepared {
    version: u32,
    boot_id: String,
    /// Diff ids, top first.
    lowers: Vec<Digest>,
    /// There is a directory `diff` to put above them.
    fixup: bool,
}

impl Store {
    /// Returns the lower directories of an image for overlay, top first. The caller holds [`crate::Hold`].
    ///
    /// # Errors
    /// `NotFound` when a layer is not unpacked; `Corrupt` for a hard link to nothing; the failed call.
    pub fn prepare(&self, config: &ImageConfig) -> Result<Vec<PathBuf>> {
        let Some(chain) = config.chain_ids().last().copied() else { return self.empty() };
        if let Some(prepared) = self.prepared(&chain) {
            return Ok(self.paths(&chain, &prepared));
        }
        let _alone =
            self.take(&format!("fixup-{}-{}", chain.algorithm().name(), chain.hex()), LockMode::Exclusive)?;
        if let Some(prepared) = self.prepared(&chain) {
            return Ok(self.paths(&chain, &prepared));
        }
        let layers = self.visible_layers(&config.rootfs.diff_ids)?;
        let ingest = self.ingest()?;
        let prepared = self.build(&ingest, &chain, &layers).within(|| "stack the layers of the image")?;
        Ok(self.paths(&chain, &prepared))
    }

    fn prepared(&self, chain: &Digest) -> Option<Prepared> {
        let text = file::read_bounded(&self.fixups, &format!("{}/{FILE}", place(chain)), LIMIT_BYTES).ok()?;
        let prepared: Prepared = serde_json::from_slice(&text).ok()?;
        (prepared.version == VERSION && prepared.boot_id == boot_id() && !prepared.boot_id.is_empty())
            .then_some(prepared)
    }

    fn paths(&self, chain: &Digest, prepared: &Prepared) -> Vec<PathBuf> {
        let fixup = prepared.fixup.then(|| self.path.join("fixups").join(place(chain)).join("diff"));
        fixup.into_iter().chain(prepared.lowers.iter().map(|diff_id| self.layer_path(diff_id))).collect()
    }

    /// Makes the lower directory of an image without layers: overlay wants one.
    fn empty(&self) -> Result<Vec<PathBuf>> {
        match rustix::fs::mkdirat(&self.fixups, "empty", Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => Ok(vec![self.path.join("fixups/empty")]),
            Err(errno) => Err(bale_sys::Error::new("mkdirat(\"empty\")", errno).into()),
        }
    }

    /// Returns the layers that take part, top first: of one that occurs twice only the upper one (overlayfs refuses the
    /// same directory twice, and the upper one shows all that the lower one has), and nothing below an opaque root.
    fn visible_layers(&self, diff_ids: &[Digest]) -> Result<Vec<Layer>> {
        let mut seen = HashSet::new();
        let mut layers = Vec::new();
        for diff_id in diff_ids.iter().rev().filter(|id| seen.insert(**id)) {
            let Some(layer) = self.layer(diff_id)? else {
                let words = format!("layer {diff_id} is not unpacked");
                return Err(Fault::new(Kind::NotFound, words).hint("pull the image again"));
            };
            let opaque = layer.opaque_root;
            layers.push(layer);
            if opaque {
                break;
            }
        }
        Ok(layers)
    }

    fn build(&self, ingest: &Ingest<'_>, chain: &Digest, layers: &[Layer]) -> Result<Prepared> {
        let entry = ingest.fresh("fixup");
        let dir = ingest.subdir(&entry)?;
        let mut plan = Plan::default();
        let needs_look =
            |layer: &Layer| !layer.has_root_entry || !layer.implied.is_empty() || !layer.links.is_empty();
        if layers.len() > 1 && layers[..layers.len() - 1].iter().any(needs_look)
            || !layers.iter().all(|l| l.links.is_empty())
        {
            let lowers = layers.iter().map(|layer| Lower::new(layer, &self.layer_root(&layer.diff_id)?));
            let view = View { layers: lowers.collect::<Result<_>>()? };
            plan.repair_directories(&view)?;
            plan.repair_links(&view)?;
            plan.write(&view, &dir)?;
        }
        let lowers = layers.iter().map(|layer| layer.diff_id).collect();
        let prepared = Prepared { version: VERSION, boot_id: boot_id(), lowers, fixup: !plan.is_empty() };
        let text = serde_json::to_vec(&prepared).within_internal()?;
        file::replace(&dir, FILE, &text, Mode::from_raw_mode(0o600), Durability::Process)?;
        // What is there is of another boot.
        ingest.bury(&self.fixups, &place(chain))?;
        let renamed = rustix::fs::renameat(&ingest.dir, entry.as_str(), &self.fixups, place(chain).as_str());
        renamed.call(|| format!("renameat(fixup {chain})"))?;
        Ok(prepared)
    }
}

/// What a fixup consists of.
#[derive(Default)]
struct Plan {
    /// Directories and their attributes; the empty path is the root.
    directories: BTreeMap<Path, Attributes>,
    /// Files and where they are copied from.
    files: BTreeMap<Path, Source>,
}

/// A file of a layer.
#[derive(Clone)]
struct Source {
    layer: usize,
    path: Path,
}

impl Plan {
    fn is_empty(&self) -> bool {
        self.directories.is_empty() && self.files.is_empty()
    }

    /// Finds the directories whose uppermost layer gives no attributes while a lower one does.
    fn repair_directories(&mut self, view: &View) -> Result<()> {
        let mut seen: HashSet<&[u8]> = HashSet::new();
        // Nothing is below the lowest layer.
        for lower in &view.layers[..view.layers.len().saturating_sub(1)] {
            for implied in lower.implied() {
                if !seen.insert(implied) {
                    continue;
                }
                let path = path(implied)?;
                if let Some(attributes) = wrong(view, &path)? {
                    self.directories.insert(path, attributes);
                }
            }
        }
        Ok(())
    }

    /// Finds the hard links to files of lower layers, the lowest layer first, so that a later one replaces it.
    fn repair_links(&mut self, view: &View) -> Result<()> {
        for (index, lower) in view.layers.iter().enumerate().rev() {
            for (link, target) in &lower.links {
                // Looked for also when nothing will be seen of the link: who unpacks in sequence fails there (docker,
                // umoci, `bale bundle`), and an image is to be good for all or none.
                let source = find_source(view, index, target, 0).within(|| {
                    format!("layer {}: hard link {} to {}", lower.diff_id.short(), show(link), show(target))
                })?;
                if view.is_hidden(0, index, link)? || view.has(index, link)? {
                    continue;
                }
                // Its sibling becomes the same file, unless a layer above has replaced it.
                if let Found::Leaf(leaf) = view.find(0, &source.path)?
                    && leaf.layer == source.layer
                {
                    self.files.insert(source.path.clone(), source.clone());
                }
                self.files.insert(view.resolve_parent(0, link)?, source);
            }
        }
        Ok(())
    }

    fn write(&mut self, view: &View, dir: &OwnedFd) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        self.add_parents(view)?;
        let diff = make_directory(dir, c"diff")?;
        for path in self.directories.keys().filter(|path| !path.is_empty()) {
            let (parent, name) = open_parent(&diff, path)?;
            make_directory(&parent, name)?;
        }
        self.write_files(view, &diff)?;
        // Children before parents: making an entry changes the time of its directory.
        for (path, attributes) in self.directories.iter().rev() {
            attributes
                .give(open_directory(&diff, path)?.as_fd())
                .within(|| format!("repair {}", show(path)))?;
        }
        Ok(())
    }

    /// Adds the directories above everything, with the attributes they are seen with.
    fn add_parents(&mut self, view: &View) -> Result<()> {
        let paths: Vec<Path> = self.directories.keys().chain(self.files.keys()).cloned().collect();
        for path in paths {
            for length in 0..path.len() {
                let parent = &path[..length];
                if !self.directories.contains_key(parent) {
                    let attributes = seen_attributes(view, parent)?;
                    self.directories.insert(parent.to_vec(), attributes);
                }
            }
        }
        Ok(())
    }

    fn write_files(&self, view: &View, diff: &OwnedFd) -> Result<()> {
        let mut written: HashMap<(usize, u64, u64), Path> = HashMap::new();
        for (path, source) in &self.files {
            let Found::Leaf(leaf) = view.find(source.layer, &source.path)? else {
                return Err(Fault::new(Kind::Internal, format!("{} vanished", show(&source.path))));
            };
            let (parent, name) = open_parent(diff, path)?;
            let same = (leaf.layer, leaf.stat.st_dev, leaf.stat.st_ino);
            if let Some(first) = written.get(&same) {
                let (other, other_name) = open_parent(diff, first)?;
                let linked = rustix::fs::linkat(&other, other_name, &parent, name, AtFlags::empty());
                linked.call(|| format!("linkat({})", show(path)))?;
                continue;
            }
            copy(&leaf, &parent, name).within(|| format!("copy {} up", show(&source.path)))?;
            written.insert(same, path.clone());
        }
        Ok(())
    }
}

/// Returns the attributes that a directory should have when its uppermost layer does not give them.
fn wrong(view: &View, path: &[CString]) -> Result<Option<Attributes>> {
    let Found::Directory(parts) = view.find(0, path)? else { return Ok(None) };
    let Some(top) = parts.first().filter(|top| view.layers[top.layer].implies(path)) else { return Ok(None) };
    let Some(giver) = view.giver(path)? else { return Ok(None) };
    let right = Attributes::read(giver.fd.as_fd())?;
    Ok((right != Attributes::read(top.fd.as_fd())?).then_some(right))
}

fn seen_attributes(view: &View, path: &[CString]) -> Result<Attributes> {
    let Found::Directory(parts) = view.find(0, path)? else { return Ok(Attributes::implied()) };
    let giver = view.giver(path)?.or_else(|| parts.first().cloned());
    giver.map_or_else(|| Ok(Attributes::implied()), |part| Attributes::read(part.fd.as_fd()))
}

/// Finds the file that `target` means to a hard link in layer `from`: the layer's own deferred links and all below.
/// What the layer itself has at `target` is no file that could be linked to, or the link had not been deferred; it may
/// be a whiteout, when the layer renames a file.
fn find_source(view: &View, from: usize, target: &[CString], hops: u32) -> Result<Source> {
    if hops > HOPS_LIMIT {
        return Err(Fault::new(Kind::Corrupt, "the links lead to one another"));
    }
    let target = view.resolve_parent(from, target)?;
    let found = match view.find(from + 1, &target)? {
        Found::Directory(_) => return Err(Fault::new(Kind::Corrupt, "that is a directory")),
        Found::Leaf(leaf) => Some(leaf.layer),
        Found::Nothing => None,
    };
    // A link that was deferred itself is no file yet, and counts where its layer stands.
    for index in from..found.unwrap_or(view.layers.len()) {
        let link = view.layers[index].links.iter().find(|(path, _)| *path == target);
        if let Some((_, next)) = link
            && (index == from || !view.is_hidden(from + 1, index, &target)?)
        {
            return find_source(view, index, next, hops + 1);
        }
    }
    let nothing = || Fault::new(Kind::Corrupt, "no layer below has that file");
    found.map(|layer| Source { layer, path: target }).ok_or_else(nothing)
}

fn make_directory(parent: &OwnedFd, name: &std::ffi::CStr) -> Result<OwnedFd> {
    rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700)).call(|| format!("mkdirat({name:?})"))?;
    Ok(readable(parent, name)?)
}

fn open_directory(root: &OwnedFd, path: &[CString]) -> Result<OwnedFd> {
    let mut dir = readable(root, ".")?;
    for name in path {
        dir = readable(&dir, name.as_c_str())?;
    }
    Ok(dir)
}

fn open_parent<'a>(root: &OwnedFd, path: &'a [CString]) -> Result<(OwnedFd, &'a std::ffi::CStr)> {
    let (name, parent) =
        path.split_last().ok_or_else(|| Fault::new(Kind::Corrupt, "a link in place of the root"))?;
    Ok((open_directory(root, parent)?, name.as_c_str()))
}

/// Copies one file that is no directory.
fn copy(from: &Leaf, parent: &OwnedFd, name: &std::ffi::CStr) -> Result<()> {
    let kind = FileType::from_raw_mode(from.stat.st_mode);
    if kind == FileType::RegularFile {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let source = rustix::fs::openat(&from.parent, from.name.as_c_str(), flags, Mode::empty());
        let mut source = File::from(source.call(|| format!("openat({:?})", from.name))?);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let target = rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600));
        let mut target = File::from(target.call(|| format!("openat({name:?}, O_CREAT)"))?);
        std::io::copy(&mut source, &mut target).within(|| "copy")?;
        return Attributes::read(source.as_fd())?.give(target.as_fd());
    }
    let attributes = Attributes::read_at(from.parent.as_fd(), &from.name, &from.stat)?;
    if kind == FileType::Symlink {
        let target =
            rustix::fs::readlinkat(&from.parent, from.name.as_c_str(), Vec::new()).call(|| "readlinkat")?;
        rustix::fs::symlinkat(target.as_c_str(), parent, name).call(|| format!("symlinkat({name:?})"))?;
    } else {
        let made = rustix::fs::mknodat(parent, name, kind, Mode::from_raw_mode(0o600), from.stat.st_rdev);
        made.call(|| format!("mknodat({name:?})"))?;
    }
    attributes.give_at(parent.as_fd(), name, kind == FileType::Symlink)
}

/// Gives the root of an upper directory the attributes that an image's root has: overlayfs shows the upper one's.
///
/// # Errors
/// The failed call.
pub fn adopt_root(lower: &RootFd, upper: &RootFd) -> Result<()> {
    let attributes = Attributes::read(readable(lower, ".")?.as_fd())?;
    attributes
        .give(readable(upper, ".")?.as_fd())
        .within(|| "give the upper directory the attributes of the image's root")
}
