//! Fuzzing without a fuzzer: the corpus of a target, and mutations of it in an order that is always the same.
//!
//! A target is a function that takes any bytes and panics when something that must hold does not. It lives in the crate
//! it tests (`src/fuzz.rs`, there only under `cfg(test)` and `cfg(fuzzing)`), so that nothing becomes public for it;
//! `fuzz/fuzz_targets` hands the same functions to libFuzzer, which is led by coverage and wants a nightly compiler.
//! Here a stable compiler is enough: each test runs the corpus below `fuzz/corpus/<target>` and a fixed number of
//! mutations. `BALE_FUZZ_ROUNDS=1000000` makes it longer, `BALE_FUZZ_SEED=7` other.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

/// The longest input that is made, in bytes.
const LIMIT_BYTES: usize = 64 << 10;
/// Numbers at which parsers break.
const NUMBERS: [&str; 14] = [
    "0",
    "-1",
    "1",
    "127",
    "255",
    "65536",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551616",
    "1e400",
];
/// Bytes at which parsers break.
const BYTES: [u8; 16] = [0, 1, 9, 10, 13, 0x20, b'"', b'%', b'/', b':', b'=', b'\\', 0x7f, 0x80, 0xc3, 0xff];

/// Runs `target` on its corpus and on `rounds` mutations.
///
/// # Panics
/// When the corpus is missing, and when the target panics: the words then hold the input.
#[track_caller]
pub fn run(name: &str, rounds: u64, target: fn(&[u8])) {
    let corpus = corpus(name);
    for input in &corpus {
        attempt(name, input, target);
    }
    let mut mutator = Mutator::new(number("BALE_FUZZ_SEED", 0), &corpus);
    for _ in 0..number("BALE_FUZZ_ROUNDS", rounds) {
        attempt(name, &mutator.next(), target);
    }
}

/// Makes a test of each target: `fuzz_targets! { config: 2000, write: 300 (root) }`, with the rounds of each.
#[macro_export]
macro_rules! fuzz_targets {
    ($($target:ident: $rounds:literal $(($need:ident))?),* $(,)?) => {
        #[cfg(test)]
        mod tests {
            $(#[test]
            fn $target() {
                $(if !$crate::has_root(stringify!($need)) {
                    return;
                })?
                $crate::fuzz::run(stringify!($target), $rounds, super::$target);
            })*
        }
    };
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().map_or(default, |text| text.parse().expect(variable))
}

/// Reads `fuzz/corpus/<name>`, in the order of the files' names.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let dir = crate::workspace_dir().join("fuzz/corpus").join(name);
    let entries = fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", dir.display());
    files.iter().map(|file| fs::read(file).expect("a file of the corpus")).collect()
}

fn attempt(name: &str, input: &[u8], target: fn(&[u8])) {
    if catch_unwind(AssertUnwindSafe(|| target(input))).is_err() {
        panic!(
            "fuzz target {name} fails (see above) on these {} bytes: b\"{}\"",
            input.len(),
            input.escape_ascii()
        );
    }
}

/// A source of inputs.
struct Mutator<'a> {
    state: u64,
    corpus: &'a [Vec<u8>],
    /// The words of the corpus.
    words: Vec<&'a [u8]>,
}

impl<'a> Mutator<'a> {
    fn new(seed: u64, corpus: &'a [Vec<u8>]) -> Self {
        let is_word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
        let mut words: Vec<&[u8]> = corpus
            .iter()
            .flat_map(|input| input.split(move |b| !is_word(b)))
            .filter(|w| (2..40).contains(&w.len()))
            .collect();
        words.sort_unstable();
        words.dedup();
        Self { state: seed ^ 0x9e37_79b9_7f4a_7c15, corpus, words }
    }

    /// A number below `n` (SplitMix64).
    fn below(&mut self, n: usize) -> usize {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % n.max(1) as u64).unwrap_or(0)
    }

    fn next(&mut self) -> Vec<u8> {
        let corpus = self.corpus;
        let mut input = corpus[self.below(corpus.len())].clone();
        for _ in 0..=self.below(6) {
            self.mutate(&mut input);
        }
        input.truncate(LIMIT_BYTES);
        input
    }

    fn mutate(&mut self, input: &mut Vec<u8>) {
        let (at, end) = self.range(input.len());
        match self.below(11) {
            0 if at < input.len() => input[at] ^= 1 << self.below(8),
            1 if at < input.len() => input[at] = BYTES[self.below(BYTES.len())],
            2 => drop(input.drain(at..end)),
            3 => {
                let piece = input[at..end].to_vec();
                insert(input, end, &piece);
            }
            4 => {
                let byte = BYTES[self.below(BYTES.len())];
                let count = 1 << self.below(9);
                insert(input, at, &vec![byte; count]);
            }
            5 if !self.words.is_empty() => {
                insert(input, at, self.word());
            }
            6 => self.replace(input, at, u8::is_ascii_digit),
            7 => self.replace(input, at, u8::is_ascii_alphanumeric),
            8 => {
                let corpus = self.corpus;
                let other = &corpus[self.below(corpus.len())];
                let (from, to) = self.range(other.len());
                insert(input, at, &other[from..to]);
            }
            9 => input.truncate(end),
            _ => {
                let random = u8::try_from(self.below(256)).unwrap_or(0);
                insert(input, at, &[random]);
            }
        }
    }

    /// A word of the corpus, which has some.
    fn word(&mut self) -> &'a [u8] {
        let at = self.below(self.words.len());
        self.words[at]
    }

    /// A stretch, short as a rule.
    fn range(&mut self, length: usize) -> (usize, usize) {
        let at = self.below(length + 1);
        let most = if self.below(4) == 0 { length - at } else { (length - at).min(16) };
        (at, at + self.below(most + 1))
    }

    /// Puts another word or number in place of the next one after `at`.
    fn replace(&mut self, input: &mut Vec<u8>, at: usize, is_part: fn(&u8) -> bool) {
        let Some(start) = input[at..].iter().position(is_part).map(|n| at + n) else { return };
        let end = input[start..].iter().position(|b| !is_part(b)).map_or(input.len(), |n| start + n);
        let new: &[u8] = if self.words.is_empty() || self.below(2) == 0 {
            NUMBERS[self.below(NUMBERS.len())].as_bytes()
        } else {
            self.word()
        };
        input.splice(start..end, new.iter().copied());
    }
}

fn insert(input: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if input.len() + bytes.len() <= LIMIT_BYTES {
        input.splice(at..at, bytes.iter().copied());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_inputs_and_another_gives_others() {
        let corpus = [b"{\"uid\":7,\"name\":\"web\"}".to_vec(), b"other words".to_vec()];
        let inputs = |seed| -> Vec<Vec<u8>> {
            let mut mutator = Mutator::new(seed, &corpus);
            (0..500).map(|_| mutator.next()).collect()
        };
        assert_eq!(inputs(1), inputs(1));
        assert_ne!(inputs(1), inputs(2));
        let different: std::collections::BTreeSet<_> = inputs(1).into_iter().collect();
        assert!(different.len() > 400, "{}", different.len());
    }

    #[test]
    fn a_target_that_fails_is_told_with_its_input() {
        let outcome = catch_unwind(|| attempt("x", b"a\0", |input| assert!(input.is_empty())));
        let words = outcome.expect_err("a panic").downcast::<String>().expect("words");
        assert!(words.contains(r#"on these 2 bytes: b"a\x00""#), "{words}");
    }
}
