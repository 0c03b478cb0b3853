//! The state of a broadcast whose log is gone: the newest one that a follower still has, or one rebuilt from the segment
//! index. Control builds its own log of the broadcast on it (see [`crate::takeover`]).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use millrace_wire::fact::{
    Fact, InitEntry, MAX_SLOTS, MediaDuration, RenditionSegment, RenditionState, SegmentEntry, SegmentSlot,
    StreamState, TrackInfo,
};
use millrace_wire::ids::{
    Airing, BroadcastId, Epoch, FactSeq, Generation, InitVersion, Msn, Rendition, StreamId, UnixMillis,
};
use millrace_wire::message::announce::IndexFact;
use millrace_wire::message::control::StreamSettings;

use crate::state::apply;
use crate::state::gaps::{MAX_HOLE, share};
use crate::state::position::Position;
use crate::state::query::{known_duration, slot_duration, target_duration, window_start};

/// Returns the newest of the states that belong to `broadcast` and to no epoch after `last_epoch`. A state that lists no
/// segment is left out, unless the broadcast has ended in it.
pub fn newest_state(
    states: impl IntoIterator<Item = StreamState>,
    broadcast: BroadcastId,
    last_epoch: Epoch,
) -> Option<StreamState> {
    let belongs = |state: &StreamState| {
        let is_empty = state.slots.is_empty() && !state.ended;
        state.broadcast == broadcast && state.epoch <= last_epoch && !is_empty
    };
    states.into_iter().filter(belongs).max_by_key(Position::of)
}

/// Builds a state from entries of the segment index, handed in one by one in the order of their keys. It keeps the newest
/// [`MAX_SLOTS`] numbers, however long the recording is.
#[derive(Debug)]
pub struct Rebuild {
    stream: StreamId,
    broadcast: BroadcastId,
    airing: Airing,
    slots: BTreeMap<Msn, SegmentSlot>,
    /// The lowest number that is still kept.
    lowest: Msn,
    /// Bits per second of each rendition's heaviest segment.
    peaks: BTreeMap<Rendition, u64>,
}

impl Rebuild {
    /// Creates a rebuild of `broadcast` without entries.
    pub fn new(stream: StreamId, (broadcast, airing): (BroadcastId, Airing)) -> Self {
        Self { stream, broadcast, airing, slots: BTreeMap::new(), lowest: Msn(0), peaks: BTreeMap::new() }
    }

    /// Adds an entry of the index; one of another broadcast is left out.
    pub fn add(&mut self, fact: IndexFact) {
        let IndexFact { stream, broadcast, epoch, generation, segment } = fact;
        if (stream, broadcast) != (self.stream, self.broadcast) || segment.msn < self.lowest {
            return;
        }
        let new_slot = || SegmentSlot {
            msn: segment.msn,
            epoch,
            discontinuity_sequence: segment.discontinuity_sequence,
            program_date_time: segment.program_date_time,
            gap: None,
            rendition_gaps: BTreeMap::new(),
            tracks: BTreeMap::new(),
        };
        let slot = self.slots.entry(segment.msn).or_insert_with(new_slot);
        if slot.epoch < epoch {
            *slot = new_slot();
        } else if slot.epoch > epoch {
            return;
        }
        let bit_rate = segment.bytes.saturating_mul(8_000) / segment.duration.as_millis().max(1);
        let peak = self.peaks.entry(segment.rendition.clone()).or_default();
        *peak = bit_rate.max(*peak);
        let entry = SegmentEntry {
            generation,
            seq: FactSeq(0),
            duration: segment.duration,
            independent: segment.independent,
            bytes: segment.bytes,
            parts: segment.parts,
        };
        let track = RenditionSegment {
            init_version: segment.init_version,
            parts: Vec::new(),
            segment: Some(entry),
            stored: true,
        };
        slot.tracks.insert(segment.rendition, track);
        while self.slots.len() > MAX_SLOTS
            && let Some((msn, _)) = self.slots.pop_first()
        {
            self.lowest = msn.next();
        }
    }

