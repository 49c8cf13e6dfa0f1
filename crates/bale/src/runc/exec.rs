//! `exec`.

use crate::exit::ExitCode;
use std::ffi::OsString;
use std::path::Path;

use bale_fault::{Fault, Kind, Result};
use bale_record::Dir;
use bale_runtime::{ExecOptions, InitParent, Stdio};
use bale_spec::runtime::{Capabilities, Process, User};

use super::args::{Flag, Parsed, flag, parse, value};
use super::create::{connect, preserve_fds, read_bounded};
use super::foreground::Foreground;
use super::{Global, absolute};

pub const EXEC: &[Flag] = &[
    value("process", "p"),
    value("console-socket", ""),
    value("pidfd-socket", ""),
    value("cwd", ""),
    value("env", "e"),
    value("user", "u"),
    value("additional-gids", "g"),
    value("pid-file", ""),
    value("process-label", ""),
    value("apparmor", ""),
    value("cap", "c"),
    value("preserve-fds", ""),
    value("cgroup", ""),
    flag("tty", "t"),
    flag("detach", "d"),
    flag("no-new-privs", ""),
    flag("ignore-paused", ""),
];

/// `exec [flags] ID [COMMAND…]`.
pub fn exec(global: &Global, arguments: &[OsString]) -> Result<ExitCode> {
    let parsed = parse(EXEC, arguments, true)?;
    let id = parsed.id()?.to_owned();
    bale_sys::seal::exec_sealed(std::env::args_os())?;
    let dir = Dir::open(&global.root, &id)?;
    let process = process(&parsed, &dir)?;
    if global.debug {
        tell_affinity(global, &process)?;
    }
    let detach = parsed.has("detach");
    let console = parsed.last("console-socket").filter(|s| !s.is_empty());
    check_terminal(process.terminal, detach, console.is_some())?;
    let pid_file = parsed.last("pid-file").filter(|p| !p.is_empty()).map(|p| absolute(&p)).transpose()?;
    let options = ExecOptions {
        process,
        stdio: match &console {
            Some(path) => Stdio::ConsoleSocket(connect(path)?),
            None => Stdio::Inherit,
        },
        parent: InitParent::Own,
        cgroups: cgroups(&parsed.all("cgroup"))?,
        pid_file: pid_file.as_deref(),
        pidfd_socket: parsed
            .last("pidfd-socket")
            .filter(|s| !s.is_empty())
            .as_deref()
            .map(connect)
            .transpose()?,
        preserve_fds: preserve_fds(&parsed)?,
        ignore_paused: parsed.has("ignore-paused"),
    };
    if detach {
        bale_runtime::exec(&dir, options)?;
        return Ok(ExitCode::SUCCESS);
    }
    let foreground = Foreground::prepare()?;
    let executed = bale_runtime::exec(&dir, options)?;
    foreground.follow(&executed.pidfd, executed.terminal.as_ref()).map(ExitCode::from)
}

/// The processors that the process begins on are gone from it when it runs: only this tells.
fn tell_affinity(global: &Global, process: &Process) -> Result<()> {
    let affinity = process.exec_cpu_affinity.as_ref().and_then(|affinity| affinity.initial.as_deref());
    let Some(list) = affinity.filter(|list| !list.is_empty()) else { return Ok(()) };
    let words = bale_runtime::plan::process::bit_list("process.execCPUAffinity.initial", list)?;
    let bits: String = words.iter().rev().map(|word| format!("{word:016x}")).collect();
    super::note(global, &format!("debug: exec: affinity: 0x{}", bits.trim_start_matches('0')));
    Ok(())
}

fn check_terminal(terminal: bool, detach: bool, socket: bool) -> Result<()> {
    let words = match (terminal, detach, socket) {
        (true, true, false) => "cannot allocate tty if runc will detach without setting console socket",
        (false, _, true) | (_, false, true) => {
            "cannot use console socket if runc will not detach or allocate tty"
        }
        _ => return Ok(()),
    };
    Err(Fault::new(Kind::InvalidInput, words))
}

/// Cgroups below the container's own: one path for all controllers, or `controller[,…]:path` any number of times.
fn cgroups(arguments: &[String]) -> Result<Vec<(String, String)>> {
    let bad = |argument: &str, why: &str| {
        Err(Fault::new(Kind::InvalidInput, format!("invalid --cgroup argument: {argument} ({why})")))
    };
    let mut found: Vec<(String, String)> = Vec::new();
    for argument in arguments {
        let Some((controllers, path)) = argument.split_once(':') else {
            if arguments.len() > 1 {
                return bad(argument, "missing <controller>: prefix");
            }
            return Ok(Some((String::new(), argument.clone())).into_iter().filter(has_path).collect());
        };
        for controller in controllers.split(',') {
            if controller.is_empty() {
                return bad(argument, "empty <controller> prefix");
            }
            if found.iter().any(|(known, _)| known == controller) {
                return bad(argument, &format!("controller {controller} specified multiple times"));
            }
            found.push((controller.to_owned(), path.to_owned()));
        }
    }
    found.retain(has_path);
    Ok(found)
}

