//! Starting a container's supervisor, and other inner roles of this binary.

use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use bale_fault::{Context, Fault, Kind, Result};
use bale_record::Dir;
use bale_record::control::Event;
use bale_record::settings::Settings;
use bale_sys::error::Call;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::client::{Client, Said};

/// Starts the supervisor of a container and returns the connection to it. It outlives this process, its terminal and
/// its session. The container is being made when this returns.
///
/// # Errors
/// The failed call.
pub fn supervise(settings: &Settings) -> Result<Client> {
    let (ours, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .call(|| "socketpair(AF_UNIX, SOCK_SEQPACKET)")?;
    let exe = bale_sys::seal::sealed_exe().map_err(Fault::from).within(|| "start the supervisor")?;
    let arguments = settings.to_arguments();
    let argv = ["bale", "@supervise"].map(OsString::from).into_iter().chain(arguments);
    // Its standard input is the client's socket.
    let spawned = bale_sys::process::spawn_detached(exe.as_fd(), argv, &[(theirs, 0)]);
    spawned.map_err(Fault::from).within(|| "start the supervisor")?;
    Ok(Client::new(ours))
}

/// Waits until the container's program runs and returns init's pid.
///
/// # Errors
/// Why it could not be made.
pub fn wait_started(client: &Client) -> Result<i32> {
    match client.listen()? {
        Said::Event(Event::Started { pid }, _) => Ok(pid),
        Said::Event(Event::Failed(failure), _) => {
            wait_end(client)?;
            Err(failure.into())
        }
        Said::Event(event, _) => {
            Err(Fault::new(Kind::Internal, format!("the supervisor began with {event:?}")))
        }
        Said::End => {
            Err(Fault::new(Kind::Interrupted, "the supervisor died while it was making the container"))
        }
    }
}

/// Waits until the supervisor is gone, and with `--rm` the container too.
///
/// # Errors
/// The failed call.
pub fn wait_end(client: &Client) -> Result<()> {
    while let Said::Event(..) = client.listen()? {}
    Ok(())
}

/// Does the work of a supervisor that was killed: removes what is left of the container and writes its end down, with
/// the exit status if somebody knows it. The role `@clean` does it, as this crate has no runtime.
///
/// # Errors
/// What the role said.
pub fn clean(dir: &Dir, code: Option<u8>) -> Result<()> {
    let mut command = Command::new("/proc/self/exe");
    command.args([OsStr::new("@clean"), OsStr::new("--dir"), dir.path().as_os_str()]);
    if let Some(code) = code {
        command.args(["--code", &code.to_string()]);
    }
    let output = command.stdin(Stdio::null()).output().within(|| "run `bale @clean`")?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim().trim_start_matches("bale: ").to_owned();
    let words = if said.is_empty() { format!("`bale @clean` ended with {}", output.status) } else { said };
    Err(Fault::new(Kind::Os, words))
}
