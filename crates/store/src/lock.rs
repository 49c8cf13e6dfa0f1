//! The store's locks.
//!
//! | lock | mode | who |
//! |---|---|---|
//! | `locks/store` | shared | whoever adds content that nothing refers to yet, or relies on content that it does not refer to yet: pull, load, import, making a container until its record is written |
//! | `locks/store` | exclusive | collection: nobody is between "the content is there" and "something refers to it" |
//! | `locks/ingest` | shared | making an ingest directory and locking it |
//! | `locks/ingest` | exclusive | removing ingest directories of dead owners |
//! | `locks/layer-<alg>-<hex>` | exclusive | unpacking that layer: whoever comes second waits and finds it there |
//! | `locks/images` | exclusive | changing names |
//!
//! Order: a container's `lock` and the engine's `names` lock come before all of these; then `store`, `layer-…`,
//! `images`, `ingest`. Nobody waits for a lock on the left while holding one on the right. Locks are flock(2): they
//! die with the process. Lock files of layers are removed under the exclusive `store` lock only, as every taker holds
//! that lock shared.

use bale_fault::{Context, Result};
use bale_spec::Digest;
use bale_sys::file::{Lock, LockMode};

use crate::Store;

/// Keeps collection away: content found or added while this is held stays until it is dropped.
#[derive(Debug)]
pub struct Hold(#[allow(dead_code)] Lock);

/// The right to unpack one layer.
#[derive(Debug)]
pub struct LayerLock(#[allow(dead_code)] Lock);

impl Store {
    /// Keeps collection away until the answer is dropped. Waits for a collection that is at work.
    ///
    /// # Errors
    /// The failed call.
    pub fn hold(&self) -> Result<Hold> {
        Ok(Hold(self.take("store", LockMode::Shared)?))
    }

    /// Waits for the right to unpack `diff_id`. Look again with [`Store::layer`] afterwards: another process may have
    /// unpacked it meanwhile. The caller holds [`Hold`].
    ///
    /// # Errors
    /// The failed call.
    pub fn lock_layer(&self, _hold: &Hold, diff_id: &Digest) -> Result<LayerLock> {
        let name = format!("layer-{}-{}", diff_id.algorithm().name(), diff_id.hex());
        Ok(LayerLock(self.take(&name, LockMode::Exclusive)?))
    }

    /// Takes the right to unpack `diff_id` if nobody has it.
    ///
    /// # Errors
    /// The failed call.
    pub fn try_lock_layer(&self, _hold: &Hold, diff_id: &Digest) -> Result<Option<LayerLock>> {
        let name = format!("layer-{}-{}", diff_id.algorithm().name(), diff_id.hex());
        let lock = Lock::try_take(&self.locks, &name, LockMode::Exclusive)?;
        Ok(lock.map(LayerLock))
    }

    pub(crate) fn take(&self, name: &str, mode: LockMode) -> Result<Lock> {
        let lock = Lock::take(&self.locks, name, mode).map_err(bale_fault::Fault::from);
        lock.within(|| format!("take the store's lock {name:?}"))
    }
}
