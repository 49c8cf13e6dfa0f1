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
use super::file::Linked;
use super::form::{Form, Target};
use super::tree::{Missing, Tree};
use crate::tar::{Entry, Kind};
use crate::{DeferredLink, Table};

/// Writes one layer into a directory of its own, knowing nothing of the layers below.
pub struct OverlayWriter(Target);

impl OverlayWriter {
    /// Writes into `root`, an empty directory that nobody else writes to.
    ///
    /// # Errors
    /// A failed system call.
    pub fn new(root: RootFd) -> Result<Self> {
        Ok(Self(Target::new(Tree::new(root, true)?)))
    }

    fn hard_link(&mut self, name: &[u8], parents: &[&[u8]], entry: Entry) -> Result<()> {
        if self.0.tree.hard_link(parents, name, &entry.link)? == Linked::Yes {
            return Ok(());
        }
        // What this layer had here before is replaced all the same.
        self.0.tree.enter(parents, Missing::Create)?;
        self.0.tree.remove(name)?;
        let path = self.0.tree.child(name);
        self.0.tree.table.deferred_links.push(DeferredLink { path, target: entry.link });
        Ok(())
    }
}

impl Form for OverlayWriter {
    fn target(&mut self) -> &mut Target {
        &mut self.0
    }

    fn whiteout(&mut self, parents: &[&[u8]], name: &[u8]) -> Result<()> {
        self.0.tree.enter(parents, Missing::Create)?;
        match self.0.tree.stat(name)? {
            None => {
                let mode = Mode::from_raw_mode(0o600);
                self.0
                    .tree
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
        self.0.tree.enter(directory, Missing::Create)?;
        self.0.tree.mark_opaque()
    }

    fn plain(&mut self, name: &[u8], parents: &[&[u8]], mut entry: Entry) -> Result<()> {
        if entry.kind == Kind::HardLink {
            return self.hard_link(name, parents, entry);
        }
        self.0.tree.enter(parents, Missing::Create)?;
        match entry.kind {
            Kind::File => self.0.open = Some(self.0.tree.file(name, entry)?),
            Kind::Directory => {
                let attributes = Attributes::take(&mut entry);
                // What was replaced had hidden the lower layers, and still has to.
                if self.0.tree.directory(name, attributes)? {
                    let own = [parents, &[name]].concat();
                    self.opaque(&own)?;
                }
            }
            Kind::Symlink => self.0.tree.symlink(name, entry)?,
            Kind::CharDevice if entry.device == (0, 0) => {
                let path = self.0.tree.child(name);
                self.0.tree.warn(&path, "a device 0:0 would be taken for a whiteout");
            }
            _ => self.0.tree.node(name, entry)?,
        }
        Ok(())
    }
}

impl LayerWriter for OverlayWriter {
    fn entry(&mut self, entry: Entry) -> Result<()> {
        self.take(entry)
    }

    fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.0.data(offset, bytes)
    }

    fn finish(&mut self) -> Result<Table> {
        self.0.close()?;
        self.0.tree.finish()
    }
}
