//! Filters: one name for each rule until rc4.

use bale_fault::Result;

use super::Weight;
use super::convert::Work;
use super::object::Object;
use crate::runtime::{Seccomp, SeccompArg, SyscallRule};

/// Converts `linux.seccomp`; an empty one was no filter.
pub(super) fn convert(work: &mut Work<'_>, linux: &mut Object) -> Result<Option<Seccomp>> {
    let mut old = linux.object("seccomp")?;
    let path = old.path().to_owned();
    let default_action = old.word("defaultAction")?;
    let entries = old.objects("syscalls")?;
    let Some(default_action) = default_action else {
        if !entries.is_empty() {
            work.say(Weight::Warning, &path, "has rules and no defaultAction: it was off, and is dropped");
        }
        return Ok(None);
    };
    let mut architectures = old.texts("architectures")?;
    if architectures.is_empty() {
        work.say(Weight::Note, &path, "no architectures meant the native one: named");
        architectures.push("SCMP_ARCH_X86_64".to_owned());
    }
    let mut syscalls = Vec::new();
    for entry in entries {
        add(&mut syscalls, rule(work, entry)?);
    }
    Ok(Some(Seccomp { default_action, architectures, syscalls, ..Seccomp::default() }))
}

/// Joins rules of the same action and conditions, as one rule has many names today.
fn add(rules: &mut Vec<SyscallRule>, rule: SyscallRule) {
    match rules.last_mut() {
        Some(last) if last.action == rule.action && last.args == rule.args => last.names.extend(rule.names),
        _ => rules.push(rule),
    }
}

fn rule(work: &mut Work<'_>, mut entry: Object) -> Result<SyscallRule> {
    if let Some(comment) = entry.word("comment")? {
        let path = entry.at("comment");
        work.say(Weight::Note, &path, format!("{comment:?} has no place today: dropped"));
    }
    let mut names = entry.texts("names")?;
    names.extend(entry.word("name")?);
    let args = entry.objects("args")?.into_iter().map(argument).collect::<Result<_>>()?;
    Ok(SyscallRule { names, action: entry.text("action")?.unwrap_or_default(), errno_ret: None, args })
}

fn argument(mut entry: Object) -> Result<SeccompArg> {
    Ok(SeccompArg {
        index: entry.fitting("index")?.unwrap_or(0),
        value: entry.fitting("value")?.unwrap_or(0),
        value_two: entry.fitting::<u64>("valueTwo")?.filter(|v| *v != 0),
        op: entry.text("op")?.unwrap_or_default(),
    })
}
