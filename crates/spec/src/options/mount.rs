//! `-v`, `--mount` and `--tmpfs`.

use bale_fault::{Kind, Result};

use super::{MountKind, MountRequest, number, wrong};
use crate::suggest::did_you_mean;

/// What tmpfs gets when the user does not say otherwise.
const TMPFS_DEFAULTS: [(&str, &str); 3] = [("noexec", "exec"), ("nosuid", "suid"), ("nodev", "dev")];
const TMPFS_WORDS: [&str; 24] = [
    "exec",
    "noexec",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "ro",
    "rw",
    "sync",
    "async",
    "dirsync",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "private",
    "rprivate",
    "shared",
    "slave",
    "defaults",
];
const TMPFS_KEYS: [&str; 7] = ["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"];
const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];
const VOLUME_MODES: [&str; 13] = [
    "ro",
    "rw",
    "z",
    "Z",
    "nocopy",
    "consistent",
    "cached",
    "delegated",
    "private",
    "rprivate",
    "shared",
    "rslave",
    "slave",
];

/// Cleans an absolute path in words: no empty, `.` or `..` components.
#[must_use]
pub fn clean(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for component in path.split('/') {
        match component {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            _ => kept.push(component),
        }
    }
    format!("/{}", kept.join("/"))
}

/// Reads a target in the container.
pub(super) fn target(flag: &str, whole: &str, path: &str) -> Result<String> {
    if !path.starts_with('/') {
        return Err(wrong(flag, whole, format!("the path in the container, {path:?}, must be absolute")));
    }
    if path.contains('\0') {
        return Err(wrong(flag, whole, "a path cannot hold a NUL byte"));
    }
    let path = clean(path);
    if path == "/" {
        return Err(wrong(flag, whole, "the path in the container cannot be \"/\""));
    }
    Ok(path)
}

/// Makes a source path of the host absolute.
fn source_path(path: &str, working_directory: &str) -> String {
    if path.starts_with('/') { clean(path) } else { clean(&format!("{working_directory}/{path}")) }
}

/// Tells whether `name` can be the name of a volume.
#[must_use]
pub fn is_volume_name(name: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric();
    (2..=255).contains(&name.len())
        && name.starts_with(word)
        && name.chars().all(|c| word(c) || "_.-".contains(c))
}

fn volume_name(flag: &str, whole: &str, name: &str) -> Result<String> {
    if is_volume_name(name) {
        return Ok(name.to_owned());
    }
    let reason = format!("{name:?} is not a volume's name ([a-zA-Z0-9][a-zA-Z0-9_.-]+)");
    Err(wrong(flag, whole, reason)
        .hint(format!("for a directory of the host write its absolute path, or ./{name}")))
}

/// Reads `-v [SOURCE:]TARGET[:MODES]`.
///
/// # Errors
/// `InvalidInput`.
pub fn volume(spec: &str, working_directory: &str) -> Result<MountRequest> {
    let flag = "--volume";
    let parts: Vec<&str> = spec.split(':').collect();
    if parts.iter().any(|p| p.is_empty()) {
        return Err(wrong(flag, spec, "empty section between colons"));
    }
    let (source, path, modes) = match *parts.as_slice() {
        [path] => (None, path, ""),
        [path, mode] if path.starts_with('/') && VOLUME_MODES.contains(&mode) => {
            let hint = format!("name a source: NAME:{path}:{mode}");
            return Err(wrong(flag, spec, "a volume without a source cannot have a mode").hint(hint));
        }
        [source, path] => (Some(source), path, ""),
        [source, path, modes] => (Some(source), path, modes),
        _ => {
            return Err(wrong(flag, spec, "too many colons")
                .hint("the form is [SOURCE:]TARGET[:ro|rw|z|Z|nocopy|PROPAGATION]"));
        }
    };
    let target = target(flag, spec, path)?;
    let mode = VolumeMode::parse(flag, spec, modes)?;
    let kind = match source {
        Some(path) if path.starts_with(['/', '.']) => {
            if mode.nocopy {
                return Err(wrong(flag, spec, "nocopy is for volumes, not for directories of the host"));
            }
            let source = source_path(path, working_directory);
            MountKind::Bind { source, create: true, recursive: true, propagation: mode.propagation }
        }
        source => {
            if mode.propagation.is_some() {
                return Err(wrong(flag, spec, "propagation is for directories of the host, not for volumes"));
            }
            let name = source.map(|name| volume_name(flag, spec, name)).transpose()?;
            MountKind::Volume { name, copy_up: !mode.nocopy }
        }
    };
    Ok(MountRequest { target, readonly: mode.readonly, kind })
}

