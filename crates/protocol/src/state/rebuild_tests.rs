//! Tests of the state rebuilt from the segment index.

use millrace_wire::fact::{Origin, Segment, TrackMedia};
use millrace_wire::ids::{Airing, DiscontinuitySeq};

use super::*;

const AIRING: BroadcastId = BroadcastId::from_u128(3);
const FIRST: u64 = 1_700_000_000;
const PDT: u64 = 1_700_000_000_000;

fn entry(rendition: Rendition, msn: u64) -> IndexFact {
    IndexFact {
        stream: StreamId::from_u128(1),
        broadcast: AIRING,
        epoch: Epoch(7),
        generation: Generation(2),
        segment: Segment {
            rendition,
            msn: Msn(msn),
            parts: 10,
            duration: MediaDuration::from_millis(2_000),
            independent: true,
            bytes: 500_000,
            discontinuity_sequence: DiscontinuitySeq(1),
            program_date_time: UnixMillis(PDT + (msn - FIRST) * 2_000),
            init_version: InitVersion(0),
        },
    }
}

fn rebuilt(entries: impl IntoIterator<Item = IndexFact>) -> Option<Rebuilt> {
    let mut rebuild = Rebuild::new(StreamId::from_u128(1), (AIRING, Airing::FIRST));
    entries.into_iter().for_each(|fact| rebuild.add(fact));
    rebuild.finish(&StreamSettings { window: 20, ..StreamSettings::default() })
}

#[test]
fn rebuild_returns_the_newest_window_of_the_index() {
    let video = (0..100).map(|n| entry(Rendition::video(), FIRST + n));
    let audio = (0..99).map(|n| entry(Rendition::audio(), FIRST + n));
    let mut rebuilt = rebuilt(audio.chain(video)).unwrap();
    let wanted = rebuilt.inits();
    assert_eq!(wanted.len(), 2);
    let info = TrackInfo {
        media: TrackMedia::Audio { channels: 2, sample_rate: 48_000 },
        codecs: "mp4a.40.2".to_owned(),
        bandwidth: 0,
        timescale: 48_000,
    };
    rebuilt.describe(&Rendition::audio(), (Epoch(7), InitVersion(0)), info);
    let state = rebuilt.into_state();
    assert_eq!(state.slots.back().unwrap().msn, Msn(FIRST + 99));
    let listed: u64 =
        state.slots.iter().filter_map(|slot| slot_duration(slot)).map(MediaDuration::as_millis).sum();
    assert!((20_000..=26_000).contains(&listed), "{listed}");
    assert_eq!(state.first_msn, state.slots.front().unwrap().msn);
    let info = &state.renditions[&Rendition::audio()].inits[0].info;
    assert_eq!((info.bandwidth, info.codecs.as_str()), (2_000_000, "mp4a.40.2"));
}

#[test]
fn rebuild_fills_short_holes_with_gaps_and_starts_after_a_long_one() {
    let numbers = [0, 1, 50, 51, 54];
    let state = rebuilt(numbers.map(|n| entry(Rendition::video(), FIRST + n))).unwrap().into_state();
    let listed: Vec<_> = state.slots.iter().map(|s| (s.msn.0 - FIRST, s.gap.is_some())).collect();
    assert_eq!(listed, [(50, false), (51, false), (52, true), (53, true), (54, false)]);
    assert!(state.slots.iter().is_sorted_by_key(|slot| slot.program_date_time));
    assert!(rebuilt([]).is_none());
    let other = IndexFact { broadcast: BroadcastId::from_u128(9), ..entry(Rendition::video(), FIRST) };
    assert!(rebuilt([other]).is_none());
}

#[test]
fn rebuild_keeps_a_bounded_number_of_slots_of_a_long_recording() {
    let mut rebuild = Rebuild::new(StreamId::from_u128(1), (AIRING, Airing::FIRST));
    for rendition in [Rendition::audio(), Rendition::video()] {
        (0..5_000).for_each(|n| rebuild.add(entry(rendition.clone(), FIRST + n)));
        assert!(rebuild.slots.len() <= MAX_SLOTS);
    }
    assert!(rebuild.slots.values().all(|slot| slot.tracks.len() == 2));
}

#[test]
fn newest_state_is_the_highest_position_of_the_broadcast() {
    let state = rebuilt([entry(Rendition::video(), FIRST)]).unwrap().into_state();
    let at = |epoch, generation, seq| StreamState {
        epoch: Epoch(epoch),
        origin: Origin::Log,
        generation: Generation(generation),
        seq: FactSeq(seq),
        ..state.clone()
    };
    let empty = StreamState { epoch: Epoch(9), ..apply::empty(AIRING) };
    let other = StreamState { broadcast: BroadcastId::from_u128(4), ..at(9, 9, 9) };
    let found =
        newest_state([at(7, 1, 90), at(7, 2, 3), empty, other, at(10, 1, 1)], AIRING, Epoch(9)).unwrap();
    assert_eq!((found.epoch, found.generation), (Epoch(7), Generation(2)));
    assert!(newest_state([], AIRING, Epoch(9)).is_none());
}

#[test]
fn rebuild_lists_a_rendition_gap_between_two_segments_of_the_rendition() {
    let low = || "low".parse::<Rendition>().unwrap();
    let source = (0..6).map(|n| entry(Rendition::video(), FIRST + n));
    let failed_for_a_while = [1, 2, 4].map(|n| entry(low(), FIRST + n));
    let state = rebuilt(source.chain(failed_for_a_while)).unwrap().into_state();
    let gaps: Vec<_> = state.slots.iter().filter(|slot| slot.rendition_gaps.contains_key(&low())).collect();
    assert_eq!(gaps.iter().map(|slot| slot.msn.0 - FIRST).collect::<Vec<_>>(), [3]);
    assert!(state.slots.iter().all(|slot| slot.gap.is_none()));
}
