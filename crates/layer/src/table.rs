//! What a writer has to tell about a layer beside its files.

/// What is known of a layer after it was written. Paths are bytes, relative to the layer's root, without a
/// leading slash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Directories that the layer names only as parents of something else, parents before children: their
    /// attributes (0755, root, time 0) are not the layer's word, and a lower layer's directory gives them.
    pub implied_parents: Vec<Vec<u8>>,
    /// Hard links to files that this layer does not have: nothing was written for them.
    pub deferred_links: Vec<DeferredLink>,
    /// The layer gives attributes for its root directory.
    pub has_root_entry: bool,
    /// The layer hides everything below it: overlayfs does not look at this mark on a layer's root, so
    /// whoever stacks the layers has to stop here.
    pub opaque_root: bool,
    /// Bytes written as file content.
    pub content_bytes: u64,
    /// What was left out.
    pub warnings: Warnings,
}

/// A hard link whose target is in a lower layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeferredLink {
    /// Where the link is.
    pub path: Vec<u8>,
    /// What it names; links in its directories are to be resolved within the root.
    pub target: Vec<u8>,
}

/// What was left out of a layer, the first [`Warnings::KEPT`] in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Warnings {
    /// The first ones.
    pub kept: Vec<Warning>,
    /// How many there were.
    pub count: u64,
}

/// Something that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The entry.
    pub path: Vec<u8>,
    /// What was left out and why, in lower case.
    pub words: String,
}

impl Warnings {
    /// How many warnings are kept in words.
    pub const KEPT: usize = 32;

    /// Adds one.
    pub(crate) fn add(&mut self, path: &[u8], words: impl Into<String>) {
        self.count += 1;
        if self.kept.len() < Self::KEPT {
            self.kept.push(Warning { path: path.to_vec(), words: words.into() });
        }
    }
}
