//! The hostile process. It says what it could do in files of `/out`, which the host reads.

use std::fs;
use std::io::Write as _;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bale_sys::mount::{self, Attributes, attr};
use rustix::fs::{Mode, OFlags};

/// What a process does that the host never ends.
const LIMIT: Duration = Duration::from_secs(60);

pub fn main(words: &[String]) -> ExitCode {
    let argument = words.get(1).map_or("", String::as_str);
    match words.first().map(String::as_str) {
        Some("inspect") => inspect(argument, words.get(2).map_or("/out/report", String::as_str)),
        Some("pause") => pause(),
        Some("grab") => grab(argument),
        Some("look") => look(argument),
        Some("overwrite") => overwrite(),
        Some("environment") => environment(argument),
        Some("mark") => write("/out/host-program-ran", "yes"),
        Some("masked") => masked(argument),
        _ => return ExitCode::from(3),
    }
    ExitCode::SUCCESS
}

fn write(path: &str, text: &str) {
    // Renamed into place, so that the host never reads half of it.
    let new = format!("{path}.new");
    let _ = fs::write(&new, text).and_then(|()| fs::rename(&new, path));
}

/// Looks around: `secret` is the absolute path of a file of the host.
fn inspect(secret: &str, report: &str) {
    let mut text = String::new();
    let mut say = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    say(format!(
        "cwd {}",
        std::env::current_dir().map_or_else(|e| e.to_string(), |d| d.display().to_string())
    ));
    for up in 0..14 {
        let path = format!("{}{}", "../".repeat(up), secret.trim_start_matches('/'));
        if fs::read_to_string(&path).is_ok_and(|t| t.contains("host secret")) {
            say(format!("ESCAPED the working directory reaches the host by {path}"));
        }
    }
    if Path::new("host-secret").exists() {
        say("ESCAPED the working directory is the host's".to_owned());
    }
    say(format!("home {}", std::env::var("HOME").unwrap_or_default()));
    for (fd, target) in descriptors("self") {
        if fd > 2 {
            say(format!("ESCAPED descriptor {fd} is open: {}", target.display()));
        }
    }
    if let Ok(status) = fs::read_to_string("/proc/self/status") {
        status
            .lines()
            .filter(|l| l.starts_with("Cap") || l.starts_with("Uid"))
            .for_each(|l| say(l.to_owned()));
    }
    if let Ok(map) = fs::read_to_string("/proc/self/uid_map") {
        say(format!("uid_map {}", map.split_whitespace().collect::<Vec<_>>().join(" ")));
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let below = mounts.lines().filter(|line| line.split(' ').nth(4).is_some_and(|at| at.starts_with("/vol")));
    say(format!("volume {} mounts", below.count()));
    let value = fs::read_to_string("/proc2/sys/kernel/shm_rmid_forced").unwrap_or_default();
    say(format!("shm_rmid_forced {}", value.trim()));
    for controller in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        for file in ["release_agent", "cgroup.procs", "tasks"] {
            let path = controller.path().join(file);
            // Opened and not written: that it opens is what must not be.
            if fs::OpenOptions::new().write(true).open(&path).is_ok() {
                say(format!("WRITABLE {}", path.display()));
            }
        }
    }
    write(report, &text);
}

/// Lists the descriptors of a process, without the one that lists them.
fn descriptors(pid: &str) -> Vec<(u32, PathBuf)> {
    let dir = format!("/proc/{pid}/fd");
    let names = fs::read_dir(&dir).into_iter().flatten().flatten();
    let numbers: Vec<u32> = names.filter_map(|n| n.file_name().to_str()?.parse().ok()).collect();
    numbers.into_iter().filter_map(|fd| Some((fd, fs::read_link(format!("{dir}/{fd}")).ok()?))).collect()
}

/// Waits to be killed.
fn pause() {
    write("/out/paused", "yes");
    let began = Instant::now();
    while began.elapsed() < LIMIT {
        std::thread::park_timeout(LIMIT);
    }
}

fn over(began: Instant) -> bool {
    began.elapsed() > LIMIT || Path::new("/out/stop").exists()
}

fn pids() -> Vec<u32> {
    let own = std::process::id();
    let names = fs::read_dir("/proc").into_iter().flatten().flatten();
    names.filter_map(|n| n.file_name().to_str()?.parse().ok()).filter(|&pid| pid != own).collect()
}

/// Tries to get out through every process that it sees appear, until `/out/stop` is there.
fn grab(secret: &str) {
    let old = pids();
    write("/out/paused", "yes");
    let began = Instant::now();
    let mut found = Vec::new();
    while !over(began) && found.len() < 4 {
        for pid in pids().into_iter().filter(|pid| !old.contains(pid)) {
            found.extend(through(pid, secret));
        }
        // Said at once: the container may end at any time.
        if !found.is_empty() {
            write("/out/stolen", &found.join("\n"));
        }
    }
}

