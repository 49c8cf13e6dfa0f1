//! The wire: resolve, fetch, push, and the credentials for it.
//!
//! Every call blocks; hyper and tokio are hidden on one thread of the client. What a registry says is hostile: sizes
//! are bounded, digests are computed, and a URL that a server names gets neither the user's credentials nor the user's
//! network unless `rules.rs` allows it.
//!
//! A call goes from the client's face through `session` (authorization, redirects) to `wire` (one request, one answer)
//! and `dial` (name, address, proxy, TLS); `patience` decides about another attempt.

mod auth;
mod blob;
mod challenge;
mod client;
mod credentials;
mod dial;
mod dns;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod manifest;
mod patience;
mod proxy;
mod push;
mod random;
mod refusal;
mod rules;
mod runtime;
mod session;
mod settings;
mod text;
mod tls;
mod trouble;
mod url;
mod wire;

pub use blob::{Blob, fault_of};
pub use client::{Client, DAMAGED, Fetched};
pub use credentials::{Credential, CredentialStore, Place};
pub use proxy::Proxies;
pub use push::Pushed;
pub use settings::{Settings, Timeouts};
