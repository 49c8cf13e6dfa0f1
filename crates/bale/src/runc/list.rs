//! `list` and `ps`.

use crate::exit::ExitCode;
use std::ffi::OsString;
use std::process::Command;

use bale_fault::{Context, Fault, Kind, Result};
use bale_record::Dir;
use bale_spec::runtime::State;

use super::args::{Flag, flag, parse, value};
use super::{Global, print};

pub const LIST: &[Flag] = &[value("format", "f"), flag("quiet", "q")];
pub const PS: &[Flag] = &[value("format", "f")];

/// `list [--format table|json] [--quiet]`.
pub fn list(global: &Global, arguments: &[OsString]) -> Result<ExitCode> {
    let parsed = parse(LIST, arguments, false)?.at_most(0)?;
    if global.root_given && !global.root.exists() {
        let words = format!("root {:?} does not exist: no such file or directory", global.root);
        return Err(Fault::new(Kind::NotFound, words));
    }
    let states = states(global)?;
    if parsed.has("quiet") {
        return Ok(print(&states.iter().map(|s| format!("{}\n", s.id)).collect::<String>()));
    }
    match parsed.last("format").as_deref() {
        None | Some("table") => Ok(print(&table(&states))),
        Some("json") => {
            let text = serde_json::to_string(&states);
            Ok(print(&(text.map_err(|e| Fault::new(Kind::Internal, "write the list").caused_by(e))? + "\n")))
        }
        Some(other) => Err(Fault::new(Kind::InvalidInput, format!("invalid format option {other:?}"))),
    }
}

/// Reads every state; a container that goes away meanwhile, or whose making was cut short, is left out.
fn states(global: &Global) -> Result<Vec<State>> {
    let ids = bale_record::list(&global.root)?;
    let open = |id: &String| Dir::open(&global.root, id).and_then(|dir| bale_runtime::state(&dir)).ok();
    Ok(ids.iter().filter_map(open).collect())
}

fn table(states: &[State]) -> String {
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(ToOwned::to_owned)];
    for s in states {
        let owner = "root".to_owned();
        let row = [
            s.id.clone(),
            s.pid.to_string(),
            s.status.name().to_owned(),
            s.bundle.clone(),
            s.created.clone(),
            owner,
        ];
        rows.push(row);
    }
    // Columns as Go's tabwriter makes them for runc: at least 12 wide, three between.
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count() + 3).max().unwrap_or(0).max(12);
    let widths: Vec<usize> = (0..5).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        for (cell, width) in row.iter().zip(&widths) {
            text.push_str(&format!("{cell:<width$}"));
        }
        text.push_str(&row[5]);
        text.push('\n');
    }
    text
}

/// `ps [--format table|json] ID [PS ARGUMENTS]`.
pub fn ps(global: &Global, arguments: &[OsString]) -> Result<ExitCode> {
    let mut parsed = parse(PS, arguments, true)?;
    // The format may also follow the id; all else there is for ps(1).
    let mut format = parsed.last("format");
    while let Some(at) =
        parsed.positional.iter().position(|w| w == "--format").filter(|at| at + 1 < parsed.positional.len())
    {
        format = Some(parsed.positional.remove(at + 1));
        parsed.positional.remove(at);
    }
    if let Some(at) = parsed.positional.iter().position(|w| w.starts_with("--format=")) {
        format = parsed.positional.remove(at).strip_prefix("--format=").map(ToOwned::to_owned);
    }
    let pids = bale_runtime::processes(&global.container(&parsed)?)?;
    match format.as_deref() {
        Some("json") => Ok(print(&format!("{}\n", serde_json::json!(pids)))),
        None | Some("table" | "") => Ok(print(&ps_table(&pids, &parsed.positional[1..])?)),
        Some(other) => Err(Fault::new(Kind::InvalidInput, format!("invalid format option {other:?}"))),
    }
}

/// Lets ps(1) print all processes and keeps the lines of ours, as runc does.
fn ps_table(pids: &[i32], arguments: &[String]) -> Result<String> {
    let default = ["-ef".to_owned()];
    let arguments = if arguments.is_empty() { &default[..] } else { arguments };
    let output =
        Command::new("ps").args(arguments).output().within(|| format!("run ps {}", arguments.join(" ")))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Fault::new(Kind::Os, format!("ps: {}: {said}", output.status)));
    }
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let column = header.split_whitespace().position(|title| title == "PID");
    let column =
        column.ok_or_else(|| Fault::new(Kind::InvalidInput, "couldn't find PID field in ps output"))?;
    let ours = |line: &&str| {
        let pid = line.split_whitespace().nth(column).and_then(|field| field.parse::<i32>().ok());
        pid.is_some_and(|pid| pids.contains(&pid))
    };
    Ok(std::iter::once(header).chain(lines.filter(ours)).map(|line| format!("{line}\n")).collect())
}
