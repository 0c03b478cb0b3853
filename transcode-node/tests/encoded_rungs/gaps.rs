//! Rungs whose transcoder is scripted: what they complete, and what they list as GAP.

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_codec::engine::order::RungIndex;
use millrace_testkit::ClipSpec;
use millrace_transcode::encoders::Event;
use millrace_wire::fact::Fact;
use millrace_wire::ids::{Msn, Rendition};
use millrace_wire::message::announce::Degraded;

use super::fake::Fake;
use super::source::{FIRST, Message, clip, publish};
use super::worker::{Worker, playlist_of, settings};

fn rendition(name: &str) -> Rendition {
    name.parse().unwrap()
}

/// 10 s of 30 pictures a second with a keyframe every second: five segments.
async fn messages() -> Vec<Message> {
    clip(ClipSpec::default()).await
}

fn worker(fake: &Fake) -> Worker {
    Worker::new(Arc::new(fake.clone()), settings(&[180, 144]))
}

#[tokio::test]
async fn rungs_have_the_parts_and_segments_of_the_source_under_the_same_numbers() {
    let fake = Fake::new(5);
    let mut worker = worker(&fake);
    worker.feed_all(&publish(&messages().await));
    assert!(worker.is_sealed());
    let source = worker.segments(&Rendition::video());
    assert_eq!(source.len(), 5);
    let shape = |name: &Rendition| {
        let parts = worker.parts(name);
        parts.into_iter().map(|(part, _)| (part.msn, part.part, part.duration, part.last)).collect::<Vec<_>>()
    };
    let state = worker.state();
    for name in [rendition("180p"), rendition("144p")] {
        assert_eq!(worker.segments(&name), source, "{name}");
        assert_eq!(shape(&name), shape(&Rendition::video()), "{name}");
        assert_eq!(worker.gaps(&name), [0; 0]);
        let (own, others) = (playlist_of(&state, &name), playlist_of(&state, &Rendition::video()));
        assert_eq!(own.part_target, others.part_target);
        assert_eq!(own.media_sequence, others.media_sequence);
        assert!(own.independent_segments);
    }
    let inits: Vec<_> = worker
        .facts
        .iter()
        .filter(|fact| matches!(&fact.fact, Fact::Init { rendition: name, .. } if *name == rendition("144p")))
        .collect();
    assert_eq!(inits.len(), 1);
    let Fact::Init { info, .. } = &inits[0].fact else { panic!() };
    assert_eq!(info.bandwidth, 808_000);
    assert_eq!(info.codecs, "avc1.64001f");
}

/// Fails unless each part of the rungs was announced once and in order, and the objects are the parts laid end to end.
fn parts_are_whole(worker: &Worker) {
    for name in [rendition("180p"), rendition("144p")] {
        let parts = worker.parts(&name);
        let mut next = BTreeMap::new();
        for (part, _) in &parts {
            let index = next.entry(part.msn).or_insert(0);
            assert_eq!(part.part.0, *index, "{name}: {}", part.msn);
            *index += 1;
        }
        for ((_, msn), (segment, body)) in worker.stored.iter().filter(|((of, _), _)| *of == name) {
            let own = parts.iter().filter(|(part, _)| part.msn == *msn);
            let laid: Vec<u8> = own.flat_map(|(_, bytes)| bytes.to_vec()).collect();
            assert_eq!((laid.len() as u64, &laid[..]), (segment.bytes, &body[..]), "{name}: {msn}");
        }
        playlist_of(&worker.state(), &name);
    }
}

#[tokio::test]
async fn a_transcoder_that_dies_anywhere_costs_the_rungs_nothing() {
    let messages = publish(&messages().await);
    let begins = |msn: u64| messages.iter().position(|m| m.first_msn() == Some(Msn(msn))).unwrap();
    // Twice in one segment, and around the boundaries.
    let middle = begins(FIRST + 2) + 20;
    for deaths in [vec![middle], vec![middle, middle + 9], vec![12, begins(FIRST + 1), begins(FIRST + 4) + 1]]
    {
        let fake = Fake::new(5);
        let mut worker = worker(&fake);
        for (number, message) in messages.iter().enumerate() {
            if deaths.contains(&number) {
                fake.die();
            }
            worker.feed(message);
        }
        assert!(worker.is_sealed());
        let source = worker.segments(&Rendition::video());
        assert_eq!(source.len(), 5);
        for name in [rendition("180p"), rendition("144p")] {
            assert_eq!(worker.gaps(&name), [0; 0], "{name}, {deaths:?}");
            assert_eq!(worker.segments(&name), source, "{name}, {deaths:?}");
        }
        parts_are_whole(&worker);
        assert_eq!(fake.starts(), deaths.len() + 1);
    }
}

#[tokio::test]
async fn three_deaths_in_a_segment_make_it_a_gap_and_the_next_boundary_is_tried() {
    let fake = Fake::new(5);
    let mut worker = worker(&fake);
    let messages = publish(&messages().await);
    let middle = messages.iter().position(|m| m.first_msn() == Some(Msn(FIRST + 2))).unwrap() + 20;
    worker.feed_all(&messages[..middle]);
    fake.state().stillborn = 2;
    fake.die();
    worker.feed_all(&messages[middle..=middle + 1]);
    let troubles = |worker: &Worker| worker.rungs.iter().find_map(|rung| rung.trouble());
    assert_eq!(troubles(&worker), Some(Degraded::EncodersFailing));
    worker.feed_all(&messages[middle + 2..]);
    assert!(worker.is_sealed());
    assert_eq!(troubles(&worker), None);
    for name in [rendition("180p"), rendition("144p")] {
        assert_eq!(worker.gaps(&name), [FIRST + 2]);
        let complete: Vec<u64> = worker.segments(&name).into_iter().map(|(msn, _)| msn).collect();
        assert_eq!(complete, [FIRST, FIRST + 1, FIRST + 3, FIRST + 4]);
    }
    parts_are_whole(&worker);
    assert_eq!(fake.starts(), 4);
}

