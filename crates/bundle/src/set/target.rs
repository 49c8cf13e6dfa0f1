//! The left side of an edit: `process.env.TZ`, `mounts["/proc"].options`, and which operator follows it.

use bale_fault::{Fault, Kind, Result};
use bale_spec::suggest::did_you_mean;
use bale_spec::validate::schema::{CONFIG, Shape};
use serde_json::Value;

/// What an edit does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    /// `=`.
    Assign,
    /// `+=`.
    Add,
    /// `-=`.
    Remove,
}

/// A step as it was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Typed {
    /// `.name` or `["name"]`.
    Name(String),
    /// `[3]`.
    Index(usize),
}

/// An edit cut into its parts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cut<'a> {
    pub(super) steps: Vec<Typed>,
    pub(super) operator: Operator,
    pub(super) value: &'a str,
}

/// A step with what it leads to.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A key of an object.
    Key(String),
    /// An element of a list.
    Index(usize),
    /// The element of a list of `KEY=value` with this key.
    Pair(String),
}

/// Where an edit goes.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) steps: Vec<Step>,
    /// What may stand there; `None` for an unknown key under `--force`.
    pub(super) shape: Option<&'static Shape>,
}

fn invalid(words: String) -> Fault {
    Fault::new(Kind::InvalidInput, words)
}

/// Cuts `PATH=VALUE`, `PATH+=VALUE` or `PATH-=VALUE` at the first operator outside of quotation marks.
pub(super) fn cut(text: &str) -> Result<Cut<'_>> {
    let mut quoted = false;
    let mut escaped = false;
    let at = text.bytes().position(|byte| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'=' if !quoted => return true,
            _ => {}
        }
        false
    });
    let form = "the form is PATH=VALUE, PATH+=VALUE or PATH-=VALUE";
    let at = at.ok_or_else(|| invalid("there is no = in it".to_owned()).hint(form))?;
    let (left, value) = (&text[..at], &text[at + 1..]);
    let (path, operator) = match left.as_bytes().last() {
        Some(b'+') => (&left[..at - 1], Operator::Add),
        Some(b'-') => (&left[..at - 1], Operator::Remove),
        _ => (left, Operator::Assign),
    };
    let steps = steps(path.trim())?;
    if steps.is_empty() {
        return Err(invalid("there is no path before the =".to_owned()).hint(form));
    }
    Ok(Cut { steps, operator, value })
}

fn steps(path: &str) -> Result<Vec<Typed>> {
    let mut found = Vec::new();
    let mut rest = path;
    let malformed = || invalid(format!("the path {path:?} is malformed"));
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            // A key in quotation marks may hold anything, a bracket among it.
            let (step, after) = if inner.starts_with('"') {
                let mut stream = serde_json::Deserializer::from_str(inner).into_iter::<String>();
                let key = stream.next().and_then(std::result::Result::ok).ok_or_else(malformed)?;
                (Typed::Name(key), inner[stream.byte_offset()..].strip_prefix(']').ok_or_else(malformed)?)
            } else {
                let (word, after) = inner.split_once(']').ok_or_else(malformed)?;
                let digits = !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
                let number = word.parse().ok().filter(|_| digits);
                (number.map_or_else(|| Typed::Name(word.to_owned()), Typed::Index), after)
            };
            found.push(step);
            rest = after;
            continue;
        }
        let name = if found.is_empty() { rest } else { rest.strip_prefix('.').ok_or_else(malformed)? };
        let end = name.find(['.', '[']).unwrap_or(name.len());
        if end == 0 {
            return Err(malformed());
        }
        found.push(Typed::Name(name[..end].to_owned()));
        rest = &name[end..];
    }
    Ok(found)
}

