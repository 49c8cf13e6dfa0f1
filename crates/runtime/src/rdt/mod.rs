//! Intel RDT: the container's group in a mounted resctrl file system (runtime-spec config-linux.md, "IntelRdt").
//!
//! ```text
//! <resctrl>/<closID or container id>/schemata                     what the group may use
//! <resctrl>/<closID or container id>/tasks                        who is in it
//! <resctrl>/<closID or container id>/mon_groups/<container id>/   what this container alone uses
//! ```
//! Processes write `0` to `tasks` themselves, as they do for cgroups. Tests give a plain directory in place of the
//! mount: it shows which files get what, not what the kernel makes of it.

mod stats;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bale_fault::{Context, Fault, Kind, Result};
use bale_spec::runtime::IntelRdt;
use bale_sys::error::Call;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::plan::invalid;
pub use stats::RdtStats;

const MOUNT: &str = "/sys/fs/resctrl";
/// `RDTGROUP_SUPER_MAGIC` (linux/magic.h).
const MAGIC: u64 = 0x0765_5821;
/// The largest file of resctrl that is read, in bytes.
const LIMIT_BYTES: usize = 1 << 20;

/// Returns where resctrl is mounted.
pub fn mount() -> Option<PathBuf> {
    let stat = rustix::fs::statfs(MOUNT).ok()?;
    if u64::try_from(stat.f_type).is_ok_and(|kind| kind == MAGIC) {
        return Some(PathBuf::from(MOUNT));
    }
    let text = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line =
        text.lines().find(|line| line.split(" - ").nth(1).is_some_and(|l| l.starts_with("resctrl ")))?;
    line.split(' ').nth(4).map(PathBuf::from)
}

/// What a config asks for, decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The group's directory.
    pub path: PathBuf,
    /// The config names it: it is others' too, and stays.
    pub named: bool,
    /// Lines for `schemata`, in order.
    pub schemata: Vec<String>,
    /// The directory of a monitoring group.
    pub monitor: Option<PathBuf>,
}

/// A group as the record keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Group {
    /// Its directory.
    pub path: PathBuf,
    /// It is removed with the container.
    #[serde(default)]
    pub own: bool,
    /// The directory of its monitoring group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitor: Option<PathBuf>,
}

/// Decides where the container `id` goes, `root` being where resctrl is mounted.
///
/// # Errors
/// `InvalidInput` with the field, `Unsupported` without resctrl.
pub fn read(config: &IntelRdt, id: &str, root: Option<&Path>) -> Result<Wanted> {
    let Some(root) = root else {
        let words =
            "config.json: linux.intelRdt: Intel RDT is not enabled: no resctrl file system is mounted";
        return Err(Fault::new(Kind::Unsupported, words)
            .hint("on a processor that has it: mount -t resctrl resctrl /sys/fs/resctrl"));
    };
    let name = config.clos_id.as_deref().filter(|name| !name.is_empty());
    let path = match name {
        Some("/") => root.to_owned(),
        Some(name) if matches!(name, "." | "..") || name.contains(['/', '\0', '\n']) => {
            return Err(invalid("linux.intelRdt.closID", &format!("{name:?} is no name of a class")));
        }
        other => root.join(other.unwrap_or(id)),
    };
    let monitor = config.enable_monitoring.then(|| path.join("mon_groups").join(id));
    Ok(Wanted { path, named: name.is_some(), schemata: schemata(config)?, monitor })
}

/// The order is the specification's.
fn schemata(config: &IntelRdt) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    let mut add = |field: &str, line: &str, start: &str| {
        if line.contains('\n') {
            return Err(invalid(field, "holds a newline"));
        }
        if !line.is_empty() {
            if !line.starts_with(start) {
                return Err(invalid(field, &format!("{line:?} does not begin with {start}")));
            }
            lines.push(line.to_owned());
        }
        Ok(())
    };
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    // It SHOULD begin with "L3:": code and data alone are L3CODE and L3DATA.
    add("linux.intelRdt.l3CacheSchema", &text(&config.l3_cache_schema), "L3")?;
    add("linux.intelRdt.memBwSchema", &text(&config.mem_bw_schema), "MB:")?;
    for (index, line) in config.schemata.iter().enumerate() {
        add(&format!("linux.intelRdt.schemata[{index}]"), line, "")?;
    }
    Ok(lines)
}

impl Wanted {
    /// Returns the group, without a look at what is there.
    pub(crate) fn group(&self) -> Group {
        Group { path: self.path.clone(), own: false, monitor: self.monitor.clone() }
    }
}

impl Group {
    /// What the record says of a group before it is made.
    pub fn of(wanted: &Wanted) -> Self {
        Self { own: !wanted.named && !wanted.path.exists(), ..wanted.group() }
    }