#[derive(Default)]
struct VolumeMode {
    readonly: bool,
    nocopy: bool,
    propagation: Option<String>,
}

impl VolumeMode {
    fn parse(flag: &str, spec: &str, modes: &str) -> Result<Self> {
        let mut found = Self::default();
        let (mut access, mut label, mut propagation) = (0, 0, 0);
        for mode in modes.split(',').filter(|_| !modes.is_empty()) {
            match mode {
                "ro" | "rw" => {
                    access += 1;
                    found.readonly = mode == "ro";
                }
                // Labels of SELinux, which bale does not set, and hints that only Docker Desktop reads.
                "z" | "Z" => label += 1,
                "consistent" | "cached" | "delegated" => {}
                "nocopy" => found.nocopy = true,
                _ if PROPAGATIONS.contains(&mode) => {
                    propagation += 1;
                    found.propagation = Some(mode.to_owned());
                }
                _ => {
                    let known = VOLUME_MODES.iter().chain(&PROPAGATIONS).copied();
                    return Err(wrong(
                        flag,
                        spec,
                        format!("invalid mode {mode:?}{}", did_you_mean(mode, known)),
                    ));
                }
            }
        }
        if access > 1 || label > 1 || propagation > 1 {
            return Err(wrong(flag, spec, format!("the modes {modes:?} contradict each other")));
        }
        Ok(found)
    }
}

/// Reads `--tmpfs TARGET[:OPTIONS]`.
///
/// # Errors
/// `InvalidInput`.
pub fn tmpfs(spec: &str) -> Result<MountRequest> {
    let flag = "--tmpfs";
    let (path, options) = spec.split_once(':').unwrap_or((spec, ""));
    let target = target(flag, spec, path)?;
    let mut given: Vec<String> = Vec::new();
    for option in options.split(',').filter(|o| !o.is_empty()) {
        match option.split_once('=') {
            Some((key, value)) if TMPFS_KEYS.contains(&key) && is_tmpfs_value(key, value) => {}
            None if TMPFS_WORDS.contains(&option) => {}
            Some((key, value)) if TMPFS_KEYS.contains(&key) => {
                return Err(wrong(flag, spec, format!("{value:?} is no value of {key}")));
            }
            _ => {
                let word = option.split('=').next().unwrap_or_default();
                let known = TMPFS_WORDS.iter().chain(&TMPFS_KEYS).copied();
                return Err(wrong(
                    flag,
                    spec,
                    format!("invalid tmpfs option {option:?}{}", did_you_mean(word, known)),
                ));
            }
        }
        if option != "defaults" {
            given.push(option.to_owned());
        }
    }
    let readonly = given.iter().any(|o| o == "ro");
    Ok(MountRequest { target, readonly, kind: MountKind::Tmpfs { options: tmpfs_options(&given) } })
}

/// Puts docker's defaults in front, without those that are taken back.
fn tmpfs_options(given: &[String]) -> Vec<String> {
    let has = |word: &str| given.iter().any(|g| g == word);
    let defaults =
        TMPFS_DEFAULTS.iter().filter(|(no, yes)| !has(no) && !has(yes)).map(|(no, _)| (*no).to_owned());
    let private = (!PROPAGATIONS.iter().any(|p| has(p))).then(|| "rprivate".to_owned());
    defaults.chain(private).chain(given.iter().cloned()).collect()
}

