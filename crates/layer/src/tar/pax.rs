//! PAX records: `<length> <key>=<value>\n`, the attributes that a header cannot hold.

use bale_fault::Result;

use super::entry::{Timestamp, Xattr};
use crate::Limits;
use crate::fault::{corrupt, exhausted, show};

const XATTR: &[u8] = b"SCHILY.xattr.";

/// What the records before one member say. An empty value takes a record back (POSIX pax, "Extended Header").
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<Timestamp>,
    pub(super) xattrs: Vec<Xattr>,
    pub(super) sparse: Sparse,
}

/// The records of GNU's sparse formats 0.0, 0.1 and 1.0.
#[derive(Debug, Default)]
pub(super) struct Sparse {
    pub(super) major: Option<Vec<u8>>,
    pub(super) minor: Option<Vec<u8>>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) real_size: Option<u64>,
    pub(super) blocks: Option<u64>,
    /// Offset and length in turn.
    pub(super) map: Vec<u64>,
}

impl Records {
    pub(super) fn parse(mut text: &[u8], limits: &Limits) -> Result<Self> {
        let mut records = Self::default();
        while !text.is_empty() {
            let (key, value, rest) = record(text).ok_or_else(|| corrupt("a pax record is malformed"))?;
            records.add(key, value, limits)?;
            text = rest;
        }
        Ok(records)
    }

    fn add(&mut self, key: &[u8], value: &[u8], limits: &Limits) -> Result<()> {
        let wrong = || corrupt(format!("pax record {} is malformed: {}", show(key), show(value)));
        match key {
            b"path" => self.path = path(value).map_err(|()| wrong())?,
            b"linkpath" => self.link = path(value).map_err(|()| wrong())?,
            b"size" => self.size = optional(value, decimal).map_err(|()| wrong())?,
            b"uid" => self.uid = optional(value, id).map_err(|()| wrong())?,
            b"gid" => self.gid = optional(value, id).map_err(|()| wrong())?,
            b"mtime" => self.mtime = optional(value, time).map_err(|()| wrong())?,
            _ if key.starts_with(XATTR) => self.add_xattr(&key[XATTR.len()..], value, limits)?,
            _ if key.starts_with(b"GNU.sparse.") => {
                self.sparse
                    .add(&key[b"GNU.sparse.".len()..], value, limits.sparse_extents)
                    .map_err(|()| wrong())?;
            }
            _ => {}
        }
        Ok(())
    }

    fn add_xattr(&mut self, name: &[u8], value: &[u8], limits: &Limits) -> Result<()> {
        if name.is_empty() || name.len() > 255 {
            return Err(corrupt(format!("the name of an extended attribute is malformed: {}", show(name))));
        }
        if value.len() > limits.xattr_bytes {
            return Err(exhausted(format!(
                "extended attribute {} is larger than {}",
                show(name),
                limits.xattr_bytes
            )));
        }
        self.xattrs.retain(|x| x.name != name);
        if self.xattrs.len() == limits.xattrs {
            return Err(exhausted(format!("an entry has more than {} extended attributes", limits.xattrs)));
        }
        self.xattrs.push(Xattr { name: name.to_vec(), value: value.to_vec() });
        Ok(())
    }
}

impl Sparse {
    fn add(&mut self, key: &[u8], value: &[u8], extents: usize) -> std::result::Result<(), ()> {
        match key {
            b"major" => self.major = Some(value.to_vec()),
            b"minor" => self.minor = Some(value.to_vec()),
            b"name" => self.name = path(value)?,
            b"size" => self.size = optional(value, decimal)?,
            b"realsize" => self.real_size = optional(value, decimal)?,
            b"numblocks" => self.blocks = optional(value, decimal)?,
            // Format 0.0 repeats these two.
            b"offset" if self.map.len().is_multiple_of(2) => self.map.push(decimal(value)?),
            b"numbytes" if !self.map.len().is_multiple_of(2) => self.map.push(decimal(value)?),
            b"offset" | b"numbytes" => return Err(()),
            b"map" if !value.is_empty() => {
                self.map = value.split(|&b| b == b',').map(decimal).collect::<std::result::Result<_, _>>()?;
            }
            _ => {}
        }
        if self.map.len() > 2 * extents { Err(()) } else { Ok(()) }
    }
}

