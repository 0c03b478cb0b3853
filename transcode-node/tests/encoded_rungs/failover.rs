//! A worker dies in the middle of a segment: its successor goes on behind its last part, in every rung.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use millrace_protocol::playlist;
use millrace_protocol::session::PRE_ROLL_SOUNDS;
use millrace_protocol::state::query::resume_msn;
use millrace_testkit::{ClipSpec, tone};
use millrace_transcode::encoders::EncoderFactory;
use millrace_wire::fact::{Fact, StreamState};
use millrace_wire::ids::{Epoch, Msn, PartIndex, Rendition};
use millrace_wire::message::media::{FrameUnit, MediaMessage, MediaUnit, Track};

use super::engine::EngineFactory;
use super::fake::Fake;
use super::pictures::decode;
use super::source::{EPOCH, clip, open, open_with, publish, with_sound};
use super::worker::{Worker, playlist_of, settings, violations};

/// 8 s: four segments.
fn spec() -> ClipSpec {
    ClipSpec { frames: 240, ..ClipSpec::default() }
}

fn rungs() -> [Rendition; 2] {
    ["180p", "144p"].map(|name| name.parse().unwrap())
}

/// Returns the message from which a session has the encoders of a worker decode that resumes with message `from`: that of the
/// newest keyframe, and with enough audio.
fn pre_roll(published: &[MediaMessage], from: usize) -> usize {
    let has = |message: &MediaMessage, wanted: fn(&FrameUnit) -> bool| {
        message.units.iter().filter_map(MediaUnit::frame).any(wanted)
    };
    let is_keyframe = |frame: &FrameUnit| frame.track == Track::Video && frame.keyframe;
    let keyframe = published[..=from].iter().rposition(|message| has(message, is_keyframe));
    let sounds = (0..from).rev().filter(|n| has(&published[*n], |frame| frame.track == Track::Audio));
    let sound = sounds.take(PRE_ROLL_SOUNDS as usize).last();
    keyframe.into_iter().chain(sound).min().unwrap_or(from)
}

/// Runs a worker up to message `until`, where it dies, and its successor to the end.
fn replace(published: &[MediaMessage], until: usize, settle: bool) -> (Worker, Worker) {
    let engine = EngineFactory::default;
    replace_by(published, until, settle, [Arc::new(engine()), Arc::new(engine())])
}

