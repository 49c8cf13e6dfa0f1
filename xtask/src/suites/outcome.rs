//! What a program says: TAP, and the lines of contest.

use crate::run::TOO_LONG;

/// How a program ended with one runtime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Cases that passed.
    pub passed: u32,
    /// Cases that failed.
    pub failed: u32,
    /// Cases that the suite left out.
    pub skipped: u32,
    /// Exit status.
    pub code: i32,
    /// How often it ran; the best is told.
    pub tries: u32,
}

impl Outcome {
    /// Reads the output of a program of `suite`.
    pub fn read(suite: &str, output: &str, code: i32) -> Self {
        let mut outcome = Self { code, tries: 1, ..Self::default() };
        for line in output.lines() {
            let verdict = if suite == "contest" { contest(line) } else { tap(line) };
            match verdict {
                Some(Verdict::Passed) => outcome.passed += 1,
                Some(Verdict::Failed) => outcome.failed += 1,
                Some(Verdict::Skipped) => outcome.skipped += 1,
                None => {}
            }
        }
        outcome
    }

    /// Tells whether nothing failed. Some programs say nothing when all is well.
    pub fn is_good(&self) -> bool {
        self.code == 0 && self.failed == 0
    }

    /// Returns the better of two.
    pub fn better(self, other: Self) -> Self {
        let rank = |outcome: &Self| (outcome.is_good(), outcome.passed);
        if rank(&other) > rank(&self) { other } else { self }
    }

    /// Tells how many cases `other` is ahead by; a whole program counts as one at least.
    pub fn behind(&self, other: &Self) -> u32 {
        let cases = other.passed.saturating_sub(self.passed);
        match (self.is_good(), other.is_good()) {
            (true, _) => 0,
            (false, true) => cases.max(1),
            (false, false) => cases,
        }
    }

    /// Returns it as a cell of the table.
    pub fn cell(&self) -> String {
        let mut text = match (self.code, self.failed, self.passed, self.skipped) {
            (TOO_LONG, ..) => format!("{} ok, too long", self.passed),
            (0, 0, 0, skipped) if skipped > 0 => "skipped".to_owned(),
            (0, 0, 0, _) => "ok".to_owned(),
            (0, 0, passed, _) => format!("ok {passed}"),
            (0, failed, passed, _) => format!("{passed} ok, {failed} not"),
            (code, failed, passed, _) => format!("{passed} ok, {failed} not, exit {code}"),
        };
        if self.tries > 1 {
            text.push_str(&format!(" (best of {})", self.tries));
        }
        text
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Passed,
    Failed,
    Skipped,
}

/// A line of the Test Anything Protocol; what is marked TODO counts for nothing.
fn tap(line: &str) -> Option<Verdict> {
    let (failed, rest) = match line.strip_prefix("not ok") {
        Some(rest) => (true, rest),
        None => (false, line.strip_prefix("ok")?),
    };
    if !rest.is_empty() && !rest.starts_with(' ') {
        return None;
    }
    let directive = rest.split_once('#').map_or("", |(_, directive)| directive.trim_start());
    match (failed, directive.get(..4).map(str::to_ascii_lowercase).as_deref()) {
        (_, Some("todo")) => None,
        (false, Some("skip")) => Some(Verdict::Skipped),
        (true, _) => Some(Verdict::Failed),
        (false, _) => Some(Verdict::Passed),
    }
}

/// A line of contest: `3 / 5 : name : ok`.
fn contest(line: &str) -> Option<Verdict> {
    let (head, verdict) = line.rsplit_once(" : ")?;
    let (number, rest) = head.split_once(" / ")?;
    let (of, _) = rest.split_once(" : ")?;
    if [number, of].iter().any(|n| n.is_empty() || !n.bytes().all(|b| b.is_ascii_digit())) {
        return None;
    }
    match verdict.trim_end() {
        "ok" => Some(Verdict::Passed),
        "not ok" => Some(Verdict::Failed),
        "skipped" => Some(Verdict::Skipped),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_are_counted() {
        let tap =
            "TAP version 13\nok 1 - a\nnot ok 2 - b\nok 3 # SKIP c\nnot ok 4 # TODO d\nokay\n  ok 9\n1..4\n";
        let outcome = Outcome::read("validation", tap, 0);
        assert_eq!((outcome.passed, outcome.failed, outcome.skipped), (1, 1, 1));
        let contest =
            "# Start group x\n1 / 3 : a : b : ok\n2 / 3 : c : not ok\n\twhy : ok\n3 / 3 : d : skipped\n";
        let outcome = Outcome::read("contest", contest, 0);
        assert_eq!((outcome.passed, outcome.failed, outcome.skipped), (1, 1, 1));
    }

    #[test]
    fn who_is_behind_by_how_much() {
        let of = |passed, failed, code| Outcome { passed, failed, skipped: 0, code, tries: 1 };
        let cases = [
            (of(3, 0, 0), of(5, 0, 0), 0),
            (of(3, 1, 0), of(5, 0, 0), 2),
            (of(5, 0, 1), of(5, 0, 0), 1),
            (of(0, 0, 1), of(0, 0, 0), 1),
            (of(3, 2, 0), of(4, 1, 0), 1),
            (of(3, 2, 0), of(3, 9, 0), 0),
        ];
        for (ours, theirs, expected) in cases {
            assert_eq!(ours.behind(&theirs), expected, "{ours:?} {theirs:?}");
        }
        assert_eq!(of(1, 1, 0).better(of(1, 0, 0)), of(1, 0, 0));
    }
}
