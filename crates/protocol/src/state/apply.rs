//! The fold: a log of facts becomes the state that every playlist is rendered from. It is a pure function of the log, so
//! all readers of one log agree.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use millrace_wire::fact::{
    EpochOpen, Fact, Gap, InitEntry, MAX_SLOTS, MediaDuration, Origin, Part, PartEntry, RenditionGap,
    RenditionSegment, RenditionSpan, RenditionState, Segment, SegmentEntry, SegmentSlot, StreamState,
    TrackInfo,
};
use millrace_wire::ids::{
    Airing, BroadcastId, DiscontinuitySeq, Epoch, FactSeq, Generation, InitVersion, Msn, Rendition,
    UnixMillis,
};
use millrace_wire::ladder::LadderPlan;

use crate::state::gaps::{MAX_HOLE, unfinished_duration};
use crate::state::query::{
    has_ended_before, is_closed_in, is_gap_in, listing_end, next_msn, parts_duration, slot_duration,
    target_duration,
};

/// Parts stay in the state for this many target durations from the end of their rendition: one more than playlists must list
/// them (RFC 8216bis §6.2.2), because renditions differ in length.
pub const PARTS_KEPT: u64 = 4;

/// Returns the state of a broadcast that no log has been folded into.
pub fn empty(broadcast: BroadcastId) -> StreamState {
    StreamState {
        broadcast,
        airing: Airing::FIRST,
        epoch: Epoch(0),
        origin: Origin::Checkpoint,
        generation: Generation(0),
        seq: FactSeq(0),
        target_duration: 0,
        plan: LadderPlan::default(),
        opened: false,
        sealed: false,
        ended: false,
        first_msn: Msn(0),
        slots: VecDeque::new(),
        renditions: BTreeMap::new(),
    }
}

/// Returns the state at fact 0 of a log: its base under the log's own position.
pub fn takeover(epoch: Epoch, generation: Generation, base: &StreamState) -> StreamState {
    let same_epoch = base.epoch == epoch;
    StreamState {
        epoch,
        origin: Origin::Log,
        generation,
        seq: FactSeq(0),
        opened: base.opened && same_epoch,
        sealed: base.sealed && same_epoch,
        ..base.clone()
    }
}

/// Applies fact number `seq` of the state's own log. A fact that contradicts the state is ignored, by every reader alike.
pub fn apply(state: &mut StreamState, seq: FactSeq, fact: &Fact) {
    match fact {
        Fact::Takeover { base } => *state = takeover(state.epoch, state.generation, base),
        Fact::EpochOpen(open) => open_epoch(state, open),
        Fact::Init { rendition, version, info } => add_init(state, seq, rendition, *version, info),
        Fact::PartTarget { rendition, target } => {
            state.renditions.entry(rendition.clone()).or_default().part_target.get_or_insert(*target);
        }
        Fact::Part(part) => add_part(state, seq, part),
        Fact::Segment(segment) => add_segment(state, seq, segment),
        Fact::Stored { rendition, msn } => {
            if let Some(track) = slot_mut(state, *msn).and_then(|slot| slot.tracks.get_mut(rendition)) {
                track.stored = true;
            }
        }
        Fact::Gap(gap) => add_gap(state, gap),
        Fact::RenditionGap(gap) => add_rendition_gap(state, gap),
        Fact::RenditionEnd { rendition, last } => end_rendition(state, rendition, *last),
        Fact::Seal { .. } => state.sealed = true,
        Fact::End => state.ended = true,
        Fact::Trim { first } => trim(state, *first),
    }
    state.seq = seq;
}

fn open_epoch(state: &mut StreamState, open: &EpochOpen) {
    let fresh = open.broadcast != state.broadcast || state.slots.is_empty();
    // Numbers of an earlier broadcast are never used again, not even for GAPs.
    let next = next_msn(state);
    if open.broadcast != state.broadcast {
        state.renditions.clear();
    }
    if fresh || open.first_msn.0.saturating_sub(next.0) > MAX_HOLE {
        state.slots.clear();
        state.first_msn = next
            .max(Msn(open.first_msn.0.saturating_sub(u64::from(open.lead_gaps))))
            .min(open.first_msn)
            .max(state.first_msn);
    }
    (state.broadcast, state.airing) = (open.broadcast, open.airing);
    state.target_duration = open.target_duration;
    state.plan.clone_from(&open.plan);
    (state.opened, state.sealed, state.ended) = (true, false, false);
    let target = target_duration(state.target_duration);
    for slot in &mut state.slots {
        if let Some(duration) = unfinished_duration(slot, &state.renditions, target) {
            Arc::make_mut(slot).gap = Some(duration);
        }
    }
    fill_before_epoch(state, open, target);
    bound(state);
}