#[tokio::test]
async fn a_transcoder_that_dies_in_the_flush_is_replaced_once() {
    let messages = publish(&messages().await);
    let (last, others) = messages.split_last().unwrap();
    for (stillborn, gaps) in [(0, &[][..]), (1, &[FIRST + 4])] {
        let fake = Fake::new(5);
        let mut worker = worker(&fake);
        worker.feed_all(others);
        fake.state().stillborn = stillborn;
        fake.state().dead = true;
        worker.feed(last);
        assert!(!worker.is_sealed(), "the transcoder hangs");
        fake.die();
        worker.poll();
        assert!(worker.is_sealed());
        assert_eq!(worker.gaps(&rendition("144p")), gaps);
        assert_eq!(worker.segments(&Rendition::video()).len(), 5);
        parts_are_whole(&worker);
    }
}

#[tokio::test]
async fn segments_that_a_hung_transcoder_owed_for_too_long_are_gaps() {
    let fake = Fake::new(5);
    let mut worker = worker(&fake);
    let messages = publish(&clip(ClipSpec { frames: 720, ..ClipSpec::default() }).await);
    let at = |msn: u64| messages.iter().position(|m| m.first_msn() == Some(Msn(msn))).unwrap() + 30;
    worker.feed_all(&messages[..at(FIRST + 1)]);
    fake.state().dead = true;
    worker.feed_all(&messages[at(FIRST + 1)..at(FIRST + 9)]);
    fake.die();
    worker.feed_all(&messages[at(FIRST + 9)..]);
    assert!(worker.is_sealed());
    for name in [rendition("180p"), rendition("144p")] {
        let gaps = worker.gaps(&name);
        // Of eight segments of 2 s the last ten seconds are encoded again.
        assert_eq!(gaps, [FIRST + 1, FIRST + 2, FIRST + 3]);
        assert_eq!(worker.segments(&name).len() + gaps.len(), 12);
    }
    parts_are_whole(&worker);
}

#[tokio::test]
async fn a_rung_that_is_shed_lists_gaps_until_it_is_taken_back() {
    let fake = Fake::new(2);
    let mut worker = worker(&fake);
    let messages = publish(&messages().await);
    for message in &messages {
        match message.first_msn() {
            Some(Msn(msn)) if msn == FIRST && message.seq.0 == 60 => {
                fake.state().events.push_back(Event::Encode(vec![RungIndex(1)]));
            }
            Some(Msn(msn)) if msn == FIRST + 2 => {
                fake.state().events.push_back(Event::Encode(vec![RungIndex(0), RungIndex(1)]));
            }
            _ => {}
        }
        worker.feed(message);
    }
    assert_eq!(worker.gaps(&rendition("180p")), [FIRST + 1, FIRST + 2]);
    assert_eq!(worker.segments(&rendition("180p")).len(), 3);
    assert_eq!(worker.gaps(&rendition("144p")), [0; 0]);
    assert_eq!(worker.segments(&rendition("144p")).len(), 5);
}

#[tokio::test]
async fn a_rung_that_is_larger_than_the_source_has_no_facts() {
    let fake = Fake::new(2);
    fake.state().dropped = vec![RungIndex(0)];
    let mut worker = worker(&fake);
    worker.feed_all(&publish(&messages().await));
    assert!(worker.is_sealed());
    assert!(!worker.state().renditions.contains_key(&rendition("180p")));
    assert_eq!(worker.gaps(&rendition("180p")), [0; 0]);
    assert_eq!(worker.segments(&rendition("144p")).len(), 5);
}

#[tokio::test]
async fn an_undecodable_beginning_is_no_part_of_a_rung() {
    let fake = Fake::new(2);
    fake.state().skip_to_keyframe = true;
    let mut published = publish(&messages().await);
    // The first segment has no keyframe but in its middle.
    for message in published.iter_mut().take(5) {
        message.units.iter_mut().for_each(|unit| {
            if let millrace_wire::message::media::MediaUnit::Frame(frame) = unit {
                frame.keyframe = false;
            }
        });
    }
    let mut worker = worker(&fake);
    worker.feed_all(&published);
    let name = rendition("144p");
    let complete: Vec<u64> = worker.segments(&name).into_iter().map(|(msn, _)| msn).collect();
    assert_eq!(complete, [FIRST + 1, FIRST + 2, FIRST + 3, FIRST + 4]);
    assert_eq!(playlist_of(&worker.state(), &name).segments.len(), 5, "the first is listed as GAP");
}

#[tokio::test]
async fn encoders_that_fall_behind_are_left_out_and_tried_again() {
    let fake = Fake::new(2);
    let mut worker = worker(&fake);
    let messages = clip(ClipSpec { frames: 600, ..ClipSpec::default() }).await;
    for message in publish(&messages) {
        fake.state().behind = message.first_msn() == Some(Msn(FIRST + 1));
        worker.feed(&message);
    }
    let name = rendition("144p");
    let (gaps, complete) = (worker.gaps(&name), worker.segments(&name));
    // The last pictures of the first segment were not handed in yet; then four segments are left out.
    assert_eq!(gaps, (FIRST..=FIRST + 5).collect::<Vec<_>>());
    assert_eq!(complete.len(), 4, "{complete:?}");
}
