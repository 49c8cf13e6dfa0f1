//! An overlay directory: one layer alone, as overlayfs wants it.
//!
//! A whiteout is a character device 0:0, an opaque directory carries `trusted.overlay.opaque=y`. What
//! overlayfs would take as an order of its own and a layer brings along (0:0 devices, `overlay.*` attributes)
//! is left out with a warning.

use bale_fault::Result;
use bale_sys::root::RootFd;
use rustix::fs::{self, FileType, Mode};

use super::LayerWriter;
use super::attributes::Attributes;
use super::file::{Linked, OpenFile};
use super::name::{Path, Role};
use super::tree::{Missing, Tree};
use crate::fault::{corrupt, show};
use crate::tar::{Entry, Kind};
use crate::{DeferredLink, Table};

/// Writes one layer into a directory of its own, knowing nothing of the layers below.
pub struct OverlayWriter {
    tree: Tree,
    open: Option<OpenFile>,
}

impl OverlayWriter {
    /// Writes into `root`, an empty directory that nobody else writes to.
    ///
    /// # Errors
    /// A failed system call.
    pub fn new(root: RootFd) -> Result<Self> {
        Ok(Self { tree: Tree::new(root, true)?, open: None })
    }

    fn close(&mut self) -> Result<()> {
        self.open.take().map_or(Ok(()), |file| file.close(&mut self.tree))
    }

    fn whiteout(&mut self, parents: &[&[u8]], name: &[u8]) -> Result<()> {
        self.tree.enter(parents, Missing::Create)?;
        match self.tree.stat(name)? {
            None => {
                let mode = Mode::from_raw_mode(0o600);
                self.tree
                    .place("mknodat", name, |top| fs::mknodat(top, name, FileType::CharacterDevice, mode, 0))
            }
            Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                let own = [parents, &[name]].concat();
                self.opaque(&own)
            }
            // This layer's own file is already over whatever is to be hidden.
            Some(_) => Ok(()),
        }
    }

    fn opaque(&mut self, directory: &[&[u8]]) -> Result<()> {
        self.tree.enter(directory, Missing::Create)?;
        self.tree.mark_opaque()
    }

    fn plain(&mut self, name: &[u8], parents: &[&[u8]], mut entry: Entry) -> Result<()> {
        if entry.kind == Kind::HardLink {
            return self.hard_link(name, parents, entry);
        }
        self.tree.enter(parents, Missing::Create)?;
        match entry.kind {
            Kind::File => self.open = Some(self.tree.file(name, entry)?),
            Kind::Directory => {
                let attributes = Attributes::take(&mut entry);
                // What was replaced had hidden the lower layers, and still has to.
                if self.tree.directory(name, attributes)? {
                    let own = [parents, &[name]].concat();
                    self.opaque(&own)?;
                }
            }
            Kind::Symlink => self.tree.symlink(name, entry)?,
            Kind::CharDevice if entry.device == (0, 0) => {
                let path = self.tree.child(name);
                self.tree.warn(&path, "a device 0:0 would be taken for a whiteout");
            }
            _ => self.tree.node(name, entry)?,
        }
        Ok(())
    }

    fn hard_link(&mut self, name: &[u8], parents: &[&[u8]], entry: Entry) -> Result<()> {
        if self.tree.hard_link(parents, name, &entry.link)? == Linked::Yes {
            return Ok(());
        }
        // What this layer had here before is replaced all the same.
        self.tree.enter(parents, Missing::Create)?;
        self.tree.remove(name)?;
        let path = self.tree.child(name);
        self.tree.table.deferred_links.push(DeferredLink { path, target: entry.link });
        Ok(())
    }
}

impl LayerWriter for OverlayWriter {
    fn entry(&mut self, mut entry: Entry) -> Result<()> {
        self.close()?;
        let bytes = std::mem::take(&mut entry.path);
        let path = Path::parse(&bytes)?;
        match (path.role()?, path.split_last()) {
            (_, None) if entry.kind == Kind::Directory => self.tree.root_entry(Attributes::take(&mut entry)),
            (_, None) => return Err(corrupt(format!("the entry {} would replace the root", show(&bytes)))),
            (Role::Plain, Some((name, parents))) => self.plain(name, parents, entry)?,
            (Role::Whiteout(name), Some((_, parents))) => self.whiteout(parents, name)?,
            (Role::Opaque, Some((_, parents))) => self.opaque(parents)?,
            (Role::Reserved, Some(_)) => self.tree.warn(&bytes, "the name is reserved"),
        }
        Ok(())
    }

    fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let Some(file) = &mut self.open else { return Ok(()) };
        self.tree.table.content_bytes += bytes.len() as u64;
        file.write(offset, bytes)
    }

    fn finish(&mut self) -> Result<Table> {
        self.close()?;
        let table = self.tree.finish()?;
        Ok(table)
    }
}
