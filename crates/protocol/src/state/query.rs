//! Questions that playlists, log writers and readers ask of a folded state.

use std::collections::BTreeMap;

use millrace_wire::fact::{MediaDuration, RenditionSegment, RenditionState, SegmentSlot, StreamState};
use millrace_wire::ids::{Epoch, Generation, Msn, Rendition};

/// RFC 8216 §6.2.2: a live playlist keeps at least three target durations of segments.
pub const MIN_WINDOW_TARGETS: u64 = 3;

/// Returns EXT-X-TARGETDURATION as a duration; 1 s before the first epoch has stated it.
pub const fn target_duration(seconds: u32) -> MediaDuration {
    MediaDuration::from_secs(if seconds == 0 { 1 } else { seconds as u64 })
}

/// Returns the number that follows the newest segment of the window.
pub fn next_msn(state: &StreamState) -> Msn {
    state.slots.back().map_or(state.first_msn, |slot| slot.msn.next())
}

/// Returns the duration of a segment: that of its longest complete rendition, else the one its gap states. `None` while
/// the segment is open.
pub fn slot_duration(slot: &SegmentSlot) -> Option<MediaDuration> {
    let complete = slot.tracks.values().filter_map(|track| track.segment.as_ref().map(|s| s.duration));
    let missing = || slot.rendition_gaps.values().copied().max_by_key(|d| d.as_millis());
    complete.max_by_key(|d| d.as_millis()).or(slot.gap).or_else(missing)
}

/// Returns the duration of a segment as far as it is known: [`slot_duration`], else the sum of its parts.
pub fn known_duration(slot: &SegmentSlot) -> Option<MediaDuration> {
    slot_duration(slot).or_else(|| {
        let parts = slot.tracks.values().filter_map(parts_duration);
        parts.max_by_key(|duration| duration.as_millis())
    })
}

/// Returns the sum of a rendition's parts in one segment; `None` if it has none.
pub fn parts_duration(track: &RenditionSegment) -> Option<MediaDuration> {
    let timescale = track.parts.first()?.duration.timescale;
    let ticks = track.parts.iter().map(|part| part.duration.ticks).sum();
    (ticks > 0).then_some(MediaDuration { ticks, timescale })
}

/// True if `rendition` has ended for good before segment `msn`.
pub fn has_ended_before(
    renditions: &BTreeMap<Rendition, RenditionState>,
    name: &Rendition,
    msn: Msn,
) -> bool {
    renditions.get(name).and_then(|state| state.ended).is_some_and(|span| span.last < msn)
}

/// True if nothing more is to come of `rendition` in `slot`: its segment is complete, or is listed as GAP.
pub fn is_closed_in(slot: &SegmentSlot, rendition: &Rendition) -> bool {
    let complete = slot.tracks.get(rendition).is_some_and(|track| track.segment.is_some());
    complete || is_gap_in(slot, rendition)
}

/// True if `slot` was declared missing in `rendition`, alone or together with all renditions that lack it.
pub fn is_gap_in(slot: &SegmentSlot, rendition: &Rendition) -> bool {
    slot.gap.is_some() || slot.rendition_gaps.contains_key(rendition)
}

/// The end of a rendition's media playlist; the greater one lists more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListingEnd {
    /// The newest segment that is listed, complete or open.
    pub msn: Msn,
    /// The number of its parts.
    pub parts: u32,
    /// True if the segment is complete or a GAP.
    pub closed: bool,
}

/// Returns the end of a rendition's media playlist; `None` if it lists nothing.
pub fn listing_end(state: &StreamState, rendition: &Rendition) -> Option<ListingEnd> {
    let slots = state.slots.iter().rev();
    slots.skip_while(|slot| has_ended_before(&state.renditions, rendition, slot.msn)).find_map(|slot| {
        let (parts, closed) = match slot.tracks.get(rendition) {
            Some(RenditionSegment { segment: Some(segment), .. }) => (segment.parts, true),
            Some(track) => (track.parts.len() as u32, is_gap_in(slot, rendition)),
            None if is_gap_in(slot, rendition) => (0, true),
            None => return None,
        };
        Some(ListingEnd { msn: slot.msn, parts, closed })
    })
}

