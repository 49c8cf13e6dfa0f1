//! `bale check`.

use crate::exit::ExitCode;
use std::path::{Path, PathBuf};

use bale_fault::Result;
use bale_spec::validate::{Finding, Severity};

use super::Context;
use crate::output::Paint;
use crate::{exit, output};

/// Arguments of `bale check`.
#[derive(clap::Args)]
pub struct Args {
    /// Directories of bundles
    #[arg(value_name = "BUNDLE", required = true)]
    bundles: Vec<PathBuf>,
    /// Fail for warnings too
    #[arg(long)]
    strict: bool,
    /// How findings are written: table, or json with one object per line
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"])]
    format: String,
    /// Print nothing; the exit code tells
    #[arg(short, long)]
    quiet: bool,
}

/// Tells what is wrong with bundles: 0 is nothing, 1 is errors.
pub fn run(args: Args, _context: &Context) -> Result<ExitCode> {
    let mut worst = Severity::Note;
    for bundle in &args.bundles {
        let findings = bale_bundle::check(bundle)?;
        worst = findings.iter().map(|f| f.severity).chain([worst]).min().unwrap_or(worst);
        let text = if args.format == "json" {
            json(bundle, &findings)
        } else {
            table(bundle, &findings, Paint::stdout())
        };
        if !args.quiet {
            output::write(&text)?;
        }
    }
    let fails = worst == Severity::Error || (args.strict && worst == Severity::Warning);
    Ok(if fails { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn json(bundle: &Path, findings: &[Finding]) -> String {
    let line = |finding: &Finding| {
        let mut value = serde_json::to_value(finding).unwrap_or_default();
        value["bundle"] = bundle.to_string_lossy().into();
        format!("{value}\n")
    };
    findings.iter().map(line).collect()
}

/// One line for each finding: severity, place, path and words; its hint below.
fn table(bundle: &Path, findings: &[Finding], paint: Paint) -> String {
    let places: Vec<String> = findings.iter().map(place).collect();
    let width = places.iter().map(|p| p.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (finding, place) in findings.iter().zip(&places) {
        let path = if finding.path.is_empty() { String::new() } else { format!("{}: ", finding.path) };
        let word = format!("{:<7}", finding.severity.name());
        let word = match finding.severity {
            Severity::Error => paint.bad(&word),
            Severity::Warning => paint.warn(&word),
            Severity::Note => word,
        };
        let words = exit::printable(&format!("{place:<width$}  {path}{}", finding.words));
        text.push_str(&format!("{word}  {words}\n"));
        if let Some(hint) = &finding.hint {
            text.push_str(&format!("{:<7}  {:<width$}  hint: {}\n", "", "", exit::printable(hint)));
        }
    }
    let count = |severity| findings.iter().filter(|f| f.severity == severity).count();
    let counted = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
    let (errors, warnings, notes) = (count(Severity::Error), count(Severity::Warning), count(Severity::Note));
    let name = exit::printable(&bundle.to_string_lossy());
    let (errors, warnings, notes) =
        (counted(errors, "error"), counted(warnings, "warning"), counted(notes, "note"));
    text.push_str(&paint.bold(&format!("{name}: {errors}, {warnings}, {notes}")));
    text.push('\n');
    text
}

fn place(finding: &Finding) -> String {
    match (finding.line, finding.column) {
        (Some(line), Some(column)) => format!("{}:{line}:{column}", finding.file),
        _ => finding.file.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_line_up() {
        let finding = Finding {
            file: "config.json",
            path: "process.cwd".to_owned(),
            line: Some(12),
            column: Some(5),
            severity: Severity::Error,
            code: "cwd",
            words: "\"\" is not an absolute path".to_owned(),
            hint: Some("say /".to_owned()),
        };
        let whole = Finding {
            path: String::new(),
            line: None,
            severity: Severity::Note,
            words: "x\u{1b}".to_owned(),
            hint: None,
            ..finding
        };
        let wanted = "error    config.json:12:5  process.cwd: \"\" is not an absolute path\n                           hint: say /\n\
            note     config.json       x\u{fffd}\nredis: 1 error, 0 warnings, 1 note\n";
        assert_eq!(table(Path::new("redis"), &[finding, whole], Paint::none()), wanted);
    }
}
