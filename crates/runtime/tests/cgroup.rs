//! Cgroups of the host, as root: v1 and v2 hierarchies, real processes.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use bale_fault::Kind;
use bale_runtime::cgroup::{self, Handle, Host, Layout};
use bale_spec::runtime::{Cpu, DeviceRule, HugepageLimit, Memory, Pids, Resources};

/// Tells whether the test can run; without root that is a failure unless asked for.
fn is_root() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(
        std::env::var_os("BALE_TEST_UNPRIVILEGED").is_some(),
        "needs root (or BALE_TEST_UNPRIVILEGED=1 to skip)"
    );
    eprintln!("skipped: needs root");
    false
}

/// A cgroup that is removed when the test ends, however it ends.
struct Scratch {
    handle: Handle,
    path: String,
}

impl Scratch {
    fn new(name: &str, resources: &Resources) -> Self {
        let path = path(name);
        let handle = cgroup::create(Host::detect().unwrap(), &path, resources).unwrap();
        Self { handle, path }
    }

    fn file(&self, controller: &str, name: &str) -> String {
        std::fs::read_to_string(self.dir(controller).join(name)).unwrap().trim().to_owned()
    }

    fn dir(&self, controller: &str) -> PathBuf {
        let record = self.handle.record();
        record.v1.get(controller).or(record.unified.as_ref()).unwrap().clone()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let removed = self.handle.remove();
        for dir in self.handle.record().v1.values().chain(&self.handle.record().unified) {
            let _ = std::fs::remove_dir(dir.parent().unwrap());
        }
        if !std::thread::panicking() {
            removed.unwrap();
        }
    }
}

fn path(name: &str) -> String {
    format!("/bale-test-{}-{name}/leaf", std::process::id())
}

/// A program that runs until its input ends, and tells when it runs.
fn waiting(script: &str) -> Child {
    let mut child = Command::new("sh")
        .args(["-c", &format!("{script}\necho ready; read line")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    child
}

fn pid(child: &Child) -> i32 {
    i32::try_from(child.id()).unwrap()
}

fn has_v1(controller: &str) -> bool {
    Path::new("/proc/self/cgroup").exists()
        && std::fs::read_to_string("/proc/self/cgroup").unwrap().contains(&format!(":{controller}:"))
}

#[test]
fn limits_are_in_the_kernel_and_processes_join_both_ways() {
    if !is_root() || !has_v1("memory") {
        return;
    }
    let memory = Memory {
        limit: Some(64 << 20),
        swap: Some(96 << 20),
        reservation: Some(32 << 20),
        ..Memory::default()
    };
    let cpu = Cpu {
        shares: Some(512),
        quota: Some(20_000),
        period: Some(50_000),
        cpus: Some("0".into()),
        ..Cpu::default()
    };
    let pids = Pids { limit: Some(0) };
    let scratch = Scratch::new(
        "limits",
        &Resources { memory: Some(memory), cpu: Some(cpu), pids: Some(pids), ..Resources::default() },
    );
    for (controller, file, value) in [
        ("memory", "memory.limit_in_bytes", "67108864"),
        ("memory", "memory.memsw.limit_in_bytes", "100663296"),
        ("memory", "memory.soft_limit_in_bytes", "33554432"),
        ("cpu", "cpu.shares", "512"),
        ("cpu", "cpu.cfs_quota_us", "20000"),
        ("cpu", "cpu.cfs_period_us", "50000"),
        ("cpuset", "cpuset.cpus", "0"),
        ("cpuset", "cpuset.mems", "0"),
        ("pids", "pids.max", "1"),
    ] {
        assert_eq!(scratch.file(controller, file), value, "{file}");
    }
    // Larger and smaller again: each order of writing is wrong for one of them.
    for (limit, swap) in [(200 << 20, 300 << 20), (8 << 20, 16 << 20), (16 << 20, -1), (-1, 0)] {
        let memory = Memory { limit: Some(limit), swap: Some(swap), ..Memory::default() };
        scratch.handle.update(&Resources { memory: Some(memory), ..Resources::default() }).unwrap();
    }
    let pids = Resources { pids: Some(Pids { limit: Some(-1) }), ..Resources::default() };
    scratch.handle.update(&pids).unwrap();

    // This thread joins by itself, and is no longer than the test in there.
    let fds = scratch.handle.tasks_fds();
    let joined = std::thread::scope(|scope| {
        let join = scope.spawn(|| {
            for fd in fds {
                assert_eq!(rustix::io::write(fd, b"0").unwrap(), 1);
            }
            std::fs::read_to_string("/proc/thread-self/cgroup").unwrap()
        });
        join.join().unwrap()
    });
    for line in joined.lines().filter(|line| !line.starts_with("0::")) {
        assert!(line.ends_with(&scratch.path), "{line}");
    }
    let mut child = waiting("");
    scratch.handle.add(pid(&child)).unwrap();
    assert_eq!(scratch.handle.pids().unwrap(), [pid(&child)]);
    let reopened = cgroup::open(&scratch.handle.record()).unwrap();
    assert_eq!(reopened.record(), scratch.handle.record());
    assert_eq!(cgroup::open_to_join(&scratch.handle.record(), &[]).unwrap().tasks_fds().len(), fds.len());
    let stats = scratch.handle.stats().unwrap();
    assert!(stats.pids.current >= 1 && stats.memory.usage.limit > 0, "{stats:?}");
    assert_eq!(scratch.handle.oom_kills().unwrap(), 0);
    child.stdin.take();
    child.wait().unwrap();
}

#[test]
fn what_is_used_or_frozen_is_refused() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new("used", &Resources::default());
    let again = || cgroup::create(Host::detect().unwrap(), &scratch.path, &Resources::default());
    assert!(again().is_ok(), "an empty one may be taken over");
    let mut child = waiting("");
    scratch.handle.add(pid(&child)).unwrap();
    let fault = again().unwrap_err();
    assert!(fault.chain().contains("container's cgroup is not empty: 1 process(es) found"), "{fault:?}");
    scratch.handle.freeze(true).unwrap();
    assert!(scratch.handle.is_frozen().unwrap());
    // A frozen process is killed as well.
    scratch.handle.kill_all().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()), Some(9));
    scratch.handle.freeze(true).unwrap();
    let fault = again().unwrap_err();
    assert!(fault.chain().contains("container's cgroup unexpectedly frozen"), "{fault:?}");
    scratch.handle.freeze(false).unwrap();
    assert!(!scratch.handle.is_frozen().unwrap());
}