/// Returns the oldest segment of `epoch` that may not be stored: a successor packages from there. `first` is the epoch's
/// first segment.
pub fn resume_msn(state: &StreamState, epoch: Epoch, first: Msn) -> Msn {
    let of_epoch = || state.slots.iter().filter(|slot| slot.epoch == epoch && slot.msn >= first);
    let last = of_epoch().next_back().map(|slot| slot.msn);
    let unsettled = of_epoch().find(|slot| {
        // A rendition lags behind another by less than two segments: what a slot lacks two slots later will not come.
        let complete = state.sealed || last.is_some_and(|last| last.0 >= slot.msn.0 + 2);
        slot.gap.is_none() && !(is_stored_in_full(state, slot, complete))
    });
    unsettled.map(|slot| slot.msn).or(last.map(Msn::next)).unwrap_or(first)
}

/// True if every rendition that has media in `slot` is stored, and, unless the slot is `complete`, every rendition has.
fn is_stored_in_full(state: &StreamState, slot: &SegmentSlot, complete: bool) -> bool {
    let stored = are_tracks_stored(slot, |_| false);
    let present = |name: &Rendition| {
        slot.tracks.contains_key(name)
            || slot.rendition_gaps.contains_key(name)
            || has_ended_before(&state.renditions, name, slot.msn)
    };
    let some = !slot.tracks.is_empty() || !slot.rendition_gaps.is_empty();
    stored && (complete || some && state.renditions.keys().all(present))
}

/// True if the object of every rendition that has media in `slot`, does not list it as GAP and is not `excused` is stored.
fn are_tracks_stored(slot: &SegmentSlot, excused: impl Fn(&Rendition) -> bool) -> bool {
    let is_missing = |name: &Rendition| slot.rendition_gaps.contains_key(name) || excused(name);
    slot.tracks.iter().all(|(name, track)| track.stored || is_missing(name))
}

/// True if the segment is its parts laid end to end: all of them are of the generation that completed it. Parts of two
/// generations are not, where their bits were encoded twice.
pub fn is_parts_laid_together(track: &RenditionSegment) -> bool {
    track.segment.as_ref().is_some_and(|segment| are_parts_of(track, segment.generation, segment.parts))
}

/// True if the parts that are listed are `count`, all of this generation.
pub(crate) fn are_parts_of(track: &RenditionSegment, generation: Generation, count: u32) -> bool {
    let own = track.parts.iter().all(|part| !part.gap && part.generation == generation);
    own && track.parts.len() == count as usize
}

/// True if `epoch` is sealed and every segment of it is stored or missing. A rendition that has ended before the others is not
/// waited for: a successor that cannot encode its last segment again must not list it as GAP, because ENDLIST is final.
pub fn is_stored(state: &StreamState, epoch: Epoch) -> bool {
    let has_ended = |name: &Rendition| state.renditions.get(name).is_some_and(|known| known.ended.is_some());
    let mut of_epoch = state.slots.iter().filter(|slot| slot.epoch == epoch && slot.gap.is_none());
    state.epoch == epoch && state.sealed && of_epoch.all(|slot| are_tracks_stored(slot, has_ended))
}

/// Returns the media sequence number that leaves at least `window_ms` of complete segments; `None` if the present one
/// already does. A shorter window is three target durations (RFC 8216 §6.2.2), which three segments of that duration fill.
pub fn window_start(state: &StreamState, window_ms: u64) -> Option<Msn> {
    let least = MIN_WINDOW_TARGETS * target_duration(state.target_duration).as_millis();
    start_after(state, if window_ms < least { least - 1 } else { window_ms })
}

/// Returns the first segment of the shortest window that is longer than `keep_ms`, if that drops any segment.
pub(crate) fn start_after(state: &StreamState, keep_ms: u64) -> Option<Msn> {
    let mut newer_ms = 0;
    for slot in state.slots.iter().rev() {
        if newer_ms > keep_ms {
            return (slot.msn.next() > state.first_msn).then_some(slot.msn.next());
        }
        newer_ms += slot_duration(slot).map_or(0, MediaDuration::as_millis);
    }
    None
}
