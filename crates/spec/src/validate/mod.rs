//! What is wrong with a `config.json`: typos, wrong types, values that no runtime can use, and what is legal and bites.
//!
//! Three passes: the text against the table in [`schema`] (unknown keys, types), the parsed config against the rules of
//! the specification, and lints. Then one pass over the text finds the lines.

pub(crate) mod lint;
mod locate;
pub mod path;
mod rules;
pub mod schema;

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;

pub use path::{Path, Step};

use crate::json::{CONFIG_LIMIT_BYTES, Error};
use crate::runtime::RuntimeConfig;
use crate::suggest::did_you_mean;
use schema::{Field, Shape};

/// The file that findings are about unless they say otherwise.
const CONFIG_FILE: &str = "config.json";
/// More findings than this help nobody.
const FINDING_LIMIT: usize = 200;
/// More are not even collected.
const COLLECT_LIMIT: usize = 1000;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// No container can be made of it, or not the one that was meant.
    Error,
    /// It works and is probably not what was meant, or is dangerous.
    Warning,
    /// Worth knowing.
    Note,
}

impl Severity {
    /// Returns the word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// Something found in a config or bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Name of the file in the bundle.
    pub file: &'static str,
    /// JSON path in the file; empty for the document or the bundle as a whole.
    pub path: String,
    /// Line in the file, from 1, when the path or a syntax error has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// Column in the line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// How bad it is.
    pub severity: Severity,
    /// A short name that stays the same, for scripts.
    pub code: &'static str,
    /// What is wrong.
    pub words: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Findings with their paths, before the lines are known.
#[derive(Debug, Default)]
pub struct Findings {
    list: Vec<(Path, Finding)>,
}

impl Findings {
    /// Adds a finding.
    pub fn add(&mut self, severity: Severity, code: &'static str, path: &Path, words: impl Into<String>) {
        if self.is_full() {
            return;
        }
        let finding = Finding {
            file: CONFIG_FILE,
            path: path.to_string(),
            line: None,
            column: None,
            severity,
            code,
            words: words.into(),
            hint: None,
        };
        self.list.push((path.clone(), finding));
    }

    /// Adds an error.
    pub fn error(&mut self, code: &'static str, path: &Path, words: impl Into<String>) {
        self.add(Severity::Error, code, path, words);
    }

    /// Adds a warning.
    pub fn warning(&mut self, code: &'static str, path: &Path, words: impl Into<String>) {
        self.add(Severity::Warning, code, path, words);
    }

    /// Tells whether more are not taken: a hostile config is not worth the time.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.list.len() >= COLLECT_LIMIT
    }

    /// Gives the last finding a hint.
    pub fn hint(&mut self, hint: impl Into<String>) {
        if let Some((_, last)) = self.list.last_mut() {
            last.hint = Some(hint.into());
        }
    }

    /// Tells whether an error is among them.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|(_, f)| f.severity == Severity::Error)
    }

    /// Finds the lines in `text`, and sorts by place; what has none comes first.
    #[must_use]
    pub fn located(mut self, text: &str) -> Vec<Finding> {
        self.list.truncate(FINDING_LIMIT);
        let wanted: BTreeSet<Path> = self.list.iter().flat_map(|(path, _)| ancestors(path)).collect();
        let located = locate::locate(text, &wanted);
        for (path, place) in &located.doubles {
            let words = "this key stands twice in its object";
            self.add(Severity::Error, "double-key", path, words);
            if let Some((_, last)) = self.list.last_mut() {
                (last.line, last.column) = (Some(place.line), Some(place.column));
            }
        }
        for (path, finding) in self.list.iter_mut().filter(|(_, f)| f.line.is_none()) {
            // What is missing has no place: its parent has.
            let place = ancestors(path).find_map(|p| located.places.get(&p));
            (finding.line, finding.column) = (place.map(|p| p.line), place.map(|p| p.column));
        }
        let mut list: Vec<Finding> = self.list.into_iter().map(|(_, f)| f).collect();
        list.sort_by_key(|f| (f.line, f.column, f.severity));
        list
    }

    /// Returns the findings without lines, in the order they were made.
    #[must_use]
    pub fn without_places(self) -> Vec<Finding> {
        self.list.into_iter().map(|(_, f)| f).collect()
    }
}

/// The path itself and what is above it, the nearest first.
fn ancestors(path: &Path) -> impl Iterator<Item = Path> {
    (1..=path.0.len()).rev().map(|n| Path(path.0[..n].to_vec()))
}

/// What reading a config came to.
#[derive(Debug)]
pub struct Validated {
    /// The config, when it could be read at all.
    pub config: Option<RuntimeConfig>,
    /// What is wrong with it; the caller may add more before it asks for the lines.
    pub findings: Findings,
}

