//! Properties of the unit that a config's annotations ask for: `org.systemd.property.NAME`, with a value in GVariant's
//! text form (`'text'`, `true`, `5`, `uint64 5`, `['a', 'b']`).
//!
//! `features` names the prefix among the annotations that may be unsafe, so that a caller can refuse it to its users.
//! What would take other processes into the container's unit, lift its device filter or hand it on is refused here.

use std::collections::BTreeMap;

use bale_fault::{Fault, Kind, Result};

use super::unit::Properties;
use super::wire::Value;

/// What the names of the annotations begin with.
pub const PREFIX: &str = "org.systemd.property.";
/// What decides who is in the unit, where it is, and what may be done in it.
const REFUSED: &[&str] = &[
    "PIDs",
    "PIDFDs",
    "Slice",
    "Delegate",
    "DelegateControllers",
    "DelegateSubgroup",
    "DisableControllers",
    "DevicePolicy",
    "DeviceAllow",
    "BPFProgram",
    "User",
    "Group",
    "Controller",
];

/// Returns the properties that annotations ask for, by name.
///
/// # Errors
/// `InvalidInput` with the annotation.
pub fn properties(annotations: &BTreeMap<String, String>) -> Result<Properties> {
    let asked = annotations.iter().filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?, value)));
    asked.map(|(name, value)| property(name, value)).collect()
}

fn property(name: &str, text: &str) -> Result<(String, Value)> {
    let invalid = |words: &str| {
        let words = format!("annotations[\"{PREFIX}{name}\"]: {words}");
        Fault::new(Kind::InvalidInput, words)
    };
    if name.len() < 3 || !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return Err(invalid("no name of a property of systemd"));
    }
    if REFUSED.contains(&name) {
        return Err(
            invalid("not left to annotations").hint("leave it out; linux.cgroupsPath chooses the slice")
        );
    }
    let bad = || {
        invalid(&format!("{text:?} is no value")).hint("write 'text', true, 5, uint64 5, or ['one', 'two']")
    };
    let value = parse(text).ok_or_else(bad)?;
    match name.strip_suffix("Sec").filter(|stem| !stem.ends_with('U')) {
        // systemd's files count seconds, its bus microseconds.
        Some(stem) => Ok((format!("{stem}USec"), microseconds(&value).ok_or_else(bad)?)),
        None => Ok((name.to_owned(), value)),
    }
}

fn microseconds(seconds: &Value) -> Option<Value> {
    let seconds = match *seconds {
        Value::I32(value) => u64::try_from(value).ok()?,
        Value::U32(value) => value.into(),
        Value::I64(value) => u64::try_from(value).ok()?,
        Value::U64(value) => value,
        _ => return None,
    };
    seconds.checked_mul(1_000_000).map(Value::U64)
}

/// Reads a value; `None` when it is none of the forms above.
fn parse(text: &str) -> Option<Value> {
    let text = text.trim();
    match text {
        "true" => return Some(Value::Bool(true)),
        "false" => return Some(Value::Bool(false)),
        _ => {}
    }
    if text.starts_with(['\'', '"']) {
        let (value, rest) = quoted(text)?;
        return rest.is_empty().then_some(Value::Text(value));
    }
    if let Some(inner) = text.strip_prefix('[') {
        return texts(inner.strip_suffix(']')?).map(Value::Texts);
    }
    match text.split_once(' ') {
        None => text.parse().ok().map(Value::I32),
        Some((kind, number)) => {
            let number = number.trim();
            match kind {
                "int32" => number.parse().ok().map(Value::I32),
                "uint32" => number.parse().ok().map(Value::U32),
                "int64" => number.parse().ok().map(Value::I64),
                "uint64" => number.parse().ok().map(Value::U64),
                _ => None,
            }
        }
    }
}

fn texts(mut inner: &str) -> Option<Vec<String>> {
    let mut all = Vec::new();
    loop {
        let (value, rest) = quoted(inner.trim_start())?;
        all.push(value);
        match rest.trim_start() {
            "" => return Some(all),
            rest => inner = rest.strip_prefix(',')?,
        }
    }
}

/// Reads a quoted text at the beginning, and returns it with what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut letters = text.char_indices();
    let quote = letters.next().map(|(_, quote)| quote).filter(|quote| matches!(quote, '\'' | '"'))?;
    let mut value = String::new();
    while let Some((at, letter)) = letters.next() {
        match letter {
            letter if letter == quote => return Some((value, &text[at + 1..])),
            '\\' => value.push(letters.next().map(|(_, letter)| letter).filter(|c| "\\'\"".contains(*c))?),
            '\0' => return None,
            letter => value.push(letter),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_gvariant_writes_them() {
        let text = |text: &str| Value::Text(text.to_owned());
        let cases = [
            ("TimeoutStopUSec", "uint64 5000000", "TimeoutStopUSec", Value::U64(5_000_000)),
            ("TimeoutStopSec", "5", "TimeoutStopUSec", Value::U64(5_000_000)),
            ("CollectMode", "'inactive'", "CollectMode", text("inactive")),
            ("Description", r#""it's \"x\"""#, "Description", text("it's \"x\"")),
            ("DefaultDependencies", "true", "DefaultDependencies", Value::Bool(true)),
            ("After", "['a.service', \"b\"]", "After", Value::Texts(vec!["a.service".into(), "b".into()])),
            ("OOMScoreAdjust", "-7", "OOMScoreAdjust", Value::I32(-7)),
        ];
        for (name, given, as_name, value) in cases {
            assert_eq!(property(name, given).unwrap(), (as_name.to_owned(), value), "{name}");
        }
    }

    #[test]
    fn others_are_refused_with_their_name() {
        let cases = [
            ("PIDs", "[1]"),
            ("Slice", "'x.slice'"),
            ("DeviceAllow", "[]"),
            ("a.b", "true"),
            ("After", "['a'"),
            ("After", "['a' 'b']"),
            ("After", "[]"),
            ("Description", "'a' 'b'"),
            ("Description", "'a\\n'"),
            ("TimeoutStopSec", "-1"),
            ("TimeoutStopSec", "uint64 18446744073709551615"),
            ("CPUWeight", "uint64 x"),
            ("CPUWeight", ""),
        ];
        for (name, given) in cases {
            let fault = property(name, given).unwrap_err();
            assert_eq!(fault.kind(), Kind::InvalidInput, "{name} {given}");
            assert!(
                fault.chain().starts_with(&format!("annotations[\"{PREFIX}{name}\"]: ")),
                "{}",
                fault.chain()
            );
        }
    }
}
