//! The words of this crate's failures.

use bale_fault::{Fault, Kind};

/// A layer that is damaged or malformed.
pub(crate) fn corrupt(words: impl Into<String>) -> Fault {
    Fault::new(Kind::Corrupt, words)
}

/// A layer that asks for more than the limits allow.
pub(crate) fn exhausted(words: impl Into<String>) -> Fault {
    Fault::new(Kind::Exhausted, words)
}

/// Shows bytes of a layer to people: at most 200 of them, control characters escaped.
pub(crate) fn show(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(200)];
    let text = String::from_utf8_lossy(cut).escape_debug().to_string();
    if cut.len() < bytes.len() { format!("\"{text}…\"") } else { format!("\"{text}\"") }
}
