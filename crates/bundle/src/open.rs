//! Opening a bundle: its files by descriptor, its config parsed, its age told.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use bale_fault::{Context, Fault, Kind, Result};
use bale_spec::json::{self, CONFIG_LIMIT_BYTES};
use bale_spec::legacy::{self, Converted, Dialect, Options};
use bale_spec::runtime::RuntimeConfig;
use bale_spec::validate::{self, Severity};
use bale_sys::file;
use bale_sys::root::{Links, RelPath, RootFd};
use rustix::io::Errno;

/// The name of the config.
pub const CONFIG: &str = "config.json";
/// The second file of the bundles of 2015.
pub const RUNTIME: &str = "runtime.json";
/// The image's config, byte for byte.
pub const IMAGE_CONFIG: &str = "image-config.json";
/// Name and digests of the image.
pub const IMAGE: &str = "image.json";

/// A bundle.
#[derive(Debug)]
pub enum Bundle {
    /// In today's format.
    Current(Box<Current>),
    /// In a format of 2015 to 2017.
    Legacy(Legacy),
}

/// A bundle in today's format.
#[derive(Debug)]
pub struct Current {
    /// Its files.
    pub files: Files,
    /// Its config.
    pub config: RuntimeConfig,
}

/// A bundle in a format of 2015 to 2017.
#[derive(Debug)]
pub struct Legacy {
    /// Its files.
    pub files: Files,
    /// Which format.
    pub dialect: Dialect,
}

/// A bundle's directory and the text of its config.
#[derive(Debug)]
pub struct Files {
    path: PathBuf,
    dir: RootFd,
    config: Vec<u8>,
    runtime: Option<Vec<u8>>,
}

impl Bundle {
    /// Opens the bundle in the directory `path`.
    ///
    /// # Errors
    /// `NotFound` without directory or `config.json`, `InvalidInput` when it cannot be parsed.
    pub fn open(path: &Path) -> Result<Self> {
        let files = Files::open(path)?;
        if let Some(dialect) = files.dialect()? {
            return Ok(Self::Legacy(Legacy { files, dialect }));
        }
        let config = RuntimeConfig::parse(&files.config).map_err(|_| files.refused())?;
        Ok(Self::Current(Box::new(Current { config, files })))
    }
}

impl Legacy {
    /// Converts the config in memory.
    ///
    /// # Errors
    /// `InvalidInput` with the JSON path of what cannot be converted.
    pub fn convert(&self, options: Options) -> Result<Converted> {
        let (config, runtime) = (&self.files.config, self.files.runtime.as_deref());
        let converted = legacy::convert(config, runtime, options, &crate::upgrade::host_device);
        converted.within(|| format!("convert the bundle {:?}", self.files.path))
    }
}

impl Files {
    /// Opens the directory and reads its config.
    ///
    /// # Errors
    /// `NotFound` without directory or `config.json`.
    pub fn open(path: &Path) -> Result<Self> {
        let within = || format!("open the bundle {path:?}");
        let path = std::path::absolute(path).within(within)?;
        let dir = RootFd::open(&path).map_err(|error| match error.errno() {
            Errno::NOENT => no_bundle(&path),
            _ => Fault::from(error).within(within()),
        })?;
        let config = match file::read_bounded(&dir, CONFIG, CONFIG_LIMIT_BYTES) {
            Ok(text) => text,
            Err(error) if error.errno() == Errno::NOENT => {
                let fault = Fault::new(Kind::NotFound, format!("there is no {CONFIG} in it"));
                let hint = format!(
                    "`bale bundle IMAGE DIR` makes a whole bundle, `bale spec --bundle {}` a config to start from",
                    path.display()
                );
                return Err(fault.hint(hint)).within(within);
            }
            Err(error) => return Err(Fault::from(error)).within(within),
        };
        let runtime = match file::read_bounded(&dir, RUNTIME, CONFIG_LIMIT_BYTES) {
            Ok(text) => Some(text),
            Err(error) if error.errno() == Errno::NOENT => None,
            Err(error) => return Err(Fault::from(error)).within(within),
        };
        Ok(Self { path, dir, config, runtime })
    }

