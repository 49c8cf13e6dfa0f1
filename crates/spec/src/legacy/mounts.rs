//! Mounts: two files joined by name, options that were one string.

use std::collections::BTreeSet;

use bale_fault::Result;
use serde_json::Value;

use super::Weight;
use super::convert::Work;
use super::object::{Object, invalid, wrong};
use crate::runtime::Mount;

/// Converts the mounts of `config`; `runtime` has the map of the two-file dialects.
pub(super) fn convert(work: &mut Work<'_>, config: &mut Object, runtime: &mut Object) -> Result<Vec<Mount>> {
    let mut sources = runtime.object("mounts")?;
    let mut used = BTreeSet::new();
    let mut mounts = Vec::new();
    for mut entry in config.objects("mounts")? {
        let name = entry.text("name")?;
        let destination = match entry.text("path")? {
            Some(path) => Some(path),
            None => entry.text("destination")?,
        };
        let destination = destination.ok_or_else(|| invalid(entry.path(), "has no destination"))?;
        let destination = absolute(work, &entry, destination);
        let mount = match name {
            Some(name) => {
                used.insert(name.clone());
                joined(work, &mut sources, &entry, &name, destination)?
            }
            None => from_object(work, entry, destination)?,
        };
        mounts.push(mount);
    }
    for unused in sources.rest().keys().filter(|name| !used.contains(*name)) {
        let words = "no mount of config.json has this name: dropped, as the old runtime never looked at it";
        work.say(Weight::Warning, &format!("runtime.json:mounts.{unused}"), words);
    }
    Ok(mounts)
}

fn absolute(work: &mut Work<'_>, entry: &Object, destination: String) -> String {
    if destination.starts_with('/') {
        return destination;
    }
    work.say(
        Weight::Note,
        entry.path(),
        format!("{destination:?} is not absolute: written as \"/{destination}\""),
    );
    format!("/{destination}")
}

fn joined(
    work: &mut Work<'_>,
    sources: &mut Object,
    entry: &Object,
    name: &str,
    destination: String,
) -> Result<Mount> {
    // The same name may be used twice, so the entry stays in the map.
    let Some(value) = sources.take(name) else {
        let words = format!("mount with name {name:?} is not in runtime.json");
        return Err(invalid(entry.path(), words).hint(format!("add mounts.{name} to runtime.json")));
    };
    sources.put(name, value.clone());
    from_object(work, Object::new(&sources.at(name), value)?, destination)
}

fn from_object(work: &mut Work<'_>, mut entry: Object, destination: String) -> Result<Mount> {
    let kind = entry.word("type")?;
    let source = entry.word("source")?;
    let mut options = options(work, &mut entry)?;
    let is_bind = |o: &String| o == "bind" || o == "rbind";
    if kind.as_deref() == Some("bind") && !options.iter().any(is_bind) {
        work.say(Weight::Note, entry.path(), "a bind mount needs the option \"bind\" today: added");
        options.insert(0, "bind".to_owned());
    }
    if kind.as_deref() == Some("cgroup") {
        let words =
            "on cgroup v2 the runtime mounts cgroup2 here; add a cgroup namespace for a view of its own";
        work.say(Weight::Note, entry.path(), words);
    }
    Ok(Mount { destination, kind, source, options, ..Mount::default() })
}

fn options(work: &mut Work<'_>, entry: &mut Object) -> Result<Vec<String>> {
    let path = entry.at("options");
    match entry.take("options") {
        None => Ok(Vec::new()),
        Some(Value::String(text)) => {
            if !text.is_empty() {
                work.say(Weight::Note, &path, "one string became a list, split at the commas");
            }
            Ok(text.split(',').filter(|o| !o.is_empty()).map(str::to_owned).collect())
        }
        Some(Value::Array(list)) => {
            let list = list.into_iter().enumerate();
            list.map(|(i, option)| match option {
                Value::String(option) => Ok(option),
                other => Err(wrong(&format!("{path}[{i}]"), "a string", &other)),
            })
            .collect()
        }
        Some(other) => Err(wrong(&path, "a list of options", &other)),
    }
}
