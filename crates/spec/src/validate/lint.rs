//! What is legal and bites, as far as the config alone tells.

use super::{Findings, Path, Severity};
use crate::runtime::{Linux, NamespaceKind, Process, RuntimeConfig};

/// A soft limit of open files that servers find too small: redis wants 10032 and takes fewer clients without.
const FEW_FILES: u64 = 1024;

pub(crate) fn lints(findings: &mut Findings, config: &RuntimeConfig) {
    let default = Linux::default();
    let linux = config.linux.as_ref().unwrap_or(&default);
    older_than_its_properties(findings, config);
    limits(findings, config, linux);
    exposure(findings, config, linux);
    if let Some(process) = &config.process {
        rights(findings, process, linux);
    }
}

/// A runtime may go by the version and leave out what it had not yet.
fn older_than_its_properties(findings: &mut Findings, config: &RuntimeConfig) {
    let numbers = |version: &str| -> Vec<u32> {
        let core = version.split(['-', '+']).next().unwrap_or_default();
        core.split('.').filter_map(|n| n.parse().ok()).collect()
    };
    let stated = numbers(&config.oci_version);
    let newer = config.needs().into_iter().filter(|need| numbers(need.since) > stated);
    // A pids.limit of 0 is a trap in every version: it has a lint of its own.
    for need in newer.filter(|need| need.path != Path::of("linux.resources.pids.limit")) {
        let words = format!("is new in {}, and ociVersion says {:?}", need.since, config.oci_version);
        findings.add(Severity::Note, "newer-than-version", &need.path, words);
        findings.hint(format!("bale set DIR ociVersion={}", config.lowest_version()));
    }
}

fn limits(findings: &mut Findings, config: &RuntimeConfig, linux: &Linux) {
    let pids = linux.resources.as_ref().and_then(|r| r.pids.as_ref()).and_then(|p| p.limit);
    if pids == Some(0) {
        let at = Path::of("linux.resources.pids.limit");
        findings.warning("pids-limit-zero", &at, "0 is a real limit since runtime-spec 1.3: runc 1.4 and later allow one process, so no thread can be started");
        findings.hint("bale set DIR linux.resources.pids.limit=-1 (unlimited)");
    }
    let rlimits = config.process.as_ref().map(|p| p.rlimits.as_slice()).unwrap_or_default();
    for (index, limit) in rlimits.iter().enumerate() {
        if limit.kind == "RLIMIT_NOFILE" && limit.soft <= FEW_FILES {
            let at = Path::of("process.rlimits").index(index);
            findings.add(
                Severity::Note,
                "few-files",
                &at,
                format!("a process may open {} files: servers want more (redis 10032)", limit.soft),
            );
        }
    }
}

fn exposure(findings: &mut Findings, config: &RuntimeConfig, linux: &Linux) {
    let own = |kind| linux.namespaces.iter().any(|n| n.kind == kind);
    let proc_mounted = config.mounts.iter().any(|m| m.kind.as_deref() == Some("proc"));
    if linux.masked_paths.is_empty() && linux.readonly_paths.is_empty() && proc_mounted {
        let at = Path::of("linux.maskedPaths");
        findings.warning("no-masked-paths", &at, "nothing of /proc and /sys is masked or read-only: root in the container can change the host's kernel parameters");
        findings.hint("bale upgrade --harden DIR for an old bundle, or the lists of `bale spec`");
    }
    if linux.seccomp.is_none() {
        findings.add(
            Severity::Note,
            "no-seccomp",
            &Path::of("linux.seccomp"),
            "there is no system call filter",
        );
    }
    if !own(NamespaceKind::Network) {
        let at = Path::of("linux.namespaces");
        findings.add(
            Severity::Note,
            "host-network",
            &at,
            "no network namespace: the container's ports are the host's, and two copies cannot share one",
        );
    }
    for (kind, word) in [(NamespaceKind::Pid, "pid"), (NamespaceKind::Ipc, "ipc")] {
        if !own(kind) {
            let at = Path::of("linux.namespaces");
            findings.warning(
                "host-namespace",
                &at,
                format!("no {word} namespace: the container sees and reaches the host's"),
            );
        }
    }
}

fn rights(findings: &mut Findings, process: &Process, linux: &Linux) {
    let Some(sets) = &process.capabilities else { return };
    let at = Path::of("process.capabilities");
    if !sets.inheritable.is_empty() {
        findings.warning(
            "inheritable",
            &at.key("inheritable"),
            "is not empty: files with capabilities raise them for any user (CVE-2022-24769)",
        );
        findings.hint("bale set DIR 'process.capabilities.inheritable=[]'");
    }
    let mapped = linux.namespaces.iter().any(|n| n.kind == NamespaceKind::User);
    for name in ["CAP_SYS_ADMIN", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"]
    {
        if let Some(index) = sets.bounding.iter().position(|c| c == name)
            && !mapped
        {
            findings.warning(
                "strong-capability",
                &at.key("bounding").index(index),
                format!("{name} is nearly root on the host"),
            );
        }
    }
    if !process.no_new_privileges && process.user.uid != 0 {
        findings.add(
            Severity::Note,
            "new-privileges",
            &Path::of("process.noNewPrivileges"),
            "set-user-id programs can make this process root in the container",
        );
    }
}
