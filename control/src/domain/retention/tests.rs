//! The rules of retention, against playlists as viewers may hold them.

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_protocol::state::apply::{self, empty};
use millrace_protocol::state::checkpoint::checkpoint_of;
use millrace_protocol::state::query::window_start;
use millrace_wire::fact::{Fact, RenditionSegment, RenditionState, Segment, SegmentEntry, SegmentSlot};
use millrace_wire::ids::{BroadcastId, DiscontinuitySeq, FactSeq, Generation, UnixMillis};
use proptest::prelude::*;

use super::*;

const FIRST: u64 = 1_700_000_000;

fn settings() -> StreamSettings {
    StreamSettings { window: 20, target_duration: 2, ..StreamSettings::default() }
}

/// One segment of the simulated stream.
#[derive(Debug, Clone, Copy)]
struct Step {
    duration_ms: u64,
    gap: bool,
    next_epoch: bool,
}

fn segment(msn: u64, duration_ms: u64, init: u32) -> Segment {
    Segment {
        rendition: Rendition::video(),
        msn: Msn(msn),
        parts: 1,
        duration: MediaDuration::from_millis(duration_ms),
        independent: true,
        bytes: 1_000,
        discontinuity_sequence: DiscontinuitySeq(0),
        program_date_time: UnixMillis(msn * 2_000),
        init_version: InitVersion(init),
    }
}

fn fact(epoch: u64, msn: u64, duration_ms: u64, init: u32) -> IndexFact {
    IndexFact {
        stream: StreamId::from_u128(1),
        broadcast: BroadcastId::from_u128(1),
        epoch: Epoch(epoch),
        generation: Generation(1),
        segment: segment(msn, duration_ms, init),
    }
}

fn slot(epoch: u64, msn: u64, step: Step) -> SegmentSlot {
    let duration = MediaDuration::from_millis(step.duration_ms);
    let entry = SegmentEntry {
        generation: Generation(1),
        seq: FactSeq(1),
        duration,
        independent: true,
        bytes: 1_000,
        parts: 1,
    };
    let track =
        RenditionSegment { init_version: InitVersion(0), parts: vec![], segment: Some(entry), stored: true };
    let tracks = if step.gap { BTreeMap::new() } else { BTreeMap::from([(Rendition::video(), track)]) };
    SegmentSlot {
        msn: Msn(msn),
        epoch: Epoch(epoch),
        discontinuity_sequence: DiscontinuitySeq(0),
        program_date_time: UnixMillis(msn * 2_000),
        gap: step.gap.then_some(duration),
        rendition_gaps: BTreeMap::new(),
        tracks,
    }
}

/// A log writer's state, its index and the playlists shown so far, each with the playing time at which it was current.
struct Stream {
    view: StreamState,
    index: Vec<IndexFact>,
    shown: Vec<(u64, Vec<Msn>)>,
    played_ms: u64,
    epoch: u64,
}

impl Stream {
    fn new() -> Self {
        let mut view = empty(BroadcastId::from_u128(1));
        view.renditions.insert(Rendition::video(), RenditionState::default());
        (view.target_duration, view.first_msn, view.opened) = (2, Msn(FIRST), true);
        Self { view, index: Vec::new(), shown: Vec::new(), played_ms: 0, epoch: 1 }
    }

    fn append(&mut self, step: Step) {
        self.epoch += u64::from(step.next_epoch);
        let msn = self.view.slots.back().map_or(FIRST, |slot| slot.msn.0 + 1);
        if !step.gap {
            self.index.push(fact(self.epoch, msn, step.duration_ms, 0));
        }
        self.view.epoch = Epoch(self.epoch);
        self.view.slots.push_back(Arc::new(slot(self.epoch, msn, step)));
        self.played_ms += step.duration_ms;
        if let Some(first) = window_start(&self.view, u64::from(settings().window) * 1_000) {
            apply::apply(&mut self.view, FactSeq(0), &Fact::Trim { first });
        }
        self.shown.push((self.played_ms, self.view.slots.iter().map(|slot| slot.msn).collect()));
    }

    fn checkpoint(&self) -> StreamState {
        checkpoint_of(&self.view, &BTreeSet::new(), settings().window)
    }

    /// Deletes what the scan of the index finds, and returns it.
    fn sweep(&mut self, settled: bool) -> Vec<Msn> {
        let horizon = Horizon::new(&self.checkpoint(), &settings(), settled);
        let mut scan = ExpiryScan::new(&horizon, Rendition::video());
        for fact in &self.index {
            if !scan.push(fact.clone()) {
                break;
            }
        }
        let expired: Vec<Msn> = scan.expired().iter().map(|fact| fact.segment.msn).collect();
        self.index.retain(|fact| !expired.contains(&fact.segment.msn));
        expired
    }
}

fn step() -> impl Strategy<Value = Step> {
    (
        prop_oneof![9 => 2_000_u64..4_000, 1 => 40_u64..2_000],
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.1),
    )
        .prop_map(|(duration_ms, gap, next_epoch)| Step { duration_ms, gap, next_epoch })
}

