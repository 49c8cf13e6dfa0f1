//! The stage: a runtime of its own, a canary tree that stands for the host, and bundles.

use std::cell::{Cell, RefCell};
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bale_sys::mount::{self, FsContext, propagation};
use bale_sys::{namespace, process};
use bale_testkit::machine::{Scope, Snapshot};
use bale_testkit::{Scratch, tree};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{Mode, OFlags};
use serde_json::{Value, json};

/// No call of a runtime takes this long.
const LIMIT_MS: u32 = 10_000;
/// Files of the kernel that an escape could do harm through; what stands in for each.
const DANGEROUS: [&str; 3] =
    ["/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/sys/kernel/modprobe"];

pub struct Stage {
    /// Removed last.
    scratch: Scratch,
    name: String,
    runtime: PathBuf,
    pristine: PathBuf,
    words: Vec<&'static str>,
    watch: OwnedFd,
    baseline: RefCell<Vec<tree::Entry>>,
    next: Cell<u32>,
    before: Snapshot,
    real_pattern: String,
}

/// How a call of the runtime ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub words: String,
}

/// How a container is brought to run the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    CreateStart,
    Exec,
}

impl Stage {
    pub fn new() -> Self {
        let real_pattern = fs::read_to_string(DANGEROUS[0]).unwrap_or_default();
        namespace::unshare(namespace::NEWNS).expect("unshare");
        mount::change_root_propagation(propagation::PRIVATE, true).expect("private mounts");
        let scratch = Scratch::new("escape");
        let memory = FsContext::open(c"tmpfs").expect("tmpfs");
        memory.set(c"mode", Some(c"0755")).and_then(|()| memory.create()).expect("tmpfs");
        attach(&memory.mount(0).expect("tmpfs"), scratch.path());
        for (index, path) in DANGEROUS.iter().enumerate() {
            let file = scratch.join(format!("fake-{index}"));
            fs::write(&file, "fake\n").expect("fake file");
            // Not every kernel has all of them.
            if Path::new(path).exists() {
                attach(&clone_of(&file), Path::new(path));
            }
        }
        // In a user namespace procfs can only be mounted where one is seen without anything on it.
        let procfs = FsContext::open(c"proc").expect("proc");
        procfs.create().expect("proc");
        fs::create_dir(scratch.join("procfs")).expect("proc");
        attach(&procfs.mount(0).expect("proc"), &scratch.join("procfs"));
        let asked = std::env::var_os("RUNTIME").map(PathBuf::from);
        let original = asked.clone().unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_bale")));
        let original = in_path(&original);
        // A copy: a case may succeed in overwriting it.
        fs::create_dir(scratch.join("bin")).expect("bin");
        let runtime = scratch.join("bin").join(original.file_name().expect("name"));
        fs::copy(&original, &runtime).unwrap_or_else(|e| panic!("copy {}: {e}", original.display()));
        let pristine = scratch.join("pristine");
        fs::copy(&runtime, &pristine).expect("second copy");
        fs::copy("/proc/self/exe", scratch.join("payload")).expect("copy of this program");
        if asked.is_some() {
            // Older ones refuse a host with both kinds of cgroups.
            let _ = mount::detach(c"/sys/fs/cgroup/unified");
        }
        let is_bale = original.file_name().is_some_and(|name| name.to_string_lossy().contains("bale"));
        let stage = Self {
            name: version(&runtime),
            words: if is_bale { vec!["runc"] } else { Vec::new() },
            watch: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).expect("inotify"),
            baseline: RefCell::default(),
            next: Cell::new(0),
            before: Snapshot::take(&Scope::below(scratch.path())),
            runtime,
            pristine,
            real_pattern,
            scratch,
        };
        stage.make_canary();
        stage
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    pub fn canary(&self, name: &str) -> PathBuf {
        self.scratch.join("canary").join(name)
    }

    /// The file that nothing in a container may read.
    pub fn secret(&self) -> String {
        self.canary("host-secret").display().to_string()
    }

