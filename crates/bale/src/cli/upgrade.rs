//! `bale upgrade`.

use crate::exit::ExitCode;
use std::io::Write;
use std::path::PathBuf;

use super::Context;
use bale_bundle::upgrade::{Upgraded, upgrade};
use bale_fault::{Context as _, Result};
use bale_spec::legacy::{Converted, Options};
use bale_spec::runtime::SPEC_VERSION;

/// Arguments of `bale upgrade`.
#[derive(clap::Args)]
pub struct Args {
    /// The bundle's directory
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,
    /// Keep what the old runtime did even where it is harmful today (inheritable capabilities, swappiness 0)
    #[arg(long)]
    faithful: bool,
    /// Add today's masked and read-only paths and no_new_privs
    #[arg(long)]
    harden: bool,
    /// Write what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// How the report is written
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    format: String,
}

/// Converts a bundle of 2015 to 2017 to today's format.
pub fn run(args: Args, _context: &Context) -> Result<ExitCode> {
    let options = Options { faithful: args.faithful, harden: args.harden };
    let outcome = if args.dry_run {
        bale_bundle::upgrade::convert(&args.bundle, options)?
            .map_or(Upgraded::Current, |c| Upgraded::Converted(c.into()))
    } else {
        upgrade(&args.bundle, options)?
    };
    let text = if args.format == "json" { json(&outcome) } else { report(&args, &outcome) };
    std::io::stdout().write_all(text.as_bytes()).within(|| "write the report")?;
    Ok(ExitCode::SUCCESS)
}

fn report(args: &Args, outcome: &Upgraded) -> String {
    let name = args.bundle.display();
    match outcome {
        Upgraded::Current => format!("{name}: is in today's format already\n"),
        Upgraded::Finished => format!("{name}: an interrupted upgrade is finished\n"),
        Upgraded::Converted(converted) => {
            let mut text: String = converted.decisions.iter().map(|d| format!("  {d}\n")).collect();
            text = crate::exit::printable(&text);
            let from = converted.dialect;
            if args.dry_run {
                return format!(
                    "{name}: {from} would become {SPEC_VERSION}\n{text}{}",
                    converted.to_canonical()
                );
            }
            format!("{name}: {from} became {SPEC_VERSION}; the originals are kept as *.legacy\n{text}")
        }
    }
}

fn json(outcome: &Upgraded) -> String {
    let decisions = |converted: &Converted| {
        let decision = |d: &bale_spec::legacy::Decision| {
            let weight = format!("{:?}", d.weight).to_lowercase();
            serde_json::json!({ "weight": weight, "path": d.path, "words": d.words })
        };
        converted.decisions.iter().map(decision).collect::<Vec<_>>()
    };
    let document = match outcome {
        Upgraded::Current => serde_json::json!({ "outcome": "current" }),
        Upgraded::Finished => serde_json::json!({ "outcome": "finished" }),
        Upgraded::Converted(c) => serde_json::json!({
            "outcome": "converted", "from": c.dialect.to_string(), "decisions": decisions(c), "config": c.document,
        }),
    };
    format!("{document:#}\n")
}
