//! What is left of a log when nobody who folded it is there any more: the state that is kept in the state store, and
//! that playlists in the bucket are rendered from. It names only what the object store has.
//!
//! Of a log that was not closed it is less than readers were shown: see [`is_closed`].

use std::collections::BTreeSet;
use std::sync::Arc;

use millrace_wire::fact::{Fact, StreamState};
use millrace_wire::ids::{Generation, Msn, Rendition};

use crate::state::apply::{self, slot_duration};

/// Segments kept in the state store: at 2 s each, more than eight minutes. A longer window is cut, its oldest segments stay in the
/// index.
pub const MAX_SLOTS_AT_REST: usize = 256;

/// `view` without segments that are not in the store. Each rendition ends before its first segment that may still get
/// there; `lost` ones never will, and are left out. Parts stay where they are slices of the stored object.
///
/// The window is that of playlists of `window_s` seconds two segments later: they may close before the next state is kept.
pub fn at_rest(view: &StreamState, lost: &BTreeSet<(Rendition, Msn)>, window_s: u32) -> StreamState {
    let mut rest = view.clone();
    let target_ms = u64::from(view.target_duration) * 1000;
    let window_ms = (u64::from(window_s) * 1000).max(3 * target_ms).saturating_sub(2 * target_ms);
    if !view.ended
        && let Some(first) = apply::trim_after(view, window_ms)
    {
        apply::apply(&mut rest, view.seq, &Fact::Trim { first });
    }
    let mut waiting = false;
    for rendition in view.renditions.keys() {
        let mut open = false;
        for slot in &mut rest.slots {
            let Some(track) = slot.tracks.get(rendition) else { continue };
            let stored = track.segment.is_some() && track.stored;
            let whole = track.segment.as_ref().is_some_and(|s| {
                s.parts as usize == track.parts.len()
                    && track.parts.iter().all(|p| !p.gap && p.generation == s.generation)
            });
            // What a declared gap or a sealed epoch has not closed will not come.
            let never = slot.gap.is_some() || ((view.sealed || view.ended) && track.segment.is_none());
            open |= !stored && !never && !lost.contains(&(rendition.clone(), slot.msn));
            if open || !stored {
                let length = slot_duration(slot);
                let slot = Arc::make_mut(slot);
                slot.tracks.remove(rendition);
                // A segment nobody has is listed as missing, as long as it would have been.
                if !open && slot.tracks.is_empty() {
                    slot.gap = slot.gap.or(length);
                }
            } else if !whole
                && !track.parts.is_empty()
                && let Some(track) = Arc::make_mut(slot).tracks.get_mut(rendition)
            {
                track.parts.clear();
            }
        }
        waiting |= open;
    }
    // What is still on its way was shown: until it is there, the state says less.
    rest.ended &= !waiting;
    rest.sealed &= !waiting;
    while rest.slots.back().is_some_and(|s| s.tracks.is_empty() && s.gap.is_none()) {
        rest.slots.pop_back();
    }
    rest
}

/// The state without all but its newest segments.
#[must_use]
pub fn newest(mut rest: StreamState, max_slots: usize) -> StreamState {
    let surplus = rest.slots.len().saturating_sub(max_slots);
    rest.slots.drain(..surplus);
    rest.first_msn = rest.slots.front().map_or(rest.first_msn, |s| s.msn);
    rest
}

/// Whether a state at rest may take the place of `old`: a superseded author's must not.
pub fn may_replace(new: &StreamState, old: &StreamState) -> bool {
    let rank = |s: &StreamState| (s.epoch, s.generation, s.seq, s.ended);
    rank(new) > rank(old)
}

/// Whether nothing more was shown of its log than it says: its author closed it. Readers show no other state at rest; of
/// the segment that was open when everybody died it knows nothing, and a playlist would go back.
pub fn is_closed(rest: &StreamState) -> bool {
    rest.sealed || rest.ended
}