/// Finds what the steps lead to in `document`.
pub(super) fn resolve(document: &Value, typed: &[Typed], force: bool) -> Result<Target> {
    let mut steps = Vec::new();
    let mut shape: Option<&'static Shape> = Some(&CONFIG);
    let mut here = Some(document);
    let mut rest = typed;
    while let Some((next, after)) = rest.split_first() {
        rest = after;
        let (step, inner) = match (shape, next) {
            (Some(object @ Shape::Object(fields)), Typed::Name(name)) => match object.field(name) {
                Some(field) => (Step::Key(name.clone()), Some(&field.shape)),
                None if force => (Step::Key(name.clone()), None),
                None => {
                    let near = did_you_mean(name, fields.iter().map(|f| f.name));
                    let place = shown(&typed[..typed.len() - rest.len() - 1]);
                    let fault = invalid(format!("{place} has no key {name:?}{near}"));
                    let known: Vec<_> = fields.iter().map(|f| f.name).collect();
                    return Err(
                        fault.hint(format!("known: {}; --force writes it nevertheless", known.join(", ")))
                    );
                }
            },
            // Keys of annotations and sysctls have dots in them: the rest of the path is the key.
            (Some(Shape::Map(inner @ Shape::Text)), Typed::Name(name)) => {
                let key = joined(name, std::mem::take(&mut rest));
                (Step::Key(key), Some(*inner))
            }
            (Some(Shape::Map(inner)), Typed::Name(name)) => (Step::Key(name.clone()), Some(*inner)),
            (Some(Shape::Pairs), Typed::Name(name)) => {
                (Step::Pair(joined(name, std::mem::take(&mut rest))), Some(&Shape::Text))
            }
            (Some(Shape::Pairs), Typed::Index(index)) => (element(here, *index)?, Some(&Shape::Text)),
            (Some(Shape::List(inner)), Typed::Index(index)) => (element(here, *index)?, Some(*inner)),
            (Some(Shape::List(inner)), Typed::Name(name)) => (by_identity(here, inner, name)?, Some(*inner)),
            (None | Some(Shape::Foreign), Typed::Name(name)) => (Step::Key(name.clone()), None),
            (None | Some(Shape::Foreign), Typed::Index(index)) => (element(here, *index)?, None),
            (Some(_), _) => {
                let place = shown(&typed[..typed.len() - rest.len() - 1]);
                let words = shape.map(Shape::words).unwrap_or_default();
                return Err(invalid(format!("{place} is {words}: nothing is below it")));
            }
        };
        here = here.and_then(|value| match &step {
            Step::Key(key) => value.get(key),
            Step::Index(index) => value.get(index),
            Step::Pair(_) => None,
        });
        steps.push(step);
        shape = inner;
    }
    Ok(Target { steps, shape })
}

fn element(list: Option<&Value>, index: usize) -> Result<Step> {
    let count = list.and_then(Value::as_array).map_or(0, Vec::len);
    if index >= count {
        return Err(invalid(format!("[{index}] is beyond the list of {count}")).hint("+= adds an element"));
    }
    Ok(Step::Index(index))
}

/// The key that tells elements of a list apart.
pub(super) fn identity(inner: &Shape) -> Option<&'static str> {
    let required = |key: &&str| inner.field(key).is_some_and(|field| field.required);
    ["destination", "path", "type", "name", "pageSize"].into_iter().find(required)
}

/// The element of a list that is called `name`: a mount by destination, a namespace or limit by type, a device by path.
fn by_identity(list: Option<&Value>, inner: &Shape, name: &str) -> Result<Step> {
    let key = identity(inner)
        .ok_or_else(|| invalid(format!("{name:?} is no index of the list")).hint("write [0]"))?;
    let elements = list.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let called = |e: &&Value| e.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    if let Some(at) = elements.iter().position(|e| called(&e) == name) {
        return Ok(Step::Index(at));
    }
    let names: Vec<String> = elements.iter().map(|e| called(&e)).collect();
    let near = did_you_mean(name, names.iter().map(String::as_str));
    Err(Fault::new(Kind::NotFound, format!("no element has the {key} {name:?}{near}"))
        .hint(format!("there are: {}", names.join(", "))))
}

fn joined(first: &str, rest: &[Typed]) -> String {
    rest.iter().fold(first.to_owned(), |key, step| match step {
        Typed::Name(name) => format!("{key}.{name}"),
        Typed::Index(index) => format!("{key}[{index}]"),
    })
}

fn shown(steps: &[Typed]) -> String {
    match steps.split_first() {
        None => "config.json".to_owned(),
        Some((Typed::Name(name), rest)) => joined(name, rest),
        Some((Typed::Index(index), rest)) => joined(&format!("[{index}]"), rest),
    }
}
