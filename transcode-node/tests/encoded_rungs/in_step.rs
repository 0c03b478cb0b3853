//! Rungs encoded by the engine are in step with the source: segments, parts and pictures.

use std::sync::Arc;

use millrace_testkit::ClipSpec;
use millrace_wire::ids::Rendition;
use millrace_wire::ladder::LadderPlan;
use millrace_wire::message::control::StreamSettings;

use super::engine::EngineFactory;
use super::pictures::{Shown, decode, start};
use super::source::{clip, publish};
use super::worker::{Worker, playlist_of, settings};

fn names(names: &[&str]) -> Vec<Rendition> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

/// Returns the job of a clip once everything is sealed.
async fn sealed(spec: ClipSpec, settings: StreamSettings) -> Worker {
    let mut worker = Worker::new(Arc::new(EngineFactory::default()), settings);
    worker.feed_all(&publish(&clip(spec).await));
    worker.wait("the seal", Worker::is_sealed);
    worker
}

fn pictures(worker: &Worker, rendition: &Rendition) -> Vec<Shown> {
    let parts = worker.parts(rendition);
    decode(&worker.init(rendition), parts.iter().map(|(_, bytes)| bytes))
}

/// The decoding time of each segment's first picture.
fn starts(worker: &Worker, rendition: &Rendition) -> Vec<i64> {
    worker
        .stored
        .iter()
        .filter(|((name, _), _)| name == rendition)
        .map(|(_, (_, body))| start(body))
        .collect()
}

#[tokio::test]
async fn every_rung_shows_each_picture_of_the_source_once_at_its_time() {
    let spec = ClipSpec { frames: 180, ..ClipSpec::default() };
    let worker = sealed(spec.clone(), settings(&[180, 144])).await;
    let source = pictures(&worker, &Rendition::video());
    let numbers: Vec<Option<u16>> = (0..spec.frames as u16).map(Some).collect();
    assert_eq!(source.iter().map(|shown| shown.number).collect::<Vec<_>>(), numbers);
    for name in names(&["180p", "144p"]) {
        assert_eq!(pictures(&worker, &name), source, "{name}");
        assert_eq!(worker.segments(&name), worker.segments(&Rendition::video()), "{name}");
        assert_eq!(starts(&worker, &name), starts(&worker, &Rendition::video()), "{name}");
        let grid = |name: &Rendition| {
            let parts = worker.parts(name);
            parts.into_iter().map(|(part, _)| (part.msn, part.part, part.duration)).collect::<Vec<_>>()
        };
        assert_eq!(grid(&name), grid(&Rendition::video()), "{name}");
        assert!(worker.parts(&name).iter().all(|(part, _)| part.independent || part.part.0 > 0));
        let playlist = playlist_of(&worker.state(), &name);
        assert!(playlist.independent_segments);
        assert_eq!(playlist.part_target, playlist_of(&worker.state(), &Rendition::video()).part_target);
    }
}

#[tokio::test]
async fn a_rung_of_half_the_frame_rate_has_the_source_s_parts_with_every_second_picture() {
    // 61 pictures to a keyframe: a segment has an odd number of them.
    let spec = ClipSpec { frames: 366, fps: 60, gop: 61, audio: false, ..ClipSpec::default() };
    let mut settings = settings(&[180, 144]);
    settings.plan = LadderPlan { halve_fps_below: Some(180), ..settings.plan };
    let worker = sealed(spec, settings).await;
    let [full, half] = &names(&["180p", "144p"])[..] else { panic!() };
    assert_eq!(pictures(&worker, full).len(), 366);
    let source = pictures(&worker, &Rendition::video());
    let shown = pictures(&worker, half);
    assert!((183..=190).contains(&shown.len()), "{}", shown.len());
    assert!(shown.iter().all(|picture| source.contains(picture)), "each at the source's time");
    assert!(shown.windows(2).all(|pair| pair[0].number < pair[1].number));
    assert_eq!(worker.segments(half), worker.segments(full));
    assert_eq!(starts(&worker, half), starts(&worker, full));
    let (of_half, of_full) = (playlist_of(&worker.state(), half), playlist_of(&worker.state(), full));
    assert_eq!(of_half.part_target, of_full.part_target);
    let state = worker.state();
    let info = &state.renditions[half].inits[0].info;
    assert!(matches!(
        info.media,
        millrace_wire::fact::TrackMedia::Video { height: 144, frame_rate_milli: Some(30_000), .. }
    ));
}

#[tokio::test]
async fn objects_of_a_rung_are_its_parts_laid_end_to_end() {
    let worker = sealed(ClipSpec { frames: 120, ..ClipSpec::default() }, settings(&[144])).await;
    let name = &names(&["144p"])[0];
    let parts: Vec<u8> = worker.parts(name).iter().flat_map(|(_, bytes)| bytes.to_vec()).collect();
    let objects = worker.stored.iter().filter(|((of, _), _)| of == name);
    let objects: Vec<u8> = objects.flat_map(|(_, (_, body))| body.to_vec()).collect();
    assert_eq!(objects, parts);
}