/// Reads and checks the text of a `config.json` of today's format.
#[must_use]
pub fn validate(text: &[u8]) -> Validated {
    let mut findings = Findings::default();
    let value = match crate::json::parse::<Value>(text, CONFIG_LIMIT_BYTES) {
        Ok(value) => value,
        Err(error) => {
            syntax(&mut findings, &error);
            return Validated { config: None, findings };
        }
    };
    shape(&mut findings, &value, &schema::CONFIG, &Path::default());
    let config = match RuntimeConfig::parse(text) {
        Ok(config) => config,
        Err(error) => {
            // The table has told what is wrong, unless it is a double key, which only the pass over the text sees.
            let doubles = error.to_string().contains("duplicate field")
                || format!("{error:?}").contains("duplicate field");
            if !findings.has_errors() && !doubles {
                syntax(&mut findings, &error);
            }
            return Validated { config: None, findings };
        }
    };
    rules::rules(&mut findings, &config);
    Validated { config: Some(config), findings }
}

/// Adds what is legal and bites, as far as the config alone tells.
pub fn lints(findings: &mut Findings, config: &RuntimeConfig) {
    lint::lints(findings, config);
}

fn syntax(findings: &mut Findings, error: &Error) {
    findings.error("syntax", &Path::default(), "");
    if let Some((_, finding)) = findings.list.last_mut() {
        match error {
            Error::Malformed(inner) => {
                (finding.line, finding.column) = (Some(inner.line()), Some(inner.column()));
                let words = inner.to_string();
                finding.words = words.split(" at line ").next().unwrap_or_default().to_owned();
            }
            other => finding.words = other.to_string(),
        }
    }
}

/// Holds a value against its shape; `path` is where it stands.
#[must_use]
pub fn hold(value: &Value, wanted: &'static Shape, path: &Path) -> Vec<Finding> {
    let mut findings = Findings::default();
    shape(&mut findings, value, wanted, path);
    findings.without_places()
}

fn shape(findings: &mut Findings, value: &Value, wanted: &'static Shape, path: &Path) {
    if findings.is_full() {
        return;
    }
    match (wanted, value) {
        (Shape::Foreign, _) => {
            findings.add(
                Severity::Note,
                "foreign-platform",
                path,
                "belongs to another platform and is ignored here",
            );
        }
        (_, Value::Null) => {
            findings.warning("null", path, format!("is null where {} belongs", wanted.words()));
            findings.hint("leave the key out");
        }
        (Shape::Object(fields), Value::Object(map)) => object(findings, map, fields, path),
        (Shape::Map(inner), Value::Object(map)) => {
            for (key, value) in map {
                shape(findings, value, inner, &path.key(key));
            }
        }
        (Shape::List(inner), Value::Array(list)) => {
            for (index, value) in list.iter().enumerate() {
                shape(findings, value, inner, &path.index(index));
            }
        }
        (Shape::Pairs, Value::Array(list)) => {
            for (index, value) in list.iter().enumerate() {
                shape(findings, value, &Shape::Text, &path.index(index));
            }
        }
        (Shape::Word(known), Value::String(word)) if !known.contains(&word.as_str()) => {
            let near = did_you_mean(word, known.iter().copied());
            findings.error("unknown-word", path, format!("{word:?} is unknown here{near}"));
            findings.hint(format!("known: {}", known.join(", ")));
        }
        (Shape::Int(least, most), Value::Number(number)) => {
            integer(findings, number, (*least, *most), wanted, path);
        }
        (Shape::Bytes, Value::Number(number)) => {
            integer(findings, number, (-1, i128::from(i64::MAX)), wanted, path);
        }
        (Shape::Text | Shape::Word(_), Value::String(_)) | (Shape::Bool, Value::Bool(_)) => {}
        (_, other) => {
            findings.error("wrong-type", path, format!("is {}, not {}", kind(other), wanted.words()));
        }
    }
}

fn object(
    findings: &mut Findings,
    map: &serde_json::Map<String, Value>,
    fields: &'static [Field],
    path: &Path,
) {
    for (key, value) in map {
        if findings.is_full() {
            return;
        }
        match fields.iter().find(|f| f.name == key) {
            Some(field) => shape(findings, value, &field.shape, &path.key(key)),
            None => {
                let near = did_you_mean(key, fields.iter().map(|f| f.name));
                // Runtimes ignore unknown keys, so a typo is silent there: that makes it an error here.
                let severity = if near.is_empty() { Severity::Warning } else { Severity::Error };
                let words = format!("unknown key: every runtime ignores it{near}");
                findings.add(severity, "unknown-key", &path.key(key), words);
            }
        }
    }
    for field in fields.iter().filter(|f| f.required && !map.contains_key(f.name)) {
        findings.error(
            "missing",
            &path.key(field.name),
            format!("is missing: it must be {}", field.shape.words()),
        );
    }
}

fn integer(
    findings: &mut Findings,
    number: &serde_json::Number,
    range: (i128, i128),
    wanted: &Shape,
    path: &Path,
) {
    let whole = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
    if whole.is_none_or(|n| n < range.0 || n > range.1) {
        findings.error("out-of-range", path, format!("{number} is not {}", wanted.words()));
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests;
