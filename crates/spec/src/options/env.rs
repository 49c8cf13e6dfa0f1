//! `-e`, `--env-file`, `--label`, `--label-file`, `--annotation`.

use std::collections::BTreeMap;

use bale_fault::{Fault, Kind, Result};

use super::{Surroundings, wrong};

/// Reads `-e KEY=value`, or `-e KEY`, which takes the value of the caller's environment; without one the entry is
/// `KEY` alone, which takes the image's value away.
///
/// # Errors
/// `InvalidInput`.
pub fn variable(spec: &str, around: &dyn Surroundings) -> Result<String> {
    let name = spec.split('=').next().unwrap_or_default();
    if name.is_empty() || spec.contains('\0') {
        return Err(
            wrong("--env", spec, "is not an environment variable").hint("the form is KEY=value, or KEY")
        );
    }
    if spec.contains('=') {
        return Ok(spec.to_owned());
    }
    Ok(around.variable(name).map_or_else(|| name.to_owned(), |value| format!("{name}={value}")))
}

/// Reads the text of an `--env-file`: lines as for `-e`, `#` in front for remarks, no quotation marks.
///
/// # Errors
/// `InvalidInput` names file and line.
pub fn file(path: &str, text: &str, around: &dyn Surroundings) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for (index, line) in text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let fail = |reason: String| {
            Fault::new(Kind::InvalidInput, format!("--env-file {path}, line {}: {reason}", index + 1))
        };
        let name = line.split('=').next().unwrap_or_default();
        if name.is_empty() {
            return Err(fail(format!("no variable name on {line:?}")));
        }
        if name.contains(char::is_whitespace) {
            return Err(fail(format!("variable {name:?} contains whitespace")));
        }
        if line.contains('\0') {
            return Err(fail("a NUL byte".to_owned()));
        }
        match (line.contains('='), around.variable(name)) {
            (true, _) => found.push(line.to_owned()),
            (false, Some(value)) => found.push(format!("{name}={value}")),
            (false, None) => {}
        }
    }
    Ok(found)
}

/// Reads labels or annotations: `KEY=value`, or `KEY` for an empty value; later ones win.
///
/// # Errors
/// `InvalidInput`.
pub fn labels<'a>(flag: &str, specs: impl IntoIterator<Item = &'a str>) -> Result<BTreeMap<String, String>> {
    let pair = |spec: &'a str| {
        let (key, value) = spec.split_once('=').unwrap_or((spec, ""));
        if key.is_empty() {
            return Err(wrong(flag, spec, "empty name"));
        }
        Ok((key.to_owned(), value.to_owned()))
    };
    specs.into_iter().map(pair).collect()
}

/// Returns the lines of a `--label-file`.
pub fn label_lines(text: &str) -> impl Iterator<Item = &str> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::flags::tests::Here;

    #[test]
    fn variables() {
        let cases = [
            ("A=1", "A=1"),
            ("A=", "A="),
            ("SET", "SET=yes"),
            ("UNSET", "UNSET"),
            ("A B=1", "A B=1"),
            ("A=b=c", "A=b=c"),
        ];
        for (spec, entry) in cases {
            assert_eq!(variable(spec, &Here).unwrap(), entry);
        }
        assert_eq!(
            variable("=x", &Here).unwrap_err().chain(),
            "--env \"=x\": is not an environment variable"
        );
        assert!(variable("", &Here).is_err() && variable("A=\0", &Here).is_err());
    }

    #[test]
    fn env_files() {
        let text = "\u{feff}# remark\n\n  A=1\nB='q'\nC= spaced \nSET\nUNSET\n#D=1\nE=a#b\r\n";
        assert_eq!(file("f", text, &Here).unwrap(), ["A=1", "B='q'", "C= spaced ", "SET=yes", "E=a#b"]);
        let fault = file("dir/f", "A=1\nA B=2\n", &Here).unwrap_err();
        assert_eq!(fault.chain(), "--env-file dir/f, line 2: variable \"A B\" contains whitespace");
        assert!(file("f", "=1", &Here).is_err());
    }

    #[test]
    fn label_values() {
        let map = labels("--label", ["a=b", "c", "a=d", "e=f=g"]).unwrap();
        assert_eq!(
            map.into_iter().map(|(k, v)| format!("{k}:{v}")).collect::<Vec<_>>(),
            ["a:d", "c:", "e:f=g"]
        );
        assert_eq!(labels("--label", ["=x"]).unwrap_err().chain(), "--label \"=x\": empty name");
        assert_eq!(label_lines("# x\na=1\n\n b=2").collect::<Vec<_>>(), ["a=1", "b=2"]);
    }
}
