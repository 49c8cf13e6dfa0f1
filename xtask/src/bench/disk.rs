//! A new file system for every run, and what a contender used while it ran.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bale_testkit::output_of;

use super::inside::{CGROUP, OWN, PREPARED};
use crate::run::{Result, fail};

/// A new empty ext4 in memory, mounted until the value goes.
#[derive(Debug)]
pub struct Disk {
    point: PathBuf,
    file: PathBuf,
}

impl Disk {
    /// Makes and mounts it.
    pub fn fresh() -> Result<Self> {
        let (file, point) = (Path::new(OWN).join("disk.ext4"), Path::new(OWN).join("disk"));
        fs::create_dir_all(&point)?;
        output_of(
            Command::new("cp").arg("--sparse=always").arg(Path::new(PREPARED).join("empty.ext4")).arg(&file),
        )?;
        output_of(Command::new("mount").args(["-o", "loop"]).arg(&file).arg(&point))?;
        Ok(Self { point, file })
    }

    /// Returns the path of `name` on it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.point.join(name)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Overlays and volumes that a contender mounted on it go first.
        let below = bale_testkit::machine::mounts_below(&self.point).unwrap_or_default();
        for point in below.iter().rev() {
            let _ = rustix::mount::unmount(point, rustix::mount::UnmountFlags::empty());
        }
        let _ = fs::remove_file(&self.file);
    }
}

/// What a contender used, together with its daemons and children.
#[derive(Clone, Copy, Debug, Default)]
pub struct Used {
    /// Start to end of the command.
    pub wall: Duration,
    /// Processor time, user and system, in seconds.
    pub cpu_s: f64,
    /// The largest sum of the processes' resident memory that was seen, in MiB.
    pub peak_mib: f64,
}

/// A cgroup for one contender.
#[derive(Debug)]
pub struct Group {
    dir: PathBuf,
}

impl Group {
    /// Makes it.
    pub fn new(name: &str) -> Result<Self> {
        let dir = Path::new(CGROUP).join(name);
        fs::create_dir_all(&dir)?;
        Ok(Self { dir })
    }

    /// Prepares a command that works in this cgroup.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("sh");
        let script = r#"echo $$ >"$0" && exec "$@""#;
        command.args(["-c", script]).arg(self.dir.join("cgroup.procs")).arg(program);
        command
    }

    /// Runs a command to its end and tells what all processes of the cgroup used meanwhile.
    pub fn measure(&self, command: &mut Command) -> Result<Used> {
        let sampler = Sampler::start(self.dir.join("cgroup.procs"));
        let before = self.cpu_s();
        let outcome = super::measure::time(command);
        let cpu_s = self.cpu_s() - before;
        let peak_mib = sampler.stop();
        Ok(Used { wall: outcome?, cpu_s, peak_mib })
    }

    #[allow(clippy::cast_precision_loss, reason = "microseconds of a few seconds")]
    fn cpu_s(&self) -> f64 {
        let stat = fs::read_to_string(self.dir.join("cpu.stat")).unwrap_or_default();
        let usec = stat.lines().find_map(|line| line.strip_prefix("usage_usec ")?.parse::<u64>().ok());
        usec.unwrap_or(0) as f64 / 1e6
    }
}

/// Looks at the memory of a cgroup's processes every 10 ms.
#[derive(Debug)]
struct Sampler {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Sampler {
    fn start(procs: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut peak = 0;
            while !seen.load(Ordering::Relaxed) {
                let pids = fs::read_to_string(&procs).unwrap_or_default();
                peak = peak.max(pids.lines().filter_map(resident_kib).sum());
                std::thread::sleep(Duration::from_millis(10));
            }
            peak
        });
        Self { stop, thread }
    }

    #[allow(clippy::cast_precision_loss, reason = "KiB of this machine")]
    fn stop(self) -> f64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or(0) as f64 / 1024.0
    }
}

fn resident_kib(pid: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok())
}

/// A daemon that is ended with its value.
#[derive(Debug)]
pub struct Daemon(Child);

impl Daemon {
    /// Starts it and waits until `ready` succeeds.
    pub fn start(command: &mut Command, log: &Path, mut ready: impl FnMut() -> bool) -> Result<Self> {
        let file = fs::File::create(log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let mut daemon = Self(command.spawn()?);
        let deadline = Instant::now() + Duration::from_secs(20);
        while !ready() {
            if Instant::now() > deadline || daemon.0.try_wait()?.is_some() {
                return fail(format!("a daemon does not answer:\n{}", fs::read_to_string(log)?));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(daemon)
    }

    /// Starts containerd with all its state on `disk`; its socket is `socket`.
    pub fn containerd(command: &mut Command, root: &Path, socket: &Path) -> Result<Self> {
        let own = Path::new(OWN);
        let config = own.join("containerd.toml");
        fs::write(&config, CONTAINERD)?;
        let _ = fs::remove_file(socket);
        command.arg("--config").arg(config).arg("--root").arg(root);
        command.arg("--state").arg(own.join("containerd-state")).arg("--address").arg(socket);
        let answers = || output_of(Command::new("ctr").arg("--address").arg(socket).arg("version")).is_ok();
        Self::start(command, &own.join("containerd.log"), answers)
    }
}

/// Kubernetes' part would only slow its start.
const CONTAINERD: &str = "version = 3\ndisabled_plugins = ['io.containerd.cri.v1.images', \
    'io.containerd.cri.v1.runtime', 'io.containerd.grpc.v1.cri', 'io.containerd.nri.v1.nri']\n";

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.0.wait();
    }
}
