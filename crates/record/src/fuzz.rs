//! Fuzz targets; `testkit/src/fuzz.rs` says how they are run.

use std::path::Path;

use crate::Record;
use crate::control::{Event, Request};
use crate::settings::Settings;
use crate::time::Time;

/// `record.json` of whoever can write there: it is read whole, or refused with its path.
pub fn record(data: &[u8]) {
    let path = Path::new("/c/record.json");
    match Record::parse(data, path) {
        Ok(record) => {
            let text = serde_json::to_vec(&record).expect("a record");
            assert_eq!(Record::parse(&text, path).expect("a record"), record);
            let processes = record.init.iter().chain(&record.supervisor);
            for process in processes.filter(|p| p.pid != 0) {
                // A process of a record is only ever signalled when boot and start time are its own.
                assert!(!process.is_alive() || process.boot_id == crate::boot_id());
            }
        }
        Err(fault) => assert!(fault.chain().contains("/c/record.json")),
    }
}

/// Messages on a control socket, either way.
pub fn control(data: &[u8]) {
    if let Ok(event) = Event::decode(data) {
        assert_eq!(Event::decode(&event.encode()), Ok(event));
    }
    if let Ok(request) = Request::decode(data) {
        assert_eq!(Request::decode(&request.encode()), Ok(request));
    }
}

/// Words of `bale @supervise`, and times as texts have them.
pub fn record_words(data: &[u8]) {
    use std::os::unix::ffi::OsStrExt as _;
    let arguments: Vec<_> =
        data.split(|b| *b == 0).map(|a| std::ffi::OsStr::from_bytes(a).to_owned()).collect();
    if let Ok(settings) = Settings::parse(&arguments) {
        assert!(settings.dir.is_absolute());
        assert_eq!(Settings::parse(&settings.to_arguments()).expect("arguments"), settings);
    }
    let text = String::from_utf8_lossy(data);
    if let Some(time) = Time::parse(&text) {
        let again = String::from_utf8(time.text().to_vec()).expect("text");
        assert_eq!(Time::parse(&again), Some(time), "{text} {again}");
    }
    if crate::check_id(&text).is_ok() {
        assert!(!text.contains(['/', '\0']) && text != "." && text != "..");
    }
}

#[cfg(test)]
bale_testkit::fuzz_targets! {
    record: 3000,
    control: 20_000,
    record_words: 10_000,
}
