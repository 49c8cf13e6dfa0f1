//! The machine before and after: what a command must leave as it found it.
//!
//! ```text
//! let scope = Scope::below(bale.dir());
//! let before = Snapshot::take(&scope);
//! bale.fails(125, ["run", "no-such-image"]);
//! before.assert_same(&scope);
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What a snapshot looks at.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Only processes and mounts that name this folder; all of them when `None`.
    below: Option<PathBuf>,
    /// Folders whose whole content is compared, by name, type and size.
    trees: Vec<PathBuf>,
    /// Folders of which only the direct entries are compared.
    folders: Vec<PathBuf>,
    /// Only cgroups at or below one of this name; with `None` all that have `bale` in their path.
    cgroup: Option<&'static str>,
    /// The cgroup named so is what containers of many tests share.
    parent_stays: bool,
    /// Only cgroups of these containers; all where nobody said which.
    containers: Option<BTreeSet<String>>,
}

impl Scope {
    /// Looks at the whole machine: for a test that runs alone, and for the demo.
    #[must_use]
    pub fn machine() -> Self {
        let folders = ["/tmp", "/run", "/var/lib", "/run/bale", "/var/lib/bale"].map(PathBuf::from);
        Self { folders: folders.to_vec(), ..Self::default() }
    }

    /// Looks at what has to do with the folder `dir`, so that other tests may run at the same time.
    #[must_use]
    pub fn below(dir: &Path) -> Self {
        Self { below: Some(dir.to_owned()), ..Self::default() }
    }

    fn wants_cgroup(&self, path: &Path) -> bool {
        if let Some(ids) = &self.containers
            && !path.iter().any(|part| part.to_str().is_some_and(|part| ids.contains(part)))
        {
            return false;
        }
        match self.cgroup {
            Some(name) => path.iter().any(|part| part == name),
            None => path.to_string_lossy().contains("bale"),
        }
    }

    /// Adds a folder whose whole content is compared.
    #[must_use]
    pub fn tree(mut self, dir: &Path) -> Self {
        self.trees.push(dir.to_owned());
        self
    }

    /// Looks only at cgroups named `name` and at those below them.
    #[must_use]
    pub fn cgroups_of(mut self, name: &'static str) -> Self {
        self.cgroup = Some(name);
        self
    }

    /// Looks only at cgroups below one named `name`, which stays for the tests that come next.
    #[must_use]
    pub fn cgroups_below(mut self, name: &'static str) -> Self {
        self.parent_stays = true;
        self.cgroups_of(name)
    }

    /// Looks only at cgroups of containers with these ids, which may be none: others on the machine have theirs in the
    /// same place.
    #[must_use]
    pub fn containers(mut self, ids: impl IntoIterator<Item = String>) -> Self {
        self.containers.get_or_insert_default().extend(ids);
        self
    }

    /// Adds a folder of which the direct entries are compared.
    #[must_use]
    pub fn folder(mut self, dir: &Path) -> Self {
        self.folders.push(dir.to_owned());
        self
    }
}

/// What there is: each item is a line for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    items: BTreeSet<String>,
    /// Other tests run at the same time.
    is_shared: bool,
}

impl Snapshot {
    /// Looks at mounts, cgroups, processes and files.
    #[must_use]
    pub fn take(scope: &Scope) -> Self {
        let mut items = BTreeSet::new();
        items.extend(mounts(scope));
        items.extend(processes(scope));
        items.extend(cgroups(scope));
        for dir in &scope.folders {
            items.extend(entries(dir, false));
        }
        for dir in &scope.trees {
            items.extend(entries(dir, true));
        }
        Self { items, is_shared: scope.below.is_some() }
    }

    /// Returns what `after` has and this has not (`+ …`), and what this has and `after` has not (`- …`).
    ///
    /// Below a folder, while other tests run, a cgroup that is gone was another test's.
    #[must_use]
    pub fn changes(&self, after: &Self) -> Vec<String> {
        let mine = |item: &&String| !(after.is_shared && item.starts_with("cgroup "));
        let new = after.items.difference(&self.items).map(|item| format!("+ {item}"));
        let lost = self.items.difference(&after.items).filter(mine).map(|item| format!("- {item}"));
        new.chain(lost).collect()
    }

