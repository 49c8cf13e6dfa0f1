//! `tag`: another name for an image.

use bale_fault::{Fault, Kind, Result};
use bale_spec::Reference;
use bale_store::Name;

use crate::Engine;

impl Engine {
    /// Gives the image `source` the name `target`, which leaves another image if it had one.
    ///
    /// # Errors
    /// `NotFound` when there is no such image; `InvalidInput` when `target` has a digest.
    pub fn tag(&self, source: &str, target: &Reference) -> Result<()> {
        if target.digest().is_some() {
            return Err(Fault::new(Kind::InvalidInput, "a tag cannot be given with a digest"));
        }
        let store = self.store()?;
        let _hold = store.hold()?;
        let image = crate::image::find(&store, source)?;
        store.ingest()?.put_name(&Name::new(target, image.descriptor, image.index))
    }
}
