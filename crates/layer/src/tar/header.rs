//! The 512 bytes in front of each member: v7, ustar, GNU and star.

use bale_fault::Result;

use crate::fault::{corrupt, show};

pub(super) const BLOCK: usize = 512;

/// A header whose checksum was verified.
pub(super) struct Header(pub(super) [u8; BLOCK]);

/// The dialects that differ in what stands behind the magic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    V7,
    Ustar,
    Star,
    Gnu,
}

impl Header {
    pub(super) fn verified(block: &[u8; BLOCK]) -> Result<Self> {
        let header = Self(*block);
        let stored = number(header.field(148, 8)).ok();
        let (mut unsigned, mut signed) = (0_i64, 0_i64);
        for (at, &byte) in header.0.iter().enumerate() {
            let byte = if (148..156).contains(&at) { b' ' } else { byte };
            unsigned += i64::from(byte);
            // Some old tars added up the bytes as signed ones.
            signed += i64::from(byte.cast_signed());
        }
        match stored {
            Some(sum) if sum == unsigned || sum == signed => Ok(header),
            _ => Err(corrupt("a header of the archive is damaged (its checksum is wrong)")),
        }
    }

    pub(super) fn field(&self, offset: usize, length: usize) -> &[u8] {
        &self.0[offset..offset + length]
    }

    pub(super) fn format(&self) -> Format {
        match (self.field(257, 6), self.field(263, 2), self.field(508, 4)) {
            (b"ustar\0", b"00", b"tar\0") => Format::Star,
            (b"ustar\0", _, _) => Format::Ustar,
            (b"ustar ", b" \0", _) => Format::Gnu,
            _ => Format::V7,
        }
    }

    pub(super) fn type_flag(&self) -> u8 {
        self.0[156]
    }

    /// Returns the name, with its prefix where the format has one.
    pub(super) fn name(&self) -> Vec<u8> {
        let name = text(self.field(0, 100));
        let prefix = match self.format() {
            Format::V7 => b"",
            Format::Ustar => text(self.field(345, 155)),
            Format::Star => text(self.field(345, 131)),
            // Go before 1.8 wrote a prefix into GNU headers, where the access time should be.
            Format::Gnu if self.0[345] != 0 && number(self.field(345, 12)).is_err() => {
                text(self.field(345, 155))
            }
            Format::Gnu => b"",
        };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    pub(super) fn link(&self) -> Vec<u8> {
        text(self.field(157, 100)).to_vec()
    }

    pub(super) fn number(&self, what: &str, offset: usize, length: usize) -> Result<i64> {
        let field = self.field(offset, length);
        number(field)
            .map_err(|()| corrupt(format!("{what} in a header of the archive is no number: {}", show(field))))
    }

    pub(super) fn size(&self) -> Result<u64> {
        let size = self.number("the size", 124, 12)?;
        u64::try_from(size)
            .map_err(|_| corrupt(format!("the size in a header of the archive is negative: {size}")))
    }
}

/// Returns the bytes before the first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|&b| b == 0).unwrap_or(field.len())]
}

/// Reads a number as GNU and Go do: octal within spaces and NULs, or base 256 when the first bit is set.
pub(super) fn number(field: &[u8]) -> std::result::Result<i64, ()> {
    match field.first() {
        Some(first) if first & 0x80 != 0 => base256(field),
        _ => octal(field),
    }
}

fn octal(field: &[u8]) -> std::result::Result<i64, ()> {
    let is_pad = |b: &u8| matches!(b, b' ' | 0);
    let start = field.iter().position(|b| !is_pad(b)).unwrap_or(field.len());
    let end = field.iter().rposition(|b| !is_pad(b)).map_or(start, |at| at + 1);
    let mut value = 0_i64;
    for &digit in text(&field[start..end]) {
        if !(b'0'..=b'7').contains(&digit) {
            return Err(());
        }
        value = value.checked_mul(8).ok_or(())? | i64::from(digit - b'0');
    }
    Ok(value)
}

fn base256(field: &[u8]) -> std::result::Result<i64, ()> {
    // Two's complement, big endian; the top bit is only the mark and the next one is the sign.
    let flip = if field[0] & 0x40 == 0 { 0 } else { 0xff };
    let mut value = 0_u64;
    for (at, &byte) in field.iter().enumerate() {
        let byte = (byte ^ flip) & if at == 0 { 0x7f } else { 0xff };
        if value >> 56 != 0 {
            return Err(());
        }
        value = value << 8 | u64::from(byte);
    }
    let value = i64::try_from(value).map_err(|_| ())?;
    Ok(if flip == 0 { value } else { !value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_go_reads_them() {
        let table: &[(&[u8], std::result::Result<i64, ()>)] = &[
            (b"0000644\0", Ok(0o644)),
            (b" 644 \0\0", Ok(0o644)),
            (b"", Ok(0)),
            (b"\0\0\0\0", Ok(0)),
            (b"0000\x0064", Ok(0)),
            (b"64 4", Err(())),
            (b"0008", Err(())),
            (b"-1", Err(())),
            (b"777777777777777777777777", Err(())),
            (b"\x80\0\0\0\0\0\x01\0", Ok(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Ok(-1)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", Ok(-2)),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Ok(i64::MAX)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", Err(())),
            (b"\x80\x01\0\0\0\0\0\0\0\0\0\0", Err(())),
        ];
        for (field, expected) in table {
            assert_eq!(number(field), *expected, "{field:?}");
        }
    }
}
