//! Patterns of `ps --filter name=…`: the regular expressions that people type there, matched in bounded time.

/// Letters of a pattern and of a text that are looked at.
const MOST: usize = 512;

/// One letter's worth of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Letter {
    Any,
    One(char),
    Among { letters: Vec<(char, char)>, not: bool },
}

/// A letter and how often it may come.
#[derive(Clone, Debug)]
struct Piece {
    letter: Letter,
    least: bool,
    many: bool,
}

/// Tells whether `pattern` is found in `text`: `^ $ . * + ? [a-z] | \\`; without brackets around groups.
#[must_use]
pub fn found(pattern: &str, text: &str) -> bool {
    let text: Vec<char> = text.chars().take(MOST).collect();
    pattern.split('|').any(|branch| branch_found(&branch.chars().take(MOST).collect::<Vec<_>>(), &text))
}

fn branch_found(pattern: &[char], text: &[char]) -> bool {
    let (pattern, at_start) = pattern.strip_prefix(&['^']).map_or((pattern, false), |rest| (rest, true));
    let escaped = pattern.len() > 1 && pattern[pattern.len() - 2] == '\\';
    let (pattern, at_end) = match pattern.split_last() {
        Some(('$', rest)) if !escaped => (rest, true),
        _ => (pattern, false),
    };
    let pieces = pieces(pattern);
    // The places of the pattern that can be reached: no more steps than letters times pieces.
    let mut reached = vec![false; pieces.len() + 1];
    for at in 0..=text.len() {
        reached[0] |= at == 0 || !at_start;
        skip(&pieces, &mut reached);
        if reached[pieces.len()] && (!at_end || at == text.len()) {
            return true;
        }
        let Some(letter) = text.get(at) else { break };
        let mut next = vec![false; pieces.len() + 1];
        for (place, piece) in pieces.iter().enumerate().filter(|(place, _)| reached[*place]) {
            if fits(&piece.letter, *letter) {
                next[place + 1] = true;
                // What may come again is as good as optional the second time.
                if piece.many {
                    next[place] = true;
                }
            }
        }
        reached = next;
    }
    false
}

/// Goes on over pieces that need not come.
fn skip(pieces: &[Piece], reached: &mut [bool]) {
    for (place, piece) in pieces.iter().enumerate() {
        if reached[place] && !piece.least {
            reached[place + 1] = true;
        }
    }
}

fn pieces(pattern: &[char]) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut at = 0;
    while let Some(&letter) = pattern.get(at) {
        at += 1;
        let letter = match letter {
            '*' | '+' | '?' if !pieces.is_empty() => {
                repeat(&mut pieces, letter);
                continue;
            }
            '.' => Letter::Any,
            '\\' if at < pattern.len() => {
                at += 1;
                Letter::One(pattern[at - 1])
            }
            '[' => match among(&pattern[at..]) {
                Some((letter, length)) => {
                    at += length;
                    letter
                }
                None => Letter::One('['),
            },
            other => Letter::One(other),
        };
        pieces.push(Piece { letter, least: true, many: false });
    }
    pieces
}

/// `a+` is `aa*`, so that each piece is either once, or any number of times, or at most once.
fn repeat(pieces: &mut Vec<Piece>, how: char) {
    let Some(last) = pieces.last_mut() else { return };
    match how {
        '?' => last.least = false,
        '*' => (last.least, last.many) = (false, true),
        _ => {
            let again = Piece { letter: last.letter.clone(), least: false, many: true };
            pieces.push(again);
        }
    }
}

/// Reads the inside of `[…]` and returns its length with the bracket.
fn among(pattern: &[char]) -> Option<(Letter, usize)> {
    let end = pattern.iter().position(|c| *c == ']')?;
    let (inside, not) = match pattern[..end].split_first() {
        Some(('^', rest)) => (rest, true),
        _ => (&pattern[..end], false),
    };
    let mut letters = Vec::new();
    let mut at = 0;
    while let Some(&first) = inside.get(at) {
        match (inside.get(at + 1), inside.get(at + 2)) {
            (Some('-'), Some(&last)) => {
                letters.push((first, last));
                at += 3;
            }
            _ => {
                letters.push((first, first));
                at += 1;
            }
        }
    }
    Some((Letter::Among { letters, not }, end + 1))
}

fn fits(letter: &Letter, found: char) -> bool {
    match letter {
        Letter::Any => true,
        Letter::One(wanted) => *wanted == found,
        Letter::Among { letters, not } => letters.iter().any(|(a, b)| (*a..=*b).contains(&found)) != *not,
    }
}

#[cfg(test)]
mod tests {
    use super::found;

    #[test]
    fn patterns_are_found_as_go_finds_them() {
        for (pattern, text, wanted) in [
            ("", "web", true),
            ("we", "web", true),
            ("^web$", "web", true),
            ("^web$", "web2", false),
            ("^eb", "web", false),
            ("d.*n", "down", true),
            ("d.n", "down", false),
            ("w+eb", "wwweb", true),
            ("^w+$", "", false),
            ("we?b", "wb", true),
            ("a|web", "web", true),
            ("[v-x]eb", "web", true),
            ("^[^w]", "web", false),
            ("w\\.b", "w.b", true),
            ("w\\.b", "web", false),
            ("*", "web", false),
        ] {
            assert_eq!(found(pattern, text), wanted, "{pattern:?} in {text:?}");
        }
        assert!(!found(&"a*".repeat(200), &"b".repeat(500)) || found("a*", "b"));
    }
}