/// The same for workers with these encoders.
fn replace_by(
    published: &[MediaMessage],
    until: usize,
    settle: bool,
    [of_first, of_second]: [Arc<dyn EncoderFactory>; 2],
) -> (Worker, Worker) {
    let settings = settings(&[180, 144]);
    let mut first = Worker::new(of_first, settings.clone());
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
    let first_decoded = pre_roll(published, from);
    let place = (2, published[from].seq.0, published[first_decoded].seq.0);
    let mut second = Worker::granted_behind(of_second, settings, place, base);
    second.feed_all(&published[first_decoded..]);
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

/// Fails unless every rung has each picture once and each object, whichever of the messages was the last before the worker died.
fn goes_on_behind(published: &[MediaMessage], last: impl Iterator<Item = usize>) {
    let numbers: Vec<Option<u16>> = (0..240).map(Some).collect();
    for until in last {
        let (first, second) = replace(published, until, false);
        let objects = || [&first, &second].into_iter().flat_map(|worker| worker.stored.keys());
        let of = |name: &Rendition| -> BTreeSet<Msn> {
            objects().filter(|(of, _)| of == name).map(|(_, msn)| *msn).collect()
        };
        for name in rungs() {
            let parts = shown(&first, &second, &name);
            let pictures = decode(&second.init(&name), &parts);
            let found: Vec<_> = pictures.iter().map(|picture| picture.number).collect();
            assert_eq!(found, numbers, "{name}, died at message {until}");
            assert_eq!(of(&name), of(&Rendition::video()), "{name}, died at message {until}");
            assert!(second.gaps(&name).is_empty() && second.parts(&name)[0].0.independent);
        }
    }
}

#[tokio::test]
async fn a_successor_goes_on_wherever_its_predecessor_died() {
    let published = publish(&clip(spec()).await);
    goes_on_behind(&published, (40..published.len() - 20).step_by(83));
}

/// Keyframes are 10 s apart: all segments but the first begin without one.
#[tokio::test]
async fn a_successor_goes_on_at_a_boundary_without_a_keyframe() {
    let published = publish(&clip(ClipSpec { gop: 300, ..spec() }).await);
    let begins = published.iter().position(|message| message.last_msn() > Some(open().first_msn)).unwrap();
    goes_on_behind(&published, (begins + 5..published.len() - 20).step_by(71));
}

/// Another build of the encoder, or another kind.
#[tokio::test]
async fn a_successor_with_other_parameter_sets_lacks_the_shared_segment_and_goes_on_without_a_discontinuity()
{
    let published = publish(&clip(spec()).await);
    let begins = |msn: u64| published.iter().position(|m| m.first_msn() == Some(Msn(msn))).unwrap();
    let (old, new) = (Fake::new(2), Fake::new(2));
    new.state().pps = 0xd0;
    let until = usize::midpoint(begins(1002), begins(1003));
    let (first, second) = replace_by(&published, until, true, [Arc::new(old), Arc::new(new)]);
    for name in rungs() {
        assert_ne!(first.init(&name), second.init(&name));
        assert_eq!(second.gaps(&name), [1002], "{name}");
        assert_eq!(second.segments(&name).iter().map(|(msn, _)| *msn).collect::<Vec<_>>(), [1003], "{name}");
        let state = second.state();
        // A discontinuity of one rendition would make equal numbers of discontinuities mean other times than in the others.
        let broken: Vec<_> = violations(&state, &name).iter().map(ToString::to_string).collect();
        assert!(broken.len() == 1 && broken[0].starts_with("MapChangedWithoutDiscontinuity"), "{broken:?}");
        let (playlist, _) = playlist::media(&state, &name).unwrap();
        let gaps: Vec<bool> = playlist.segments.iter().map(|segment| segment.gap).collect();
        assert_eq!(gaps, [false, false, true, false]);
        assert!(playlist.segments.iter().all(|segment| !segment.discontinuity));
    }
    let copied = playlist_of(&second.state(), &Rendition::video());
    assert!(copied.segments.iter().all(|segment| !segment.gap && !segment.discontinuity));
}

/// The tone of the sound, in Hz.
const TONE: f64 = 997.0;

/// Returns the loudest sound beside the tone, and the samples, of media with an initialisation section.
async fn heard(init: &Bytes, media: &[Bytes]) -> (f64, Vec<f64>) {
    let file = [std::slice::from_ref(init), media].concat().concat();
    let samples = tone::samples(&file).await.unwrap();
    // The encoders of the source and of the rendition ramp up.
    let rests = tone::rests(&samples[8 * 1024..samples.len() - 4 * 1024], TONE, 48_000.0);
    (rests.into_iter().fold(0.0, f64::max), samples)
}

#[tokio::test]
async fn sound_that_a_successor_goes_on_with_has_no_click() {
    let aac: Rendition = "aac".parse().unwrap();
    let silent = ClipSpec { audio: false, ..spec() };
    let source = "sine=frequency=997:sample_rate=44100:duration=9 -c:a aac -ac 1 -b:a 96k";
    let published = publish(&with_sound(silent, source).await);
    let mut whole = Worker::new(Arc::new(EngineFactory::default()), settings(&[180, 144]));
    whole.feed_all(&published);
    whole.wait("the seal", Worker::is_sealed);
    let bytes = |worker: &Worker| worker.parts(&aac).into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>();
    let init = whole.init(&aac);
    let (calm, undisturbed) = heard(&init, &bytes(&whole)).await;
    assert!(calm < 0.1, "{calm}");
    let begins = |msn: u64| published.iter().position(|m| m.first_msn() == Some(Msn(msn))).unwrap();
    for until in [1001, 1002].map(|msn| usize::midpoint(begins(msn), begins(msn + 1))) {
        let (first, second) = replace(&published, until, true);
        let (loudest, samples) = heard(&init, &shown(&first, &second, &aac)).await;
        let difference = samples.iter().zip(&undisturbed).map(|(own, other)| (own - other).abs());
        let difference = difference.fold(0.0, f64::max);
        println!("died at message {until}: {loudest:.4} beside {calm:.4}, difference {difference:.5}");
        assert_eq!(samples.len(), undisturbed.len());
        assert!(loudest < 1.5 * calm, "died at message {until}: {loudest} beside {calm}");
        // And the object of the shared segment, which is the successor's own.
        let objects = || [&first, &second].into_iter().flat_map(|worker| &worker.stored);
        let segments: BTreeMap<Msn, Bytes> = objects()
            .filter(|((of, _), _)| *of == aac)
            .map(|((_, msn), (_, body))| (*msn, body.clone()))
            .collect();
        assert_eq!(segments.len(), 4);
        let (loudest, _) = heard(&init, &segments.into_values().collect::<Vec<_>>()).await;
        println!("died at message {until}: objects {loudest:.4} beside {calm:.4}");
        assert!(loudest < 1.5 * calm, "died at message {until}: {loudest} beside {calm}");
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
