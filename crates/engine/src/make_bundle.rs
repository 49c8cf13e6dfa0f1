//! `bundle`: an image becomes a self-contained directory that any runtime runs.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bale_bundle::AccountFiles;
use bale_bundle::create::{Layer, Origin, Source as Content, check_place};
use bale_fault::{Fault, Kind, Result};
use bale_spec::generate::{self, HostFacts};
use bale_spec::options::RunOptions;
use bale_spec::runtime::RuntimeConfig;
use bale_store::Store;

use crate::create::Source;
use crate::{CreateOptions, Engine, Image, Progress, host};

/// The kernel keeps 64 bytes of a host name, and DNS 63 of a label.
const HOSTNAME_LIMIT: usize = 63;

/// A bundle that was made.
#[derive(Debug)]
pub struct Bundled {
    /// The image it was made of.
    pub image: Image,
    /// Lines for standard error.
    pub remarks: Vec<String>,
}

impl Engine {
    /// Makes a bundle of an image in the directory `path`, pulling the image if need be. `confine` adds docker's default
    /// system call filter to a config that is to have it; only the runtime knows that.
    ///
    /// # Errors
    /// `AlreadyExists` when something is at `path`; `InvalidInput` for options that a bundle cannot carry. Nothing is
    /// left then.
    pub fn make_bundle(
        &self,
        path: &Path,
        options: &CreateOptions,
        confine: &dyn Fn(&mut RuntimeConfig),
        progress: &mut dyn Progress,
    ) -> Result<Bundled> {
        let Source::Image(name) = &options.source else {
            return Err(Fault::new(Kind::InvalidInput, "a bundle is made of an image, not of a bundle"));
        };
        check_options(&options.run)?;
        // Before a pull that may take minutes.
        check_place(path)?;
        let store = self.store()?;
        // Nobody removes the image's layers while they are read.
        let _hold = store.hold()?;
        let image = self.find_or_pull(name, options, progress)?;
        let run = RunOptions {
            hostname: Some(options.run.hostname.clone().unwrap_or_else(|| hostname(&image))),
            ..options.run.clone()
        };
        let mut remarks = Vec::new();
        let mut configure = |accounts: &AccountFiles| {
            let facts = HostFacts {
                passwd: accounts.passwd.clone(),
                group: accounts.group.clone(),
                ..host::facts(&run)?
            };
            let mut generated = generate::bundle_config(&image.config, &run, &facts)?;
            if generated.default_seccomp {
                confine(&mut generated.config);
                generated.config.oci_version = generated.config.lowest_version().to_owned();
            }
            host::make_directories(&generated.create_directories)?;
            remarks = std::mem::take(&mut generated.warnings);
            Ok(generated.config)
        };
        let content = content(&store, &image, &options.pull.cancel)?;
        bale_bundle::create(path, content, &mut configure, &mut |_, _| {})
            .map_err(|fault| image.discard_damaged(&store, fault))?;
        Ok(Bundled { image, remarks })
    }
}

/// Refuses what is of a container and not of a config.
fn check_options(run: &RunOptions) -> Result<()> {
    let of_run = [
        ("--name", run.name.is_some()),
        ("--rm", run.auto_remove),
        ("--init", run.init),
        ("--stop-signal", run.stop_signal.is_some()),
        ("--stop-timeout", run.stop_timeout_seconds.is_some()),
        ("--label", !run.labels.is_empty()),
        ("--add-host", !run.extra_hosts.is_empty()),
        ("--dns", !run.dns.is_empty() || !run.dns_search.is_empty() || !run.dns_options.is_empty()),
    ];
    match of_run.iter().find(|(_, given)| *given) {
        Some((flag, _)) => {
            let fault = Fault::new(Kind::InvalidInput, format!("{flag}: a bundle's config cannot say this"));
            Err(fault.hint("give it to `bale run` when the bundle is run"))
        }
        None => Ok(()),
    }
}

/// The last part of the image's name, as far as it can be a host's.
fn hostname(image: &Image) -> String {
    let repository = image.reference.as_ref().map(|r| r.repository().to_owned()).unwrap_or_default();
    let last = repository.rsplit('/').next().unwrap_or_default();
    let name: String =
        last.chars().map(|c| if c == '_' || c == '.' { '-' } else { c }).take(HOSTNAME_LIMIT).collect();
    if name.is_empty() { "bale".to_owned() } else { name }
}

fn content<'a>(store: &'a Store, image: &'a Image, cancel: &'a Arc<AtomicBool>) -> Result<Content<'a>> {
    let diff_ids = &image.config.rootfs.diff_ids;
    let blobs = &image.manifest.layers;
    if diff_ids.len() != blobs.len() {
        let words = format!("the manifest has {} layers and the config {}", blobs.len(), diff_ids.len());
        return Err(Fault::new(Kind::Corrupt, words));
    }
    let layer = |(blob, diff_id): (&bale_spec::image::Descriptor, &bale_spec::Digest)| Layer {
        blob: blob.clone(),
        diff_id: *diff_id,
        open: {
            let digest = blob.digest;
            Box::new(move || {
                let file = store.open_blob(&digest)?;
                Ok(Box::new(Cancelable { inner: file, cancel: Arc::clone(cancel) }) as Box<dyn Read + Send>)
            })
        },
    };
    Ok(Content {
        origin: Origin {
            reference: image.reference.as_ref().map(ToString::to_string),
            manifest: image.manifest_digest,
            id: image.config_digest,
            platform: image.platform().to_string(),
            layers: diff_ids.clone(),
        },
        config_bytes: &image.config_bytes,
        layers: blobs.iter().zip(diff_ids).map(layer).collect(),
    })
}

/// A reader that fails once the user has interrupted.
struct Cancelable<R> {
    inner: R,
    cancel: Arc<AtomicBool>,
}

impl<R: Read> Read for Cancelable<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(io::Error::other(Fault::new(Kind::Interrupted, "interrupted")));
        }
        self.inner.read(buffer)
    }
}
