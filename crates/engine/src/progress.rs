//! What a pull or push tells while it works.

use bale_spec::Digest;

/// Hears of progress, on the thread of the caller.
pub trait Progress {
    /// Takes one piece of news.
    fn event(&mut self, event: &Event);
}

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The work begins: docker's `7: Pulling from library/redis`.
    Begin {
        /// What is worked on.
        words: String,
    },
    /// News of one layer, by the digest of its blob.
    Layer {
        /// The blob.
        digest: Digest,
        /// Its length in bytes.
        size: u64,
        /// What happens to it.
        state: LayerState,
    },
    /// Something the user should know; the work goes on.
    Warning {
        /// Lower case words.
        words: String,
    },
}

/// What happens to a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayerState {
    /// It waits for its turn, or for another process that is at it.
    Waiting,
    /// It was there already.
    Exists,
    /// Bytes were moved; the count is from the start.
    Bytes(u64),
    /// It is there.
    Done,
    /// It could be taken from another repository of the registry.
    Mounted,
}

/// Hears and says nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl Progress for Quiet {
    fn event(&mut self, _event: &Event) {}
}
