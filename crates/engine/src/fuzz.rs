//! Fuzz targets; `testkit/src/fuzz.rs` says how they are run.

use std::io::Write as _;

use bale_record::Record;
use bale_record::time::Time;
use bale_spec::image::Index;

use crate::container::details;
use crate::list::Filters;
use crate::load::{DockerImage, parse};
use crate::logs::{Entry, Reader, parse_time, tail_offset};
use crate::{names, pattern, spool};

/// The log of a container: whatever it wrote, and wherever a power cut or a full disk tore it.
pub fn log(data: &[u8]) {
    let fd = rustix::fs::memfd_create("log", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd_create");
    let mut file = std::fs::File::from(fd);
    file.write_all(data).expect("write");
    for lines in [0, 1, 3, u64::MAX] {
        let offset = tail_offset(&file, lines).expect("an offset");
        assert!(offset <= data.len() as u64);
        assert!(offset == 0 || data[usize::try_from(offset).expect("small") - 1] == b'\n' || lines == 0);
    }
    let whole = || data.split(|b| *b == b'\n').take(data.iter().filter(|b| **b == b'\n').count());
    let wanted = whole().filter_map(Entry::parse).count();
    let (mut reader, mut found) = (Reader::new(file, 0), 0);
    while reader
        .read(|entry| {
            found += 1;
            assert!(!entry.text.contains(&b'\n'));
            Ok(())
        })
        .expect("read")
    {}
    assert_eq!((found, reader.offset_bytes()), (wanted, data.len() as u64));
}

/// What archives and records hold beside what other crates read: documents of `load`, names of members, the engine's
/// own part of a record.
pub fn archive(data: &[u8]) {
    let _ = parse::<Vec<DockerImage>>(data, "manifest.json");
    let _ = parse::<Index>(data, "index.json");
    let half = data.len() / 2;
    let base = spool::normal(&data[half..], b"").unwrap_or_default();
    if let Some(name) = spool::normal(&data[..half], &base) {
        assert!(
            !name.is_empty() && name.split(|b| *b == b'/').all(|p| !p.is_empty() && p != b"." && p != b"..")
        );
    }
    if let Ok(engine) = serde_json::from_slice(data) {
        let mut record = Record::new("web", bale_record::Phase::Configured, "/b", String::new());
        record.engine = engine;
        if let Ok(details) = details(&record) {
            let again = details.to_value().expect("a value");
            record.engine = again.clone();
            assert_eq!(
                crate::container::details(&record).expect("its own").to_value().expect("a value"),
                again
            );
        }
    }
}

/// Words of a user: names, filters, patterns and times. They end, and a name is safe in a path.
pub fn engine_words(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if names::check(&text).is_ok() {
        assert!(!text.contains(['/', '\0', '\n']) && !text.starts_with('.'));
    }
    let _ = Filters::parse(&[text.to_string()]);
    let (wanted, name) = text.split_once('\0').unwrap_or((&text, "web-1.redis_2"));
    let short = |text: &str| text.chars().take(200).collect::<String>();
    let _ = pattern::found(&short(wanted), &short(name));
    let _ = parse_time(&text, Time { seconds: 1_700_000_000, nanoseconds: 5 });
}

#[cfg(test)]
bale_testkit::fuzz_targets! {
    log: 3000,
    archive: 3000,
    engine_words: 5000,
}
