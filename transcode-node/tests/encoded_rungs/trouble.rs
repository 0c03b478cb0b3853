//! Troubled sources: each leaves every rung in step with the source, or with GAPs where it cannot be encoded.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use millrace_media::container::flv::FlvVideo;
use millrace_testkit::ClipSpec;
use millrace_wire::fact::StreamState;
use millrace_wire::ids::{Msn, Rendition};

use super::engine::EngineFactory;
use super::pictures::{decode, start, times};
use super::source::{Message, clip, publish, with_sound};
use super::worker::{Worker, playlist_of, settings, violations};

const MUTE: ClipSpec = ClipSpec {
    frames: 240,
    fps: 30,
    width: 320,
    height: 180,
    gop: 30,
    b_frames: 0,
    slices: 1,
    audio: false,
    first: 0,
};

fn rendition(name: &str) -> Rendition {
    name.parse().unwrap()
}

/// Returns the job of these messages, with rungs of 180 and 144 lines, once everything is sealed.
fn sealed(messages: &[Message]) -> Worker {
    let mut worker = Worker::new(Arc::new(EngineFactory::default()), settings(&[180, 144]));
    worker.feed_all(&publish(messages));
    worker.wait("the seal", Worker::is_sealed);
    worker
}

/// Returns the messages `ms` later.
fn later(messages: Vec<Message>, ms: u32) -> Vec<Message> {
    let later = messages.into_iter().map(|message| match message {
        Message::Video(at, video) => Message::Video(at + ms, video),
        Message::Audio(at, audio) => Message::Audio(at + ms, audio),
    });
    later.collect()
}

/// Returns the decoding time of the first picture of each stored segment.
fn starts(worker: &Worker, name: &Rendition) -> BTreeMap<Msn, i64> {
    let own = worker.stored.iter().filter(|((of, _), _)| of == name);
    own.map(|((_, msn), (_, body))| (*msn, start(body))).collect()
}

/// Checks that a rung has each segment of the source's video, at its time, as long, and beginning with an IDR picture, or
/// lists it as GAP; and that its playlist breaks no rule. Returns the gaps.
fn in_step(worker: &Worker, name: &Rendition) -> Vec<u64> {
    let state: StreamState = worker.state();
    let (own, source) = (starts(worker, name), starts(worker, &Rendition::video()));
    let mut gaps = Vec::new();
    for (msn, at) in &source {
        let slot = state.slots.iter().find(|slot| slot.msn == *msn).unwrap();
        let of = |name: &Rendition| slot.tracks.get(name).and_then(|track| track.segment.as_ref());
        match (of(name), of(&Rendition::video())) {
            (Some(own_segment), Some(segment)) => {
                assert_eq!(own.get(msn), Some(at), "{name}: {msn}");
                assert_eq!(own_segment.duration, segment.duration, "{name}: {msn}");
                assert!(own_segment.independent, "{name}: {msn}");
                assert!(!slot.rendition_gaps.contains_key(name));
            }
            _ => gaps.push(msn.0),
        }
    }
    let first = own.keys().next().map_or(0, |msn| msn.0);
    let listed: Vec<u64> = gaps.iter().copied().filter(|msn| *msn > first).collect();
    assert_eq!(
        worker.gaps(name).into_iter().filter(|msn| *msn > first).collect::<Vec<_>>(),
        listed,
        "{name}"
    );
    // Where the source's own playlist breaks a rule, because its pictures are irregular, a rung's may.
    let rules = |name: &Rendition| violations(&state, name).into_iter().map(|violation| violation.rule);
    let source: Vec<_> = rules(&Rendition::video()).collect();
    let broken: Vec<_> = rules(name).filter(|rule| !source.contains(rule)).collect();
    assert!(broken.is_empty(), "{name}: {:?}", violations(&state, name));
    gaps
}

fn all_in_step(worker: &Worker) {
    for name in [rendition("180p"), rendition("144p")] {
        assert_eq!(in_step(worker, &name), [0; 0], "{name}");
    }
}

/// Returns how many pictures a rung shows. Its parts have one initialisation section.
fn pictures(worker: &Worker, name: &Rendition) -> usize {
    let parts = worker.parts(name);
    decode(&worker.init(name), parts.iter().map(|(_, bytes)| bytes)).len()
}

#[tokio::test]
async fn lost_pictures_leave_the_rungs_in_step() {
    let mut messages = clip(ClipSpec { b_frames: 2, ..MUTE }).await;
    let mut number = 0;
    messages.retain(|message| {
        number += 1;
        matches!(
            message,
            Message::Video(_, FlvVideo::Nalus { keyframe: true, .. } | FlvVideo::SequenceHeader(_))
        ) || number % 7 != 3
    });
    let worker = sealed(&messages);
    all_in_step(&worker);
    let source = worker
        .parts(&Rendition::video())
        .iter()
        .map(|(_, bytes)| super::pictures::count(bytes))
        .sum::<usize>();
    assert_eq!(pictures(&worker, &rendition("144p")), source, "a picture for each place");
}

