//! Missing segments: which ones a state lacks, how long they last, and how many are listed as GAP.
//!
//! Three rules share this file. A segment that its writer left open becomes a GAP ([`unfinished_duration`],
//! [`unfinished`]). Numbers that were used up while no media came become GAPs after the newest segment ([`following`],
//! [`while_away`]), at most [`MAX_LISTED_GAPS`]. And the fold fills a short hole by itself ([`MAX_HOLE`]).

use std::collections::BTreeMap;

use millrace_wire::fact::{EpochOpen, Gap, MediaDuration, RenditionState, SegmentSlot, StreamState};
use millrace_wire::ids::{DiscontinuitySeq, Msn, Rendition, UnixMillis};

use crate::state::query::{
    has_ended_before, is_closed_in, known_duration, next_msn, slot_duration, target_duration,
};

/// The fold fills a hole of up to this many numbers with GAPs: the numbers that two epochs leave unused between them when
/// each rounds up once or twice. After a longer hole an epoch starts with an empty window; a fact of the same epoch that
/// leaves a longer hole contradicts the state and is ignored.
pub const MAX_HOLE: u64 = 16;

/// A writer lists up to this many missing segments one by one: 17 minutes of 2 s segments, about as long as a state store
/// or control may be away before an operator ends the broadcast. Beyond it the numbers are left out.
pub const MAX_LISTED_GAPS: u64 = 512;

/// Returns how long `slot` lasts as a GAP if a rendition of it was neither completed nor declared missing; `None` if
/// nothing of it is open. Its parts were shown, so the GAP lasts as long as they do.
pub fn unfinished_duration(
    slot: &SegmentSlot,
    renditions: &BTreeMap<Rendition, RenditionState>,
    target: MediaDuration,
) -> Option<MediaDuration> {
    let closed = |name| is_closed_in(slot, name) || has_ended_before(renditions, name, slot.msn);
    let empty = slot.tracks.is_empty() && slot.rendition_gaps.is_empty();
    let unfinished = slot.gap.is_none() && (empty || !renditions.keys().all(closed));
    unfinished.then(|| known_duration(slot).unwrap_or(target))
}

/// Returns a GAP for every segment that is still open although its writer has ended.
pub fn unfinished(state: &StreamState) -> impl Iterator<Item = Gap> {
    let target = target_duration(state.target_duration);
    state.slots.iter().filter_map(move |slot| {
        let duration = unfinished_duration(slot, &state.renditions, target)?;
        Some(gap_of(slot, duration))
    })
}

/// Returns a GAP for segment `msn`, whose media were lost on the way from the publisher. It is in the window or follows it;
/// `open` has the numbers of a window that is empty. It lasts as long as the newest segment that the window has, so that
/// the dates of several GAPs do not run ahead of the media that follow them.
pub fn gap_at(state: &StreamState, msn: Msn, open: &EpochOpen) -> Gap {
    let target = target_duration(state.target_duration);
    let complete = state.slots.iter().rev().find(|slot| slot.gap.is_none());
    let usual = complete.and_then(|slot| slot_duration(slot)).unwrap_or(target);
    if let Some(slot) = state.slots.iter().find(|slot| slot.msn == msn) {
        return gap_of(slot, known_duration(slot).unwrap_or(usual));
    }
    let start = Start::after_newest(state).unwrap_or(Start::of_epoch(open));
    Gap {
        msn,
        duration: usual,
        discontinuity_sequence: start.discontinuity_sequence,
        program_date_time: start.program_date_time,
    }
}

/// Returns the GAPs that follow the newest segment up to `through`, each of duration `each`. There are none in an empty
/// window, which has no segment to follow, and none if they were more than [`MAX_LISTED_GAPS`].
pub fn following(state: &StreamState, through: Msn, each: MediaDuration) -> Vec<Gap> {
    Start::after_newest(state).map_or_else(Vec::new, |start| start.gaps(through, each))
}

/// Returns the GAPs with which a sealed log grows while its publisher is away: a target duration each, up to the number
/// `through` that control has recorded as used. `open` has the numbers of a window that is empty, if the writer knows them.
pub fn while_away(state: &StreamState, through: Msn, open: Option<&EpochOpen>) -> Vec<Gap> {
    let start = Start::after_newest(state).or(open.map(Start::of_epoch));
    let each = target_duration(state.target_duration);
    start.filter(|_| !state.ended).map_or_else(Vec::new, |start| start.gaps(through, each))
}

/// Returns the last number that can be listed of those up to `used`: `used` itself, or the newest segment if that is out
/// of reach.
pub fn listed_through(state: &StreamState, used: Msn) -> Msn {
    let last = state.slots.back().map_or(used, |slot| slot.msn);
    if used <= last.plus(MAX_LISTED_GAPS) { used.max(last) } else { last }
}

/// Returns when the newest segment ends; one of unknown duration lasts a target duration.
pub fn window_end(state: &StreamState) -> UnixMillis {
    let target = target_duration(state.target_duration);
    state.slots.back().map_or(UnixMillis(0), |last| {
        let duration = known_duration(last).unwrap_or(target);
        UnixMillis(last.program_date_time.0 + duration.as_millis())
    })
}

/// Returns how long each of `count` segments lasts that share `ms` milliseconds: at least 1 ms and at most `longest`.
pub fn share(ms: u64, count: u64, longest: MediaDuration) -> MediaDuration {
    MediaDuration::from_millis((ms / count.max(1)).clamp(1, longest.as_millis()))
}

fn gap_of(slot: &SegmentSlot, duration: MediaDuration) -> Gap {
    Gap {
        msn: slot.msn,
        duration,
        discontinuity_sequence: slot.discontinuity_sequence,
        program_date_time: slot.program_date_time,
    }
}

/// The first of a run of missing segments.
struct Start {
    msn: Msn,
    discontinuity_sequence: DiscontinuitySeq,
    program_date_time: UnixMillis,
}

impl Start {
    fn after_newest(state: &StreamState) -> Option<Self> {
        let newest = state.slots.back()?;
        Some(Self {
            msn: next_msn(state),
            discontinuity_sequence: newest.discontinuity_sequence,
            program_date_time: window_end(state),
        })
    }

    fn of_epoch(open: &EpochOpen) -> Self {
        let EpochOpen { first_msn, discontinuity_sequence, program_date_time, .. } = *open;
        Self { msn: first_msn, discontinuity_sequence, program_date_time }
    }

    fn gaps(&self, through: Msn, each: MediaDuration) -> Vec<Gap> {
        let count = through.next().0.saturating_sub(self.msn.0);
        if count > MAX_LISTED_GAPS {
            return Vec::new();
        }
        let gap = |n| Gap {
            msn: self.msn.plus(n),
            duration: each,
            discontinuity_sequence: self.discontinuity_sequence,
            program_date_time: UnixMillis(self.program_date_time.0 + n * each.as_millis()),
        };
        (0..count).map(gap).collect()
    }
}
