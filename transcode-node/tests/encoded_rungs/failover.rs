//! A worker dies in the middle of a segment: its successor goes on behind its last part, in every rung.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use millrace_protocol::state::query::resume_msn;
use millrace_testkit::ClipSpec;
use millrace_wire::fact::{Fact, StreamState};
use millrace_wire::ids::{Epoch, Msn, PartIndex, Rendition};
use millrace_wire::message::media::MediaMessage;

use super::engine::EngineFactory;
use super::pictures::decode;
use super::source::{EPOCH, clip, open, open_with, publish};
use super::worker::{Worker, playlist_of, settings};

/// 8 s: four segments.
fn spec() -> ClipSpec {
    ClipSpec { frames: 240, ..ClipSpec::default() }
}

fn rungs() -> [Rendition; 2] {
    ["180p", "144p"].map(|name| name.parse().unwrap())
}

/// Runs a worker up to message `until`, where it dies, and its successor to the end.
fn replace(published: &[MediaMessage], until: usize, settle: bool) -> (Worker, Worker) {
    let settings = settings(&[180, 144]);
    let mut first = Worker::new(Arc::new(EngineFactory::default()), settings.clone());
    first.feed_all(&published[..until]);
    if settle {
        // The rungs have announced a part of the open segment.
        let open = published[until].first_msn().unwrap();
        let has_part = |worker: &Worker, name: &Rendition| {
            worker.parts(name).last().is_some_and(|(part, _)| part.msn == open && part.part.0 > 0)
        };
        first.wait("parts of the open segment", |worker| rungs().iter().all(|name| has_part(worker, name)));
    }
    let base = first.state();
    let resume = resume_msn(&base, EPOCH, open().first_msn);
    let from = published.iter().position(|message| message.last_msn() >= Some(resume)).unwrap();
    let seq = published[from].seq.0;
    let mut second = Worker::granted(Arc::new(EngineFactory::default()), settings, (2, seq), base);
    second.feed_all(&published[from..]);
    second.wait("the seal", Worker::is_sealed);
    (first, second)
}

/// Returns the parts that readers are shown, the first worker's and then the second's.
fn shown(first: &Worker, second: &Worker, name: &Rendition) -> Vec<Bytes> {
    let mut shown: BTreeMap<(Msn, PartIndex), Bytes> = BTreeMap::new();
    for (part, bytes) in [first.parts(name), second.parts(name)].concat() {
        let old = shown.insert((part.msn, part.part), bytes);
        assert!(old.is_none(), "{name}: part {} of {} is announced twice", part.part, part.msn);
    }
    shown.into_values().collect()
}

#[tokio::test]
async fn a_successor_loses_and_doubles_no_picture_in_any_rung() {
    let published = publish(&clip(spec()).await);
    let begins = |msn: u64| published.iter().position(|m| m.first_msn() == Some(Msn(msn))).unwrap();
    // In the middle of the third segment.
    let (first, second) = replace(&published, usize::midpoint(begins(1002), begins(1003)), true);
    let numbers: Vec<Option<u16>> = (0..240).map(Some).collect();
    for name in rungs() {
        assert_eq!(first.init(&name), second.init(&name), "the parameter sets stay");
        let parts = shown(&first, &second, &name);
        let pictures = decode(&first.init(&name), &parts);
        assert_eq!(pictures.iter().map(|picture| picture.number).collect::<Vec<_>>(), numbers, "{name}");
        assert_eq!(second.gaps(&name), [0; 0]);
        let own = second.parts(&name);
        assert!(own[0].0.independent && own[0].0.part.0 > 0, "{:?}", own[0].0);
        // The object of the shared segment is the successor's, and travels with the fact.
        let shared = own[0].0.msn;
        let (segment, body) = &second.stored[&(name.clone(), shared)];
        let payload = second.facts.iter().find_map(|fact| match &fact.fact {
            Fact::Segment(found) if found.rendition == name && found.msn == shared => Some(&fact.payload),
            _ => None,
        });
        assert_eq!(payload, Some(body));
        assert_eq!(decode(&second.init(&name), [body]).len(), 60, "{segment:?}");
        let objects = [&first, &second].into_iter().flat_map(|worker| worker.stored.keys());
        assert_eq!(objects.filter(|(of, _)| *of == name).count(), 4);
        let playlist = playlist_of(&second.state(), &name);
        assert!(playlist.segments.iter().all(|segment| !segment.discontinuity && !segment.gap));
    }
}