fn is_tmpfs_value(key: &str, value: &str) -> bool {
    let digits = |s: &str, radix| !s.is_empty() && s.len() <= 20 && s.chars().all(|c| c.is_digit(radix));
    match key {
        "mode" => digits(value, 8),
        "uid" | "gid" => digits(value, 10),
        "mpol" => !value.is_empty(),
        _ => digits(value.trim_end_matches(['k', 'm', 'g', 'K', 'M', 'G', '%']), 10) && value.len() <= 21,
    }
}

const MOUNT_KEYS: [&str; 22] = [
    "type",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "consistency",
    "bind-propagation",
    "bind-nonrecursive",
    "bind-recursive",
    "volume-nocopy",
    "volume-label",
    "volume-driver",
    "volume-opt",
    "volume-subpath",
    "tmpfs-size",
    "tmpfs-mode",
    "tmpfs-options",
    "image-subpath",
    "relabel",
];

#[derive(Default)]
struct MountFields {
    kind: Option<String>,
    source: Option<String>,
    target: Option<String>,
    readonly: bool,
    propagation: Option<String>,
    nonrecursive: bool,
    nocopy: bool,
    tmpfs: Vec<String>,
    /// Keys that belong to one type alone, for the check that they are not mixed.
    prefixes: Vec<&'static str>,
}

/// Reads `--mount type=bind|volume|tmpfs,src=…,dst=…,…`.
///
/// # Errors
/// `InvalidInput`; `Unsupported` for volume drivers and the like.
pub fn mount(spec: &str, working_directory: &str) -> Result<MountRequest> {
    let flag = "--mount";
    let mut fields = MountFields::default();
    for field in csv(spec).ok_or_else(|| wrong(flag, spec, "a quotation mark is not closed"))? {
        fields.take(spec, &field)?;
    }
    let path =
        fields.target.take().ok_or_else(|| wrong(flag, spec, "target is required").hint("add dst=/path"))?;
    let target = target(flag, spec, &path)?;
    let kind = fields.kind.take().unwrap_or_else(|| "volume".to_owned());
    if let Some(prefix) = fields.prefixes.iter().find(|p| **p != kind) {
        return Err(wrong(flag, spec, format!("cannot mix {prefix}-* options with mount type {kind:?}")));
    }
    let readonly = fields.readonly;
    let kind = match kind.as_str() {
        "bind" => fields.bind(spec, working_directory)?,
        "volume" => fields.volume(spec)?,
        "tmpfs" if fields.source.is_some() => return Err(wrong(flag, spec, "a tmpfs has no source")),
        "tmpfs" => MountKind::Tmpfs { options: tmpfs_options(&fields.tmpfs) },
        "image" | "npipe" | "cluster" => {
            return Err(wrong(flag, spec, format!("mount type {kind:?} is not supported"))
                .with_kind(Kind::Unsupported));
        }
        other => {
            let near = did_you_mean(other, ["bind", "volume", "tmpfs"]);
            return Err(wrong(flag, spec, format!("mount type {other:?} is unknown{near}")));
        }
    };
    Ok(MountRequest { target, readonly, kind })
}

