//! Where credentials come from and go to: docker's and containers' files, and their helper programs.
//!
//! Order: `$BALE_AUTH_FILE` or `$REGISTRY_AUTH_FILE` alone when set; else containers' `auth.json` of the session, that
//! of the user, then docker's `config.json`. Within a file the longest key wins (`host/group/image` before `host`).

pub(crate) mod file;
mod helper;

use std::env;
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bale_fault::{Fault, Kind, Result};

use file::{AuthFile, Found};

/// How long a helper program may take.
const HELPER_PATIENCE: Duration = Duration::from_secs(30);
/// Docker Hub's key in docker's file, and the name by which helpers know it.
const HUB_KEY: &str = "https://index.docker.io/v1/";

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

/// The user's credentials.
#[derive(Clone, Debug)]
pub struct CredentialStore {
    /// Read in this order.
    files: Vec<PathBuf>,
    /// Where new credentials go.
    write_to: Option<PathBuf>,
    helper_patience: Duration,
}

impl CredentialStore {
    /// Makes a store that knows nothing and keeps nothing.
    #[must_use]
    pub const fn none() -> Self {
        Self { files: Vec::new(), write_to: None, helper_patience: HELPER_PATIENCE }
    }

    /// Makes a store of one file, in docker's or containers' form.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { files: vec![path.clone()], write_to: Some(path), helper_patience: HELPER_PATIENCE }
    }

    /// Makes the store that the environment asks for; see the order above.
    #[must_use]
    pub fn from_env() -> Self {
        let path = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(own) = path("BALE_AUTH_FILE").or_else(|| path("REGISTRY_AUTH_FILE")) {
            return Self::file(own);
        }
        // A user without HOME (a service) has no files of its own; there is no name service to ask.
        let home = path("HOME");
        let below_home = |rest: &str| home.as_ref().map(|home| home.join(rest));
        let session = path("XDG_RUNTIME_DIR").or_else(|| {
            let uid = std::fs::metadata("/proc/self").ok()?.uid();
            Some(PathBuf::from(format!("/run/containers/{uid}")))
        });
        let session = session.map(|dir| {
            if dir.starts_with("/run/containers") {
                dir.join("auth.json")
            } else {
                dir.join("containers/auth.json")
            }
        });
        let config = path("XDG_CONFIG_HOME")
            .or_else(|| below_home(".config"))
            .map(|dir| dir.join("containers/auth.json"));
        let docker =
            path("DOCKER_CONFIG").or_else(|| below_home(".docker")).map(|dir| dir.join("config.json"));
        let files = [session, config, docker.clone()].into_iter().flatten().collect();
        Self { files, write_to: docker, helper_patience: HELPER_PATIENCE }
    }

    /// Sets how long a helper program may take.
    #[must_use]
    pub const fn with_helper_patience(mut self, patience: Duration) -> Self {
        self.helper_patience = patience;
        self
    }

    /// Looks up the credential for `repository` of `registry` (`host[:port]`); an empty repository means the registry.
    ///
    /// # Errors
    /// `InvalidInput` for a file that cannot be understood; `Unavailable` for a helper that fails or hangs.
    pub fn get(&self, registry: &str, repository: &str) -> Result<Option<(Credential, Place)>> {
        let keys = keys(registry, repository);
        for path in &self.files {
            let Some(file) = AuthFile::read(path)? else { continue };
            if let Some(found) = self.get_from(&file, path, &keys, registry)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn get_from(
        &self,
        file: &AuthFile,
        path: &Path,
        keys: &[String],
        registry: &str,
    ) -> Result<Option<(Credential, Place)>> {
        match file.find(keys)? {
            Some(Found::Credential(credential)) => {
                return Ok(Some((credential, Place::File(path.to_owned()))));
            }
            Some(Found::Helper(name)) => {
                let found = helper::get(&name, helper_key(registry), self.helper_patience)?;
                return Ok(found.map(|credential| (credential, Place::Helper(name))));
            }
            None => {}
        }
        let Some(name) = file.general_helper() else { return Ok(None) };
        match helper::get(&name, helper_key(registry), self.helper_patience) {
            Ok(found) => Ok(found.map(|credential| (credential, Place::Helper(name)))),
            // A desktop's config on a server names a program that is not there; that is no reason not to pull.
            Err(fault) if fault.kind() == Kind::ProgramNotFound => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Stores a credential, with the helper that the file names for the registry, else in the file itself (mode 0600).
    ///
    /// # Errors
    /// `Unsupported` when there is no file to write to; the failed call.
    pub fn put(&self, registry: &str, credential: &Credential) -> Result<Place> {
        let Some(path) = &self.write_to else {
            let fault = Fault::new(
                Kind::Unsupported,
                format!("store the credential for {registry}: there is no place for it"),
            );
            return Err(fault.hint("set HOME, DOCKER_CONFIG or BALE_AUTH_FILE"));
        };
        let mut file = AuthFile::read(path)?.unwrap_or_default();
        if let Some(name) = file.helper_for(registry) {
            helper::store(&name, helper_key(registry), credential, self.helper_patience)?;
            file.mark(file_key(registry));
            file.write(path)?;
            return Ok(Place::Helper(name));
        }
        file.insert(file_key(registry), credential);
        file.write(path)?;
        Ok(Place::File(path.clone()))
    }

    /// Forgets the credentials of a registry in all files and helpers that know it, and tells which did.
    ///
    /// # Errors
    /// The failed call.
    pub fn erase(&self, registry: &str) -> Result<Vec<Place>> {
        let mut places = Vec::new();
        let keys = keys(registry, "");
        for path in &self.files {
            let Some(mut file) = AuthFile::read(path)? else { continue };
            if let Some(name) = file.helper_for(registry)
                && helper::get(&name, helper_key(registry), self.helper_patience)
                    .is_ok_and(|found| found.is_some())
            {
                helper::erase(&name, helper_key(registry), self.helper_patience)?;
                places.push(Place::Helper(name));
            }
            if file.remove(&keys) {
                file.write(path)?;
                places.push(Place::File(path.clone()));
            }
        }
        places.dedup();
        Ok(places)
    }
}

/// Returns the keys under which a credential may stand, the most particular first.
fn keys(registry: &str, repository: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut rest = repository;
    while !rest.is_empty() {
        keys.push(format!("{registry}/{rest}"));
        rest = rest.rsplit_once('/').map_or("", |(parent, _)| parent);
    }
    keys.push(registry.to_owned());
    if is_hub(registry) {
        keys.extend(
            [HUB_KEY, "docker.io", "index.docker.io", "registry-1.docker.io"]
                .map(|key| file::plain_key(key).to_owned()),
        );
    }
    keys
}

fn is_hub(registry: &str) -> bool {
    matches!(registry, "docker.io" | "index.docker.io" | "registry-1.docker.io")
}

/// Returns the key for docker's file.
fn file_key(registry: &str) -> &str {
    if is_hub(registry) { HUB_KEY } else { registry }
}

/// Returns the name by which helpers know the registry.
fn helper_key(registry: &str) -> &str {
    file_key(registry)
}

#[cfg(test)]
mod tests;
