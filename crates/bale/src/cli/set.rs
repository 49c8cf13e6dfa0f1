//! `bale set`.

use crate::exit::ExitCode;
use std::path::PathBuf;

use bale_bundle::set::{Change, Entry, Options, history, set, undo};
use bale_fault::{Fault, Kind, Result};
use bale_record::time::Time;

use super::Context;
use crate::{exit, output};

/// Arguments of `bale set`.
#[derive(clap::Args)]
#[command(after_help = "Edits:
  process.env.TZ=UTC                     set a value, a variable among them
  process.args='[\"redis-server\"]'        lists and objects are JSON
  linux.resources.memory.limit=64m       sizes may have units
  mounts+=/data,type=bind,src=/srv,ro    add to a list (a mount also as a JSON object)
  mounts[/data].source=/other            elements are named by destination, type or path, or by number
  process.capabilities+=NET_ADMIN        add to the bounding, effective and permitted sets
  linux.namespaces-=network              take an element away
  hostname-=                             take a key away")]
pub struct Args {
    /// The bundle's directory
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,
    /// PATH=VALUE, PATH+=VALUE or PATH-=VALUE; all are made, or none
    #[arg(value_name = "EDIT", required_unless_present_any = ["undo", "history"], conflicts_with_all = ["undo", "history"])]
    edits: Vec<String>,
    /// Take the last change back
    #[arg(long, conflicts_with = "history")]
    undo: bool,
    /// List the changes that can be taken back
    #[arg(long)]
    history: bool,
    /// Write unknown keys, and values that `bale check` calls errors
    #[arg(long)]
    force: bool,
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print nothing
    #[arg(short, long)]
    quiet: bool,
    /// How changes are written
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    format: String,
}

/// Changes a bundle's config by path.
pub fn run(args: Args, _context: &Context) -> Result<ExitCode> {
    let json = args.format == "json";
    let text = if args.history {
        let entries = history(&args.bundle)?;
        entries.iter().map(|entry| if json { json_entry(entry) } else { text_entry(entry) }).collect()
    } else if args.undo {
        shown(&undo(&args.bundle)?, json)
    } else {
        refuse_swapped(&args)?;
        let options = Options { force: args.force, dry_run: args.dry_run };
        shown(&set(&args.bundle, &args.edits, options)?, json)
    };
    if !args.quiet || args.history {
        output::write(&text)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Without a directory the first edit is taken for it.
fn refuse_swapped(args: &Args) -> Result<()> {
    let first = args.bundle.to_string_lossy();
    if first.contains('=') && !args.bundle.exists() {
        let fault =
            Fault::new(Kind::InvalidInput, format!("{first:?} is an edit, and the bundle comes first"));
        return Err(fault.hint(format!("bale set DIR {first}")));
    }
    Ok(())
}

fn shown(changes: &[Change], json: bool) -> String {
    if json {
        return changes.iter().map(|change| format!("{}\n", json_change(change))).collect();
    }
    let lines: String = changes.iter().map(|change| format!("{change}\n")).collect();
    exit::printable(if lines.is_empty() { "nothing changed\n" } else { &lines })
}

fn json_change(change: &Change) -> serde_json::Value {
    serde_json::json!({ "path": change.path, "before": change.before, "after": change.after })
}

fn text_entry(entry: &Entry) -> String {
    let lines: String = entry.changes.iter().map(|change| format!("  {change}\n")).collect();
    format!("{} {}\n{}", entry.number, time(entry), exit::printable(&lines))
}

fn json_entry(entry: &Entry) -> String {
    let changes: Vec<_> = entry.changes.iter().map(json_change).collect();
    format!("{}\n", serde_json::json!({ "number": entry.number, "time": time(entry), "changes": changes }))
}

fn time(entry: &Entry) -> String {
    let text = Time { seconds: entry.time_s, nanoseconds: 0 }.text();
    format!("{}Z", String::from_utf8_lossy(&text[..19]))
}