impl MountFields {
    fn take(&mut self, spec: &str, field: &str) -> Result<()> {
        let flag = "--mount";
        let (key, value) = field.split_once('=').map_or((field, None), |(k, v)| (k, Some(v)));
        let key = key.trim().to_ascii_lowercase();
        if !MOUNT_KEYS.contains(&key.as_str()) {
            let near = did_you_mean(&key, MOUNT_KEYS);
            return Err(wrong(flag, spec, format!("unexpected key {key:?}{near}")));
        }
        let switch = || match value {
            None => Ok(true),
            Some(text) => number::boolean(text)
                .ok_or_else(|| wrong(flag, spec, format!("{text:?} is no value of {key}: true or false"))),
        };
        if matches!(key.as_str(), "readonly" | "ro" | "bind-nonrecursive" | "volume-nocopy") {
            let on = switch()?;
            match key.as_str() {
                "readonly" | "ro" => self.readonly = on,
                "bind-nonrecursive" => (self.nonrecursive, _) = (on, self.prefixes.push("bind")),
                _ => (self.nocopy, _) = (on, self.prefixes.push("volume")),
            }
            return Ok(());
        }
        let value = value.ok_or_else(|| wrong(flag, spec, format!("{key:?} must be a key=value pair")))?;
        match key.as_str() {
            "type" => self.kind = Some(value.to_ascii_lowercase()),
            "source" | "src" => self.source = Some(value.to_owned()),
            "target" | "dst" | "destination" => self.target = Some(value.to_owned()),
            "consistency" | "relabel" => {}
            _ => self.take_typed(spec, &key, value)?,
        }
        Ok(())
    }

    fn take_typed(&mut self, spec: &str, key: &str, value: &str) -> Result<()> {
        let flag = "--mount";
        match key {
            "bind-propagation" if PROPAGATIONS.contains(&value) => self.propagation = Some(value.to_owned()),
            "bind-propagation" => {
                let near = did_you_mean(value, PROPAGATIONS);
                return Err(wrong(flag, spec, format!("propagation {value:?} is unknown{near}")));
            }
            "bind-recursive" => match value {
                "enabled" | "readonly" | "writable" => {}
                "disabled" => self.nonrecursive = true,
                _ => {
                    return Err(wrong(
                        flag,
                        spec,
                        format!("{value:?} is no value of {key}: enabled, disabled, writable or readonly"),
                    ));
                }
            },
            "tmpfs-size" => self.tmpfs.push(format!("size={}", number::size("--mount tmpfs-size", value)?)),
            "tmpfs-mode" if is_tmpfs_value("mode", value) => self.tmpfs.push(format!("mode={value}")),
            "tmpfs-mode" => return Err(wrong(flag, spec, format!("{value:?} is no octal mode"))),
            "volume-label" => {}
            "volume-driver" if value == "local" => {}
            _ => {
                return Err(wrong(flag, spec, format!("{key} is not supported")).with_kind(Kind::Unsupported));
            }
        }
        let prefix = ["bind", "volume", "tmpfs"].into_iter().find(|p| key.starts_with(p));
        self.prefixes.extend(prefix);
        Ok(())
    }

    fn bind(self, spec: &str, working_directory: &str) -> Result<MountKind> {
        let flag = "--mount";
        let source = self
            .source
            .filter(|s| !s.is_empty())
            .ok_or_else(|| wrong(flag, spec, "a bind mount needs src=/path"))?;
        if !source.starts_with(['/', '.']) {
            return Err(wrong(flag, spec, format!("the source {source:?} must be absolute")));
        }
        let source = source_path(&source, working_directory);
        Ok(MountKind::Bind {
            source,
            create: false,
            recursive: !self.nonrecursive,
            propagation: self.propagation,
        })
    }

    fn volume(self, spec: &str) -> Result<MountKind> {
        let name = self
            .source
            .filter(|s| !s.is_empty())
            .map(|name| volume_name("--mount", spec, &name))
            .transpose()?;
        if name.is_none() && self.readonly {
            return Err(wrong(
                "--mount",
                spec,
                "an anonymous volume cannot be read-only: nobody could fill it",
            ));
        }
        Ok(MountKind::Volume { name, copy_up: !self.nocopy })
    }
}

/// Splits comma-separated fields; a field in double quotes may hold commas, and `""` is a quotation mark in it.
fn csv(text: &str) -> Option<Vec<String>> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        let last = fields.last_mut()?;
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                last.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            other => last.push(other),
        }
    }
    (!quoted).then_some(fields)
}

#[cfg(test)]
mod tests;