    fn make_canary(&self) {
        let base = self.scratch.join("canary");
        let _ = fs::remove_dir_all(&base);
        for dir in ["", "dir", "dir/sub", "dev", "dev/pts", "pts", "proc", "sys", "etc", "shared"] {
            fs::create_dir(base.join(dir)).expect("canary");
            fs::set_permissions(base.join(dir), fs::Permissions::from_mode(0o777)).expect("canary");
            let all = WatchFlags::CREATE
                | WatchFlags::DELETE
                | WatchFlags::MODIFY
                | WatchFlags::ATTRIB
                | WatchFlags::MOVE
                | WatchFlags::OPEN;
            inotify::add_watch(&self.watch, base.join(dir), all).expect("watch");
        }
        for file in [
            "host-secret",
            "dir/host-secret",
            "null",
            "shared/null",
            "console",
            "ptmx",
            "hosts",
            "dev/null",
            "dev/host-secret",
        ] {
            fs::write(base.join(file), "host secret\n").expect("canary");
        }
        let passwd = "root:x:0:0:host secret:/host-home:/bin/sh\n";
        for file in ["passwd", "etc/passwd", "dir/passwd"] {
            fs::write(base.join(file), passwd).expect("canary");
        }
        fs::copy(self.scratch.join("payload"), base.join("tool")).expect("canary");
        *self.baseline.borrow_mut() = tree::snapshot(&base).expect("canary");
        self.events();
    }

    fn events(&self) -> Vec<String> {
        let mut space = [MaybeUninit::<u8>::uninit(); 8192];
        let mut reader = inotify::Reader::new(&self.watch, &mut space);
        let mut lines = Vec::new();
        while let Ok(event) = reader.next() {
            let name = event.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            // That a directory is opened is no harm: as the source of a bind mount it has to be.
            let is_opened_directory = event.events() == inotify::ReadFlags::OPEN | inotify::ReadFlags::ISDIR;
            if event.events().contains(inotify::ReadFlags::IGNORED) || is_opened_directory {
                continue;
            }
            lines.push(format!("the host's {name:?}: {:?}", event.events()));
        }
        lines
    }

    /// What happened to the host since the last call.
    pub fn evidence(&self) -> Vec<String> {
        let mut lines = self.events();
        lines.sort();
        lines.dedup();
        let now = tree::snapshot(self.scratch.join("canary")).expect("canary");
        lines.extend(tree::difference(&self.baseline.borrow(), &now));
        for (index, path) in DANGEROUS.iter().enumerate() {
            let file = self.scratch.join(format!("fake-{index}"));
            let text = fs::read_to_string(&file).unwrap_or_default();
            if text != "fake\n" {
                lines.push(format!("{path} was written: {text:?}"));
                fs::write(&file, "fake\n").expect("fake file");
            }
        }
        if lines.is_empty() {
            self.events();
        } else {
            self.make_canary();
        }
        lines
    }

    /// Calls the runtime.
    pub fn call<A: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Ran {
        self.call_with_limit(arguments, LIMIT_MS)
    }

    fn call_with_limit<A: AsRef<std::ffi::OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
        limit_ms: u32,
    ) -> Ran {
        let log = self.scratch.join("said");
        let said = fs::File::create(&log).expect("log");
        let mut command = Command::new(&self.runtime);
        command.args(&self.words).arg("--root").arg(self.scratch.join("state")).args(arguments);
        command.stdin(Stdio::null()).stdout(said.try_clone().expect("log")).stderr(said);
        // A directory of the host to be in: where an escape through it would lead.
        command.current_dir(self.scratch.path()).env("LD_PRELOAD_OF_HOST", "x");
        let mut child = match command.spawn() {
            Ok(child) => child,
            // Somebody writes to the program.
            Err(error) => return Ran { code: -1, words: format!("{}: {error}", self.runtime.display()) },
        };
        let code = if ended(child.id(), limit_ms) {
            child.wait().expect("wait").code().unwrap_or(-1)
        } else {
            let _ = child.kill();
            let _ = child.wait();
            -2
        };
        let words = fs::read(&log).unwrap_or_default();
        Ran { code, words: String::from_utf8_lossy(&words).trim().to_owned() }
    }

    /// A new bundle: a root file system with this program, and a small config.
    pub fn bundle(&self) -> Bundle<'_> {
        let number = self.next.get();
        self.next.set(number + 1);
        let id = format!("escape-{}-{number}", std::process::id());
        let dir = self.scratch.join("bundle").join(&id);
        let rootfs = dir.join("rootfs");
        for name in ["proc", "sys", "dev", "etc", "out", "tmp", "work", "vol"] {
            fs::create_dir_all(rootfs.join(name)).expect("rootfs");
        }
        fs::set_permissions(rootfs.join("out"), fs::Permissions::from_mode(0o777)).expect("rootfs");
        fs::hard_link(self.scratch.join("payload"), rootfs.join("payload")).expect("payload");
        Bundle { stage: self, config: config(&id, &self.secret()), id, dir, rootfs }
    }

    /// Tells whether the runtime's program is as it was.
    pub fn runtime_is_whole(&self) -> bool {
        let whole = fs::read(&self.runtime).ok() == fs::read(&self.pristine).ok();
        if !whole {
            fs::remove_file(&self.runtime).expect("remove");
            fs::copy(&self.pristine, &self.runtime).expect("copy");
        }
        whole
    }

    /// After each case: nothing is left for the next.
    pub fn sweep(&self) {
        let state = self.scratch.join("state");
        for entry in fs::read_dir(&state).into_iter().flatten().flatten() {
            self.call(["delete", "--force", &entry.file_name().to_string_lossy()]);
        }
        self.evidence();
        let _ = fs::remove_dir_all(self.scratch.join("bundle"));
    }

    pub fn finish(&self) -> Result<(), String> {
        let mark = format!("escape-{}", std::process::id());
        remove_cgroups(Path::new("/sys/fs/cgroup"), &format!("bale-{mark}"));
        let scope = Scope::below(self.scratch.path());
        let ours =
            |line: &String| line.contains(&mark) || line.contains(&*self.scratch.path().to_string_lossy());
        let left: Vec<String> = self.before.changes_until_settled(&scope).into_iter().filter(ours).collect();
        let pattern = {
            let proc = FsContext::open(c"proc").expect("proc");
            proc.create().expect("proc");
            let tree = proc.mount(0).expect("proc");
            let fd = rustix::fs::openat(&tree, "sys/kernel/core_pattern", OFlags::RDONLY, Mode::empty())
                .expect("open");
            std::io::read_to_string(fs::File::from(fd)).expect("read")
        };
        if pattern != self.real_pattern {
            return Err(format!("the host's core_pattern is {pattern:?} and was {:?}", self.real_pattern));
        }
        if left.is_empty() { Ok(()) } else { Err(left.join("\n  ")) }
    }
}

