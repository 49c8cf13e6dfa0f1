//! The tar reader: the same events however the archive is cut, and no more content than there are bytes.
#![no_main]

use bale_layer::Limits;
use bale_layer::tar::{Event, Reader};
use libfuzzer_sys::fuzz_target;

/// What was read: entries as words, the count of their content, and how it ended.
fn read(archive: &[u8], step: usize) -> (Vec<String>, u64, Option<String>) {
    let mut reader = Reader::new(Limits::default());
    let (mut entries, mut content) = (Vec::new(), 0);
    for mut piece in archive.chunks(step) {
        loop {
            match reader.next(&mut piece) {
                Ok(Some(Event::Entry(entry))) => entries.push(format!("{entry:?}")),
                Ok(Some(Event::Data { offset, bytes })) => {
                    assert!(!bytes.is_empty() && offset.checked_add(bytes.len() as u64).is_some());
                    content += bytes.len() as u64;
                }
                Ok(None) => break,
                Err(fault) => return (entries, content, Some(fault.chain())),
            }
        }
        assert!(piece.is_empty());
    }
    let end = reader.finish().err().map(|fault| fault.chain());
    (entries, content, end)
}

fuzz_target!(|archive: &[u8]| {
    let whole = read(archive, archive.len().max(1));
    assert!(whole.1 <= archive.len() as u64);
    assert_eq!(whole, read(archive, 509));
});