/// Cuts the first record off: key, value, rest.
fn record(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = text.iter().take(20).position(|&b| b == b' ')?;
    let length = usize::try_from(decimal(&text[..space]).ok()?).ok()?;
    let (record, rest) = text.split_at_checked(length)?;
    let body = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|&b| b == b'=')?;
    let (key, value) = (&body[..equals], &body[equals + 1..]);
    (!key.is_empty() && !key.contains(&0)).then_some((key, value, rest))
}

fn optional<T>(
    value: &[u8],
    read: fn(&[u8]) -> std::result::Result<T, ()>,
) -> std::result::Result<Option<T>, ()> {
    if value.is_empty() { Ok(None) } else { read(value).map(Some) }
}

fn path(value: &[u8]) -> std::result::Result<Option<Vec<u8>>, ()> {
    if value.contains(&0) { Err(()) } else { Ok((!value.is_empty()).then(|| value.to_vec())) }
}

/// Reads a decimal number up to 2⁶³ - 1.
pub(super) fn decimal(value: &[u8]) -> std::result::Result<u64, ()> {
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return Err(());
    }
    let number =
        value.iter().fold(0_u64, |n, digit| n.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')));
    if number > i64::MAX as u64 { Err(()) } else { Ok(number) }
}

fn id(value: &[u8]) -> std::result::Result<u32, ()> {
    u32::try_from(decimal(value)?).map_err(|_| ())
}

/// Reads `[-]seconds[.fraction]`; digits beyond nanoseconds are dropped.
fn time(value: &[u8]) -> std::result::Result<Timestamp, ()> {
    let (negative, value) = match value {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, value),
    };
    let dot = value.iter().position(|&b| b == b'.').unwrap_or(value.len());
    let fraction = value.get(dot + 1..).unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(());
    }
    let secs = decimal(&value[..dot])?.cast_signed();
    let digit = |at: usize| fraction.get(at).map_or(0, |b| u32::from(b - b'0'));
    let nanos = (0..9).fold(0, |n, at| n * 10 + digit(at));
    Ok(match (negative, nanos) {
        (false, _) => Timestamp { secs, nanos },
        (true, 0) => Timestamp { secs: -secs, nanos: 0 },
        (true, _) => Timestamp { secs: -secs - 1, nanos: 1_000_000_000 - nanos },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &[u8]) -> Result<Records> {
        Records::parse(text, &Limits::default())
    }

    #[test]
    fn times_have_fractions_and_signs() {
        let at = |secs, nanos| Ok(Timestamp { secs, nanos });
        let table: &[(&str, std::result::Result<Timestamp, ()>)] = &[
            ("1350244992.023960108", at(1_350_244_992, 23_960_108)),
            ("1.9999999999", at(1, 999_999_999)),
            ("-1", at(-1, 0)),
            ("-1.5", at(-2, 500_000_000)),
            ("-0.000000001", at(-1, 999_999_999)),
            ("5.", at(5, 0)),
            ("1099511627776", at(1 << 40, 0)),
            (".5", Err(())),
            ("", Err(())),
            ("1.-5", Err(())),
            ("0x10", Err(())),
            ("99999999999999999999", Err(())),
        ];
        for (text, expected) in table {
            assert_eq!(time(text.as_bytes()), *expected, "{text:?}");
        }
    }

    #[test]
    fn records_are_exact_to_the_byte() {
        let records = parse(b"12 path=a/b\n30 mtime=1350244992.023960108\n8 path=\n").unwrap();
        assert_eq!(records.path, None);
        assert_eq!(records.mtime.map(|t| t.nanos), Some(23_960_108));
        let records = parse(b"28 SCHILY.xattr.user.a=\0=\n\n\n").unwrap();
        assert_eq!(records.xattrs, [Xattr { name: b"user.a".to_vec(), value: b"\0=\n\n".to_vec() }]);
        for bad in [
            &b"13 path=a/b\n"[..],
            b"11 path=a/b\n",
            b"12 path=a/b",
            b"5 a=\n\0\0",
            b"7 =abc\n",
            b"9 path=\0\n",
        ] {
            assert!(parse(bad).is_err(), "{}", show(bad));
        }
        for bad in [&b"18 uid=4294967296\n"[..], b"9 uid=-1\n", b"11 size=-1\n", b"13 size=0x10\n"] {
            assert!(parse(bad).is_err(), "{}", show(bad));
        }
    }
}
