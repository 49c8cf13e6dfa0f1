//! Applying one edit to a document, and telling what changed.

use std::fmt;

use bale_fault::{Fault, Kind, Result};
use bale_spec::suggest::did_you_mean;
use bale_spec::validate::Path;
use bale_spec::validate::schema::{CONFIG, Shape};
use serde_json::{Map, Value};

use super::target::{Operator, Step, Target, cut, identity, resolve};
use super::value::{capability_name, element, read};

/// A place that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// JSON path.
    pub path: String,
    /// What was there; absent when nothing was.
    pub before: Option<Value>,
    /// What is there now; absent when nothing is.
    pub after: Option<Value>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.before, &self.after) {
            (Some(old), Some(new)) => write!(f, "{}: {old} -> {new}", self.path),
            (Some(old), None) => write!(f, "{}: {old} removed", self.path),
            (None, Some(new)) => write!(f, "{}: {new} added", self.path),
            (None, None) => f.write_str(&self.path),
        }
    }
}

/// Applies one edit.
pub(crate) fn apply(document: &mut Value, text: &str, force: bool) -> Result<()> {
    let cut = cut(text)?;
    let target = resolve(document, &cut.steps, force)?;
    let place = shown(&target.steps);
    match cut.operator {
        Operator::Assign => {
            let value = read(cut.value, target.shape, &place, force)?;
            assign(document, &target, value)
        }
        Operator::Add if place == "process.capabilities" && !cut.value.starts_with('{') => {
            let name = capability_name(cut.value, force)?;
            ["bounding", "effective", "permitted"]
                .iter()
                .try_for_each(|set| apply(document, &format!("process.capabilities.{set}+={name}"), force))
        }
        Operator::Remove if place == "process.capabilities" && !cut.value.is_empty() => {
            remove_capability(document, &capability_name(cut.value, force)?)
        }
        Operator::Add => add(document, &target, cut.value, &place, force),
        Operator::Remove => remove(document, &target, cut.value, &place),
    }
}

fn invalid(words: impl Into<String>) -> Fault {
    Fault::new(Kind::InvalidInput, words)
}

fn shown(steps: &[Step]) -> String {
    let step = |path: Path, step: &Step| match step {
        Step::Key(key) | Step::Pair(key) => path.key(key),
        Step::Index(index) => path.index(*index),
    };
    steps.iter().fold(Path::default(), step).to_string()
}

/// Goes down to what holds the last step, making objects where nothing is.
fn holder<'a>(document: &'a mut Value, steps: &[Step]) -> Result<&'a mut Value> {
    let mut here = document;
    let mut shape: Option<&'static Shape> = Some(&CONFIG);
    for step in steps {
        here = match step {
            Step::Key(key) => {
                let next = shape.and_then(|s| inner(s, key));
                let object = object(here)?;
                if !object.contains_key(key) || object.get(key).is_some_and(Value::is_null) {
                    let empty = if next.is_some_and(is_list) {
                        Value::Array(Vec::new())
                    } else {
                        Value::Object(Map::new())
                    };
                    insert(object, shape, key, empty);
                }
                shape = next;
                object.get_mut(key).ok_or_else(|| Fault::new(Kind::Internal, "a new key vanished"))?
            }
            Step::Index(index) => {
                shape = shape.and_then(|s| if let Shape::List(inner) = s { Some(*inner) } else { None });
                let words = format!("[{index}] is not in the list");
                here.get_mut(*index).ok_or_else(|| invalid(words))?
            }
            Step::Pair(_) => return Err(invalid("nothing is below a KEY=value")),
        };
    }
    Ok(here)
}

fn object(value: &mut Value) -> Result<&mut Map<String, Value>> {
    value.as_object_mut().ok_or_else(|| invalid("the config has something else than an object on the way"))
}

fn inner(shape: &'static Shape, key: &str) -> Option<&'static Shape> {
    match shape {
        Shape::Object(_) => shape.field(key).map(|f| &f.shape),
        Shape::Map(inner) => Some(inner),
        _ => None,
    }
}

fn is_list(shape: &Shape) -> bool {
    matches!(shape, Shape::List(_) | Shape::Pairs)
}

/// Puts a new key where the canonical order has it: before the first known key that comes later.
fn insert(object: &mut Map<String, Value>, shape: Option<&'static Shape>, key: &str, value: Value) {
    if let Some(old) = object.get_mut(key) {
        *old = value;
        return;
    }
    let Some(Shape::Object(fields)) = shape else {
        object.insert(key.to_owned(), value);
        return;
    };
    let rank = |name: &str| fields.iter().position(|f| f.name == name);
    let own = rank(key).unwrap_or(usize::MAX);
    let at = object.keys().position(|other| rank(other).is_some_and(|r| r > own)).unwrap_or(object.len());
    object.shift_insert(at, key.to_owned(), value);
}

/// The shape of what holds the last step.
fn shape_of(steps: &[Step]) -> Option<&'static Shape> {
    steps.iter().try_fold(&CONFIG as &'static Shape, |shape, step| match (shape, step) {
        (Shape::List(inner), Step::Index(_)) => Some(*inner),
        (shape, Step::Key(key)) => inner(shape, key),
        _ => None,
    })
}

