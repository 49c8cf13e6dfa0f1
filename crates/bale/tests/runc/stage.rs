//! A runtime with a state directory of its own, and bundles.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use bale_testkit::Scratch;
use bale_testkit::machine::{Scope, Snapshot};
use serde_json::{Value, json};

static NEXT: AtomicU32 = AtomicU32::new(0);

pub struct Stage {
    pub scratch: Scratch,
    runtime: PathBuf,
    words: Vec<&'static str>,
    before: Snapshot,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Stage {
    pub fn new() -> Self {
        let scratch = Scratch::new("runc");
        let before = Snapshot::take(&scope(&scratch));
        bale_testkit::image::busybox_rootfs(&scratch.join("rootfs")).expect("busybox");
        let asked = std::env::var_os("RUNTIME").map(PathBuf::from);
        let runtime = asked.unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_bale")));
        let words = if is_bale(&runtime) { vec!["runc"] } else { Vec::new() };
        Self { scratch, runtime, words, before }
    }

    /// Tells whether bale is tested, not a peer.
    pub fn is_bale(&self) -> bool {
        is_bale(&self.runtime)
    }

    /// Returns an id that no other test has.
    pub fn id() -> String {
        format!("bale-runc-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// Makes a bundle whose config is the usual one, changed.
    pub fn bundle(&self, id: &str, script: &str, change: impl FnOnce(&mut Value)) -> PathBuf {
        let bundle = self.scratch.join(id);
        std::fs::create_dir(&bundle).expect("bundle");
        let mut config = usual(&self.scratch.join("rootfs"), id, script);
        change(&mut config);
        std::fs::write(bundle.join("config.json"), config.to_string()).expect("config");
        bundle
    }

    /// Runs the runtime's command line.
    pub fn runtime<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Ran {
        let output = self.command(arguments).output().expect("runtime");
        Ran::of(&output)
    }

    pub fn command<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.runtime);
        command.args(&self.words).arg("--root").arg(self.scratch.join("state")).args(arguments);
        command.stdin(Stdio::null()).env_remove("LISTEN_FDS").env_remove("NOTIFY_SOCKET");
        command
    }

    /// Runs a script in a new container and waits for it.
    pub fn run(&self, script: &str, change: impl FnOnce(&mut Value)) -> Ran {
        let id = Self::id();
        let bundle = self.bundle(&id, script, change);
        self.runtime(["run".as_ref(), "--bundle".as_ref(), bundle.as_os_str(), id.as_ref()])
    }

    /// Creates a container.
    pub fn create(&self, script: &str, change: impl FnOnce(&mut Value)) -> String {
        let id = Self::id();
        let bundle = self.bundle(&id, script, change);
        // What a created container holds open must not keep this test waiting for its end.
        let log = std::fs::File::create(self.scratch.join(format!("{id}.out"))).expect("log");
        let mut command =
            self.command(["create".as_ref(), "--bundle".as_ref(), bundle.as_os_str(), id.as_ref()]);
        let status = command.stdout(log.try_clone().expect("dup")).stderr(log).status().expect("create");
        assert!(status.success(), "create {id}: {}", self.output(&id));
        id
    }

    /// Returns what a container that [`Stage::create`] made has written.
    pub fn output(&self, id: &str) -> String {
        std::fs::read_to_string(self.scratch.join(format!("{id}.out"))).unwrap_or_default()
    }

    /// Runs a command that must succeed.
    pub fn ok<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> String {
        let ran = self.runtime(arguments);
        assert_eq!(ran.code, 0, "{ran:#?}");
        ran.out
    }

    /// Returns the state document.
    pub fn state(&self, id: &str) -> Value {
        serde_json::from_str(&self.ok(["state", id])).expect("state")
    }

    /// Waits until a container's process has ended.
    pub fn wait_stopped(&self, id: &str) {
        let limit = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while self.state(id)["status"] != "stopped" {
            assert!(std::time::Instant::now() < limit, "{id} does not stop");
            std::thread::yield_now();
        }
    }

    /// Waits until a container has written something.
    pub fn wait_output(&self, id: &str, part: &str) {
        let limit = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !self.output(id).contains(part) {
            assert!(std::time::Instant::now() < limit, "{id} does not write {part:?}");
            std::thread::yield_now();
        }
    }

    /// Wants nothing to be left of what was made here.
    pub fn assert_clean(&self) {
        self.before.assert_same(&scope(&self.scratch));
        let left = std::fs::read_dir(self.scratch.join("state")).map_or(0, Iterator::count);
        assert_eq!(left, 0, "containers are left");
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // What a failed test left.
        let left = std::fs::read_dir(self.scratch.join("state")).into_iter().flatten().flatten();
        for entry in left {
            self.runtime(["delete".as_ref(), "--force".as_ref(), entry.file_name().as_os_str()]);
        }
    }
}

impl Ran {
    pub fn of(output: &Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let code = output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0));
        Self { code, out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// Wants success and this output, line ends apart.
    #[track_caller]
    pub fn prints(&self, expected: &str) {
        assert_eq!((self.code, self.out.trim()), (0, expected), "{self:#?}");
    }

    /// Wants a failure whose words hold `part`.
    #[track_caller]
    pub fn fails_with(&self, part: &str) {
        assert_ne!(self.code, 0, "{self:#?}");
        assert!(self.err.to_lowercase().contains(&part.to_lowercase()), "{part:?} is not in {self:#?}");
    }
}

/// What is below the stage's own directory, and in the cgroups that its configs name: others work here too.
fn scope(scratch: &Scratch) -> Scope {
    Scope::below(scratch.path()).cgroups_below("bale-tests")
}

fn is_bale(runtime: &Path) -> bool {
    runtime.file_name().is_some_and(|name| name.to_string_lossy().contains("bale"))
}

/// The config that a test changes.
fn usual(rootfs: &Path, id: &str, script: &str) -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/sh", "-c", script],
            "env": ["PATH=/bin:/sbin:/usr/bin:/usr/sbin"],
            "cwd": "/",
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
            "noNewPrivileges": true,
        },
        "root": {"path": rootfs, "readonly": false},
        "hostname": "stage",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
             "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
        ],
        "linux": {
            "cgroupsPath": format!("/bale-tests/{id}"),
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
            ],
        },
    })
}

/// Adds a mount.
pub fn add_mount(config: &mut Value, destination: &str, kind: &str, source: &str, options: &[&str]) {
    let mount = json!({"destination": destination, "type": kind, "source": source, "options": options});
    config["mounts"].as_array_mut().expect("mounts").push(mount);
}

/// Adds a namespace.
pub fn add_namespace(config: &mut Value, kind: &str) {
    config["linux"]["namespaces"].as_array_mut().expect("namespaces").push(json!({"type": kind}));
}
