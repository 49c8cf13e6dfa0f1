//! The way from an old pair to a current config, step by step.

use std::collections::BTreeMap;

use bale_fault::Result;
use serde_json::{Map, Value};

use super::object::{Object, invalid};
use super::{
    Converted, Decision, Dialect, HostDevice, Options, Weight, detect, devices, mounts, process, resources,
    seccomp,
};
use crate::json::CONFIG_LIMIT_BYTES;
use crate::runtime::{
    Hook, Hooks, IdMapping, Linux, Namespace, NamespaceKind, Resources, Root, RuntimeConfig, SPEC_VERSION,
};

const MASKED_READONLY_ROOT: [&str; 1] = ["/proc/kcore"];
const READONLY_READONLY_ROOT: [&str; 4] = ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus"];
const MASKED_V040: [&str; 4] =
    ["/proc/kcore", "/proc/latency_stats", "/proc/timer_stats", "/proc/sched_debug"];
const READONLY_V040: [&str; 6] =
    ["/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
const MASKED_TODAY: [&str; 8] = [
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
];
const READONLY_TODAY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What the steps share.
pub(super) struct Work<'a> {
    pub dialect: Dialect,
    pub options: Options,
    pub device_of: &'a dyn Fn(&str) -> Option<HostDevice>,
    decisions: Vec<Decision>,
}

impl Work<'_> {
    /// Reports a decision.
    pub fn say(&mut self, weight: Weight, path: &str, words: impl Into<String>) {
        self.decisions.push(Decision { weight, path: path.to_owned(), words: words.into() });
    }

    /// Reports what is left in an object that has no counterpart today.
    pub fn drop_rest(&mut self, object: &mut Object) {
        for path in object.drain() {
            self.say(Weight::Warning, &path, "is unknown, and was ignored: dropped");
        }
    }
}

/// See [`super::convert`].
pub(super) fn convert(
    config: &[u8],
    runtime: Option<&[u8]>,
    options: Options,
    device_of: &dyn Fn(&str) -> Option<HostDevice>,
) -> Result<Converted> {
    let config = read("config.json", config)?;
    let runtime = runtime.map(|text| read("runtime.json", text)).transpose()?;
    let dialect = detect(&config, runtime.as_ref())
        .ok_or_else(|| invalid("ociVersion", "is 1.0 or later: there is nothing to convert"))?;
    if (Dialect::V010..Dialect::V030).contains(&dialect) && runtime.is_none() {
        let words = format!("a bundle of {dialect} has two files, and runtime.json is absent");
        return Err(
            invalid("runtime.json", words).hint("put the runtime.json back that belongs to this config.json")
        );
    }
    let mut work = Work { dialect, options, device_of, decisions: Vec::new() };
    let mut old = Object::new("", config)?;
    let mut host = Object::new("runtime.json:", runtime.unwrap_or(Value::Null))?;
    let (config, unknown) = current(&mut work, &mut old, &mut host)?;
    let document = with_unknown(&config, unknown, old, host, &mut work);
    Ok(Converted { dialect, config, document, decisions: work.decisions })
}

fn read(name: &str, text: &[u8]) -> Result<Value> {
    let parsed = crate::json::parse(text, CONFIG_LIMIT_BYTES);
    parsed.map_err(|e| invalid(name, "cannot be read").caused_by(e))
}

/// The unknown keys of the sections that have a counterpart.
#[derive(Default)]
struct Unknown {
    process: Map<String, Value>,
    linux: Map<String, Value>,
    resources: Map<String, Value>,
}

fn current(work: &mut Work<'_>, old: &mut Object, host: &mut Object) -> Result<(RuntimeConfig, Unknown)> {
    version(work, old)?;
    let annotations = annotations(work, old)?;
    let mut linux = old.object("linux")?;
    let has_two_files = (Dialect::V010..Dialect::V030).contains(&work.dialect);
    let mut host_linux = if has_two_files { host.object("linux")? } else { Object::new("", Value::Null)? };
    let mut old_process = old.object("process")?;
    let process = if has_two_files {
        process::convert(work, &mut old_process, &mut linux, &mut host_linux)?
    } else {
        // What runtime.json had stands in the same section: the capabilities are set apart to read both at once.
        let mut capabilities = linux.part("capabilities")?;
        process::convert(work, &mut old_process, &mut capabilities, &mut linux)?
    };
    let root = root(old)?;
    let hostname = old.word("hostname")?;
    let mut mounts = mounts::convert(work, old, host)?;
    let hooks = hooks(work, if has_two_files { host } else { old })?;
    let mut unknown = Unknown::default();
    merge(&mut linux, &mut host_linux);
    linux.set_path(if has_two_files { "runtime.json:linux" } else { "linux" });
    let mut linux_now = section(work, &mut linux, &mut unknown)?;
    masks(work, &root, &mut mounts, &mut linux_now);
    other_systems(work, old);
    unknown.process = old_process.rest();
    unknown.linux = linux.rest();
    let mut config = RuntimeConfig {
        oci_version: SPEC_VERSION.to_owned(),
        process: Some(process),
        root: Some(root),
        hostname,
        domainname: None,
        mounts,
        hooks,
        annotations,
        linux: Some(linux_now),
    };
    if work.options.harden {
        harden(work, &mut config);
    }
    Ok((config, unknown))
}

