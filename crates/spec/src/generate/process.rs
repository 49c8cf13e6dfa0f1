//! The section `process`: what runs, as whom, with which rights.

use bale_fault::{Fault, Kind, Result};

use super::HostFacts;
use crate::capability;
use crate::image::ContainerConfig;
use crate::options::RunOptions;
use crate::options::mount::clean;
use crate::runtime::{Capabilities, Process, User};
use crate::user::{self, Identity};

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(super) fn process(
    image: &ContainerConfig,
    options: &RunOptions,
    facts: &HostFacts,
    hostname: &str,
) -> Result<Process> {
    let identity = identity(image, options, facts)?;
    let all = if facts.capabilities.is_empty() {
        capability::ALL.iter().map(|c| (*c).to_owned()).collect()
    } else {
        facts.capabilities.clone()
    };
    let capabilities = capabilities(&options.cap_add, &options.cap_drop, options.privileged, &all);
    Ok(Process {
        terminal: options.tty,
        user: User {
            uid: identity.uid,
            gid: identity.gid,
            additional_gids: identity.groups.clone(),
            ..User::default()
        },
        args: arguments(image, options)?,
        env: environment(image, options, hostname, &identity.home)?,
        cwd: working_directory(image, options)?,
        capabilities: Some(Capabilities {
            bounding: capabilities.clone(),
            effective: capabilities.clone(),
            permitted: capabilities,
            ..Capabilities::default()
        }),
        rlimits: options.ulimits.clone(),
        no_new_privileges: options.security.no_new_privileges,
        apparmor_profile: options.security.apparmor.clone().filter(|p| p != "unconfined"),
        // Said even when it is 0: what starts bale may have another one, and children inherit it.
        oom_score_adj: Some(options.limits.oom_score_adj.unwrap_or(0)),
        ..Process::default()
    })
}

fn identity(image: &ContainerConfig, options: &RunOptions, facts: &HostFacts) -> Result<Identity> {
    let wanted = options.user.as_deref().unwrap_or(&image.user);
    let group = facts.group.as_deref().unwrap_or_default();
    let mut identity = user::resolve(wanted, facts.passwd.as_deref().unwrap_or_default(), group)?;
    identity.groups.extend(user::resolve_groups(&options.group_add, group)?);
    identity.groups = user::without_doubles(identity.groups);
    Ok(identity)
}

/// Entrypoint and Cmd as docker joins them: an entrypoint of the user's drops the image's Cmd.
fn arguments(image: &ContainerConfig, options: &RunOptions) -> Result<Vec<String>> {
    let entrypoint = options.entrypoint.as_ref().or(image.entrypoint.as_ref());
    let mut args = entrypoint.cloned().unwrap_or_default();
    let command = match (&options.entrypoint, options.command.as_slice()) {
        (None, []) => image.cmd.clone().unwrap_or_default(),
        (_, command) => command.to_vec(),
    };
    args.extend(command);
    match args.first() {
        None => {
            let fault = Fault::new(Kind::InvalidInput, "no command specified");
            Err(fault.hint(
                "the image has no Entrypoint and no Cmd: name the program, `bale run IMAGE COMMAND` or \
                 `bale bundle IMAGE DIR -- COMMAND`",
            ))
        }
        Some(program) if program.is_empty() => {
            Err(Fault::new(Kind::ProgramNotFound, "exec: \"\": executable file not found in $PATH"))
        }
        Some(_) if args.iter().any(|a| a.contains('\0')) => {
            Err(Fault::new(Kind::InvalidInput, "the command holds a NUL byte"))
        }
        Some(_) => Ok(args),
    }
}

/// PATH, HOSTNAME, TERM, the user's, the image's that are left, HOME: docker's order, each name once.
fn environment(
    image: &ContainerConfig,
    options: &RunOptions,
    hostname: &str,
    home: &str,
) -> Result<Vec<String>> {
    let mut entries = vec![DEFAULT_PATH.to_owned(), format!("HOSTNAME={hostname}")];
    if options.tty {
        entries.push("TERM=xterm".to_owned());
    }
    // The image's come from a stranger: what has no name, or no value, is passed over.
    let named = |entry: &&String| entry.find('=').is_some_and(|at| at > 0);
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let own: Vec<String> = options.env.iter().map(|entry| name(entry)).collect();
    let images = image.env.iter().filter(named).filter(|entry| !own.contains(&name(entry)));
    for entry in options.env.iter().chain(images) {
        replace(&mut entries, entry);
    }
    if !entries.iter().any(|e| e.starts_with("HOME=") && e != "HOME=") {
        replace(&mut entries, &format!("HOME={home}"));
    }
    match entries.iter().find(|e| e.contains('\0')) {
        Some(entry) => {
            Err(Fault::new(Kind::InvalidInput, format!("the variable {entry:?} holds a NUL byte")))
        }
        None => Ok(entries),
    }
}

/// Puts `entry` in the place of one with the same name, or at the end; a name alone takes the old one away.
fn replace(entries: &mut Vec<String>, entry: &str) {
    let name = entry.split('=').next().unwrap_or_default();
    let at = entries.iter().position(|e| e.split('=').next() == Some(name));
    match (at, entry.contains('=')) {
        (Some(at), true) => entries[at] = entry.to_owned(),
        (Some(at), false) => {
            entries.remove(at);
        }
        (None, true) => entries.push(entry.to_owned()),
        (None, false) => {}
    }
}

fn working_directory(image: &ContainerConfig, options: &RunOptions) -> Result<String> {
    let wanted = options.workdir.as_deref().unwrap_or(&image.working_dir);
    if !wanted.is_empty() && !wanted.starts_with('/') {
        let words = format!("the working directory {wanted:?} is invalid, it needs to be an absolute path");
        return Err(Fault::new(Kind::InvalidInput, words).hint("say --workdir /path"));
    }
    if wanted.contains('\0') {
        return Err(Fault::new(
            Kind::InvalidInput,
            format!("the working directory {wanted:?} holds a NUL byte"),
        ));
    }
    Ok(clean(wanted))
}

/// Returns the capabilities that `--cap-add`, `--cap-drop` and `--privileged` come to; `all` are the kernel's.
#[must_use]
pub fn capabilities(add: &[String], drop: &[String], privileged: bool, all: &[String]) -> Vec<String> {
    let every = |list: &[String]| list.iter().any(|c| c == "ALL");
    let kept = |list: &[String]| list.iter().filter(|c| !drop.contains(c)).cloned().collect::<Vec<_>>();
    let mut found = match (privileged || every(add), every(drop)) {
        (true, _) if privileged => return all.to_vec(),
        (true, _) => return kept(all),
        (false, true) => Vec::new(),
        (false, false) => kept(&capability::DOCKER_DEFAULT.map(str::to_owned)),
    };
    for capability in add {
        if !found.contains(capability) {
            found.push(capability.clone());
        }
    }
    found
}
