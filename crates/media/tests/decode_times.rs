//! Decoding times and the ends of segments, from RTMP messages to parts.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use millrace_media::container::cmaf::demux::parse_fragments;
use millrace_media::container::flv::FlvVideo;
use millrace_media::frame::TrackKind;
use millrace_media::packager::Output;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use support::*;

const TRACKS: [TrackKind; 2] = [TrackKind::Video, TrackKind::Audio];
/// The frame time of [`Source::default`] in 90 kHz ticks.
const FRAME: i64 = 3_000;

/// One sample of a track as a player sees it: times in ticks of the track, and its duration.
struct Sample {
    dts: i64,
    pts: i64,
    duration: i64,
}

fn samples_of(outputs: &[Output], track: TrackKind) -> Vec<Sample> {
    let fragments = parts(outputs, track)
        .into_iter()
        .flat_map(|part| parse_fragments(&part.body.contiguous()).unwrap())
        .collect::<Vec<_>>();
    let samples = fragments.iter().flat_map(|fragment| &fragment.samples);
    samples
        .map(|sample| Sample {
            dts: sample.dts,
            pts: sample.dts + i64::from(sample.cts),
            duration: i64::from(sample.duration),
        })
        .collect()
}

/// Checks what Media Source Extensions ask of a track: each sample begins where the one before it ended,
/// over parts and segments, and none is tiny.
fn check_contiguous(outputs: &[Output], shortest: i64) {
    let target = outputs.iter().find_map(|output| match output {
        Output::Timing { timing, .. } => Some(i64::from(timing.part_target)),
        _ => None,
    });
    for part in parts(outputs, TrackKind::Video) {
        assert!(
            i64::from(part.duration) <= target.unwrap(),
            "{}.{} of {}",
            part.msn,
            part.part,
            part.duration
        );
    }
    let samples = samples_of(outputs, TrackKind::Video);
    for pair in samples.windows(2) {
        assert_eq!(pair[0].dts + pair[0].duration, pair[1].dts, "a hole at {}", pair[1].dts);
    }
    for sample in &samples {
        assert!(sample.duration >= shortest, "{} ticks at {}", sample.duration, sample.dts);
    }
}

/// Packages the messages; returns the outputs and the presentation times as the source meant them.
fn packaged(messages: Vec<Message>) -> (Vec<Output>, Vec<i64>) {
    let mut ingest = Ingest::new(config());
    let mut exact = Vec::new();
    let mut events = Vec::new();
    for message in messages {
        ingest.feed(message);
        while let Some(event) = ingest.timeline.poll() {
            if let millrace_media::timeline::TimelineEvent::Frame {
                frame: millrace_media::frame::MediaFrame::Video(picture),
                ..
            } = &event
            {
                exact.push(picture.pts());
            }
            ingest.segmenter.push(event);
        }
        events.extend(std::iter::from_fn(|| ingest.segmenter.poll()));
    }
    (package(MEASURE, events, true).0, exact)
}

fn without_pictures(source: &Source, lost: std::ops::Range<usize>) -> Vec<Message> {
    let mut number = 0;
    let mut messages = source.messages();
    messages.retain(|message| {
        let Message::Video(_, FlvVideo::Nalus { .. }) = message else { return true };
        number += 1;
        !lost.contains(&(number - 1))
    });
    messages
}

/// A keyframe is lost in none of them, so every other picture can be shown.
#[test]
fn losses_at_every_position_of_a_part_leave_decode_times_contiguous() {
    for b_frames in [false, true] {
        for count in [1, 2, 3, 6] {
            for first in 61..91 {
                let source = Source { seconds: 6.0, b_frames, ..Source::default() };
                let (outputs, exact) = packaged(without_pictures(&source, first..first + count));
                check_contiguous(&outputs, FRAME / 2);
                let shown: Vec<i64> =
                    samples_of(&outputs, TrackKind::Video).iter().map(|sample| sample.pts).collect();
                assert_eq!(shown, exact, "{first} {count}");
            }
        }
    }
}

#[test]
fn losses_up_to_a_keyframe_leave_decode_times_contiguous_over_the_segments() {
    for count in 1..8 {
        let source = Source { seconds: 8.0, ..Source::default() };
        let (outputs, exact) = packaged(without_pictures(&source, 120 - count..120));
        check_contiguous(&outputs, FRAME / 2);
        assert_eq!(samples_of(&outputs, TrackKind::Video).len(), exact.len());
        assert!(ends(&outputs, TrackKind::Video).iter().all(|end| end.head.independent));
    }
}

#[test]
fn jitter_of_30_ms_and_variable_frame_rates_leave_decode_times_contiguous() {
    for seed in 0..40 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let source = Source {
            seconds: 12.0,
            fps: Some([24.0, 25.0, 29.97, 30.0, 60.0][rng.random_range(0..5)]),
            jitter: (0..29).map(|_| rng.random_range(-30..=30)).collect(),
            ..Source::default()
        };
        let (outputs, _) = packaged(source.messages());
        check_contiguous(&outputs, FRAME / 10);
        // Every seventh picture is left out, as `select=not(mod(n,7))` does.
        let mut number = 0;
        let mut messages = Source { seconds: 12.0, b_frames: false, ..Source::default() }.messages();
        messages.retain(|message| {
            let Message::Video(_, FlvVideo::Nalus { keyframe, .. }) = message else { return true };
            number += 1;
            *keyframe || (number + seed) % 7 != 0
        });
        let (outputs, exact) = packaged(messages);
        check_contiguous(&outputs, FRAME / 2);
        let shown: Vec<i64> = samples_of(&outputs, TrackKind::Video).iter().map(|s| s.pts).collect();
        assert_eq!(shown, exact);
    }
}