/// Lists the numbers between the newest segment and the epoch's first one as GAPs.
fn fill_before_epoch(state: &mut StreamState, open: &EpochOpen, target: MediaDuration) {
    let discontinuity = state.slots.back().map_or(open.discontinuity_sequence.0, |newest| {
        newest.discontinuity_sequence.0.max(open.discontinuity_sequence.0.saturating_sub(1))
    });
    for msn in next_msn(state).0..open.first_msn.0 {
        let before_open_ms = (open.first_msn.0 - msn) * target.as_millis();
        // Numbers may have been used up faster than time: the clock stands still rather than going back.
        let newest = state.slots.back().map_or(0, |slot| slot.program_date_time.0);
        let started = open.program_date_time.0.saturating_sub(before_open_ms).max(newest);
        state.slots.push_back(Arc::new(SegmentSlot {
            msn: Msn(msn),
            epoch: state.epoch,
            discontinuity_sequence: DiscontinuitySeq(discontinuity),
            program_date_time: UnixMillis(started),
            gap: Some(target),
            rendition_gaps: BTreeMap::new(),
            tracks: BTreeMap::new(),
        }));
    }
}

fn add_init(
    state: &mut StreamState,
    seq: FactSeq,
    rendition: &Rendition,
    version: InitVersion,
    info: &TrackInfo,
) {
    let (epoch, generation) = (state.epoch, state.generation);
    let entry = InitEntry { epoch, version, generation, seq, info: info.clone() };
    let inits = &mut state.renditions.entry(rendition.clone()).or_default().inits;
    match inits.iter_mut().find(|init| (init.epoch, init.version) == (epoch, version)) {
        Some(old) => *old = entry,
        None => inits.push(entry),
    }
}

fn slot_mut(state: &mut StreamState, msn: Msn) -> Option<&mut SegmentSlot> {
    let first = state.slots.front()?.msn;
    let index = usize::try_from(msn.0.checked_sub(first.0)?).ok()?;
    state.slots.get_mut(index).map(Arc::make_mut)
}

/// Returns the slot of `msn`, creating it and any that are missing below it; `None` when `msn` has left the window or
/// lies beyond the longest hole.
fn slot_at(
    state: &mut StreamState,
    msn: Msn,
    discontinuity_sequence: DiscontinuitySeq,
    program_date_time: UnixMillis,
) -> Option<&mut SegmentSlot> {
    if msn < state.first_msn {
        return None;
    }
    let start = state.slots.back().map_or(msn.0, |newest| newest.msn.0.saturating_add(1));
    if msn.0.saturating_sub(start) > MAX_HOLE {
        return None;
    }
    let (epoch, target) = (state.epoch, target_duration(state.target_duration));
    // GAPs may have been listed longer than they lasted: the clock stands still rather than going back.
    let newest = state.slots.back().map(|newest| newest.program_date_time);
    let program_date_time = Some(program_date_time).max(newest).unwrap_or(program_date_time);
    for number in start..=msn.0 {
        state.slots.push_back(Arc::new(SegmentSlot {
            msn: Msn(number),
            epoch,
            discontinuity_sequence,
            program_date_time,
            gap: (number < msn.0).then_some(target),
            rendition_gaps: BTreeMap::new(),
            tracks: BTreeMap::new(),
        }));
    }
    bound(state);
    slot_mut(state, msn)
}

fn add_part(state: &mut StreamState, seq: FactSeq, part: &Part) {
    let generation = state.generation;
    if has_ended(state, &part.rendition) {
        return;
    }
    let Some(slot) = slot_at(state, part.msn, part.discontinuity_sequence, part.program_date_time) else {
        return;
    };
    if is_gap_in(slot, &part.rendition) {
        return;
    }
    let track = track_mut(slot, &part.rendition, part.init_version);
    if track.segment.is_some() || part.part.0 as usize != track.parts.len() {
        return;
    }
    let Part { duration, independent, bytes, gap, last, .. } = *part;
    track.parts.push(PartEntry { generation, seq, duration, independent, bytes, gap, last });
}

fn track_mut<'a>(
    slot: &'a mut SegmentSlot,
    rendition: &Rendition,
    init_version: InitVersion,
) -> &'a mut RenditionSegment {
    slot.tracks.entry(rendition.clone()).or_insert_with(|| RenditionSegment {
        init_version,
        parts: Vec::new(),
        segment: None,
        stored: false,
    })
}

fn add_segment(state: &mut StreamState, seq: FactSeq, segment: &Segment) {
    let generation = state.generation;
    if has_ended(state, &segment.rendition) {
        return;
    }
    let Some(slot) = slot_at(state, segment.msn, segment.discontinuity_sequence, segment.program_date_time)
    else {
        return;
    };
    if is_gap_in(slot, &segment.rendition) {
        return;
    }
    let track = track_mut(slot, &segment.rendition, segment.init_version);
    if track.segment.as_ref().is_some_and(|old| old.generation >= generation) {
        return;
    }
    let Segment { duration, independent, bytes, parts, .. } = *segment;
    let known = track.segment.is_some();
    track.segment = Some(SegmentEntry { generation, seq, duration, independent, bytes, parts });
    track.stored = false;
    if !known {
        prune_parts(state);
    }
}

