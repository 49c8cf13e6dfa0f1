//! A root file system: each layer is applied on what the layers below have left.
//!
//! The result is that of `umoci unpack`, entry by entry. Differences on purpose: `trusted.*` attributes are
//! not set, and directories that a layer only names as parents get time 0.

use bale_fault::{Fault, Kind as FaultKind, Result};
use bale_sys::error::Call;
use bale_sys::root::RootFd;

use super::LayerWriter;
use super::attributes::Attributes;
use super::file::{Linked, OpenFile};
use super::name::{Path, Role};
use super::remove::names;
use super::tree::{Missing, Tree};
use super::written::Written;
use crate::Table;
use crate::fault::{corrupt, show};
use crate::tar::{Entry, Kind};

/// Applies one layer to a root file system: make one for each layer, lowest first.
pub struct FlatWriter {
    tree: Tree,
    open: Option<OpenFile>,
}

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
        Ok(Self { tree, open: None })
    }

    fn close(&mut self) -> Result<()> {
        self.open.take().map_or(Ok(()), |file| file.close(&mut self.tree))
    }

    fn whiteout(&mut self, parents: &[&[u8]], name: &[u8]) -> Result<()> {
        if self.tree.written.is_some() && self.tree.enter(parents, Missing::Stop)? {
            self.tree.hide(name)
        } else {
            Ok(())
        }
    }

    fn opaque(&mut self, directory: &[&[u8]]) -> Result<()> {
        if self.tree.written.is_some() && self.tree.enter(directory, Missing::Stop)? {
            let path = self.tree.path().to_vec();
            self.tree.hide_below(path)?;
        }
        Ok(())
    }

    fn plain(&mut self, name: &[u8], parents: &[&[u8]], mut entry: Entry) -> Result<()> {
        if entry.kind == Kind::HardLink {
            return self.hard_link(name, parents, &entry);
        }
        self.tree.enter(parents, Missing::Create)?;
        match entry.kind {
            Kind::File => self.open = Some(self.tree.file(name, entry)?),
            Kind::Directory => {
                let attributes = Attributes::take(&mut entry);
                self.tree.directory(name, attributes)?;
            }
            Kind::Symlink => self.tree.symlink(name, entry)?,
            _ => self.tree.node(name, entry)?,
        }
        Ok(())
    }

    fn hard_link(&mut self, name: &[u8], parents: &[&[u8]], entry: &Entry) -> Result<()> {
        match self.tree.hard_link(parents, name, &entry.link)? {
            Linked::Yes => Ok(()),
            Linked::NoTarget => {
                let words =
                    format!("the hard link {} names {}, which does not exist", show(name), show(&entry.link));
                Err(Fault::new(FaultKind::Corrupt, words))
            }
        }
    }
}

impl LayerWriter for FlatWriter {
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
        self.tree.finish()
    }
}