#[test]
fn removing_ends_what_is_left_and_what_is_below() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new("remove", &Resources::default());
    let mut children: Vec<Child> = (0..3).map(|_| waiting("")).collect();
    children.iter().for_each(|child| scratch.handle.add(pid(child)).unwrap());
    for dir in scratch.handle.record().v1.values().chain(&scratch.handle.record().unified) {
        std::fs::create_dir_all(dir.join("a/b")).unwrap();
    }
    let start = std::time::Instant::now();
    scratch.handle.remove().unwrap();
    eprintln!("removed with 3 processes in {:?}", start.elapsed());
    assert!(
        scratch.handle.record().v1.values().chain(&scratch.handle.record().unified).all(|dir| !dir.exists())
    );
    for child in &mut children {
        child.wait().unwrap();
    }
    scratch.handle.remove().unwrap();
    assert!(scratch.handle.pids().unwrap().is_empty() && scratch.handle.oom_kills().unwrap() == 0);
    scratch.handle.kill_all().unwrap();
}

#[test]
fn failures_name_the_field_and_leave_nothing() {
    if !is_root() {
        return;
    }
    let host = Host::detect().unwrap();
    let name = path("failures");
    let refused = |resources: &Resources| {
        let fault = cgroup::create(host, &name, resources).unwrap_err();
        (fault.kind(), fault.chain(), fault.innermost_hint().map(str::to_owned))
    };
    let cpus =
        Resources { cpu: Some(Cpu { cpus: Some("4000".into()), ..Cpu::default() }), ..Resources::default() };
    if has_v1("cpuset") {
        let (_, words, hint) = refused(&cpus);
        assert!(words.contains("linux.resources.cpu.cpus: set cpuset.cpus to \"4000\""), "{words}");
        assert!(hint.unwrap().contains("allowed are processors"));
    }
    let unified = [("memory.high".to_owned(), "1".to_owned())].into();
    let (_, words, _) = refused(&Resources { unified, ..Resources::default() });
    let likely = ["cannot use unified on cgroup v1", "controller \"memory\" is not available here"];
    assert!(host.layout() == Layout::Unified || likely.iter().any(|text| words.contains(text)), "{words}");
    let huge = HugepageLimit { page_size: "3MB".into(), limit: 1 };
    let (_, words, _) = refused(&Resources { hugepage_limits: vec![huge], ..Resources::default() });
    assert!(words.contains("linux.resources.hugepageLimits[0]"), "{words}");
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        assert!(!hierarchy.path().join(&name[1..]).exists(), "{hierarchy:?}");
        assert!(!hierarchy.path().join(&name[1..name.len() - 5]).exists(), "{hierarchy:?}");
    }
}

