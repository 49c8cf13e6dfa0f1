//! Fuzz targets; `testkit/src/fuzz.rs` says how they are run.

use std::io::Write as _;

use bale_spec::runtime::RuntimeConfig;
use serde_json::Value;

use crate::check::binary::{Binary, inspect, machine};
use crate::set::{changes, edit, refuse_worse};

/// Edits of `bale set`, a line each: what is accepted leaves a config that parses, and its changes can be told.
pub fn set(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let config = bale_spec::generate::spec(false).to_canonical();
    let before: Value = serde_json::from_str(&config).expect("a config");
    for force in [false, true] {
        let mut after = before.clone();
        if text.lines().try_for_each(|line| edit::apply(&mut after, line, force)).is_err() {
            continue;
        }
        let written = serde_json::to_vec(&after).expect("JSON");
        let told = changes(&before, &after);
        assert_eq!(told.is_empty(), after == before, "{told:?}");
        if !force && refuse_worse(config.as_bytes(), &written).is_ok() {
            RuntimeConfig::parse(&written).expect("what `check` has no error for is a config");
        }
    }
}

/// A program of a root file system, as `bale check` reads it: bounded, whatever its offsets say.
pub fn program(data: &[u8]) {
    let fd = rustix::fs::memfd_create("program", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd_create");
    let mut file = std::fs::File::from(fd);
    file.write_all(data).expect("write");
    if let Binary::Elf(elf) = inspect(file.into()).expect("read") {
        assert!(elf.needed.len() <= 256);
        let texts = elf.interpreter.iter().chain(&elf.needed).chain(&elf.run_path);
        assert!(texts.map(String::len).max().unwrap_or(0) <= 3 * 4096);
        let _ = machine(elf.machine);
    }
}

#[cfg(test)]
bale_testkit::fuzz_targets! {
    set: 3000,
    program: 5000,
}
