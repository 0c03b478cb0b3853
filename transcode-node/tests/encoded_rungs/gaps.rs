//! Rungs whose transcoder is scripted: what they complete, and what they list as GAP.

use std::sync::Arc;

use millrace_codec::engine::order::{Order, RungIndex};
use millrace_testkit::ClipSpec;
use millrace_transcode::encoders::Event;
use millrace_wire::fact::Fact;
use millrace_wire::ids::{Msn, Rendition};

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

#[tokio::test]
async fn a_dead_transcoder_costs_the_rungs_their_open_segment_and_the_copy_rung_nothing() {
    let fake = Fake::new(5);
    let mut worker = worker(&fake);
    let messages = publish(&messages().await);
    let middle = messages.iter().position(|m| m.first_msn() == Some(Msn(FIRST + 2))).unwrap() + 20;
    worker.feed_all(&messages[..middle]);
    fake.die();
    worker.feed_all(&messages[middle..]);
    assert!(worker.is_sealed());
    assert_eq!(worker.segments(&Rendition::video()).len(), 5);
    for name in [rendition("180p"), rendition("144p")] {
        assert_eq!(worker.gaps(&name), [FIRST + 2]);
        let complete: Vec<u64> = worker.segments(&name).into_iter().map(|(msn, _)| msn).collect();
        assert_eq!(complete, [FIRST, FIRST + 1, FIRST + 3, FIRST + 4]);
        playlist_of(&worker.state(), &name);
    }
    let starts = fake.state().orders.iter().filter(|order| matches!(order, Order::Start(_))).count();
    assert_eq!(starts, 2);
}

#[tokio::test]
async fn a_transcoder_that_dies_in_the_flush_ends_the_epoch_with_gaps() {
    let fake = Fake::new(5);
    let mut worker = worker(&fake);
    let messages = publish(&messages().await);
    let (last, others) = messages.split_last().unwrap();
    worker.feed_all(others);
    fake.die();
    worker.feed(last);
    assert!(worker.is_sealed());
    assert_eq!(worker.gaps(&rendition("144p")), [FIRST + 4]);
    assert_eq!(worker.segments(&Rendition::video()).len(), 5);
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
