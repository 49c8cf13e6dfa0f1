//! The runtime's command line, as runc has it.
//!
//! Its callers are programs: flags may be repeated, have one dash or two, and stand before or after the container's
//! id. What they read of the output, the exit status and the words of errors is written down in `docs/runc.md`.

pub(crate) mod args;
mod control;
mod create;
mod events;
mod exec;
mod features;
mod foreground;
mod list;
mod log;
mod notify;
mod spec;
mod update;

use crate::exit::ExitCode;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use bale_fault::{Fault, Kind, Result};
use bale_record::Dir;
use bale_runtime::CgroupManager;

use args::{Flag, Parsed, flag, value};

/// What stands before the command.
struct Global {
    called_as: String,
    root: PathBuf,
    root_given: bool,
    log: Option<log::Log>,
    json: bool,
    cgroup_manager: CgroupManager,
    debug: bool,
}

const GLOBAL: &[Flag] = &[
    value("root", ""),
    value("log", ""),
    value("log-format", ""),
    value("log-level", ""),
    value("rootless", ""),
    value("criu", ""),
    value("cgroup-manager", ""),
    flag("debug", ""),
    flag("systemd-cgroup", ""),
    flag("systemd-log", ""),
    flag("timings", ""),
    flag("version", "v"),
    flag("help", "h"),
];

const COMMANDS: &[(&str, &str)] = &[
    ("create", "create a container"),
    ("delete", "delete a container and what it holds"),
    ("events", "show events and statistics of a container"),
    ("exec", "execute a process inside a container"),
    ("features", "show what this runtime can do"),
    ("kill", "send a signal (default: SIGTERM) to a container's init"),
    ("list", "list containers started with the given root"),
    ("pause", "suspend all processes of a container"),
    ("ps", "show the processes of a container"),
    ("resume", "resume all processes of a container"),
    ("run", "create and run a container"),
    ("spec", "write a config.json to start from"),
    ("start", "start the process of a created container"),
    ("state", "show the state of a container"),
    ("update", "change the limits of a container"),
];

/// Runs `bale runc …`, or bale called as `runc`, `crun` or `bale-runc`.
pub fn main(called_as: &str, arguments: &[OsString]) -> ExitCode {
    let (parsed, rest) = match args::parse_global(GLOBAL, arguments) {
        Ok(parsed) => parsed,
        Err(fault) => return complain(called_as, "", &fault),
    };
    if parsed.has("version") {
        return print(&version(called_as));
    }
    let Some((command, rest)) = rest.split_first().filter(|_| !parsed.has("help")) else {
        return print(&usage(called_as));
    };
    let command = command.to_string_lossy().into_owned();
    let global = match global(called_as, &parsed) {
        Ok(global) => global,
        Err(fault) => return complain(called_as, &command, &fault),
    };
    if parsed.has("timings") {
        bale_runtime::timings::enable();
    }
    let done = dispatch(&global, &command, rest);
    bale_runtime::timings::print();
    match done {
        Ok(code) => code,
        Err(fault) => {
            log::error(&global, &fault);
            complain(called_as, &command, &fault)
        }
    }
}

fn dispatch(global: &Global, command: &str, rest: &[OsString]) -> Result<ExitCode> {
    let mut flags = rest.iter().take_while(|word| word.as_encoded_bytes().starts_with(b"-"));
    if flags.any(|word| ["--help", "-help", "-h"].iter().any(|help| word == help))
        && let Some(text) = command_usage(&global.called_as, command)
    {
        return Ok(print(&text));
    }
    match command {
        "create" => create::create(global, rest),
        "run" => create::run(global, rest),
        "start" => control::start(global, rest),
        "state" => control::state(global, rest),
        "kill" => control::kill(global, rest),
        "delete" => control::delete(global, rest),
        "pause" => control::pause(global, rest),
        "resume" => control::resume(global, rest),
        "ps" => list::ps(global, rest),
        "list" => list::list(global, rest),
        "exec" => exec::exec(global, rest),
        "events" => events::events(global, rest),
        "update" => update::update(global, rest),
        "features" => args::parse(&[], rest, false)?.at_most(0).map(|_| print(&features::text())),
        "spec" => spec::spec(rest),
        "help" => Ok(print(&usage(&global.called_as))),
        "checkpoint" | "restore" => {
            // A caller finds out whether pods can be restored by this flag without its value.
            if rest
                .last()
                .is_some_and(|last| last.to_string_lossy().trim_start_matches('-') == "lsm-mount-context")
            {
                return Err(Fault::new(Kind::InvalidInput, "flag needs an argument: --lsm-mount-context"));
            }
            Err(Fault::new(Kind::Unsupported, format!("{command} is not supported")))
        }
        other => {
            let near = bale_spec::suggest::did_you_mean(other, COMMANDS.iter().map(|c| c.0));
            Err(Fault::new(Kind::InvalidInput, format!("unknown command {other:?}{near}")))
        }
    }
}

