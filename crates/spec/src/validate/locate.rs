//! Where in the text a path stands: one pass over JSON. What is no JSON gives no useful places, but an end.

use std::collections::{BTreeMap, BTreeSet};

use super::path::Path;

/// A place in a text, both from 1; the column counts characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

/// What a pass over the text found.
#[derive(Debug, Default)]
pub(super) struct Located {
    /// The places of the wanted paths: of the key when the value is in an object, of the value in a list.
    pub(super) places: BTreeMap<Path, Place>,
    /// Keys that stand twice in one object, with the place of the second.
    pub(super) doubles: Vec<(Path, Place)>,
}

/// serde_json accepts no deeper nesting.
const DEPTH_LIMIT: usize = 128;

/// Finds the places of `wanted`, and keys that stand twice.
pub(super) fn locate(text: &str, wanted: &BTreeSet<Path>) -> Located {
    let mut scan =
        Scan { text: text.as_bytes(), at: 0, depth: 0, wanted, offsets: Vec::new(), doubles: Vec::new() };
    scan.value(&Path::default());
    let (offsets, doubles) = (scan.offsets, scan.doubles);
    let mut lines = Lines::new(text);
    let mut found = Located::default();
    for (path, offset) in offsets {
        let place = lines.place(offset);
        found.places.entry(path).or_insert(place);
    }
    let mut lines = Lines::new(text);
    found.doubles.extend(doubles.into_iter().take(100).map(|(path, offset)| (path, lines.place(offset))));
    found
}

struct Scan<'a> {
    text: &'a [u8],
    at: usize,
    depth: usize,
    wanted: &'a BTreeSet<Path>,
    offsets: Vec<(Path, usize)>,
    doubles: Vec<(Path, usize)>,
}

impl Scan<'_> {
    fn space(&mut self) {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }

    fn peek(&mut self) -> u8 {
        self.space();
        self.text.get(self.at).copied().unwrap_or(0)
    }

    fn note(&mut self, path: &Path, offset: usize) {
        if self.wanted.contains(path) {
            self.offsets.push((path.clone(), offset));
        }
    }

    fn value(&mut self, path: &Path) {
        match self.peek() {
            b'{' | b'[' if self.depth == DEPTH_LIMIT => self.at = self.text.len(),
            open @ (b'{' | b'[') => {
                self.depth += 1;
                if open == b'{' {
                    self.object(path);
                } else {
                    self.list(path);
                }
                self.depth -= 1;
            }
            b'"' => {
                self.string();
            }
            _ => {
                while self.text.get(self.at).is_some_and(|b| !b",]}".contains(b) && !b.is_ascii_whitespace())
                {
                    self.at += 1;
                }
            }
        }
    }

    fn object(&mut self, path: &Path) {
        self.at += 1;
        let mut keys = BTreeSet::new();
        while self.peek() == b'"' {
            let offset = self.at;
            let key = self.string();
            let inner = path.key(&key);
            self.note(&inner, offset);
            if !keys.insert(key) {
                self.doubles.push((inner.clone(), offset));
            }
            if self.peek() == b':' {
                self.at += 1;
            }
            self.value(&inner);
            if self.peek() == b',' {
                self.at += 1;
            }
        }
        self.at += 1;
    }

    fn list(&mut self, path: &Path) {
        self.at += 1;
        let mut index = 0;
        while !matches!(self.peek(), b']' | 0) {
            let inner = path.index(index);
            let offset = self.at;
            self.note(&inner, offset);
            self.value(&inner);
            if self.peek() == b',' {
                self.at += 1;
            }
            if self.at == offset {
                return;
            }
            index += 1;
        }
        self.at += 1;
    }

    /// Reads a string and decodes it, as keys may hold escapes.
    fn string(&mut self) -> String {
        let from = self.at;
        self.at += 1;
        while let Some(byte) = self.text.get(self.at) {
            self.at += match byte {
                b'\\' => 2,
                b'"' => break,
                _ => 1,
            };
        }
        self.at = (self.at + 1).min(self.text.len());
        serde_json::from_slice(&self.text[from..self.at]).unwrap_or_default()
    }
}

/// Turns growing offsets into places without starting over.
struct Lines<'a> {
    text: &'a str,
    done: usize,
    place: Place,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, done: 0, place: Place { line: 1, column: 1 } }
    }

    fn place(&mut self, offset: usize) -> Place {
        for letter in self.text.get(self.done..offset).unwrap_or_default().chars() {
            if letter == '\n' {
                self.place = Place { line: self.place.line + 1, column: 1 };
            } else {
                self.place.column += 1;
            }
        }
        self.done = offset.max(self.done);
        self.place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_json_ends() {
        for text in ["[}", "[:]", "{\"a\"}", "{\"a\":}", "[\"", "{", "", "]", "[1 2", "\\"] {
            locate(text, &BTreeSet::new());
        }
        locate(&"[{\"a\":".repeat(1 << 20), &BTreeSet::new());
    }

    #[test]
    fn places_are_found_and_doubles_seen() {
        let text = "{\n  \"a\": [1, {\"b\\u0063\": \"x\\\"}\"}],\n  \"ü\": {}, \"d\": 1,\n  \"d\": 2\n}\n";
        assert!(serde_json::from_str::<serde_json::Value>(text).is_ok());
        let path = Path::default().key("a").index(1).key("bc");
        let wanted = BTreeSet::from([path.clone(), Path::of("d"), Path::default().key("a").index(0)]);
        let found = locate(text, &wanted);
        let at = |p: &Path| found.places.get(p).map(|p| (p.line, p.column));
        assert_eq!(at(&path), Some((2, 13)));
        assert_eq!(at(&Path::of("d")), Some((3, 12)));
        assert_eq!(at(&Path::default().key("a").index(0)), Some((2, 9)));
        assert_eq!(found.doubles, [(Path::of("d"), Place { line: 4, column: 3 })]);
        assert_eq!(path.to_string(), "a[1].bc");
        assert_eq!(Path::of("annotations").key("a.b").to_string(), "annotations[\"a.b\"]");
    }
}
