//! What control's own log says when it closes a log whose author is gone: the newest state somebody still has, or one
//! rebuilt from the segment index. Pure rules, no I/O.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use millrace_cluster::view;
use millrace_media::sample::TrackConfig;
use millrace_wire::announce::IndexFact;
use millrace_wire::control_api::StreamSettings;
use millrace_wire::fact::{
    Fact, Gap, InitEntry, MAX_SLOTS, MediaDuration, RenditionState, SegmentEntry, Slot, Snapshot, TrackInfo,
    TrackMedia, TrackSlot,
};
use millrace_wire::ids::{
    BroadcastId, Epoch, FactSeq, Generation, InitVersion, Msn, Rendition, StreamId, UnixMillis,
};

/// The newest of the states that belong to the broadcast; one that lists nothing is none.
pub fn newest(
    snapshots: impl IntoIterator<Item = Snapshot>,
    broadcast: BroadcastId,
    upto: Epoch,
) -> Option<Snapshot> {
    let ours = |s: &Snapshot| s.broadcast == broadcast && s.epoch <= upto && (s.ended || !s.slots.is_empty());
    let rank = |s: &Snapshot| (s.epoch, s.generation, s.seq);
    snapshots.into_iter().filter(ours).max_by_key(rank)
}

/// The facts that end the log of `view`: what nobody closed becomes a GAP, then ENDLIST.
pub fn closing_facts(view: &Snapshot) -> Vec<Fact> {
    if view.ended {
        return Vec::new();
    }
    open_gaps(view).chain([Fact::End]).collect()
}

/// The last number of a log that is sealed while the publisher is awaited: `used`, unless that is out of reach; then the
/// window begins anew with the next epoch.
pub fn sealed_through(view: &Snapshot, used: Msn) -> Msn {
    let last = view.slots.back().map_or(used, |slot| slot.msn);
    if used <= last.plus(view::MAX_HOLE) { used.max(last) } else { last }
}

/// The facts that seal the log of `view` while the publisher is awaited: what nobody closed becomes a GAP, and so do the
/// numbers up to `through`, over the time until now.
pub fn sealing_facts(view: &Snapshot, through: Msn, now: UnixMillis) -> Vec<Fact> {
    let mut facts: Vec<_> = open_gaps(view).collect();
    if let Some(last) = view.slots.back() {
        let longest = target(view.target_duration);
        let began = last.program_date_time.0 + length(last).unwrap_or(longest).as_millis();
        let missing = through.0.saturating_sub(last.msn.0);
        let each = share(now.0.saturating_sub(began), missing, longest);
        facts.extend((1..=missing).map(|n| {
            Fact::Gap(Gap {
                msn: last.msn.plus(n),
                duration: each,
                discontinuity_sequence: last.discontinuity_sequence,
                program_date_time: UnixMillis(began + (n - 1) * each.as_millis()),
            })
        }));
    }
    facts.push(Fact::Seal { last: Some(through) });
    facts
}

/// The facts that let a sealed log grow to `through`, a target duration each, and its window move.
pub fn away_facts(view: &Snapshot, through: Msn, window_s: u32) -> Vec<Fact> {
    let Some(last) = view.slots.back().filter(|_| !view.ended) else { return Vec::new() };
    let duration = target(view.target_duration);
    // A long silence of control leaves numbers out rather than listing them all.
    let through = sealed_through(view, through);
    let began = last.program_date_time.0 + length(last).unwrap_or(duration).as_millis();
    let gap = |n: u64| {
        Fact::Gap(Gap {
            msn: last.msn.plus(n),
            duration,
            discontinuity_sequence: last.discontinuity_sequence,
            program_date_time: UnixMillis(began + (n - 1) * duration.as_millis()),
        })
    };
    let mut facts: Vec<_> = (1..=through.0.saturating_sub(last.msn.0)).map(gap).collect();
    let mut after = view.clone();
    for fact in &facts {
        view::apply(&mut after, view.seq, fact);
    }
    facts.extend(view::trim_to(&after, u64::from(window_s) * 1_000).map(|first| Fact::Trim { first }));
    facts
}

/// A GAP for each number that nobody closed.
fn open_gaps(view: &Snapshot) -> impl Iterator<Item = Fact> {
    let open = |slot: &&Slot| {
        let closed = |r| slot.tracks.get(r).is_some_and(|t| t.segment.is_some());
        slot.gap.is_none() && (slot.tracks.is_empty() || !view.renditions.keys().all(closed))
    };
    let gap = |slot: &Slot| {
        Fact::Gap(Gap {
            msn: slot.msn,
            duration: length(slot).unwrap_or(target(view.target_duration)),
            discontinuity_sequence: slot.discontinuity_sequence,
            program_date_time: slot.program_date_time,
        })
    };
    view.slots.iter().filter(open).map(gap)
}