proptest! {
    #[test]
    fn scan_spares_every_segment_of_the_playlists_of_the_grace_period(
        steps in prop::collection::vec(step(), 1..120),
        sweep_every in 1_usize..20,
    ) {
        let mut stream = Stream::new();
        for (n, step) in steps.into_iter().enumerate() {
            stream.append(step);
            if n % sweep_every != 0 {
                continue;
            }
            let expired = stream.sweep(false);
            let grace = longest_playlist_ms(&settings());
            for (at, listed) in &stream.shown {
                if at + grace >= stream.played_ms {
                    prop_assert!(listed.iter().all(|msn| !expired.contains(msn)), "{listed:?} {expired:?}");
                }
            }
        }
        // The window and the grace period bound the stored segments of a stream of any length.
        stream.sweep(false);
        let stored: u64 = stream.index.iter().map(|fact| fact.segment.duration.as_millis()).sum();
        prop_assert!(stored <= longest_playlist_ms(&settings()) + grace_ms(&settings()) + 2 * 4_000 + 4_000, "{stored}");
    }
}

const SEGMENT: Step = Step { duration_ms: 2_000, gap: false, next_epoch: false };

#[test]
fn scan_keeps_the_last_playlist_alone_once_the_end_is_settled() {
    let mut stream = Stream::new();
    (0..100).for_each(|_| stream.append(SEGMENT));
    stream.view.ended = true;
    let listed = stream.shown.last().unwrap().1.clone();
    stream.sweep(false);
    assert!(stream.index.len() > listed.len(), "a viewer may still hold an older playlist");
    stream.sweep(true);
    let stored: Vec<Msn> = stream.index.iter().map(|fact| fact.segment.msn).collect();
    assert_eq!(stored, listed);
    assert_eq!(stream.sweep(true), []);
}

#[test]
fn scan_deletes_nothing_while_gaps_push_stored_segments_out_of_the_window() {
    let mut stream = Stream::new();
    (0..10).for_each(|_| stream.append(SEGMENT));
    (0..50).for_each(|_| stream.append(Step { gap: true, ..SEGMENT }));
    // Ten segments fill less than the grace period; the publisher may come back to a player that still plays them.
    assert_eq!(stream.sweep(false), []);
    assert_eq!(stream.index.len(), 10);
}

#[test]
fn cutoff_is_unknown_while_the_segments_that_stay_do_not_fill_the_grace_period() {
    let mut stream = Stream::new();
    (0..15).for_each(|_| stream.append(SEGMENT));
    let horizon = Horizon::new(&stream.checkpoint(), &settings(), false);
    let mut scan = ExpiryScan::new(&horizon, Rendition::video());
    while let Some(fact) = stream.index.first().cloned()
        && scan.push(fact)
    {
        stream.index.remove(0);
    }
    assert_eq!(scan.cutoff(), None);
    let old = ObjectName {
        playback: "000102030405060708090a0b0c0d0e0f".parse().unwrap(),
        rendition: Rendition::video(),
        epoch: Epoch(1),
        kind: ObjectKind::Init(InitVersion(0)),
    };
    let cutoff = Cutoff { epoch: Epoch(1), msn: Msn(FIRST) };
    assert!(!scan.is_stray(cutoff, &old), "the segments that stay need it");
}

#[test]
fn strays_are_objects_before_the_cutoff_that_no_remaining_segment_needs() {
    let horizon = Horizon { floor: Msn(200), keep_ms: 10_000, epoch: Epoch(3), inits: BTreeSet::new() };
    let mut scan = ExpiryScan::new(&horizon, Rendition::video());
    for (epoch, msn, init) in (90..100).map(|msn| (2, msn, 1)).chain((100..106).map(|msn| (2, msn, 2))) {
        assert!(scan.push(fact(epoch, msn, 2_000, init)));
    }
    let cutoff = scan.cutoff().unwrap();
    assert_eq!(cutoff, Cutoff { epoch: Epoch(2), msn: Msn(101) });
    assert_eq!(scan.overdue_s(), 22);
    let stray = |epoch: u64, kind| {
        let playback = "000102030405060708090a0b0c0d0e0f".parse().unwrap();
        scan.is_stray(
            cutoff,
            &ObjectName { playback, rendition: Rendition::video(), epoch: Epoch(epoch), kind },
        )
    };
    for (epoch, kind, expected) in [
        (1, ObjectKind::Init(InitVersion(0)), true),
        (2, ObjectKind::Init(InitVersion(1)), true),
        (2, ObjectKind::Init(InitVersion(2)), false),
        (2, ObjectKind::Init(InitVersion(3)), false),
        (3, ObjectKind::Init(InitVersion(0)), false),
        (1, ObjectKind::Segment(Msn(80), Generation(4)), true),
        (2, ObjectKind::Segment(Msn(100), Generation(9)), true),
        (2, ObjectKind::Segment(Msn(101), Generation(9)), false),
    ] {
        assert_eq!(stray(epoch, kind), expected, "{epoch} {kind:?}");
    }
}
