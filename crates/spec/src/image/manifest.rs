//! Descriptors, manifests and indexes (image-spec: descriptor.md, manifest.md, image-index.md).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Platform;
use crate::Digest;
use crate::json::{Error, null_default, parse};

/// The media types of images, in OCI's and Docker's words.
pub mod media_type {
    /// OCI manifest.
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI index.
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// OCI image config.
    pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// OCI layer, not compressed.
    pub const LAYER_TAR: &str = "application/vnd.oci.image.layer.v1.tar";
    /// OCI layer, gzip.
    pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// OCI layer, zstd.
    pub const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// Docker schema 2 manifest.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker manifest list.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker image config.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// Docker layer, gzip.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    /// Docker layer, zstd (written by buildkit and containers-image).
    pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
    /// Docker layer, not compressed.
    pub const DOCKER_LAYER_TAR: &str = "application/vnd.docker.image.rootfs.diff.tar";
    /// Docker schema 1, which is refused.
    pub const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
}

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Plain tar.
    None,
    /// gzip, possibly of several members.
    Gzip,
    /// zstd, possibly of several frames.
    Zstd,
}

/// A pointer to content: what it is, how long, and its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type of the content.
    pub media_type: String,
    /// Digest of the content.
    pub digest: Digest,
    /// Length of the content in bytes. Negative numbers are refused by the type.
    pub size: u64,
    /// Other places to get it from; never followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub urls: Option<Vec<String>>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
    /// The content itself, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// Platform, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Type of an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
}

impl Descriptor {
    /// Describes `content`.
    #[must_use]
    pub fn of(media_type: &str, content: &[u8]) -> Self {
        Self::new(media_type, Digest::of(content), content.len() as u64)
    }

    /// Describes content known by digest and size.
    #[must_use]
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            urls: None,
            annotations: None,
            data: None,
            platform: None,
            artifact_type: None,
        }
    }

    /// Tells the compression that a layer's media type promises; `None` when it is no layer that can be unpacked.
    #[must_use]
    pub fn layer_compression(&self) -> Option<Compression> {
        use media_type as m;
        let base = self.media_type.as_str();
        let base = base.replace("nondistributable.", "").replace("foreign.diff", "diff");
        match base.as_str() {
            m::LAYER_TAR | m::DOCKER_LAYER_TAR => Some(Compression::None),
            m::LAYER_GZIP | m::DOCKER_LAYER => Some(Compression::Gzip),
            m::LAYER_ZSTD | m::DOCKER_LAYER_ZSTD => Some(Compression::Zstd),
            _ => None,
        }
    }
}

/// An image manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Media type of this document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Type of an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The image config.
    pub config: Descriptor,
    /// Layers, the lowest first.
    #[serde(deserialize_with = "null_default")]
    pub layers: Vec<Descriptor>,
    /// What this refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// An index of manifests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// Media type of this document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Manifests, or further indexes.
    #[serde(deserialize_with = "null_default")]
    pub manifests: Vec<Descriptor>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

impl Index {
    /// Chooses the manifest for `wanted`; entries of platform `unknown/unknown` (attestations) never match.
    #[must_use]
    pub fn choose(&self, wanted: &Platform) -> Option<&Descriptor> {
        let ranked = self.manifests.iter().filter_map(|m| Some((wanted.rank(m.platform.as_ref()?)?, m)));
        // `max_by_key` keeps the last of equals; the specification wants the first.
        ranked.rev().max_by_key(|(rank, _)| *rank).map(|(_, m)| m)
    }
}

/// What a registry answers under `/manifests/`.
#[derive(Clone, Debug, PartialEq, Eq)]
// One lives at a time, and for a moment.
#[allow(clippy::large_enum_variant)]
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// Images for several platforms.
    Index(Index),
}