fn target(seconds: u32) -> MediaDuration {
    MediaDuration { ticks: u64::from(seconds.max(1)), timescale: 1 }
}

/// How long a slot lasts: its longest complete track, else the parts it has.
fn length(slot: &Slot) -> Option<MediaDuration> {
    view::slot_duration(slot).or_else(|| {
        let parts = slot.tracks.values().filter_map(|track| {
            let timescale = track.parts.first()?.duration.timescale;
            let ticks = track.parts.iter().map(|part| part.duration.ticks).sum();
            Some(MediaDuration { ticks, timescale })
        });
        parts.filter(|length| length.ticks > 0).max_by_key(|length| length.as_millis())
    })
}

/// Builds a state from index entries, handed in one by one in the order of their keys. Bounded: it keeps the newest
/// [`MAX_SLOTS`] numbers.
#[derive(Debug)]
pub struct Rebuild {
    stream: StreamId,
    broadcast: BroadcastId,
    slots: BTreeMap<Msn, Slot>,
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
        let fresh = || Slot {
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
        let track = TrackSlot {
            init_version: segment.init_version,
            parts: Vec::new(),
            segment: Some(entry),
            committed: true,
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
        let mut state = view::empty(self.broadcast);
        (state.epoch, state.opened, state.sealed) = (epoch, true, true);
        state.target_duration = settings.target_duration;
        state.slots = self.contiguous(target(settings.target_duration));
        state.first_msn = state.slots.front()?.msn;
        state.renditions = state
            .slots
            .iter()
            .flat_map(|slot| slot.tracks.keys().map(|r| (r.clone(), RenditionState::default())))
            .collect();
        if let Some(first) = view::trim_to(&state, u64::from(settings.window) * 1_000) {
            view::apply(&mut state, FactSeq(0), &Fact::Trim { first });
        }
        Some(Rebuilt { state, peaks: self.peaks })
    }

    /// The newest run of numbers, short holes filled with GAPs.
    fn contiguous(&mut self, gap: MediaDuration) -> VecDeque<Slot> {
        let mut run: VecDeque<Slot> = VecDeque::new();
        for slot in std::mem::take(&mut self.slots).into_values().rev() {
            if let Some(next) = run.front().cloned() {
                let missing = next.msn.0 - slot.msn.0 - 1;
                if missing > view::MAX_HOLE {
                    break;
                }
                let gap = between(&slot, &next, missing, gap);
                for back in 1..=missing {
                    let before = next.program_date_time.0.saturating_sub(back * gap.as_millis());
                    run.push_front(Slot {
                        msn: Msn(next.msn.0 - back),
                        program_date_time: UnixMillis(before),
                        gap: Some(gap),
                        tracks: BTreeMap::new(),
                        ..next.clone()
                    });
                }
            }
            run.push_front(slot);
        }
        run
    }
}

/// How long each of `missing` segments between two is: what the clock says, at most `longest`.
fn between(before: &Slot, after: &Slot, missing: u64, longest: MediaDuration) -> MediaDuration {
    let end = before.program_date_time.0 + length(before).map_or(0, MediaDuration::as_millis);
    share(after.program_date_time.0.saturating_sub(end), missing, longest)
}

/// How long each of `count` segments is that share `ms`: at most `longest`.
fn share(ms: u64, count: u64, longest: MediaDuration) -> MediaDuration {
    MediaDuration::from_millis((ms / count.max(1)).clamp(1, longest.as_millis()))
}

/// A state from the index, still without what the initialisation sections say.
#[derive(Debug)]
pub struct Rebuilt {
    state: Snapshot,
    peaks: BTreeMap<Rendition, u64>,
}

impl Rebuilt {
    /// The initialisation sections the state needs, oldest first within a rendition.
    pub fn inits(&self) -> BTreeSet<(Rendition, Epoch, InitVersion)> {
        let used = |slot: &Slot| {
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
    pub fn into_state(self) -> Snapshot {
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
            codecs: video.codec.clone(),
            bandwidth,
            timescale: 90_000,
        },
        TrackConfig::Audio(audio) => TrackInfo {
            media: TrackMedia::Audio { channels: audio.channels, sample_rate: audio.rate },
            codecs: audio.codec.clone(),
            bandwidth,
            timescale: audio.rate,
        },
    }
}

#[cfg(test)]
#[path = "ending_tests.rs"]
mod tests;