fn add_gap(state: &mut StreamState, gap: &Gap) {
    if let Some(slot) = slot_at(state, gap.msn, gap.discontinuity_sequence, gap.program_date_time) {
        slot.gap.get_or_insert(gap.duration);
        prune_parts(state);
    }
}

/// Declares a segment missing in one rendition: it was never completed, or its object was lost before it was stored. A
/// rendition that has not been described or has ended, and a stored segment, contradict it.
fn add_rendition_gap(state: &mut StreamState, gap: &RenditionGap) {
    if !state.renditions.contains_key(&gap.rendition) || has_ended(state, &gap.rendition) {
        return;
    }
    let Some(slot) = slot_at(state, gap.msn, gap.discontinuity_sequence, gap.program_date_time) else {
        return;
    };
    let is_stored = slot.tracks.get(&gap.rendition).is_some_and(|track| track.stored);
    if slot.gap.is_none() && !is_stored {
        slot.rendition_gaps.entry(gap.rendition.clone()).or_insert(gap.duration);
        prune_parts(state);
    }
}

/// Ends a rendition's listing after `last`, or after the newest segment it has listed if that is later. What it left open
/// becomes a GAP.
fn end_rendition(state: &mut StreamState, rendition: &Rendition, last: Msn) {
    let listed = listing_end(state, rendition).map(|end| end.msn);
    let newest = Msn(next_msn(state).0.saturating_sub(1));
    let last = last.min(newest).max(listed.unwrap_or_default());
    let first = state.slots.front().map_or(state.first_msn, |slot| slot.msn);
    let target = target_duration(state.target_duration);
    let Some(known) = state.renditions.get_mut(rendition).filter(|known| known.ended.is_none()) else {
        return;
    };
    known.ended = Some(RenditionSpan { first, last });
    for slot in state.slots.iter_mut().filter(|slot| slot.msn <= last) {
        if !is_closed_in(slot, rendition) {
            let parts = slot.tracks.get(rendition).and_then(parts_duration);
            let duration = parts.or_else(|| slot_duration(slot)).unwrap_or(target);
            Arc::make_mut(slot).rendition_gaps.insert(rendition.clone(), duration);
        }
    }
}

fn has_ended(state: &StreamState, rendition: &Rendition) -> bool {
    has_ended_before(&state.renditions, rendition, Msn(u64::MAX))
}

fn trim(state: &mut StreamState, first: Msn) {
    if first <= state.first_msn {
        return;
    }
    state.first_msn = first;
    while state.slots.front().is_some_and(|slot| slot.msn < first) {
        state.slots.pop_front();
    }
    for (name, RenditionState { inits, .. }) in &mut state.renditions {
        let newest = inits.last().map(|init| (init.epoch, init.version));
        inits.retain(|init| {
            let is_used = |slot: &Arc<SegmentSlot>| {
                let version = slot.tracks.get(name).map(|track| track.init_version);
                slot.epoch == init.epoch && version == Some(init.version)
            };
            Some((init.epoch, init.version)) == newest || state.slots.iter().any(is_used)
        });
    }
}

fn bound(state: &mut StreamState) {
    if state.slots.len() > MAX_SLOTS {
        let first = state.slots[state.slots.len() - MAX_SLOTS].msn;
        trim(state, first);
    }
}

/// Drops the parts of closed segments that playlists no longer list. What a rendition lists counts from its own end: one
/// that is encoded may be segments behind the others. The playlist of an ended rendition keeps its parts.
fn prune_parts(state: &mut StreamState) {
    let keep_ms = target_duration(state.target_duration).as_millis() * PARTS_KEPT;
    let StreamState { slots, renditions, .. } = state;
    for (name, _) in renditions.iter().filter(|(_, known)| known.ended.is_none()) {
        let mut newer_ms = 0;
        for slot in slots.iter_mut().rev() {
            if !is_closed_in(slot, name) {
                // A playlist ends with its open segment, although later ones may be known to be GAPs.
                newer_ms = 0;
                continue;
            }
            let is_closed =
                |track: &RenditionSegment| track.segment.is_some() || slot.rendition_gaps.contains_key(name);
            let has_parts = |track: &RenditionSegment| !track.parts.is_empty() && is_closed(track);
            let is_prunable = newer_ms > keep_ms && slot.tracks.get(name).is_some_and(has_parts);
            if is_prunable && let Some(track) = Arc::make_mut(slot).tracks.get_mut(name) {
                track.parts.clear();
            }
            newer_ms += slot_duration(slot).map_or(0, MediaDuration::as_millis);
        }
    }
}
