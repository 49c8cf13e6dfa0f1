//! Messages of D-Bus as bytes (the D-Bus specification, "Message Protocol"): what systemd is asked, and what it answers.
//!
//! What is read comes from another process and is taken for hostile: sizes and depths are bounded, and nothing is
//! believed before it is checked. What is written is little-endian, which every reader must understand.

use bale_fault::{Fault, Kind, Result};

/// The longest message that is read, in bytes. The specification allows 128 MiB; systemd's answers have hundreds.
pub const MESSAGE_MAX: usize = 1 << 20;
/// The part of a message that every message has.
pub const FIXED: usize = 16;
/// How deep variants may nest in what is passed over.
const DEPTH_MAX: u32 = 16;

/// A value that systemd is given, with the type it wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `b`
    Bool(bool),
    /// `i`
    I32(i32),
    /// `u`
    U32(u32),
    /// `x`
    I64(i64),
    /// `t`
    U64(u64),
    /// `s`
    Text(String),
    /// `as`
    Texts(Vec<String>),
    /// `au`
    Numbers(Vec<u32>),
    /// `ay`
    Bytes(Vec<u8>),
}

impl Value {
    /// Returns the type in the words of D-Bus.
    #[must_use]
    pub const fn signature(&self) -> &'static str {
        match self {
            Self::Bool(_) => "b",
            Self::I32(_) => "i",
            Self::U32(_) => "u",
            Self::I64(_) => "x",
            Self::U64(_) => "t",
            Self::Text(_) => "s",
            Self::Texts(_) => "as",
            Self::Numbers(_) => "au",
            Self::Bytes(_) => "ay",
        }
    }
}

/// Writes values one after the other.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    fn byte(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// Writes a number (`u`).
    pub fn u32(&mut self, value: u32) {
        self.align(4);
        self.bytes.extend(value.to_le_bytes());
    }

    /// Writes a truth value (`b`).
    pub fn boolean(&mut self, value: bool) {
        self.u32(value.into());
    }

    fn u64(&mut self, value: u64) {
        self.align(8);
        self.bytes.extend(value.to_le_bytes());
    }

    /// Writes a text (`s`), or the path of an object (`o`).
    pub fn text(&mut self, value: &str) {
        self.u32(length(value.len()));
        self.bytes.extend(value.as_bytes());
        self.byte(0);
    }

    fn signature(&mut self, value: &str) {
        self.byte(u8::try_from(value.len()).unwrap_or(u8::MAX));
        self.bytes.extend(value.as_bytes());
        self.byte(0);
    }

    /// Writes an array whose elements begin at a multiple of `align`.
    pub fn array(&mut self, align: usize, write: impl FnOnce(&mut Self)) {
        self.u32(0);
        let at = self.bytes.len() - 4;
        // The space before the first element is no part of the length.
        self.align(align);
        let begin = self.bytes.len();
        write(self);
        let bytes = length(self.bytes.len() - begin).to_le_bytes();
        self.bytes[at..at + 4].copy_from_slice(&bytes);
    }

    /// Begins a structure.
    pub fn structure(&mut self) {
        self.align(8);
    }

    /// Writes a variant (`v`).
    pub fn variant(&mut self, value: &Value) {
        self.signature(value.signature());
        match value {
            Value::Bool(value) => self.boolean(*value),
            Value::I32(value) => self.u32(value.cast_unsigned()),
            Value::U32(value) => self.u32(*value),
            Value::I64(value) => self.u64(value.cast_unsigned()),
            Value::U64(value) => self.u64(*value),
            Value::Text(value) => self.text(value),
            Value::Texts(values) => self.array(4, |w| values.iter().for_each(|value| w.text(value))),
            Value::Numbers(values) => self.array(4, |w| values.iter().for_each(|value| w.u32(*value))),
            Value::Bytes(bytes) => self.array(1, |w| w.bytes.extend(bytes)),
        }
    }

    /// Writes named values (`a(sv)`).
    pub fn properties(&mut self, properties: &[(String, Value)]) {
        self.array(8, |w| {
            for (name, value) in properties {
                w.structure();
                w.text(name);
                w.variant(value);
            }
        });
    }
}

