//! `exec`: what a further process in a running container is to be. The container's supervisor starts it, or the runtime
//! where that was lost.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bale_fault::{Context, Fault, Kind, Result};
use bale_record::Dir;
use bale_record::control::{Event, Request};
use bale_spec::runtime::{Capabilities, Process, User};
use bale_sys::error::Call;
use bale_sys::root::RootFd;
use rustix::fs::MemfdFlags;

use crate::client::{Client, Said};
use crate::container::{Container, Status};
use crate::{Engine, host, inspect, rootfs};

/// What the user asks of the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOptions {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// `KEY=value`, over the container's.
    pub env: Vec<String>,
    /// `user[:group]`, by name or number.
    pub user: Option<String>,
    /// Working directory.
    pub workdir: Option<String>,
    /// Gives it a terminal.
    pub tty: bool,
    /// All capabilities.
    pub privileged: bool,
    /// Size of the terminal, rows and columns.
    pub terminal: Option<(u16, u16)>,
}

/// A process to start, and where.
#[derive(Debug)]
pub struct ExecPlan {
    /// The container.
    pub dir: Dir,
    /// The process, complete.
    pub process: Process,
}

/// A process that the supervisor has started.
#[derive(Debug)]
pub struct Execution {
    client: Client,
    pidfd: OwnedFd,
}

impl ExecPlan {
    /// Has the container's supervisor start the process with standard input, output and error, or with the one socket
    /// to which its terminal's master is sent. `None` when there is no supervisor.
    ///
    /// # Errors
    /// `ProgramNotFound`, `ProgramNotExecutable`, or the failed step.
    pub fn supervised(&self, stdio: &[BorrowedFd<'_>]) -> Result<Option<Execution>> {
        let Some(client) = Client::connect(&self.dir)? else { return Ok(None) };
        let text = serde_json::to_vec(&self.process);
        let text = text.map_err(|error| Fault::new(Kind::Internal, "write the process").caused_by(error))?;
        let process = rustix::fs::memfd_create(c"process", MemfdFlags::CLOEXEC).call(|| "memfd_create")?;
        // The offset is the reader's too, and stays at the beginning.
        std::os::unix::fs::FileExt::write_all_at(
            &std::fs::File::from(process.try_clone().within(|| "dup")?),
            &text,
            0,
        )
        .within(|| "write the process")?;
        let descriptors: Vec<_> = std::iter::once(process.as_fd()).chain(stdio.iter().copied()).collect();
        client.ask_with(&Request::Exec, &descriptors)?;
        loop {
            match client.listen()? {
                Said::Event(Event::Executed { .. }, Some(pidfd)) => {
                    return Ok(Some(Execution { client, pidfd }));
                }
                Said::Event(Event::Failed(failure), _) => return Err(failure.into()),
                Said::Event(..) => {}
                Said::End => {
                    let words = "the container ended, or has too many clients, while the program was started";
                    return Err(Fault::new(Kind::Conflict, words));
                }
            }
        }
    }
}

impl Execution {
    /// Returns the process's pidfd.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Waits until the process has ended and returns its exit status as a shell shows it.
    ///
    /// # Errors
    /// The failed call; `Interrupted` when the supervisor was lost, and with it the exit status.
    pub fn end(&self) -> Result<u8> {
        let mut container_ended = false;
        loop {
            match self.client.listen()? {
                Said::Event(Event::Ended { code }, _) => return Ok(code),
                Said::Event(Event::Exited { .. }, _) => container_ended = true,
                Said::Event(..) => {}
                // Its processes were killed with it.
                Said::End if container_ended => return Ok(128 + 9),
                Said::End => {
                    let words = "the supervisor died, so nobody saw how the program ended";
                    return Err(Fault::new(Kind::Interrupted, words));
                }
            }
        }
    }
}

impl Engine {
    /// Works out the process.
    ///
    /// # Errors
    /// `Conflict` when the container does not run; `InvalidInput` for a user it does not have.
    pub fn plan_exec(&self, name: &str, options: &ExecOptions) -> Result<ExecPlan> {
        let container = self.container(name)?;
        if !container.status().is_running() {
            let fault = Fault::new(Kind::Conflict, format!("container {name} is not running"));
            let startable = matches!(container.status(), Status::Created | Status::Exited(_));
            return Err(if startable {
                fault.hint(format!("start it first: bale start {name}"))
            } else {
                fault
            });
        }
        let mut process = inspect::config(&container.dir)?.process.unwrap_or_default();
        process.args.clone_from(&options.command);
        process.terminal = options.tty;
        process.console_size = options
            .terminal
            .filter(|_| options.tty)
            .map(|(height, width)| bale_spec::runtime::ConsoleSize { height, width });
        if let Some(workdir) = &options.workdir {
            if !workdir.starts_with('/') {
                return Err(Fault::new(
                    Kind::InvalidInput,
                    format!("the working directory {workdir:?} is not absolute"),
                ));
            }
            process.cwd.clone_from(workdir);
        }
        set_variables(&mut process, options);
        set_user(&mut process, &container, options)?;
        // HOME is last, as docker has it.
        process.env.sort_by_key(|variable| variable.starts_with("HOME="));
        Ok(ExecPlan { dir: container.dir, process })
    }
}

fn set_variables(process: &mut Process, options: &ExecOptions) {
    if options.tty && !process.env.iter().any(|v| v.starts_with("TERM=")) {
        let at = process.env.iter().position(|v| v.starts_with("HOSTNAME=")).map_or(0, |at| at + 1);
        process.env.insert(at, "TERM=xterm".to_owned());
    }
    for variable in &options.env {
        let name = variable.split('=').next().unwrap_or_default();
        let at = process.env.iter().position(|old| old.split('=').next() == Some(name));
        match (at, variable.contains('=')) {
            (Some(at), true) => process.env[at].clone_from(variable),
            (Some(at), false) => drop(process.env.remove(at)),
            (None, true) => process.env.push(variable.clone()),
            (None, false) => {}
        }
    }
}

/// Sets identity and capabilities; without a word from the user they are the container's.
fn set_user(process: &mut Process, container: &Container, options: &ExecOptions) -> Result<()> {
    if let Some(user) = &options.user {
        // Its own view of its files: what it has changed counts.
        let init = container.record.init.as_ref().map_or(0, |init| init.pid);
        let root = RootFd::open(format!("/proc/{init}/root"))?;
        let (passwd, group) =
            (rootfs::read_text(&root, "/etc/passwd")?, rootfs::read_text(&root, "/etc/group")?);
        let text = |text: Option<String>| text.unwrap_or_default();
        let found = bale_spec::user::resolve(user, &text(passwd), &text(group))?;
        process.user =
            User { uid: found.uid, gid: found.gid, additional_gids: found.groups, ..User::default() };
        process.env.retain(|v| !v.starts_with("HOME="));
        process.env.push(format!("HOME={}", found.home));
    }
    if options.privileged {
        let all = host::all_capabilities();
        process.capabilities = Some(Capabilities {
            bounding: all.clone(),
            effective: all.clone(),
            permitted: all,
            ..Capabilities::default()
        });
    }
    Ok(())
}
