//! `bale ps`.

use crate::exit::ExitCode;

use bale_engine::{Engine, Filters, Listed};
use bale_fault::Result;
use bale_record::time::Time;

use super::Context;
use crate::output::{self, Column};

/// Letters of a command that tables show.
const COMMAND_LETTERS: usize = 20;

/// Arguments of `bale ps`.
#[derive(clap::Args)]
pub struct Args {
    /// Show all containers, not only those that run
    #[arg(short, long)]
    all: bool,
    /// Print the ids only
    #[arg(short, long)]
    quiet: bool,
    /// Show the newest, whether it runs or not
    #[arg(short, long)]
    latest: bool,
    /// Show so many of the newest, whether they run or not
    #[arg(short = 'n', long, value_name = "N", allow_hyphen_values = true)]
    last: Option<i64>,
    /// Show ids and commands in full
    #[arg(long)]
    no_trunc: bool,
    /// Show what fits: status=…, name=…, id=…, label=KEY[=VALUE], ancestor=IMAGE, exited=CODE, volume=…, network=…,
    /// before=CONTAINER, since=CONTAINER
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = filter)]
    filter: Vec<String>,
    /// Print table, json, or a template such as '{{.Names}}: {{.Status}}'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Docker refuses what has no `=` with the other wrong flags.
fn filter(text: &str) -> std::result::Result<String, String> {
    if text.contains('=') { Ok(text.to_owned()) } else { Err("want key=value".to_owned()) }
}

/// Lists containers.
pub fn run(args: Args, context: &Context) -> Result<ExitCode> {
    let filters = Filters::parse(&args.filter)?;
    let last = if args.latest { Some(1) } else { args.last.and_then(|n| usize::try_from(n).ok()) };
    let mut listed = Engine::open(&context.root)?.list(args.all || last.is_some(), &filters)?;
    listed.truncate(last.unwrap_or(usize::MAX));
    if args.quiet {
        let lines = listed.iter().map(|one| id(one, args.no_trunc) + "\n");
        output::write(&lines.collect::<String>())?;
    } else {
        let full = args.no_trunc;
        let rows: Vec<Vec<String>> = listed.iter().map(|one| row(one, full)).collect();
        output::list(&COLUMNS, &rows, args.format.as_deref())?;
    }
    Ok(ExitCode::SUCCESS)
}

const COLUMNS: [Column; 15] = [
    Column::new("ID", "CONTAINER ID"),
    Column::new("Image", "IMAGE"),
    Column::new("Command", "COMMAND"),
    Column::new("RunningFor", "CREATED"),
    Column::new("Status", "STATUS"),
    Column::new("Ports", "PORTS"),
    Column::new("Names", "NAMES"),
    Column::hidden("State"),
    Column::hidden("CreatedAt"),
    Column::hidden("Labels"),
    Column::hidden("LocalVolumes"),
    Column::hidden("Mounts"),
    Column::hidden("Networks"),
    Column::hidden("Platform"),
    Column::hidden("Size"),
];

fn row(one: &Listed, full: bool) -> Vec<String> {
    let created = Time::parse(&one.created);
    let labels: Vec<String> = one.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    vec![
        id(one, full),
        one.image.clone(),
        command(&one.command, full),
        created.map_or_else(|| "N/A".to_owned(), output::ago),
        one.words.clone(),
        String::new(),
        one.name.clone(),
        one.status.name().to_owned(),
        one.created.clone(),
        labels.join(","),
        one.volumes.len().to_string(),
        one.volumes.join(","),
        one.network.clone(),
        String::new(),
        "0B".to_owned(),
    ]
}

fn id(one: &Listed, full: bool) -> String {
    if full { one.id.clone() } else { one.id.chars().take(12).collect() }
}

/// Quotes a command as docker does: words with blanks get single quotes, the whole is cut to 20 letters with an
/// ellipsis for the last, and double quotes in it are escaped.
fn command(words: &[String], full: bool) -> String {
    let quoted = words.iter().enumerate().map(|(index, word)| match word.contains(' ') && index > 0 {
        true => format!("'{word}'"),
        false => word.clone(),
    });
    let whole = quoted.collect::<Vec<_>>().join(" ");
    let shown = if full || whole.chars().count() <= COMMAND_LETTERS {
        whole
    } else {
        whole.chars().take(COMMAND_LETTERS - 1).chain(std::iter::once('…')).collect()
    };
    format!(
        "\"{}\"",
        shown.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").replace('\t', "\\t")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_cut_as_docker_cuts_them() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        for (typed, shown) in [
            ("sh", "\"sh\""),
            ("docker-entrypoint.sh redis-server", "\"docker-entrypoint.s…\""),
            ("12345678901234567890", "\"12345678901234567890\""),
        ] {
            assert_eq!(command(&words(typed), false), shown);
            assert_eq!(command(&words(typed), true), format!("\"{typed}\""));
        }
        let script = ["sh", "-c", "echo \"a b\""].map(str::to_owned);
        assert_eq!(command(&script, true), r#""sh -c 'echo \"a b\"'""#);
    }
}
