//! What the tests of the wire share.
#![allow(dead_code, clippy::unwrap_used)]

use std::io::Read;
use std::time::Duration;

use bale_registry::{Blob, Client, Credential, CredentialStore, Settings, Timeouts};
use bale_spec::Reference;
use bale_spec::image::{Descriptor, media_type};
use bale_testkit::registry::Registry;

/// Settings with little patience, so that a test of a retry takes milliseconds.
pub fn settings() -> Settings {
    let mut settings = Settings::bare();
    settings.timeouts = Timeouts {
        connect: Duration::from_secs(5),
        stall: Duration::from_millis(300),
        backoff: Duration::from_millis(4),
        attempts: 4,
    };
    settings
}

pub fn client() -> Client {
    Client::new(settings()).unwrap()
}

/// A client whose file of credentials has `user:secret` for the registry (`Basic dXNlcjpzZWNyZXQ=`).
pub fn client_with_login(registry: &str, dir: &std::path::Path) -> Client {
    Client::new(settings_with(registry, dir, &basic())).unwrap()
}

pub fn settings_with(registry: &str, dir: &std::path::Path, credential: &Credential) -> Settings {
    let store = CredentialStore::file(dir.join("auth.json"));
    store.put(registry, credential).unwrap();
    Settings { credentials: store, ..settings() }
}

pub fn basic() -> Credential {
    Credential::Basic { username: "user".to_owned(), password: "secret".to_owned() }
}

pub const BASIC: &str = "Basic dXNlcjpzZWNyZXQ=";

pub fn reference(registry: &Registry, rest: &str) -> Reference {
    format!("{}/{rest}", registry.host()).parse().unwrap()
}

/// Bytes that do not repeat within a buffer.
pub fn noise(length: usize) -> Vec<u8> {
    (0..length as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 23) as u8).collect()
}

pub fn put_image(registry: &Registry, repository: &str, tag: &str) -> Vec<u8> {
    let config = registry.put_blob(repository, "{}");
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"{}","digest":"{config}","size":2}},"layers":[]}}"#,
        media_type::MANIFEST,
        media_type::CONFIG
    );
    registry.put_manifest(repository, tag, media_type::MANIFEST, manifest.clone());
    manifest.into_bytes()
}

pub fn put_blob(registry: &Registry, repository: &str, bytes: &[u8]) -> Descriptor {
    registry.put_blob(repository, bytes);
    Descriptor::of(media_type::LAYER_TAR, bytes)
}

pub fn read(mut blob: Blob) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    blob.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The failure inside of what a reader returned.
pub fn chain(error: &std::io::Error) -> String {
    let fault = error.get_ref().and_then(|e| e.downcast_ref::<bale_fault::Fault>());
    fault.map_or_else(|| error.to_string(), bale_fault::Fault::chain)
}

pub fn reader_of(bytes: &[u8]) -> bale_fault::Result<Box<dyn Read + Send>> {
    Ok(Box::new(std::io::Cursor::new(bytes.to_vec())))
}
