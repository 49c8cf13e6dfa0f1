//! What a client is told at birth.

use std::path::PathBuf;
use std::time::Duration;

use crate::{CredentialStore, Proxies};

/// Settings of a client.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Registries (`host` or `host:port`) whose certificate is not checked and that may be plain http.
    pub insecure: Vec<String>,
    /// Where credentials are looked up.
    pub credentials: CredentialStore,
    /// The User-Agent header.
    pub user_agent: String,
    /// Files of the system's certificate authorities (PEM); the first that has any is used, else built-in ones.
    pub ca_bundles: Vec<PathBuf>,
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

impl Settings {
    /// Returns settings that read nothing from the environment: no credentials, no proxies.
    #[must_use]
    pub fn bare() -> Self {
        Self {
            insecure: Vec::new(),
            credentials: CredentialStore::none(),
            user_agent: concat!("bale/", env!("CARGO_PKG_VERSION")).to_owned(),
            ca_bundles: crate::tls::SYSTEM_BUNDLES.iter().map(PathBuf::from).collect(),
            ca_files: Vec::new(),
            certs_dirs: Vec::new(),
            trusted_realms: Vec::new(),
            proxies: Proxies::default(),
            timeouts: Timeouts::default(),
        }
    }

    /// Returns the settings that the environment of this process asks for: credentials of docker and podman, proxies,
    /// the machine's `certs.d`, `SSL_CERT_FILE`, and `BALE_REGISTRY_TIMEOUT` (seconds without any progress after which
    /// an attempt is given up; 1 to 3600).
    #[must_use]
    pub fn from_env() -> Self {
        let mut settings = Self::bare();
        settings.credentials = CredentialStore::from_env();
        settings.proxies = Proxies::from_env();
        settings.certs_dirs = ["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from).to_vec();
        if let Some(file) = std::env::var_os("SSL_CERT_FILE").filter(|file| !file.is_empty()) {
            settings.ca_bundles.insert(0, file.into());
        }
        let seconds = std::env::var("BALE_REGISTRY_TIMEOUT").ok().and_then(|text| text.parse::<u32>().ok());
        if let Some(seconds) = seconds.filter(|seconds| (1..=3600).contains(seconds)) {
            settings.timeouts.stall = Duration::from_secs(seconds.into());
            settings.timeouts.connect = settings.timeouts.connect.min(settings.timeouts.stall);
        }
        settings
    }
}
