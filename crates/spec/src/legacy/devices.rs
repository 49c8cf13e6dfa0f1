//! Devices: nodes and access rules were one list until 0.3.0.

use bale_fault::Result;
use serde_json::Value;

use super::convert::Work;
use super::object::{Object, invalid};
use super::{Dialect, Weight};
use crate::runtime::{Device, DeviceRule};

/// The devices that every 1.x runtime makes by itself: path, major, minor.
const SUPPLIED: [(&str, i64, i64); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// Nodes to make and rules to set.
#[derive(Default)]
pub(super) struct Devices {
    pub nodes: Vec<Device>,
    pub rules: Vec<DeviceRule>,
}

/// Converts `linux.devices`.
pub(super) fn convert(work: &mut Work<'_>, linux: &mut Object) -> Result<Devices> {
    let path = linux.at("devices");
    let had_list = linux.has("devices");
    let list = linux.list("devices")?;
    let mut devices = Devices::default();
    // Until 0.3.0 the runtime denied everything first and allowed what was listed.
    let lists_are_rules = work.dialect < Dialect::V030;
    if lists_are_rules {
        devices.rules.push(DeviceRule {
            allow: false,
            access: Some("rwm".to_owned()),
            ..DeviceRule::default()
        });
        if had_list && list.is_empty() {
            let words = "an empty list also left out /dev/ptmx, /dev/fd and the standard streams' links; today they are \
                         always made";
            work.say(Weight::Warning, &path, words);
        }
    }
    let mut supplied = 0;
    for (i, value) in list.into_iter().enumerate() {
        let path = format!("{path}[{i}]");
        let Some(entry) = Entry::read(work, &path, value)? else { continue };
        if entry.is_supplied() {
            supplied += 1;
            continue;
        }
        // FIFOs have no access rules.
        if lists_are_rules && entry.kind != 'p' {
            devices.rules.push(entry.rule());
        }
        devices.nodes.extend(entry.node(work, &path)?);
    }
    if supplied > 0 {
        let words =
            format!("{supplied} of the devices that every current runtime makes by itself: left to it");
        work.say(Weight::Note, &path, words);
    }
    Ok(devices)
}

struct Entry {
    path: Option<String>,
    kind: char,
    major: i64,
    minor: i64,
    access: Option<String>,
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
}

impl Entry {
    fn read(work: &mut Work<'_>, path: &str, value: Value) -> Result<Option<Self>> {
        match value {
            Value::String(name) => Self::by_name(work, path, &name),
            other => Self::by_object(Object::new(path, other)?).map(Some),
        }
    }

    /// July 2015: a name below /dev.
    fn by_name(work: &mut Work<'_>, path: &str, name: &str) -> Result<Option<Self>> {
        let full = if name.starts_with('/') { name.to_owned() } else { format!("/dev/{name}") };
        let known = SUPPLIED.iter().find(|(p, ..)| *p == full).map(|&(_, major, minor)| ('c', major, minor));
        let found = known.or_else(|| {
            let host = (work.device_of)(&full)?;
            work.say(
                Weight::Note,
                path,
                format!("{full} has the host's numbers {}:{}", host.major, host.minor),
            );
            Some((host.kind, i64::from(host.major), i64::from(host.minor)))
        });
        let Some((kind, major, minor)) = found else {
            work.say(Weight::Warning, path, format!("{full} is no device of this host: dropped"));
            return Ok(None);
        };
        let access = Some("rwm".to_owned());
        Ok(Some(Self {
            path: Some(full),
            kind,
            major,
            minor,
            access,
            mode: Some(0o666),
            uid: Some(0),
            gid: Some(0),
        }))
    }

    fn by_object(mut object: Object) -> Result<Self> {
        let kind_path = object.at("type");
        let kind = match object.take("type") {
            Some(Value::Number(code)) => {
                code.as_u64().and_then(|c| u32::try_from(c).ok()).and_then(char::from_u32)
            }
            Some(Value::String(text)) => text.chars().next(),
            _ => None,
        };
        let kind = kind.filter(|k| "abcpu".contains(*k));
        Ok(Self {
            kind: kind.ok_or_else(|| invalid(&kind_path, "want 98 (b), 99 (c), 112 (p) or 117 (u)"))?,
            path: object.word("path")?,
            major: object.fitting("major")?.unwrap_or(0),
            minor: object.fitting("minor")?.unwrap_or(0),
            access: object.word("permissions")?,
            // Go's os.FileMode may carry its own type bits above the permission bits.
            mode: object.number("fileMode")?.map(|m| u32::try_from(m & 0o7777).unwrap_or(0)),
            uid: object.fitting("uid")?,
            gid: object.fitting("gid")?,
        })
    }

    /// Compares everything: a /dev/null with other numbers or owner is not the supplied one.
    fn is_supplied(&self) -> bool {
        let same = |(path, major, minor): &(&str, i64, i64)| {
            self.path.as_deref() == Some(*path) && (self.major, self.minor) == (*major, *minor)
        };
        let root = |id: Option<u32>| id.unwrap_or(0) == 0;
        self.kind == 'c'
            && SUPPLIED.iter().any(same)
            && self.mode.unwrap_or(0o666) == 0o666
            && root(self.uid)
            && root(self.gid)
            && self.access.as_deref().is_none_or(|a| a == "rwm")
    }

    fn rule(&self) -> DeviceRule {
        let number = |n: i64| (n >= 0).then_some(n);
        DeviceRule {
            allow: true,
            kind: Some(if self.kind == 'u' { 'c' } else { self.kind }.to_string()),
            major: number(self.major),
            minor: number(self.minor),
            access: Some(self.access.clone().unwrap_or_else(|| "rwm".to_owned())),
        }
    }

    fn node(self, work: &mut Work<'_>, path: &str) -> Result<Option<Device>> {
        let Some(node) = self.path else {
            work.say(Weight::Note, path, "has no path: an access rule only");
            return Ok(None);
        };
        if !node.starts_with('/') {
            return Err(invalid(path, format!("path {node:?} is not absolute")));
        }
        if self.major < 0 || self.minor < 0 {
            work.say(Weight::Warning, path, "a wildcard number makes no node: an access rule only");
            return Ok(None);
        }
        Ok(Some(Device {
            path: node,
            kind: self.kind.to_string(),
            major: self.major,
            minor: self.minor,
            file_mode: self.mode,
            uid: self.uid,
            gid: self.gid,
        }))
    }
}

/// Converts `resources.devices` of 0.3.0 and later, whose `type` was a number in 0.3.0.
pub(super) fn rules(resources: &mut Object) -> Result<Vec<DeviceRule>> {
    let entries = resources.objects("devices")?;
    entries.into_iter().map(rule).collect()
}

fn rule(mut entry: Object) -> Result<DeviceRule> {
    let path = entry.at("type");
    let kind = match entry.take("type") {
        None => None,
        Some(Value::String(text)) => Some(text).filter(|t| !t.is_empty()),
        Some(Value::Number(code)) => {
            let letter = code.as_u64().and_then(|c| u32::try_from(c).ok()).and_then(char::from_u32);
            let letter = letter.filter(|l| "abc".contains(*l));
            Some(letter.ok_or_else(|| invalid(&path, "want 97 (a), 98 (b) or 99 (c)"))?.to_string())
        }
        Some(_) => return Err(invalid(&path, "want a, b or c")),
    };
    let number = |n: Option<i64>| n.filter(|n| *n >= 0);
    Ok(DeviceRule {
        allow: entry.flag("allow")?.unwrap_or(false),
        kind,
        major: number(entry.fitting("major")?),
        minor: number(entry.fitting("minor")?),
        access: entry.word("access")?,
    })
}
