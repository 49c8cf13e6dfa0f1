//! Paths into a JSON document, as people write them: `mounts[2].options`, `annotations["a.b"]`.

use std::fmt;

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// Into an object.
    Key(String),
    /// Into a list.
    Index(usize),
}

/// A path from the root of a document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path(pub Vec<Step>);

impl Path {
    /// Returns the path one key longer.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Key(key.to_owned()));
        Self(steps)
    }

    /// Returns the path one index longer.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Index(index));
        Self(steps)
    }

    /// Reads what [`Path`] shows: keys with dots between them, `[1]`, and keys with other letters as `["a.b"]`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut steps = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            if rest.starts_with("[\"") {
                let mut stream = serde_json::Deserializer::from_str(&rest[1..]).into_iter::<String>();
                steps.push(Step::Key(stream.next()?.ok()?));
                rest = rest[1 + stream.byte_offset()..].strip_prefix(']')?;
            } else if let Some(inner) = rest.strip_prefix('[') {
                let (number, after) = inner.split_once(']')?;
                steps.push(Step::Index(number.parse().ok()?));
                rest = after;
            } else {
                let rest_of_key = rest.strip_prefix('.').unwrap_or(rest);
                let end = rest_of_key.find(['.', '[']).unwrap_or(rest_of_key.len());
                steps.push(Step::Key(Some(&rest_of_key[..end]).filter(|k| !k.is_empty())?.to_string()));
                rest = &rest_of_key[end..];
            }
        }
        Some(Self(steps))
    }

    /// Reads dotted keys, for paths that are written in the program: `process.user.uid`.
    #[must_use]
    pub fn of(dotted: &str) -> Self {
        Self(dotted.split('.').filter(|k| !k.is_empty()).map(|k| Step::Key(k.to_owned())).collect())
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if is_plain(key) && at == 0 => f.write_str(key)?,
                Step::Key(key) if is_plain(key) => write!(f, ".{key}")?,
                // As JSON writes it: the text is read back by `parse`.
                Step::Key(key) => write!(f, "[{}]", serde_json::Value::from(key.as_str()))?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

fn is_plain(key: &str) -> bool {
    !key.is_empty()
        && key.len() <= 64
        && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        let paths = [
            Path::default(),
            Path::of("process.user.uid"),
            Path::of("mounts").index(3).key("options").index(0),
            Path::of("annotations").key("a.b \"q\""),
            Path::default().key("a.b").key("c"),
            Path::default().key("x\"]y").key("\u{0}é"),
        ];
        for path in paths {
            assert_eq!(Path::parse(&path.to_string()), Some(path));
        }
        for text in ["a..b", "a[", "a[x]", "[\"a", "a."] {
            assert_eq!(Path::parse(text), None, "{text}");
        }
    }
}
