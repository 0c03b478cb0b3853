//! Control in a dead author's place: a log of an epoch of its own that ends the broadcast, or seals it and lets it grow
//! while the publisher is awaited.

use bytes::Bytes;
use std::sync::Arc;

use millrace_wire::fact::{Fact, Gap, MediaDuration, SegmentSlot, StreamState};
use millrace_wire::fragment::FragmentError;
use millrace_wire::ids::{Epoch, Generation, Msn, UnixMillis};
use millrace_wire::message::announce::{EpochAnnouncement, EpochPhase};
use millrace_wire::message::repair::{RepairReply, RepairRequest};

use crate::log::writer::{EncodedMessage, LogWriter};
use crate::state::apply::{self, slot_length};
use crate::state::checkpoint::is_closed;
use crate::{Machine, Millis};

/// Control's epochs have one author.
pub const GENERATION: Generation = Generation(1);

/// GAPs listed at most where numbers may have been used that nobody remembers: more than a store that was away leaves out.
const MAX_REACH: u64 = 256;

/// What control knows when it takes an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closing {
    /// The epoch.
    pub epoch: Epoch,
    /// The broadcast is over; else the publisher is awaited.
    pub over: bool,
    /// The highest number that may have been used.
    pub used: Msn,
    /// The time.
    pub wall: UnixMillis,
    /// Length of the window in seconds.
    pub window_s: u32,
}

/// The author of an epoch that control took for itself.
#[derive(Debug)]
pub struct OrphanLog {
    epoch: Epoch,
    window_s: u32,
    author: LogWriter,
}

/// What control hands to the machine of an orphaned log.
#[derive(Debug)]
pub enum Input {
    /// An announcement on `epoch.{stream}`, which any leading control may have published.
    Epoch(EpochAnnouncement),
    /// Nothing but time.
    Tick,
}

impl Machine for OrphanLog {
    type Input = Input;
    type Output = EncodedMessage;
    /// A fact could not be encoded: the log cannot go on.
    type Error = FragmentError;

    fn handle(&mut self, now: Millis, input: Input) -> Result<(), FragmentError> {
        if let Input::Epoch(announcement) = input {
            self.on_epoch(now, &announcement)?;
        }
        self.author.tick(now);
        Ok(())
    }

    fn handle_timeout(&mut self, now: Millis) -> Result<(), FragmentError> {
        self.handle(now, Input::Tick)
    }

    fn poll_output(&mut self) -> Option<EncodedMessage> {
        self.author.poll_output()
    }

    fn next_timeout(&self) -> Option<Millis> {
        self.author.next_timeout()
    }

    /// An orphaned log answers requests until its owner drops it: only control knows how long its epoch is announced.
    fn is_done(&self) -> bool {
        false
    }
}

impl OrphanLog {
    /// Opens the log on `base` and closes what is open there. Nothing is published before the epoch is recorded.
    pub fn open(
        now: Millis,
        closing: Closing,
        base: StreamState,
        max_payload: usize,
    ) -> Result<Self, FragmentError> {
        let Closing { epoch, over, used, wall, window_s } = closing;
        // Of a log that somebody remembers to its end, or that was closed, nothing more was shown.
        let known = base.generation > Generation(0) || is_closed(&base);
        let mut facts: Vec<_> = open_gaps(&base).collect();
        if !over || !known {
            facts.extend(missing_gaps(&base, sealed_through(&base, used), wall));
        }
        match over {
            true if base.ended => {}
            true => facts.push(Fact::End),
            false => facts.push(Fact::Seal { last: base.slots.back().map(|slot| slot.msn) }),
        }
        let author = LogWriter::open(now, (epoch, GENERATION), base, max_payload)?;
        let mut closer = Self { epoch, window_s, author };
        closer.say(now, facts)?;
        Ok(closer)
    }

    fn on_epoch(&mut self, now: Millis, told: &EpochAnnouncement) -> Result<(), FragmentError> {
        if told.epoch != self.epoch {
            return Ok(());
        }
        let facts = match told.phase {
            EpochPhase::Away { gaps_through: Some(through), .. } => {
                away_facts(self.author.view(), through, self.window_s)
            }
            EpochPhase::Ended => closing_facts(self.author.view()),
            EpochPhase::Open | EpochPhase::Away { .. } => Vec::new(),
        };
        self.say(now, facts)
    }

