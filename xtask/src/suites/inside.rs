//! A program's own world: cgroups below this process's, then namespaces, then the tree of the peers as the root.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_change,
    unmount,
};

use super::{Program, Runtime, link};
use crate::run::{Failure, Result, Runner, fail};

/// Longer than the longest; what hangs ends here.
const LIMIT_SECONDS: u32 = 120;

/// Where the suites and the binaries are seen inside.
const SUITES: &str = "/mnt/suites";
const BIN: &str = "/mnt/bin";

/// How cgroups are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// The host's hierarchies.
    V1,
    /// The unified one.
    V2,
}

impl Layout {
    /// Its word.
    pub fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }

    /// Tells whether the host has it.
    pub fn is_here(self) -> bool {
        hierarchies(self).is_ok_and(|all| !all.is_empty())
    }
}

/// Where things are on the host.
#[derive(Clone, Debug)]
pub struct Place {
    pub tree: PathBuf,
    pub dir: PathBuf,
    pub work: PathBuf,
    pub layout: Layout,
}

impl Place {
    /// Returns it as words of a command line.
    pub fn words(&self) -> [PathBuf; 4] {
        [self.layout.name().into(), self.tree.clone(), self.dir.clone(), self.work.clone()]
    }

    /// Tells where a runtime is on the host.
    pub fn on_host(&self, path: &str) -> PathBuf {
        match path.strip_prefix(BIN) {
            Some(name) => self.work.join("bin").join(name.trim_start_matches('/')),
            None => self.tree.join(path.trim_start_matches('/')),
        }
    }
}

/// The path of a binary inside.
pub fn binary(name: &str) -> String {
    format!("{BIN}/{name}")
}

/// Returns a program and a runtime as words of a command line.
pub fn program_words(program: &Program, runtime: &Runtime) -> [String; 4] {
    [program.suite.to_owned(), program.name.clone(), runtime.name.clone(), runtime.path.clone()]
}

/// One hierarchy of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    /// Its directory's name below `/sys/fs/cgroup`; empty for the unified one.
    name: String,
    /// Its mount options.
    options: String,
    /// This process's cgroup in it.
    cgroup: PathBuf,
}

/// Reads which hierarchies the host has mounted; of the unified one, whether it is anywhere.
fn hierarchies(layout: Layout) -> Result<Vec<Hierarchy>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let mut all = Vec::new();
    for line in mounts.lines() {
        let Some((head, tail)) = line.split_once(" - ") else { continue };
        let mut tail = tail.split(' ');
        let (Some(at), Some(kind), Some(options)) = (head.split(' ').nth(4), tail.next(), tail.nth(1)) else {
            continue;
        };
        let options: Vec<&str> = options.split(',').filter(|word| !matches!(*word, "rw" | "ro")).collect();
        let name = match (layout, kind) {
            (Layout::V1, "cgroup") => at.rsplit('/').next().unwrap_or_default().to_owned(),
            (Layout::V2, "cgroup2") if all.is_empty() => String::new(),
            _ => continue,
        };
        let controllers = options.join(",");
        // `4:memory:/path`, `1:name=systemd:/`, `0::/`.
        let path = own.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let of = fields.next()?;
            let wanted =
                if layout == Layout::V2 { of.is_empty() } else { !of.is_empty() && of == controllers };
            wanted.then(|| fields.next().unwrap_or("/").trim_start_matches('/'))
        });
        let Some(path) = path else { continue };
        all.push(Hierarchy { name, options: controllers, cgroup: Path::new(at).join(path) });
    }
    Ok(all)
}

/// Makes a cgroup below this process's in every hierarchy, for a program to live in.
pub fn make_cgroups(layout: Layout) -> Result<Vec<PathBuf>> {
    let name = format!("bale-suites-{}", std::process::id());
    let mut made = Vec::new();
    for hierarchy in hierarchies(layout)? {
        let cgroup = hierarchy.cgroup.join(&name);
        fs::create_dir_all(&cgroup).map_err(|e| Failure::Words(format!("{}: {e}", cgroup.display())))?;
        if hierarchy.options == "cpuset" {
            // A new cpuset has nothing, and nobody can live in it.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                fs::write(cgroup.join(file), fs::read(hierarchy.cgroup.join(file))?)?;
            }
        }
        made.push(cgroup);
    }
    Ok(made)
}

/// Removes cgroups, with whatever a program left in them.
pub fn remove_cgroups(cgroups: &[PathBuf], runner: &mut Runner) -> Result<()> {
    for cgroup in cgroups {
        let _ = fs::write(cgroup.join("cgroup.kill"), "1");
    }
    let gone = runner.until(Duration::from_secs(10), |_| {
        cgroups.iter().for_each(|cgroup| remove_below(cgroup));
        Ok((!cgroups.iter().any(|cgroup| cgroup.exists())).then_some(()))
    })?;
    if gone.is_none() {
        return fail(format!("these cgroups cannot be removed: {cgroups:?}"));
    }
    Ok(())
}

fn remove_below(cgroup: &Path) {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            // A frozen process does not end, and its pid namespace with it.
            let _ = fs::write(entry.path().join("freezer.state"), "THAWED");
            remove_below(&entry.path());
        }
    }
    let _ = fs::remove_dir(cgroup);
}

