//! What people and scripts read: lists as tables, JSON or templates, sizes and ages in words, colour where it helps.

use std::io::{IsTerminal, Write};

use bale_fault::{Context, Result};
use bale_record::time::Time;

use crate::exit::printable;
use crate::template::Template;

/// Writes to standard output. A reader that went away (`bale images | head -1`) is no failure.
///
/// # Errors
/// The failed write.
pub fn write(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).within(|| "write to standard output")
        }
        _ => Ok(()),
    }
}

/// A column of a list.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its name in JSON and templates, in docker's words: `Repository`.
    pub key: &'static str,
    /// Its title in tables; `None` when tables do not show it.
    pub title: Option<&'static str>,
}

impl Column {
    /// Makes a column that tables show.
    #[must_use]
    pub const fn new(key: &'static str, title: &'static str) -> Self {
        Self { key, title: Some(title) }
    }

    /// Makes a column for JSON and templates only.
    #[must_use]
    pub const fn hidden(key: &'static str) -> Self {
        Self { key, title: None }
    }
}

/// Writes a list as `--format` asks: `None` and `table` give a table, `json` one object per line, anything else is a
/// template of `{{.Key}}` and `{{json .}}`, with `table ` in front one with a header.
///
/// # Errors
/// `InvalidInput` for a template that names no column; the failed write.
pub fn list(columns: &[Column], rows: &[Vec<String>], format: Option<&str>) -> Result<()> {
    write(&render(columns, rows, format)?)
}

fn render(columns: &[Column], rows: &[Vec<String>], format: Option<&str>) -> Result<String> {
    match format.unwrap_or("table") {
        "table" => {
            let shown: Vec<usize> = (0..columns.len()).filter(|&i| columns[i].title.is_some()).collect();
            let header = shown.iter().map(|&i| columns[i].title.unwrap_or_default().to_owned()).collect();
            let body = rows.iter().map(|row| shown.iter().map(|&i| printable(&row[i])).collect());
            Ok(table(std::iter::once(header).chain(body).collect()))
        }
        "json" => Ok(rows.iter().map(|row| object(columns, row).to_string() + "\n").collect()),
        text => {
            let (text, with_header) = text.strip_prefix("table ").map_or((text, false), |text| (text, true));
            let template = Template::parse(text)?;
            let titles: Vec<String> = columns.iter().map(title).collect();
            // Filled in any case, so that a wrong name is told also when the list is empty.
            let header = template.fill(&object(columns, &titles))?;
            let lines = rows.iter().map(|row| Ok(printable(&template.fill(&object(columns, row))?)));
            let lines = lines.collect::<Result<Vec<String>>>()?;
            if !with_header {
                return Ok(lines.into_iter().map(|line| line + "\n").collect());
            }
            let lines = std::iter::once(header).chain(lines);
            Ok(table(lines.map(|line| line.split('\t').map(str::to_owned).collect()).collect()))
        }
    }
}

fn title(column: &Column) -> String {
    column.title.map_or_else(|| column.key.to_uppercase(), str::to_owned)
}

fn object(columns: &[Column], row: &[String]) -> serde_json::Value {
    let pairs = columns.iter().zip(row).map(|(column, cell)| (column.key.to_owned(), cell.as_str().into()));
    serde_json::Value::Object(pairs.collect())
}

/// Lines columns up as docker does: three blanks between, at least ten letters wide.
fn table(rows: Vec<Vec<String>>) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let wide = |cell: &String| cell.chars().count();
    let widths: Vec<usize> = (0..count)
        .map(|i| rows.iter().filter_map(|row| row.get(i)).map(wide).max().unwrap_or(0).max(7))
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (i, cell) in row.iter().enumerate() {
            line.push_str(cell);
            if i + 1 < row.len() {
                line.extend(std::iter::repeat_n(' ', widths[i] + 3 - wide(cell)));
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Returns a size in docker's words: three digits, units of a thousand (`117MB`).
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    #[allow(clippy::cast_precision_loss)]
    let mut value = bytes as f64;
    let mut unit = 0;
    // 999.5 rounds to four digits, which belong to the next unit.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = if unit == 0 || value >= 99.95 { 0 } else { 1 + usize::from(value < 9.995) };
    let mut text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    text + UNITS[unit]
}

/// Returns how long ago `time` was, in docker's words: `3 weeks ago`.
#[must_use]
pub fn ago(time: Time) -> String {
    format!("{} ago", duration(Time::now().seconds - time.seconds))
}

/// Returns a length of time in docker's words: `About an hour`, `3 weeks`.
#[must_use]
pub fn duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    let days = hours / 24;
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{days} days"),
        () if hours < 24 * 30 * 2 => format!("{} weeks", days / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", days / 30),
        () => format!("{} years", days / 365),
    }
}