fn assign(document: &mut Value, target: &Target, value: Value) -> Result<()> {
    let Some((last, above)) = target.steps.split_last() else {
        return Err(invalid("the whole config cannot be set"));
    };
    let shape = shape_of(above);
    let holder = holder(document, above)?;
    match last {
        Step::Key(key) => insert(object(holder)?, shape, key, value),
        Step::Index(index) => {
            let old =
                holder.get_mut(*index).ok_or_else(|| invalid(format!("[{index}] is not in the list")))?;
            *old = value;
        }
        Step::Pair(key) => set_pair(list(holder)?, key, value.as_str().unwrap_or_default()),
    }
    Ok(())
}

fn list(value: &mut Value) -> Result<&mut Vec<Value>> {
    if value.is_null() {
        *value = Value::Array(Vec::new());
    }
    value.as_array_mut().ok_or_else(|| invalid("the config has something else than a list there"))
}

/// Sets `KEY=value` where KEY stands first and takes later ones away, or at the end.
fn set_pair(list: &mut Vec<Value>, key: &str, value: &str) {
    let new = Value::String(format!("{key}={value}"));
    match list.iter().position(|e| is_pair(e, key)) {
        Some(at) => {
            list[at] = new;
            let mut index = 0;
            list.retain(|e| {
                index += 1;
                index <= at + 1 || !is_pair(e, key)
            });
        }
        None => list.push(new),
    }
}

fn is_pair(element: &Value, key: &str) -> bool {
    element.as_str().is_some_and(|text| text.split('=').next() == Some(key))
}

fn add(document: &mut Value, target: &Target, text: &str, place: &str, force: bool) -> Result<()> {
    let held = holder(document, &target.steps);
    match target.shape {
        Some(Shape::Pairs) => {
            let (key, value) =
                text.split_once('=').ok_or_else(|| invalid(format!("{text:?} is not KEY=value")))?;
            set_pair(list(held?)?, key, value);
        }
        Some(Shape::List(inner)) => {
            let new = element(text, inner, place, force)?;
            put(list(held?)?, inner, new, place);
        }
        Some(shape @ (Shape::Map(_) | Shape::Object(_))) => {
            let new = read(text, Some(shape), place, force)?;
            let object = object(held?)?;
            for (key, value) in new.as_object().into_iter().flatten() {
                insert(object, Some(shape), key, value.clone());
            }
        }
        shape => {
            let words = shape.map_or_else(|| "unknown".to_owned(), Shape::words);
            return Err(
                invalid(format!("{place} is {words}: += is for lists and objects")).hint("= sets a value")
            );
        }
    }
    Ok(())
}

/// Appends an element; one with the same identity is replaced, and the same word is not added twice. Words of a
/// command line are different: they may repeat.
fn put(list: &mut Vec<Value>, inner: &Shape, new: Value, place: &str) {
    let may_repeat =
        place == "process.args" || place.ends_with(".args") || place == "linux.resources.devices";
    let same = |old: &Value| match identity(inner).filter(|_| place != "linux.seccomp.syscalls") {
        Some(key) => old.get(key).is_some() && old.get(key) == new.get(key),
        None => *old == new,
    };
    match list.iter().position(same).filter(|_| !may_repeat) {
        Some(at) => list[at] = new,
        None => list.push(new),
    }
}

fn remove(document: &mut Value, target: &Target, text: &str, place: &str) -> Result<()> {
    if text.is_empty() {
        return remove_whole(document, target, place);
    }
    let not_there = |near: String| Err(Fault::new(Kind::NotFound, format!("{place} has no {text:?}{near}")));
    let here = find(document, &target.steps);
    match (target.shape, here) {
        (Some(shape @ (Shape::Pairs | Shape::List(_))), Some(Value::Array(list))) => {
            let names: Vec<String> = list.iter().map(|e| name(e, shape)).collect();
            let before = list.len();
            let (wanted, json) = (wanted_names(text, place), serde_json::from_str::<Value>(text).ok());
            let mut index = 0;
            list.retain(|element| {
                let own = &names[index];
                index += 1;
                let hit = wanted.iter().any(|w| w == own)
                    || element.as_str() == Some(text)
                    || json.as_ref() == Some(element);
                !hit
            });
            if list.len() == before {
                return not_there(did_you_mean(text, names.iter().map(String::as_str)));
            }
            Ok(())
        }
        (Some(Shape::Map(_) | Shape::Object(_)), Some(Value::Object(map))) => match map.shift_remove(text) {
            Some(_) => Ok(()),
            None => {
                let near = did_you_mean(text, map.keys().map(String::as_str));
                not_there(near)
            }
        },
        (_, None) => not_there(String::new()),
        _ => Err(invalid(format!("{place} is a single value"))
            .hint(format!("{place}-= with nothing behind it takes it away"))),
    }
}