    /// Makes it and writes its limits.
    pub fn make(&self, wanted: &Wanted) -> Result<()> {
        let exists = wanted.path.is_dir();
        if wanted.named && wanted.schemata.is_empty() && !exists {
            let words = format!("config.json: linux.intelRdt.closID: {:?} does not exist", wanted.path);
            return Err(Fault::new(Kind::NotFound, words)
                .hint("make the class first, or give its schemata in linux.intelRdt.schemata"));
        }
        self.make_directory(&wanted.path)?;
        if wanted.named && exists && !wanted.schemata.is_empty() {
            compare(&wanted.schemata, &read_file(&wanted.path.join("schemata"))?)?;
        } else {
            self.limit(&wanted.schemata)?;
        }
        wanted.monitor.as_deref().map_or(Ok(()), |monitor| self.make_directory(monitor))
    }

    fn make_directory(&self, path: &Path) -> Result<()> {
        match rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(self.explained(bale_sys::Error::new(format!("mkdir({path:?})"), errno).into())),
        }
    }

    /// Writes lines to `schemata`.
    pub fn limit(&self, lines: &[String]) -> Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let path = self.path.join("schemata");
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let written = open(&path).and_then(|fd| {
            let written = rustix::io::write(&fd, text.as_bytes());
            written.call(|| format!("write({path:?}, {text:?})")).map_err(Fault::from)
        });
        written.map(drop).map_err(|fault| self.explained(fault))
    }

    /// The files that a process writes `0` to.
    pub fn tasks(&self) -> impl Iterator<Item = PathBuf> {
        std::iter::once(&self.path).chain(&self.monitor).map(|path| path.join("tasks"))
    }

    /// Adds what the kernel says of the last failure.
    fn explained(&self, fault: Fault) -> Fault {
        let above = self.path.ancestors().find_map(|dir| read_file(&dir.join("info/last_cmd_status")).ok());
        match above.as_deref().map(str::trim).filter(|status| !status.is_empty() && *status != "ok") {
            Some(status) => fault.within(format!("resctrl says {status:?}")),
            None => fault,
        }
    }

    /// Removes what is the container's own. What is gone is no error.
    pub fn remove(&self) -> Result<()> {
        let own = self.own.then_some(&self.path);
        for path in self.monitor.iter().chain(own) {
            match rustix::fs::rmdir(path) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(bale_sys::Error::new(format!("rmdir({path:?})"), errno).into()),
            }
        }
        Ok(())
    }

    /// Changes the schemata of a running container (`update`).
    pub fn update(&self, l3_cache: Option<&str>, mem_bw: Option<&str>) -> Result<()> {
        let given = |line: Option<&str>| line.map(ToOwned::to_owned);
        let config = IntelRdt {
            l3_cache_schema: given(l3_cache),
            mem_bw_schema: given(mem_bw),
            ..IntelRdt::default()
        };
        self.limit(&schemata(&config)?)
    }

    /// Returns what it may use and uses.
    pub fn stats(&self) -> Result<RdtStats> {
        let root = mount().ok_or_else(|| Fault::new(Kind::Unsupported, "resctrl is not mounted any more"))?;
        stats::read(&root, self)
    }
}

/// Opens a file to write. `O_CREAT` makes nothing in resctrl, where it is refused.
pub fn open(path: &Path) -> Result<std::os::fd::OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::open(path, flags, Mode::from_raw_mode(0o600))
        .call(|| format!("open({path:?})"))
        .map_err(Fault::from)
}

fn read_file(path: &Path) -> Result<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd = rustix::fs::open(path, flags, Mode::empty()).call(|| format!("open({path:?})"))?;
    let text = bale_sys::file::read_fd_bounded(fd, &path.to_string_lossy(), LIMIT_BYTES)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Wants a class that others made to have what this container asks for.
fn compare(wanted: &[String], there: &str) -> Result<()> {
    let there: Vec<_> = there.lines().filter_map(parts).collect();
    for line in wanted {
        let bad = || invalid("linux.intelRdt", &format!("{line:?} is no line of schemata"));
        let (resource, values) = parts(line).ok_or_else(bad)?;
        let found = there.iter().find(|(name, _)| *name == resource).map(|(_, values)| values);
        let same = found.is_some_and(|found| values.iter().all(|(id, value)| found.get(id) == Some(value)));
        if !same {
            let words =
                format!("the class has a different configuration for {resource}: {line:?} was asked for");
            return Err(invalid("linux.intelRdt.closID", &words)).within(|| "compare schemata");
        }
    }
    Ok(())
}

