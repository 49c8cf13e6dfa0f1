//! Hooks that run in the runtime's namespaces: prestart, createRuntime, poststart, poststop.

use std::io::{Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use bale_fault::{Context, Fault, Kind, Result};
use bale_spec::runtime::{Hook, State};
use bale_sys::error::Call;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::plan::{check_hook, timeout_ms};

/// Runs hooks in order, each with `state` on standard input, its own environment only, in the bundle; the first
/// that fails ends it. `name` is the JSON path of the list.
pub fn run(name: &str, hooks: &[Hook], state: &State, bundle: &Path) -> Result<()> {
    if hooks.is_empty() {
        return Ok(());
    }
    let text =
        serde_json::to_vec(state).map_err(|e| Fault::new(Kind::Internal, "write the state").caused_by(e))?;
    for (index, hook) in hooks.iter().enumerate() {
        let path = format!("hooks.{name}[{index}]");
        check_hook(&path, hook)?;
        run_one(hook, &text, timeout_ms(&path, hook)?, bundle)
            .within(|| format!("config.json: {path}: error running {name} hook #{index}: {:?}", hook.path))?;
    }
    Ok(())
}

fn run_one(hook: &Hook, state: &[u8], timeout_ms: Option<u32>, bundle: &Path) -> Result<()> {
    let mut command = Command::new(&hook.path);
    if let Some((name, rest)) = hook.args.split_first() {
        command.arg0(name).args(rest);
    }
    command.env_clear().envs(hook.env.iter().filter_map(|e| e.split_once('=')));
    if bundle.is_dir() {
        command.current_dir(bundle);
    }
    // What it says goes to memory, not into a pipe: a daemon that it leaves behind may hold it open, and much of it
    // blocks nobody.
    let said = rustix::fs::memfd_create("hook", rustix::fs::MemfdFlags::CLOEXEC).call(|| "memfd_create")?;
    let stderr = said.try_clone().within(|| "dup")?;
    command.stdin(input(state)?).stdout(Stdio::null()).stderr(stderr);
    let mut child = command.spawn().within(|| "start it")?;
    let pidfd = pidfd_of(child.id())?;
    let ended = bale_sys::process::wait_end(&pidfd, timeout_ms)?;
    if !ended {
        let _ = child.kill();
    }
    let status = child.wait().within(|| "wait for it")?;
    if !ended {
        return Err(Fault::new(
            Kind::Unavailable,
            format!("ran longer than {} s", timeout_ms.unwrap_or(0) / 1000),
        ));
    }
    if status.success() {
        return Ok(());
    }
    let mut text = [0_u8; 1000];
    let length = rustix::io::pread(&said, &mut text, 0).unwrap_or(0);
    let text = String::from_utf8_lossy(&text[..length]).trim().to_owned();
    Err(Fault::new(Kind::Os, format!("{status}, stderr: {text:?}")))
}

/// The state as standard input: in memory, because a hook that reads nothing of a state longer than a pipe would hold
/// this process back for ever, its timeout not yet running.
fn input(state: &[u8]) -> Result<std::fs::File> {
    let fd = rustix::fs::memfd_create("state", rustix::fs::MemfdFlags::CLOEXEC).call(|| "memfd_create")?;
    let mut file = std::fs::File::from(fd);
    file.write_all(state).and_then(|()| file.rewind()).within(|| "write the state")?;
    Ok(file)
}

fn pidfd_of(pid: u32) -> Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| Fault::new(Kind::Internal, "a hook without a pid"))?;
    pidfd_open(pid, PidfdFlags::empty()).call(|| "pidfd_open").map_err(Fault::from)
}
