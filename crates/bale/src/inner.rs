//! Roles that bale starts itself in: never typed by people.
//!
//! | role | who starts it | what it is |
//! |---|---|---|
//! | `@supervise` | the engine, sealed and detached | the process that keeps one container |
//! | `@remove --dir DIR` | the supervisor, by becoming it | removes a container that was to go at its end |
//! | `@clean --dir DIR [--code N]` | the engine | does what a supervisor that was killed would have done |
//! | `@sync --dir ROOT` | a pull | makes layers of earlier pulls durable |
//! | `@init -- ARGS…` | the runtime, as pid 1 of a container | reaps orphans and passes signals on (`--init`) |

use crate::exit::ExitCode;
use std::ffi::OsString;
use std::path::PathBuf;

use bale_fault::{Fault, Kind, Result};
use bale_record::settings::Settings;
use bale_record::{Dir, Exit, Phase, time};

use crate::exit;

/// Runs the inner role `role` (with its `@`).
pub fn main(role: &str, arguments: &[OsString]) -> ExitCode {
    let outcome = match role {
        "@supervise" => supervise(arguments),
        "@remove" => directory(arguments).and_then(|dir| bale_engine::Engine::remove_ended(&dir)),
        "@clean" => clean_arguments(arguments).and_then(|(dir, code)| clean(&dir, code)),
        "@sync" => directory(arguments).and_then(|root| bale_engine::Engine::open(&root)?.make_durable()),
        "@init" => return crate::init::main(arguments),
        _ => Err(Fault::new(Kind::InvalidInput, format!("no inner role {role:?}"))),
    };
    outcome.map_or_else(
        |fault| {
            exit::report(&fault);
            ExitCode::from(exit::FAILURE)
        },
        |()| ExitCode::SUCCESS,
    )
}

fn supervise(arguments: &[OsString]) -> Result<()> {
    // Its forks become the container's first process, so it must not be what the host's file is. The engine starts
    // it sealed already.
    bale_sys::seal::exec_sealed(std::env::args_os())?;
    bale_supervisor::main(&Settings::parse(arguments)?)
}

fn directory(arguments: &[OsString]) -> Result<PathBuf> {
    match arguments {
        [flag, dir] if flag == "--dir" => Ok(PathBuf::from(dir)),
        _ => Err(Fault::new(Kind::InvalidInput, "an inner role wants --dir DIR")),
    }
}

fn clean_arguments(arguments: &[OsString]) -> Result<(PathBuf, Option<u8>)> {
    match arguments {
        [rest @ .., flag, code] if flag == "--code" => {
            let code = code.to_str().and_then(|code| code.parse().ok());
            let wrong = || Fault::new(Kind::InvalidInput, "--code wants a number up to 255");
            Ok((directory(rest)?, Some(code.ok_or_else(wrong)?)))
        }
        rest => Ok((directory(rest)?, None)),
    }
}

/// Removes what is left of a container whose supervisor was killed and that does not run, and writes its end down.
fn clean(path: &std::path::Path, code: Option<u8>) -> Result<()> {
    let dir = Dir::open_path(path)?;
    bale_runtime::kill_all(&dir)
        .or_else(|fault| if fault.kind() == Kind::NotFound { Ok(()) } else { Err(fault) })?;
    bale_runtime::teardown(&dir)?;
    let locked = dir.lock()?;
    let mut record = locked.load()?;
    let lost = code.is_none().then(|| "its supervisor was killed, so nobody saw how it ended".to_owned());
    record.exit = Some(Exit { code, signal: None, oom: false, at: time::now(), error: lost });
    record.phase = Phase::Stopped;
    record.init = None;
    record.supervisor = None;
    locked.save(&record)
}
