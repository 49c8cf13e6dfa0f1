//! The set of paths that a layer has written.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

/// Paths, as 64-bit hashes under a random key: a layer of ten million entries then costs 160 MB at most and
/// not its paths, and nobody can choose two that collide (the odds of an accident are below 10⁻⁵ even there).
#[derive(Debug, Default)]
pub(super) struct Written {
    key: RandomState,
    hashes: HashSet<u64>,
}

impl Written {
    pub(super) fn add(&mut self, path: &[u8]) {
        self.hashes.insert(self.key.hash_one(path));
    }

    pub(super) fn has(&self, path: &[u8]) -> bool {
        self.hashes.contains(&self.key.hash_one(path))
    }
}