fn length(bytes: usize) -> u32 {
    // What is written here comes from a config of at most 16 MiB.
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// A method and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method<'a> {
    /// The name of the program on the bus.
    pub destination: &'a str,
    /// Its object.
    pub path: &'a str,
    /// The object's interface.
    pub interface: &'a str,
    /// The method.
    pub member: &'a str,
}

/// Makes the message of a call; `body` has the values of the types `signature`.
#[must_use]
pub fn call(serial: u32, method: &Method<'_>, signature: &str, body: Writer) -> Vec<u8> {
    let body = body.bytes;
    let mut w = Writer::default();
    // Little-endian, a call, no flags, version 1.
    w.bytes.extend([b'l', CALL, 0, 1]);
    w.u32(length(body.len()));
    w.u32(serial);
    w.array(8, |w| {
        let texts = [(1, "o", method.path), (2, "s", method.interface), (3, "s", method.member)];
        for (code, kind, value) in texts.into_iter().chain([(6, "s", method.destination)]) {
            w.structure();
            w.byte(code);
            w.signature(kind);
            w.text(value);
        }
        if !signature.is_empty() {
            w.structure();
            w.byte(8);
            w.signature("g");
            w.signature(signature);
        }
    });
    w.align(8);
    w.bytes.extend(body);
    w.bytes
}

const CALL: u8 = 1;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// A call.
    Call,
    /// The answer to a call.
    Answer,
    /// The failure of a call.
    Error,
    /// Told to all that listen.
    Signal,
}

/// A message that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it is.
    pub kind: Type,
    /// The call that it answers.
    pub answers: Option<u32>,
    /// The interface of a signal.
    pub interface: String,
    /// The name of a signal.
    pub member: String,
    /// The name of an error.
    pub error: String,
    /// The types of the values.
    pub signature: String,
    body: Vec<u8>,
    little: bool,
}

impl Message {
    /// Begins to read the values.
    #[must_use]
    pub fn body(&self) -> Reader<'_> {
        Reader { bytes: &self.body, at: 0, little: self.little }
    }
}

/// Tells how long the message is that begins with `bytes`; `None` when there are not yet enough of them to tell.
///
/// # Errors
/// `Corrupt` when it is none, or is longer than [`MESSAGE_MAX`].
pub fn length_of(bytes: &[u8]) -> Result<Option<usize>> {
    let Some(fixed) = bytes.get(..FIXED) else { return Ok(None) };
    let little = match fixed[0] {
        b'l' => true,
        b'B' => false,
        other => return broken(&format!("byte order {other:#x}")),
    };
    if fixed[3] != 1 {
        return broken(&format!("protocol version {}", fixed[3]));
    }
    let number = |at: usize| {
        let four = [fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]];
        let number = if little { u32::from_le_bytes(four) } else { u32::from_be_bytes(four) };
        // On 64 bits nothing is lost, and sums of three do not overflow.
        number as usize
    };
    let whole = (FIXED + number(12)).next_multiple_of(8) + number(4);
    if whole > MESSAGE_MAX {
        return broken(&format!("a message of {whole} bytes"));
    }
    Ok(Some(whole))
}

/// Reads one whole message, of the length that [`length_of`] told.
///
/// # Errors
/// `Corrupt`.
pub fn parse(bytes: &[u8]) -> Result<Message> {
    if length_of(bytes)? != Some(bytes.len()) {
        return broken("a message that is cut off");
    }
    let little = bytes[0] == b'l';
    let kind = match bytes[1] {
        1 => Type::Call,
        2 => Type::Answer,
        3 => Type::Error,
        4 => Type::Signal,
        other => return broken(&format!("message type {other}")),
    };
    let mut r = Reader { bytes, at: 4, little };
    let body_bytes = r.u32()? as usize;
    r.u32()?;
    let mut message = Message {
        kind,
        answers: None,
        interface: String::new(),
        member: String::new(),
        error: String::new(),
        signature: String::new(),
        body: Vec::new(),
        little,
    };
    let fields = r.u32()? as usize;
    let end = r.at + fields;
    while r.at < end {
        field(&mut r, &mut message)?;
    }
    if r.at != end {
        return broken("header fields that overlap the body");
    }
    r.align(8)?;
    let body = bytes.get(r.at..).filter(|body| body.len() == body_bytes);
    body.unwrap_or_default().clone_into(&mut message.body);
    Ok(message)
}