    /// Tells the old format it is in, by its shape; `None` for today's.
    ///
    /// # Errors
    /// `InvalidInput` when a file is not JSON.
    pub fn dialect(&self) -> Result<Option<Dialect>> {
        let config = json::parse(&self.config, CONFIG_LIMIT_BYTES).map_err(|_| self.refused())?;
        let runtime = self.runtime.as_deref().map(|text| {
            let parsed = json::parse(text, CONFIG_LIMIT_BYTES);
            let fault = |error| Fault::new(Kind::InvalidInput, RUNTIME).caused_by(error).within(self.words());
            parsed.map_err(fault)
        });
        Ok(legacy::detect(&config, runtime.transpose()?.as_ref()))
    }

    /// Says what is wrong with a config that cannot be read, and where.
    fn refused(&self) -> Fault {
        let text = &self.config;
        let findings = validate::validate(text).findings.located(&String::from_utf8_lossy(text));
        let first = findings.into_iter().find(|finding| finding.severity == Severity::Error);
        let Some(first) = first else {
            return Fault::new(Kind::InvalidInput, format!("{CONFIG} cannot be read")).within(self.words());
        };
        let mut words = CONFIG.to_owned();
        for number in [first.line, first.column].into_iter().flatten() {
            words.push_str(&format!(":{number}"));
        }
        if !first.path.is_empty() {
            words.push_str(&format!(": {}", first.path));
        }
        let hint = first.hint.unwrap_or_else(|| check_hint(&self.path));
        let fault = Fault::new(Kind::InvalidInput, format!("{words}: {}", first.words));
        fault.hint(hint).within(self.words())
    }

    fn words(&self) -> String {
        format!("open the bundle {:?}", self.path)
    }

    /// Returns the absolute path, for messages and for those who must hand a path on.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the directory.
    #[must_use]
    pub const fn dir(&self) -> &RootFd {
        &self.dir
    }

    /// Returns the text of `config.json`.
    #[must_use]
    pub fn config(&self) -> &[u8] {
        &self.config
    }

    /// Returns the text of `runtime.json`.
    #[must_use]
    pub fn runtime(&self) -> Option<&[u8]> {
        self.runtime.as_deref()
    }

    /// Reads another file of the bundle, at most `limit_bytes`; `None` when there is none.
    ///
    /// # Errors
    /// The failed read.
    pub fn read(&self, name: &str, limit_bytes: usize) -> Result<Option<Vec<u8>>> {
        match file::read_bounded(&self.dir, name, limit_bytes) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.errno() == Errno::NOENT => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens the root file system that `root.path` of the config names. Links are refused, as every runtime does.
    ///
    /// # Errors
    /// `NotFound`; `InvalidInput` for a path with a link in it, or something that is no directory.
    pub fn rootfs(&self, root_path: &str) -> Result<RootFd> {
        open_path(&self.path, &self.dir, root_path).map_err(|error| {
            let fault = Fault::from(error.clone()).within(format!("open the root file system {root_path:?}"));
            match error.errno() {
                Errno::LOOP => fault.with_kind(Kind::InvalidInput).hint(
                    "it is or lies behind a symbolic link, which runtimes refuse: name the real directory",
                ),
                Errno::NOTDIR => fault.with_kind(Kind::InvalidInput).hint("it must be a directory"),
                _ => fault.hint("root.path of config.json names the directory that becomes /"),
            }
        })
    }
}

/// Opens a directory that a config names, relative to the bundle or absolute, without following links.
pub(crate) fn open_path(bundle: &Path, dir: &RootFd, path: &str) -> bale_sys::Result<RootFd> {
    let relative = !path.starts_with('/');
    if relative && let Ok(below) = RelPath::new(path) {
        return dir.subdir(&below, Links::Refused);
    }
    let joined = if relative { format!("{}/{path}", bundle.display()) } else { path.to_owned() };
    let invalid = || bale_sys::Error::new(format!("open({path:?})"), Errno::INVAL);
    let below = RelPath::clamped(&joined).map_err(|_| invalid())?;
    RootFd::open("/")?.subdir(&below, Links::Refused)
}

/// Says that there is no directory where a bundle was to be.
pub(crate) fn no_bundle(path: &Path) -> Fault {
    let words = format!("open the bundle {path:?}: no such file or directory");
    Fault::new(Kind::NotFound, words).hint("`bale bundle IMAGE DIR` makes one")
}

/// What to do about a bundle that cannot be run.
#[must_use]
pub fn check_hint(path: &Path) -> String {
    format!("`bale check {}` tells all that is wrong with it", path.display())
}

impl AsFd for Files {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.dir.as_fd()
    }
}
