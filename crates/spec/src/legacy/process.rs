//! The old `process`, and what was beside it under `linux`.

use bale_fault::Result;
use serde_json::Value;

use super::convert::Work;
use super::object::{Object, invalid, whole, wrong};
use super::{Dialect, Weight};
use crate::runtime::{Capabilities, ConsoleSize, Process, Rlimit, User};

/// Linux's limits by number (asm-generic/resource.h).
const RLIMITS: [&str; 16] = [
    "CPU",
    "FSIZE",
    "DATA",
    "STACK",
    "CORE",
    "RSS",
    "NPROC",
    "NOFILE",
    "MEMLOCK",
    "AS",
    "LOCKS",
    "SIGPENDING",
    "MSGQUEUE",
    "NICE",
    "RTPRIO",
    "RTTIME",
];

/// Converts `process`, drawing capabilities, limits and labels from where the dialect had them.
///
/// `linux` is the section of config.json, `host` the one of runtime.json (the same section in one-file dialects).
pub(super) fn convert(
    work: &mut Work<'_>,
    old: &mut Object,
    linux: &mut Object,
    host: &mut Object,
) -> Result<Process> {
    let user = user(&mut old.object("user")?)?;
    let args = old.texts("args")?;
    if args.is_empty() {
        return Err(invalid(&old.at("args"), "is empty").hint("name the program to run in process.args"));
    }
    let process = Process {
        terminal: old.flag("terminal")?.unwrap_or(false),
        console_size: console_size(old)?,
        user,
        args,
        env: environment(work, old)?,
        cwd: cwd(work, old)?,
        capabilities: capabilities(work, old, linux)?,
        rlimits: rlimits(work, old, host)?,
        no_new_privileges: no_new_privileges(work, old, host)?,
        apparmor_profile: label(work, old, "apparmorProfile", host, "apparmorProfile")?,
        oom_score_adj: oom_score_adj(work, old, host)?,
        selinux_label: label(work, old, "selinuxLabel", host, "selinuxProcessLabel")?,
        ..Process::default()
    };
    Ok(process)
}

fn user(old: &mut Object) -> Result<User> {
    let path = old.at("additionalGids");
    let groups = old.list("additionalGids")?;
    let groups = groups.iter().enumerate().map(|(i, g)| {
        let path = format!("{path}[{i}]");
        u32::try_from(whole(&path, g)?).map_err(|_| invalid(&path, "is out of range"))
    });
    Ok(User {
        uid: old.fitting("uid")?.unwrap_or(0),
        gid: old.fitting("gid")?.unwrap_or(0),
        additional_gids: groups.collect::<Result<_>>()?,
        ..User::default()
    })
}

fn console_size(old: &mut Object) -> Result<Option<ConsoleSize>> {
    if !old.has("consoleSize") {
        return Ok(None);
    }
    let mut size = old.object("consoleSize")?;
    let size = ConsoleSize {
        height: size.fitting("height")?.unwrap_or(0),
        width: size.fitting("width")?.unwrap_or(0),
    };
    Ok((size != ConsoleSize::default()).then_some(size))
}

fn environment(work: &mut Work<'_>, old: &mut Object) -> Result<Vec<String>> {
    let path = old.at("env");
    let env = old.texts("env")?;
    for (i, variable) in env.iter().enumerate() {
        if !variable.contains('=') {
            let words = format!("{variable:?} has no \"=\": the old runtime refused to start with it");
            work.say(Weight::Warning, &format!("{path}[{i}]"), words);
        }
    }
    Ok(env)
}

fn cwd(work: &mut Work<'_>, old: &mut Object) -> Result<String> {
    let path = old.at("cwd");
    let cwd = old.text("cwd")?.unwrap_or_default();
    if cwd.is_empty() {
        work.say(
            Weight::Note,
            &path,
            "empty meant /, as pivot_root leaves the process there: written as \"/\"",
        );
        return Ok("/".to_owned());
    }
    if !cwd.starts_with('/') {
        work.say(Weight::Note, &path, format!("relative meant below /: written as \"/{cwd}\""));
        return Ok(format!("/{cwd}"));
    }
    Ok(cwd)
}

fn capabilities(work: &mut Work<'_>, old: &mut Object, linux: &mut Object) -> Result<Option<Capabilities>> {
    let path = if linux.has("capabilities") { linux.at("capabilities") } else { old.at("capabilities") };
    let value = match (linux.take("capabilities"), old.take("capabilities")) {
        (Some(flat), _) => flat,
        (None, Some(inner)) => inner,
        (None, None) => {
            work.say(Weight::Note, &path, "absent: the process has no capabilities, then and now");
            return Ok(None);
        }
    };
    let names = match value {
        Value::Object(_) => return current_capabilities(&path, value).map(Some),
        Value::Array(names) => names,
        other => return Err(wrong(&path, "a list", &other)),
    };
    let names = names.iter().enumerate().map(|(i, name)| match name {
        Value::String(name) => Ok(capability(work, &format!("{path}[{i}]"), name)),
        other => Err(wrong(&format!("{path}[{i}]"), "a string", other)),
    });
    let names: Vec<String> = names.collect::<Result<_>>()?;
    let inheritable = if work.options.faithful { names.clone() } else { Vec::new() };
    if !work.options.faithful {
        let words = "one list became bounding, effective and permitted; not inheritable, which the old runtime also set \
                     and which lets file capabilities rise (CVE-2022-29162)";
        work.say(Weight::Note, &path, words);
    }
    let sets = Capabilities {
        bounding: names.clone(),
        effective: names.clone(),
        inheritable,
        permitted: names,
        ambient: Vec::new(),
    };
    Ok((!sets.bounding.is_empty()).then_some(sets).or(Some(Capabilities::default())))
}

