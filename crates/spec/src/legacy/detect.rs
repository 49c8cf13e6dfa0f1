//! Which dialect a document is, by its shape.

use serde_json::Value;

use super::Dialect;

/// Tells the dialect of a parsed `config.json` and, when there is one, its `runtime.json`; `None` is a current one.
#[must_use]
pub fn detect(config: &Value, runtime: Option<&Value>) -> Option<Dialect> {
    if config.get("ociVersion").is_some() {
        return one_file(config);
    }
    if is_two_files(config) || (runtime.is_some() && config.get("version").is_some()) {
        return Some(two_files(config, runtime.unwrap_or(&Value::Null)));
    }
    config.get("version").is_some().then(|| pre_draft(config))
}

fn is_two_files(config: &Value) -> bool {
    items(config, "/mounts").any(|m| m.get("name").is_some() || m.get("path").is_some())
}

fn pre_draft(config: &Value) -> Dialect {
    let linux_has = |key: &str| config.pointer("/linux").and_then(|l| l.get(key)).is_some();
    let objects = items(config, "/linux/devices").any(Value::is_object);
    let later = ["apparmorProfile", "selinuxProcessLabel", "seccomp"].into_iter().any(linux_has);
    if objects || later { Dialect::PreDraftAugust } else { Dialect::PreDraftJuly }
}

fn two_files(config: &Value, runtime: &Value) -> Dialect {
    let version = config.get("version").and_then(Value::as_str).unwrap_or_default();
    let resources = runtime.pointer("/linux/resources").unwrap_or(&Value::Null);
    let at = |pointer: &str| resources.pointer(pointer);
    if version.starts_with("0.3") {
        return Dialect::V030Dev;
    }
    let limits = resources.get("blockIO").and_then(Value::as_object).into_iter().flatten();
    let text_limits = limits.filter_map(|(_, v)| v.as_array()?.first()).any(Value::is_string);
    if version.starts_with("0.1") || text_limits || at("/blockIO/blkioThrottleReadIopsDevice").is_some() {
        return Dialect::V010;
    }
    let later = ["/network/classID", "/memory/kernelTCP", "/oomScoreAdj"];
    if later.into_iter().any(|p| at(p).is_some()) { Dialect::V020 } else { Dialect::V020Early }
}

fn one_file(config: &Value) -> Option<Dialect> {
    let version = config.get("ociVersion").and_then(Value::as_str).unwrap_or_default();
    let stated = match version {
        v if v.starts_with("0.1.") || v.starts_with("0.2.") || v.starts_with("0.3.") => Some(Dialect::V030),
        v if v.starts_with("0.4.") => Some(Dialect::V040),
        v if v.starts_with("0.5.") || v.starts_with("0.6.") => Some(Dialect::V050),
        v => release_candidate(v).map(Dialect::Rc),
    };
    // A version can be edited without the rest: a shape that 1.0 never had wins.
    stated.or_else(|| shape_before_1_0(config))
}

fn release_candidate(version: &str) -> Option<u8> {
    let rest = version.strip_prefix("1.0.0-rc")?;
    let digits = rest.trim_start_matches('.').split(['-', '.']).next()?;
    digits.parse().ok()
}

fn shape_before_1_0(config: &Value) -> Option<Dialect> {
    if config.pointer("/linux/capabilities").is_some_and(Value::is_array) {
        return Some(Dialect::V030);
    }
    if items(config, "/linux/devices").any(|d| d.get("type").is_some_and(Value::is_number)) {
        return Some(Dialect::V030);
    }
    config.pointer("/process/capabilities").is_some_and(Value::is_array).then_some(Dialect::Rc(4))
}

fn items<'a>(document: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    document.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}
