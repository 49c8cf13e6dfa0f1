//! Signals by name and number (Linux, signal(7)).

const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
const ALIASES: [(&str, i32); 4] = [("IOT", 6), ("CLD", 17), ("POLL", 29), ("UNUSED", 31)];
/// The first realtime signal that glibc leaves to programs; docker's and runc's `RTMIN`.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// Returns the number of a signal that is given as a number, `TERM` or `SIGTERM` in any case, or `RTMIN+n`/`RTMAX-n`.
#[must_use]
pub fn parse(text: &str) -> Option<i32> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().ok().filter(|n| (1..=RTMAX).contains(n));
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(at) = NAMES.iter().position(|known| *known == name) {
        return i32::try_from(at + 1).ok();
    }
    if let Some((_, number)) = ALIASES.iter().find(|(known, _)| *known == name) {
        return Some(*number);
    }
    let offset = |rest: &str, sign: char| -> Option<i32> {
        if rest.is_empty() {
            return Some(0);
        }
        rest.strip_prefix(sign)?.parse::<u8>().ok().map(i32::from)
    };
    let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => RTMIN + offset(rest, '+')?,
        (_, Some(rest)) => RTMAX - offset(rest, '-')?,
        _ => return None,
    };
    (RTMIN..=RTMAX).contains(&number).then_some(number)
}

/// Returns the name with `SIG`, or the number for one without a name.
#[must_use]
pub fn name(number: i32) -> String {
    let index = usize::try_from(number - 1).ok();
    match (index.and_then(|i| NAMES.get(i)), number) {
        (Some(name), _) => format!("SIG{name}"),
        (None, RTMIN) => "SIGRTMIN".to_owned(),
        (None, RTMAX) => "SIGRTMAX".to_owned(),
        (None, n) if (RTMIN..RTMAX).contains(&n) => format!("SIGRTMIN+{}", n - RTMIN),
        (None, n) => n.to_string(),
    }
}

/// Returns the names a user may have meant, without `SIG`.
#[must_use]
pub fn names() -> &'static [&'static str] {
    &NAMES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let good = [
            ("TERM", 15),
            ("sigkill", 9),
            ("9", 9),
            ("SIGRTMIN", 34),
            ("rtmin+3", 37),
            ("RTMAX-1", 63),
            ("64", 64),
        ];
        for (text, number) in good {
            assert_eq!(parse(text), Some(number), "{text}");
        }
        for text in [
            "",
            "0",
            "65",
            "FOO",
            "-9",
            "+9",
            "RTMIN+31",
            "RTMAX-31",
            "RTMIN-1",
            "SIG",
            "SIGSIGTERM",
            "9999999999",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(
            [name(15), name(34), name(36), name(64), name(99)],
            ["SIGTERM", "SIGRTMIN", "SIGRTMIN+2", "SIGRTMAX", "99"]
        );
    }
}