fn version(work: &mut Work<'_>, old: &mut Object) -> Result<()> {
    let (key, stated) = match old.text("ociVersion")? {
        Some(version) => ("ociVersion", version),
        None => ("version", old.text("version")?.unwrap_or_default()),
    };
    let words = format!("{stated:?} is the format {}: written as ociVersion {SPEC_VERSION:?}", work.dialect);
    work.say(Weight::Note, key, words);
    Ok(())
}

fn annotations(work: &mut Work<'_>, old: &mut Object) -> Result<BTreeMap<String, String>> {
    let mut annotations = BTreeMap::new();
    let mut platform = old.object("platform")?;
    let os = platform.word("os")?;
    let architecture = platform.word("arch")?;
    if let Some(os) = os.as_ref().filter(|os| *os != "linux") {
        return Err(invalid("platform.os", format!("is {os:?}, and bale runs Linux containers")));
    }
    if os.is_some() || architecture.is_some() {
        work.say(Weight::Note, "platform", "left the config with 1.0: kept as annotations");
    }
    let here = crate::image::Platform::host().architecture;
    if let Some(other) = architecture.as_ref().filter(|a| **a != here) {
        work.say(Weight::Warning, "platform.arch", format!("is {other:?}, and this machine is {here:?}"));
    }
    annotations.extend(os.map(|os| ("org.opencontainers.image.os".to_owned(), os)));
    annotations.extend(architecture.map(|a| ("org.opencontainers.image.architecture".to_owned(), a)));
    work.drop_rest(&mut platform);
    let path = old.at("annotations");
    for (key, value) in old.object("annotations")?.rest() {
        let Value::String(value) = value else {
            return Err(invalid(&format!("{path}.{key}"), "is no string"));
        };
        annotations.insert(key, value);
    }
    Ok(annotations)
}

fn root(old: &mut Object) -> Result<Root> {
    let mut root = old.object("root")?;
    let path = root.word("path")?.ok_or_else(|| invalid("root.path", "is absent"))?;
    Ok(Root { path, readonly: root.flag("readonly")?.unwrap_or(false) })
}

fn hooks(work: &mut Work<'_>, old: &mut Object) -> Result<Option<Hooks>> {
    let mut section = old.object("hooks")?;
    let path = section.path().to_owned();
    let mut kind = |key: &str| -> Result<Vec<Hook>> {
        let mut hooks = Vec::new();
        for mut entry in section.objects(key)? {
            let at = entry.at("path");
            let hook = Hook {
                path: entry.word("path")?.ok_or_else(|| invalid(&at, "is absent"))?,
                args: entry.texts("args")?,
                env: entry.texts("env")?,
                timeout: entry.fitting::<i64>("timeout")?.filter(|t| *t > 0),
            };
            hooks.push(hook);
        }
        Ok(hooks)
    };
    let hooks = Hooks {
        prestart: kind("prestart")?,
        poststart: kind("poststart")?,
        poststop: kind("poststop")?,
        ..Hooks::default()
    };
    work.drop_rest(&mut section);
    if hooks.is_empty() {
        return Ok(None);
    }
    if work.dialect < Dialect::Rc(5) {
        let words = "the state on a hook's standard input now says \"bundle\" and \"ociVersion\" where it said \
                     \"root\" or \"bundlePath\" and \"version\"";
        work.say(Weight::Warning, &path, words);
    }
    Ok(Some(hooks))
}

/// Puts the keys of runtime.json's section beside those of config.json's.
fn merge(linux: &mut Object, host: &mut Object) {
    for (key, value) in host.take_all() {
        linux.put(&key, value);
    }
}

