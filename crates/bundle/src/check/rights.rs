//! Who may do what: the working directory, and the way to it.

use bale_spec::options::mount::clean;
use bale_spec::runtime::Process;
use bale_spec::validate::{Findings, Path, Severity};
use rustix::fs::Stat;

use super::view::{Found, View, is_directory};

/// Permission bits of one class.
pub(super) const EXECUTE: u32 = 1;
pub(super) const WRITE: u32 = 2;

/// Tells whether the process may do `wanted` with a file, as the kernel decides by mode bits.
pub(super) fn may(process: &Process, stat: &Stat, wanted: u32) -> bool {
    let mode = stat.st_mode;
    let user = &process.user;
    if overrides(process) {
        // Even for root a file is executable only when somebody may execute it.
        return wanted != EXECUTE || is_directory(stat) || mode & 0o111 != 0;
    }
    let class = if stat.st_uid == user.uid {
        mode >> 6
    } else if stat.st_gid == user.gid || user.additional_gids.contains(&stat.st_gid) {
        mode >> 3
    } else {
        mode
    };
    class & wanted == wanted
}

/// Root keeps CAP_DAC_OVERRIDE; another user loses it at execve unless it is ambient.
fn overrides(process: &Process) -> bool {
    let Some(sets) = &process.capabilities else { return process.user.uid == 0 };
    let set = if process.user.uid == 0 { &sets.bounding } else { &sets.ambient };
    set.iter().any(|c| c == "CAP_DAC_OVERRIDE")
}

/// Returns the first directory on the way to `path` that the process may not enter.
pub(super) fn blocked(view: &View<'_>, process: &Process, path: &str) -> Option<String> {
    let path = clean(path);
    let ends = path.match_indices('/').map(|(at, _)| at.max(1));
    ends.map(|end| path[..end].to_owned()).find(|parent| match view.open(parent, false) {
        Found::There(_, stat) => is_directory(&stat) && !may(process, &stat, EXECUTE),
        _ => false,
    })
}

pub(super) fn check(findings: &mut Findings, view: &View<'_>, process: &Process, readonly: bool) {
    let at = Path::of("process.cwd");
    let cwd = process.cwd.as_str();
    if !cwd.starts_with('/') {
        return;
    }
    let user = process.user.uid;
    match view.open(cwd, false) {
        Found::Unknown => {}
        Found::Missing(_) if user == 0 || view.mapped => {
            findings.add(
                Severity::Note,
                "cwd-missing",
                &at,
                format!("{cwd:?} does not exist: runtimes make it"),
            );
        }
        Found::Missing(_) => {
            let words = format!(
                "{cwd:?} does not exist: runtimes make it for root, and uid {user} cannot write there"
            );
            findings.warning("cwd-not-writable", &at, words);
        }
        Found::There(_, stat) if !is_directory(&stat) => {
            findings.error("cwd", &at, format!("{cwd:?} is not a directory"));
        }
        Found::There(..) if view.mapped => {}
        Found::There(_, stat) => {
            if let Some(parent) = blocked(view, process, &format!("{}/x", cwd.trim_end_matches('/'))) {
                findings.error("cwd", &at, format!("uid {user} may not enter {parent:?}"));
            } else if !may(process, &stat, WRITE) {
                not_writable(findings, process, &at);
            } else if readonly && cwd != "/" && !view.is_mounted(cwd) {
                let words = format!("{cwd:?} is on the read-only root file system");
                findings.add(Severity::Note, "cwd-read-only", &at, words);
            }
        }
    }
}

fn not_writable(findings: &mut Findings, process: &Process, at: &Path) {
    let (user, cwd) = (process.user.uid, &process.cwd);
    let program = process.args.first().map(String::as_str).unwrap_or_default();
    let redis = program.rsplit('/').next() == Some("redis-server");
    let more = if redis { ": redis cannot save dump.rdb there and then refuses writes" } else { "" };
    findings.warning(
        "cwd-not-writable",
        at,
        format!("uid {user} cannot write its working directory {cwd:?}{more}"),
    );
    findings.hint(
        "name another with process.cwd, mount one over it (mounts+=/data,type=tmpfs), or change its owner",
    );
}
