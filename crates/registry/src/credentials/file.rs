//! docker's `config.json` and containers' `auth.json`: one form, with small differences.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use bale_fault::{Context, Fault, Kind, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::Credential;

const LIMIT_BYTES: u64 = 4 << 20;

/// The document, kept as it is: other programs have their own fields in it.
#[derive(Default)]
pub(crate) struct AuthFile(Map<String, Value>);

pub(crate) enum Found {
    Credential(Credential),
    Helper(String),
}

impl AuthFile {
    /// Reads the file; `None` when there is none.
    pub(super) fn read(path: &Path) -> Result<Option<Self>> {
        let mut text = Vec::new();
        match fs::File::open(path).and_then(|file| file.take(LIMIT_BYTES).read_to_end(&mut text)) {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(error).within(|| format!("read credentials from {}", path.display())),
        }
        Self::parse(&text, path).map(Some)
    }

    /// Reads the text of the file; `path` is for words.
    pub(crate) fn parse(text: &[u8], path: &Path) -> Result<Self> {
        if text.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        // Parsed without a shape: an error about a field would show what stands in it.
        match serde_json::from_slice(text) {
            Ok(Value::Object(map)) => Ok(Self(map)),
            Ok(_) => Err(Fault::new(Kind::InvalidInput, format!("{}: not a JSON object", path.display()))),
            Err(e) => {
                let words =
                    format!("{}: not JSON (line {}, column {})", path.display(), e.line(), e.column());
                Err(Fault::new(Kind::InvalidInput, words))
            }
        }
    }

    /// Finds what the file has for the first of `keys` that it knows.
    pub(crate) fn find(&self, keys: &[String]) -> Result<Option<Found>> {
        for key in keys {
            if let Some(name) =
                self.entries("credHelpers").find(|(k, _)| k == key).and_then(|(_, v)| v.as_str())
            {
                return Ok(Some(Found::Helper(name.to_owned())));
            }
            for (_, entry) in self.entries("auths").filter(|(k, _)| k == key) {
                if let Some(credential) = credential(entry, key)? {
                    return Ok(Some(Found::Credential(credential)));
                }
            }
        }
        Ok(None)
    }

    /// Returns the helper for registries that have none of their own (`credsStore`).
    pub(crate) fn general_helper(&self) -> Option<String> {
        self.0.get("credsStore").and_then(Value::as_str).filter(|name| !name.is_empty()).map(str::to_owned)
    }

    /// Returns the helper that keeps the credential of `registry`.
    pub(crate) fn helper_for(&self, registry: &str) -> Option<String> {
        let own = self.entries("credHelpers").find(|(key, _)| *key == registry).and_then(|(_, v)| v.as_str());
        own.map(str::to_owned).or_else(|| self.general_helper())
    }

    fn entries(&self, field: &str) -> impl Iterator<Item = (&str, &Value)> {
        self.0
            .get(field)
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(key, value)| (plain_key(key), value))
    }

    /// Puts a credential under `key`.
    pub(super) fn insert(&mut self, key: &str, credential: &Credential) {
        let entry = match credential {
            Credential::Basic { username, password } => {
                json!({"auth": STANDARD.encode(format!("{username}:{password}"))})
            }
            Credential::Identity(token) => {
                json!({"auth": STANDARD.encode("<token>:"), "identitytoken": token})
            }
            Credential::Token(token) => json!({"registrytoken": token}),
        };
        self.set(key, entry);
    }

    /// Notes that a helper has the credential, as docker does.
    pub(super) fn mark(&mut self, key: &str) {
        self.set(key, json!({}));
    }

    fn set(&mut self, key: &str, entry: Value) {
        let auths = self.0.entry("auths").or_insert_with(|| json!({}));
        if !auths.is_object() {
            *auths = json!({});
        }
        if let Some(auths) = auths.as_object_mut() {
            auths.insert(key.to_owned(), entry);
        }
    }

    /// Removes every entry of `keys`; tells whether there was one.
    pub(super) fn remove(&mut self, keys: &[String]) -> bool {
        let Some(auths) = self.0.get_mut("auths").and_then(Value::as_object_mut) else { return false };
        let before = auths.len();
        auths.retain(|key, _| !keys.iter().any(|k| k == plain_key(key)));
        auths.len() != before
    }

    /// Replaces the file, mode 0600.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        // A user may keep the file elsewhere and link to it: the link stays.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let text = serde_json::to_vec_pretty(&self.0)
            .map_err(|e| Fault::new(Kind::Internal, "write JSON").caused_by(e))?;
        replace(&path, &text).within(|| format!("write credentials to {}", path.display()))
    }
}

fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = dir.join(format!(".{name}.{}.{:08x}", std::process::id(), crate::random::number()));
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    let outcome =
        file.write_all(text).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&temporary, path));
    if outcome.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    outcome
}

/// Returns a key without scheme, without `/v1/` or `/v2/` and without a slash at the end: all forms that docker wrote.
pub(super) fn plain_key(key: &str) -> &str {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let key = key.trim_end_matches('/');
    key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key)
}

/// Reads one entry of `auths`; `None` for the empty ones that docker leaves beside a helper.
fn credential(entry: &Value, key: &str) -> Result<Option<Credential>> {
    let text = |name: &str| entry.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    if let Some(token) = text("registrytoken") {
        return Ok(Some(Credential::Token(token.to_owned())));
    }
    if let Some(token) = text("identitytoken") {
        return Ok(Some(Credential::Identity(token.to_owned())));
    }
    if let Some(auth) = text("auth") {
        let malformed = || {
            Fault::new(
                Kind::InvalidInput,
                format!("the stored credential for {key} is not base64 of name:password"),
            )
        };
        let plain = STANDARD
            .decode(auth.trim())
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .ok_or_else(malformed)?;
        let (username, password) = plain.split_once(':').ok_or_else(malformed)?;
        // Old docker padded with NUL bytes.
        let password = password.trim_end_matches('\0');
        return Ok(Some(Credential::Basic { username: username.to_owned(), password: password.to_owned() }));
    }
    let pair = text("username").zip(text("password"));
    Ok(pair.map(|(username, password)| Credential::Basic {
        username: username.to_owned(),
        password: password.to_owned(),
    }))
}