#[tokio::test]
async fn a_successor_goes_on_wherever_its_predecessor_died() {
    let published = publish(&clip(spec()).await);
    let numbers: Vec<Option<u16>> = (0..240).map(Some).collect();
    for until in (40..published.len() - 20).step_by(83) {
        let (first, second) = replace(&published, until, false);
        for name in rungs() {
            let parts = shown(&first, &second, &name);
            let pictures = decode(&second.init(&name), &parts);
            let found: Vec<_> = pictures.iter().map(|picture| picture.number).collect();
            assert_eq!(found, numbers, "{name}, died at message {until}");
            let objects = [&first, &second].into_iter().flat_map(|worker| worker.stored.keys());
            let stored: std::collections::BTreeSet<_> = objects.filter(|(of, _)| *of == name).collect();
            assert_eq!(stored.len(), 4, "{name}, died at message {until}");
        }
    }
}

#[tokio::test]
async fn a_rendition_of_an_earlier_ladder_ends_with_the_next_epoch() {
    let published = publish(&clip(spec()).await);
    let mut first = Worker::new(Arc::new(EngineFactory::default()), settings(&[180, 144]));
    first.feed_all(&published);
    first.wait("the seal", Worker::is_sealed);
    // The publisher comes back, and the livestream's ladder has been changed meanwhile.
    let base = StreamState { epoch: Epoch(EPOCH.0 - 1), ..first.state() };
    let later = Worker::granted(Arc::new(EngineFactory::default()), settings(&[180]), (1, 0), base);
    let mut later = later;
    later.poll();
    let ended = |name: &Rendition| later.state().renditions[name].ended.is_some();
    assert_eq!(rungs().map(|name| ended(&name)), [false, true]);
    assert!(!ended(&Rendition::video()) && !ended(&Rendition::audio()));
}

#[tokio::test]
async fn rungs_that_no_worker_has_room_for_lack_each_segment_until_one_has() {
    let published = publish(&clip(spec()).await);
    let begins = |msn: u64| published.iter().position(|m| m.first_msn() == Some(Msn(msn))).unwrap();
    let encoders = || Arc::new(EngineFactory::default());
    let (whole, copy) = (settings(&[180, 144]), settings(&[]));
    let mut first = Worker::new(encoders(), whole.clone());
    first.feed_all(&published[..begins(1001) + 90]);
    first.wait("the first segment", |worker| rungs().iter().all(|name| worker.segments(name).len() == 1));
    let grant = |settings, generation, base: StreamState| {
        let resume = resume_msn(&base, EPOCH, open().first_msn);
        let from = published.iter().position(|message| message.last_msn() >= Some(resume)).unwrap();
        let place = (generation, published[from].seq.0);
        (Worker::granted_in(encoders(), settings, place, base, open_with(&[180, 144])), from)
    };
    let (mut second, from) = grant(copy, 2, first.state());
    second.feed_all(&published[from..begins(1002) + 20]);
    let (mut third, from) = grant(whole, 3, second.state());
    third.feed_all(&published[from..]);
    third.wait("the seal", Worker::is_sealed);
    for name in rungs() {
        assert_eq!(second.gaps(&name), [1001]);
        let state = third.state();
        assert!(state.renditions[&name].ended.is_none());
        let complete: Vec<u64> = third.segments(&name).into_iter().map(|(msn, _)| msn).collect();
        assert_eq!(complete, [1002, 1003], "{name}");
        assert_eq!(playlist_of(&state, &name).segments.iter().filter(|segment| segment.gap).count(), 1);
    }
}
