//! Whether the program can be started: found in PATH, executable, of this machine, with its loader or interpreter.

use bale_spec::options::mount::clean;
use bale_spec::runtime::Process;
use bale_spec::suggest::did_you_mean;
use bale_spec::validate::{Findings, Path, Severity};
use rustix::io::Errno;

use super::binary::{Binary, Elf, inspect, machine};
use super::rights::{EXECUTE, blocked, may};
use super::view::{Found, View, is_directory};

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Interpreters of interpreters; the kernel stops at 5.
const SCRIPT_DEPTH: usize = 4;
const LIBRARY_DIRECTORIES: [&str; 8] = [
    "/lib",
    "/usr/lib",
    "/lib64",
    "/usr/lib64",
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
];

pub(super) fn check(findings: &mut Findings, view: &View<'_>, process: &Process) {
    let Some(name) = process.args.first().filter(|n| !n.is_empty()) else { return };
    let at = Path::of("process.args").index(0);
    if let Some(path) = find(findings, view, process, name, &at) {
        file(findings, view, process, &path, &at, 0);
    }
}

/// Looks a program up as execvp does.
fn find(
    findings: &mut Findings,
    view: &View<'_>,
    process: &Process,
    name: &str,
    at: &Path,
) -> Option<String> {
    if name.contains('/') {
        let path = if name.starts_with('/') { name.to_owned() } else { format!("{}/{name}", process.cwd) };
        return Some(clean(&path));
    }
    let path = variable(process, "PATH").unwrap_or(DEFAULT_PATH);
    let directories: Vec<&str> = path.split(':').filter(|d| d.starts_with('/')).collect();
    for directory in &directories {
        let candidate = clean(&format!("{directory}/{name}"));
        match view.open(&candidate, false) {
            Found::There(_, stat) if !is_directory(&stat) => return Some(candidate),
            Found::Unknown => return None,
            _ => {}
        }
    }
    let names: Vec<String> = directories.iter().flat_map(|d| view.names(d)).collect();
    let words = if names.iter().any(|n| n == name) {
        format!("{name:?} in PATH ({path}) is a symbolic link to nothing")
    } else {
        let near = did_you_mean(name, names.iter().map(String::as_str));
        format!("{name:?} is in no directory of PATH ({path}){near}")
    };
    findings.error("program-missing", at, words);
    None
}

fn variable<'a>(process: &'a Process, name: &str) -> Option<&'a str> {
    process.env.iter().rev().find_map(|e| e.strip_prefix(name)?.strip_prefix('='))
}

/// Checks a file that execve is to start, and what that needs in turn.
fn file(findings: &mut Findings, view: &View<'_>, process: &Process, path: &str, at: &Path, depth: usize) {
    let (fd, stat) = match view.open(path, true) {
        Found::There(fd, stat) => (fd, stat),
        Found::Unknown => return,
        Found::Missing(errno) => {
            // Root on the host opens everything, so what is left is that it is not there.
            let words = if errno == Errno::NOENT || errno == Errno::NOTDIR {
                format!("{path:?} does not exist in the root file system")
            } else {
                format!("{path:?} cannot be opened: {}", bale_sys::error::words(errno))
            };
            return findings.error("program-missing", at, words);
        }
    };
    if is_directory(&stat) {
        return findings.error("program-directory", at, format!("{path:?} is a directory"));
    }
    if !view.mapped {
        if !may(process, &stat, EXECUTE) {
            let (uid, mode) = (process.user.uid, stat.st_mode & 0o7777);
            let words = format!(
                "{path:?} is not executable for uid {uid} (mode {mode:04o}, owner {}:{})",
                stat.st_uid, stat.st_gid
            );
            findings.error("program-not-executable", at, words);
            return findings.hint(format!("chmod +x <bundle>/rootfs{path}"));
        }
        if let Some(parent) = blocked(view, process, path) {
            return findings.error(
                "program-not-executable",
                at,
                format!("uid {} may not enter {parent:?}", process.user.uid),
            );
        }
    }
    match inspect(fd) {
        Ok(Binary::Elf(elf)) => self::elf(findings, view, process, path, &elf, at),
        Ok(Binary::Script(line)) => script(findings, view, process, path, &line, at, depth),
        Ok(Binary::Empty) => findings.error("program-format", at, format!("{path:?} is empty")),
        Ok(Binary::Other) => {
            let words = format!(
                "{path:?} is neither a program nor a script with #! in front: the kernel answers \"exec format error\""
            );
            findings.error("program-format", at, words);
        }
        Err(error) => findings.error("program-missing", at, format!("{path:?} cannot be read: {error}")),
    }
}

