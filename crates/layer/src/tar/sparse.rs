//! Sparse files: GNU's old form (in header blocks), and PAX 0.0, 0.1 (in records) and 1.0 (in front of the
//! data).

use bale_fault::Result;

use super::entry::Extent;
use super::header::{BLOCK, number};
use super::pax;
use crate::fault::{corrupt, exhausted};

/// Reads entries of 24 bytes each; an empty one ends the list.
pub(super) fn gnu_extents(table: &[u8], limit: usize, extents: &mut Vec<Extent>) -> Result<()> {
    for pair in table.chunks_exact(24) {
        if pair[0] == 0 {
            break;
        }
        let read = |field| number(field).ok().and_then(|n| u64::try_from(n).ok());
        let (Some(offset), Some(length)) = (read(&pair[..12]), read(&pair[12..])) else {
            return Err(malformed());
        };
        push(extents, Extent { offset, length }, limit)?;
    }
    Ok(())
}

/// Makes extents of offsets and lengths in turn.
pub(super) fn pairs(numbers: &[u64], limit: usize) -> Result<Vec<Extent>> {
    let mut extents = Vec::new();
    if !numbers.len().is_multiple_of(2) {
        return Err(malformed());
    }
    for pair in numbers.chunks_exact(2) {
        push(&mut extents, Extent { offset: pair[0], length: pair[1] }, limit)?;
    }
    Ok(extents)
}

fn push(extents: &mut Vec<Extent>, extent: Extent, limit: usize) -> Result<()> {
    if extents.len() == limit {
        return Err(exhausted(format!("a sparse file has more than {limit} extents")));
    }
    extents.push(extent);
    Ok(())
}

/// Checks that extents ascend, stay within `size` and add up to `stored`.
pub(super) fn check(extents: &[Extent], size: u64, stored: u64) -> Result<()> {
    let (mut end, mut sum) = (0_u64, 0_u64);
    for extent in extents {
        if extent.offset < end {
            return Err(malformed());
        }
        end = extent.offset.checked_add(extent.length).ok_or_else(malformed)?;
        sum = sum.saturating_add(extent.length);
    }
    if end > size || sum != stored || size > i64::MAX as u64 { Err(malformed()) } else { Ok(()) }
}

pub(super) fn malformed() -> bale_fault::Fault {
    corrupt("the map of a sparse file is malformed")
}

/// The map of format 1.0: lines of decimal numbers, the count of pairs first, padded to a block.
#[derive(Debug, Default)]
pub(super) struct MapReader {
    line: Vec<u8>,
    wanted: Option<usize>,
    numbers: Vec<u64>,
}

impl MapReader {
    /// Takes a block; true when the map is complete.
    pub(super) fn block(&mut self, block: &[u8; BLOCK], limit: usize) -> Result<bool> {
        for &byte in block {
            if byte != b'\n' {
                if self.line.len() == 20 {
                    return Err(malformed());
                }
                self.line.push(byte);
                continue;
            }
            let number = pax::decimal(&self.line).map_err(|()| malformed())?;
            self.line.clear();
            match self.wanted {
                None if number > limit as u64 => {
                    return Err(exhausted(format!("a sparse file has more than {limit} extents")));
                }
                // Bounded by the limit.
                None => self.wanted = Some(2 * number as usize),
                Some(_) => self.numbers.push(number),
            }
            if self.wanted == Some(self.numbers.len()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn extents(&self, limit: usize) -> Result<Vec<Extent>> {
        pairs(&self.numbers, limit)
    }
}
