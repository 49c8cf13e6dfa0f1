//! What a user means: every verb is a function here.

mod change;
mod image;
mod images;
mod import;
mod install;
mod load;
mod login;
mod progress;
mod pull;
mod push;
mod rmi;
mod save;
mod spool;
mod tag;

use std::path::{Path, PathBuf};

use bale_fault::Result;
use bale_store::Store;

pub use bale_registry::{Place, Settings as RegistrySettings};
pub use image::Image;
pub use images::Summary;
pub use import::ImportOptions;
pub use load::{LoadOptions, Loaded};
pub use login::DEFAULT_REGISTRY;
pub use progress::{Event, LayerState, Progress, Quiet};
pub use pull::{Policy, PullOptions, Pulled};
pub use push::{PushOptions, Pushed};
pub use rmi::Removed;

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
