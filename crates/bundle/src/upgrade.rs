//! A bundle of 2015 to 2017 on disk, rewritten in today's format.
//!
//! The order lets a SIGKILL fall anywhere: the originals get their second names first, then `config.json` is replaced
//! by rename, then `runtime.json` loses its first name. A second upgrade finishes what is left of a first one.

use std::os::fd::OwnedFd;
use std::path::Path;

use bale_fault::{Context, Fault, Kind, Result};
use bale_spec::legacy::{Converted, HostDevice, Options};
use bale_sys::error::Call;
use bale_sys::file::{self, Durability};
use bale_sys::root::{Links, RelPath, RootFd};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::open::{CONFIG, Files, Legacy, RUNTIME};

/// What is put behind the names of the originals.
const KEPT: &str = ".legacy";

/// What an upgrade did.
#[derive(Debug)]
pub enum Upgraded {
    /// The bundle was current already.
    Current,
    /// An earlier upgrade had been interrupted; its last step was done.
    Finished,
    /// The bundle was converted.
    Converted(Box<Converted>),
}

/// Converts the bundle at `path` in memory; `None` when it is current.
///
/// # Errors
/// `NotFound` without a `config.json`; `InvalidInput` with the JSON path for what cannot be converted.
pub fn convert(path: &Path, options: Options) -> Result<Option<Converted>> {
    let files = Files::open(path)?;
    let Some(dialect) = files.dialect()? else { return Ok(None) };
    Legacy { files, dialect }.convert(options).map(Some)
}

/// Converts the bundle at `path` on disk and keeps the originals as `config.json.legacy` and `runtime.json.legacy`.
///
/// # Errors
/// As [`convert`]; `AlreadyExists` when another file has the name of a kept original. The bundle is unchanged then.
pub fn upgrade(path: &Path, options: Options) -> Result<Upgraded> {
    let files = Files::open(path)?;
    let words = || format!("upgrade the bundle {path:?}");
    let Some(dialect) = files.dialect()? else { return finish(files.dir()).within(words) };
    let legacy = Legacy { files, dialect };
    let converted = legacy.convert(options)?;
    let (bundle, has_runtime) = (legacy.files.dir(), legacy.files.runtime().is_some());
    keep(bundle, CONFIG).within(words)?;
    if has_runtime {
        keep(bundle, RUNTIME).within(words)?;
    }
    let text = converted.to_canonical();
    file::replace(bundle, CONFIG, text.as_bytes(), Mode::from_raw_mode(0o644), Durability::Power)
        .map_err(Fault::from)?;
    if has_runtime {
        unlink(bundle, RUNTIME).within(words)?;
    }
    Ok(Upgraded::Converted(Box::new(converted)))
}

/// Gives an original its second name. That it has it already is the sign of an interrupted upgrade.
fn keep(bundle: &RootFd, name: &str) -> Result<()> {
    let kept = format!("{name}{KEPT}");
    match fs::linkat(bundle, name, bundle, kept.as_str(), AtFlags::empty()) {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) if same_file(bundle, name, &kept) => Ok(()),
        Err(Errno::EXIST) => {
            let words = format!("{kept} exists and is not {name}");
            Err(Fault::new(Kind::AlreadyExists, words).hint(format!("move {kept} out of the bundle")))
        }
        Err(errno) => Err(bale_sys::Error::new(format!("linkat({name:?}, {kept:?})"), errno).into()),
    }
}

fn same_file(bundle: &RootFd, one: &str, other: &str) -> bool {
    let stat = |name| fs::statat(bundle, name, AtFlags::SYMLINK_NOFOLLOW);
    match (stat(one), stat(other)) {
        (Ok(one), Ok(other)) => (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino),
        _ => false,
    }
}

/// Removes a `runtime.json` that an interrupted upgrade left under both names.
fn finish(bundle: &RootFd) -> Result<Upgraded> {
    if !same_file(bundle, RUNTIME, &format!("{RUNTIME}{KEPT}")) {
        return Ok(Upgraded::Current);
    }
    unlink(bundle, RUNTIME)?;
    Ok(Upgraded::Finished)
}

fn unlink(bundle: &RootFd, name: &str) -> Result<()> {
    Ok(fs::unlinkat(bundle, name, AtFlags::empty()).call(|| format!("unlinkat({name:?})"))?)
}

/// Looks a device of the host up, for the dialect that only names devices.
pub(crate) fn host_device(path: &str) -> Option<HostDevice> {
    let below = RelPath::new(path).ok()?;
    let fd: OwnedFd =
        RootFd::open("/").ok()?.open_at(&below, OFlags::PATH | OFlags::NOFOLLOW, Links::InRoot).ok()?;
    let stat = fs::fstat(&fd).ok()?;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::CharacterDevice => 'c',
        FileType::BlockDevice => 'b',
        _ => return None,
    };
    Some(HostDevice { kind, major: fs::major(stat.st_rdev), minor: fs::minor(stat.st_rdev) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let golden =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../spec/tests/legacy/0.2.0-October-2015/seed");
        for name in [CONFIG, RUNTIME] {
            std::fs::copy(golden.join(name), dir.path().join(name)).unwrap();
        }
        std::fs::copy(golden.join("expected.json"), dir.path().join("expected")).unwrap();
        dir
    }

    fn names(dir: &tempfile::TempDir) -> Vec<String> {
        let entries = std::fs::read_dir(dir.path()).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_seed_is_upgraded_once() {
        let dir = seed();
        let read = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
        let original = read(CONFIG);
        assert!(matches!(upgrade(dir.path(), Options::default()), Ok(Upgraded::Converted(_))));
        assert_eq!(read(CONFIG), read("expected"));
        assert_eq!(read("config.json.legacy"), original);
        assert_eq!(names(&dir), ["config.json", "config.json.legacy", "expected", "runtime.json.legacy"]);
        assert!(matches!(upgrade(dir.path(), Options::default()), Ok(Upgraded::Current)));
        assert_eq!(read(CONFIG), read("expected"));
    }

    #[test]
    fn an_interrupted_upgrade_is_finished() {
        // Killed after the second names were given, and killed after config.json was replaced.
        let dir = seed();
        let path = |name: &str| dir.path().join(name);
        std::fs::hard_link(path(CONFIG), path("config.json.legacy")).unwrap();
        std::fs::hard_link(path(RUNTIME), path("runtime.json.legacy")).unwrap();
        assert!(matches!(upgrade(dir.path(), Options::default()), Ok(Upgraded::Converted(_))));
        std::fs::hard_link(path("runtime.json.legacy"), path(RUNTIME)).unwrap();
        assert!(matches!(upgrade(dir.path(), Options::default()), Ok(Upgraded::Finished)));
        assert_eq!(names(&dir), ["config.json", "config.json.legacy", "expected", "runtime.json.legacy"]);
    }

    #[test]
    fn a_stranger_with_the_kept_name_is_not_touched() {
        let dir = seed();
        std::fs::write(dir.path().join("config.json.legacy"), "mine").unwrap();
        let fault = upgrade(dir.path(), Options::default()).unwrap_err();
        assert_eq!(fault.kind(), Kind::AlreadyExists);
        assert_eq!(names(&dir), ["config.json", "config.json.legacy", "expected", "runtime.json"]);
    }
}
