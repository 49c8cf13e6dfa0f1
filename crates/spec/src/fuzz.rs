//! Fuzz targets; `testkit/src/fuzz.rs` says how they are run. Inputs of several texts have a NUL byte between them.

use crate::digest::Digest;
use crate::generate::{self, EtcFiles, HostFacts};
use crate::image::{Document, ImageConfig, Platform};
use crate::legacy;
use crate::options::{Flags, Surroundings, device, env, mount, number, resolve, security};
use crate::reference::Reference;
use crate::runtime::RuntimeConfig;
use crate::validate::{Path, Severity, validate};
use crate::{capability, signal, user};
use bale_fault::{Fault, Kind, Result};

/// A machine without variables and files.
struct Nowhere;

impl Surroundings for Nowhere {
    fn variable(&self, name: &str) -> Option<String> {
        (name == "SET").then(|| "yes".to_owned())
    }

    fn working_directory(&self) -> String {
        "/w".to_owned()
    }

    fn read(&self, path: &str) -> Result<String> {
        Err(Fault::new(Kind::NotFound, path))
    }
}

/// Splits at the first NUL byte.
fn halves(data: &[u8]) -> (&[u8], Option<&[u8]>) {
    match data.iter().position(|b| *b == 0) {
        Some(at) => (&data[..at], Some(&data[at + 1..])),
        None => (data, None),
    }
}

fn errors(text: &[u8]) -> Vec<String> {
    let found = validate(text).findings.without_places();
    found
        .into_iter()
        .filter(|f| f.severity == Severity::Error)
        .map(|f| format!("{}: {}", f.path, f.words))
        .collect()
}

/// `config.json`: what cannot be parsed has an error with a place that exists; what can is written and read back.
pub fn config(data: &[u8]) {
    let parsed = RuntimeConfig::parse(data);
    let text = String::from_utf8_lossy(data);
    let found = validate(data).findings.located(&text);
    let lines = text.lines().count().max(1);
    assert!(found.iter().all(|f| f.line.is_none_or(|l| (1..=lines).contains(&l))), "{found:?}");
    assert!(found.iter().all(|f| f.path.is_empty() || Path::parse(&f.path).is_some()), "{found:?}");
    match parsed {
        Err(error) => assert!(found.iter().any(|f| f.severity == Severity::Error), "{error:?}"),
        Ok(config) => {
            let canonical = config.to_canonical();
            assert_eq!(RuntimeConfig::parse(canonical.as_bytes()).expect(&canonical), config);
        }
    }
}

/// Bundles of old dialects: what is converted is a config of today, and there is nothing to convert in it.
pub fn legacy(data: &[u8]) {
    let (config, runtime) = halves(data);
    for (faithful, harden) in [(false, false), (true, true)] {
        let device = |path: &str| {
            (path == "/dev/fuse").then_some(legacy::HostDevice { kind: 'c', major: 10, minor: 229 })
        };
        let options = legacy::Options { faithful, harden };
        let Ok(converted) = legacy::convert(config, runtime, options, &device) else { continue };
        let text = converted.to_canonical();
        assert_eq!(RuntimeConfig::parse(text.as_bytes()).expect(&text), converted.config);
        let document = serde_json::from_str(&text).expect("JSON");
        assert_eq!(legacy::detect(&document, None), None, "{text}");
        assert!(converted.decisions.iter().all(|d| !d.words.is_empty()));
    }
}

/// Manifests, indexes and configs of images: one kind at most, and no document is two.
pub fn image(data: &[u8]) {
    const TYPES: [&str; 4] = [
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    ];
    let kinds: Vec<bool> = TYPES
        .into_iter()
        .filter_map(|kind| Document::parse(data, Some(kind)).ok())
        .map(|document| match document {
            Document::Manifest(manifest) => {
                assert!(manifest.layers.iter().all(|l| l.digest.to_string().parse() == Ok(l.digest)));
                true
            }
            Document::Index(index) => {
                let chosen = index.choose(&Platform::host());
                assert!(chosen.is_none_or(|c| index.manifests.contains(c)));
                false
            }
        })
        .collect();
    assert!(kinds.windows(2).all(|pair| pair[0] == pair[1]), "a document is manifest and index");
    let _ = Document::parse(data, None);
    if let Ok(config) = ImageConfig::parse(data) {
        assert_eq!(config.chain_ids().len(), config.rootfs.diff_ids.len());
        container(&config, &RunFacts::default());
    }
}

/// Whether a path of a container is absolute and leads nowhere up.
fn is_clean(path: &str) -> bool {
    path.starts_with('/') && path.split('/').all(|part| part != "..")
}

/// Texts of a root file system.
#[derive(Default)]
struct RunFacts<'a> {
    passwd: &'a str,
    group: &'a str,
}