fn remove_cgroups(root: &Path, name: &str) {
    for hierarchy in fs::read_dir(root).into_iter().flatten().flatten() {
        for parent in [hierarchy.path().join(name), root.join(name)] {
            for child in fs::read_dir(&parent).into_iter().flatten().flatten() {
                let _ = fs::remove_dir(child.path());
            }
            let _ = fs::remove_dir(parent);
        }
    }
}

fn version(runtime: &Path) -> String {
    let output = Command::new(runtime).arg("--version").output();
    let text = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or("?").to_owned()
}

fn in_path(program: &Path) -> PathBuf {
    if program.components().count() > 1 {
        return program.to_owned();
    }
    let dirs = std::env::var("PATH").unwrap_or_default();
    let dirs = format!("{dirs}:/usr/sbin:/sbin");
    let found = dirs.split(':').map(|dir| Path::new(dir).join(program)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{} is not in PATH", program.display()))
}

fn clone_of(path: &Path) -> OwnedFd {
    let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).expect("path");
    mount::clone_host(&path, false, false).expect("open_tree")
}

fn attach(tree: &OwnedFd, place: &Path) {
    let target = rustix::fs::open(place, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).expect("open");
    mount::attach(tree, &target).unwrap_or_else(|e| panic!("mount on {}: {e}", place.display()));
}

/// Waits for the end of a process; tells whether it came.
fn ended(pid: u32, limit_ms: u32) -> bool {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("pid");
    let Ok(pidfd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else {
        return true;
    };
    process::wait_end(&pidfd, Some(limit_ms)).unwrap_or(true)
}

/// What most bundles have.
fn config(id: &str, secret: &str) -> Value {
    let capabilities = json!([
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_MKNOD",
        "CAP_NET_RAW",
        "CAP_SETGID",
        "CAP_SETUID",
        "CAP_SETFCAP",
        "CAP_SETPCAP",
        "CAP_SYS_CHROOT",
        "CAP_KILL",
        "CAP_AUDIT_WRITE"
    ]);
    json!({
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs"},
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/payload", "@payload", "inspect", secret],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities
            }
        },
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {
            "cgroupsPath": format!("/bale-escape-{}/{id}", std::process::id()),
            "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}]
        }
    })
}

/// A bundle and its container, which is removed with it.
pub struct Bundle<'a> {
    pub stage: &'a Stage,
    pub id: String,
    pub dir: PathBuf,
    pub rootfs: PathBuf,
    pub config: Value,
}

