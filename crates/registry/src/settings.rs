//! What a client is told at birth.

use std::path::PathBuf;
use std::time::Duration;

use crate::CredentialStore;

/// Settings of a client.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Registries (`host` or `host:port`) whose certificate is not checked and that may be plain http.
    pub insecure: Vec<String>,
    /// Where credentials are looked up.
    pub credentials: CredentialStore,
    /// The User-Agent header.
    pub user_agent: String,
    /// Further PEM files of certificate authorities.
    pub ca_files: Vec<PathBuf>,
    /// Directories of `<host[:port]>/{*.crt,*.cert,*.key}`, first match wins.
    pub certs_dirs: Vec<PathBuf>,
    /// Hosts of token services that may get a registry's credentials although they are on another site.
    pub trusted_realms: Vec<String>,
    /// Proxies.
    pub proxies: Proxies,
    /// Patience.
    pub timeouts: Timeouts,
}

/// How long the client waits, and how often it tries again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For TCP and TLS.
    pub connect: Duration,
    /// For progress: when fewer than 1 KiB arrive in this time of waiting, the connection is given up.
    pub stall: Duration,
    /// First pause before a retry; doubled each time, with jitter.
    pub backoff: Duration,
    /// Attempts without progress before an operation fails.
    pub attempts: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            backoff: Duration::from_millis(250),
            attempts: 5,
        }
    }
}

/// Proxies as curl and Go read them from the environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For https URLs.
    pub https: Option<String>,
    /// For http URLs.
    pub http: Option<String>,
    /// Hosts that are reached directly.
    pub none: Vec<String>,
}

impl Settings {
    /// Returns settings that read nothing from the environment: no credentials, no proxies.
    #[must_use]
    pub fn bare() -> Self {
        Self {
            insecure: Vec::new(),
            credentials: CredentialStore::none(),
            user_agent: concat!("bale/", env!("CARGO_PKG_VERSION")).to_owned(),
            ca_files: Vec::new(),
            certs_dirs: Vec::new(),
            trusted_realms: Vec::new(),
            proxies: Proxies::default(),
            timeouts: Timeouts::default(),
        }
    }

    /// Returns the settings that the environment of this process asks for.
    #[must_use]
    pub fn from_env() -> Self {
        Self::bare()
    }
}