/// What an element of a list is called.
fn name(element: &Value, shape: &Shape) -> String {
    let text = match shape {
        Shape::Pairs => element.as_str().and_then(|e| e.split('=').next()),
        Shape::List(inner) => match identity(inner) {
            Some(key) => element.get(key).and_then(Value::as_str),
            None => element.as_str(),
        },
        _ => None,
    };
    text.unwrap_or_default().to_owned()
}

/// The names that a word after `-=` may mean.
fn wanted_names(text: &str, place: &str) -> Vec<String> {
    let mut names = vec![text.to_owned()];
    if place == "process.rlimits" {
        names.push(format!("RLIMIT_{}", text.to_ascii_uppercase()));
    }
    if place.starts_with("process.capabilities") {
        names.extend(bale_spec::capability::find(text).map(str::to_owned));
    }
    names
}

fn find<'a>(document: &'a mut Value, steps: &[Step]) -> Option<&'a mut Value> {
    steps.iter().try_fold(document, |here, step| match step {
        Step::Key(key) => here.get_mut(key),
        Step::Index(index) => here.get_mut(*index),
        Step::Pair(_) => None,
    })
}

fn remove_whole(document: &mut Value, target: &Target, place: &str) -> Result<()> {
    let not_there = || Fault::new(Kind::NotFound, format!("{place} is not there"));
    let Some((last, above)) = target.steps.split_last() else { return Err(not_there()) };
    let holder = find(document, above).ok_or_else(not_there)?;
    match (last, holder) {
        (Step::Key(key), Value::Object(map)) => map.shift_remove(key).map(|_| ()).ok_or_else(not_there),
        (Step::Index(index), Value::Array(list)) if *index < list.len() => {
            list.remove(*index);
            Ok(())
        }
        (Step::Pair(key), Value::Array(list)) => {
            let before = list.len();
            list.retain(|e| !is_pair(e, key));
            if list.len() == before { Err(not_there()) } else { Ok(()) }
        }
        _ => Err(not_there()),
    }
}

fn remove_capability(document: &mut Value, capability: &str) -> Result<()> {
    let sets = document.pointer_mut("/process/capabilities").and_then(Value::as_object_mut);
    let mut found = false;
    for (_, set) in sets.into_iter().flatten() {
        if let Value::Array(list) = set {
            let before = list.len();
            list.retain(|e| e.as_str() != Some(capability));
            found |= list.len() != before;
        }
    }
    if found {
        Ok(())
    } else {
        Err(Fault::new(Kind::NotFound, format!("process.capabilities has no {capability:?}")))
    }
}

/// Tells where two documents differ, at the deepest places that tell it well.
#[must_use]
pub fn changes(before: &Value, after: &Value) -> Vec<Change> {
    let mut found = Vec::new();
    compare(&mut found, &Path::default(), Some(before), Some(after));
    found
}

fn compare(found: &mut Vec<Change>, path: &Path, before: Option<&Value>, after: Option<&Value>) {
    match (before, after) {
        (a, b) if a == b => {}
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            for key in old.keys().chain(new.keys().filter(|k| !old.contains_key(*k))) {
                compare(found, &path.key(key), old.get(key), new.get(key));
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) => compare_lists(found, path, old, new),
        (before, after) => {
            found.push(Change { path: path.to_string(), before: before.cloned(), after: after.cloned() });
        }
    }
}

/// Lists that only grew or shrank are told by element; others by index, or as a whole.
fn compare_lists(found: &mut Vec<Change>, path: &Path, old: &[Value], new: &[Value]) {
    if old.len() == new.len() {
        for (index, (a, b)) in old.iter().zip(new).enumerate() {
            compare(found, &path.index(index), Some(a), Some(b));
        }
        return;
    }
    let same_front = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let room = old.len().min(new.len()) - same_front;
    let same_back = old.iter().rev().zip(new.iter().rev()).take(room).take_while(|(a, b)| a == b).count();
    let (gone, come) = (&old[same_front..old.len() - same_back], &new[same_front..new.len() - same_back]);
    let change = |index: usize, before: Option<&Value>, after: Option<&Value>| Change {
        path: path.index(index).to_string(),
        before: before.cloned(),
        after: after.cloned(),
    };
    found.extend(gone.iter().enumerate().map(|(i, v)| change(same_front + i, Some(v), None)));
    found.extend(come.iter().enumerate().map(|(i, v)| change(same_front + i, None, Some(v))));
}