/// Opens a device as a process in the cgroup.
fn can_open(handle: &Handle, device: &str, how: &str) -> bool {
    let mut child = Command::new("sh")
        .args(["-c", &format!("read go; : {how} {device}")])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    handle.add(pid(&child)).unwrap();
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    child.wait().unwrap().success()
}

fn device_rules_hold(name: &str) {
    let rule = |allow, kind: &str, major, minor, access: &str| DeviceRule {
        allow,
        kind: Some(kind.to_owned()),
        major,
        minor,
        access: Some(access.to_owned()),
    };
    let deny = rule(false, "a", None, None, "rwm");
    let kmsg = rule(true, "c", Some(1), Some(11), "r");
    let scratch =
        Scratch::new(name, &Resources { devices: vec![deny.clone(), kmsg], ..Resources::default() });
    assert!(can_open(&scratch.handle, "/dev/null", ">") && can_open(&scratch.handle, "/dev/kmsg", "<"));
    assert!(!can_open(&scratch.handle, "/dev/kmsg", ">"));
    scratch.handle.update(&Resources { devices: vec![deny], ..Resources::default() }).unwrap();
    assert!(can_open(&scratch.handle, "/dev/zero", "<") && !can_open(&scratch.handle, "/dev/kmsg", "<"));
    let all = rule(true, "a", None, None, "rwm");
    scratch.handle.update(&Resources { devices: vec![all], ..Resources::default() }).unwrap();
    assert!(can_open(&scratch.handle, "/dev/kmsg", "<"));
}

#[test]
fn device_rules_hold_on_this_host() {
    if is_root() {
        device_rules_hold("devices");
    }
}

/// Runs in [`the_unified_hierarchy_alone`], which has mounted it.
#[test]
#[ignore = "is run by the_unified_hierarchy_alone in a mount namespace of its own"]
fn unified_part() {
    let host = Host::detect().unwrap();
    assert_eq!(host.layout(), Layout::Unified);
    device_rules_hold("unified-devices");
    let scratch = Scratch::new("unified", &Resources::default());
    assert!(scratch.handle.into_cgroup_fd().is_some() && scratch.handle.tasks_fds().is_empty());
    let mut child = waiting("");
    scratch.handle.add(pid(&child)).unwrap();
    scratch.handle.freeze(true).unwrap();
    assert!(scratch.handle.is_frozen().unwrap());
    scratch.handle.freeze(false).unwrap();
    let limits = HugepageLimit { page_size: "2MB".into(), limit: 4 << 20 };
    if scratch.file("", "cgroup.controllers").contains("hugetlb") {
        scratch.handle.update(&Resources { hugepage_limits: vec![limits], ..Resources::default() }).unwrap();
        assert_eq!(scratch.file("", "hugetlb.2MB.max"), "4194304");
        assert!(scratch.handle.stats().unwrap().hugetlb.contains_key("2MB"));
    }
    let memory = Resources {
        memory: Some(Memory { limit: Some(1 << 20), ..Memory::default() }),
        ..Resources::default()
    };
    if !scratch.file("", "cgroup.controllers").contains("memory") {
        let fault = scratch.handle.update(&memory).unwrap_err();
        assert!(fault.chain().starts_with("linux.resources.memory.limit: set memory.max"), "{fault:?}");
        assert!(fault.chain().contains("controller \"memory\" is not available here"), "{fault:?}");
        assert_eq!(fault.kind(), Kind::Unsupported);
    }
    let start = std::time::Instant::now();
    scratch.handle.remove().unwrap();
    eprintln!("removed with a process in {:?}", start.elapsed());
    child.wait().unwrap();
}

#[test]
fn the_unified_hierarchy_alone() {
    if !is_root() {
        return;
    }
    let test = std::env::current_exe().unwrap();
    let script = "umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec \"$0\" --exact unified_part --ignored --nocapture";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .arg(test)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    eprintln!("{text}");
}
