//! A real registry on a free port of the loopback.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use bale_sys::signal::let_in_for;

use super::stage::Stage;
use crate::run::{Result, end_group, fail};

/// A running `docker-registry`.
#[derive(Debug)]
pub struct Registry {
    child: Child,
}

impl Registry {
    /// Starts it with its data in the stage's folder, and waits until it answers.
    pub fn start(stage: &mut Stage) -> Result<u16> {
        let port = free_port()?;
        let config = stage.path("registry/config.yml");
        fs::create_dir_all(stage.path("registry/data"))?;
        let data = stage.path("registry/data");
        fs::write(
            &config,
            format!(
                "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\n\
                 http:\n  addr: 127.0.0.1:{port}\n",
                data.display()
            ),
        )?;
        let mut command = stage.command("docker-registry", &["serve", &config.to_string_lossy()]);
        command.stdin(Stdio::null()).process_group(0);
        let log = fs::File::create(stage.path("registry/log"))?;
        command.stdout(log.try_clone()?).stderr(log);
        let child = let_in_for(&mut command).spawn()?;
        // A demo that is killed has no chance to end it: the next one does, and must not hit a stranger.
        fs::write(stage.path("registry.pid"), identity(child.id()).unwrap_or_default())?;
        stage.registry = Some(Self { child });
        let answered = stage.runner.until(Duration::from_secs(15), |_| Ok(answers(port).then_some(())))?;
        match answered {
            Some(()) => Ok(port),
            None => fail(format!(
                "docker-registry does not answer: {}",
                fs::read_to_string(stage.path("registry/log"))?
            )),
        }
    }

    /// Ends it, or the one that an earlier demo has left according to `note`.
    pub fn stop(running: Option<Self>, note: &Path) -> Result<()> {
        if let Some(mut registry) = running {
            end_group(&mut registry.child)?;
        } else if let Ok(noted) = fs::read_to_string(note) {
            end_noted(&noted);
        }
        match fs::remove_file(note) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
            _ => Ok(()),
        }
    }
}

/// Returns `PID STARTTIME` of a process: together they name it for good.
fn identity(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let started = stat.rsplit_once(") ")?.1.split(' ').nth(19)?.to_owned();
    Some(format!("{pid} {started}"))
}

/// Ends the process of a note, if it still is that process.
fn end_noted(noted: &str) {
    let pid = noted.split(' ').next().and_then(|pid| pid.parse::<u32>().ok());
    let Some(pid) = pid.filter(|pid| identity(*pid).as_deref() == Some(noted)) else { return };
    if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// Returns a port of the loopback that nobody listens on now.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Tells whether a registry answers at `port`.
fn answers(port: u16) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET /v2/ HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok(head.ends_with(b" 200"))
    };
    ask().unwrap_or(false)
}
