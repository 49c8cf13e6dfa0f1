//! `export`: a container's file system as a tar archive.

use std::io::Write;

use bale_fault::{Context, Fault, Kind, Result};
use bale_layer::Compression;
use bale_layer::pack::{PackOptions, Source, pack};
use bale_sys::root::RootFd;

use crate::{Engine, rootfs};

impl Engine {
    /// Writes the file system of a container, running or not, to `out`. As with docker, volumes and other mounts are
    /// left out; what the container changes meanwhile may be seen or not.
    ///
    /// # Errors
    /// `NotFound` when there is no such container; the failed call or write.
    pub fn export<W: Write + Send>(&self, container: &str, out: W) -> Result<W> {
        let container = self.container(container)?;
        let words = || format!("export container {}", container.details.name);
        let store = self.store()?;
        // A container without its own image's name relies on its record; one being removed must not go under us.
        let _hold = store.hold()?;
        let root = match &container.details.lowers {
            // A view of its own: the container's mount is in the container's mount namespace, with volumes on top.
            Some(lowers) => {
                let upper = container.dir.path().join("upper");
                let layers: Vec<_> = std::iter::once(upper).chain(lowers.iter().cloned()).collect();
                rootfs::of_layers(&layers)
            }
            None if container.record.rootfs.is_empty() => {
                Err(Fault::new(Kind::NotFound, "its record names no root file system"))
            }
            None => RootFd::open(&container.record.rootfs).map_err(Fault::from),
        };
        let options = PackOptions::new(Source::Tree, Compression::None);
        let (out, _) = root.and_then(|root| pack(&root, &options, out)).within(words)?;
        Ok(out)
    }
}