impl Bundle<'_> {
    pub fn mount(&mut self, mount: Value) {
        self.config["mounts"].as_array_mut().expect("mounts").push(mount);
    }

    /// Mounts `/dev` and `/dev/pts` as most configs do.
    pub fn mount_dev(&mut self) {
        let dev = json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]});
        self.mount(dev);
        self.mount_pts();
    }

    pub fn mount_pts(&mut self) {
        let options = json!(["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]);
        self.mount(
            json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": options}),
        );
    }

    /// Gives it a user namespace; root is root, as the root file system is root's.
    pub fn user_namespace(&mut self) {
        let map = json!([{"containerID": 0, "hostID": 0, "size": 65536}]);
        self.config["linux"]["uidMappings"] = map.clone();
        self.config["linux"]["gidMappings"] = map;
        self.add_namespace("user");
        // sysfs belongs to it.
        self.add_namespace("network");
    }

    pub fn add_namespace(&mut self, kind: &str) {
        self.config["linux"]["namespaces"].as_array_mut().expect("namespaces").push(json!({"type": kind}));
    }

    pub fn remove_namespace(&mut self, kind: &str) {
        let namespaces = self.config["linux"]["namespaces"].as_array_mut().expect("namespaces");
        namespaces.retain(|n| n["type"] != kind);
    }

    pub fn join_namespace(&mut self, kind: &str, path: &str) {
        self.remove_namespace(kind);
        let namespaces = self.config["linux"]["namespaces"].as_array_mut().expect("namespaces");
        namespaces.push(json!({"type": kind, "path": path}));
    }

    pub fn add_capability(&mut self, name: &str) {
        for set in ["bounding", "effective", "permitted"] {
            self.config["process"]["capabilities"][set].as_array_mut().expect("set").push(json!(name));
        }
    }

    /// What the process does: words of `payload::main`.
    pub fn does(&mut self, words: &[&str]) {
        self.config["process"]["args"] = payload_args(words);
    }

    /// Puts a symbolic link into the root file system, in place of what is there.
    pub fn link(&self, place: &str, to: &Path) {
        let place = self.rootfs.join(place);
        let _ = fs::remove_dir_all(&place).or_else(|_| fs::remove_file(&place));
        fs::create_dir_all(place.parent().expect("parent")).expect("parent");
        symlink(to, &place).expect("symlink");
    }

    pub fn out(&self, name: &str) -> PathBuf {
        self.rootfs.join("out").join(name)
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.out(name)).unwrap_or_default()
    }

    fn terminal(&self) -> bool {
        self.config["process"]["terminal"] == true
    }

    /// Listens for a terminal. Nobody takes it: it stays open in the socket, as long as this is there.
    fn console(&self) -> Option<(UnixListener, String)> {
        let path = self.stage.join(&format!("{}.sock", self.id));
        let _ = fs::remove_file(&path);
        self.terminal().then(|| (UnixListener::bind(&path).expect("socket"), path.display().to_string()))
    }

    pub fn create(&self) -> (Ran, Option<UnixListener>) {
        fs::write(self.dir.join("config.json"), self.config.to_string()).expect("config");
        let console = self.console();
        let mut words = vec!["create".to_owned(), "--bundle".to_owned(), self.dir.display().to_string()];
        if let Some((_, path)) = &console {
            words.extend(["--console-socket".to_owned(), path.clone()]);
        }
        words.extend(["--pid-file".to_owned(), self.dir.join("pid").display().to_string(), self.id.clone()]);
        (self.stage.call(words), console.map(|c| c.0))
    }

    pub fn pid(&self) -> Option<u32> {
        fs::read_to_string(self.dir.join("pid")).ok()?.trim().parse().ok()
    }

    pub fn start(&self) -> Ran {
        self.stage.call(["start", &self.id])
    }

    /// Waits for the end of init.
    pub fn wait(&self) {
        if let Some(pid) = self.pid() {
            assert!(ended(pid, LIMIT_MS), "{}: the container does not end", self.id);
        }
    }

    /// Waits for a file in `/out`.
    pub fn wait_for(&self, name: &str) {
        let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).expect("inotify");
        inotify::add_watch(&watch, self.rootfs.join("out"), WatchFlags::MOVED_TO | WatchFlags::CREATE)
            .expect("watch");
        let mut space = [MaybeUninit::<u8>::uninit(); 4096];
        while !self.out(name).exists() {
            let limit = rustix::time::Timespec { tv_sec: 20, tv_nsec: 0 };
            let count = poll(&mut [PollFd::new(&watch, PollFlags::IN)], Some(&limit)).expect("poll");
            assert!(count > 0, "{}: no file {name} in /out", self.id);
            let mut reader = inotify::Reader::new(watch.as_fd(), &mut space);
            while reader.next().is_ok() {}
        }
    }

    /// Creates and starts it, and waits for its end. `Err` when it was refused.
    pub fn run(&self) -> Result<(), Ran> {
        let (created, _console) = self.create();
        if created.code != 0 {
            return Err(created);
        }
        let started = self.start();
        if started.code != 0 {
            return Err(started);
        }
        self.wait();
        Ok(())
    }

    /// Creates and starts it with a process that waits. `Err` when it was refused.
    pub fn run_in_background(&mut self, words: &[&str]) -> Result<(), Ran> {
        self.does(words);
        let (created, _console) = self.create();
        if created.code != 0 {
            return Err(created);
        }
        let started = self.start();
        if started.code != 0 {
            return Err(started);
        }
        self.wait_for("paused");
        Ok(())
    }

    /// Runs a process of the config's kind in it, and waits for its end.
    pub fn exec(&self, change: impl FnOnce(&mut Value), flags: &[&str]) -> Ran {
        let mut process = self.config["process"].clone();
        change(&mut process);
        let file = self.dir.join("process.json");
        fs::write(&file, process.to_string()).expect("process");
        let console = self.console();
        let pid_file = self.dir.join("exec-pid").display().to_string();
        let mut words = vec!["exec", "--process", file.to_str().expect("path"), "--pid-file", &pid_file];
        if let Some((_, path)) = &console {
            words.extend(["--detach", "--console-socket", path]);
        }
        words.extend(flags);
        words.push(&self.id);
        let ran = self.stage.call(words);
        if console.is_some()
            && let Some(pid) = fs::read_to_string(&pid_file).ok().and_then(|p| p.trim().parse().ok())
        {
            ended(pid, LIMIT_MS);
        }
        ran
    }

    /// Runs `inspect` by `flow`; adds to `found` what it and the host say, with `what` before. Returns the runtime's
    /// words when it was refused.
    pub fn inspect(&mut self, flow: Flow, what: &str, found: &mut Found) -> Option<String> {
        let secret = self.stage.secret();
        let outcome = match flow {
            Flow::CreateStart => {
                self.does(&["inspect", &secret]);
                self.run()
            }
            Flow::Exec => self.run_in_background(&["pause"]).and_then(|()| {
                let args = payload_args(&["inspect", &secret]);
                let ran = self.exec(|process| process["args"] = args, &[]);
                if ran.code == 0 { Ok(()) } else { Err(ran) }
            }),
        };
        found.note(&outcome, what);
        let report = self.read("report");
        found.add(what, report.lines().filter(|line| line.starts_with("ESCAPED")).map(str::to_owned));
        if report.contains("home /host-home") {
            found.add(what, ["HOME was read from the host's passwd".to_owned()]);
        }
        found.add(what, self.stage.evidence());
        outcome.err().map(|ran| ran.words)
    }
}

