//! The command line for people: arguments in, one engine call, output out. One file per verb.
#![allow(
    clippy::needless_pass_by_value,
    reason = "a verb takes its arguments over, whether it needs to or not"
)]

mod attach;
mod bundle;
mod check;
mod create;
mod each;
mod exec;
mod export;
mod flags;
mod images;
mod import;
mod inspect;
mod kill;
mod load;
mod login;
mod logout;
mod logs;
mod mistake;
mod ps;
mod pull;
mod push;
mod rm;
mod rmi;
mod run;
mod save;
mod set;
mod spec;
mod start;
mod stop;
mod tag;
mod upgrade;
mod usage;
mod version;
mod volume;
mod wait;

use crate::exit::ExitCode;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::exit;

use each::each;

/// Image name to running container, in one binary.
#[derive(Parser)]
#[command(
    name = "bale",
    version,
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "`bale runc COMMAND`, and bale called as runc, crun or bale-runc, is the command line of an OCI runtime: bale runc --help"
)]
struct Cli {
    /// Directory of images, containers and volumes
    #[arg(long, global = true, env = "BALE_ROOT", default_value = "/var/lib/bale", value_name = "DIR")]
    root: PathBuf,
    #[command(subcommand)]
    verb: Verb,
}

/// What every verb needs to know.
pub struct Context {
    /// Directory of images, containers and volumes (`--root`, `BALE_ROOT`).
    pub root: PathBuf,
}

#[derive(Subcommand)]
enum Verb {
    /// Pulls an image from a registry
    Pull(pull::Args),
    /// Pushes an image to a registry
    Push(push::Args),
    /// Lists images
    Images(images::Args),
    /// Gives an image another name
    Tag(tag::Args),
    /// Removes images
    Rmi(rmi::Args),
    /// Makes an image of a file system archive
    Import(import::Args),
    /// Writes a container's file system as a tar archive
    Export(export::Args),
    /// Writes images to an archive
    Save(save::Args),
    /// Reads images from an archive
    Load(load::Args),
    /// Stores a registry's credentials
    Login(login::Args),
    /// Forgets a registry's credentials
    Logout(logout::Args),
    /// Makes a bundle of an image
    Bundle(bundle::Args),
    /// Writes a config.json to start from
    Spec(spec::Args),
    /// Changes a bundle's config by path
    Set(set::Args),
    /// Tells what is wrong with a bundle
    Check(check::Args),
    /// Converts a bundle of 2015 to 2017 to today's format
    Upgrade(upgrade::Args),
    /// Makes a container and runs it
    Run(run::Args),
    /// Makes a container
    Create(create::Args),
    /// Starts containers
    Start(start::Args),
    /// Lists containers
    Ps(ps::Args),
    /// Shows what a container wrote
    Logs(logs::Args),
    /// Runs a command in a running container
    Exec(exec::Args),
    /// Connects to a running container
    Attach(attach::Args),
    /// Waits for containers to end and prints their exit codes
    Wait(wait::Args),
    /// Stops containers
    Stop(stop::Args),
    /// Sends a signal to containers
    Kill(kill::Args),
    /// Removes containers
    Rm(rm::Args),
    /// Shows all that is known of a container, image or volume
    Inspect(inspect::Args),
    /// Manages volumes
    Volume(volume::Args),
    /// Shows the version
    Version(version::Args),
}

/// Runs `bale VERB …`.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let arguments = flags::separate(usage::spelled_out(arguments));
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return mistake::report(&error, &arguments),
    };
    let context = Context { root: cli.root };
    let outcome = match cli.verb {
        Verb::Pull(args) => pull::run(args, &context),
        Verb::Push(args) => push::run(args, &context),
        Verb::Images(args) => images::run(args, &context),
        Verb::Tag(args) => tag::run(args, &context),
        Verb::Rmi(args) => rmi::run(args, &context),
        Verb::Import(args) => import::run(args, &context),
        Verb::Export(args) => export::run(args, &context),
        Verb::Save(args) => save::run(args, &context),
        Verb::Load(args) => load::run(args, &context),
        Verb::Login(args) => login::run(args, &context),
        Verb::Logout(args) => logout::run(args, &context),
        Verb::Bundle(args) => bundle::run(args, &context),
        Verb::Spec(args) => spec::run(args, &context),
        Verb::Set(args) => set::run(args, &context),
        Verb::Check(args) => check::run(args, &context),
        Verb::Upgrade(args) => upgrade::run(args, &context),
        Verb::Run(args) => run::run(args, &context),
        Verb::Create(args) => create::run(args, &context),
        Verb::Start(args) => start::run(args, &context),
        Verb::Ps(args) => ps::run(args, &context),
        Verb::Logs(args) => logs::run(args, &context),
        Verb::Exec(args) => exec::run(args, &context),
        Verb::Attach(args) => attach::run(args, &context),
        Verb::Wait(args) => wait::run(args, &context),
        Verb::Stop(args) => stop::run(args, &context),
        Verb::Kill(args) => kill::run(args, &context),
        Verb::Rm(args) => rm::run(args, &context),
        Verb::Inspect(args) => inspect::run(args, &context),
        Verb::Volume(args) => volume::run(args, &context),
        Verb::Version(args) => version::run(args, &context),
    };
    outcome.unwrap_or_else(|fault| {
        exit::report(&fault);
        ExitCode::FAILURE
    })
}
