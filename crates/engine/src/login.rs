//! `login` and `logout`: a registry's credentials.

use bale_fault::{Context, Fault, Kind, Result};
use bale_registry::{Client, Credential, CredentialStore, Place, Settings};

use crate::Engine;

/// Docker Hub's name in credential files and helpers is its own business; this is what a user means by none.
pub const DEFAULT_REGISTRY: &str = bale_spec::reference::DEFAULT_REGISTRY;

impl Engine {
    /// Checks a name and password with the registry and stores them.
    ///
    /// # Errors
    /// `PermissionDenied` when the registry does not accept them; nothing is stored then.
    pub fn login(registry: &str, username: &str, password: &str, settings: Settings) -> Result<Place> {
        let registry = registry_name(registry)?;
        let credential = Credential::Basic { username: username.to_owned(), password: password.to_owned() };
        Client::new(settings)?.login(&registry, &credential).within(|| format!("log in to {registry}"))?;
        CredentialStore::from_env().put(&registry, &credential).within(|| "store the credentials")
    }

    /// Forgets a registry's credentials and tells where they were.
    ///
    /// # Errors
    /// The failed call.
    pub fn logout(registry: &str) -> Result<Vec<Place>> {
        CredentialStore::from_env().erase(&registry_name(registry)?)
    }
}

/// Takes what users type for a registry: `host[:port]`, or a URL of it.
fn registry_name(typed: &str) -> Result<String> {
    let bare = typed.strip_prefix("https://").or_else(|| typed.strip_prefix("http://")).unwrap_or(typed);
    let host = bare.split('/').next().unwrap_or_default();
    let host =
        if host == "index.docker.io" || host == "registry-1.docker.io" { DEFAULT_REGISTRY } else { host };
    // The grammar of names is the judge of what is a host.
    let is_host =
        format!("{host}/x").parse::<bale_spec::Reference>().is_ok_and(|name| name.registry() == host);
    if !is_host {
        return Err(Fault::new(Kind::InvalidInput, format!("invalid registry {typed:?}: want host[:port]")));
    }
    Ok(host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::registry_name;

    #[test]
    fn registries_are_hosts_or_urls_of_them() {
        for (typed, name) in [
            ("127.0.0.1:5000", Some("127.0.0.1:5000")),
            ("https://index.docker.io/v1/", Some("docker.io")),
            ("ghcr.io", Some("ghcr.io")),
            ("localhost", Some("localhost")),
            ("", None),
            ("a b.c", None),
            ("user@host.io", None),
        ] {
            assert_eq!(registry_name(typed).ok().as_deref(), name, "{typed:?}");
        }
    }
}