    /// Looks again until nothing has changed, for at most ten seconds: the kernel ends processes and unmounts in its
    /// own time, and other tests make and remove what is theirs. Returns what differed all that time.
    #[must_use]
    pub fn changes_until_settled(&self, scope: &Scope) -> Vec<String> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut lasting = self.changes(&Self::take(scope));
        while !lasting.is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
            let now = self.changes(&Self::take(scope));
            lasting.retain(|change| now.contains(change));
        }
        lasting
    }

    /// Wants the machine to be as it was.
    ///
    /// # Panics
    /// With what differs.
    #[track_caller]
    pub fn assert_same(&self, scope: &Scope) {
        let changes = self.changes_until_settled(scope);
        assert!(changes.is_empty(), "the machine is not as it was:\n  {}", changes.join("\n  "));
    }

    /// Wants nothing to be there that was not there before. What other tests make and take away meanwhile does not
    /// count: it must stay for two seconds.
    ///
    /// # Panics
    /// With what is new.
    #[track_caller]
    pub fn assert_nothing_left(&self, scope: &Scope, when: &str) {
        let left: Vec<String> = self.changes_until_settled(scope);
        let left: Vec<&String> = left.iter().filter(|change| change.starts_with('+')).collect();
        assert!(left.is_empty(), "left behind {when}:\n  {left:#?}");
    }

    /// Counts the items of a kind: `mount`, `cgroup`, `process` or `file`.
    #[must_use]
    pub fn count(&self, kind: &str) -> usize {
        self.items.iter().filter(|item| item.split(' ').next() == Some(kind)).count()
    }
}

/// Returns the mount points at or below `path`, in the order of the mount table.
///
/// # Errors
/// When `/proc/self/mountinfo` cannot be read.
pub fn mounts_below(path: &Path) -> io::Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescaped);
    Ok(points.filter(|point| point.starts_with(path)).collect())
}

/// Undoes the kernel's `\040` for a space, and its like.
fn unescaped(text: &str) -> PathBuf {
    let mut path = text.to_owned();
    for (escape, plain) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        path = path.replace(escape, plain);
    }
    PathBuf::from(path)
}

fn mounts(scope: &Scope) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let wanted = |line: &&str| scope.below.as_ref().is_none_or(|dir| line.contains(&*dir.to_string_lossy()));
    let shown = |line: &str| {
        let fields: Vec<&str> = line.split(' ').collect();
        let kind = line.split(" - ").nth(1).unwrap_or_default();
        format!("mount {} ({kind})", fields.get(4).unwrap_or(&"?"))
    };
    table.lines().filter(wanted).map(shown).collect()
}

