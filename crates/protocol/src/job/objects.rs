//! The objects of a job on their way to the store.

use std::collections::{BTreeMap, BTreeSet};

use millrace_buf::ByteChain;
use millrace_wire::fact::Segment;
use millrace_wire::ids::{InitVersion, Msn, Rendition};

/// Initialisation sections and segments: open, being uploaded, stored.
#[derive(Debug, Default)]
pub(super) struct Objects {
    inits: BTreeSet<(Rendition, InitVersion)>,
    open: BTreeMap<(Rendition, Msn), ByteChain>,
    uploading: BTreeMap<(Rendition, Msn), Segment>,
    newest_stored: BTreeMap<Rendition, Msn>,
}

impl Objects {
    /// Notes an initialisation section. True the first time: it is to be uploaded.
    pub(super) fn add_init(&mut self, rendition: &Rendition, version: InitVersion) -> bool {
        self.inits.insert((rendition.clone(), version))
    }

    /// Appends a part to its open segment.
    pub(super) fn push_part(&mut self, key: (Rendition, Msn), part: ByteChain) {
        self.open.entry(key).or_default().extend(part);
    }

    /// Removes and returns the bytes of an open segment: its parts one after the other.
    pub(super) fn take_open(&mut self, key: &(Rendition, Msn)) -> Option<ByteChain> {
        self.open.remove(key)
    }

    /// Drops all open segments: their media are lost, or another generation packages them.
    pub(super) fn drop_open(&mut self) {
        self.open.clear();
    }

    /// Notes that a segment is being uploaded.
    pub(super) fn start_upload(&mut self, key: (Rendition, Msn), segment: Segment) {
        self.uploading.insert(key, segment);
    }

    /// True if a segment is being uploaded.
    pub(super) fn is_uploading(&self, key: &(Rendition, Msn)) -> bool {
        self.uploading.contains_key(key)
    }

    /// Notes that a segment is stored, and returns it; `None` if it was not being uploaded.
    pub(super) fn finish_upload(&mut self, key: &(Rendition, Msn)) -> Option<Segment> {
        let segment = self.uploading.remove(key)?;
        let newest = self.newest_stored.entry(key.0.clone()).or_insert(key.1);
        *newest = key.1.max(*newest);
        Some(segment)
    }

    /// True if no segment is being uploaded.
    pub(super) fn is_settled(&self) -> bool {
        self.uploading.is_empty()
    }

    /// Returns the newest stored segment of each rendition.
    pub(super) fn newest_stored(&self) -> &BTreeMap<Rendition, Msn> {
        &self.newest_stored
    }
}
