//! `bale logs`.

use crate::exit::ExitCode;
use std::io::BufWriter;

use bale_engine::{Engine, LogOptions, parse_time};
use bale_fault::{Fault, Kind, Result};
use bale_record::time::Time;

use super::Context;

/// Arguments of `bale logs`.
#[derive(clap::Args)]
pub struct Args {
    /// Go on until the container ends
    #[arg(short, long)]
    follow: bool,
    /// Show the time of each line
    #[arg(short, long)]
    timestamps: bool,
    /// Show so many lines from the end, or all
    #[arg(short = 'n', long, value_name = "LINES", default_value = "all", allow_hyphen_values = true)]
    tail: String,
    /// Show what was written since then: 2026-11-24T08:00:00Z, or 10m (ago)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Show what was written until then
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    name: String,
}

/// Shows what a container wrote.
pub fn run(args: Args, context: &Context) -> Result<ExitCode> {
    let now = Time::now();
    let time = |text: Option<String>| text.map(|text| parse_time(&text, now)).transpose();
    let options = LogOptions {
        follow: args.follow,
        tail: tail(&args.tail)?,
        since: time(args.since)?,
        until: time(args.until)?,
        timestamps: args.timestamps,
    };
    let engine = Engine::open(&context.root)?;
    let mut out = BufWriter::with_capacity(64 << 10, std::io::stdout().lock());
    let mut err = BufWriter::with_capacity(64 << 10, std::io::stderr().lock());
    match engine.logs(&args.name, &options, &mut out, &mut err) {
        Err(fault) if is_broken_pipe(&fault) => Ok(ExitCode::SUCCESS),
        other => other.map(|()| ExitCode::SUCCESS),
    }
}

/// A reader that has seen enough (`bale logs web | head`) is no failure.
fn is_broken_pipe(fault: &Fault) -> bool {
    fault.kind() == Kind::Os && fault.chain().ends_with("broken pipe")
}

fn tail(text: &str) -> Result<Option<u64>> {
    match text {
        "all" => Ok(None),
        // Docker: what is negative is all.
        _ if text.strip_prefix('-').is_some_and(|rest| rest.parse::<u64>().is_ok()) => Ok(None),
        _ => text.parse().map(Some).map_err(|_| {
            Fault::new(Kind::InvalidInput, format!("--tail {text:?}: want a number of lines, or all"))
        }),
    }
}
