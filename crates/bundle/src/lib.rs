//! A bundle on disk: open, create, check, set, upgrade.
//!
//! ```text
//! <bundle>/
//!   config.json            what to run (runtime-spec), in canonical form
//!   rootfs/                what it sees as /
//!   image-config.json      the image's config, byte for byte  ┐ of bundles made from images
//!   image.json             name and digests of the image      ┘
//!   config.json.history/   what config.json was before each `set`: NNNN.json
//!   config.json.legacy runtime.json.legacy   the originals of an upgraded bundle
//! ```
//!
//! A bundle may come from a stranger: its files are opened below its directory's descriptor, links are not followed,
//! and sizes are bounded.

pub mod check;
pub mod create;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod open;
mod rootfs;
pub mod set;
pub mod upgrade;

pub use check::check;
pub use create::create;
pub use open::{Bundle, CONFIG, Current, Files, IMAGE, IMAGE_CONFIG, Legacy, RUNTIME, check_hint};
pub use rootfs::{AccountFiles, account_files};
