//! From nodes and a value to text.

use bale_fault::Result;
use bale_spec::suggest::did_you_mean;
use serde_json::Value;

use super::{Expr, MAPS, Node, invalid};

const FUNCTIONS: [&str; 22] = [
    "json", "len", "index", "eq", "ne", "lt", "le", "gt", "ge", "not", "and", "or", "print", "println",
    "printf", "join", "split", "upper", "lower", "title", "truncate", "pad",
];

/// The dot, and the variables from the outermost on; `$` is the first.
struct Scope {
    dot: Value,
    variables: Vec<(String, Value)>,
}

pub(super) fn fill(nodes: &[Node], value: &Value) -> Result<String> {
    let mut scope = Scope { dot: value.clone(), variables: vec![("$".to_owned(), value.clone())] };
    let mut text = String::new();
    walk(nodes, &mut scope, &mut text)?;
    Ok(text)
}

fn walk(nodes: &[Node], scope: &mut Scope, text: &mut String) -> Result<()> {
    for node in nodes {
        match node {
            Node::Text(part) => text.push_str(part),
            Node::Show(expr) => text.push_str(&shown(&value(expr, scope)?)),
            Node::If(expr, body, otherwise) => {
                let chosen = if holds(&value(expr, scope)?) { body } else { otherwise };
                walk(chosen, scope, text)?;
            }
            Node::With(expr, body, otherwise) => match value(expr, scope)? {
                found if holds(&found) => inside(body, found, &[], scope, text)?,
                _ => walk(otherwise, scope, text)?,
            },
            Node::Range { names, over, body, otherwise } => {
                let items = items(value(over, scope)?)?;
                if items.is_empty() {
                    walk(otherwise, scope, text)?;
                }
                for (key, item) in items {
                    let set: Vec<(String, Value)> = match names.as_slice() {
                        [] => Vec::new(),
                        [one] => vec![(one.clone(), item.clone())],
                        [first, second, ..] => vec![(first.clone(), key), (second.clone(), item.clone())],
                    };
                    inside(body, item, &set, scope, text)?;
                }
            }
        }
    }
    Ok(())
}

/// Walks `body` with another dot and more variables.
fn inside(
    body: &[Node],
    dot: Value,
    set: &[(String, Value)],
    scope: &mut Scope,
    text: &mut String,
) -> Result<()> {
    let before = std::mem::replace(&mut scope.dot, dot);
    let known = scope.variables.len();
    scope.variables.extend_from_slice(set);
    let walked = walk(body, scope, text);
    scope.variables.truncate(known);
    scope.dot = before;
    walked
}

fn items(value: Value) -> Result<Vec<(Value, Value)>> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(items) => {
            Ok(items.into_iter().enumerate().map(|(at, item)| (at.into(), item)).collect())
        }
        Value::Object(items) => {
            let mut items: Vec<(String, Value)> = items.into_iter().collect();
            items.sort_by(|a, b| a.0.cmp(&b.0));
            Ok(items.into_iter().map(|(key, item)| (key.into(), item)).collect())
        }
        other => Err(invalid(&format!("range over {other}, which is no list"))),
    }
}

fn value(expr: &Expr, scope: &Scope) -> Result<Value> {
    match expr {
        Expr::Literal(value) => Ok(value.clone()),
        Expr::Path { variable: None, steps } => follow(&scope.dot, steps),
        Expr::Path { variable: Some(name), steps } => {
            let found = scope.variables.iter().rev().find(|(known, _)| known == name);
            follow(&found.ok_or_else(|| invalid(&format!("there is no variable {name}")))?.1, steps)
        }
        Expr::Call(name, arguments) => {
            let arguments =
                arguments.iter().map(|argument| value(argument, scope)).collect::<Result<Vec<_>>>()?;
            match name.strip_prefix('.') {
                Some(method) => self::method(method, &scope.dot, &arguments),
                None => call(name, &arguments),
            }
        }
    }
}

fn follow(value: &Value, steps: &[String]) -> Result<Value> {
    let mut at = value;
    let mut above = "";
    for step in steps {
        at = match at.get(step) {
            Some(found) => found,
            None if MAPS.contains(&above) => return Ok(Value::Null),
            None => {
                let known: Vec<&str> =
                    at.as_object().map(|o| o.keys().map(String::as_str).collect()).unwrap_or_default();
                let near = did_you_mean(step, known.iter().copied());
                let fault = invalid(&format!("there is no {:?}{near}", steps.join(".")));
                let flat = known.len() < 30 && steps.len() == 1;
                return Err(if flat {
                    fault.hint(format!("use json, or {}", listed(&known)))
                } else {
                    fault
                });
            }
        };
        above = step;
    }
    Ok(at.clone())
}

fn listed(known: &[&str]) -> String {
    known.iter().map(|key| format!("{{{{.{key}}}}}")).collect::<Vec<_>>().join(" ")
}

