//! What was typed wrongly: clap finds it, here it becomes a failure like every other, with what was probably meant.

use crate::exit::ExitCode;
use std::ffi::OsString;

use bale_fault::{Fault, Kind};
use bale_spec::suggest::{closest, did_you_mean};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory};

use super::Cli;
use super::usage::first_word;
use crate::exit;

/// Docker's commands that have no counterpart: a user who types one made no slip.
const NOT_THERE: [&str; 24] = [
    "build",
    "builder",
    "buildx",
    "commit",
    "compose",
    "container",
    "cp",
    "diff",
    "events",
    "history",
    "image",
    "info",
    "network",
    "pause",
    "port",
    "rename",
    "restart",
    "search",
    "stats",
    "swarm",
    "system",
    "top",
    "unpause",
    "update",
];

/// Prints help, or what is wrong, and chooses docker's exit code: 125 for a flag that is wrong, 1 for a verb or argument
/// that is, 0 for help, also when help is shown because nothing was asked.
pub fn report(error: &clap::Error, arguments: &[OsString]) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // Nothing is left to tell when the output is closed.
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            return help_unasked(error);
        }
        _ => {}
    }
    let (path, command) = verb_of(arguments);
    exit::report(&fault(error, &path, command));
    match error.kind() {
        ErrorKind::MissingRequiredArgument | ErrorKind::InvalidSubcommand => ExitCode::FAILURE,
        ErrorKind::UnknownArgument if !text(error, ContextKind::InvalidArg).starts_with('-') => {
            ExitCode::FAILURE
        }
        _ => ExitCode::from(exit::FAILURE),
    }
}

/// The verb that was typed, as far as it is known: `volume create` and its command; nothing and the whole program else.
fn verb_of(arguments: &[OsString]) -> (String, Command) {
    let mut command = Cli::command();
    command.build();
    let mut path = String::new();
    let words = first_word(arguments).map(|at| &arguments[at..]).unwrap_or_default();
    for word in words.iter().map_while(|word| word.to_str()) {
        let Some(inner) = command.find_subcommand(word) else { break };
        path = format!("{path} {word}");
        command = inner.clone();
    }
    (path.trim_start().to_owned(), command)
}

fn fault(error: &clap::Error, path: &str, mut command: Command) -> Fault {
    let prefix = if path.is_empty() { String::new() } else { format!("{path}: ") };
    let of = |words: String| Fault::new(Kind::InvalidInput, format!("{prefix}{words}"));
    let help = format!("{} --help", format!("bale {path}").trim_end());
    let wrong = text(error, ContextKind::InvalidArg);
    let value = text(error, ContextKind::InvalidValue);
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let typed = text(error, ContextKind::InvalidSubcommand);
            if path.is_empty() && typed == "runc" {
                let hint = "its flags follow it: bale runc --root DIR COMMAND";
                return of("runc stands before all flags".to_owned()).hint(hint);
            }
            let near = did_you_mean(&typed, command.get_subcommands().map(Command::get_name));
            let words = if path.is_empty() && NOT_THERE.contains(&typed.as_str()) {
                format!("docker's command {typed:?} is not part of bale yet")
            } else {
                format!("unknown command {typed:?}{near}")
            };
            of(words).hint(format!("{help} lists the commands"))
        }
        ErrorKind::UnknownArgument if wrong.starts_with('-') => {
            let near = near_flag(&command, &wrong);
            of(format!("unknown flag {wrong}{near}")).hint(format!("{help} lists the flags"))
        }
        ErrorKind::UnknownArgument => of(format!("unexpected argument {wrong:?}")).hint(usage(&mut command)),
        ErrorKind::MissingRequiredArgument => {
            let are = if wrong.contains(", ") { "are" } else { "is" };
            of(format!("{wrong} {are} missing")).hint(usage(&mut command))
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation if !value.is_empty() => {
            of(format!("{wrong} {value:?}{}", why(error, &value))).hint(help)
        }
        ErrorKind::InvalidValue | ErrorKind::NoEquals | ErrorKind::TooFewValues => {
            of(format!("{wrong} needs a value")).hint(help)
        }
        ErrorKind::ArgumentConflict => of(conflict(&wrong, &text(error, ContextKind::PriorArg))).hint(help),
        _ => {
            let words = error.to_string();
            of(words.trim_start_matches("error: ").lines().next().unwrap_or_default().to_owned()).hint(help)
        }
    }
}

/// What clap remembers of a failure; names of several are joined, as `<NAME>` without their brackets.
fn text(error: &clap::Error, kind: ContextKind) -> String {
    let plain =
        |name: &str| name.trim_start_matches('<').trim_end_matches("...").trim_end_matches('>').to_owned();
    match error.get(kind) {
        Some(ContextValue::String(one)) => flag_of(one).map_or_else(|| one.clone(), str::to_owned),
        Some(ContextValue::Strings(many)) => {
            let named: Vec<String> =
                many.iter().map(|name| flag_of(name).map_or_else(|| plain(name), str::to_owned)).collect();
            named.join(", ")
        }
        _ => String::new(),
    }
}