fn global(called_as: &str, parsed: &Parsed) -> Result<Global> {
    let json = match parsed.last("log-format").as_deref() {
        None | Some("text" | "") => false,
        Some("json") => true,
        Some(other) => return Err(Fault::new(Kind::InvalidInput, format!("invalid log-format: {other:?}"))),
    };
    let cgroup_manager = match parsed.last("cgroup-manager").as_deref() {
        Some("systemd") => CgroupManager::Systemd,
        Some("disabled") => CgroupManager::Disabled,
        None | Some("cgroupfs" | "") if parsed.has("systemd-cgroup") => CgroupManager::Systemd,
        None | Some("cgroupfs" | "") => CgroupManager::Cgroupfs,
        Some(other) => {
            return Err(Fault::new(Kind::InvalidInput, format!("invalid cgroup-manager: {other:?}")));
        }
    };
    let root = parsed.last("root").filter(|root| !root.is_empty());
    let log = parsed
        .last("log")
        .filter(|log| !log.is_empty() && !log.starts_with("journald:") && !log.starts_with("syslog:"));
    Ok(Global {
        called_as: called_as.to_owned(),
        root_given: root.is_some(),
        root: absolute(&root.unwrap_or_else(|| "/run/bale/runc".to_owned()))?,
        log: log.and_then(|path| log::Log::open(Path::new(path.strip_prefix("file:").unwrap_or(&path)))),
        json,
        cgroup_manager,
        debug: parsed.has("debug"),
    })
}

impl Global {
    /// Opens the directory of the container that the only argument names.
    fn container(&self, parsed: &Parsed) -> Result<Dir> {
        Dir::open(&self.root, parsed.id()?)
    }
}

/// Tells whoever types the command something that is no error. With a log there is a caller, who takes what stands on
/// standard error for the container's words or for a failure.
fn note(global: &Global, words: &str) {
    if global.log.is_none() {
        let words = crate::exit::printable(words);
        let _ = writeln!(std::io::stderr(), "{}: {words}", global.called_as);
    }
}

/// Makes a path absolute by the working directory, without looking at it.
fn absolute(path: &str) -> Result<PathBuf> {
    use bale_fault::Context;
    std::path::absolute(path).within(|| format!("resolve {path:?}"))
}

/// Prints to standard output; a closed one is no failure of ours to tell.
fn print(text: &str) -> ExitCode {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The chain, with what podman looks for in it: it knows a program that cannot be executed by these words alone, and a
/// directory (EISDIR) has others.
fn words(fault: &Fault) -> String {
    let chain = fault.chain();
    if fault.kind() == Kind::ProgramNotExecutable && chain.ends_with("is a directory") {
        return format!("{chain} (permission denied)");
    }
    chain
}

/// Prints the chain and the hint, and returns runc's exit status: 255 for exec, 1 for all else.
fn complain(called_as: &str, command: &str, fault: &Fault) -> ExitCode {
    let mut stderr = std::io::stderr().lock();
    let failed = if command.is_empty() { String::new() } else { format!("{command} failed: ") };
    // Nothing is left to tell when standard error is closed.
    // The word stands in every line of runc, crun and youki that tells of one, and is looked for.
    let _ = writeln!(stderr, "{called_as}: error: {failed}{}", crate::exit::printable(&words(fault)));
    if let Some(hint) = fault.innermost_hint() {
        let _ = writeln!(stderr, "  hint: {}", crate::exit::printable(hint));
    }
    ExitCode::from(if command == "exec" { 255 } else { 1 })
}

fn version(called_as: &str) -> String {
    let name = if called_as == "bale-runc" { "runc" } else { called_as };
    format!(
        "{name} version {}\ncommit: bale-{}\nspec: {}\n",
        env!("CARGO_PKG_VERSION"),
        env!("CARGO_PKG_VERSION"),
        bale_spec::runtime::SPEC_VERSION
    )
}

/// What `COMMAND --help` prints; `None` for what is no command here, so that callers learn that by the exit status.
fn command_usage(called_as: &str, command: &str) -> Option<String> {
    let (_, what) = COMMANDS.iter().find(|(name, _)| *name == command)?;
    let (flags, arguments): (&[Flag], &str) = match command {
        "create" => (create::CREATE, "ID"),
        "run" => (create::RUN, "ID"),
        "exec" => (exec::EXEC, "ID COMMAND [ARGUMENTS]"),
        "update" => (update::UPDATE, "ID"),
        "kill" => (control::KILL, "ID [SIGNAL]"),
        "delete" => (control::DELETE, "ID"),
        "events" => (events::EVENTS, "ID"),
        "list" => (list::LIST, ""),
        "ps" => (list::PS, "ID [PS ARGUMENTS]"),
        "spec" => (spec::SPEC, ""),
        "features" => (&[], ""),
        _ => (&[], "ID"),
    };
    let options = if flags.is_empty() { "" } else { " [options]" };
    let title = format!("{called_as} {command} - {what}");
    Some(format!("{title}\n\nusage: {called_as} {command}{options} {arguments}\n{}", args::help(flags)))
}

fn usage(called_as: &str) -> String {
    let mut text =
        format!("usage: {called_as} [global options] COMMAND [options] [arguments]\n\ncommands:\n");
    for (name, what) in COMMANDS {
        text.push_str(&format!("   {name:<10} {what}\n"));
    }
    text.push_str("\nglobal options:\n");
    text.push_str(&args::help(GLOBAL));
    text
}
