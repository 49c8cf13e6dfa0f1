//! What a user means: every verb is a function here.

mod attach;
mod bundle;
mod change;
mod client;
mod container;
mod copy;
mod create;
mod durable;
mod exec;
mod export;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod host;
mod image;
mod images;
mod import;
mod inspect;
mod install;
mod list;
mod load;
mod login;
mod logs;
mod make_bundle;
mod names;
mod pattern;
mod progress;
mod pull;
mod push;
mod remove;
mod rmi;
mod rootfs;
mod run;
mod save;
mod spawn;
mod spool;
mod start;
mod stop;
mod tag;
mod terminal;
mod volumes;
mod wait;

use std::path::{Path, PathBuf};

use bale_fault::Result;
use bale_store::Store;

pub use attach::{Left, block_signals, check_terminal};
pub use bale_registry::{Place, Settings as RegistrySettings};
pub use container::{Container, Details, Status};
pub use create::{CreateOptions, Created, Source};
pub use exec::{ExecOptions, ExecPlan, Execution};
pub use image::Image;
pub use images::Summary;
pub use import::ImportOptions;
pub use inspect::volume as describe_volume;
pub use list::{Filters, Listed, span};
pub use load::{LoadOptions, Loaded};
pub use login::DEFAULT_REGISTRY;
pub use logs::{LogOptions, parse_time};
pub use make_bundle::Bundled;
pub use progress::{Event, LayerState, Progress, Quiet};
pub use pull::{Policy, PullOptions, Pulled};
pub use push::{PushOptions, Pushed};
pub use remove::RemoveOptions;
pub use rmi::Removed;
pub use start::{Mode, Ran};
pub use terminal::{DetachKeys, Outlet, Raw, size as terminal_size};
pub use volumes::Info as VolumeInfo;

/// All verbs on one root directory.
#[derive(Clone, Debug)]
pub struct Engine {
    root: PathBuf,
}

impl Engine {
    /// Makes the engine of `root`, which need not exist yet.
    ///
    /// # Errors
    /// `root` cannot be made absolute.
    pub fn open(root: &Path) -> Result<Self> {
        use bale_fault::Context;
        let root = std::path::absolute(root).within(|| format!("use the root {root:?}"))?;
        Ok(Self { root })
    }

    /// Returns the root directory, absolute.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the directory that has one directory per container (`bale_record::Dir`).
    #[must_use]
    pub fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    /// Opens the store, making it if absent.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn store(&self) -> Result<Store> {
        Store::open(&self.root)
    }
}
