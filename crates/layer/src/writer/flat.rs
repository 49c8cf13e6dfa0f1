//! A root file system: each layer is applied on what the layers below have left.
//!
//! The result is that of `umoci unpack`, entry by entry. Differences on purpose: `trusted.*` attributes are
//! not set, and directories that a layer only names as parents get time 0.

use bale_fault::{Fault, Kind as FaultKind, Result};
use bale_sys::error::Call;
use bale_sys::root::RootFd;

use super::LayerWriter;
use super::attributes::Attributes;
use super::file::Linked;
use super::form::{Form, Target};
use super::remove::names;
use super::tree::{Missing, Tree};
use super::written::Written;
use crate::Table;
use crate::fault::show;
use crate::tar::{Entry, Kind};

/// Applies one layer to a root file system: make one for each layer, lowest first.
pub struct FlatWriter(Target);

impl FlatWriter {
    /// Writes into `root`, which holds what the layers below have left.
    ///
    /// # Errors
    /// A failed system call.
    pub fn new(root: RootFd) -> Result<Self> {
        let mut tree = Tree::new(root, false)?;
        let is_empty = names(tree.top()).call(|| "getdents(<root>)")?.is_empty();
        // In an empty root everything is this layer's, so there is nothing to hide and nothing to remember.
        tree.written = (!is_empty).then(Written::default);
        Ok(Self(Target::new(tree)))
    }

    fn hard_link(&mut self, name: &[u8], parents: &[&[u8]], entry: &Entry) -> Result<()> {
        match self.0.tree.hard_link(parents, name, &entry.link)? {
            Linked::Yes => Ok(()),
            Linked::NoTarget => {
                let words =
                    format!("the hard link {} names {}, which does not exist", show(name), show(&entry.link));
                Err(Fault::new(FaultKind::Corrupt, words))
            }
        }
    }
}

impl Form for FlatWriter {
    fn target(&mut self) -> &mut Target {
        &mut self.0
    }

    fn whiteout(&mut self, parents: &[&[u8]], name: &[u8]) -> Result<()> {
        if self.0.tree.written.is_some() && self.0.tree.enter(parents, Missing::Stop)? {
            self.0.tree.hide(name)
        } else {
            Ok(())
        }
    }

    fn opaque(&mut self, directory: &[&[u8]]) -> Result<()> {
        if self.0.tree.written.is_some() && self.0.tree.enter(directory, Missing::Stop)? {
            let path = self.0.tree.path().to_vec();
            self.0.tree.hide_below(path)?;
        }
        Ok(())
    }

    fn plain(&mut self, name: &[u8], parents: &[&[u8]], mut entry: Entry) -> Result<()> {
        if entry.kind == Kind::HardLink {
            return self.hard_link(name, parents, &entry);
        }
        self.0.tree.enter(parents, Missing::Create)?;
        match entry.kind {
            Kind::File => self.0.open = Some(self.0.tree.file(name, entry)?),
            Kind::Directory => {
                let attributes = Attributes::take(&mut entry);
                self.0.tree.directory(name, attributes)?;
            }
            Kind::Symlink => self.0.tree.symlink(name, entry)?,
            _ => self.0.tree.node(name, entry)?,
        }
        Ok(())
    }
}

impl LayerWriter for FlatWriter {
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
