//! Docker's other spellings of verbs.

use std::ffi::OsString;

/// Docker's verbs with a noun in front whose short form is another word.
const LONG_FORMS: [(&str, &str, &[&str]); 11] = [
    ("image", "ls", &["images"]),
    ("image", "list", &["images"]),
    ("image", "rm", &["rmi"]),
    ("image", "remove", &["rmi"]),
    ("image", "inspect", &["inspect", "--type", "image"]),
    ("container", "ls", &["ps"]),
    ("container", "list", &["ps"]),
    ("container", "ps", &["ps"]),
    ("container", "rm", &["rm"]),
    ("container", "remove", &["rm"]),
    ("container", "inspect", &["inspect", "--type", "container"]),
];
/// Those that are the same behind the noun.
const SAME: [(&str, &[&str]); 2] = [
    ("image", &["pull", "push", "tag", "save", "load", "import"]),
    ("container", &["run", "create", "start", "logs", "exec", "attach", "wait", "stop", "kill", "export"]),
];

/// Turns `image ls`, `container rm`, `help run` and `-v` into `images`, `rm`, `run --help` and `--version`.
pub fn spelled_out(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let Some(at) = first_word(&arguments) else { return arguments };
    let word = |at: usize| arguments.get(at).and_then(|word| word.to_str()).unwrap_or_default().to_owned();
    let (first, second) = (word(at), word(at + 1));
    if first == "-v" {
        arguments[at] = "--version".into();
        return arguments;
    }
    if first == "help" {
        arguments.remove(at);
        arguments.push("--help".into());
        return arguments;
    }
    let long = LONG_FORMS.iter().find(|(noun, verb, _)| *noun == first && *verb == second);
    let short: Option<Vec<OsString>> = match long {
        Some((_, _, short)) => Some(short.iter().map(OsString::from).collect()),
        None => SAME
            .iter()
            .any(|(noun, verbs)| *noun == first && verbs.contains(&second.as_str()))
            .then(|| vec![second.into()]),
    };
    if let Some(short) = short {
        arguments.splice(at..at + 2, short);
    }
    arguments
}

/// Finds the verb: `--root` may stand in front of it.
pub fn first_word(arguments: &[OsString]) -> Option<usize> {
    let mut at = 1;
    while let Some(argument) = arguments.get(at) {
        match argument.to_str()? {
            "--root" => at += 2,
            text if text.starts_with("--root=") => at += 1,
            _ => return Some(at),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_forms_are_spelled_out() {
        for (typed, wanted) in [
            ("bale image ls -q", "bale images -q"),
            ("bale container rm -f web", "bale rm -f web"),
            ("bale --root /x container run redis ls", "bale --root /x run redis ls"),
            ("bale --root=/x image inspect redis", "bale --root=/x inspect --type image redis"),
            ("bale help run", "bale run --help"),
            ("bale help", "bale --help"),
            ("bale -v", "bale --version"),
            ("bale image build .", "bale image build ."),
            ("bale volume ls", "bale volume ls"),
            ("bale ps", "bale ps"),
            ("bale", "bale"),
        ] {
            let arguments = typed.split(' ').map(OsString::from).collect();
            let found: Vec<String> =
                spelled_out(arguments).into_iter().map(|word| word.into_string().unwrap()).collect();
            assert_eq!(found.join(" "), wanted);
        }
    }
}