/// Lists processes by pid and start time, without kernel threads and without the caller and its children.
fn processes(scope: &Scope) -> Vec<String> {
    let own_mounts = fs::read_link("/proc/self/ns/mnt").ok();
    let mut lines = Vec::new();
    for pid in numbers("/proc") {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let Some((name, parent, started)) = stat(&proc) else { continue };
        let me = std::process::id();
        if pid == me || parent == me && scope.below.is_none() || pid == 2 || parent == 2 {
            continue;
        }
        let line = fs::read(proc.join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if scope.below.as_ref().is_none_or(|dir| names(&proc, &line, dir, own_mounts.as_deref())) {
            lines.push(format!("process {pid} started at tick {started}: ({name}) {}", line.trim_end()));
        }
    }
    lines
}

/// Tells whether a process has to do with `dir`: by its command line, its program, its working directory, or, when it
/// has mounts of its own, by what is mounted there (a container's overlay names its layers).
fn names(proc: &Path, line: &str, dir: &Path, own_mounts: Option<&Path>) -> bool {
    let text = dir.to_string_lossy();
    let linked = |name: &str| fs::read_link(proc.join(name)).is_ok_and(|target| target.starts_with(dir));
    if line.contains(&*text) || linked("exe") || linked("cwd") {
        return true;
    }
    let mounts = fs::read_link(proc.join("ns/mnt")).ok();
    mounts.as_deref() != own_mounts
        && fs::read_to_string(proc.join("mountinfo")).is_ok_and(|table| table.contains(&*text))
}

/// Returns name, parent and start time of a process; `None` for one that has ended or is a zombie.
fn stat(proc: &Path) -> Option<(String, u32, u64)> {
    let text = fs::read_to_string(proc.join("stat")).ok()?;
    let (head, tail) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = tail.split(' ').collect();
    if fields.first() == Some(&"Z") {
        return None;
    }
    let name = head.split_once('(')?.1.to_owned();
    Some((name, fields.get(1)?.parse().ok()?, fields.get(19)?.parse().ok()?))
}

fn numbers(dir: &str) -> Vec<u32> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Lists the cgroups that `bale` has made. With a folder as scope only those count that no other container uses.
fn cgroups(scope: &Scope) -> Vec<String> {
    let mut found = Vec::new();
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for line in table.lines() {
        let kind = line.split(" - ").nth(1).unwrap_or_default();
        if kind.starts_with("cgroup")
            && let Some(point) = line.split(' ').nth(4)
        {
            cgroups_below(&unescaped(point), scope, 0, &mut found);
        }
    }
    found
}

fn cgroups_below(dir: &Path, scope: &Scope, depth: usize, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if depth > 8 || !entry.file_type().is_ok_and(|t| t.is_dir()) {
            continue;
        }
        let path = entry.path();
        // What all containers share, all supervisors, and all of a suite's containers, stays for the next.
        let is_shared = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| {
            name == "bale" || name == "supervisors" || scope.parent_stays && scope.cgroup == Some(name)
        });
        let counts = scope.below.is_none() || !is_shared && is_unused(&path);
        if scope.wants_cgroup(&path) && counts {
            found.push(format!("cgroup {}", path.display()));
        }
        cgroups_below(&path, scope, depth + 1, found);
    }
}

/// Tells whether neither processes nor children keep a cgroup: what an ended container must not leave.
fn is_unused(cgroup: &Path) -> bool {
    let children = fs::read_dir(cgroup).into_iter().flatten().flatten();
    let has_child = children.into_iter().any(|entry| entry.file_type().is_ok_and(|t| t.is_dir()));
    !has_child && fs::read_to_string(cgroup.join("cgroup.procs")).is_ok_and(|procs| procs.trim().is_empty())
}

fn entries(dir: &Path, deep: bool) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.path().symlink_metadata() else { continue };
        let kind = if metadata.is_dir() { "folder" } else { "plain or special" };
        let size = if metadata.is_file() && deep { metadata.len() } else { 0 };
        lines.push(format!("file {} ({kind}, {size} bytes)", entry.path().display()));
        if deep && metadata.is_dir() {
            lines.extend(entries(&entry.path(), true));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scratch;
    use std::process::{Command, Stdio};

    #[test]
    fn what_is_new_and_what_is_lost_is_named() {
        let scratch = Scratch::new("machine");
        let scope = Scope::below(scratch.path()).tree(scratch.path());
        fs::write(scratch.join("old"), "").expect("write");
        let before = Snapshot::take(&scope);
        before.assert_same(&scope);
        fs::remove_file(scratch.join("old")).expect("remove");
        fs::write(scratch.join("new"), "").expect("write");
        let mut child = Command::new("sleep")
            .arg("60")
            .current_dir(scratch.path())
            .stdin(Stdio::null())
            .spawn()
            .expect("sleep");
        let changes = before.changes(&Snapshot::take(&scope)).join("\n");
        child.kill().expect("kill");
        child.wait().expect("wait");
        assert!(
            changes.contains("/new ") && changes.contains("- file") && changes.contains("(sleep) sleep 60"),
            "{changes}"
        );
    }
}
