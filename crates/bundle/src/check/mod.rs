//! What is wrong with a bundle, before the kernel says it in a word: the config against the specification, lints, and
//! the root file system against what the config wants of it.

pub(crate) mod binary;
mod program;
mod rights;
mod view;

use std::path::Path;

use bale_fault::{Fault, Result};
use bale_spec::legacy::{Decision, Options, Weight};
use bale_spec::runtime::RuntimeConfig;
use bale_spec::validate::{self, Finding, Findings, Path as JsonPath, Severity};

use crate::open::{CONFIG, Files, Legacy, RUNTIME};
use view::View;

/// Checks the bundle in the directory `path`, errors first.
///
/// # Errors
/// `NotFound` without directory or `config.json`. What is wrong with the bundle is no failure but a finding.
pub fn check(path: &Path) -> Result<Vec<Finding>> {
    let files = Files::open(path)?;
    // Text that is not JSON has no format; validation says where it breaks.
    let mut found = match files.dialect() {
        Ok(Some(dialect)) => legacy(&Legacy { files, dialect }),
        _ => current(&files),
    };
    found.sort_by_key(|f| f.severity);
    Ok(found)
}

fn current(files: &Files) -> Vec<Finding> {
    let validated = validate::validate(files.config());
    let mut findings = validated.findings;
    if let Some(config) = &validated.config {
        validate::lints(&mut findings, config);
        file_system(&mut findings, files, config);
        if files.runtime().is_some() {
            findings.add(
                Severity::Note,
                "left-over",
                &JsonPath::default(),
                "runtime.json is of a format from before 1.0: nothing reads it",
            );
        }
    }
    findings.located(&String::from_utf8_lossy(files.config()))
}

/// The config as `run` would convert it, and what would bite whoever reads the old values with today's eyes.
fn legacy(bundle: &Legacy) -> Vec<Finding> {
    let mut whole = Findings::default();
    let root = JsonPath::default();
    whole.add(
        Severity::Note,
        "legacy",
        &root,
        format!("the bundle is in the format {}: `bale run` converts it in memory", bundle.dialect),
    );
    whole.hint(format!(
        "bale upgrade {} writes today's format and keeps the originals",
        bundle.files.path().display()
    ));
    let converted = match bundle.convert(Options::default()) {
        Ok(converted) => converted,
        Err(fault) => {
            whole.error("legacy", &root, fault.chain());
            return whole.without_places();
        }
    };
    let mut found = whole.without_places();
    found.extend(decisions(&bundle.files, &converted.decisions));
    let mut findings = Findings::default();
    validate::lints(&mut findings, &converted.config);
    file_system(&mut findings, &bundle.files, &converted.config);
    found.extend(findings.without_places());
    found
}

/// The decisions of a conversion with their places in the two old files.
fn decisions(files: &Files, decisions: &[Decision]) -> Vec<Finding> {
    let (mut first, mut second) = (Findings::default(), Findings::default());
    for decision in decisions {
        let in_second = decision.path.strip_prefix("runtime.json:");
        let (list, text) = match in_second {
            Some(path) => (&mut second, path),
            None => (&mut first, decision.path.as_str()),
        };
        let path = JsonPath::parse(text.trim()).unwrap_or_default();
        match trap(text) {
            Some((code, words)) => list.warning(code, &path, words),
            None => {
                let severity =
                    if decision.weight == Weight::Warning { Severity::Warning } else { Severity::Note };
                list.add(severity, "converted", &path, decision.words.clone());
            }
        }
    }
    let of = |list: Findings, text: Option<&[u8]>, file| {
        let text = String::from_utf8_lossy(text.unwrap_or_default()).into_owned();
        list.located(&text).into_iter().map(move |finding| Finding { file, ..finding })
    };
    of(first, Some(files.config()), CONFIG).chain(of(second, files.runtime(), RUNTIME)).collect()
}

/// Values that meant "unset" then and stop a container now.
fn trap(path: &str) -> Option<(&'static str, &'static str)> {
    match path {
        p if p.ends_with("pids.limit") => Some((
            "pids-limit-zero",
            "0 meant no limit; since runtime-spec 1.3 it is one: copied into a new config, no thread can be started",
        )),
        "process.cwd" => Some(("cwd", "is not absolute: every runtime since 1.0 refuses it (it meant /)")),
        _ => None,
    }
}

/// What the config wants of the root file system and of the host.
fn file_system(findings: &mut Findings, files: &Files, config: &RuntimeConfig) {
    let Some(root) = config.root.as_ref().filter(|r| !r.path.is_empty()) else { return };
    let at = JsonPath::of("root.path");
    if root.path.starts_with('/') {
        findings.add(
            Severity::Note,
            "absolute-rootfs",
            &at,
            "is absolute: the bundle cannot be moved to another host",
        );
    }
    let rootfs = match files.rootfs(&root.path) {
        Ok(rootfs) => rootfs,
        Err(fault) => {
            findings.error("rootfs", &at, fault.chain());
            findings.hint(fault.innermost_hint().unwrap_or("make the directory and fill it").to_owned());
            return;
        }
    };
    match view::is_empty(&rootfs) {
        Ok(true) => {
            findings.error("rootfs-empty", &at, format!("{:?} is empty", root.path));
            findings.hint("unpack an image into it: bale bundle IMAGE DIR makes a whole bundle");
            return;
        }
        Ok(false) => {}
        Err(error) => findings.error("rootfs", &at, Fault::from(error).chain()),
    }
    let view = View::new(files, rootfs, config);
    view::binds(findings, files, config);
    if let Some(process) = &config.process {
        program::check(findings, &view, process);
        rights::check(findings, &view, process, root.readonly);
    }
}

#[cfg(test)]
mod tests;
