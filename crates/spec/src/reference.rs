//! Image names as Docker users type them (distribution/reference grammar), made whole.

use std::fmt;
use std::str::FromStr;

use crate::Digest;

/// The registry that a name without one means.
pub const DEFAULT_REGISTRY: &str = "docker.io";
const NAME_LIMIT: usize = 255;
const TAG_LIMIT: usize = 128;

/// A complete image name: registry, repository, and a tag or digest or both.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a name is not one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidReference {
    text: String,
    reason: &'static str,
}

impl fmt::Display for InvalidReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid image name {:?}: {}", self.text, self.reason)
    }
}

impl std::error::Error for InvalidReference {}

impl Reference {
    /// Returns the registry as `host[:port]`; `docker.io` for Docker Hub.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Returns the repository below the registry, such as `library/redis`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Returns the tag; absent only when there is a digest.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Returns the digest that pins the name.
    #[must_use]
    pub const fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Returns what stands in a registry URL after `/manifests/`: the digest when there is one, else the tag.
    #[must_use]
    pub fn manifest_name(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }

    /// Returns the same repository pinned to `digest`, without a tag.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// Returns the name as Docker prints it: without `docker.io/` and `library/`.
    #[must_use]
    pub fn familiar(&self) -> String {
        let whole = self.to_string();
        let Some(rest) = whole.strip_prefix("docker.io/") else { return whole };
        let short = rest.strip_prefix("library/").unwrap_or(rest);
        // `docker.io/library/a/b` and `docker.io/a.b/c` without their beginnings are the names of other images.
        let is_same = |text: &str| text.parse().as_ref() == Ok(self);
        let found = [short, rest].into_iter().find(|text| is_same(text));
        found.map(str::to_owned).unwrap_or(whole)
    }

    /// Returns registry and repository without tag and digest, as `docker images` shows them.
    #[must_use]
    pub fn familiar_repository(&self) -> String {
        let familiar = self.familiar();
        let name = familiar.split('@').next().unwrap_or_default();
        let tag = self.tag.as_ref().map_or(0, |tag| tag.len() + 1);
        name[..name.len() - tag].to_owned()
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        let fail = |reason| InvalidReference { text: text.chars().take(300).collect(), reason };
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => {
                (name, Some(digest.parse().map_err(|_| fail("the digest after @ is malformed"))?))
            }
            None => (text, None),
        };
        let slash = name.rfind('/').map_or(0, |at| at + 1);
        let (path, tag) = match name[slash..].find(':') {
            Some(colon) => (&name[..slash + colon], Some(&name[slash + colon + 1..])),
            None => (name, None),
        };
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(fail("a tag is 1 to 128 of letters, digits, _ . -, and does not begin with . or -"));
        }
        let (registry, repository) = split_registry(path);
        if path.is_empty() {
            return Err(fail("the name is empty"));
        }
        if registry.len() + repository.len() > NAME_LIMIT {
            return Err(fail("the name is longer than 255 characters"));
        }
        if !is_registry(&registry) {
            return Err(fail("the registry is not host[:port]"));
        }
        if repository.chars().any(|c| c.is_ascii_uppercase()) {
            return Err(fail("the repository must be lower case"));
        }
        if !repository.split('/').all(is_component) {
            return Err(fail("a repository is lower-case letters and digits, joined by . _ __ - or /"));
        }
        let tag = match (tag, &digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some("latest".to_owned()),
        };
        Ok(Self { registry, repository, tag, digest })
    }
}

/// Splits as Docker does: the first component is a registry when it has a dot or colon or is `localhost`.
fn split_registry(path: &str) -> (String, String) {
    let (registry, repository) = match path.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':']) || first == "localhost" || first.starts_with('[') =>
        {
            (first, rest)
        }
        _ => (DEFAULT_REGISTRY, path),
    };
    let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
    if registry == DEFAULT_REGISTRY && !repository.contains('/') {
        return (registry.to_owned(), format!("library/{repository}"));
    }
    (registry.to_owned(), repository.to_owned())
}

fn is_tag(tag: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    (1..=TAG_LIMIT).contains(&tag.len())
        && tag.starts_with(word)
        && tag.chars().all(|c| word(c) || c == '.' || c == '-')
}

fn is_registry(registry: &str) -> bool {
    let (host, port) = match registry.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if address.parse::<std::net::Ipv6Addr>().is_ok() => {
                if !port.is_empty() && !port.starts_with(':') {
                    return false;
                }
                ("v6", port.strip_prefix(':'))
            }
            _ => return false,
        },
        None => match registry.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (registry, None),
        },
    };
    let label = |l: &str| {
        !l.is_empty()
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    host.split('.').all(label) && port.is_none_or(|p| p.parse::<u16>().is_ok())
}

fn is_component(component: &str) -> bool {
    let alnum = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !component.starts_with(alnum) || !component.ends_with(alnum) {
        return false;
    }
    // Between two runs of letters and digits stands one separator: `.`, `_`, `__`, or any number of `-`.
    component
        .split(alnum)
        .filter(|separator| !separator.is_empty())
        .all(|s| matches!(s, "." | "_" | "__") || s.chars().all(|c| c == '-'))
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_whole() {
        for (typed, whole, familiar) in [
            ("redis", "docker.io/library/redis:latest", "redis:latest"),
            ("redis:7", "docker.io/library/redis:7", "redis:7"),
            ("docker.io/library/redis:7", "docker.io/library/redis:7", "redis:7"),
            ("index.docker.io/redis", "docker.io/library/redis:latest", "redis:latest"),
            ("user/app", "docker.io/user/app:latest", "user/app:latest"),
            ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
            ("docker.io/library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
            ("docker.io/a.b/c:1", "docker.io/a.b/c:1", "docker.io/a.b/c:1"),
            ("127.0.0.1:5000/a/b_c--d:V1.0", "127.0.0.1:5000/a/b_c--d:V1.0", "127.0.0.1:5000/a/b_c--d:V1.0"),
            ("[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000/app:latest"),
        ] {
            let reference: Reference = typed.parse().unwrap_or_else(|e| panic!("{typed}: {e}"));
            assert_eq!((reference.to_string().as_str(), reference.familiar().as_str()), (whole, familiar));
        }
    }

    #[test]
    fn a_digest_needs_no_tag() {
        let digest = Digest::of(b"x");
        let reference: Reference = format!("redis@{digest}").parse().unwrap();
        assert_eq!((reference.tag(), reference.manifest_name()), (None, digest.to_string()));
        let both: Reference = format!("redis:7@{digest}").parse().unwrap();
        assert_eq!((both.tag(), both.manifest_name()), (Some("7"), digest.to_string()));
    }

    #[test]
    fn malformed_names_are_refused() {
        for bad in [
            "",
            "/",
            ":",
            "a/",
            "Redis",
            "redis:",
            "redis:-x",
            "redis@sha256:1",
            "a..b",
            "a/../b",
            "host:99999/x",
            "a b",
            "a:b:c",
            "-a",
            "a_",
            "a___b",
            "./redis",
            "[::1/x",
            "[::1]x/a",
            "[::1] /a",
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
    }
}
