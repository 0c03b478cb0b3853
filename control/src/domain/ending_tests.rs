//! What is rebuilt, and what ends a log.

use millrace_media::frame::AudioConfig;
use millrace_wire::fact::Segment;
use millrace_wire::ids::DiscontinuitySeq;

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
    let mut rebuild = Rebuild::new(StreamId::from_u128(1), AIRING);
    entries.into_iter().for_each(|fact| rebuild.add(fact));
    rebuild.finish(&StreamSettings { window: 20, ..StreamSettings::default() })
}

#[test]
fn the_index_gives_the_window_back() {
    let video = (0..100).map(|n| entry(Rendition::video(), FIRST + n));
    let audio = (0..99).map(|n| entry(Rendition::audio(), FIRST + n));
    let mut rebuilt = rebuilt(audio.chain(video)).unwrap();
    let wanted = rebuilt.inits();
    assert_eq!(wanted.len(), 2);
    let audio = TrackConfig::Audio(AudioConfig::aac_lc(48_000, 2).unwrap());
    rebuilt.describe(&Rendition::audio(), (Epoch(7), InitVersion(0)), &audio);
    let state = rebuilt.into_state();
    assert_eq!(state.slots.back().unwrap().msn, Msn(FIRST + 99));
    let listed: u64 =
        state.slots.iter().filter_map(|slot| apply::slot_duration(slot)).map(MediaDuration::as_millis).sum();
    assert!((20_000..=26_000).contains(&listed), "{listed}");
    assert_eq!(state.first_msn, state.slots.front().unwrap().msn);
    let info = &state.renditions[&Rendition::audio()].inits[0].info;
    assert_eq!((info.bandwidth, info.codecs.as_str()), (2_000_000, "mp4a.40.2"));
}

#[test]
fn holes_are_gaps_and_long_ones_begin_the_window() {
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
fn a_long_recording_takes_bounded_memory() {
    let mut rebuild = Rebuild::new(StreamId::from_u128(1), AIRING);
    for rendition in [Rendition::audio(), Rendition::video()] {
        (0..5_000).for_each(|n| rebuild.add(entry(rendition.clone(), FIRST + n)));
        assert!(rebuild.slots.len() <= MAX_SLOTS);
    }
    assert!(rebuild.slots.values().all(|slot| slot.tracks.len() == 2));
}

#[test]
fn the_highest_position_of_the_right_broadcast_wins() {
    let state = rebuilt([entry(Rendition::video(), FIRST)]).unwrap().into_state();
    let at = |epoch, generation, seq| StreamState {
        epoch: Epoch(epoch),
        generation: Generation(generation),
        seq: FactSeq(seq),
        ..state.clone()
    };
    let empty = StreamState { epoch: Epoch(9), ..apply::empty(AIRING) };
    let other = StreamState { broadcast: BroadcastId::from_u128(4), ..at(9, 9, 9) };
    let found = newest([at(7, 1, 90), at(7, 2, 3), empty, other, at(10, 1, 1)], AIRING, Epoch(9)).unwrap();
    assert_eq!((found.epoch, found.generation), (Epoch(7), Generation(2)));
    assert!(newest([], AIRING, Epoch(9)).is_none());
}
