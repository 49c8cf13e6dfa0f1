//! `volume`: directories that outlive containers, `<root>/volumes/<name>/{volume.json, _data}`.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use bale_fault::{Context, Fault, Kind, Result};
use bale_record::time;
use bale_spec::generate::Volume;
use bale_sys::error::Call;
use bale_sys::file::{self, Durability, Lock, LockMode};
use bale_sys::root::{Links, RelPath, RootFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::Engine;
use crate::container::{Container, new_id};

const FILE: &str = "volume.json";
const LOCK: &str = ".lock";
const DATA: &str = "_data";
const LIMIT_BYTES: usize = 1 << 20;

/// What is known of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// Name.
    pub name: String,
    /// RFC 3339 time of creation.
    pub created: String,
    /// Nobody named it.
    #[serde(default)]
    pub anonymous: bool,
    /// Labels.
    #[serde(default)]
    pub labels: std::collections::BTreeMap<String, String>,
    /// Where its files are on the host; known by its place, not stored.
    #[serde(skip)]
    pub mountpoint: PathBuf,
}

fn check(name: &str) -> Result<()> {
    if bale_spec::options::mount::is_volume_name(name) {
        return Ok(());
    }
    let words =
        format!("invalid volume name {name:?}: want a letter or digit, then letters, digits and _ . -");
    Err(Fault::new(Kind::InvalidInput, words)
        .hint("to mount a directory of the host, give its absolute path"))
}

impl Engine {
    /// Returns the directory of volumes.
    #[must_use]
    pub fn volumes(&self) -> PathBuf {
        self.root().join("volumes")
    }

    /// Makes a volume, or finds the one of that name. Without a name it gets one of 64 digits.
    ///
    /// # Errors
    /// `InvalidInput` for a name that is none; the failed call.
    pub fn create_volume(
        &self,
        name: Option<&str>,
        labels: std::collections::BTreeMap<String, String>,
    ) -> Result<Info> {
        // Docker too takes one that nobody named for anonymous: `volume prune` removes it.
        let anonymous = name.is_none();
        let name = name.map_or_else(new_id, |name| Ok(name.to_owned()))?;
        check(&name)?;
        let info = Info { name, created: time::now(), anonymous, labels, mountpoint: PathBuf::new() };
        self.make_volume(info).map(|(info, ..)| info)
    }

    fn make_volume(&self, info: Info) -> Result<(Info, RootFd, Lock)> {
        let words = format!("make volume {}", info.name);
        let path = self.volumes().join(&info.name);
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).within(|| words.as_str())?;
        let dir = RootFd::open(&path)?;
        let lock = Lock::take(&dir, LOCK, LockMode::Exclusive)?;
        // Users other than root reach the files through the container only, so the modes above do not matter there.
        match rustix::fs::mkdirat(&dir, DATA, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => {
                return Err(Fault::from(bale_sys::Error::new("mkdirat(\"_data\")", errno)).within(words));
            }
        }
        let info = match self.read_volume(&info.name) {
            Ok(existing) => existing,
            Err(fault) if fault.kind() == Kind::NotFound => {
                let text =
                    serde_json::to_vec(&info).map_err(|e| Fault::new(Kind::Internal, words).caused_by(e))?;
                file::replace(&dir, FILE, &text, Mode::from_raw_mode(0o600), Durability::Process)?;
                Info { mountpoint: path.join(DATA), ..info }
            }
            Err(fault) => return Err(fault),
        };
        Ok((info, dir, lock))
    }

    fn read_volume(&self, name: &str) -> Result<Info> {
        check(name)?;
        let path = self.volumes().join(name);
        let missing = || Fault::new(Kind::NotFound, format!("no such volume: {name}"));
        let dir = RootFd::open(&path).map_err(|error| match error.errno() {
            Errno::NOENT => missing(),
            _ => error.into(),
        })?;
        let text = file::read_bounded(&dir, FILE, LIMIT_BYTES).map_err(|error| match error.errno() {
            Errno::NOENT => missing(),
            _ => error.into(),
        })?;
        let damaged = |e| Fault::new(Kind::Corrupt, format!("{:?} is damaged", path.join(FILE))).caused_by(e);
        let info: Info = serde_json::from_slice(&text).map_err(damaged)?;
        Ok(Info { mountpoint: path.join(DATA), ..info })
    }

    /// Finds a volume.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn volume(&self, name: &str) -> Result<Info> {
        self.read_volume(name).map_err(|fault| {
            if fault.kind() == Kind::NotFound { fault.hint("`bale volume ls` lists volumes") } else { fault }
        })
    }

    /// Lists volumes by name.
    ///
    /// # Errors
    /// The failed call.
    pub fn list_volumes(&self) -> Result<Vec<Info>> {
        let path = self.volumes();
        let entries = match std::fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).within(|| format!("list {path:?}")),
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut found: Vec<Info> = names.filter_map(|name| self.read_volume(&name).ok()).collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Returns how many bytes a volume's files have; what cannot be read counts for nothing.
    #[must_use]
    pub fn size_of_volume(&self, info: &Info) -> u64 {
        let mut bytes = 0;
        let mut folders = vec![info.mountpoint.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let Ok(metadata) = entry.metadata() else { continue };
                if metadata.is_dir() {
                    folders.push(entry.path());
                } else {
                    bytes += metadata.len();
                }
            }
        }
        bytes
    }

    /// Returns the names of the containers that use a volume.
    ///
    /// # Errors
    /// The failed call.
    pub fn users_of_volume(&self, name: &str) -> Result<Vec<String>> {
        let ids = bale_record::list(&self.containers())?;
        let containers = ids.iter().filter_map(|id| Container::open(self, id).ok());
        let users = containers.filter(|c| c.details.volumes.iter().any(|volume| volume.name == name));
        Ok(users.map(|c| c.details.name).collect())
    }

    /// Removes a volume and all that is in it.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when a container uses it.
    pub fn remove_volume(&self, name: &str) -> Result<()> {
        self.volume(name)?;
        let users = self.users_of_volume(name)?;
        if !users.is_empty() {
            let words = format!("volume {name} is in use by {}", users.join(", "));
            return Err(Fault::new(Kind::Conflict, words).hint("remove those containers first"));
        }
        self.drop_volume(name)
    }

    /// Removes the anonymous volumes of a container that is being removed, except those another one uses too.
    pub(crate) fn drop_anonymous_volumes(&self, volumes: &[Volume], container: &str) -> Result<()> {
        for volume in volumes.iter().filter(|volume| volume.anonymous) {
            let users = self.users_of_volume(&volume.name)?;
            if users.iter().all(|user| user == container) && self.volumes().join(&volume.name).exists() {
                self.drop_volume(&volume.name)?;
            }
        }
        Ok(())
    }

    fn drop_volume(&self, name: &str) -> Result<()> {
        let volumes = RootFd::open(self.volumes())?;
        let text =
            CString::new(name).map_err(|_| Fault::new(Kind::InvalidInput, "a name with a NUL byte"))?;
        bale_store::remove_tree(&volumes, &text)
            .map_err(Fault::from)
            .within(|| format!("remove volume {name}"))
    }

    /// Makes the volumes of a container and fills the empty ones from its image.
    ///
    /// # Errors
    /// The failed call.
    pub(crate) fn prepare_volumes(&self, volumes: &[Volume], image: Option<&RootFd>) -> Result<()> {
        for volume in volumes {
            let info = Info {
                name: volume.name.clone(),
                created: time::now(),
                anonymous: volume.anonymous,
                labels: std::collections::BTreeMap::new(),
                mountpoint: PathBuf::new(),
            };
            // The lock keeps a second container from using it half filled.
            let (_, dir, _lock) = self.make_volume(info)?;
            if let (true, Some(image)) = (volume.copy_up, image) {
                let words = || format!("fill volume {} from {}", volume.name, volume.destination);
                fill(&dir, image, &volume.destination).within(words)?;
            }
        }
        Ok(())
    }
}