#[tokio::test]
async fn corrupt_slices_leave_the_rungs_in_step() {
    let mut messages = clip(MUTE).await;
    for (n, message) in messages.iter_mut().enumerate() {
        if let Message::Video(_, FlvVideo::Nalus { data, keyframe: false, .. }) = message
            && n % 5 == 2
        {
            let mut bytes = data.contiguous().to_vec();
            let from = bytes.len() / 3;
            bytes[from..].iter_mut().for_each(|byte| *byte ^= 0x5a);
            *data = Bytes::from(bytes).into();
        }
    }
    all_in_step(&sealed(&messages));
}

#[tokio::test]
async fn keyframes_far_apart_make_independent_segments_of_the_rungs_only() {
    for gop in [300, 10_000] {
        let worker = sealed(&clip(ClipSpec { frames: 360, gop, ..MUTE }).await);
        all_in_step(&worker);
        assert!(!playlist_of(&worker.state(), &Rendition::video()).independent_segments);
        assert!(playlist_of(&worker.state(), &rendition("144p")).independent_segments);
        assert_eq!(pictures(&worker, &rendition("144p")), 360);
    }
}

#[tokio::test]
async fn one_and_120_pictures_a_second_are_encoded() {
    let slow = sealed(&clip(ClipSpec { frames: 12, fps: 1, gop: 4, ..MUTE }).await);
    all_in_step(&slow);
    let fast = sealed(&clip(ClipSpec { frames: 720, fps: 120, gop: 120, ..MUTE }).await);
    all_in_step(&fast);
    assert_eq!(pictures(&fast, &rendition("144p")), 720);
}

#[tokio::test]
async fn a_pause_and_a_jump_of_the_times_leave_the_rungs_in_step() {
    let messages = clip(MUTE).await;
    let at = |message: &Message| match message {
        Message::Video(at, _) | Message::Audio(at, _) => *at,
    };
    let mut paused = messages.clone();
    paused.retain(|message| !(3_100..5_000).contains(&at(message)));
    all_in_step(&sealed(&paused));
    let (before, after) = messages.iter().cloned().partition::<Vec<_>, _>(|message| at(message) < 4_000);
    let jumped = [before, later(after, 3_600_000)].concat();
    let worker = sealed(&jumped);
    all_in_step(&worker);
    let state = worker.state();
    assert_eq!(
        state.slots.back().unwrap().discontinuity_sequence.0,
        state.slots[0].discontinuity_sequence.0 + 1
    );
}

#[tokio::test]
async fn a_larger_picture_begins_a_new_section_behind_a_discontinuity_in_every_rung() {
    let small = clip(ClipSpec { frames: 120, ..MUTE }).await;
    let large = clip(ClipSpec { frames: 120, width: 640, height: 360, first: 120, ..MUTE }).await;
    let worker = sealed(&[small, later(large, 4_000)].concat());
    all_in_step(&worker);
    let state = worker.state();
    for name in [Rendition::video(), rendition("180p"), rendition("144p")] {
        let versions: Vec<_> = state.renditions[&name].inits.iter().map(|init| init.version).collect();
        assert_eq!(versions.len(), 2, "{name}: {versions:?}");
        assert!(versions[0] < versions[1]);
        let playlist = playlist_of(&state, &name);
        let breaks = playlist.segments.iter().filter(|segment| segment.discontinuity).count();
        assert_eq!(breaks, 1, "{name}");
    }
}

#[tokio::test]
async fn a_picture_that_becomes_smaller_than_a_rung_leaves_gaps_in_that_rung() {
    let large = clip(ClipSpec { frames: 120, ..MUTE }).await;
    let small = clip(ClipSpec { frames: 120, width: 256, height: 144, first: 120, ..MUTE }).await;
    let again = clip(ClipSpec { frames: 120, first: 240, ..MUTE }).await;
    let worker = sealed(&[large, later(small, 4_000), later(again, 8_000)].concat());
    assert_eq!(in_step(&worker, &rendition("144p")), [0; 0]);
    assert_eq!(in_step(&worker, &rendition("180p")), [1002, 1003]);
}

#[tokio::test]
async fn a_picture_that_is_smaller_than_every_rung_is_copied_alone() {
    let worker = sealed(&clip(ClipSpec { frames: 120, width: 64, height: 48, ..MUTE }).await);
    assert_eq!(worker.state().renditions.keys().collect::<Vec<_>>(), [&Rendition::video()]);
    assert_eq!(worker.segments(&Rendition::video()).len(), 2);
}

