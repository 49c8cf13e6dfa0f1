//! The right side of an edit: what a word means at its place.

use bale_fault::{Fault, Kind, Result};
use bale_spec::capability;
use bale_spec::options::{MountKind, MountRequest, device, mount, number};
use bale_spec::suggest::did_you_mean;
use bale_spec::validate::schema::Shape;
use bale_spec::validate::{Path, Severity, hold};
use serde_json::{Value, json};

use super::target::identity;

fn invalid(words: impl Into<String>) -> Fault {
    Fault::new(Kind::InvalidInput, words)
}

/// Reads `text` as what may stand at `path`.
pub(super) fn read(text: &str, shape: Option<&'static Shape>, path: &str, force: bool) -> Result<Value> {
    let Some(shape) = shape else { return Ok(guess(text)) };
    let value = match shape {
        Shape::Text => string(text),
        Shape::Word(known) => word(text, known, force)?,
        Shape::Bool => boolean(text)?,
        Shape::Int(least, most) => integer(text, *least, *most, path)?,
        Shape::Bytes if text == "-1" => json!(-1),
        Shape::Bytes => json!(number::size(path, text)?),
        Shape::List(_) | Shape::Pairs | Shape::Map(_) | Shape::Object(_) => structure(text, shape)?,
        Shape::Foreign => guess(text),
    };
    if !force {
        held(&value, shape)?;
    }
    Ok(value)
}

/// Refuses a value that does not have its shape: typos of keys inside of it among them.
fn held(value: &Value, shape: &'static Shape) -> Result<()> {
    let findings = hold(value, shape, &Path::default());
    match findings.into_iter().find(|f| f.severity != Severity::Note) {
        None => Ok(()),
        Some(finding) => {
            let place = if finding.path.is_empty() { "the value".to_owned() } else { finding.path };
            let fault = invalid(format!("{place}: {}", finding.words));
            Err(finding.hint.into_iter().fold(fault, |f, hint| f.hint(hint)))
        }
    }
}

/// JSON when it is JSON, else a string.
fn guess(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

/// A bare word, or a JSON string for one with strange letters.
fn string(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(Value::String(inner)) => Value::String(inner),
        _ => Value::String(text.to_owned()),
    }
}

fn word(text: &str, known: &[&str], force: bool) -> Result<Value> {
    let value = string(text);
    let word = value.as_str().unwrap_or_default();
    if force || known.contains(&word) {
        return Ok(value);
    }
    let fault = invalid(format!("{word:?} is unknown here{}", did_you_mean(word, known.iter().copied())));
    Err(fault.hint(format!("known: {}", known.join(", "))))
}

fn boolean(text: &str) -> Result<Value> {
    match text {
        "true" => Ok(Value::Bool(true)),
        "false" => Ok(Value::Bool(false)),
        _ => Err(invalid(format!("{text:?} is not true or false"))),
    }
}

/// A number; modes may be written as `0o644`.
fn integer(text: &str, least: i128, most: i128, path: &str) -> Result<Value> {
    let octal = text.strip_prefix("0o").and_then(|digits| i128::from_str_radix(digits, 8).ok());
    let decimal = || text.parse::<i128>().ok().filter(|_| !text.starts_with('+'));
    let number = octal.or_else(decimal).filter(|n| (least..=most).contains(n));
    let fail = || invalid(format!("{path} is {}, not {text:?}", Shape::Int(least, most).words()));
    let number = number.ok_or_else(fail)?;
    let small = i64::try_from(number).map(Value::from).ok();
    small.or_else(|| u64::try_from(number).map(Value::from).ok()).ok_or_else(fail)
}

fn structure(text: &str, shape: &'static Shape) -> Result<Value> {
    let words = shape.words();
    let form = match shape {
        Shape::List(Shape::Text) => "a list is written as JSON: [\"a\",\"b\"]; += adds one element",
        Shape::List(_) => "a list is written as JSON; += adds one element",
        Shape::Pairs => "a list is written as JSON: [\"A=1\"]; += adds one, and .NAME=VALUE sets one",
        _ => "an object is written as JSON: {\"key\":\"value\"}",
    };
    let value: Value =
        serde_json::from_str(text).map_err(|_| invalid(format!("{text:?} is not {words}")).hint(form))?;
    let fits = match shape {
        Shape::List(_) | Shape::Pairs => value.is_array(),
        _ => value.is_object(),
    };
    if fits { Ok(value) } else { Err(invalid(format!("{text} is not {words}")).hint(form)) }
}

/// Reads an element of the list at `place`: JSON, or the short form that the list has.
pub(super) fn element(text: &str, inner: &'static Shape, place: &str, force: bool) -> Result<Value> {
    if text.starts_with('{') || text.starts_with('[') {
        return read(text, Some(inner), place, force);
    }
    let value = match (place, identity(inner)) {
        ("mounts", _) => short_mount(text)?,
        ("process.rlimits", _) => {
            let limit = device::ulimit(text)?;
            json!({"type": limit.kind, "hard": limit.hard, "soft": limit.soft})
        }
        ("linux.resources.devices", _) => serde_json::to_value(device::rule(text)?).unwrap_or_default(),
        (_, Some("type")) => json!({"type": text}),
        _ if place.starts_with("process.capabilities.") => Value::String(capability_name(text, force)?),
        _ => return read(text, Some(inner), place, force),
    };
    if !force {
        held(&value, inner)?;
    }
    Ok(value)
}

/// The full name of a capability, typed with or without `CAP_`.
pub(super) fn capability_name(text: &str, force: bool) -> Result<String> {
    match capability::find(text) {
        Some(name) => Ok(name.to_owned()),
        None if force => Ok(text.to_owned()),
        None => {
            let near =
                capability::suggest(text).map(|n| format!("; did you mean {n:?}?")).unwrap_or_default();
            Err(invalid(format!("{text:?} is no capability{near}")))
        }
    }
}

/// `/data,type=bind,src=/srv,ro`: the target, then the fields of `--mount`. A source may be relative to the bundle.
fn short_mount(text: &str) -> Result<Value> {
    if !text.starts_with('/') {
        let hint = "write /TARGET,type=tmpfs or /TARGET,type=bind,src=/SOURCE, or a JSON object";
        return Err(invalid(format!("{text:?} is no mount")).hint(hint));
    }
    let (target, fields) = text.split_once(',').unwrap_or((text, "type=tmpfs"));
    let request = mount::mount(&format!("dst={target},{fields}"), "/")?;
    let MountRequest { target, readonly, kind } = request;
    let (kind, source, options) = match kind {
        MountKind::Bind { source, recursive, propagation, .. } => {
            let mut options = vec![if recursive { "rbind" } else { "bind" }.to_owned()];
            options.extend(readonly.then(|| if recursive { "rro" } else { "ro" }.to_owned()));
            options.push(propagation.unwrap_or_else(|| "rprivate".to_owned()));
            ("bind", source, options)
        }
        MountKind::Tmpfs { mut options } => {
            options.extend(readonly.then(|| "ro".to_owned()));
            ("tmpfs", "tmpfs".to_owned(), options)
        }
        MountKind::Volume { .. } => {
            let fault = invalid("a bundle has no volumes");
            return Err(fault.hint("say type=bind,src=/DIRECTORY or type=tmpfs"));
        }
    };
    Ok(json!({"destination": target, "type": kind, "source": source, "options": options}))
}
