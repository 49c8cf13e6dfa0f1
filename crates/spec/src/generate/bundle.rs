//! The config of a self-contained bundle: nothing in it depends on this host or on bale.

use std::collections::BTreeMap;

use bale_fault::{Fault, Kind, Result};

use super::{EtcFiles, Generated, HostFacts};
use crate::image::ImageConfig;
use crate::options::{MountKind, RunOptions};

/// Makes the config of a bundle: as [`super::config`], but
/// - the image's volumes stay directories of the root file system, so that what is written there stays in the bundle;
/// - nothing is bound over files of `/etc` (as umoci);
/// - the image's facts become annotations (image-spec conversion.md).
///
/// # Errors
/// As [`super::config`]; `InvalidInput` for a named volume, which only the engine has.
pub fn bundle_config(image: &ImageConfig, options: &RunOptions, facts: &HostFacts) -> Result<Generated> {
    if let Some(request) = options.mounts.iter().find(|m| matches!(m.kind, MountKind::Volume { .. })) {
        let words = format!("the volume at {} cannot be part of a self-contained bundle", request.target);
        return Err(
            Fault::new(Kind::InvalidInput, words).hint("bind a directory with -v /host:/container instead")
        );
    }
    let mut image = image.clone();
    if let Some(section) = &mut image.config {
        section.volumes.clear();
    }
    let facts = HostFacts {
        root_path: "rootfs".to_owned(),
        etc: EtcFiles::default(),
        cgroups_path: None,
        ..facts.clone()
    };
    let mut generated = super::config(&image, options, &facts)?;
    let mut annotations = annotations(&image);
    annotations.append(&mut generated.config.annotations);
    generated.config.annotations = annotations;
    Ok(generated)
}

/// The annotations that image-spec's conversion.md derives; labels of the image win over them.
fn annotations(image: &ImageConfig) -> BTreeMap<String, String> {
    let section = image.config.clone().unwrap_or_default();
    let ports: Vec<&str> = section.exposed_ports.keys().map(String::as_str).collect();
    let derived = [
        ("os", Some(image.os.clone())),
        ("architecture", Some(image.architecture.clone())),
        ("variant", image.variant.clone()),
        ("author", image.author.clone()),
        ("created", image.created.clone()),
        ("stopSignal", Some(section.stop_signal.clone())),
        ("exposedPorts", Some(ports.join(","))),
    ];
    let derived = derived.into_iter().filter_map(|(key, value)| {
        let value = value.filter(|v| !v.is_empty())?;
        Some((format!("org.opencontainers.image.{key}"), value))
    });
    derived.chain(section.labels.clone()).collect()
}