/// Cuts `L3:0=ff;1=0f` up; values without leading zeros.
fn parts(line: &str) -> Option<(&str, BTreeMap<u32, String>)> {
    let (resource, values) = line.trim().split_once(':')?;
    let pair = |pair: &str| {
        let (id, value) = pair.split_once('=')?;
        let value = value.trim().trim_start_matches('0').to_ascii_lowercase();
        Some((id.trim().parse().ok()?, value))
    };
    let values = values.split(';').filter(|part| !part.trim().is_empty()).map(pair);
    Some((resource.trim(), values.collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(clos_id: &str, schemata: &[&str]) -> IntelRdt {
        IntelRdt {
            clos_id: Some(clos_id.to_owned()),
            schemata: schemata.iter().map(|&s| s.to_owned()).collect(),
            ..IntelRdt::default()
        }
    }

    #[test]
    fn a_group_of_the_containers_own_is_made_and_removed() {
        let root = bale_testkit::Scratch::new("rdt");
        let mut asked = config("", &["L2:0=f"]);
        asked.l3_cache_schema = Some("L3:0=7f0;1=1f".to_owned());
        asked.mem_bw_schema = Some("MB:0=20;1=70".to_owned());
        let wanted = read(&asked, "web", Some(root.path())).unwrap();
        let group = Group::of(&wanted);
        assert!(group.own && !wanted.named);
        group.make(&wanted).unwrap();
        let written = std::fs::read_to_string(root.join("web/schemata")).unwrap();
        assert_eq!(written, "L3:0=7f0;1=1f\nMB:0=20;1=70\nL2:0=f\n");
        group.update(None, Some("MB:0=30")).unwrap();
        assert!(group.update(Some("MB:0=1"), None).is_err());
        std::fs::remove_file(root.join("web/schemata")).unwrap();
        group.remove().unwrap();
        group.remove().unwrap();
        assert!(!root.join("web").exists());
    }

    #[test]
    fn a_named_class_is_others_too() {
        let root = bale_testkit::Scratch::new("rdt");
        let make = |asked: &IntelRdt| {
            let wanted = read(asked, "web", Some(root.path()))?;
            let group = Group::of(&wanted);
            group.make(&wanted).map(|()| group)
        };
        // Without limits it has to be there.
        assert!(make(&config("gold", &[])).unwrap_err().chain().contains("linux.intelRdt.closID"));
        assert!(!root.join("gold").exists());
        let group = make(&config("gold", &["L3:0=0f;1=ff"])).unwrap();
        assert!(!group.own);
        assert_eq!(std::fs::read_to_string(root.join("gold/schemata")).unwrap(), "L3:0=0f;1=ff\n");
        // The kernel writes it in its own way.
        std::fs::write(root.join("gold/schemata"), "    MB:0=100;1=100\n    L3:0=f;1=ff\n").unwrap();
        for same in [&[][..], &["L3:0=0F;1=ff"], &["L3:1=ff"], &["MB:0=100"]] {
            make(&config("gold", same)).unwrap();
        }
        for other in ["L3:0=1", "L2:0=f", "MB:2=100", "nothing"] {
            assert!(make(&config("gold", &[other])).is_err(), "{other}");
        }
        group.remove().unwrap();
        assert!(root.join("gold").is_dir(), "it stays");
    }

    #[test]
    fn monitoring_has_a_group_of_its_own() {
        let root = bale_testkit::Scratch::new("rdt");
        std::fs::create_dir(root.join("mon_groups")).unwrap();
        let asked = IntelRdt { enable_monitoring: true, ..config("/", &[]) };
        let wanted = read(&asked, "web", Some(root.path())).unwrap();
        let group = Group::of(&wanted);
        group.make(&wanted).unwrap();
        let tasks: Vec<_> = group.tasks().collect();
        assert_eq!(tasks, [root.join("tasks"), root.join("mon_groups/web/tasks")]);
        group.remove().unwrap();
        assert!(!root.join("mon_groups/web").exists() && root.join("mon_groups").is_dir());
    }

    #[test]
    fn what_the_kernel_says_of_a_failure_is_told() {
        let root = bale_testkit::Scratch::new("rdt");
        std::fs::create_dir_all(root.join("info")).unwrap();
        std::fs::write(root.join("info/last_cmd_status"), "Invalid schema\n").unwrap();
        std::fs::create_dir_all(root.join("web/schemata")).unwrap();
        let wanted = read(&config("", &["L3:0=0"]), "web", Some(root.path())).unwrap();
        let group = Group::of(&wanted);
        assert!(!group.own, "it was there before");
        assert!(group.make(&wanted).unwrap_err().chain().contains("Invalid schema"));
    }

    #[test]
    fn bad_fields_are_named() {
        let root = Path::new("/r");
        for (asked, words) in [
            (config("..", &[]), "linux.intelRdt.closID"),
            (config("a/b", &[]), "linux.intelRdt.closID"),
            (config("a", &["L3:0=f", "a\nb"]), "linux.intelRdt.schemata[1]"),
            (
                IntelRdt { mem_bw_schema: Some("L3:0=1".into()), ..IntelRdt::default() },
                "linux.intelRdt.memBwSchema",
            ),
        ] {
            let said = read(&asked, "web", Some(root)).unwrap_err().chain();
            assert!(said.contains(words), "{said}");
        }
        assert_eq!(read(&config("a", &[]), "web", None).unwrap_err().kind(), Kind::Unsupported);
    }
}