/// Every part that is not the last of its segment is followed by another one, so a player that asks for
/// it ahead of time gets it.
fn broken_hints(outputs: &[Output], track: TrackKind) -> Vec<(u64, u32)> {
    let parts = parts(outputs, track);
    let newest = parts.last().unwrap();
    let exists = |msn, part| parts.iter().any(|other| (other.msn, other.part) == (msn, part));
    parts
        .iter()
        .filter(|part| (part.msn, part.part) != (newest.msn, newest.part))
        .filter(|part| {
            let hinted = if part.last { (part.msn + 1, 0) } else { (part.msn, part.part + 1) };
            !exists(hinted.0, hinted.1)
        })
        .map(|part| (part.msn, part.part))
        .collect()
}

#[test]
fn part_that_follows_is_known_at_the_end_of_every_part() {
    for (fps, gop) in
        [(30.0, 60), (30.0, 30), (25.0, 50), (29.97, 60), (60.0, 120), (30.0, 72), (30.0, 250), (24.0, 48)]
    {
        for rate in [48_000, 44_100] {
            let source = Source { seconds: 30.0, fps: Some(fps), gop, rate: Some(rate), ..Source::default() };
            let (outputs, _) = packaged(source.messages());
            for track in TRACKS {
                assert_eq!(broken_hints(&outputs, track), [], "{fps} {gop} {rate} {track}");
            }
        }
    }
    for fps in [None, Some(30.0)] {
        let rate = fps.is_none().then_some(48_000);
        let (outputs, _) = packaged(Source { seconds: 30.0, fps, rate, ..Source::default() }.messages());
        let track = if fps.is_some() { TrackKind::Video } else { TrackKind::Audio };
        assert_eq!(broken_hints(&outputs, track), []);
    }
}

#[test]
fn only_the_last_part_of_a_segment_waits_for_the_next_picture() {
    let source = Source { seconds: 20.0, ..Source::default() };
    let (outputs, _) = packaged(source.messages());
    let parts = parts(&outputs, TrackKind::Video);
    assert_eq!(parts.iter().filter(|part| part.last).count(), 10);
    assert!(parts.iter().all(|part| part.duration == 18_000), "all parts are equal");
}

/// Pictures for 6 s, then sound alone for 6 s, then pictures.
fn paused(from_ms: u32, to_ms: u32, seconds: f64) -> Vec<Message> {
    let mut messages = Source { seconds, b_frames: false, ..Source::default() }.messages();
    messages.retain(|message| {
        !matches!(message, Message::Video(ms, FlvVideo::Nalus { .. }) if (from_ms..to_ms).contains(ms))
    });
    messages
}

#[test]
fn last_picture_stands_while_pictures_pause_and_both_tracks_go_on() {
    for (from, to) in [(6_000, 12_000), (6_067, 12_100), (6_100, 9_000), (6_180, 8_000), (40, 18_000)] {
        let (outputs, _) = packaged(paused(from, to, 20.0));
        check_contiguous(&outputs, FRAME / 2);
        assert!(ends(&outputs, TrackKind::Video).iter().all(|end| !end.gap), "{from}");
        // At every part of audio, the pictures are less than half a second behind.
        let (mut shown, mut heard) = (0.0, 0.0);
        for output in &outputs {
            let Output::Part(part) = output else { continue };
            let end = part.timescale.seconds(part.start + i64::from(part.duration));
            match part.track {
                TrackKind::Video => shown = end,
                TrackKind::Audio => heard = end,
            }
            assert!(shown == 0.0 || heard - shown < 0.5, "{from}: pictures to {shown}, sound to {heard}");
        }
        let times = samples_of(&outputs, TrackKind::Video);
        let mut shown: Vec<i64> = times.iter().map(|sample| sample.pts).collect();
        shown.sort_unstable();
        assert!(shown.windows(2).all(|pair| pair[1] - pair[0] <= 22_500 + 2 * FRAME), "{from}");
    }
}

#[test]
fn cover_picture_with_sound_can_be_joined_at_every_segment() {
    let (outputs, _) = packaged(paused(1, 60_000, 30.0));
    check_contiguous(&outputs, FRAME / 2);
    let video = ends(&outputs, TrackKind::Video);
    assert!(video.len() >= 13 && video.iter().all(|end| end.head.independent && !end.gap));
}

#[test]
fn slow_cameras_have_parts_of_the_usual_length() {
    for (fps, rate) in [(0.5, Some(48_000)), (1.0, Some(48_000)), (2.0, None), (1.0, None)] {
        let source =
            Source { seconds: 30.0, fps: Some(fps), gop: 1, b_frames: false, rate, ..Source::default() };
        let (outputs, exact) = packaged(source.messages());
        check_contiguous(&outputs, 100);
        let shown: Vec<i64> =
            samples_of(&outputs, TrackKind::Video).iter().map(|sample| sample.pts).collect();
        assert!(exact.iter().all(|pts| shown.contains(pts)), "{fps}: every picture at its time");
        assert!(ends(&outputs, TrackKind::Video).iter().all(|end| !end.gap));
    }
}