/// A state at rest as readers take it: to show and to build on, not a log to follow.
#[must_use]
pub fn base(stored: StreamState) -> StreamState {
    StreamState { generation: Generation(0), ..stored }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use millrace_wire::fact::{
        MediaDuration, PartEntry, RenditionSegment, RenditionState, SegmentEntry, SegmentSlot,
    };
    use millrace_wire::ids::{BroadcastId, DiscontinuitySeq, Epoch, FactSeq, InitVersion, UnixMillis};

    use super::*;

    fn track(closed: bool, stored: bool) -> RenditionSegment {
        let segment = SegmentEntry {
            generation: Generation(1),
            seq: FactSeq(1),
            duration: MediaDuration::from_millis(2000),
            independent: true,
            bytes: 1,
            parts: 1,
        };
        RenditionSegment {
            init_version: InitVersion(0),
            parts: vec![],
            segment: closed.then_some(segment),
            stored,
        }
    }

    /// Slots from 10 on; each rendition as (closed, stored).
    fn state(slots: &[[Option<(bool, bool)>; 2]]) -> StreamState {
        let renditions = [Rendition::video(), Rendition::audio()];
        let mut view = apply::empty(BroadcastId::from_u128(1));
        view.first_msn = Msn(10);
        view.renditions = renditions.clone().into_iter().map(|r| (r, RenditionState::default())).collect();
        for (tracks, n) in slots.iter().zip(10..) {
            let tracks = renditions.iter().zip(tracks);
            let tracks: BTreeMap<_, _> =
                tracks.filter_map(|(r, t)| t.map(|(a, b)| (r.clone(), track(a, b)))).collect();
            view.slots.push_back(Arc::new(SegmentSlot {
                msn: Msn(n),
                epoch: Epoch(1),
                discontinuity_sequence: DiscontinuitySeq(0),
                program_date_time: UnixMillis(n * 2000),
                gap: None,
                tracks,
            }));
        }
        view
    }

    fn listed(rest: &StreamState) -> Vec<(u64, usize, bool)> {
        rest.slots.iter().map(|s| (s.msn.0, s.tracks.len(), s.gap.is_some())).collect()
    }

    const STORED: Option<(bool, bool)> = Some((true, true));
    const WAITS: Option<(bool, bool)> = Some((true, false));
    const OPEN: Option<(bool, bool)> = Some((false, false));

    #[test]
    fn a_rendition_ends_before_what_is_not_stored() {
        let mut view = state(&[[STORED, STORED], [WAITS, STORED], [STORED, STORED], [OPEN, OPEN]]);
        view.ended = true;
        let rest = at_rest(&view, &BTreeSet::new(), 600);
        assert_eq!(listed(&rest), [(10, 2, false), (11, 1, false), (12, 1, false)]);
        assert!(!rest.ended, "the end comes after what is on its way");
    }

    #[test]
    fn what_is_lost_is_missing_and_the_rest_goes_on() {
        let mut view = state(&[[STORED, STORED], [WAITS, WAITS], [STORED, STORED]]);
        view.ended = true;
        let lost = [Rendition::video(), Rendition::audio()].map(|r| (r, Msn(11)));
        let rest = at_rest(&view, &lost.into_iter().collect(), 600);
        assert_eq!(listed(&rest), [(10, 2, false), (11, 0, true), (12, 2, false)]);
        assert!(rest.ended);
        assert_eq!(listed(&newest(rest, 1)), [(12, 2, false)]);
    }

    #[test]
    fn parts_stay_where_the_object_has_them() {
        let part = |generation| PartEntry {
            generation: Generation(generation),
            seq: FactSeq(1),
            duration: MediaDuration::from_millis(200),
            independent: true,
            bytes: 1,
            gap: false,
        };
        let mut view = state(&[[STORED, STORED], [WAITS, OPEN]]);
        for (slot, generation) in view.slots.iter_mut().map(Arc::make_mut).zip([1, 1]) {
            slot.tracks.values_mut().for_each(|t| t.parts.push(part(generation)));
        }
        let other = Arc::make_mut(&mut view.slots[0]).tracks.get_mut(&Rendition::audio()).unwrap();
        other.parts[0] = part(2);
        let rest = at_rest(&view, &BTreeSet::new(), 600);
        let parts: Vec<_> =
            rest.slots.iter().flat_map(|s| s.tracks.values().map(|t| t.parts.len())).collect();
        assert_eq!(parts, [0, 1], "audio's part is of another author than its object");
        assert!(!is_closed(&rest));
    }

    #[test]
    fn only_a_newer_state_replaces() {
        let old = StreamState { epoch: Epoch(5), generation: Generation(2), seq: FactSeq(9), ..state(&[]) };
        for (epoch, generation, seq, may) in
            [(5, 2, 9, false), (5, 2, 10, true), (5, 1, 99, false), (6, 1, 0, true)]
        {
            let (epoch, generation, seq) = (Epoch(epoch), Generation(generation), FactSeq(seq));
            assert_eq!(may_replace(&StreamState { epoch, generation, seq, ..old.clone() }, &old), may);
        }
        assert!(may_replace(&StreamState { ended: true, ..old.clone() }, &old));
    }
}
