//! The media that facts carry, and the facts that a snapshot lists media of.

use bytes::Bytes;
use millrace_wire::fact::{Fact, FactMessage, StreamState};
use millrace_wire::ids::{Epoch, Generation, InitVersion, Msn, PartIndex, Rendition};

use crate::state::query::is_parts_laid_together;

/// Bytes that came with a fact, and the object they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    /// The rendition they belong to.
    pub rendition: Rendition,
    /// The epoch in the object's name.
    pub epoch: Epoch,
    /// The generation in the object's name; an initialisation section's name has none.
    pub generation: Generation,
    /// Which object of the rendition.
    pub what: MediaKind,
    /// The bytes of the object.
    pub bytes: Bytes,
}

/// The kind of an object and its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaKind {
    /// An initialisation section, by its version.
    Init(InitVersion),
    /// A part of a segment, by its index.
    Part(Msn, PartIndex),
    /// A segment as one object.
    Segment(Msn),
}

/// Returns the media that a fact carries, if it carries any.
pub(super) fn media_of(message: FactMessage) -> Option<Media> {
    let (rendition, what) = match message.fact {
        Fact::Init { rendition, version, .. } => (rendition, MediaKind::Init(version)),
        Fact::Part(part) if !part.gap => (part.rendition, MediaKind::Part(part.msn, part.part)),
        Fact::Segment(segment) if !message.payload.is_empty() => {
            (segment.rendition, MediaKind::Segment(segment.msn))
        }
        _ => return None,
    };
    let (epoch, generation) = (message.epoch, message.generation);
    Some(Media { rendition, epoch, generation, what, bytes: message.payload })
}

/// Returns the ranges of this log's facts whose media the state lists: a reader that took the state from a snapshot has
/// them repeated.
pub(super) fn payload_ranges(state: &StreamState) -> Vec<(u64, u64)> {
    let own_inits = state
        .renditions
        .values()
        .flat_map(|rendition| &rendition.inits)
        .filter(|init| init.epoch == state.epoch && init.generation == state.generation)
        .map(|init| init.seq.0);
    let own_parts = state
        .slots
        .iter()
        .filter(|slot| slot.epoch == state.epoch)
        .flat_map(|slot| slot.tracks.values())
        .flat_map(|track| &track.parts)
        .filter(|part| part.generation == state.generation)
        .map(|part| part.seq.0);
    // Segments that readers cannot lay together from parts, and cannot read from the store yet.
    let own_segments = state
        .slots
        .iter()
        .filter(|slot| slot.epoch == state.epoch)
        .flat_map(|slot| slot.tracks.values())
        .filter(|track| !track.stored && !is_parts_laid_together(track))
        .filter_map(|track| track.segment.as_ref())
        .filter(|segment| segment.generation == state.generation)
        .map(|segment| segment.seq.0);
    let mut numbers: Vec<u64> = own_inits.chain(own_parts).chain(own_segments).collect();
    numbers.sort_unstable();
    ranges_of(&numbers)
}

fn ranges_of(numbers: &[u64]) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for &number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    ranges
}
