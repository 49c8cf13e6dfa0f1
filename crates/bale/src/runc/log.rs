//! The log file that `--log` names: only the error that ends a command, as one object or line.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use bale_fault::Fault;

use super::Global;

/// Appends the error. Podman parses the whole file as one object, so nothing else is ever written.
pub fn error(global: &Global, fault: &Fault) {
    let Some(path) = &global.log else { return };
    let time = bale_record::time::now();
    let message = fault.chain();
    let line = if global.json {
        serde_json::json!({"level": "error", "msg": message, "time": time}).to_string()
    } else {
        format!("time={} level=error msg={}", quoted(&time), quoted(&message))
    };
    let open = std::fs::OpenOptions::new().create(true).append(true).mode(0o644).open(path);
    // A log that cannot be written is not worth hiding the error itself.
    let _ = open.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
