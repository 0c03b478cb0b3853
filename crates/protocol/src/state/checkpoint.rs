//! Checkpoints: the state of a log that outlives its writer and its readers.
//!
//! A writer keeps one in the state store, and renders playlists in the bucket from it. A checkpoint names only what the
//! object store has. Of a log that was neither sealed nor ended that is less than readers were shown: see
//! [`is_complete`].

use std::collections::BTreeSet;
use std::sync::Arc;

use millrace_wire::fact::{Fact, Origin, StreamState};
use millrace_wire::ids::{Msn, Rendition};
use millrace_wire::topic;

use crate::state::apply;
use crate::state::position::Position;
use crate::state::query::{
    MIN_WINDOW_TARGETS, is_gap_in, is_parts_laid_together, slot_duration, start_after,
};

/// Segments that a checkpoint keeps in the state store: at 2 s each, more than eight minutes. A longer window is cut; its
/// oldest segments stay in the segment index.
pub const MAX_CHECKPOINT_SLOTS: usize = 256;

/// A checkpoint begins this many target durations after the playlists do: they may move their start before the next
/// checkpoint is written, and a playlist must not go back.
const LATER_START_TARGETS: u64 = 2;

/// Returns the checkpoint of `state`: the state without segments that are not stored. Each rendition ends before its first
/// segment that may still be stored; the segments in `lost` never will be, and become GAPs. Parts stay where they are
/// slices of the stored object. `window_s` is the length of the playlists' window in seconds.
pub fn checkpoint_of(state: &StreamState, lost: &BTreeSet<(Rendition, Msn)>, window_s: u32) -> StreamState {
    let mut checkpoint = StreamState { origin: Origin::Checkpoint, ..state.clone() };
    let target_ms = u64::from(state.target_duration) * 1000;
    let window_ms = (u64::from(window_s) * 1000).max(MIN_WINDOW_TARGETS * target_ms);
    if !state.ended
        && let Some(first) = start_after(state, window_ms.saturating_sub(LATER_START_TARGETS * target_ms))
    {
        apply::apply(&mut checkpoint, state.seq, &Fact::Trim { first });
    }
    let mut waiting = false;
    for rendition in state.renditions.keys() {
        waiting |= keep_stored(&mut checkpoint, rendition, lost);
    }
    // Segments that are being stored were shown: until they are stored, the checkpoint does not claim to be complete.
    checkpoint.ended &= !waiting;
    checkpoint.sealed &= !waiting;
    while checkpoint
        .slots
        .back()
        .is_some_and(|slot| slot.tracks.is_empty() && slot.gap.is_none() && slot.rendition_gaps.is_empty())
    {
        checkpoint.slots.pop_back();
    }
    checkpoint
}

/// Removes from `checkpoint` what is not stored of a rendition. True if some of it may still be stored.
fn keep_stored(
    checkpoint: &mut StreamState,
    rendition: &Rendition,
    lost: &BTreeSet<(Rendition, Msn)>,
) -> bool {
    let is_over = checkpoint.sealed || checkpoint.ended;
    let mut open = false;
    for slot in &mut checkpoint.slots {
        let Some(track) = slot.tracks.get(rendition) else {
            if open && slot.rendition_gaps.contains_key(rendition) {
                Arc::make_mut(slot).rendition_gaps.remove(rendition);
            }
            continue;
        };
        let stored = track.segment.is_some() && track.stored;
        // A segment that was declared missing, or that a sealed epoch left open, will not come.
        let never = is_gap_in(slot, rendition) || (is_over && track.segment.is_none());
        open |= !stored && !never && !lost.contains(&(rendition.clone(), slot.msn));
        if open || !stored {
            let duration = slot_duration(slot);
            let slot = Arc::make_mut(slot);
            slot.tracks.remove(rendition);
            if open {
                slot.rendition_gaps.remove(rendition);
            } else if slot.tracks.is_empty() && slot.rendition_gaps.is_empty() {
                // A segment that no rendition has is listed as missing, as long as it would have been.
                slot.gap = slot.gap.or(duration);
            }
        } else if !track.parts.is_empty()
            && !is_parts_laid_together(track)
            && let Some(track) = Arc::make_mut(slot).tracks.get_mut(rendition)
        {
            track.parts.clear();
        }
    }
    open
}

/// Returns the checkpoint with no more than its newest `max_slots` segments.
#[must_use]
pub fn limit_slots(mut checkpoint: StreamState, max_slots: usize) -> StreamState {
    let surplus = checkpoint.slots.len().saturating_sub(max_slots);
    checkpoint.slots.drain(..surplus);
    checkpoint.first_msn = checkpoint.slots.front().map_or(checkpoint.first_msn, |slot| slot.msn);
    checkpoint
}

/// True if the checkpoint `new` may replace `old`: a superseded writer's checkpoint must not replace its successor's.
pub fn may_replace(new: &StreamState, old: &StreamState) -> bool {
    Position::of_checkpoint(new) > Position::of_checkpoint(old)
}

