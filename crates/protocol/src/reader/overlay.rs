//! The merge of what a reader has shown (the *tail*) with the state of a newer log, so that nothing shown goes away.

use std::sync::Arc;

use millrace_wire::fact::{SegmentSlot, StreamState};
use millrace_wire::ids::Rendition;

use crate::state::query::{ListingEnd, listing_end};

/// Adds to `state` what `tail` shows beyond it. True if there was anything.
pub(super) fn overlay(state: &mut StreamState, tail: &StreamState) -> bool {
    // An epoch that is open has said what became of every number below its first one.
    if state.ended || (state.opened && state.epoch > tail.epoch) {
        return false;
    }
    let mut has_beyond = false;
    let live = tail.renditions.keys().filter(|name| !has_ended(state, name));
    let ends: Vec<_> = live.map(|name| (name.clone(), listing_end(state, name))).collect();
    let last = state.slots.back().map(|slot| slot.msn);
    for shown in &tail.slots {
        if last.is_none_or(|last| shown.msn > last) {
            if last.is_some() || shown.msn >= state.first_msn {
                state.slots.push_back(shown.clone());
                has_beyond = true;
            }
            continue;
        }
        let Some(slot) = state.slots.iter_mut().find(|slot| slot.msn == shown.msn && slot.gap.is_none())
        else {
            continue;
        };
        for (name, end) in &ends {
            if is_beyond(end.as_ref(), shown) {
                has_beyond |= extend(Arc::make_mut(slot), shown, name);
            }
        }
    }
    for (name, shown) in &tail.renditions {
        state.renditions.entry(name.clone()).or_insert_with(|| shown.clone());
    }
    has_beyond
}

/// Keeps renditions of the same broadcast ended that were shown as ended: ENDLIST is not taken back, even if the log that
/// ended them is lost.
pub(super) fn keep_ended(state: &mut StreamState, shown: &StreamState) {
    if state.broadcast != shown.broadcast {
        return;
    }
    for (name, shown) in shown.renditions.iter().filter(|(_, shown)| shown.ended.is_some()) {
        let known = state.renditions.entry(name.clone()).or_insert_with(|| shown.clone());
        known.ended = known.ended.or(shown.ended);
    }
}

fn has_ended(state: &StreamState, rendition: &Rendition) -> bool {
    state.renditions.get(rendition).is_some_and(|known| known.ended.is_some())
}

/// True if the slot that was shown may list more of a rendition than its listing that ends at `end`.
fn is_beyond(end: Option<&ListingEnd>, shown: &SegmentSlot) -> bool {
    end.is_none_or(|end| end.msn < shown.msn || (end.msn == shown.msn && !end.closed))
}

/// Adds to `slot` what was shown of a rendition beyond it. True if there was anything.
fn extend(slot: &mut SegmentSlot, shown: &SegmentSlot, rendition: &Rendition) -> bool {
    let mut extended = false;
    if let Some(gap) = shown.rendition_gaps.get(rendition)
        && slot.tracks.get(rendition).is_none_or(|track| track.segment.is_none())
    {
        extended = slot.rendition_gaps.insert(rendition.clone(), *gap).is_none();
    }
    let Some(shown) = shown.tracks.get(rendition) else { return extended };
    let Some(track) = slot.tracks.get_mut(rendition) else {
        slot.tracks.insert(rendition.clone(), shown.clone());
        return true;
    };
    let known = track.parts.len();
    if known < shown.parts.len() {
        track.parts.extend_from_slice(&shown.parts[known..]);
    } else if shown.segment.as_ref().is_none_or(|segment| (segment.parts as usize) < known) {
        return extended;
    }
    track.segment.clone_from(&shown.segment);
    true
}
