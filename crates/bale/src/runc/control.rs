//! `start`, `state`, `kill`, `delete`, `pause`, `resume`.

use crate::exit::ExitCode;
use std::ffi::OsString;

use bale_fault::{Fault, Kind, Result};
use bale_record::Dir;

use super::args::{Flag, Parsed, flag, parse};
use super::{Global, notify, print};

const SIGTERM: i32 = 15;
pub const KILL: &[Flag] = &[flag("all", "a")];
pub const DELETE: &[Flag] = &[flag("force", "f")];

fn only_id(arguments: &[OsString]) -> Result<Parsed> {
    parse(&[], arguments, false)?.at_most(1)
}

/// `start ID`.
pub fn start(global: &Global, arguments: &[OsString]) -> Result<ExitCode> {
    let dir = global.container(&only_id(arguments)?)?;
    let Some(mut notify) = notify::of(&dir) else {
        bale_runtime::start(&dir)?;
        return Ok(ExitCode::SUCCESS);
    };
    let record = dir.load()?;
    let pid = record.init.as_ref().map_or(0, |init| init.pid);
    let init = record.init.as_ref().map(|init| init.open()).transpose()?.flatten();
    notify.listen(&dir)?;
    bale_runtime::start(&dir)?;
    if let Some(pidfd) = init {
        notify.pass_on(&pidfd, pid)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `state ID`.
pub fn state(global: &Global, arguments: &[OsString]) -> Result<ExitCode> {
    let state = bale_runtime::state(&global.container(&only_id(arguments)?)?)?;
    let text = serde_json::to_string_pretty(&state);
    Ok(print(&(text.map_err(|e| Fault::new(Kind::Internal, "write the state").caused_by(e))? + "\n")))
}

/// `kill [--all] ID [SIGNAL]`.
pub fn kill(global: &Global, arguments: &[OsString]) -> Result<ExitCode> {
    let parsed = parse(KILL, arguments, true)?.at_most(3)?;
    let dir = global.container(&parsed)?;
    // `--all` may also follow the id.
    let mut words: Vec<&str> = parsed.positional[1..].iter().map(String::as_str).collect();
    let before = words.len();
    words.retain(|word| !matches!(*word, "--all" | "-a"));
    let all = parsed.has("all") || words.len() < before;
    if let Some(extra) = words.get(1) {
        return Err(Fault::new(Kind::InvalidInput, format!("unexpected argument {extra:?}")));
    }
    let signal = match words.first() {
        None => SIGTERM,
        // Tells whether init lives.
        Some(&"0") => 0,
        Some(word) => {
            let bad = || Fault::new(Kind::InvalidInput, format!("unknown signal {word:?}"));
            bale_spec::signal::parse(word.strip_prefix('-').unwrap_or(word)).ok_or_else(bad)?
        }
    };
    let killed = bale_runtime::kill(&dir, signal);
    if all && signal == 9 {
        // What init left behind; init itself may have ended long ago.
        bale_runtime::kill_all(&dir)?;
        return Ok(ExitCode::SUCCESS);
    }
    killed.map(|()| ExitCode::SUCCESS)
}

/// `delete [--force] ID`.
pub fn delete(global: &Global, arguments: &[OsString]) -> Result<ExitCode> {
    let parsed = parse(DELETE, arguments, false)?.at_most(1)?;
    let force = parsed.has("force");
    match Dir::open(&global.root, parsed.id()?) {
        Ok(dir) => bale_runtime::delete(dir, force)?,
        Err(fault) if force && fault.kind() == Kind::NotFound => {}
        Err(fault) => return Err(fault),
    }
    Ok(ExitCode::SUCCESS)
}

/// `pause ID`.
pub fn pause(global: &Global, arguments: &[OsString]) -> Result<ExitCode> {
    bale_runtime::pause(&global.container(&only_id(arguments)?)?)?;
    Ok(ExitCode::SUCCESS)
}

/// `resume ID`.
pub fn resume(global: &Global, arguments: &[OsString]) -> Result<ExitCode> {
    bale_runtime::resume(&global.container(&only_id(arguments)?)?)?;
    Ok(ExitCode::SUCCESS)
}
