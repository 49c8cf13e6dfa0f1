//! Where credentials come from and go to.

use std::fmt;
use std::path::PathBuf;

use bale_fault::{Fault, Kind, Result};

/// A user's secret for one registry. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// Name and password.
    Basic {
        /// User name.
        username: String,
        /// Password or personal token.
        password: String,
    },
    /// An OAuth2 refresh token (`identitytoken`).
    Identity(String),
    /// A bearer token that is sent as it is (`registrytoken`).
    Token(String),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(…)")
    }
}

/// Where a credential was stored or found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In this file, not encrypted.
    File(PathBuf),
    /// With the program `docker-credential-<name>`.
    Helper(String),
}

/// The user's credentials: docker's and containers' files and their helpers.
#[derive(Clone, Debug, Default)]
pub struct CredentialStore {
    files: Vec<PathBuf>,
}

#[allow(clippy::missing_errors_doc, missing_docs)]
impl CredentialStore {
    pub fn none() -> Self {
        Self::default()
    }
    pub fn from_env() -> Self {
        Self::default()
    }
    pub fn get(&self, _registry: &str, _repository: &str) -> Result<Option<(Credential, Place)>> {
        Ok(None)
    }
    pub fn put(&self, _registry: &str, _credential: &Credential) -> Result<Place> {
        let _ = &self.files;
        Err(Fault::new(Kind::Unsupported, "not finished"))
    }
    pub fn erase(&self, _registry: &str) -> Result<Vec<Place>> {
        Err(Fault::new(Kind::Unsupported, "not finished"))
    }
}