fn field(r: &mut Reader<'_>, message: &mut Message) -> Result<()> {
    r.align(8)?;
    let code = r.byte()?;
    let kind = r.signature()?;
    match (code, kind) {
        (2, "s") => r.text()?.clone_into(&mut message.interface),
        (3, "s") => r.text()?.clone_into(&mut message.member),
        (4, "s") => r.text()?.clone_into(&mut message.error),
        (5, "u") => message.answers = Some(r.u32()?),
        (8, "g") => r.signature()?.clone_into(&mut message.signature),
        (2..=5 | 8, _) => return broken(&format!("header field {code} of type {kind:?}")),
        _ => {
            let kind = kind.to_owned();
            r.pass_over(&kind, 0)?;
        }
    }
    Ok(())
}

/// Reads values one after the other; the caller knows their types.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    little: bool,
}

impl<'a> Reader<'a> {
    fn align(&mut self, to: usize) -> Result<()> {
        let to = self.at.next_multiple_of(to);
        self.take(to - self.at).map(drop)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let Some(end) = end else { return broken("values that are cut off") };
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    /// Reads a number (`u`).
    ///
    /// # Errors
    /// `Corrupt` at the end.
    pub fn u32(&mut self) -> Result<u32> {
        self.align(4)?;
        let four = self.take(4)?;
        let four = [four[0], four[1], four[2], four[3]];
        Ok(if self.little { u32::from_le_bytes(four) } else { u32::from_be_bytes(four) })
    }

    /// Reads a text (`s`) or the path of an object (`o`).
    ///
    /// # Errors
    /// `Corrupt` at the end, and without the closing zero.
    pub fn text(&mut self) -> Result<&'a str> {
        let length = self.u32()? as usize;
        self.words(length)
    }

    fn signature(&mut self) -> Result<&'a str> {
        let length = self.byte()?.into();
        self.words(length)
    }

    fn words(&mut self, length: usize) -> Result<&'a str> {
        let bytes = self.take(length)?;
        if self.byte()? != 0 || bytes.contains(&0) {
            return broken("a text without its end");
        }
        std::str::from_utf8(bytes).or_else(|_| broken("a text that is not UTF-8"))
    }

    /// Passes over one value of the type `kind`.
    fn pass_over(&mut self, kind: &str, depth: u32) -> Result<()> {
        match kind {
            "y" => self.take(1).map(drop),
            "n" | "q" => self.align(2).and_then(|()| self.take(2)).map(drop),
            "b" | "i" | "u" | "h" => self.u32().map(drop),
            "x" | "t" | "d" => self.align(8).and_then(|()| self.take(8)).map(drop),
            "s" | "o" => self.text().map(drop),
            "g" => self.signature().map(drop),
            "v" if depth < DEPTH_MAX => {
                let inner = self.signature()?.to_owned();
                self.pass_over(&inner, depth + 1)
            }
            // Header fields have simple types only.
            _ => broken(&format!("a header field of type {kind:?}")),
        }
    }
}