/// `/` is the container's own.
fn has_path((_, path): &(String, String)) -> bool {
    !path.trim_matches('/').is_empty()
}

fn process(parsed: &Parsed, dir: &Dir) -> Result<Process> {
    if let Some(path) = parsed.last("process").filter(|p| !p.is_empty()) {
        let text = read_bounded(Path::new(&path), bale_spec::json::CONFIG_LIMIT_BYTES)?;
        let mut process: Process = bale_spec::json::parse(&text, bale_spec::json::CONFIG_LIMIT_BYTES)
            .map_err(|error| Fault::new(Kind::InvalidInput, format!("parse {path:?}")).caused_by(error))?;
        process.terminal |= parsed.has("tty");
        return Ok(process);
    }
    let mut process = template(dir)?;
    process.args = parsed.positional[1..].to_vec();
    if process.args.is_empty() {
        return Err(Fault::new(Kind::InvalidInput, "process args cannot be empty"));
    }
    process.terminal = parsed.has("tty");
    if let Some(cwd) = parsed.last("cwd").filter(|c| !c.is_empty()) {
        process.cwd = cwd;
    }
    process.env.extend(parsed.all("env"));
    if let Some(label) = parsed.last("process-label").filter(|l| !l.is_empty()) {
        process.selinux_label = Some(label);
    }
    if let Some(profile) = parsed.last("apparmor").filter(|l| !l.is_empty()) {
        process.apparmor_profile = Some(profile);
    }
    if parsed.last("no-new-privs").is_some() {
        process.no_new_privileges = parsed.has("no-new-privs");
    }
    if let Some(user) = parsed.last("user").filter(|u| !u.is_empty()) {
        (process.user.uid, process.user.gid) = numbers(&user, process.user.gid)?;
    }
    for group in parsed.all("additional-gids") {
        process.user.additional_gids.push(number("additional-gids", &group)?);
    }
    add_capabilities(&mut process, &parsed.all("cap"));
    Ok(process)
}

/// The container's own process is what a process without a file is like.
fn template(dir: &Dir) -> Result<Process> {
    let mut process = bale_runtime::process_of(dir)?;
    process.console_size = None;
    Ok(process)
}

/// `UID[:GID]`, numbers only, exactly (crun's CVE-2026-30892 read a number as 0).
fn numbers(user: &str, gid: u32) -> Result<(u32, u32)> {
    match user.split_once(':') {
        None => Ok((number("user", user)?, gid)),
        Some((uid, gid)) => Ok((number("user", uid)?, number("user", gid)?)),
    }
}

fn number(flag: &str, text: &str) -> Result<u32> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = text.parse().ok().filter(|_| plain);
    // -1 means "leave it" to setresuid.
    number.filter(|n| *n != u32::MAX).ok_or_else(|| {
        Fault::new(
            Kind::InvalidInput,
            format!("invalid value {text:?} for --{flag}: want a number below 4294967295"),
        )
    })
}

/// More capabilities for a process: never inheritable ones (CVE-2022-29162).
fn add_capabilities(process: &mut Process, names: &[String]) {
    if names.is_empty() {
        return;
    }
    let root = process.user.uid == User::default().uid;
    let sets = process.capabilities.get_or_insert_with(Capabilities::default);
    for name in names {
        let lists = [&mut sets.bounding, &mut sets.permitted, &mut sets.effective];
        for list in lists {
            if !list.contains(name) {
                list.push(name.clone());
            }
        }
        if !root && sets.inheritable.contains(name) && !sets.ambient.contains(name) {
            sets.ambient.push(name.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroups_are_named_by_controller_or_not_at_all() {
        let read = |list: &[&str]| cgroups(&list.iter().map(|&s| s.to_owned()).collect::<Vec<_>>());
        let pair = |c: &str, p: &str| (c.to_owned(), p.to_owned());
        assert_eq!(read(&[]).unwrap(), []);
        assert_eq!(read(&["/a/b"]).unwrap(), [pair("", "/a/b")]);
        assert_eq!(read(&["/"]).unwrap(), []);
        let two = [pair("cpu", "a"), pair("cpuacct", "a"), pair("memory", "b")];
        assert_eq!(read(&["cpu,cpuacct:a", "memory:b", "pids:/"]).unwrap(), two);
        for bad in [&["a", "b"][..], &[":a"], &["cpu,:a"], &["cpu:a", "cpu:b"]] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn users_are_numbers_and_nothing_else() {
        assert_eq!(numbers("1", 7).unwrap(), (1, 7));
        assert_eq!(numbers("1:2", 7).unwrap(), (1, 2));
        for bad in ["", "1:", ":1", "-1", "+1", "4294967296", "4294967295", "root", "1 ", "0x1", "1:2:3"] {
            assert!(numbers(bad, 0).is_err(), "{bad:?}");
        }
    }
}
