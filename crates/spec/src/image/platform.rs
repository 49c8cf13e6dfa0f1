//! Platforms and their choice (image-spec, image-index.md; containerd's order of preference).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An operating system and processor.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// Processor in Go's words: `amd64`, `arm64`.
    pub architecture: String,
    /// Operating system in Go's words.
    pub os: String,
    /// Version of the operating system (Windows).
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Features of the operating system (Windows).
    #[serde(rename = "os.features", default, skip_serializing_if = "Option::is_none")]
    pub os_features: Option<Vec<String>>,
    /// Variant of the processor: `v7`, `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// Returns the platform this binary was built for.
    #[must_use]
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            other => other,
        };
        let variant = (architecture == "arm64").then(|| "v8".to_owned());
        Self {
            architecture: architecture.to_owned(),
            os: "linux".to_owned(),
            os_version: None,
            os_features: None,
            variant,
        }
    }

    /// Tells how well `offered` serves a request for `self`: higher is better, `None` is not at all.
    #[must_use]
    pub fn rank(&self, offered: &Self) -> Option<u32> {
        if self.os != offered.os || self.architecture != offered.architecture {
            return None;
        }
        let level = |p: &Self| {
            let implied = match p.architecture.as_str() {
                "arm64" => 8,
                "arm" => 7,
                _ => 1,
            };
            p.variant.as_deref().map_or(Some(implied), |v| v.strip_prefix('v')?.parse::<u32>().ok())
        };
        let (wanted, offered) = (level(self)?, level(offered)?);
        (offered <= wanted).then_some(offered)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

impl FromStr for Platform {
    type Err = String;

    /// Reads `os/arch[/variant]`, or `arch` alone for Linux.
    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match parts[..] {
            [architecture] => ("linux", architecture, None),
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant.to_owned())),
            _ => {
                return Err(format!(
                    "invalid platform {text:?}: want os/arch[/variant], such as linux/amd64"
                ));
            }
        };
        let architecture = match architecture {
            "x86_64" | "x86-64" => "amd64",
            "aarch64" => "arm64",
            "i386" => "386",
            other => other,
        };
        let word =
            |w: &str| !w.is_empty() && w.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
        if ![os, architecture].into_iter().chain(variant.as_deref()).all(word) {
            return Err(format!("invalid platform {text:?}: want os/arch[/variant], such as linux/amd64"));
        }
        Ok(Self {
            architecture: architecture.to_owned(),
            os: os.to_owned(),
            os_version: None,
            os_features: None,
            variant,
        })
    }
}