/// `.Label "key"` of a list's row.
fn method(name: &str, dot: &Value, arguments: &[Value]) -> Result<Value> {
    match (name, dot.get("Labels"), arguments) {
        ("Label", Some(Value::String(labels)), [Value::String(key)]) => {
            let pairs = labels.split(',').filter_map(|pair| pair.split_once('='));
            Ok(pairs.into_iter().find(|(known, _)| known == key).map_or("", |(_, value)| value).into())
        }
        _ => Err(invalid(&format!(".{name} takes no arguments"))),
    }
}

fn call(name: &str, arguments: &[Value]) -> Result<Value> {
    let wrong = || invalid(&format!("{name} is given something else than it wants"));
    Ok(match (name, arguments) {
        ("json", [value]) => value.to_string().into(),
        ("len", [value]) => length(value).ok_or_else(wrong)?.into(),
        ("index", [value, keys @ ..]) => {
            keys.iter().try_fold(value.clone(), |value, key| index(&value, key))?
        }
        ("eq", [first, rest @ ..]) if !rest.is_empty() => rest.contains(first).into(),
        ("ne", [a, b]) => (a != b).into(),
        ("lt" | "le" | "gt" | "ge", [a, b]) => compare(name, a, b).ok_or_else(wrong)?.into(),
        ("not", [value]) => (!holds(value)).into(),
        ("and", [.., last]) => arguments.iter().find(|value| !holds(value)).unwrap_or(last).clone(),
        ("or", [.., last]) => arguments.iter().find(|value| holds(value)).unwrap_or(last).clone(),
        ("print", values) => values.iter().map(shown).collect::<String>().into(),
        ("println", values) => (values.iter().map(shown).collect::<Vec<_>>().join(" ") + "\n").into(),
        ("printf", [Value::String(format), values @ ..]) => printf(format, values)?.into(),
        ("join", [Value::Array(items), Value::String(between)]) => {
            items.iter().map(shown).collect::<Vec<_>>().join(between).into()
        }
        ("split", [Value::String(text), Value::String(between)]) => {
            text.split(between.as_str()).map(Value::from).collect::<Vec<_>>().into()
        }
        ("upper", [value]) => shown(value).to_uppercase().into(),
        ("lower", [value]) => shown(value).to_lowercase().into(),
        ("title", [value]) => title(&shown(value)).into(),
        ("truncate", [value, Value::Number(letters)]) => {
            let most = letters.as_u64().and_then(|n| usize::try_from(n).ok()).ok_or_else(wrong)?;
            shown(value).chars().take(most).collect::<String>().into()
        }
        _ if FUNCTIONS.contains(&name) => return Err(wrong()),
        _ => return Err(invalid(&format!("there is no function {name:?}{}", did_you_mean(name, FUNCTIONS)))),
    })
}

fn title(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

fn length(value: &Value) -> Option<usize> {
    match value {
        Value::Array(items) => Some(items.len()),
        Value::Object(items) => Some(items.len()),
        Value::String(text) => Some(text.len()),
        Value::Null => Some(0),
        _ => None,
    }
}

/// A map's missing key is empty, a list's missing place a mistake.
fn index(value: &Value, key: &Value) -> Result<Value> {
    match (value, key) {
        (Value::Object(items), Value::String(key)) => {
            Ok(items.get(key).cloned().unwrap_or_else(|| "".into()))
        }
        (Value::Null, _) => Ok("".into()),
        (Value::Array(items), Value::Number(at)) => {
            let found = at.as_u64().and_then(|at| items.get(usize::try_from(at).ok()?));
            found.cloned().ok_or_else(|| invalid(&format!("index {at} of a list of {}", items.len())))
        }
        _ => Err(invalid(&format!("index {key} of something that has no such places"))),
    }
}

fn compare(name: &str, a: &Value, b: &Value) -> Option<bool> {
    let order = match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64()?.partial_cmp(&b.as_f64()?)?,
        (Value::String(a), Value::String(b)) => a.cmp(b),
        _ => return None,
    };
    Some(match name {
        "lt" => order.is_lt(),
        "le" => order.is_le(),
        "gt" => order.is_gt(),
        _ => order.is_ge(),
    })
}

/// The verbs `%s %v %d %q %%`, without widths.
fn printf(format: &str, values: &[Value]) -> Result<String> {
    let mut values = values.iter();
    let mut text = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        let verb = letters.next();
        if verb == Some('%') {
            text.push('%');
            continue;
        }
        let value = values.next().ok_or_else(|| invalid("printf has too few values"))?;
        match verb {
            Some('s' | 'v' | 'd') => text.push_str(&shown(value)),
            Some('q') => text.push_str(&Value::from(shown(value)).to_string()),
            other => return Err(invalid(&format!("printf does not know %{}", other.unwrap_or(' ')))),
        }
    }
    Ok(text)
}

/// What Go takes for true.
fn holds(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(items) => !items.is_empty(),
    }
}

/// Shows a value as Go does.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "<no value>".to_owned(),
        Value::Array(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(" ")),
        Value::Object(items) => {
            let mut pairs: Vec<String> =
                items.iter().map(|(key, item)| format!("{key}:{}", shown(item))).collect();
            pairs.sort();
            format!("map[{}]", pairs.join(" "))
        }
        other => other.to_string(),
    }
}