/// Returns `--pull` of `--pull <always|missing|never>`.
fn flag_of(argument: &str) -> Option<&str> {
    argument.split_once(" <").map(|(flag, _)| flag).filter(|flag| flag.starts_with('-'))
}

fn why(error: &clap::Error, value: &str) -> String {
    use std::error::Error;
    if let Some(source) = error.source() {
        return format!(": {source}");
    }
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(known)) => {
            let near = did_you_mean(value, known.iter().map(String::as_str));
            format!(" is none of {}{near}", known.join(", "))
        }
        _ => " is no value for it".to_owned(),
    }
}

fn conflict(one: &str, other: &str) -> String {
    if one == other {
        format!("{one} was given twice")
    } else {
        format!("{one} and {other} exclude each other")
    }
}

fn near_flag(command: &Command, typed: &str) -> String {
    let Some(name) = typed.strip_prefix("--") else { return String::new() };
    let shown = command.get_arguments().filter(|arg| !arg.is_hide_set());
    let known =
        shown.flat_map(|arg| arg.get_long().into_iter().chain(arg.get_visible_aliases().unwrap_or_default()));
    closest(name, known).map(|near| format!("; did you mean --{near}?")).unwrap_or_default()
}

fn usage(command: &mut Command) -> String {
    command.render_usage().to_string().replacen("Usage:", "usage:", 1)
}

/// Shows help on standard error, as docker does for a noun without a verb.
fn help_unasked(error: &clap::Error) -> ExitCode {
    let named = match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(name)) => name.split(' ').next_back().map(str::to_owned),
        _ => None,
    };
    let mut command = Cli::command();
    command.build();
    let shown = named.and_then(|name| command.find_subcommand_mut(&name).map(Command::render_help));
    let shown = shown.unwrap_or_else(|| Cli::command().render_help());
    use std::io::Write;
    // Nothing is left to tell when standard error is closed.
    let _ = write!(std::io::stderr(), "{shown}");
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn mistakes_have_a_place_and_what_was_meant() {
        let cases = [
            ("rnu", "unknown command \"rnu\"; did you mean \"run\"?", "bale --help lists the commands"),
            (
                "imagse",
                "unknown command \"imagse\"; did you mean \"images\"?",
                "bale --help lists the commands",
            ),
            (
                "--root /x runc list",
                "runc stands before all flags",
                "its flags follow it: bale runc --root DIR COMMAND",
            ),
            ("stpo x", "unknown command \"stpo\"; did you mean \"stop\"?", "bale --help lists the commands"),
            (
                "build .",
                "docker's command \"build\" is not part of bale yet",
                "bale --help lists the commands",
            ),
            ("frobnicate", "unknown command \"frobnicate\"", "bale --help lists the commands"),
            (
                "volume craete",
                "volume: unknown command \"craete\"; did you mean \"create\"?",
                "bale volume --help lists the commands",
            ),
            (
                "run --detahc x",
                "run: unknown flag --detahc; did you mean --detach?",
                "bale run --help lists the flags",
            ),
            (
                "--root /x run --netwrok=host x",
                "run: unknown flag --netwrok; did you mean --network?",
                "bale run --help lists the flags",
            ),
            ("run -z x", "run: unknown flag -z", "bale run --help lists the flags"),
            ("ps x", "ps: unexpected argument \"x\"", "usage: bale ps [OPTIONS]"),
            (
                "run",
                "run: IMAGE|./BUNDLE is missing",
                "usage: bale run [OPTIONS] <IMAGE|./BUNDLE> [COMMAND]...",
            ),
            (
                "exec",
                "exec: CONTAINER, COMMAND are missing",
                "usage: bale exec [OPTIONS] <CONTAINER> <COMMAND>...",
            ),
            (
                "run --pull somtimes x",
                "run: --pull \"somtimes\": want always, missing or never",
                "bale run --help",
            ),
            (
                "check --format jsn x",
                "check: --format \"jsn\" is none of table, json; did you mean \"json\"?",
                "bale check --help",
            ),
            ("load -i", "load: --input needs a value", "bale load --help"),
        ];
        for (typed, words, hint) in cases {
            let arguments: Vec<OsString> = format!("bale {typed}").split(' ').map(OsString::from).collect();
            let error = Cli::try_parse_from(&arguments).err().expect("a mistake");
            let (path, command) = verb_of(&arguments);
            let fault = fault(&error, &path, command);
            assert_eq!((fault.chain().as_str(), fault.innermost_hint()), (words, Some(hint)), "{typed}");
        }
    }
}
