//! Local images: content, names, layers, collection.
//!
//! ```text
//! <root>/                     0700
//!   format                    the format version and a newline; written last when a store is made
//!   locks/                    see `lock`
//!   ingest/<random>/          work in progress; its owner holds flock on the directory itself
//!   blobs/<alg>/<hex>         content by digest: indexes, manifests, configs, layers as they came
//!   images/<hex>.json         one name each: {name, manifest descriptor, index descriptor}; <hex> is SHA-256 of the name
//!   layers/<alg>/<diffid>/    diff/ (what overlay gets as a lower directory) and layer.json
//!   fixups/<alg>/<chainid>/   diff/ (lies above the layers of one chain, repairs what they could not know alone)
//!                             and fixup.json; `fixups/empty/` is the lower directory of an image without layers
//! ```
//!
//! What is under `blobs`, `layers` and `images` is whole and verified: it was made under `ingest` and renamed. A
//! process that dies leaves its ingest directory, which the next [`Store::open`] removes. A power cut may damage what
//! was not yet synced: small documents are hashed whenever they are read, blobs whenever they are unpacked or passed on;
//! a layer says in `layer.json` whether it is durable, and one that is not and was written in another boot counts as
//! absent (it is dropped and made anew). The mark is written, and synced, only after a `syncfs` that came after the
//! layer was whole ([`Store::make_durable`]), so it never lies; fixups hold for one boot.
//!
//! Layers are independent: each is unpacked alone and keyed by its diff id, so layers unpack in parallel and images
//! share them. What one layer cannot know alone (attributes of parent directories it does not list, hard links to
//! files of lower layers) is recorded in `layer.json` and repaired per chain by [`Store::prepare`].

mod attributes;
mod blobs;
mod collect;
mod fixup;
mod images;
mod ingest;
mod layers;
pub mod lock;
mod merge;
mod open;

pub use bale_sys::remove::remove_tree;
pub use blobs::{BlobDraft, DOCUMENT_LIMIT_BYTES, SealedBlob};
pub use collect::Collected;
pub use fixup::adopt_root;
pub use images::Name;
pub use ingest::Ingest;
pub use layers::{Deferred, Layer, LayerDraft, PathText};
pub use lock::{Hold, LayerLock};
pub use open::{FORMAT, Store};