fn current_capabilities(path: &str, value: Value) -> Result<Capabilities> {
    serde_json::from_value(value)
        .map_err(|e| invalid(path, "is not the object of capability sets").caused_by(e))
}

fn capability(work: &mut Work<'_>, path: &str, name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
    if full != name {
        work.say(Weight::Note, path, format!("{name:?} is written {full:?} today"));
    }
    full
}

fn rlimits(work: &mut Work<'_>, old: &mut Object, host: &mut Object) -> Result<Vec<Rlimit>> {
    let mut kept: Vec<Rlimit> = Vec::new();
    let mut entries = old.objects("rlimits")?;
    entries.extend(host.objects("rlimits")?);
    for mut entry in entries {
        let path = entry.at("type");
        let kind = match entry.take("type") {
            Some(Value::String(name)) if name == "RLIMIT_SGPENDING" => {
                work.say(
                    Weight::Note,
                    &path,
                    "RLIMIT_SGPENDING was the old runtime's spelling of RLIMIT_SIGPENDING",
                );
                "RLIMIT_SIGPENDING".to_owned()
            }
            Some(Value::String(name)) => name,
            Some(number) => {
                let number = whole(&path, &number)?;
                let name = usize::try_from(number).ok().and_then(|n| RLIMITS.get(n));
                let name = name.ok_or_else(|| invalid(&path, format!("no limit has the number {number}")))?;
                work.say(Weight::Note, &path, format!("the number {number} is RLIMIT_{name}"));
                format!("RLIMIT_{name}")
            }
            None => return Err(invalid(&path, "is absent")),
        };
        let limit = Rlimit { kind, hard: limit(&mut entry, "hard")?, soft: limit(&mut entry, "soft")? };
        if let Some(earlier) = kept.iter_mut().find(|k| k.kind == limit.kind) {
            work.say(
                Weight::Warning,
                &path,
                format!("{} stands twice: the last one won, and is kept", limit.kind),
            );
            *earlier = limit;
        } else {
            kept.push(limit);
        }
    }
    Ok(kept)
}

/// Reads a limit; -1 was `RLIM_INFINITY` where numbers were signed.
fn limit(entry: &mut Object, key: &str) -> Result<u64> {
    let path = entry.at(key);
    match entry.number(key)? {
        None => Ok(0),
        Some(-1) => Ok(u64::MAX),
        Some(number) => {
            u64::try_from(number).map_err(|_| invalid(&path, format!("{number} is out of range")))
        }
    }
}

fn no_new_privileges(work: &mut Work<'_>, old: &mut Object, host: &mut Object) -> Result<bool> {
    let path = host.at("noNewPrivileges");
    let outer = host.flag("noNewPrivileges")?;
    if outer.is_some() {
        work.say(Weight::Note, &path, "moved to process.noNewPrivileges");
    }
    Ok(old.flag("noNewPrivileges")?.or(outer).unwrap_or(false))
}

fn label(
    work: &mut Work<'_>,
    old: &mut Object,
    key: &str,
    host: &mut Object,
    outer: &str,
) -> Result<Option<String>> {
    let path = host.at(outer);
    let moved = host.word(outer)?;
    if moved.is_some() {
        work.say(Weight::Note, &path, format!("moved to process.{key}"));
    }
    Ok(old.word(key)?.or(moved))
}

fn oom_score_adj(work: &mut Work<'_>, old: &mut Object, host: &mut Object) -> Result<Option<i32>> {
    if let Some(own) = old.fitting("oomScoreAdj")? {
        return Ok(Some(own));
    }
    let Some(mut resources) =
        host.take("resources").map(|r| Object::new(&host.at("resources"), r)).transpose()?
    else {
        return Ok(None);
    };
    let path = resources.at("oomScoreAdj");
    let score = resources.fitting("oomScoreAdj")?;
    if score.is_some() {
        work.say(Weight::Note, &path, "moved to process.oomScoreAdj");
    }
    host.put("resources", Value::Object(resources.rest()));
    // Before it was in the specification (0.2.0 of January 2016) runc always wrote 0, which is what absent means too.
    Ok(score.filter(|_| work.dialect >= Dialect::V020))
}
