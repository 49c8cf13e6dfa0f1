//! Small images in a registry inside the test.
#![allow(dead_code, reason = "each test file uses its part")]

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bale_engine::{Engine, Event, LayerState, Progress, PullOptions, Pulled, RegistrySettings};
use bale_fault::Result;
use bale_layer::tar::{Entry, Kind as Type, Writer};
use bale_spec::Digest;
use bale_spec::image::{Descriptor, media_type};
use bale_testkit::registry::Registry;
use serde_json::json;

/// A layer: its tar and its blob.
pub struct Layer {
    pub tar: Vec<u8>,
    pub blob: Vec<u8>,
}

/// Makes a layer of files, compressed with gzip.
pub fn layer(files: &[(&str, &[u8])]) -> Layer {
    let mut writer = Writer::new(Vec::new());
    for (path, content) in files {
        let entry = Entry { size: content.len() as u64, ..Entry::new(*path, Type::File) };
        writer.append(&entry, &mut &content[..]).unwrap();
    }
    let tar = writer.finish().unwrap();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&tar).unwrap();
    Layer { blob: encoder.finish().unwrap(), tar }
}

/// Bytes that do not compress.
pub fn noise(count: usize, mut seed: u32) -> Vec<u8> {
    let mut next = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 24) as u8
    };
    (0..count).map(|_| next()).collect()
}

/// An image as documents.
pub struct Image {
    pub config: Vec<u8>,
    pub manifest: serde_json::Value,
}

#[allow(clippy::needless_pass_by_value, reason = "callers write json!({…})")]
pub fn image(layers: &[&Layer], section: serde_json::Value) -> Image {
    let diff_ids: Vec<String> = layers.iter().map(|layer| Digest::of(&layer.tar).to_string()).collect();
    let config = json!({
        "created": "2024-01-02T03:04:05Z", "architecture": "amd64", "os": "linux", "config": section,
        "rootfs": {"type": "layers", "diff_ids": diff_ids}, "history": [],
    });
    let config = serde_json::to_vec(&config).unwrap();
    let descriptors = layers.iter().map(|layer| Descriptor::of(media_type::LAYER_GZIP, &layer.blob));
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media_type::MANIFEST,
        "config": Descriptor::of(media_type::CONFIG, &config),
        "layers": descriptors.collect::<Vec<_>>(),
    });
    Image { config, manifest }
}

/// Puts an image into a registry and returns the manifest's descriptor.
pub fn put(registry: &Registry, repository: &str, tag: &str, layers: &[&Layer], image: &Image) -> Descriptor {
    for layer in layers {
        registry.put_blob(repository, layer.blob.clone());
    }
    registry.put_blob(repository, image.config.clone());
    let manifest = serde_json::to_vec(&image.manifest).unwrap();
    registry.put_manifest(repository, tag, media_type::MANIFEST, manifest.clone());
    Descriptor::of(media_type::MANIFEST, &manifest)
}

/// Options that ask nobody's environment and lose patience quickly.
pub fn options() -> PullOptions {
    let mut registry = RegistrySettings::bare();
    registry.timeouts.backoff = std::time::Duration::from_millis(1);
    registry.timeouts.attempts = 2;
    PullOptions { platform: None, policy: bale_engine::Policy::Always, registry, cancel: Arc::default() }
}

pub fn pull(engine: &Engine, name: &str) -> Result<Pulled> {
    engine.pull(&name.parse().unwrap(), &options(), &mut bale_engine::Quiet)
}

/// Keeps the news.
#[derive(Clone, Default)]
pub struct Heard(pub Arc<Mutex<Vec<Event>>>);

impl Heard {
    pub fn states(&self) -> Vec<(Digest, LayerState)> {
        let heard = self.0.lock().unwrap();
        let states = heard.iter().filter_map(|event| match event {
            Event::Layer { digest, state, .. } => Some((*digest, state.clone())),
            _ => None,
        });
        states.collect()
    }
}

impl Progress for Heard {
    fn event(&mut self, event: &Event) {
        self.0.lock().unwrap().push(event.clone());
    }
}

/// Wants no work in progress to be left.
#[track_caller]
pub fn nothing_left(root: &Path) {
    let left: Vec<_> =
        std::fs::read_dir(root.join("ingest")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
}
