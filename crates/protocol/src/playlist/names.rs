//! The names of objects and playlists, relative to the playlist that lists them.

use std::sync::Arc;

use millrace_wire::fact::{Origin, SegmentSlot, StreamState};
use millrace_wire::ids::{Airing, Epoch, Generation, InitVersion, Rendition};

/// The generation in the names of objects that no writer has made and none will: grants begin at 1.
pub(super) const NO_WRITER: Generation = Generation(0);

/// Returns the path of a rendition's playlist, relative to the multivariant playlist. Each broadcast of a livestream has media
/// playlists of its own: those of the last one have EXT-X-ENDLIST and do not change any more.
pub(super) fn playlist_uri(rendition: &Rendition, airing: Airing) -> String {
    if airing.is_first() {
        return format!("{rendition}/index.m3u8");
    }
    format!("{rendition}/index-{airing}.m3u8")
}

/// Returns the name that the log's writer will give to a part it has not made yet.
pub(super) fn next_part(state: &StreamState, msn: u64, part: usize) -> Arc<str> {
    let slot = state.slots.iter().find(|slot| slot.msn.0 == msn);
    let epoch = slot.map_or(state.epoch, |slot| slot.epoch);
    let generation = if state.origin == Origin::Log { state.generation } else { NO_WRITER };
    format!("{epoch}/{msn}.{generation}.{part}.m4s").into()
}

/// Writes the names of objects. Where only the shape of a playlist is wanted, all names are one empty name.
pub(super) struct Names(Option<Arc<str>>);

impl Names {
    /// Creates names as players request them.
    pub(super) const fn real() -> Self {
        Self(None)
    }

    /// Creates empty names, which cost no memory.
    pub(super) fn empty() -> Self {
        Self(Some(Arc::from("")))
    }

    /// Returns the name of a segment.
    pub(super) fn segment(&self, slot: &SegmentSlot, generation: Generation) -> Arc<str> {
        self.write(|| format!("{}/{}.{generation}.m4s", slot.epoch, slot.msn))
    }

    /// Returns the name of a part of a segment.
    pub(super) fn part(&self, slot: &SegmentSlot, generation: Generation, part: usize) -> Arc<str> {
        self.write(|| format!("{}/{}.{generation}.{part}.m4s", slot.epoch, slot.msn))
    }

    /// Returns the name of an initialisation section of an epoch.
    pub(super) fn init(&self, epoch: Epoch, version: InitVersion) -> Arc<str> {
        self.write(|| format!("{epoch}/init-{version}.mp4"))
    }

    fn write(&self, name: impl FnOnce() -> String) -> Arc<str> {
        self.0.clone().unwrap_or_else(|| name().into())
    }
}