/// Whatever an image says, what is generated is a config that validation has no error for.
fn container(image: &ImageConfig, texts: &RunFacts<'_>) {
    let facts = HostFacts {
        container_id: "a".repeat(64),
        root_path: "rootfs".to_owned(),
        passwd: Some(texts.passwd.to_owned()),
        group: Some(texts.group.to_owned()),
        volumes: "/volumes".to_owned(),
        etc: EtcFiles { hosts: Some("/c/hosts".to_owned()), ..EtcFiles::default() },
        ..HostFacts::default()
    };
    let Ok(generated) = generate::config(image, &crate::options::RunOptions::default(), &facts) else {
        return;
    };
    let text = generated.config.to_canonical();
    let errors = errors(text.as_bytes());
    assert!(errors.is_empty(), "{errors:?}\n{text}");
    for volume in &generated.volumes {
        assert!(volume.anonymous && volume.source.starts_with("/volumes/"), "{volume:?}");
        assert!(is_clean(&volume.destination), "{volume:?}");
    }
    assert!(generated.create_directories.is_empty(), "an image names a directory of the host");
}

/// Names of images: what is accepted is safe in a URL and a path, and means the same when read again.
pub fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(reference) = text.parse::<Reference>() {
        let whole = reference.to_string();
        assert_eq!(whole.parse().as_ref(), Ok(&reference), "{whole}");
        assert_eq!(reference.familiar().parse().as_ref(), Ok(&reference), "{whole}");
        let safe = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-/".contains(c);
        assert!(reference.repository().chars().all(safe), "{whole}");
        assert!(reference.repository().split('/').all(|part| !part.is_empty() && !part.starts_with('.')));
        assert!(reference.tag().is_none_or(|tag| !tag.contains(['/', ':', '@', '%', '?', '#'])));
        assert!(reference.registry().chars().all(|c| c.is_ascii_alphanumeric() || ".-:[]".contains(c)));
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
    }
    if let Ok(platform) = text.parse::<Platform>() {
        assert_eq!(platform.to_string().parse().as_ref(), Ok(&platform));
    }
}

/// `USER` against passwd and group: digits are that number, and nothing beyond 31 bits gets through.
pub fn user(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut parts = text.splitn(3, '\0');
    let (wanted, passwd, group) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    if let Ok(identity) = user::resolve(wanted, passwd, group) {
        let ids = [identity.uid, identity.gid].into_iter().chain(identity.groups.iter().copied());
        assert!(ids.clone().all(|id| i32::try_from(id).is_ok()), "{identity:?}");
        assert!(identity.home.starts_with('/') && identity.groups.first() == Some(&identity.gid));
        let name = wanted.split(':').next().unwrap_or_default();
        if !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit()) {
            assert_eq!(name.parse(), Ok(identity.uid));
        }
        if name.starts_with(['-', '+']) {
            assert!(passwd.contains(name), "a sign is part of a name or refused");
        }
    }
    let _ = user::resolve_groups(&[wanted.to_owned()], group);
    let image = serde_json::json!({"architecture": "amd64", "os": "linux", "config": {"User": wanted, "Cmd": ["x"]},
        "rootfs": {"type": "layers", "diff_ids": []}});
    let image = ImageConfig::parse(image.to_string().as_bytes()).expect("an image");
    container(&image, &RunFacts { passwd, group });
}

/// Values of the flags of `run`, environment files and label files: read or refused; what is read stays in its room.
pub fn options(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (list, some) = (|| vec![text.to_string()], || Some(text.to_string()));
    let none = Flags::default;
    for flags in [
        Flags { memory: some(), cpuset_cpus: some(), ..none() },
        Flags { cpus: some(), platform: some(), ..none() },
        Flags { volume: list(), ..none() },
        Flags { mount: list(), ..none() },
        Flags { tmpfs: list(), ..none() },
        Flags { device: list(), ..none() },
        Flags { device_cgroup_rule: list(), ..none() },
        Flags { env: list(), ..none() },
        Flags { ulimit: list(), ..none() },
        Flags { sysctl: list(), ..none() },
        Flags { security_opt: list(), ..none() },
        Flags { add_host: list(), ..none() },
        Flags { stop_signal: some(), ..none() },
        Flags { network: some(), ..none() },
    ] {
        let _ = resolve(&flags, &Nowhere);
    }
    let specs = [mount::volume(&text, "/w"), mount::mount(&text, "/w"), mount::tmpfs(&text)];
    for request in specs.into_iter().flatten() {
        assert!(is_clean(&request.target), "{request:?}");
    }
    if let Ok(limit) = device::ulimit(&text) {
        assert!(limit.soft <= limit.hard);
    }
    if let Ok(entries) = env::file("f", &text, &Nowhere) {
        assert!(entries.iter().all(|e| e.contains('=') && !e.contains(['\n', '\0']) && !e.starts_with('=')));
    }
    let _ = env::labels("--label", env::label_lines(&text));
    let _ = (signal::parse(&text), capability::find(&text), number::size("f", &text), number::is_set(&text));
    let _ = security::profile(data, &[]);
}

/// The host's `resolv.conf` and `hosts` (which a DHCP server writes): a file for the container, line by line.
pub fn etc(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for network in ["none", "host"] {
        let flags = Flags { network: Some(network.to_owned()), ..Flags::default() };
        let options = resolve(&flags, &Nowhere).expect("flags");
        let made = generate::resolv_conf_file(&options, &text);
        assert!(made.len() <= text.len() + 200, "it grows");
        assert!(generate::hosts_file(&options, &text).ends_with('\n') || text.is_empty());
    }
}

#[cfg(test)]
bale_testkit::fuzz_targets! {
    config: 1500,
    legacy: 1500,
    image: 2000,
    reference: 20_000,
    user: 2000,
    options: 2000,
    etc: 2000,
}
