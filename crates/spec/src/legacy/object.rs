//! A JSON object that is emptied key by key: what is left at the end was unknown.

use bale_fault::{Fault, Kind, Result};
use serde_json::{Map, Value};

/// An object of an old document and where it stood.
pub(super) struct Object {
    path: String,
    map: Map<String, Value>,
}

impl Object {
    /// Takes the object `value`; `null` is an empty one.
    pub fn new(path: &str, value: Value) -> Result<Self> {
        match value {
            Value::Object(map) => Ok(Self { path: path.to_owned(), map }),
            Value::Null => Ok(Self { path: path.to_owned(), map: Map::new() }),
            other => Err(wrong(path, "an object", &other)),
        }
    }

    /// Returns the path of `key` in this object.
    pub fn at(&self, key: &str) -> String {
        if self.path.is_empty() || self.path.ends_with(':') {
            return format!("{}{key}", self.path);
        }
        format!("{}.{key}", self.path)
    }

    /// Tells whether `key` stands here.
    pub fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// Takes `key`; `null` counts as absent.
    pub fn take(&mut self, key: &str) -> Option<Value> {
        self.map.shift_remove(key).filter(|v| !v.is_null())
    }

    /// Takes a text.
    pub fn text(&mut self, key: &str) -> Result<Option<String>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(&self.at(key), "a string", &other)),
        }
    }

    /// Takes a text; an empty one counts as absent, as it did in every old runtime.
    pub fn word(&mut self, key: &str) -> Result<Option<String>> {
        Ok(self.text(key)?.filter(|t| !t.is_empty()))
    }

    /// Takes a truth value.
    pub fn flag(&mut self, key: &str) -> Result<Option<bool>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(other) => Err(wrong(&self.at(key), "true or false", &other)),
        }
    }

    /// Takes a whole number of any size.
    pub fn number(&mut self, key: &str) -> Result<Option<i128>> {
        let path = self.at(key);
        self.take(key).map(|value| whole(&path, &value)).transpose()
    }

    /// Takes a number that fits `T`.
    pub fn fitting<T: TryFrom<i128>>(&mut self, key: &str) -> Result<Option<T>> {
        let path = self.at(key);
        let Some(number) = self.number(key)? else { return Ok(None) };
        T::try_from(number).map(Some).map_err(|_| invalid(&path, format!("{number} is out of range")))
    }

    /// Takes a list.
    pub fn list(&mut self, key: &str) -> Result<Vec<Value>> {
        match self.take(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(list)) => Ok(list),
            Some(other) => Err(wrong(&self.at(key), "a list", &other)),
        }
    }

    /// Takes a list of texts.
    pub fn texts(&mut self, key: &str) -> Result<Vec<String>> {
        let path = self.at(key);
        let list = self.list(key)?.into_iter().enumerate();
        list.map(|(i, value)| match value {
            Value::String(text) => Ok(text),
            other => Err(wrong(&format!("{path}[{i}]"), "a string", &other)),
        })
        .collect()
    }

    /// Takes a list of objects.
    pub fn objects(&mut self, key: &str) -> Result<Vec<Self>> {
        let path = self.at(key);
        let list = self.list(key)?.into_iter().enumerate();
        list.map(|(i, value)| Self::new(&format!("{path}[{i}]"), value)).collect()
    }

    /// Takes an object; absent is an empty one.
    pub fn object(&mut self, key: &str) -> Result<Self> {
        let path = self.at(key);
        Self::new(&path, self.take(key).unwrap_or(Value::Null))
    }

    /// Returns what was never taken.
    pub fn rest(self) -> Map<String, Value> {
        self.map
    }

    /// Returns the path of this object.
    pub fn path(&self) -> &str {
        &self.path
    }
}

/// Reads a whole number; Go wrote some as floats without a fraction.
pub(super) fn whole(path: &str, value: &Value) -> Result<i128> {
    let number = value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from));
    number.ok_or_else(|| wrong(path, "a whole number", value))
}

/// The value at `path` is of the wrong type.
pub(super) fn wrong(path: &str, wanted: &str, found: &Value) -> Fault {
    let found = match found {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    invalid(path, format!("want {wanted}, found {found}"))
}

/// The value at `path` cannot be.
pub(super) fn invalid(path: &str, words: impl std::fmt::Display) -> Fault {
    Fault::new(Kind::InvalidInput, format!("{path}: {words}"))
}

impl Object {
    /// Puts a value back, for a later reader.
    pub fn put(&mut self, key: &str, value: Value) {
        self.map.insert(key.to_owned(), value);
    }
}

impl Object {
    /// Tells whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Takes everything that is left.
    pub fn take_all(&mut self) -> Map<String, Value> {
        std::mem::take(&mut self.map)
    }

    /// Takes everything that is left and is not `null`, and tells the paths.
    pub fn drain(&mut self) -> Vec<String> {
        let left: Vec<_> = self.take_all().into_iter().collect();
        left.into_iter().filter(|(_, value)| !value.is_null()).map(|(key, _)| self.at(&key)).collect()
    }

    /// Splits one key off as an object of its own at the same place.
    pub fn part(&mut self, key: &str) -> Result<Self> {
        let map = self.take(key).map(|value| (key.to_owned(), value)).into_iter().collect();
        Self::new(&self.path, Value::Object(map))
    }

    /// Names the object anew, for what is read from it from now on.
    pub fn set_path(&mut self, path: &str) {
        path.clone_into(&mut self.path);
    }
}