fn broken<T>(what: &str) -> Result<T> {
    Err(Fault::new(Kind::Corrupt, format!("systemd's answer is no message of D-Bus: {what}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const METHOD: Method<'_> = Method { destination: "d.e", path: "/a", interface: "i.f", member: "M" };

    /// A message as the other side writes it.
    fn from_other_side(kind: u8, fields: &[(u8, Value)], signature: &str, body: &[Value]) -> Vec<u8> {
        let mut values = Writer::default();
        for value in body {
            // A variant is its signature and the value; here the value alone is wanted.
            match value {
                Value::Text(text) => values.text(text),
                Value::U32(number) => values.u32(*number),
                other => panic!("{other:?}"),
            }
        }
        let mut w = Writer::default();
        w.bytes.extend([b'l', kind, 0, 1]);
        w.u32(length(values.bytes.len()));
        w.u32(9);
        w.array(8, |w| {
            for (code, value) in fields {
                w.structure();
                w.byte(*code);
                w.variant(value);
            }
            if !signature.is_empty() {
                w.structure();
                w.byte(8);
                w.signature("g");
                w.signature(signature);
            }
        });
        w.align(8);
        w.bytes.extend(values.bytes);
        w.bytes
    }

    fn job_removed() -> Vec<u8> {
        let text = |text: &str| Value::Text(text.to_owned());
        let fields = [(2, text("org.freedesktop.systemd1.Manager")), (3, text("JobRemoved"))];
        from_other_side(4, &fields, "uoss", &[Value::U32(7), text("/job/7"), text("a.scope"), text("done")])
    }

    #[test]
    fn a_call_has_the_bytes_of_the_specification() {
        let mut body = Writer::default();
        body.text("x");
        body.u32(5);
        let bytes = call(3, &METHOD, "su", body);
        assert_eq!(bytes[..12], [b'l', 1, 0, 1, 12, 0, 0, 0, 3, 0, 0, 0]);
        assert_eq!(bytes[16..27], [1, 1, b'o', 0, 2, 0, 0, 0, b'/', b'a', 0]);
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(bytes[bytes.len() - 12..], [1, 0, 0, 0, b'x', 0, 0, 0, 5, 0, 0, 0]);
        let message = parse(&bytes).unwrap();
        assert_eq!(
            (message.kind, message.member.as_str(), message.signature.as_str()),
            (Type::Call, "M", "su")
        );
        let mut values = message.body();
        assert_eq!((values.text().unwrap(), values.u32().unwrap()), ("x", 5));
        assert!(values.u32().is_err());
    }

    #[test]
    fn properties_are_aligned() {
        let mut w = Writer::default();
        let of = |name: &str, value| (name.to_owned(), value);
        w.properties(&[
            of("P", Value::Numbers(vec![7])),
            of("Q", Value::U64(1)),
            of("R", Value::Bytes(vec![3])),
        ]);
        let first = [b'P', 0, 2, b'a', b'u', 0, 0, 0, 4, 0, 0, 0, 7, 0, 0, 0];
        assert_eq!(w.bytes[12..28], first);
        // The length counts from the first element, which begins at 8, to the end.
        assert_eq!(w.bytes[0] as usize, w.bytes.len() - 8);
        assert_eq!(w.bytes.last(), Some(&3));
    }

    #[test]
    fn signals_and_errors_are_read() {
        let message = parse(&job_removed()).unwrap();
        assert_eq!((message.kind, message.member.as_str()), (Type::Signal, "JobRemoved"));
        let mut values = message.body();
        let all =
            (values.u32().unwrap(), values.text().unwrap(), values.text().unwrap(), values.text().unwrap());
        assert_eq!(all, (7, "/job/7", "a.scope", "done"));
        let fields = [(4, Value::Text("o.E".into())), (5, Value::U32(3)), (9, Value::U32(1))];
        let error = parse(&from_other_side(3, &fields, "s", &[Value::Text("why".into())])).unwrap();
        assert_eq!((error.kind, error.answers, error.error.as_str()), (Type::Error, Some(3), "o.E"));
        assert_eq!(error.body().text().unwrap(), "why");
    }

    #[test]
    fn whatever_comes_is_refused_or_read_and_never_more() {
        let good = job_removed();
        assert!(length_of(&good[..15]).unwrap().is_none());
        for end in 0..good.len() {
            assert!(parse(&good[..end]).is_err(), "{end} bytes");
        }
        // Every byte wrong in every way that differs in kind: no panic, and no read outside.
        for at in 0..good.len() {
            for value in [0, 1, 7, b'v', b'a', 0x7f, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[at] = value;
                let _ = parse(&bad).map(|message| {
                    let mut values = message.body();
                    while values.text().is_ok() {}
                });
            }
        }
        let mut long = good;
        long[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(length_of(&long).unwrap_err().kind(), Kind::Corrupt);
    }
}