/// Whether a stream gets colour.
#[derive(Clone, Copy, Debug)]
pub struct Paint(bool);

impl Paint {
    /// No colour.
    #[cfg(test)]
    pub const fn none() -> Self {
        Self(false)
    }

    /// Asks standard output: a terminal gets colour, unless `NO_COLOR` is set (no-color.org) or `TERM` is `dumb`.
    #[must_use]
    pub fn stdout() -> Self {
        Self(std::io::stdout().is_terminal() && wanted())
    }

    /// Asks standard error.
    #[must_use]
    pub fn stderr() -> Self {
        Self(std::io::stderr().is_terminal() && wanted())
    }

    /// Shows text in bold.
    #[must_use]
    pub fn bold(self, text: &str) -> String {
        self.with(anstyle::Style::new().bold(), text)
    }

    /// Shows what went well.
    #[must_use]
    pub fn good(self, text: &str) -> String {
        self.with(anstyle::AnsiColor::Green.on_default(), text)
    }

    /// Shows what needs attention.
    #[must_use]
    pub fn warn(self, text: &str) -> String {
        self.with(anstyle::AnsiColor::Yellow.on_default(), text)
    }

    /// Shows what went wrong.
    #[must_use]
    pub fn bad(self, text: &str) -> String {
        self.with(anstyle::AnsiColor::Red.on_default().bold(), text)
    }

    fn with(self, style: anstyle::Style, text: &str) -> String {
        if self.0 { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }
}

fn wanted() -> bool {
    let set = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !set && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_are_dockers() {
        // docker images and docker ps, and go-units' own tests.
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1024, "1.02kB"),
            (4_262_000, "4.26MB"),
            (116_960_000, "117MB"),
            (999_600, "1MB"),
            (12_345_678_901, "12.3GB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (45, "45 seconds"),
            (60, "About a minute"),
            (3 * 60, "3 minutes"),
            (59 * 60 + 59, "59 minutes"),
            (3600, "About an hour"),
            (5 * 3600, "5 hours"),
            (5 * 86_400, "5 days"),
            (21 * 86_400, "3 weeks"),
            (90 * 86_400, "3 months"),
            (800 * 86_400, "2 years"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn lists_are_tables_json_or_templates() {
        let columns = [Column::new("Name", "NAME"), Column::new("Size", "SIZE"), Column::hidden("Id")];
        let rows = [
            vec!["a".to_owned(), "1".to_owned(), "x".to_owned()],
            vec!["b\u{1b}".to_owned(), "22".to_owned(), "y".to_owned()],
        ];
        let shown = |format| render(&columns, &rows, format).unwrap();
        assert_eq!(shown(None), "NAME      SIZE\na         1\nb\u{fffd}        22\n");
        assert_eq!(shown(Some("json")).lines().next(), Some(r#"{"Name":"a","Size":"1","Id":"x"}"#));
        assert_eq!(shown(Some("{{.Id}}: {{ .Name }}")).lines().next(), Some("x: a"));
        assert_eq!(shown(Some("table {{.Id}}\\t{{.Size}}")), "ID        SIZE\nx         1\ny         22\n");
        assert!(
            render(&columns, &rows, Some("{{.Nothing}}")).is_err()
                && render(&columns, &rows, Some("{{.Id")).is_err()
        );
    }
}
