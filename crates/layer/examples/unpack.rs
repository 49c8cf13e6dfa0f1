//! Unpacks a layer into a directory, for measurements: `unpack overlay|flat LAYER DIRECTORY`.

use std::fs::File;

use bale_layer::{FlatWriter, LayerWriter, OverlayWriter, UnpackOptions, unpack};
use bale_sys::root::RootFd;

#[allow(clippy::print_stdout)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, form, layer, directory] = arguments.as_slice() else {
        return Err("unpack overlay|flat LAYER DIRECTORY".into());
    };
    let root = RootFd::open(directory)?;
    let mut writer: Box<dyn LayerWriter> =
        if form == "flat" { Box::new(FlatWriter::new(root)?) } else { Box::new(OverlayWriter::new(root)?) };
    let tee = std::env::var_os("KEEP").map(File::create).transpose()?;
    let options = UnpackOptions { tee, ..UnpackOptions::default() };
    let unpacked = unpack(File::open(layer)?, options, writer.as_mut())?;
    println!("{} {} {}", unpacked.diff_id, unpacked.tar_size, unpacked.entries);
    for warning in &unpacked.table.warnings.kept {
        println!("{}: {}", String::from_utf8_lossy(&warning.path), warning.words);
    }
    Ok(())
}