fn section(work: &mut Work<'_>, old: &mut Object, unknown: &mut Unknown) -> Result<Linux> {
    let devices = devices::convert(work, old)?;
    let mut limits = old.object("resources")?;
    let mut resources = resources::convert(work, &mut limits)?;
    resources.devices = devices::rules(&mut limits)?;
    if !devices.rules.is_empty() {
        resources.devices = devices.rules;
    }
    unknown.resources = limits.rest();
    let namespaces = namespaces(work, old)?;
    let (uid_mappings, gid_mappings, namespaces) = mappings(work, old, namespaces)?;
    let linux = Linux {
        uid_mappings,
        gid_mappings,
        sysctl: texts(old, "sysctl")?,
        resources: Some(resources).filter(|r| *r != Resources::default()),
        cgroups_path: cgroups_path(work, old)?,
        namespaces,
        devices: devices.nodes,
        seccomp: seccomp::convert(work, old)?,
        rootfs_propagation: propagation(work, old)?,
        masked_paths: old.texts("maskedPaths")?,
        readonly_paths: old.texts("readonlyPaths")?,
        mount_label: old.word("mountLabel")?,
        ..Linux::default()
    };
    Ok(linux)
}

fn texts(old: &mut Object, key: &str) -> Result<BTreeMap<String, String>> {
    let path = old.at(key);
    let entries = old.object(key)?.rest().into_iter();
    entries
        .map(|(name, value)| match value {
            Value::String(text) => Ok((name, text)),
            _ => Err(invalid(&format!("{path}.{name}"), "is no string")),
        })
        .collect()
}

fn cgroups_path(work: &mut Work<'_>, old: &mut Object) -> Result<Option<String>> {
    let path = old.at("cgroupsPath");
    let value = old.word("cgroupsPath")?;
    if value.is_some() && work.dialect < Dialect::V030 {
        work.say(Weight::Warning, &path, "had no effect before 0.3.0; today the container is put there");
    }
    Ok(value)
}

fn propagation(work: &Work<'_>, old: &mut Object) -> Result<Option<String>> {
    let value = old.word("rootfsPropagation")?;
    let default = (work.options.faithful && work.dialect < Dialect::V030).then(|| "private".to_owned());
    Ok(value.or(default))
}

fn namespaces(work: &mut Work<'_>, old: &mut Object) -> Result<Vec<Namespace>> {
    let mut kept: Vec<Namespace> = Vec::new();
    for mut entry in old.objects("namespaces")? {
        let path = entry.at("type");
        let name = entry.text("type")?.unwrap_or_default();
        let kind: NamespaceKind = serde_json::from_value(Value::String(name.clone()))
            .map_err(|_| invalid(&path, format!("{name:?} is no kind of namespace")))?;
        let namespace = Namespace { kind, path: entry.word("path")? };
        match kept.iter_mut().find(|n| n.kind == kind) {
            Some(earlier) => {
                work.say(
                    Weight::Warning,
                    &path,
                    format!("{name:?} stands twice: the last one won, and is kept"),
                );
                *earlier = namespace;
            }
            None => kept.push(namespace),
        }
    }
    if !kept.iter().any(|n| n.kind == NamespaceKind::Network) {
        let path = old.at("namespaces");
        work.say(
            Weight::Note,
            &path,
            "no network namespace: the container is on the host's network, as before",
        );
    }
    Ok(kept)
}

type Mapped = (Vec<IdMapping>, Vec<IdMapping>, Vec<Namespace>);

fn mappings(work: &mut Work<'_>, old: &mut Object, mut namespaces: Vec<Namespace>) -> Result<Mapped> {
    let path = old.at("gidMappings");
    let users = ids(old, "uidMappings")?;
    let groups = ids(old, "gidMappings")?;
    let has_namespace = namespaces.iter().any(|n| n.kind == NamespaceKind::User);
    if users.is_empty() && !groups.is_empty() && !has_namespace {
        return Err(
            invalid(&path, "stands without uidMappings").hint("add linux.uidMappings, or remove gidMappings")
        );
    }
    if !users.is_empty() && !has_namespace {
        let words = "implied a user namespace: {\"type\":\"user\"} is added to the namespaces";
        work.say(Weight::Note, &old.at("uidMappings"), words);
        namespaces.push(Namespace { kind: NamespaceKind::User, path: None });
    }
    Ok((users, groups, namespaces))
}

