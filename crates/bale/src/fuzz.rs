//! Fuzz targets; `testkit/src/fuzz.rs` says how they are run. Those below `fuzz/fuzz_targets` include this file and what
//! it uses, as a binary has no face to link to.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use crate::runc::args::{Flag, Parsed, flag, parse, parse_global, value};
use crate::template::Template;

const KNOWN: &[Flag] =
    &[value("bundle", "b"), value("env", "e"), flag("tty", "t"), flag("detach", "d"), value("user", "u")];

/// runc's command line, words between NUL bytes: what was a flag's is no argument, and an id is safe in a path.
pub fn runc_args(data: &[u8]) {
    let words: Vec<OsString> =
        data.split(|b| *b == 0).map(|word| OsString::from_vec(word.to_vec())).collect();
    let check = |parsed: &Parsed| {
        assert!(parsed.positional.len() <= words.len());
        if let Ok(id) = parsed.id() {
            assert!(!id.contains(['/', '\0']) && id != "." && id != "..");
        }
        let _ = (parsed.has("tty"), parsed.all("env"), parsed.number::<u32>("user"));
    };
    if let Ok((parsed, rest)) = parse_global(KNOWN, &words) {
        assert!(parsed.positional.is_empty());
        assert!(
            rest.first().is_none_or(|word| word == "-" || !word.to_string_lossy().starts_with('-')),
            "{rest:?}"
        );
    }
    for stop_after_id in [false, true] {
        if let Ok(parsed) = parse(KNOWN, &words, stop_after_id) {
            check(&parsed);
            let over = words.iter().position(|word| word == "--").unwrap_or(words.len());
            let is_flag = |word: &&String| word.len() > 1 && word.starts_with('-');
            let allowed = if stop_after_id { words.len() } else { words.len() - over };
            assert!(parsed.positional.iter().filter(is_flag).count() <= allowed, "{parsed:?}");
        }
    }
}

/// `--format`: a template is filled or refused, and neither takes long.
pub fn template(data: &[u8]) {
    let value = serde_json::json!({
        "State": {"Pid": 7, "Status": "running", "Running": true, "Error": ""}, "Args": ["a", "b c"], "None": null,
        "Config": {"Labels": {"own": "1", "z": "26"}}, "Mounts": [{"Type": "bind"}], "Names": "web", "Labels": "k=v",
    });
    let text = String::from_utf8_lossy(data);
    if let Ok(template) = Template::parse(&text.chars().take(2000).collect::<String>()) {
        let _ = template.fill(&value);
    }
}

#[cfg(test)]
bale_testkit::fuzz_targets! {
    runc_args: 10_000,
    template: 5000,
}