/// Tries to get out through the container's init.
fn look(secret: &str) {
    write("/out/stolen", &through(1, secret).join("\n"));
}

/// The ways in which a process leads to the host's file `secret`.
fn through(pid: u32, secret: &str) -> Vec<String> {
    let secret = secret.trim_start_matches('/');
    let up = "../".repeat(12);
    let names: Vec<_> = descriptors(&pid.to_string());
    let mut paths = vec![format!("/proc/{pid}/root/{secret}"), format!("/proc/{pid}/cwd/{up}{secret}")];
    for fd in 3..24 {
        let base = format!("/proc/{pid}/fd/{fd}");
        if fs::metadata(&base).is_ok_and(|m| m.is_dir()) {
            paths.extend([format!("{base}/{up}{secret}"), format!("{base}/1/root/{secret}")]);
        }
    }
    let reached = |path: &String| fs::read_to_string(path).is_ok_and(|t| t.contains("host secret"));
    paths.into_iter().filter(reached).map(|path| format!("ESCAPED {path}; it had {names:?}")).collect()
}

/// Catches the program of each process that appears, then tries to write to it, until `/out/stop` is there.
fn overwrite() {
    let own = fs::metadata("/proc/self/exe").map(|m| identity_of(&m)).ok();
    write("/out/paused", "yes");
    let began = Instant::now();
    let mut caught: Vec<fs::File> = Vec::new();
    while !over(began) {
        for pid in pids() {
            let Ok(file) = fs::File::open(format!("/proc/{pid}/exe")) else { continue };
            let Ok(metadata) = file.metadata() else { continue };
            let known = |f: &fs::File| f.metadata().is_ok_and(|m| identity_of(&m) == identity_of(&metadata));
            if Some(identity_of(&metadata)) != own && !caught.iter().any(known) {
                let line = format!("caught /proc/{pid}/exe, {} bytes\n", metadata.len());
                let log = fs::OpenOptions::new().create(true).append(true).open("/out/caught");
                let _ = log.and_then(|mut log| log.write_all(line.as_bytes()));
                caught.push(file);
            }
        }
        for file in &caught {
            attack(file);
        }
    }
}

fn identity_of(metadata: &fs::Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (metadata.len(), metadata.ino())
}

/// Writes to a file that is open for reading, by every way there is. What it writes does no harm: a byte at the end.
fn attack(file: &fs::File) {
    use std::os::fd::AsRawFd;
    let way = format!("/proc/self/fd/{}", file.as_raw_fd());
    if append(&way) {
        write("/out/stolen", "ESCAPED the program was opened for writing");
        return;
    }
    // With CAP_SYS_ADMIN: the mount it is on, made writable in a clone.
    let change = Attributes { clear: attr::RDONLY, ..Attributes::default() };
    if mount::set_attributes(file, false, change).is_ok() && append(&way) {
        write("/out/stolen", "ESCAPED the program was opened for writing after its mount was changed");
        return;
    }
    let Ok(tree) = mount::clone_fd(file.as_fd(), false) else { return };
    if mount::set_attributes(&tree, false, change).is_ok()
        && append(&format!("/proc/self/fd/{}", tree.as_raw_fd()))
    {
        write("/out/stolen", "ESCAPED the program was opened for writing through a clone of its mount");
    }
}

fn append(path: &str) -> bool {
    let opened = rustix::fs::open(path, OFlags::WRONLY | OFlags::APPEND | OFlags::CLOEXEC, Mode::empty());
    opened.is_ok_and(|fd| rustix::io::write(&fd, b"\n").is_ok())
}

/// A hook: says with which environment and where it runs.
fn environment(report: &str) {
    let mut lines: Vec<String> =
        std::env::vars().map(|(name, value)| format!("env {name}={value}")).collect();
    lines.push(format!("cwd {}", std::env::current_dir().unwrap_or_default().display()));
    lines
        .extend(descriptors("self").into_iter().filter(|d| d.0 > 2).map(|d| format!("fd {}", d.1.display())));
    let _ = fs::write(report, lines.join("\n"));
}

/// Says what a masked file is.
fn masked(path: &str) {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let Ok(metadata) = fs::metadata(path) else { return write("/out/report", "masked absent") };
    let null = metadata.file_type().is_char_device() && metadata.rdev() == rustix::fs::makedev(1, 3);
    let text = fs::read_to_string(path).unwrap_or_default();
    let kind = match (null, text.as_str()) {
        (true, _) => "null".to_owned(),
        (false, "") => "something else, empty".to_owned(),
        (false, text) => format!("ESCAPED not /dev/null but a file with {:?}", text.trim()),
    };
    write("/out/report", &format!("masked {kind}"));
}