fn ids(old: &mut Object, key: &str) -> Result<Vec<IdMapping>> {
    let mut mappings = Vec::new();
    for mut entry in old.objects(key)? {
        mappings.push(IdMapping {
            container_id: entry.fitting("containerID")?.unwrap_or(0),
            host_id: entry.fitting("hostID")?.unwrap_or(0),
            size: entry.fitting("size")?.unwrap_or(0),
        });
    }
    Ok(mappings)
}

/// What the old runtime hid by itself, before the config said it (0.5.0).
fn masks(work: &mut Work<'_>, root: &Root, mounts: &mut [crate::runtime::Mount], linux: &mut Linux) {
    let (masked, readonly): (&[&str], &[&str]) = match work.dialect {
        Dialect::V040 => (&MASKED_V040, &READONLY_V040),
        older if older < Dialect::V040 && root.readonly => (&MASKED_READONLY_ROOT, &READONLY_READONLY_ROOT),
        older if older < Dialect::V040 => {
            let words = "is false, and then the old runtime masked nothing below /proc: kept so (--harden adds today's masks)";
            return work.say(Weight::Warning, "root.readonly", words);
        }
        _ => return,
    };
    let owned = |paths: &[&str]| paths.iter().map(|&p| p.to_owned()).collect::<Vec<_>>();
    linux.masked_paths.extend(owned(masked));
    linux.readonly_paths.extend(owned(readonly));
    work.say(
        Weight::Note,
        "linux",
        "the old runtime masked some of /proc by itself: written as maskedPaths and readonlyPaths",
    );
    if work.dialect < Dialect::V040 {
        let sysfs = mounts.iter_mut().filter(|m| m.kind.as_deref() == Some("sysfs"));
        for mount in sysfs.filter(|m| !m.options.iter().any(|o| o == "ro")) {
            mount.options.push("ro".to_owned());
        }
    }
}

fn harden(work: &mut Work<'_>, config: &mut RuntimeConfig) {
    if let Some(process) = &mut config.process {
        process.no_new_privileges = true;
    }
    let linux = config.linux.get_or_insert_default();
    for path in
        MASKED_TODAY.into_iter().filter(|p| !linux.masked_paths.iter().any(|m| m == p)).collect::<Vec<_>>()
    {
        linux.masked_paths.push(path.to_owned());
    }
    for path in READONLY_TODAY
        .into_iter()
        .filter(|p| !linux.readonly_paths.iter().any(|m| m == p))
        .collect::<Vec<_>>()
    {
        linux.readonly_paths.push(path.to_owned());
    }
    work.say(Weight::Note, "linux", "hardened: today's masked and read-only paths, and no_new_privs");
}

fn other_systems(work: &mut Work<'_>, old: &mut Object) {
    for key in ["solaris", "windows"] {
        if old.take(key).is_some() {
            work.say(Weight::Warning, key, "is for another system: dropped");
        }
    }
}

/// Puts the keys that nobody knows back at their places: old runtimes ignored them, and so do today's.
fn with_unknown(
    config: &RuntimeConfig,
    unknown: Unknown,
    old: Object,
    host: Object,
    work: &mut Work<'_>,
) -> Value {
    // Plain data always serializes.
    let mut document = serde_json::to_value(config).unwrap_or_default();
    let top = old.rest().into_iter().chain(host.rest()).collect();
    for (pointer, keys) in [
        ("", top),
        ("/process", unknown.process),
        ("/linux", unknown.linux),
        ("/linux/resources", unknown.resources),
    ] {
        keep(&mut document, pointer, keys, work);
    }
    document
}

fn keep(document: &mut Value, pointer: &str, keys: Map<String, Value>, work: &mut Work<'_>) {
    for (key, value) in keys {
        let path = format!("{}.{key}", pointer.replace('/', ".")).trim_start_matches('.').to_owned();
        // A null was "nothing" to Go; a key that the current format gave another meaning must not slip in.
        let taken = document.pointer(pointer).and_then(|o| o.get(&key)).is_some();
        let place = document.pointer_mut(pointer).and_then(Value::as_object_mut);
        match place {
            Some(place) if !value.is_null() && !taken => {
                place.insert(key, value);
                work.say(Weight::Warning, &path, "is unknown, and was ignored: kept as it is");
            }
            _ if value.is_null() => {}
            _ => work.say(Weight::Warning, &path, "is unknown, and was ignored: dropped"),
        }
    }
}
