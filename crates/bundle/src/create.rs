//! Making a bundle of an image.
//!
//! It is built in a directory beside its place, `.<name>.bale-<pid>-<number>`, which its maker holds locked (flock), and
//! then renamed: there is a whole bundle or none. Whoever makes a bundle of the same name removes what dead makers left.

use std::ffi::CString;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use bale_fault::{Context, Fault, Kind, Result};
use bale_layer::{FlatWriter, UnpackOptions, Unpacked, unpack};
use bale_spec::Digest;
use bale_spec::image::Descriptor;
use bale_spec::runtime::RuntimeConfig;
use bale_sys::error::Call;
use bale_sys::file::{self, Durability};
use bale_sys::remove::remove_tree;
use bale_sys::root::{Links, RelPath, RootFd};
use rustix::fs::{self, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::open::{CONFIG, IMAGE, IMAGE_CONFIG};
use crate::rootfs::{AccountFiles, account_files};

/// Where a bundle came from: the content of `image.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Full name of the image; absent when it was named by id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Digest of the manifest.
    pub manifest: Digest,
    /// Digest of the config: docker's image id.
    pub id: Digest,
    /// `os/architecture[/variant]`.
    pub platform: String,
    /// Digests of the uncompressed layers, the lowest first.
    pub layers: Vec<Digest>,
}

/// A layer to unpack.
pub struct Layer<'a> {
    /// What the manifest promises.
    pub blob: Descriptor,
    /// What the config promises.
    pub diff_id: Digest,
    /// Opens the compressed bytes.
    pub open: Box<dyn FnOnce() -> Result<Box<dyn Read + Send>> + 'a>,
}

/// An image to make a bundle of.
pub struct Source<'a> {
    /// For `image.json`.
    pub origin: Origin,
    /// The image's config, byte for byte.
    pub config_bytes: &'a [u8],
    /// The layers, the lowest first.
    pub layers: Vec<Layer<'a>>,
}

/// Makes the bundle `path`: layers are unpacked into `rootfs`, then `configure` makes the config from the users that
/// are in there. `unpacked` hears of each layer by its index. An empty directory may be at `path`.
///
/// # Errors
/// `AlreadyExists` when something is at `path`; what unpacking and `configure` fail with. Nothing is left then.
pub fn create(
    path: &Path,
    source: Source<'_>,
    configure: &mut dyn FnMut(&AccountFiles) -> Result<RuntimeConfig>,
    unpacked: &mut dyn FnMut(usize, &Unpacked),
) -> Result<()> {
    let within = || format!("make the bundle {path:?}");
    let place = Place::find(path).within(within)?;
    place.remove_leftovers().within(within)?;
    let draft = place.draft().within(within)?;
    fill(&draft, source, configure, unpacked).within(within)?;
    draft.publish().within(within)
}

/// Checks that a bundle could be made at `path`.
///
/// # Errors
/// As [`create`].
pub fn check_place(path: &Path) -> Result<()> {
    Place::find(path).within(|| format!("make the bundle {path:?}")).map(|_| ())
}

fn fill(
    draft: &Draft<'_>,
    source: Source<'_>,
    configure: &mut dyn FnMut(&AccountFiles) -> Result<RuntimeConfig>,
    unpacked: &mut dyn FnMut(usize, &Unpacked),
) -> Result<()> {
    let dir = &draft.dir;
    fs::mkdirat(dir, "rootfs", Mode::from_raw_mode(0o755)).call(|| "mkdirat(\"rootfs\")")?;
    let rootfs = || -> Result<RootFd> {
        let name = RelPath::new("rootfs").map_err(|e| Fault::new(Kind::Internal, "rootfs").caused_by(e))?;
        Ok(dir.subdir(&name, Links::Refused)?)
    };
    for (index, layer) in source.layers.into_iter().enumerate() {
        let words = || format!("unpack layer {}", layer.blob.digest);
        let options = UnpackOptions {
            expected_blob: Some(layer.blob.clone()),
            expected_diff_id: Some(layer.diff_id),
            ..UnpackOptions::default()
        };
        let reader = (layer.open)().within(words)?;
        let done = unpack(reader, options, &mut FlatWriter::new(rootfs()?)?).within(words)?;
        unpacked(index, &done);
    }
    let config = configure(&account_files(&rootfs()?)?)?;
    write(dir, IMAGE_CONFIG, source.config_bytes)?;
    let mut origin = serde_json::to_string_pretty(&source.origin).unwrap_or_default();
    origin.push('\n');
    write(dir, IMAGE, origin.as_bytes())?;
    write(dir, CONFIG, config.to_canonical().as_bytes())
}

fn write(dir: &RootFd, name: &str, content: &[u8]) -> Result<()> {
    Ok(file::replace(dir, name, content, Mode::from_raw_mode(0o644), Durability::Process)?)
}

/// Where a bundle is to be: its parent, open, and its name there.
struct Place {
    parent: OwnedFd,
    name: String,
    path: PathBuf,
}