    /// Returns the state of the newest window; `None` if the index had no entry of the broadcast.
    pub fn finish(mut self, settings: &StreamSettings) -> Option<Rebuilt> {
        let epoch = self.slots.last_key_value()?.1.epoch;
        let mut state = apply::empty(self.broadcast);
        (state.epoch, state.opened, state.sealed) = (epoch, true, true);
        state.airing = self.airing;
        state.target_duration = settings.target_duration;
        state.slots = self.newest_run(target_duration(settings.target_duration));
        state.first_msn = state.slots.front()?.msn;
        state.renditions = state
            .slots
            .iter()
            .flat_map(|slot| slot.tracks.keys().map(|name| (name.clone(), RenditionState::default())))
            .collect();
        list_rendition_gaps(&mut state);
        if let Some(first) = window_start(&state, u64::from(settings.window_s()) * 1_000) {
            apply::apply(&mut state, FactSeq(0), &Fact::Trim { first });
        }
        Some(Rebuilt { state, peaks: self.peaks })
    }

    /// Returns the newest run of numbers, with short holes filled with GAPs.
    fn newest_run(&mut self, target: MediaDuration) -> VecDeque<Arc<SegmentSlot>> {
        let mut run: VecDeque<Arc<SegmentSlot>> = VecDeque::new();
        for slot in std::mem::take(&mut self.slots).into_values().rev() {
            if let Some(next) = run.front().cloned() {
                let missing = next.msn.0 - slot.msn.0 - 1;
                if missing > MAX_HOLE {
                    break;
                }
                let each = duration_between(&slot, &next, missing, target);
                for back in 1..=missing {
                    let start = next.program_date_time.0.saturating_sub(back * each.as_millis());
                    run.push_front(Arc::new(SegmentSlot {
                        msn: Msn(next.msn.0 - back),
                        program_date_time: UnixMillis(start),
                        gap: Some(each),
                        tracks: BTreeMap::new(),
                        ..SegmentSlot::clone(&next)
                    }));
                }
            }
            run.push_front(Arc::new(slot));
        }
        run
    }
}

/// Lists as GAP what a rendition lacks between two segments that it has: it failed for a while.
fn list_rendition_gaps(state: &mut StreamState) {
    for name in state.renditions.keys() {
        let newest =
            state.slots.iter().rev().find(|slot| slot.tracks.contains_key(name)).map(|slot| slot.msn);
        let has_begun = |slot: &Arc<SegmentSlot>| slot.tracks.contains_key(name);
        let Some(first) = state.slots.iter().find(|slot| has_begun(slot)).map(|slot| slot.msn) else {
            continue;
        };
        for slot in state.slots.iter_mut().filter(|slot| slot.msn > first && Some(slot.msn) < newest) {
            if !slot.tracks.contains_key(name)
                && slot.gap.is_none()
                && let Some(duration) = slot_duration(slot)
            {
                Arc::make_mut(slot).rendition_gaps.insert(name.clone(), duration);
            }
        }
    }
}

/// Returns how long each of `missing` segments between two others lasts: their share of the time between, at most
/// `longest`.
fn duration_between(
    before: &SegmentSlot,
    after: &SegmentSlot,
    missing: u64,
    longest: MediaDuration,
) -> MediaDuration {
    let end = before.program_date_time.0 + known_duration(before).map_or(0, MediaDuration::as_millis);
    share(after.program_date_time.0.saturating_sub(end), missing, longest)
}

/// A state from the index that still lacks the descriptions of its initialisation sections.
#[derive(Debug)]
pub struct Rebuilt {
    state: StreamState,
    peaks: BTreeMap<Rendition, u64>,
}

impl Rebuilt {
    /// Returns the initialisation sections that the state needs, oldest first within a rendition.
    pub fn inits(&self) -> BTreeSet<(Rendition, Epoch, InitVersion)> {
        let mut inits = BTreeSet::new();
        for slot in &self.state.slots {
            inits.extend(
                slot.tracks.iter().map(|(name, track)| (name.clone(), slot.epoch, track.init_version)),
            );
        }
        inits
    }

    /// Adds the description of an initialisation section; to be called in the order of [`Rebuilt::inits`]. The bandwidth is
    /// measured from the index: a section does not state it.
    pub fn describe(
        &mut self,
        rendition: &Rendition,
        (epoch, version): (Epoch, InitVersion),
        info: TrackInfo,
    ) {
        let bandwidth = self.peaks.get(rendition).copied().unwrap_or_default().max(1);
        let info = TrackInfo { bandwidth, ..info };
        let entry = InitEntry { epoch, version, generation: Generation(0), seq: FactSeq(0), info };
        self.state.renditions.entry(rendition.clone()).or_default().inits.push(entry);
    }

    /// Returns the state to build a log on.
    pub fn into_state(self) -> StreamState {
        self.state
    }
}

#[cfg(test)]
#[path = "rebuild_tests.rs"]
mod tests;
