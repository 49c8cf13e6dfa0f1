//! Everything that is no directory.

use std::os::fd::{AsFd, OwnedFd};

use bale_fault::Result;
use bale_sys::error::Call;
use rustix::fs::{self, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::attributes::{Attributes, Place};
use super::name::Path;
use super::tree::{Missing, Tree, is_whiteout};
use crate::fault::{corrupt, show};
use crate::tar::{Entry, Kind};

/// The file whose content comes.
pub(super) struct OpenFile {
    fd: OwnedFd,
    path: Vec<u8>,
    attributes: Attributes,
    is_plain: bool,
    size: u64,
    /// End of what was written.
    end: u64,
}

impl OpenFile {
    pub(super) fn write(&mut self, mut offset: u64, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            match rustix::io::pwrite(&self.fd, bytes, offset) {
                Ok(count) => {
                    bytes = &bytes[count..];
                    offset += count as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => {
                    let call = format!("pwrite({}, {} bytes, {offset})", show(&self.path), bytes.len());
                    return Err(bale_sys::Error::new(call, errno).into());
                }
            }
        }
        self.end = offset;
        Ok(())
    }

    /// Sets size and attributes, which has to come after the content.
    pub(super) fn close(self, tree: &mut Tree) -> Result<()> {
        if self.end != self.size {
            fs::ftruncate(&self.fd, self.size)
                .call(|| format!("ftruncate({}, {})", show(&self.path), self.size))?;
        }
        let (owner, is_plain, is_overlay) = (tree.owner, self.is_plain, tree.is_overlay);
        let place = Place { path: &self.path, owner, is_plain, is_overlay };
        self.attributes.set_on_file(self.fd.as_fd(), &place, &mut tree.table.warnings)
    }
}

/// What became of a hard link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Linked {
    Yes,
    /// Its target does not exist.
    NoTarget,
}

impl Tree {
    /// Creates file `name` on top.
    pub(super) fn file(&mut self, name: &[u8], mut entry: Entry) -> Result<OpenFile> {
        let attributes = Attributes::take(&mut entry);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(attributes.mode & 0o777);
        let fd = self.place("openat", name, |top| fs::openat(top, name, flags, mode))?;
        let (path, is_plain) = (self.child(name), self.is_plain());
        Ok(OpenFile { fd, path, attributes, is_plain, size: entry.size, end: 0 })
    }

    pub(super) fn symlink(&mut self, name: &[u8], mut entry: Entry) -> Result<()> {
        if entry.link.is_empty() {
            return Err(corrupt(format!("the symbolic link {} has no target", show(&self.child(name)))));
        }
        let attributes = Attributes::take(&mut entry);
        self.place("symlinkat", name, |top| fs::symlinkat(entry.link.as_slice(), top, name))?;
        self.set_on_name(name, true, &attributes)
    }

    /// Creates a device or FIFO.
    pub(super) fn node(&mut self, name: &[u8], mut entry: Entry) -> Result<()> {
        let (kind, device) = match entry.kind {
            Kind::CharDevice => (FileType::CharacterDevice, entry.device),
            Kind::BlockDevice => (FileType::BlockDevice, entry.device),
            _ => (FileType::Fifo, (0, 0)),
        };
        let attributes = Attributes::take(&mut entry);
        let mode = Mode::from_raw_mode(attributes.mode & 0o777);
        let device = fs::makedev(device.0, device.1);
        self.place("mknodat", name, |top| fs::mknodat(top, name, kind, mode, device))?;
        self.set_on_name(name, false, &attributes)
    }

    fn set_on_name(&mut self, name: &[u8], is_link: bool, attributes: &Attributes) -> Result<()> {
        let Some(top) = self.top_shared() else { return Ok(()) };
        let path = self.child(name);
        let (owner, is_plain, is_overlay) = (self.owner, self.is_plain(), self.is_overlay);
        let place = Place { path: &path, owner, is_plain, is_overlay };
        attributes.set_on_name(top.as_fd(), name, is_link, &place, &mut self.table.warnings)
    }

    /// Makes `name` in `parents` a hard link to `target`.
    pub(super) fn hard_link(&mut self, parents: &[&[u8]], name: &[u8], target: &[u8]) -> Result<Linked> {
        let target_path = Path::parse(target)?;
        let Some((target_name, target_parents)) = target_path.split_last() else {
            return Err(corrupt(format!("a hard link to the root: {}", show(name))));
        };
        if !self.enter(target_parents, Missing::Stop)? {
            return Ok(Linked::NoTarget);
        }
        let (Some(target_dir), Some(target_stat)) = (self.top_shared(), self.stat(target_name)?) else {
            return Ok(Linked::NoTarget);
        };
        if self.is_overlay && is_whiteout(&target_stat) {
            return Ok(Linked::NoTarget);
        }
        if FileType::from_raw_mode(target_stat.st_mode) == FileType::Directory {
            return Err(corrupt(format!("a hard link to a directory: {}", show(&self.child(target_name)))));
        }
        self.enter(parents, Missing::Create)?;
        if let Some(stat) = self.stat(name)?
            && (stat.st_dev, stat.st_ino) == (target_stat.st_dev, target_stat.st_ino)
        {
            self.touch()?;
            self.note_written(name);
            return Ok(Linked::Yes);
        }
        let flags = fs::AtFlags::empty();
        self.place("linkat", name, |top| fs::linkat(&target_dir, target_name, top, name, flags))?;
        Ok(Linked::Yes)
    }
}