impl Document {
    /// Parses a manifest or index, deciding by shape and holding `content_type` (when known) against it.
    ///
    /// # Errors
    /// `Invalid` for a document that is both (CVE-2021-41190) or neither, for schema 1, and for a media type
    /// inside that differs from `content_type`.
    pub fn parse(text: &[u8], content_type: Option<&str>) -> Result<Self, Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Shape {
            schema_version: Option<u32>,
            media_type: Option<String>,
            manifests: Option<serde::de::IgnoredAny>,
            layers: Option<serde::de::IgnoredAny>,
            config: Option<serde::de::IgnoredAny>,
            fs_layers: Option<serde::de::IgnoredAny>,
        }
        let invalid = |path: &str, reason: String| Error::Invalid { path: path.to_owned(), reason };
        let shape: Shape = parse(text, super::MANIFEST_LIMIT_BYTES)?;
        if shape.fs_layers.is_some() || shape.schema_version == Some(1) {
            let reason = "docker schema 1 is not supported; push the image again with a current tool";
            return Err(invalid("schemaVersion", reason.to_owned()));
        }
        if let (Some(inside), Some(outside)) = (&shape.media_type, content_type)
            && inside != outside
        {
            return Err(invalid(
                "mediaType",
                format!("is {inside:?} but the content was called {outside:?}"),
            ));
        }
        let is_image = shape.layers.is_some() || shape.config.is_some();
        let document = match (is_image, shape.manifests.is_some()) {
            (true, true) => {
                return Err(invalid("manifests", "stands beside layers or config: ambiguous".to_owned()));
            }
            (true, false) => Self::Manifest(parse(text, super::MANIFEST_LIMIT_BYTES)?),
            (false, true) => Self::Index(parse(text, super::MANIFEST_LIMIT_BYTES)?),
            (false, false) => {
                return Err(invalid("layers", "neither an image manifest nor an index".to_owned()));
            }
        };
        let named = shape.media_type.as_deref().or(content_type);
        let expected_index = named.map(|n| n == media_type::INDEX || n == media_type::DOCKER_LIST);
        if expected_index.is_some_and(|index| index != matches!(document, Self::Index(_))) {
            return Err(invalid(
                "mediaType",
                format!("{:?} does not fit the document", named.unwrap_or_default()),
            ));
        }
        Ok(document)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_that_is_two_things_is_refused() {
        let d = Digest::of(b"");
        let descriptor = format!(r#"{{"mediaType":"x","digest":"{d}","size":0}}"#);
        let both = format!(r#"{{"schemaVersion":2,"config":{descriptor},"layers":[],"manifests":[]}}"#);
        assert!(matches!(Document::parse(both.as_bytes(), None), Err(Error::Invalid { .. })));
        let image = format!(r#"{{"schemaVersion":2,"config":{descriptor},"layers":null}}"#);
        assert!(matches!(
            Document::parse(image.as_bytes(), Some(media_type::MANIFEST)),
            Ok(Document::Manifest(_))
        ));
        assert!(Document::parse(image.as_bytes(), Some(media_type::INDEX)).is_err());
        assert!(Document::parse(br#"{"schemaVersion":1,"fsLayers":[]}"#, None).is_err());
        let negative = image.replace(r#""size":0"#, r#""size":-1"#);
        assert!(Document::parse(negative.as_bytes(), None).is_err());
    }

    #[test]
    fn the_first_best_platform_is_chosen() {
        let entry = |arch: &str, variant: Option<&str>| Descriptor {
            platform: Some(Platform {
                architecture: arch.to_owned(),
                os: "linux".to_owned(),
                os_version: None,
                os_features: None,
                variant: variant.map(str::to_owned),
            }),
            ..Descriptor::of(arch, format!("{arch}{variant:?}").as_bytes())
        };
        let manifests = vec![
            entry("unknown", None),
            entry("arm64", Some("v8")),
            entry("amd64", Some("v3")),
            entry("amd64", None),
        ];
        let index = Index { schema_version: 2, media_type: None, manifests, annotations: None };
        let chosen = |text: &str| index.choose(&text.parse().unwrap()).map(|d| d.digest);
        assert_eq!(chosen("linux/amd64"), Some(index.manifests[3].digest));
        assert_eq!(chosen("linux/amd64/v4"), Some(index.manifests[2].digest));
        assert_eq!(chosen("arm64"), Some(index.manifests[1].digest));
        assert_eq!(chosen("linux/s390x"), None);
    }
}