/// `@suite join …`, and in its namespaces `@suite enter …`.
pub fn main(words: &[&str]) -> Result<()> {
    let [step, layout, tree, dir, work, rest @ ..] = words else { return fail("@suite: too few words") };
    let layout = if *layout == "v1" { Layout::V1 } else { Layout::V2 };
    let place = Place { tree: tree.into(), dir: dir.into(), work: work.into(), layout };
    match *step {
        "join" => join(&place, rest),
        "enter" => enter(&place, rest),
        other => fail(format!("@suite: {other:?}")),
    }
}

/// Enters the cgroups that the parent made, and goes on in namespaces of which they are the root.
fn join(place: &Place, rest: &[&str]) -> Result<()> {
    let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    for hierarchy in hierarchies(place.layout)? {
        let procs = hierarchy.cgroup.join(format!("bale-suites-{parent}/cgroup.procs"));
        fs::write(&procs, "0").map_err(|e| Failure::Words(format!("{}: {e}", procs.display())))?;
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--cgroup", "--fork", "--kill-child", "--propagation", "private"]);
    command.arg(std::env::current_exe()?).args(["@suite", "enter"]).args(place.words()).args(rest);
    Err(command.exec().into())
}

/// Makes the tree the root, and runs the program in it.
fn enter(place: &Place, rest: &[&str]) -> Result<()> {
    let [suite, program, runtime, path] = rest else { return fail("@suite enter: too few words") };
    let hierarchies = hierarchies(place.layout)?;
    mounts(place)?;
    mount_cgroups(place, &hierarchies)?;
    std::env::set_current_dir(&place.tree)?;
    step("pivot_root", rustix::process::pivot_root(".", "."))?;
    step("unmount the old root", unmount(".", UnmountFlags::DETACH))?;
    std::env::set_current_dir(Path::new(SUITES).join(suite))?;
    let mut command = Command::new("timeout");
    command.arg("--kill-after=5").arg(LIMIT_SECONDS.to_string());
    if *suite == "contest" {
        let kind = if *runtime == "youki" { "youki" } else { "runc" };
        command.env("RUNTIME_KIND", kind).arg("./contest");
        command.args(["run", "--runtime", path, "--runtimetest", "./runtimetest", "-t", program]);
    } else {
        command.env("RUNTIME", path).arg(format!("{program}/{program}.t"));
    }
    command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    Err(command.exec().into())
}

fn step(what: &str, done: rustix::io::Result<()>) -> Result<()> {
    done.map_err(|errno| Failure::Words(format!("{what}: {errno}")))
}

/// Prepares the tree: the host's devices, fresh `/proc`, `/sys`, `/run` and `/tmp`, and what is tested with.
fn mounts(place: &Place) -> Result<()> {
    let at = |name: &str| place.tree.join(name);
    let none = MountFlags::empty();
    step(
        "make mounts private",
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC),
    )?;
    step("bind the tree", mount_bind(&place.tree, &place.tree))?;
    step("mount proc", mount("proc", at("proc"), "proc", none, None))?;
    step("bind /dev", mount_bind_recursive("/dev", at("dev")))?;
    step("mount sysfs", mount("sysfs", at("sys"), "sysfs", none, None))?;
    for name in ["run", "tmp", "mnt"] {
        step("mount tmpfs", mount("tmpfs", at(name), "tmpfs", none, Some(c"mode=1777")))?;
    }
    for (from, to) in [(place.dir.clone(), SUITES), (place.work.join("bin"), BIN)] {
        let to = at(&to[1..]);
        fs::create_dir_all(&to)?;
        step("bind", mount_bind(&from, &to))?;
    }
    Ok(())
}

/// Mounts the cgroups as this cgroup namespace sees them, and leaves its root to the runtimes.
fn mount_cgroups(place: &Place, hierarchies: &[Hierarchy]) -> Result<()> {
    let base = place.tree.join("sys/fs/cgroup");
    let none = MountFlags::empty();
    if place.layout == Layout::V2 {
        step("mount cgroup2", mount("cgroup2", &base, "cgroup2", none, None))?;
        let own = base.join("runner");
        fs::create_dir(&own)?;
        return Ok(fs::write(own.join("cgroup.procs"), "0")?);
    }
    step("mount tmpfs", mount("tmpfs", &base, "tmpfs", none, Some(c"mode=755")))?;
    for hierarchy in hierarchies {
        let at = base.join(&hierarchy.name);
        fs::create_dir(&at)?;
        let named = if hierarchy.options.starts_with("name=") { "none," } else { "" };
        let options = std::ffi::CString::new(format!("{named}{}", hierarchy.options))
            .map_err(|_| Failure::Words("a NUL in mount options".to_owned()))?;
        step("mount cgroup", mount("cgroup", &at, "cgroup", none, Some(options.as_c_str())))?;
        for controller in hierarchy.options.split(',').filter(|c| **c != hierarchy.name && !c.contains('=')) {
            link(&hierarchy.name, &base.join(controller))?;
        }
    }
    Ok(())
}