    fn say(&mut self, now: Millis, facts: Vec<Fact>) -> Result<(), FragmentError> {
        facts.into_iter().try_for_each(|fact| self.author.announce(now, &fact, Bytes::new()))
    }

    /// The log's state: the answer to a snapshot request, and what is put at rest.
    pub fn view(&self) -> &StreamState {
        self.author.view()
    }

    /// Takes a repair request from `ring.live`; gives the reply.
    pub fn repair(&mut self, now: Millis, request: &RepairRequest) -> RepairReply {
        self.author.repair(now, request)
    }
}

/// The facts that end the log of `view`: what nobody closed becomes a GAP, then ENDLIST.
fn closing_facts(view: &StreamState) -> Vec<Fact> {
    if view.ended {
        return Vec::new();
    }
    open_gaps(view).chain([Fact::End]).collect()
}

/// The last number of a log that is sealed while the publisher is awaited: `used`, unless that is out of reach; then the
/// window begins anew with the next epoch.
fn sealed_through(view: &StreamState, used: Msn) -> Msn {
    let last = view.slots.back().map_or(used, |slot| slot.msn);
    if used <= last.plus(MAX_REACH) { used.max(last) } else { last }
}

/// GAPs for the numbers up to `through`, over the time until now.
fn missing_gaps(view: &StreamState, through: Msn, now: UnixMillis) -> impl Iterator<Item = Fact> + use<> {
    let longest = target(view.target_duration);
    let missing = view.slots.back().map_or(0, |last| through.0.saturating_sub(last.msn.0));
    let each = share(now.0.saturating_sub(end(view, longest)), missing, longest);
    gaps_after(view, missing, each)
}

/// The facts that let a sealed log grow to `through`, a target duration each, and its window move.
fn away_facts(view: &StreamState, through: Msn, window_s: u32) -> Vec<Fact> {
    let Some(last) = view.slots.back().filter(|_| !view.ended) else { return Vec::new() };
    // A long silence of control leaves numbers out rather than listing them all.
    let missing = sealed_through(view, through).0.saturating_sub(last.msn.0);
    let mut facts: Vec<_> = gaps_after(view, missing, target(view.target_duration)).collect();
    let mut after = view.clone();
    for fact in &facts {
        apply::apply(&mut after, view.seq, fact);
    }
    facts.extend(apply::trim_to(&after, u64::from(window_s) * 1_000).map(|first| Fact::Trim { first }));
    facts
}

/// When the newest segment ends; one of unknown length lasts `longest`.
fn end(view: &StreamState, longest: MediaDuration) -> u64 {
    let of =
        |last: &Arc<SegmentSlot>| last.program_date_time.0 + slot_length(last).unwrap_or(longest).as_millis();
    view.slots.back().map_or(0, of)
}

/// `count` GAPs after the newest segment.
fn gaps_after(view: &StreamState, count: u64, each: MediaDuration) -> impl Iterator<Item = Fact> + use<> {
    let began = end(view, target(view.target_duration));
    let last = view.slots.back().map(|last| (last.msn, last.discontinuity_sequence));
    last.into_iter().flat_map(move |(msn, discontinuity_sequence)| {
        (0..count).map(move |n| {
            Fact::Gap(Gap {
                msn: msn.plus(n + 1),
                duration: each,
                discontinuity_sequence,
                program_date_time: UnixMillis(began + n * each.as_millis()),
            })
        })
    })
}

/// A GAP for each number that nobody closed.
fn open_gaps(view: &StreamState) -> impl Iterator<Item = Fact> {
    let open = |slot: &&Arc<SegmentSlot>| {
        let closed = |r| slot.tracks.get(r).is_some_and(|t| t.segment.is_some());
        slot.gap.is_none() && (slot.tracks.is_empty() || !view.renditions.keys().all(closed))
    };
    let gap = |slot: &Arc<SegmentSlot>| {
        Fact::Gap(Gap {
            msn: slot.msn,
            duration: slot_length(slot).unwrap_or(target(view.target_duration)),
            discontinuity_sequence: slot.discontinuity_sequence,
            program_date_time: slot.program_date_time,
        })
    };
    view.slots.iter().filter(open).map(gap)
}

/// TARGETDURATION as a length.
pub fn target(seconds: u32) -> MediaDuration {
    MediaDuration { ticks: u64::from(seconds.max(1)), timescale: 1 }
}

