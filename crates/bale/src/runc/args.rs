//! A parser for runc's habits: flags repeat, one dash is as good as two, and may follow the container's id.

use std::ffi::OsString;

use bale_fault::{Fault, Kind, Result};

/// One flag.
pub struct Flag {
    long: &'static str,
    short: &'static str,
    takes_value: bool,
}

/// A switch.
pub const fn flag(long: &'static str, short: &'static str) -> Flag {
    Flag { long, short, takes_value: false }
}

/// A flag with a value.
pub const fn value(long: &'static str, short: &'static str) -> Flag {
    Flag { long, short, takes_value: true }
}

/// What was given.
#[derive(Debug, Default)]
pub struct Parsed {
    flags: Vec<(&'static str, String)>,
    /// What is no flag.
    pub positional: Vec<String>,
}

impl Parsed {
    /// Tells whether a switch is on: of repeated ones the last counts.
    pub fn has(&self, name: &str) -> bool {
        self.last(name).is_some_and(|value| value != "false" && value != "0")
    }

    /// Returns the last value of a flag.
    pub fn last(&self, name: &str) -> Option<String> {
        self.flags.iter().rev().find(|(flag, _)| *flag == name).map(|(_, value)| value.clone())
    }

    /// Returns every value of a flag, in order.
    pub fn all(&self, name: &str) -> Vec<String> {
        self.flags.iter().filter(|(flag, _)| *flag == name).map(|(_, value)| value.clone()).collect()
    }

    /// Returns a number.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>> {
        let Some(text) = self.last(name) else { return Ok(None) };
        let bad = || Fault::new(Kind::InvalidInput, format!("invalid value {text:?} for flag --{name}"));
        text.trim().parse().map(Some).map_err(|_| bad())
    }

    /// Returns the container's id.
    pub fn id(&self) -> Result<&str> {
        let missing = || Fault::new(Kind::InvalidInput, "requires exactly 1 argument: the container id");
        let id = self.positional.first().ok_or_else(missing)?;
        if id.is_empty() {
            return Err(Fault::new(Kind::InvalidInput, "container id cannot be empty"));
        }
        bale_record::check_id(id)?;
        Ok(id)
    }

    /// Refuses more than `most` arguments.
    pub fn at_most(self, most: usize) -> Result<Self> {
        match self.positional.get(most) {
            None => Ok(self),
            Some(extra) => Err(Fault::new(Kind::InvalidInput, format!("unexpected argument {extra:?}"))),
        }
    }
}

/// Parses flags up to the first word that is none, which is the command.
pub fn parse_global<'a>(known: &[Flag], arguments: &'a [OsString]) -> Result<(Parsed, &'a [OsString])> {
    let mut parsed = Parsed::default();
    let mut at = 0;
    while let Some(word) = arguments.get(at) {
        let word = text(word)?;
        if !is_flag(&word) {
            break;
        }
        at += 1;
        take(known, &word, arguments, &mut at, &mut parsed)?;
    }
    Ok((parsed, &arguments[at..]))
}

/// Parses flags wherever they stand; after `--` nothing is a flag. With `stop_after_id` nothing is one after the
/// first word that is none (exec, ps, kill).
pub fn parse(known: &[Flag], arguments: &[OsString], stop_after_id: bool) -> Result<Parsed> {
    let mut parsed = Parsed::default();
    let mut at = 0;
    let mut over = false;
    while let Some(word) = arguments.get(at) {
        at += 1;
        let word = text(word)?;
        if !over && word == "--" {
            over = true;
        } else if over || !is_flag(&word) {
            parsed.positional.push(word);
            over = over || stop_after_id;
        } else {
            take(known, &word, arguments, &mut at, &mut parsed)?;
        }
    }
    Ok(parsed)
}

fn is_flag(word: &str) -> bool {
    word.len() > 1 && word.starts_with('-')
}

fn text(word: &OsString) -> Result<String> {
    let bad = || Fault::new(Kind::InvalidInput, format!("argument {word:?} is not UTF-8"));
    word.to_str().map(ToOwned::to_owned).ok_or_else(bad)
}

fn take(
    known: &[Flag],
    word: &str,
    arguments: &[OsString],
    at: &mut usize,
    parsed: &mut Parsed,
) -> Result<()> {
    let body = word.strip_prefix("--").or_else(|| word.strip_prefix('-')).unwrap_or(word);
    let (name, inline) =
        body.split_once('=').map_or((body, None), |(name, value)| (name, Some(value.to_owned())));
    let found = known.iter().find(|f| f.long == name || (!f.short.is_empty() && f.short == name));
    let Some(found) = found else { return take_cluster(known, word, name, parsed) };
    let value = match (found.takes_value, inline) {
        (_, Some(value)) => value,
        (false, None) => "true".to_owned(),
        (true, None) => {
            let missing = || Fault::new(Kind::InvalidInput, format!("flag needs an argument: {word}"));
            let next = arguments.get(*at).ok_or_else(missing)?;
            *at += 1;
            text(next)?
        }
    };
    parsed.flags.push((found.long, value));
    Ok(())
}

/// Several short switches in one word: `-it`.
fn take_cluster(known: &[Flag], word: &str, name: &str, parsed: &mut Parsed) -> Result<()> {
    let one = |letter: char| known.iter().find(|f| !f.takes_value && f.short.chars().eq([letter]));
    if !word.starts_with("--") && name.len() > 1 && name.chars().all(|letter| one(letter).is_some()) {
        parsed.flags.extend(name.chars().filter_map(one).map(|f| (f.long, "true".to_owned())));
        return Ok(());
    }
    let near = bale_spec::suggest::did_you_mean(name, known.iter().map(|f| f.long));
    Err(Fault::new(Kind::InvalidInput, format!("flag provided but not defined: {word}{near}")))
}

/// Lists flags, one a line.
pub fn help(known: &[Flag]) -> String {
    let mut text = String::new();
    for flag in known {
        let short = if flag.short.is_empty() { String::new() } else { format!(", -{}", flag.short) };
        text.push_str(&format!(
            "   --{}{short}{}\n",
            flag.long,
            if flag.takes_value { " VALUE" } else { "" }
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[Flag] = &[value("bundle", "b"), value("env", "e"), flag("tty", "t"), flag("detach", "d")];

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn flags_stand_anywhere_and_repeat() {
        let parsed = parse(
            KNOWN,
            &words(&["-bundle", "/a", "id", "--bundle=/b", "-td", "-e", "A=1", "-e=B=2"]),
            false,
        );
        let parsed = parsed.unwrap();
        assert_eq!(parsed.last("bundle").as_deref(), Some("/b"));
        assert_eq!(parsed.all("env"), ["A=1", "B=2"]);
        assert!(parsed.has("tty") && parsed.has("detach"));
        assert_eq!(parsed.positional, ["id"]);
    }

    #[test]
    fn after_the_id_of_exec_nothing_is_a_flag() {
        let parsed = parse(KNOWN, &words(&["-t", "id", "ls", "-d", "--", "x"]), true).unwrap();
        assert_eq!(parsed.positional, ["id", "ls", "-d", "--", "x"]);
        assert!(!parsed.has("detach"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |list: &[&str]| parse(KNOWN, &words(list), false).unwrap_err().chain();
        assert_eq!(
            error(&["--bundl", "x"]),
            "flag provided but not defined: --bundl; did you mean \"bundle\"?"
        );
        assert_eq!(error(&["--bundle"]), "flag needs an argument: --bundle");
    }
}