/// True if the checkpoint `new` may be written over the record that the state store has. A record that cannot be read is
/// replaced: it is of no use to a reader.
pub fn may_write(new: &StreamState, stored: Option<&[u8]>) -> bool {
    stored.and_then(|record| topic::decode(record).ok()).is_none_or(|old| may_replace(new, &old))
}

/// True if this checkpoint is complete: its writer sealed or ended the log, so no reader has seen anything newer. Readers
/// show no other checkpoint: it lacks the segment that was open when its writer died, and a playlist would go back.
pub const fn is_complete(checkpoint: &StreamState) -> bool {
    checkpoint.sealed || checkpoint.ended
}

/// Returns a state read from the state store as readers take it: to show and to build on, not a log to follow.
#[must_use]
pub fn restored(stored: StreamState) -> StreamState {
    StreamState { origin: Origin::Checkpoint, ..stored }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use millrace_wire::fact::{
        MediaDuration, PartEntry, RenditionSegment, RenditionState, SegmentEntry, SegmentSlot,
    };
    use millrace_wire::ids::{
        BroadcastId, DiscontinuitySeq, Epoch, FactSeq, Generation, InitVersion, UnixMillis,
    };

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
        let mut state = apply::empty(BroadcastId::from_u128(1));
        state.first_msn = Msn(10);
        state.renditions = renditions.clone().into_iter().map(|r| (r, RenditionState::default())).collect();
        for (tracks, n) in slots.iter().zip(10..) {
            let tracks = renditions.iter().zip(tracks);
            let tracks: BTreeMap<_, _> =
                tracks.filter_map(|(r, t)| t.map(|(a, b)| (r.clone(), track(a, b)))).collect();
            state.slots.push_back(Arc::new(SegmentSlot {
                msn: Msn(n),
                epoch: Epoch(1),
                discontinuity_sequence: DiscontinuitySeq(0),
                program_date_time: UnixMillis(n * 2000),
                gap: None,
                rendition_gaps: BTreeMap::new(),
                tracks,
            }));
        }
        state
    }

    fn listed(checkpoint: &StreamState) -> Vec<(u64, usize, bool)> {
        checkpoint.slots.iter().map(|s| (s.msn.0, s.tracks.len(), s.gap.is_some())).collect()
    }

    const STORED: Option<(bool, bool)> = Some((true, true));
    const WAITS: Option<(bool, bool)> = Some((true, false));
    const OPEN: Option<(bool, bool)> = Some((false, false));

    #[test]
    fn checkpoint_ends_a_rendition_before_its_first_segment_that_is_not_stored() {
        let mut state = state(&[[STORED, STORED], [WAITS, STORED], [STORED, STORED], [OPEN, OPEN]]);
        state.ended = true;
        let checkpoint = checkpoint_of(&state, &BTreeSet::new(), 600);
        assert_eq!(listed(&checkpoint), [(10, 2, false), (11, 1, false), (12, 1, false)]);
        assert!(!checkpoint.ended, "not ended while a segment is being stored");
    }

    #[test]
    fn checkpoint_lists_a_lost_segment_as_gap_and_goes_on_after_it() {
        let mut state = state(&[[STORED, STORED], [WAITS, WAITS], [STORED, STORED]]);
        state.ended = true;
        let lost = [Rendition::video(), Rendition::audio()].map(|r| (r, Msn(11)));
        let checkpoint = checkpoint_of(&state, &lost.into_iter().collect(), 600);
        assert_eq!(listed(&checkpoint), [(10, 2, false), (11, 0, true), (12, 2, false)]);
        assert!(checkpoint.ended);
        assert_eq!(listed(&limit_slots(checkpoint, 1)), [(12, 2, false)]);
    }

    #[test]
    fn checkpoint_keeps_parts_that_are_slices_of_the_stored_object() {
        let part = |generation| PartEntry {
            generation: Generation(generation),
            seq: FactSeq(1),
            duration: MediaDuration::from_millis(200),
            independent: true,
            bytes: 1,
            gap: false,
            last: false,
        };
        let mut state = state(&[[STORED, STORED], [WAITS, OPEN]]);
        for (slot, generation) in state.slots.iter_mut().map(Arc::make_mut).zip([1, 1]) {
            slot.tracks.values_mut().for_each(|t| t.parts.push(part(generation)));
        }
        let other = Arc::make_mut(&mut state.slots[0]).tracks.get_mut(&Rendition::audio()).unwrap();
        other.parts[0] = part(2);
        let checkpoint = checkpoint_of(&state, &BTreeSet::new(), 600);
        let parts: Vec<_> =
            checkpoint.slots.iter().flat_map(|s| s.tracks.values().map(|t| t.parts.len())).collect();
        assert_eq!(parts, [0, 1], "audio's part is of another generation than its object");
        assert!(!is_complete(&checkpoint));
    }

    #[test]
    fn checkpoint_is_replaced_by_a_newer_one_only() {
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
