//! Did you mean: the nearest known word to an unknown one.

/// Returns the candidate that `word` was probably meant to be: a third of its letters may differ, not counting case.
#[must_use]
pub fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.chars().take(80).flat_map(char::to_lowercase).collect();
    let limit = (word.len() / 3).max(1);
    let ranked = candidates.into_iter().map(|candidate| {
        let other: Vec<char> = candidate.chars().flat_map(char::to_lowercase).collect();
        (distance(&word, &other), candidate)
    });
    ranked.filter(|(far, _)| *far <= limit).min_by_key(|(far, _)| *far).map(|(_, candidate)| candidate)
}

/// Returns `; did you mean "…"?` for the nearest candidate, or nothing.
#[must_use]
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    closest(word, candidates).map(|found| format!("; did you mean {found:?}?")).unwrap_or_default()
}

/// The number of insertions, deletions, replacements and swaps of neighbours between two words.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut best = (above[j] + usize::from(x != y)).min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_strangers_are_not() {
        let known = ["readonly", "propagation", "size", "CAP_NET_ADMIN", "terminal"];
        let cases = [
            ("redonly", "readonly"),
            ("cap_net_admn", "CAP_NET_ADMIN"),
            ("termnial", "terminal"),
            ("siez", "size"),
        ];
        for (typed, meant) in cases {
            assert_eq!(closest(typed, known), Some(meant), "{typed}");
        }
        assert_eq!(closest("hostname", known), None);
        assert_eq!(closest("", known), None);
        assert_eq!(did_you_mean("siez", known), "; did you mean \"size\"?");
    }
}