/// How long each of `count` segments is that share `ms`: at most `longest`.
pub fn share(ms: u64, count: u64, longest: MediaDuration) -> MediaDuration {
    MediaDuration::from_millis((ms / count.max(1)).clamp(1, longest.as_millis()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use millrace_wire::fact::{RenditionSegment, RenditionState, SegmentEntry};
    use millrace_wire::ids::{BroadcastId, DiscontinuitySeq, FactSeq, InitVersion, Rendition};

    use super::*;

    /// Segments 0 to 4 of 2 s each from wall clock 0 on.
    fn state() -> StreamState {
        let mut state = apply::empty(BroadcastId::from_u128(1));
        (state.target_duration, state.epoch) = (4, Epoch(1));
        state.renditions.insert(Rendition::video(), RenditionState::default());
        for n in 0..5 {
            let segment = SegmentEntry {
                generation: GENERATION,
                seq: FactSeq(0),
                duration: MediaDuration::from_millis(2_000),
                independent: true,
                bytes: 1,
                parts: 0,
            };
            let init_version = InitVersion(0);
            let track =
                RenditionSegment { init_version, parts: vec![], segment: Some(segment), stored: true };
            state.slots.push_back(Arc::new(SegmentSlot {
                msn: Msn(n),
                epoch: Epoch(1),
                discontinuity_sequence: DiscontinuitySeq(0),
                program_date_time: UnixMillis(n * 2_000),
                gap: None,
                tracks: BTreeMap::from([(Rendition::video(), track)]),
            }));
        }
        state
    }

    fn closer(state: &StreamState, over: bool, used: u64) -> OrphanLog {
        let wall = UnixMillis(16_000);
        let closing = Closing { epoch: Epoch(9), over, used: Msn(used), wall, window_s: 20 };
        OrphanLog::open(Millis(0), closing, state.clone(), 1 << 16).unwrap()
    }

    fn gaps(view: &StreamState) -> Vec<(u64, u64, u64)> {
        let of = |s: &Arc<SegmentSlot>| Some((s.msn.0, s.program_date_time.0, s.gap?.as_millis()));
        view.slots.iter().filter_map(of).collect()
    }

    #[test]
    fn a_sealed_log_lists_what_was_used_and_then_grows() {
        // 6 s of absence for 4 numbers.
        let mut closer = closer(&state(), false, 8);
        assert!(closer.view().sealed);
        let listed = [(5, 10_000, 1_500), (6, 11_500, 1_500), (7, 13_000, 1_500), (8, 14_500, 1_500)];
        assert_eq!(gaps(closer.view()), listed);
        let mut told = EpochAnnouncement {
            stream: millrace_wire::ids::StreamId::from_u128(1),
            playback: "00112233445566778899aabbccddeeff".parse().unwrap(),
            broadcast: BroadcastId::from_u128(1),
            epoch: Epoch(9),
            session: None,
            phase: EpochPhase::Away {
                gaps_through: Some(Msn(11)),
                discontinuity_sequence: DiscontinuitySeq(0),
            },
        };
        for _ in 0..2 {
            closer.handle(Millis(1), Input::Epoch(told.clone())).unwrap();
            let listed = [(9, 16_000, 4_000), (10, 20_000, 4_000), (11, 24_000, 4_000)];
            assert_eq!(gaps(closer.view())[4..], listed);
        }
        assert!(closer.view().first_msn > Msn(0), "the window moves");
        told.phase = EpochPhase::Ended;
        closer.handle(Millis(2), Input::Epoch(told.clone())).unwrap();
        let seq = closer.view().seq;
        closer.handle(Millis(3), Input::Epoch(told)).unwrap();
        assert!(closer.view().ended && closer.view().seq == seq, "said once");
    }

    #[test]
    fn what_is_out_of_reach_is_not_listed() {
        let closer = closer(&state(), false, 400);
        assert!(closer.view().sealed && gaps(closer.view()).is_empty());
    }

    #[test]
    fn an_end_lists_what_nobody_remembers() {
        let rest = state();
        assert_eq!(gaps(closer(&rest, true, 6).view()).len(), 2);
        let remembered = StreamState { generation: Generation(2), ..rest.clone() };
        let sealed = StreamState { sealed: true, ..rest.clone() };
        for (known, facts) in [(remembered, 1), (sealed, 1), (StreamState { ended: true, ..rest }, 0)] {
            let closer = closer(&known, true, 6);
            assert!(closer.view().ended && gaps(closer.view()).is_empty());
            assert_eq!(closer.view().seq, FactSeq(facts));
        }
    }
}
