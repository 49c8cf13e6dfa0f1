//! The wire: resolve, fetch, push, and the credentials for it.
//!
//! Every call blocks; hyper and tokio are hidden on one thread of the client. What a registry says is hostile:
//! sizes are bounded, digests are computed, and a URL that came from a server gets neither the user's credentials
//! nor the user's network unless the rules of [`mod@rules`](crate) allow it.

mod client;
mod credentials;
mod settings;

pub use client::{Blob, Client, Fetched};
pub use credentials::{Credential, CredentialStore, Place};
pub use settings::{Proxies, Settings, Timeouts};