/// A bundle that is being made; removed when dropped before it is published.
struct Draft<'a> {
    place: &'a Place,
    name: CString,
    dir: RootFd,
    /// Holds the lock that says the maker is alive.
    _lock: OwnedFd,
    published: bool,
}

impl Place {
    fn find(path: &Path) -> Result<Self> {
        let absolute = std::path::absolute(path).within(|| "make the path absolute")?;
        let name = absolute.file_name().and_then(|n| n.to_str()).filter(|n| n.len() <= 200);
        let (Some(name), Some(parent)) = (name, absolute.parent()) else {
            return Err(Fault::new(Kind::InvalidInput, "this is no name of a directory"));
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent_fd = fs::open(parent, flags, Mode::empty()).call(|| format!("open({parent:?})"));
        let parent_fd =
            parent_fd.map_err(|e| Fault::from(e).hint(format!("make {} first", parent.display())))?;
        let place = Self { parent: parent_fd, name: name.to_owned(), path: absolute };
        place.refuse_content()?;
        Ok(place)
    }

    /// An empty directory may be there, but not the one that the user stands in, as it would be replaced under him.
    fn refuse_content(&self) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let existing = match fs::openat(&self.parent, self.name.as_str(), flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTDIR | Errno::LOOP) => return Err(self.taken("is not a directory")),
            other => other.call(|| format!("open({:?})", self.path))?,
        };
        let entries = fs::Dir::read_from(&existing).call(|| "getdents(<bundle>)")?;
        let named = |e: &fs::DirEntry| e.file_name() != c"." && e.file_name() != c"..";
        if entries.filter_map(rustix::io::Result::ok).any(|e| named(&e)) {
            return Err(self.taken("is not empty"));
        }
        let same = |a: &fs::Stat, b: &fs::Stat| (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino);
        match (fs::fstat(&existing), fs::stat(".")) {
            (Ok(there), Ok(here)) if same(&there, &here) => {
                Err(Fault::new(Kind::Conflict, "this is the working directory").hint("name a new directory"))
            }
            _ => Ok(()),
        }
    }

    fn taken(&self, words: &str) -> Fault {
        let fault = Fault::new(Kind::AlreadyExists, format!("{:?} {words}", self.path));
        fault.hint("name a new or an empty directory")
    }

    fn prefix(&self) -> String {
        format!(".{}.bale-", self.name)
    }

    /// Removes drafts of this name whose maker is dead.
    fn remove_leftovers(&self) -> Result<()> {
        let prefix = self.prefix();
        let entries = fs::Dir::read_from(&self.parent).call(|| "getdents(<parent>)")?;
        for entry in entries {
            let entry = entry.call(|| "getdents(<parent>)")?;
            if !entry.file_name().to_bytes().starts_with(prefix.as_bytes()) {
                continue;
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let Ok(dir) = fs::openat(&self.parent, entry.file_name(), flags, Mode::empty()) else { continue };
            if fs::flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok() {
                remove_tree(&self.parent, entry.file_name())?;
            }
        }
        Ok(())
    }

    fn draft(&self) -> Result<Draft<'_>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for number in 0..1000 {
            let pid = rustix::process::getpid().as_raw_nonzero();
            let text = format!("{}{pid}-{number}", self.prefix());
            let name =
                CString::new(text).map_err(|e| Fault::new(Kind::InvalidInput, "a NUL byte").caused_by(e))?;
            match fs::mkdirat(&self.parent, name.as_c_str(), Mode::from_raw_mode(0o700)) {
                Err(Errno::EXIST) => continue,
                other => other.call(|| format!("mkdirat({name:?})"))?,
            }
            // Another maker may take the new directory for a leftover until it is locked: then the next one is tried.
            let Ok(lock) = fs::openat(&self.parent, name.as_c_str(), flags, Mode::empty()) else { continue };
            let locked = fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
            if !locked || fs::fstat(&lock).call(|| format!("fstat({name:?})"))?.st_nlink == 0 {
                continue;
            }
            let dir =
                RootFd::from_fd(rustix::io::fcntl_dupfd_cloexec(&lock, 3).call(|| "fcntl(F_DUPFD_CLOEXEC)")?);
            return Ok(Draft { place: self, name, dir, _lock: lock, published: false });
        }
        Err(Fault::new(Kind::Conflict, format!("too many {}* beside it", self.prefix())))
    }
}

impl Draft<'_> {
    fn publish(mut self) -> Result<()> {
        let place = self.place;
        match fs::renameat(&place.parent, self.name.as_c_str(), &place.parent, place.name.as_str()) {
            Ok(()) => {
                self.published = true;
                Ok(())
            }
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {
                Err(place.taken("was made by somebody else meanwhile"))
            }
            Err(errno) => {
                Err(bale_sys::Error::new(format!("renameat({:?}, {:?})", self.name, place.path), errno)
                    .into())
            }
        }
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if !self.published {
            // The failure that led here is the one to tell; a leftover is removed by the next maker.
            let _ = remove_tree(self.place.parent.as_fd(), &self.name);
        }
    }
}

#[cfg(test)]
mod tests;
