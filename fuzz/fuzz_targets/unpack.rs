//! The whole pipeline with a writer that keeps nothing: it ends, and it finishes the writer only when all was sound.
#![no_main]

use bale_fault::Result;
use bale_layer::tar::Entry;
use bale_layer::{LayerWriter, Limits, Table, UnpackOptions, unpack};
use libfuzzer_sys::fuzz_target;

#[derive(Default)]
struct Nowhere {
    is_finished: bool,
}

impl LayerWriter for Nowhere {
    fn entry(&mut self, _entry: Entry) -> Result<()> {
        Ok(())
    }

    fn data(&mut self, _offset: u64, _bytes: &[u8]) -> Result<()> {
        Ok(())
    }

    fn finish(&mut self) -> Result<Table> {
        self.is_finished = true;
        Ok(Table::default())
    }
}

fuzz_target!(|blob: &[u8]| {
    let limits = Limits { tar_bytes: 16 << 20, ..Limits::default() };
    let mut writer = Nowhere::default();
    let outcome = unpack(blob, UnpackOptions { limits, ..UnpackOptions::default() }, &mut writer);
    assert_eq!(outcome.is_ok(), writer.is_finished);
});