#[tokio::test]
async fn a_dead_engine_costs_the_rungs_no_picture_and_no_sound_also_between_keyframes_far_apart() {
    const SOUND: &str = "sine=frequency=440:sample_rate=44100 -ac 1 -c:a aac -b:a 64k";
    // The beginning of the open segment is a keyframe, or a picture between keyframes that ingest has begun a segment with.
    for (gop, frames) in [(30, 240), (300, 480)] {
        let factory = EngineFactory::default();
        let mut worker = Worker::new(Arc::new(factory.clone()), settings(&[180, 144]));
        let spec = ClipSpec { gop, frames, b_frames: 2, ..MUTE };
        let published = publish(&with_sound(spec, SOUND).await);
        let (before, after) = published.split_at(published.len() * 150 / frames as usize);
        let open = after[0].first_msn().unwrap();
        worker.feed_all(before);
        let begun = |worker: &Worker, name| {
            worker.parts(&rendition(name)).last().is_some_and(|(part, _)| part.msn == open)
        };
        worker.wait("parts of the open segment", |w| begun(w, "180p") && begun(w, "144p") && begun(w, "aac"));
        factory.kill();
        worker.feed_all(after);
        worker.wait("the seal", Worker::is_sealed);
        all_in_step(&worker);
        let numbers: Vec<Option<u16>> = (0..frames as u16).map(Some).collect();
        for name in [rendition("180p"), rendition("144p")] {
            let parts = worker.parts(&name);
            let shown = decode(&worker.init(&name), parts.iter().map(|(_, bytes)| bytes));
            assert_eq!(shown.iter().map(|shown| shown.number).collect::<Vec<_>>(), numbers, "{name}");
            let objects = worker.stored.iter().filter(|((of, _), _)| *of == name);
            let shown = decode(&worker.init(&name), objects.map(|(_, (_, body))| body));
            assert_eq!(shown.len(), numbers.len(), "{name}: the objects");
        }
        let aac = rendition("aac");
        assert_eq!(worker.gaps(&aac), [0; 0]);
        assert_eq!(worker.segments(&aac).len(), worker.segments(&Rendition::video()).len());
        let times: Vec<i64> = worker.parts(&aac).iter().flat_map(|(_, bytes)| times(bytes)).collect();
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] == 1024), "a frame is missing or doubled");
        assert!(times.len() as u32 >= frames * 48_000 / 30 / 1024, "{} frames", times.len());
    }
}

#[tokio::test]
async fn audio_that_not_every_player_plays_is_encoded_beside_the_copied_one() {
    for sound in [
        "sine=frequency=440:sample_rate=44100 -ac 1 -c:a aac -b:a 64k",
        "sine=frequency=440:sample_rate=48000 -ac 6 -c:a aac -b:a 192k",
    ] {
        let worker = sealed(&with_sound(MUTE, sound).await);
        all_in_step(&worker);
        let (aac, state) = (rendition("aac"), worker.state());
        let own = worker.segments(&aac);
        let numbers: Vec<u64> = own.iter().map(|(msn, _)| *msn).collect();
        assert_eq!(numbers, [1000, 1001, 1002, 1003], "{sound}: {:?}", worker.gaps(&aac));
        assert!(own[1..3].iter().all(|(_, ms)| ms.abs_diff(2000) <= 22), "{own:?}");
        let playlist = playlist_of(&state, &aac);
        assert_eq!(playlist.segments.len(), 4);
        // The parts lie beside those of the pictures.
        let count = |name: &Rendition| worker.parts(name).len();
        assert!(
            count(&aac).abs_diff(count(&Rendition::video())) <= 4,
            "{} {}",
            count(&aac),
            count(&Rendition::video())
        );
        let info = &state.renditions[&aac].inits[0].info;
        assert_eq!((info.codecs.as_str(), info.timescale), ("mp4a.40.2", 48_000));
    }
}

#[tokio::test]
async fn audio_alone_is_copied_or_encoded_and_video_may_come_late() {
    let audio_of = |messages: Vec<Message>| {
        messages.into_iter().filter(|message| matches!(message, Message::Audio(..))).collect::<Vec<_>>()
    };
    let usual = sealed(&audio_of(clip(ClipSpec { audio: true, ..MUTE }).await));
    assert_eq!(usual.state().renditions.keys().collect::<Vec<_>>(), [&Rendition::audio()]);
    let unusual = with_sound(MUTE, "sine=frequency=440:sample_rate=44100 -ac 1 -c:a aac -b:a 64k").await;
    let alone = sealed(&audio_of(unusual.clone()));
    let names: Vec<String> = alone.state().renditions.keys().map(ToString::to_string).collect();
    assert_eq!(names, ["aac", "audio"]);
    assert_eq!(alone.segments(&rendition("aac")).len(), alone.segments(&Rendition::audio()).len());
    let mut late = unusual;
    late.retain(|message| match message {
        Message::Video(at, FlvVideo::Nalus { .. }) => *at >= 3_000,
        _ => true,
    });
    let worker = sealed(&late);
    assert_eq!(in_step(&worker, &rendition("144p")), [0; 0]);
    assert!(worker.segments(&rendition("144p")).len() >= 2);
    assert_eq!(worker.segments(&rendition("aac")).len(), worker.segments(&Rendition::audio()).len());
}