/// Copies what the image has at `destination`, if it is a directory there and the volume is empty.
fn fill(volume: &RootFd, image: &RootFd, destination: &str) -> Result<()> {
    let data = RelPath::new(DATA).map_err(|e| Fault::new(Kind::Internal, e.to_string()))?;
    let data = volume.open_at(&data, OFlags::RDONLY | OFlags::DIRECTORY, Links::Refused)?;
    if !is_empty(&data)? {
        return Ok(());
    }
    let below = RelPath::clamped(destination).map_err(|e| Fault::new(Kind::InvalidInput, e.to_string()))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK;
    match image.open_at(&below, flags, Links::InRoot) {
        Ok(source) => crate::copy::tree(&source, &data),
        Err(error) if matches!(error.errno(), Errno::NOENT | Errno::NOTDIR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn is_empty(dir: &OwnedFd) -> Result<bool> {
    for entry in rustix::fs::Dir::read_from(dir).call(|| "getdents64()")? {
        let entry = entry.call(|| "getdents64()")?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_made_once_filled_once_and_removed() {
        let root = tempfile::tempdir().unwrap();
        let engine = Engine::open(root.path()).unwrap();
        let image = tempfile::tempdir().unwrap();
        std::fs::create_dir(image.path().join("data")).unwrap();
        std::fs::write(image.path().join("data/f"), "of the image").unwrap();
        let volume = Volume {
            name: "db".to_owned(),
            anonymous: false,
            destination: "/data".to_owned(),
            source: String::new(),
            copy_up: true,
        };
        let fill = || {
            engine.prepare_volumes(std::slice::from_ref(&volume), Some(&RootFd::open(image.path()).unwrap()))
        };
        fill().unwrap();
        let info = engine.volume("db").unwrap();
        assert_eq!(std::fs::read_to_string(info.mountpoint.join("f")).unwrap(), "of the image");
        std::fs::write(info.mountpoint.join("f"), "changed").unwrap();
        fill().unwrap();
        assert_eq!(std::fs::read_to_string(info.mountpoint.join("f")).unwrap(), "changed");
        assert_eq!(engine.list_volumes().unwrap(), [info]);
        engine.remove_volume("db").unwrap();
        assert_eq!(engine.volume("db").unwrap_err().kind(), Kind::NotFound);
        assert!(engine.create_volume(Some("../x"), Default::default()).is_err());
    }
}