impl Drop for Bundle<'_> {
    fn drop(&mut self) {
        self.stage.call(["delete", "--force", &self.id]);
        let _ = fs::remove_file(self.stage.join(&format!("{}.sock", self.id)));
        let _ = fs::remove_dir_all(&self.dir);
    }
}

pub fn payload_args(words: &[&str]) -> Value {
    json!(["/payload", "@payload"].iter().chain(words).collect::<Vec<_>>())
}

/// What a case has found so far.
#[derive(Debug, Default)]
pub struct Found {
    lines: Vec<String>,
    ran: u32,
    refused: u32,
}

impl Found {
    pub fn note(&mut self, outcome: &Result<(), Ran>, what: &str) {
        match outcome {
            Ok(()) => self.ran += 1,
            Err(ran) => {
                self.refused += 1;
                if ran.code == -2 {
                    self.lines.push(format!("{what}: the runtime hangs"));
                }
                if std::env::var_os("ESCAPE_WORDS").is_some() {
                    println!("    {what}: {}", ran.words);
                }
            }
        }
    }

    pub fn add(&mut self, what: &str, lines: impl IntoIterator<Item = String>) {
        self.lines.extend(lines.into_iter().map(|line| format!("{what}: {line}")));
    }

    pub fn verdict(self) -> crate::Verdict {
        if self.lines.is_empty() {
            crate::Verdict::Held { ran: self.ran, refused: self.refused }
        } else {
            crate::Verdict::Escaped(self.lines)
        }
    }
}
