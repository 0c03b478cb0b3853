//! What is rebuilt, and what ends a log.

use millrace_media::sample::AudioConfig;
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
    let listed: u64 = state.slots.iter().filter_map(view::slot_duration).map(MediaDuration::as_millis).sum();
    assert!((20_000..=26_000).contains(&listed), "{listed}");
    assert_eq!(state.first_msn, state.slots.front().unwrap().msn);
    let info = &state.renditions[&Rendition::audio()].inits[0].info;
    assert_eq!((info.bandwidth, info.codecs.as_str()), (2_000_000, "mp4a.40.2"));
    // The last audio segment never got into the store.
    let facts = closing_facts(&state);
    assert!(matches!(&facts[..], [Fact::Gap(gap), Fact::End] if gap.msn == Msn(FIRST + 99)), "{facts:?}");
}

#[test]
fn a_sealed_log_lists_what_was_used_and_then_grows() {
    let numbers = (0..5).map(|n| entry(Rendition::video(), FIRST + n));
    let state = rebuilt(numbers).unwrap().into_state();
    let used = Msn(FIRST + 8);
    assert_eq!(sealed_through(&state, used), used);
    assert_eq!(sealed_through(&state, Msn(FIRST)), Msn(FIRST + 4));
    assert_eq!(sealed_through(&state, Msn(FIRST + 40)), Msn(FIRST + 4), "out of reach");
    // 6 s of absence for 4 numbers.
    let mut view = view::takeover(Epoch(9), Generation(1), &state);
    for fact in sealing_facts(&state, used, UnixMillis(PDT + 16_000)) {
        view::apply(&mut view, FactSeq(1), &fact);
    }
    assert!(view.sealed);
    let gaps = || view.slots.iter().filter_map(|slot| Some((slot.msn.0 - FIRST, slot.gap?.as_millis())));
    assert_eq!(gaps().collect::<Vec<_>>(), [(5, 1_500), (6, 1_500), (7, 1_500), (8, 1_500)]);
    assert!(view.slots.iter().is_sorted_by_key(|slot| slot.program_date_time));

    assert_eq!(away_facts(&view, used, 20), []);
    let grown = away_facts(&view, Msn(FIRST + 11), 20);
    let Some(Fact::Gap(gap)) = grown.first() else { panic!("{grown:?}") };
    assert_eq!((gap.msn, gap.duration.as_millis()), (Msn(FIRST + 9), 4_000));
    assert_eq!(gap.program_date_time, UnixMillis(PDT + 16_000));
    assert!(matches!(grown[..], [Fact::Gap(_), Fact::Gap(_), Fact::Gap(_), Fact::Trim { .. }]), "{grown:?}");
    assert_eq!(away_facts(&Snapshot { ended: true, ..view }, Msn(FIRST + 11), 20), []);
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
    let at = |epoch, generation, seq| Snapshot {
        epoch: Epoch(epoch),
        generation: Generation(generation),
        seq: FactSeq(seq),
        ..state.clone()
    };
    let empty = Snapshot { epoch: Epoch(9), ..view::empty(AIRING) };
    let other = Snapshot { broadcast: BroadcastId::from_u128(4), ..at(9, 9, 9) };
    let found = newest([at(7, 1, 90), at(7, 2, 3), empty, other, at(10, 1, 1)], AIRING, Epoch(9)).unwrap();
    assert_eq!((found.epoch, found.generation), (Epoch(7), Generation(2)));
    assert!(newest([], AIRING, Epoch(9)).is_none());
}

#[test]
fn an_ended_log_needs_no_end() {
    let state = rebuilt([entry(Rendition::video(), FIRST)]).unwrap().into_state();
    assert_eq!(closing_facts(&state), [Fact::End]);
    assert_eq!(closing_facts(&Snapshot { ended: true, ..state }), []);
}
