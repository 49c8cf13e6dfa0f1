//! Bundles of 2015 to 2017: the dialects of `config.json` before runtime-spec 1.0, read and made current.
//!
//! | dialect | version in the file | files | written or read by |
//! |---|---|---|---|
//! | [`Dialect::PreDraftJuly`] | `pre-draft` | one | runc 0.0.1 to 0.0.3 |
//! | [`Dialect::PreDraftAugust`] | `pre-draft` | one | runc 0.0.4 |
//! | [`Dialect::V010`] | `0.1.0` | two | the tag v0.1.1 |
//! | [`Dialect::V020Early`] | `0.2.0` | two | runc 0.0.5, 0.0.6; containerd of December 2015 |
//! | [`Dialect::V020`] | `0.2.0` | two | the tag v0.2.0 |
//! | [`Dialect::V030Dev`] | `0.3.0-dev` | two | runc 0.0.7 |
//! | [`Dialect::V030`] | `0.3.0` | one from here on | runc 0.0.8 |
//! | [`Dialect::V040`] | `0.4.0` | one | runc 0.0.9 |
//! | [`Dialect::V050`] | `0.5.0`, `0.6.0-dev` | one | runc 0.1.0, 0.1.1; Docker 1.11 |
//! | [`Dialect::Rc`] | `1.0.0-rc1` to `rc6`, also `-dev` | one | Docker 1.12 to 17.0x |
//!
//! A version string is not enough to tell them apart (`0.2.0` is two formats), so the shape decides.
//! Everything here is a pure function of the two texts; `docs/legacy-bundles.md` describes the rules for users.

mod convert;
mod detect;
mod devices;
mod mounts;
mod object;
mod process;
mod resources;
mod seccomp;

use std::fmt;

use bale_fault::Result;
use serde_json::Value;

use crate::runtime::RuntimeConfig;

pub use detect::detect;

/// A format of `config.json` that came before 1.0. Later ones compare greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dialect {
    /// July 2015: mount options are one string, devices are names.
    PreDraftJuly,
    /// August 2015: devices are objects.
    PreDraftAugust,
    /// September 2015: two files.
    V010,
    /// October 2015: every resource is a plain value and zero means unset.
    V020Early,
    /// January 2016: resources are optional.
    V020,
    /// Between 0.2.0 and 0.3.0.
    V030Dev,
    /// February 2016: one file, `ociVersion`.
    V030,
    /// March 2016: capabilities and limits belong to the process.
    V040,
    /// April 2016: masked paths are explicit.
    V050,
    /// Release candidate of 1.0.0, by number.
    Rc(u8),
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PreDraftJuly => f.write_str("pre-draft (July 2015)"),
            Self::PreDraftAugust => f.write_str("pre-draft (August 2015)"),
            Self::V010 => f.write_str("0.1.0"),
            Self::V020Early => f.write_str("0.2.0 (October 2015)"),
            Self::V020 => f.write_str("0.2.0"),
            Self::V030Dev => f.write_str("0.3.0-dev"),
            Self::V030 => f.write_str("0.3.0"),
            Self::V040 => f.write_str("0.4.0"),
            Self::V050 => f.write_str("0.5.0"),
            Self::Rc(n) => write!(f, "1.0.0-rc{n}"),
        }
    }
}

/// How to convert.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Keeps what the old runtime did even where it is harmful today (inheritable capabilities, swappiness 0).
    pub faithful: bool,
    /// Adds today's default masks and no_new_privs.
    pub harden: bool,
}

/// One decision of a conversion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// How much it matters.
    pub weight: Weight,
    /// JSON path in the old document (`runtime.json:` in front when it stood there).
    pub path: String,
    /// What was done and why, in lower case.
    pub words: String,
}

/// How much a decision matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// The same meaning in today's words.
    Note,
    /// The container may behave differently, or something was dropped.
    Warning,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.weight == Weight::Warning { "warning" } else { "note" };
        write!(f, "{mark}: {}: {}", self.path, self.words)
    }
}

/// A converted bundle.
#[derive(Clone, Debug)]
pub struct Converted {
    /// What it was.
    pub dialect: Dialect,
    /// What it is now.
    pub config: RuntimeConfig,
    /// The same as a document, with the unknown keys of the old one kept at their places.
    pub document: Value,
    /// Every decision, in the order of the old document.
    pub decisions: Vec<Decision>,
}

impl Converted {
    /// Writes the canonical text of the new `config.json`.
    #[must_use]
    pub fn to_canonical(&self) -> String {
        // A JSON value always serializes.
        let mut text = serde_json::to_string_pretty(&self.document).unwrap_or_default();
        text.push('\n');
        text
    }
}

/// What is known of a device of the host, for the July dialect that names devices only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostDevice {
    /// `c` or `b`.
    pub kind: char,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// Converts an old `config.json`, with its `runtime.json` when there is one, to the current format.
///
/// `device_of` looks a device node below `/dev` of the host up by name.
///
/// # Errors
/// `InvalidInput` with the JSON path for what never worked (a missing mount, a negative uid) or is no old config.
pub fn convert(
    config: &[u8],
    runtime: Option<&[u8]>,
    options: Options,
    device_of: &dyn Fn(&str) -> Option<HostDevice>,
) -> Result<Converted> {
    convert::convert(config, runtime, options, device_of)
}
