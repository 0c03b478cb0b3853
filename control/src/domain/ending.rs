//! What control builds on when it closes a log whose author is gone: the newest state somebody still has, or one
//! rebuilt from the segment index. Pure rules, no I/O.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use millrace_media::frame::TrackConfig;
use millrace_protocol::state::apply::{self, slot_length};
use millrace_protocol::takeover::{share, target};
use millrace_wire::fact::{
    Fact, InitEntry, MAX_SLOTS, MediaDuration, RenditionSegment, RenditionState, SegmentEntry, SegmentSlot,
    StreamState, TrackInfo, TrackMedia,
};
use millrace_wire::ids::{
    BroadcastId, Epoch, FactSeq, Generation, InitVersion, Msn, Rendition, StreamId, UnixMillis,
};
use millrace_wire::message::announce::IndexFact;
use millrace_wire::message::control::StreamSettings;

/// The newest of the states that belong to the broadcast; one that lists nothing is none.
pub fn newest(
    snapshots: impl IntoIterator<Item = StreamState>,
    broadcast: BroadcastId,
    upto: Epoch,
) -> Option<StreamState> {
    let ours =
        |s: &StreamState| s.broadcast == broadcast && s.epoch <= upto && (s.ended || !s.slots.is_empty());
    let rank = |s: &StreamState| (s.epoch, s.generation, s.seq);
    snapshots.into_iter().filter(ours).max_by_key(rank)
}

/// Builds a state from index entries, handed in one by one in the order of their keys. Bounded: it keeps the newest
/// [`MAX_SLOTS`] numbers.
#[derive(Debug)]
pub struct Rebuild {
    stream: StreamId,
    broadcast: BroadcastId,
    slots: BTreeMap<Msn, SegmentSlot>,
    floor: Msn,
    /// Bits per second of the heaviest segment.
    peaks: BTreeMap<Rendition, u64>,
}

impl Rebuild {
    /// Nothing yet.
    pub fn new(stream: StreamId, broadcast: BroadcastId) -> Self {
        Self { stream, broadcast, slots: BTreeMap::new(), floor: Msn(0), peaks: BTreeMap::new() }
    }

    /// Takes an entry; those of another airing are left out.
    pub fn add(&mut self, fact: IndexFact) {
        let IndexFact { stream, broadcast, epoch, generation, segment } = fact;
        if (stream, broadcast) != (self.stream, self.broadcast) || segment.msn < self.floor {
            return;
        }
        let fresh = || SegmentSlot {
            msn: segment.msn,
            epoch,
            discontinuity_sequence: segment.discontinuity_sequence,
            program_date_time: segment.program_date_time,
            gap: None,
            tracks: BTreeMap::new(),
        };
        let slot = self.slots.entry(segment.msn).or_insert_with(fresh);
        if slot.epoch < epoch {
            *slot = fresh();
        } else if slot.epoch > epoch {
            return;
        }
        let bits = segment.bytes.saturating_mul(8_000) / segment.duration.as_millis().max(1);
        let peak = self.peaks.entry(segment.rendition.clone()).or_default();
        *peak = bits.max(*peak);
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
            self.floor = msn.next();
        }
    }

    /// The state, with the window's length of segments; `None` when the index has nothing.
    pub fn finish(mut self, settings: &StreamSettings) -> Option<Rebuilt> {
        let epoch = self.slots.last_key_value()?.1.epoch;
        let mut state = apply::empty(self.broadcast);
        (state.epoch, state.opened, state.sealed) = (epoch, true, true);
        state.target_duration = settings.target_duration;
        state.slots = self.contiguous(target(settings.target_duration));
        state.first_msn = state.slots.front()?.msn;
        state.renditions = state
            .slots
            .iter()
            .flat_map(|slot| slot.tracks.keys().map(|r| (r.clone(), RenditionState::default())))
            .collect();
        if let Some(first) = apply::trim_to(&state, u64::from(settings.window) * 1_000) {
            apply::apply(&mut state, FactSeq(0), &Fact::Trim { first });
        }
        Some(Rebuilt { state, peaks: self.peaks })
    }

    /// The newest run of numbers, short holes filled with GAPs.
    fn contiguous(&mut self, gap: MediaDuration) -> VecDeque<Arc<SegmentSlot>> {
        let mut run: VecDeque<Arc<SegmentSlot>> = VecDeque::new();
        for slot in std::mem::take(&mut self.slots).into_values().rev() {
            if let Some(next) = run.front().cloned() {
                let missing = next.msn.0 - slot.msn.0 - 1;
                if missing > apply::MAX_HOLE {
                    break;
                }
                let gap = between(&slot, &next, missing, gap);
                for back in 1..=missing {
                    let before = next.program_date_time.0.saturating_sub(back * gap.as_millis());
                    run.push_front(Arc::new(SegmentSlot {
                        msn: Msn(next.msn.0 - back),
                        program_date_time: UnixMillis(before),
                        gap: Some(gap),
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

/// How long each of `missing` segments between two is: what the clock says, at most `longest`.
fn between(before: &SegmentSlot, after: &SegmentSlot, missing: u64, longest: MediaDuration) -> MediaDuration {
    let end = before.program_date_time.0 + slot_length(before).map_or(0, MediaDuration::as_millis);
    share(after.program_date_time.0.saturating_sub(end), missing, longest)
}

/// A state from the index, still without what the initialisation sections say.
#[derive(Debug)]
pub struct Rebuilt {
    state: StreamState,
    peaks: BTreeMap<Rendition, u64>,
}

impl Rebuilt {
    /// The initialisation sections the state needs, oldest first within a rendition.
    pub fn inits(&self) -> BTreeSet<(Rendition, Epoch, InitVersion)> {
        let used = |slot: &Arc<SegmentSlot>| {
            let epoch = slot.epoch;
            slot.tracks.iter().map(move |(r, t)| (r.clone(), epoch, t.init_version)).collect::<Vec<_>>()
        };
        self.state.slots.iter().flat_map(used).collect()
    }

    /// Adds what an initialisation section says; to be called in the order of [`Rebuilt::inits`].
    pub fn describe(&mut self, rendition: &Rendition, at: (Epoch, InitVersion), config: &TrackConfig) {
        let bandwidth = self.peaks.get(rendition).copied().unwrap_or_default().max(1);
        let info = info(config, bandwidth);
        let (epoch, version) = at;
        let entry = InitEntry { epoch, version, generation: Generation(0), seq: FactSeq(0), info };
        self.state.renditions.entry(rendition.clone()).or_default().inits.push(entry);
    }

    /// The state to build on.
    pub fn into_state(self) -> StreamState {
        self.state
    }
}

fn info(config: &TrackConfig, bandwidth: u64) -> TrackInfo {
    match config {
        TrackConfig::Video(video) => TrackInfo {
            media: TrackMedia::Video {
                width: video.width,
                height: video.height,
                frame_rate_milli: video.frame_rate.map(|(ticks, per)| {
                    let milli = u64::from(ticks) * 1_000 / u64::from(per.max(1));
                    u32::try_from(milli).unwrap_or(u32::MAX)
                }),
            },
            codecs: video.codecs.clone(),
            bandwidth,
            timescale: 90_000,
        },
        TrackConfig::Audio(audio) => TrackInfo {
            media: TrackMedia::Audio { channels: audio.channels, sample_rate: audio.rate },
            codecs: audio.codecs.clone(),
            bandwidth,
            timescale: audio.rate,
        },
    }
}

#[cfg(test)]
#[path = "ending_tests.rs"]
mod tests;
