//! What the writers do alike: an entry's name decides what it is, and the content of a file follows its entry.

use bale_fault::Result;

use super::attributes::Attributes;
use super::file::OpenFile;
use super::name::{Path, Role};
use super::tree::Tree;
use crate::fault::{corrupt, show};
use crate::tar::{Entry, Kind};

/// A tree, and the file in it whose content comes next.
pub(super) struct Target {
    pub tree: Tree,
    pub open: Option<OpenFile>,
}

impl Target {
    pub(super) const fn new(tree: Tree) -> Self {
        Self { tree, open: None }
    }

    /// Ends the open file.
    pub(super) fn close(&mut self) -> Result<()> {
        self.open.take().map_or(Ok(()), |file| file.close(&mut self.tree))
    }

    pub(super) fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let Some(file) = &mut self.open else { return Ok(()) };
        self.tree.table.content_bytes += bytes.len() as u64;
        file.write(offset, bytes)
    }
}

/// Where the writers differ.
pub(super) trait Form {
    fn target(&mut self) -> &mut Target;

    /// Writes what is there.
    fn plain(&mut self, name: &[u8], parents: &[&[u8]], entry: Entry) -> Result<()>;

    /// Hides `name` of the layers below.
    fn whiteout(&mut self, parents: &[&[u8]], name: &[u8]) -> Result<()>;

    /// Hides all that the layers below have in `directory`.
    fn opaque(&mut self, directory: &[&[u8]]) -> Result<()>;

    /// Takes an entry.
    fn take(&mut self, mut entry: Entry) -> Result<()> {
        self.target().close()?;
        let bytes = std::mem::take(&mut entry.path);
        let path = Path::parse(&bytes)?;
        match (path.role()?, path.split_last()) {
            (_, None) if entry.kind == Kind::Directory => {
                self.target().tree.root_entry(Attributes::take(&mut entry));
            }
            (_, None) => return Err(corrupt(format!("the entry {} would replace the root", show(&bytes)))),
            (Role::Plain, Some((name, parents))) => self.plain(name, parents, entry)?,
            (Role::Whiteout(name), Some((_, parents))) => self.whiteout(parents, name)?,
            (Role::Opaque, Some((_, parents))) => self.opaque(parents)?,
            (Role::Reserved, Some(_)) => self.target().tree.warn(&bytes, "the name is reserved"),
        }
        Ok(())
    }
}
