//! `exec`.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use bale_fault::{Fault, Kind, Result};
use bale_record::Dir;
use bale_runtime::{ExecOptions, Stdio};
use bale_spec::runtime::{Capabilities, Process, RuntimeConfig, User};

use super::args::{Flag, Parsed, flag, parse, value};
use super::create::{connect, preserve_fds, read_bounded};
use super::foreground::Foreground;
use super::{Global, absolute};

const EXEC: &[Flag] = &[
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
    let detach = parsed.has("detach");
    let console = parsed.last("console-socket").filter(|s| !s.is_empty());
    check_terminal(process.terminal, detach, console.is_some())?;
    let pid_file = parsed.last("pid-file").filter(|p| !p.is_empty()).map(|p| absolute(&p)).transpose()?;
    let cgroup = cgroup(&parsed)?;
    let options = ExecOptions {
        process,
        stdio: match &console {
            Some(path) => Stdio::ConsoleSocket(connect(path)?),
            None => Stdio::Inherit,
        },
        cgroup: cgroup.as_deref(),
        pid_file: pid_file.as_deref(),
        pidfd_socket: parsed
            .last("pidfd-socket")
            .filter(|s| !s.is_empty())
            .as_deref()
            .map(connect)
            .transpose()?,
        preserve_fds: preserve_fds(&parsed)?,
        ignore_paused: parsed.has("ignore-paused"),
        timings: global.timings,
    };
    if detach {
        bale_runtime::exec(&dir, options)?;
        return Ok(ExitCode::SUCCESS);
    }
    let foreground = Foreground::prepare()?;
    let executed = bale_runtime::exec(&dir, options)?;
    foreground.follow(&executed.pidfd, executed.terminal.as_ref()).map(ExitCode::from)
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

/// The cgroup below the container's own: a path, or `controller[,…]:path` as v1 has it, the same for all.
fn cgroup(parsed: &Parsed) -> Result<Option<String>> {
    let paths: Vec<String> = parsed
        .all("cgroup")
        .iter()
        .map(|c| c.rsplit_once(':').map_or(c.clone(), |(_, path)| path.to_owned()))
        .collect();
    let Some(first) = paths.first() else { return Ok(None) };
    if paths.iter().any(|path| path != first) {
        let words = "--cgroup with another path for each controller is not supported";
        return Err(Fault::new(Kind::Unsupported, words));
    }
    Ok(Some(first.clone()))
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
    let record = dir.load()?;
    let path = Path::new(&record.bundle).join("config.json");
    let text = read_bounded(&path, bale_spec::json::CONFIG_LIMIT_BYTES)?;
    let config = RuntimeConfig::parse(&text)
        .map_err(|error| Fault::new(Kind::InvalidInput, format!("parse {path:?}")).caused_by(error))?;
    let mut process = config.process.unwrap_or_default();
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
    fn users_are_numbers_and_nothing_else() {
        assert_eq!(numbers("1", 7).unwrap(), (1, 7));
        assert_eq!(numbers("1:2", 7).unwrap(), (1, 2));
        for bad in ["", "1:", ":1", "-1", "+1", "4294967296", "4294967295", "root", "1 ", "0x1", "1:2:3"] {
            assert!(numbers(bad, 0).is_err(), "{bad:?}");
        }
    }
}