fn elf(findings: &mut Findings, view: &View<'_>, process: &Process, path: &str, elf: &Elf, at: &Path) {
    let (name, runs_here) = machine(elf.machine);
    if !runs_here {
        let here = std::env::consts::ARCH;
        findings.error(
            "program-architecture",
            at,
            format!("{path:?} is for {name}, and this machine is {here}"),
        );
        return findings
            .hint("take the image for this platform (--platform), or register an emulator with binfmt_misc");
    }
    if !elf.executable {
        return findings.error(
            "program-format",
            at,
            format!("{path:?} is an ELF object that cannot be started"),
        );
    }
    let Some(loader) = &elf.interpreter else { return };
    match view.open(loader, false) {
        Found::Missing(_) => {
            let words = format!("{path:?} needs the loader {loader:?}, which is not in the root file system");
            findings.error("loader-missing", at, words);
            let libc =
                if loader.contains("musl") { "musl (Alpine)" } else { "glibc (Debian and most others)" };
            findings.hint(format!(
                "the program was built for {libc}: take a base image with it, or link it statically"
            ));
        }
        Found::There(..) => libraries(findings, view, process, path, elf, at),
        Found::Unknown => {}
    }
}

/// Looks for libraries where loaders usually do. The loader's cache is not read, so a miss is only a warning.
fn libraries(findings: &mut Findings, view: &View<'_>, process: &Process, path: &str, elf: &Elf, at: &Path) {
    let origin = path.rsplit_once('/').map_or("/", |(dir, _)| dir);
    let mut directories: Vec<String> = Vec::new();
    for list in [elf.run_path.as_deref(), variable(process, "LD_LIBRARY_PATH")].into_iter().flatten() {
        let absolute = list.split(':').map(|d| d.replace("${ORIGIN}", origin).replace("$ORIGIN", origin));
        directories.extend(absolute.filter(|d| d.starts_with('/')));
    }
    directories.extend(LIBRARY_DIRECTORIES.map(str::to_owned));
    directories.extend(configured(view));
    let missing = |name: &&String| {
        !name.contains('/')
            && directories
                .iter()
                .all(|d| matches!(view.open(&format!("{d}/{name}"), false), Found::Missing(_)))
    };
    let missing: Vec<&str> = elf.needed.iter().filter(missing).map(String::as_str).collect();
    if !missing.is_empty() {
        findings.warning(
            "library-missing",
            at,
            format!("{path:?} needs {}, found in none of the usual directories", missing.join(", ")),
        );
    }
}

/// Directories of `/etc/ld.so.conf.d` and of musl's path file.
fn configured(view: &View<'_>) -> Vec<String> {
    let mut files = vec!["/etc/ld.so.conf".to_owned()];
    files.extend(
        view.names("/etc/ld.so.conf.d").into_iter().take(100).map(|n| format!("/etc/ld.so.conf.d/{n}")),
    );
    files.extend(["/etc/ld-musl-x86_64.path".to_owned(), "/etc/ld-musl-aarch64.path".to_owned()]);
    let mut found = vec!["/usr/local/lib".to_owned()];
    for file in files {
        let Found::There(fd, _) = view.open(&file, true) else { continue };
        let text = bale_sys::file::read_fd_bounded(fd, &file, 64 << 10).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let words = text.split(['\n', ':']).map(str::trim).filter(|l| l.starts_with('/')).take(100);
        found.extend(words.map(str::to_owned));
    }
    found
}

fn script(
    findings: &mut Findings,
    view: &View<'_>,
    process: &Process,
    path: &str,
    line: &str,
    at: &Path,
    depth: usize,
) {
    if line.ends_with('\r') {
        let words = format!(
            "the first line of {path:?} ends with a carriage return: the kernel looks for an interpreter of that name"
        );
        findings.error("script-crlf", at, words);
        return findings.hint(format!("sed -i 's/\\r$//' <bundle>/rootfs{path}"));
    }
    let mut words = line.split_whitespace();
    let Some(interpreter) = words.next() else {
        return findings.error(
            "program-format",
            at,
            format!("the first line of {path:?} names no interpreter"),
        );
    };
    if !interpreter.starts_with('/') {
        findings.add(
            Severity::Warning,
            "script-relative",
            at,
            format!("the interpreter {interpreter:?} of {path:?} is relative to the working directory"),
        );
        return;
    }
    if depth >= SCRIPT_DEPTH {
        return findings.error("program-format", at, format!("{path:?} is a script of a script, too often"));
    }
    if matches!(view.open(interpreter, false), Found::Missing(_)) {
        return findings.error(
            "interpreter-missing",
            at,
            format!("{path:?} is a script for {interpreter:?}, which is not in the root file system"),
        );
    }
    file(findings, view, process, interpreter, at, depth + 1);
    if interpreter.rsplit('/').next() == Some("env")
        && let Some(name) = words.find(|w| !w.starts_with('-') && !w.contains('='))
    {
        find(findings, view, process, name, at);
    }
}
