//! `bale volume`.

use std::process::ExitCode;

use bale_engine::{Engine, describe_volume};
use bale_fault::{Fault, Kind, Result};
use clap::Subcommand;

use super::{Context, each};
use crate::output::{self, Column};

/// Arguments of `bale volume`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Makes a volume
    Create {
        /// Label
        #[arg(long, value_name = "KEY[=VALUE]")]
        label: Vec<String>,
        /// Name; one of 64 digits is made up without it
        #[arg(value_name = "VOLUME")]
        name: Option<String>,
    },
    /// Lists volumes
    #[command(visible_alias = "list")]
    Ls {
        /// Print the names only
        #[arg(short, long)]
        quiet: bool,
        /// Print table, json, or a template
        #[arg(long, value_name = "FORMAT")]
        format: Option<String>,
    },
    /// Shows all that is known of volumes
    Inspect {
        /// Names
        #[arg(value_name = "VOLUME", required = true)]
        names: Vec<String>,
    },
    /// Removes volumes
    #[command(visible_alias = "remove")]
    Rm {
        /// Pass over those that do not exist
        #[arg(short, long)]
        force: bool,
        /// Names
        #[arg(value_name = "VOLUME", required = true)]
        names: Vec<String>,
    },
    /// Removes volumes that no container uses
    Prune {
        /// Those with a name too, not only the anonymous ones
        #[arg(short, long)]
        all: bool,
        /// Do not ask (bale never asks; for scripts written for docker)
        #[arg(short, long)]
        force: bool,
    },
}

/// Manages volumes.
pub fn run(args: Args, context: &Context) -> Result<ExitCode> {
    let engine = Engine::open(&context.root)?;
    match args.verb {
        Verb::Create { label, name } => {
            let labels = label.iter().map(|text| {
                let (key, value) = text.split_once('=').unwrap_or((text, ""));
                (key.to_owned(), value.to_owned())
            });
            let info = engine.create_volume(name.as_deref(), labels.collect())?;
            output::write(&format!("{}\n", info.name))?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Ls { quiet, format } => list(&engine, quiet, format.as_deref()),
        Verb::Inspect { names } => super::inspect::print(&names, |name| engine.inspect_volume(name)),
        Verb::Rm { force, names } => Ok(each(&names, |name| match engine.remove_volume(name) {
            Err(fault) if force && fault.kind() == Kind::NotFound => Ok(None),
            other => other.map(|()| Some(name.to_owned())),
        })),
        Verb::Prune { all, force: _ } => prune(&engine, all),
    }
}

fn list(engine: &Engine, quiet: bool, format: Option<&str>) -> Result<ExitCode> {
    let volumes = engine.list_volumes()?;
    if quiet {
        output::write(&volumes.iter().map(|info| format!("{}\n", info.name)).collect::<String>())?;
        return Ok(ExitCode::SUCCESS);
    }
    let columns = [
        Column::new("Driver", "DRIVER"),
        Column::new("Name", "VOLUME NAME"),
        Column::hidden("Mountpoint"),
        Column::hidden("CreatedAt"),
        Column::hidden("Labels"),
    ];
    let rows: Vec<Vec<String>> = volumes
        .iter()
        .map(|info| {
            let labels: Vec<String> = info.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
            let mountpoint = info.mountpoint.to_string_lossy().into_owned();
            vec!["local".to_owned(), info.name.clone(), mountpoint, info.created.clone(), labels.join(",")]
        })
        .collect();
    output::list(&columns, &rows, format)?;
    Ok(ExitCode::SUCCESS)
}

fn prune(engine: &Engine, all: bool) -> Result<ExitCode> {
    let unused =
        engine.list_volumes()?.into_iter().filter(|info| all || info.anonymous).map(|info| info.name);
    let names: Vec<String> = unused.collect();
    Ok(each(&names, |name| match engine.remove_volume(name) {
        Err(fault) if matches!(fault.kind(), Kind::Conflict | Kind::NotFound) => Ok(None),
        other => other.map(|()| Some(name.to_owned())),
    }))
}

/// Describes a volume for `bale inspect`.
pub fn describe(engine: &Engine, name: &str) -> Result<serde_json::Value> {
    let info = engine.volume(name)?;
    if info.name.is_empty() {
        return Err(Fault::new(Kind::Corrupt, format!("volume {name:?} has no name")));
    }
    Ok(describe_volume(&info))
}
