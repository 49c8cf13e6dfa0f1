//! `bale volume`.

use crate::exit::ExitCode;

use bale_engine::{Engine, VolumeInfo, describe_volume};
use bale_fault::{Fault, Kind, Result};
use clap::Subcommand;

use super::{Context, each};
use crate::exit;
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
        /// Driver: local, the only one
        #[arg(short, long, value_name = "DRIVER", default_value = "local", value_parser = ["local"])]
        driver: String,
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
        /// Show what fits: name=…, label=KEY[=VALUE], dangling=true|false, driver=local
        #[arg(short, long, value_name = "KEY=VALUE")]
        filter: Vec<String>,
        /// Print table, json, or a template
        #[arg(long, value_name = "FORMAT")]
        format: Option<String>,
    },
    /// Shows all that is known of volumes
    Inspect {
        /// Print a value by its path, such as '{{.Mountpoint}}'
        #[arg(short, long, value_name = "FORMAT")]
        format: Option<String>,
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
        Verb::Create { driver: _, label, name } => {
            let labels = label.iter().map(|text| {
                let (key, value) = text.split_once('=').unwrap_or((text, ""));
                (key.to_owned(), value.to_owned())
            });
            let info = engine.create_volume(name.as_deref(), labels.collect())?;
            output::write(&format!("{}\n", info.name))?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Ls { quiet, filter, format } => list(&engine, quiet, &filter, format.as_deref()),
        Verb::Inspect { format, names } => {
            super::inspect::print(&names, format.as_deref(), |name| engine.inspect_volume(name))
        }
        Verb::Rm { force, names } => Ok(each(&names, |name| match engine.remove_volume(name) {
            // As docker: what is gone already is printed too.
            Err(fault) if force && fault.kind() == Kind::NotFound => Ok(Some(name.to_owned())),
            other => other.map(|()| Some(name.to_owned())),
        })),
        Verb::Prune { all, force: _ } => prune(&engine, all),
    }
}

fn list(engine: &Engine, quiet: bool, filter: &[String], format: Option<&str>) -> Result<ExitCode> {
    let filters = filter.iter().map(|text| Filter::parse(text)).collect::<Result<Vec<_>>>()?;
    let mut volumes = Vec::new();
    for info in engine.list_volumes()? {
        let mut fits = true;
        for filter in &filters {
            fits = fits && filter.fits(engine, &info)?;
        }
        if fits {
            volumes.push(info);
        }
    }
    if quiet {
        output::write(&volumes.iter().map(|info| format!("{}\n", info.name)).collect::<String>())?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = volumes.iter().map(row).collect();
    output::list(&COLUMNS, &rows, format)?;
    Ok(ExitCode::SUCCESS)
}

const COLUMNS: [Column; 10] = [
    Column::new("Driver", "DRIVER"),
    Column::new("Name", "VOLUME NAME"),
    Column::hidden("Mountpoint"),
    Column::hidden("Labels"),
    Column::hidden("Scope"),
    Column::hidden("Availability"),
    Column::hidden("Group"),
    Column::hidden("Links"),
    Column::hidden("Size"),
    Column::hidden("Status"),
];

fn row(info: &VolumeInfo) -> Vec<String> {
    let labels: Vec<String> = info.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let mountpoint = info.mountpoint.to_string_lossy().into_owned();
    let mut row = vec!["local".to_owned(), info.name.clone(), mountpoint];
    row.extend([labels.join(","), "local".to_owned()]);
    // What docker does not tell about a local volume either.
    row.resize(COLUMNS.len(), "N/A".to_owned());
    row
}

enum Filter {
    Name(String),
    Label(String, Option<String>),
    Dangling(bool),
    Driver(String),
}

impl Filter {
    fn parse(text: &str) -> Result<Self> {
        const KEYS: [&str; 4] = ["dangling", "driver", "label", "name"];
        let invalid = |why: &str| Fault::new(Kind::InvalidInput, format!("--filter {text:?}: {why}"));
        let (key, value) = text.split_once('=').ok_or_else(|| invalid("want key=value"))?;
        Ok(match (key, value) {
            ("name", name) => Self::Name(name.to_owned()),
            ("driver", driver) => Self::Driver(driver.to_owned()),
            ("dangling", "true" | "1") => Self::Dangling(true),
            ("dangling", "false" | "0") => Self::Dangling(false),
            ("dangling", _) => return Err(invalid("want true or false")),
            ("label", label) => match label.split_once('=') {
                Some((key, value)) => Self::Label(key.to_owned(), Some(value.to_owned())),
                None => Self::Label(label.to_owned(), None),
            },
            _ => {
                let near = bale_spec::suggest::did_you_mean(key, KEYS);
                return Err(
                    invalid(&format!("unknown key{near}")).hint(format!("keys are {}", KEYS.join(", ")))
                );
            }
        })
    }

    fn fits(&self, engine: &Engine, info: &VolumeInfo) -> Result<bool> {
        Ok(match self {
            Self::Name(part) => info.name.contains(part),
            Self::Driver(driver) => driver == "local",
            Self::Label(key, value) => {
                info.labels.get(key).is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
            }
            Self::Dangling(wanted) => engine.users_of_volume(&info.name)?.is_empty() == *wanted,
        })
    }
}

/// Removes what no container uses, and says so as docker does.
fn prune(engine: &Engine, all: bool) -> Result<ExitCode> {
    let mut removed = String::new();
    let mut code = ExitCode::SUCCESS;
    let mut bytes = 0;
    for info in engine.list_volumes()?.into_iter().filter(|info| all || info.anonymous) {
        let size = engine.size_of_volume(&info);
        match engine.remove_volume(&info.name) {
            Ok(()) => {
                removed += &format!("{}\n", info.name);
                bytes += size;
            }
            Err(fault) if matches!(fault.kind(), Kind::Conflict | Kind::NotFound) => {}
            Err(fault) => {
                exit::report(&fault);
                code = ExitCode::FAILURE;
            }
        }
    }
    if !removed.is_empty() {
        removed = format!("Deleted Volumes:\n{removed}\n");
    }
    output::write(&format!("{removed}Total reclaimed space: {}\n", output::size(bytes)))?;
    Ok(code)
}

/// Describes a volume for `bale inspect`.
pub fn describe(engine: &Engine, name: &str) -> Result<serde_json::Value> {
    let info = engine.volume(name)?;
    if info.name.is_empty() {
        return Err(Fault::new(Kind::Corrupt, format!("volume {name:?} has no name")));
    }
    Ok(describe_volume(&info))
}
