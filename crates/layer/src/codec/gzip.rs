//! gzip (RFC 1952): members one after the other, zeros after the last, nothing else.

use bale_fault::Result;
use flate2::{Crc, Decompress, FlushDecompress, Status};

use crate::fault::corrupt;

/// The longest header of a member, its name and comment included.
const HEADER_LIMIT_BYTES: usize = 1 << 20;

const FLAG_CRC: u8 = 2;
const FLAG_EXTRA: u8 = 4;
const FLAG_NAME: u8 = 8;
const FLAG_COMMENT: u8 = 16;
const FLAGS_RESERVED: u8 = 0xe0;

/// The parts of a member in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Fixed(usize),
    ExtraLength(usize),
    Extra(usize),
    Name,
    Comment,
    HeaderCrc(usize),
    Body,
    Trailer(usize),
    /// A whole member has ended: another may begin.
    Between,
    /// Zeros after the last member.
    Padding,
}

pub(crate) struct Gzip {
    part: Part,
    inflate: Decompress,
    crc: Crc,
    field: [u8; 10],
    flags: u8,
    header_bytes: usize,
}

impl Gzip {
    pub(crate) fn new() -> Self {
        Self {
            part: Part::Fixed(0),
            inflate: Decompress::new(false),
            crc: Crc::new(),
            field: [0; 10],
            flags: 0,
            header_bytes: 0,
        }
    }

    pub(crate) fn is_complete(&self) -> bool {
        matches!(self.part, Part::Between | Part::Padding)
    }

    pub(crate) fn decode(&mut self, input: &mut &[u8], output: &mut [u8]) -> Result<usize> {
        let mut produced = 0;
        loop {
            if self.part == Part::Body {
                produced += self.inflate(input, &mut output[produced..])?;
                if self.part == Part::Body {
                    return Ok(produced);
                }
            }
            let Some((&byte, rest)) = input.split_first() else { return Ok(produced) };
            *input = rest;
            self.part = self.frame(byte)?;
        }
    }

    fn inflate(&mut self, input: &mut &[u8], output: &mut [u8]) -> Result<usize> {
        let mut produced = 0;
        while produced < output.len() {
            let (in_before, out_before) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self
                .inflate
                .decompress(input, &mut output[produced..], FlushDecompress::None)
                .map_err(|_| corrupt("the gzip stream is damaged"))?;
            // Both counts are bounded by the lengths of slices.
            let taken = (self.inflate.total_in() - in_before) as usize;
            let made = (self.inflate.total_out() - out_before) as usize;
            *input = &input[taken..];
            self.crc.update(&output[produced..produced + made]);
            produced += made;
            if status == Status::StreamEnd {
                self.part = Part::Trailer(0);
                break;
            }
            if taken == 0 && made == 0 {
                break;
            }
        }
        Ok(produced)
    }

    /// Takes one byte outside of the body.
    fn frame(&mut self, byte: u8) -> Result<Part> {
        self.header_bytes += 1;
        if self.header_bytes > HEADER_LIMIT_BYTES && self.part != Part::Padding {
            return Err(corrupt("a gzip header is longer than 1 MiB"));
        }
        match self.part {
            Part::Between if byte == 0x1f => {
                self.header_bytes = 1;
                self.field[0] = byte;
                Ok(Part::Fixed(1))
            }
            Part::Between | Part::Padding if byte == 0 => Ok(Part::Padding),
            Part::Between | Part::Padding => Err(corrupt("there is junk after the end of the gzip stream")),
            Part::Fixed(at) => self.fixed(at, byte),
            Part::ExtraLength(0) => {
                self.field[0] = byte;
                Ok(Part::ExtraLength(1))
            }
            Part::ExtraLength(_) => match usize::from(u16::from_le_bytes([self.field[0], byte])) {
                0 => Ok(self.after(FLAG_EXTRA)),
                length => Ok(Part::Extra(length)),
            },
            Part::Extra(1) => Ok(self.after(FLAG_EXTRA)),
            Part::Extra(left) => Ok(Part::Extra(left - 1)),
            Part::Name if byte == 0 => Ok(self.after(FLAG_NAME)),
            Part::Comment if byte == 0 => Ok(self.after(FLAG_COMMENT)),
            Part::HeaderCrc(0) => Ok(Part::HeaderCrc(1)),
            Part::HeaderCrc(_) => Ok(self.after(FLAG_CRC)),
            Part::Trailer(at) => self.trailer(at, byte),
            Part::Name | Part::Comment | Part::Body => Ok(self.part),
        }
    }

    fn fixed(&mut self, at: usize, byte: u8) -> Result<Part> {
        self.field[at] = byte;
        if at < 9 {
            return Ok(Part::Fixed(at + 1));
        }
        self.flags = self.field[3];
        if self.field[..3] != [0x1f, 0x8b, 8] || self.flags & FLAGS_RESERVED != 0 {
            return Err(corrupt("a gzip header is damaged"));
        }
        Ok(self.after(0))
    }

    /// Returns the first part behind the one that `flag` announces.
    fn after(&mut self, flag: u8) -> Part {
        // The order in the stream is extra, name, comment, crc: that of the bits is crc first.
        let order = [
            (FLAG_EXTRA, Part::ExtraLength(0)),
            (FLAG_NAME, Part::Name),
            (FLAG_COMMENT, Part::Comment),
            (FLAG_CRC, Part::HeaderCrc(0)),
        ];
        let start = order.iter().position(|(f, _)| *f == flag).map_or(0, |at| at + 1);
        if let Some((_, part)) = order[start..].iter().find(|(f, _)| self.flags & f != 0) {
            return *part;
        }
        self.inflate.reset(false);
        self.crc.reset();
        Part::Body
    }

    fn trailer(&mut self, at: usize, byte: u8) -> Result<Part> {
        self.field[at] = byte;
        if at < 7 {
            return Ok(Part::Trailer(at + 1));
        }
        let [c0, c1, c2, c3, l0, l1, l2, l3, ..] = self.field;
        let (crc, length) = (u32::from_le_bytes([c0, c1, c2, c3]), u32::from_le_bytes([l0, l1, l2, l3]));
        if crc != self.crc.sum() || length != self.crc.amount() {
            return Err(corrupt("the checksum of the gzip stream is wrong"));
        }
        self.header_bytes = 0;
        Ok(Part::Between)
    }
}
