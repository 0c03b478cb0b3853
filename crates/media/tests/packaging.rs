//! From tagged frames to CMAF parts.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::collections::HashMap;

use bytes::Bytes;
use millrace_media::container::cmaf::demux::{parse_fragments, parse_init};
use millrace_media::frame::{MediaEvent, MediaFrame, TrackKind};
use millrace_media::packager::{Output, PartSetup, PartTiming, SegmentEnd};
use millrace_media::repair::Repair;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use support::*;

const TRACKS: [TrackKind; 2] = [TrackKind::Video, TrackKind::Audio];

fn timings(outputs: &[Output]) -> Vec<(u64, PartTiming)> {
    outputs
        .iter()
        .filter_map(|output| match output {
            Output::Timing { from_msn, timing } => Some((*from_msn, *timing)),
            _ => None,
        })
        .collect()
}

/// Checks the rules that hold for every stream.
fn check(outputs: &[Output], events: &[MediaEvent]) {
    check_media(outputs, events);
    for end in TRACKS.into_iter().flat_map(|track| ends(outputs, track)) {
        let seconds = end.head.timescale.seconds(end.duration as i64);
        assert!((seconds + 0.5).floor() <= 4.0, "{:?}: {seconds} s", end.head);
    }
}

/// Checks the rules that hold for every stream but for the length of segments.
fn check_media(outputs: &[Output], events: &[MediaEvent]) {
    let target = timings(outputs)[0].1.part_target;
    assert!(timings(outputs).iter().all(|(_, timing)| timing.part_target == target), "PART-TARGET is frozen");
    for track in TRACKS {
        let data: Vec<Bytes> = samples(outputs, track).into_iter().map(|sample| sample.3).collect();
        assert!(data == frame_data(events, track), "{track}: every frame, once, in order");
        check_parts(outputs, track, target);
        check_segments(outputs, track);
    }
    for (out, event) in samples(outputs, TrackKind::Video).iter().zip(pictures(events)) {
        assert_eq!((out.1, out.2), (event.pts(), event.sync.is_join()), "presentation times are exact");
    }
}

fn pictures(events: &[MediaEvent]) -> Vec<millrace_media::frame::AccessUnit> {
    events
        .iter()
        .filter_map(|event| match event {
            MediaEvent::Frame(tagged) => match &tagged.frame {
                MediaFrame::Video(picture) => Some(picture.clone()),
                MediaFrame::Audio(_) => None,
            },
            MediaEvent::Init { .. } => None,
        })
        .collect()
}

fn check_parts(outputs: &[Output], track: TrackKind, target: u32) {
    let mut last: Option<(u64, u32, i64, u32)> = None;
    for part in parts(outputs, track) {
        let scale = part.timescale.ticks_per_second();
        assert!(
            u64::from(part.duration) * 90_000 <= u64::from(target) * u64::from(scale),
            "{track} {}.{} of {} exceeds {target}",
            part.msn,
            part.part,
            part.duration
        );
        let fragments = parse_fragments(&part.body.contiguous()).unwrap();
        assert_eq!(fragments.len(), 1);
        assert_eq!((fragments[0].start, fragments[0].duration()), (part.start, u64::from(part.duration)));
        assert_eq!(fragments[0].samples.len(), part.samples as usize);
        assert_eq!(fragments[0].samples[0].sync, part.independent);
        if let Some((msn, index, end, sequence)) = last {
            let follows = (part.msn == msn && part.part == index + 1) || (part.msn > msn && part.part == 0);
            assert!(follows, "{track} {}.{} after {msn}.{index}", part.msn, part.part);
            assert!(part.msn > msn || part.start >= end, "no overlap within a segment");
            assert!(fragments[0].sequence > sequence);
        }
        last = Some((part.msn, part.part, part.start + i64::from(part.duration), fragments[0].sequence));
    }
}

fn check_segments(outputs: &[Output], track: TrackKind) {
    let ends = ends(outputs, track);
    assert!(ends.windows(2).all(|pair| pair[1].head.msn == pair[0].head.msn + 1));
    for end in ends {
        let of = |part: &&millrace_media::packager::Part| part.msn == end.head.msn;
        let parts: Vec<_> = parts(outputs, track).into_iter().filter(of).collect();
        assert_eq!(parts.len(), end.parts as usize);
        assert_eq!(parts.iter().map(|part| part.body.len() as u64).sum::<u64>(), end.bytes);
        assert_eq!(end.gap, parts.is_empty());
        if let (Some(first), Some(last)) = (parts.first(), parts.last()) {
            assert_eq!(first.start, end.head.start);
            assert_eq!(end.duration as i64, last.start + i64::from(last.duration) - first.start);
        }
    }
}

/// Parts before a segment's last one that miss 85 % of PART-TARGET.
fn short_parts(outputs: &[Output], track: TrackKind) -> Vec<(u64, u32, u32)> {
    let target = f64::from(timings(outputs)[0].1.part_target) / 90_000.0;
    let counts: HashMap<u64, u32> =
        ends(outputs, track).iter().map(|end| (end.head.msn, end.parts)).collect();
    parts(outputs, track)
        .into_iter()
        .filter(|part| counts.get(&part.msn).is_some_and(|count| part.part + 1 < *count))
        .filter(|part| part.timescale.seconds(i64::from(part.duration)) < 0.85 * target)
        .map(|part| (part.msn, part.part, part.duration))
        .collect()
}

/// True if the part has the nominal duration; 30 is told from 29.97 pictures per second after a while.
fn is_full(part: &millrace_media::packager::Part, timing: PartTiming) -> bool {
    (i64::from(part.duration) - timing.part_ticks()).abs() * 500 <= timing.part_ticks()
}

#[test]
fn parts_are_equal_and_audio_parts_follow_video_parts() {
    for (fps, rate) in [(30.0, 48_000), (25.0, 44_100), (60.0, 48_000), (29.97, 44_100), (24.0, 32_000)] {
        let source =
            Source { fps: Some(fps), gop: (fps * 2.0) as u32, rate: Some(rate), ..Source::default() };
        let (events, _) = segment(source.messages(), config());
        let (outputs, packager) = package(MEASURE, events.clone(), true);
        check(&outputs, &events);
        assert_eq!(packager.repairs().get(Repair::LateFrame), 0);
        let timing = packager.timing().unwrap();
        let audio_frames = (timing.part_ticks() as u64 * u64::from(rate)).div_ceil(1024 * 90_000);
        let longest_audio = (audio_frames * 1024 * 90_000).div_ceil(u64::from(rate));
        assert_eq!(u64::from(timing.part_target), longest_audio.max(timing.part_ticks() as u64));
        for track in TRACKS {
            assert_eq!(short_parts(&outputs, track), [], "{fps} {track}");
        }
        let video: Vec<_> = parts(&outputs, TrackKind::Video);
        let full = video.iter().filter(|part| is_full(part, timing)).count();
        assert!(full * 10 >= video.len() * 8, "{full} of {}", video.len());
        for end in ends(&outputs, TrackKind::Audio).iter().rev().skip(1) {
            let video =
                ends(&outputs, TrackKind::Video).into_iter().find(|v| v.head.msn == end.head.msn).unwrap();
            assert!(end.parts.abs_diff(video.parts) <= 1);
            let length = |end: &SegmentEnd| end.head.timescale.seconds(end.duration as i64);
            assert!((length(end) - length(&video)).abs() < 0.05);
        }
    }
}

#[test]
fn part_closes_with_its_last_frame_unless_the_segment_may_end_there() {
    let (events, _) = segment(Source::default().messages(), config());
    for (part_ms, frames_per_part) in [(200, 6), (333, 10), (1_000, 30)] {
        let mut packager = millrace_media::packager::Packager::new(PartSetup::Measure { part_ms });
        let mut frames = 0;
        let mut closed = Vec::new();
        for event in events.clone() {
            frames += u32::from(
                matches!(&event, MediaEvent::Frame(tagged) if tagged.frame.track() == TrackKind::Video),
            );
            packager.push(event);
            while let Some(output) = packager.poll() {
                if matches!(&output, Output::Part(part) if part.track == TrackKind::Video) {
                    closed.push(frames);
                }
            }
        }
        // The last part of a segment waits for the next picture, which shows that it is the last.
        let full = (1..300 / frames_per_part).map(|n| n * frames_per_part);
        let expected: Vec<u32> = full.map(|frames| frames + u32::from(frames % 60 == 0)).collect();
        assert_eq!(closed, expected, "{part_ms} ms");
    }
}

/// Parts of the setting's length: equal, within 85 % of PART-TARGET, never above it.
#[test]
fn parts_heed_the_setting_at_either_end_of_its_range() {
    for part_ms in [200, 1_000] {
        for (fps, rate) in [(30.0, 48_000), (25.0, 44_100), (60.0, 48_000), (29.97, 44_100), (24.0, 32_000)] {
            let source =
                Source { fps: Some(fps), gop: (fps * 2.0) as u32, rate: Some(rate), ..Source::default() };
            let (events, _) = segment(source.messages(), config());
            let (outputs, packager) = package(PartSetup::Measure { part_ms }, events.clone(), true);
            check(&outputs, &events);
            let timing = packager.timing().unwrap();
            let aim = i64::from(part_ms) * 90;
            assert!(
                (timing.part_ticks() - aim).abs() * 2 <= i64::from(timing.frame_ticks),
                "{part_ms} {fps}"
            );
            for track in TRACKS {
                assert_eq!(short_parts(&outputs, track), [], "{part_ms} {fps} {track}");
            }
            let video = parts(&outputs, TrackKind::Video);
            let equal = video.iter().filter(|part| is_full(part, timing)).count();
            // Every segment may end with a shorter part.
            let ends = ends(&outputs, TrackKind::Video).len();
            assert!(equal + ends >= video.len(), "{part_ms} {fps}: {equal} of {}", video.len());
            check_replacements_with(PartSetup::Measure { part_ms }, &events);
        }
    }
}

#[test]
fn init_segments_are_valid_and_come_once_per_version() {
    let (events, ingest) = segment(Source::default().messages(), config());
    let again: Vec<MediaEvent> = ingest.segmenter.inits().collect();
    let (outputs, _) = package(MEASURE, again.into_iter().chain(events), true);
    let inits: Vec<_> = outputs
        .iter()
        .filter_map(|output| if let Output::Init(init) = output { Some(init) } else { None })
        .collect();
    assert_eq!(inits.len(), 2);
    let video = parse_init(&inits[0].bytes).unwrap();
    assert_eq!((video.timescale, &video.handler, &video.sample_entry), (90_000, b"vide", b"avc1"));
    let audio = parse_init(&inits[1].bytes).unwrap();
    assert_eq!((audio.timescale, &audio.handler, &audio.sample_entry), (48_000, b"soun", b"mp4a"));
}

/// The FNV-1a hash of more bytes.
fn hash(start: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A worker of this release and one of another must write the same bytes under one name, so they never change for H.264,
/// AAC and a given timing.
#[test]
fn packaged_bytes_are_those_of_the_first_release() {
    const START: u64 = 0xcbf2_9ce4_8422_2325;
    let timing = PartTiming { init_version: Some(0), frame_ticks: 3_000, frames: 10, part_target: 31_920 };
    let source = Source { jitter: vec![0, 1, -1, 2], ..Source::default() };
    let (events, _) = segment(source.messages(), config());
    let (outputs, _) = package(PartSetup::Resume(timing), events, true);
    let (mut inits, mut parts) = (START, START);
    for output in &outputs {
        match output {
            Output::Init(init) => inits = hash(inits, &init.bytes),
            Output::Part(part) => parts = hash(parts, &part.body.contiguous()),
            _ => {}
        }
    }
    assert_eq!((inits, parts), (0x028b_b57d_faa9_09f7, 0xce16_40d3_8148_e821));
}

/// Bytes of every part by name.
fn named(outputs: &[Output]) -> HashMap<(TrackKind, u64, u32), Bytes> {
    TRACKS
        .into_iter()
        .flat_map(|track| parts(outputs, track))
        .map(|part| ((part.track, part.msn, part.part), part.body.contiguous()))
        .collect()
}

/// Checks that a replacement with the same timing that starts at any boundary makes the same bytes
/// and ends.
fn check_replacements(events: &[MediaEvent]) {
    check_replacements_with(MEASURE, events);
}

fn check_replacements_with(setup: PartSetup, events: &[MediaEvent]) {
    let (reference, _) = package(setup, events.to_vec(), true);
    let names = named(&reference);
    for (at, event) in events.iter().enumerate() {
        let MediaEvent::Frame(tagged) = event else { continue };
        if !tagged.tag.boundary {
            continue;
        }
        let msn = tagged.tag.msn;
        let handed = timings(&reference).into_iter().rfind(|(from, _)| *from <= msn).unwrap().1;
        let before = events[..at].iter();
        let inits: Vec<_> =
            before.filter(|event| matches!(event, MediaEvent::Init { .. })).cloned().collect();
        let (outputs, _) =
            package(PartSetup::Resume(handed), inits.into_iter().chain(events[at..].to_vec()), true);
        let again = named(&outputs);
        let expected = names.keys().filter(|name| name.1 >= msn).count();
        assert_eq!(again.len(), expected, "from {msn}");
        assert!(again.iter().all(|(name, bytes)| names[name] == bytes), "from {msn}");
        for track in TRACKS {
            let skip = |end: &SegmentEnd| end.head.msn < msn;
            let old: Vec<_> = ends(&reference, track).into_iter().skip_while(skip).collect();
            assert_eq!(ends(&outputs, track), old, "from {msn}");
        }
    }
}

#[test]
fn replacement_with_the_timing_goes_on_byte_for_byte() {
    for fps in [25.0, 29.97, 60.0] {
        let source = Source { fps: Some(fps), jitter: vec![0, 1, -1, 2], seconds: 20.0, ..Source::default() };
        let (events, _) = segment(source.messages(), config());
        check_replacements(&events);
    }
    let (events, _) = segment(Source { gop: 250, seconds: 30.0, ..Source::default() }.messages(), config());
    check_replacements(&events);
    let (events, _) = segment(Source { fps: None, ..Source::default() }.messages(), config());
    check_replacements(&events);
    let (events, _) = segment(Source { rate: None, ..Source::default() }.messages(), config());
    check_replacements(&events);
}

#[test]
fn parts_of_audio_alone_keep_the_rules() {
    for rate in [48_000, 44_100, 22_050, 16_000] {
        let (events, _) =
            segment(Source { fps: None, rate: Some(rate), ..Source::default() }.messages(), config());
        let (outputs, _) = package(MEASURE, events.clone(), true);
        check(&outputs, &events);
        assert_eq!(short_parts(&outputs, TrackKind::Audio), [], "{rate}");
        assert!(ends(&outputs, TrackKind::Video).is_empty());
    }
}

#[test]
fn pauses_of_pictures_become_no_gaps() {
    let messages: Vec<_> = Source { seconds: 30.0, ..Source::default() }
        .messages()
        .into_iter()
        .filter(|m| !matches!(m, Message::Video(ms, _) if (5_000..20_000).contains(ms)))
        .collect();
    let (events, _) = segment(messages, config());
    let (outputs, _) = package(MEASURE, events.clone(), true);
    check(&outputs, &events);
    check_replacements(&events);
    let gaps = ends(&outputs, TrackKind::Video).into_iter().filter(|end| end.gap).count();
    assert_eq!(gaps, 0, "the last picture stands");
    assert!(ends(&outputs, TrackKind::Audio).iter().all(|end| !end.gap));
    let video = ends(&outputs, TrackKind::Video).iter().map(|end| end.head.msn).collect::<Vec<_>>();
    let audio = ends(&outputs, TrackKind::Audio).iter().map(|end| end.head.msn).collect::<Vec<_>>();
    assert_eq!(video, audio);
}

/// The header of audio for which no silence is known.
fn surround() -> Message {
    let asc = millrace_media::codec::aac::AudioSpecificConfig::aac_lc(48_000, 6).unwrap();
    Message::Audio(0, millrace_media::container::flv::FlvAudio::SequenceHeader(asc))
}

#[test]
fn absent_audio_without_a_silent_frame_becomes_gaps() {
    let is_header = |m: &Message| {
        matches!(m, Message::Audio(_, millrace_media::container::flv::FlvAudio::SequenceHeader(_)))
    };
    let messages: Vec<_> = Source { seconds: 20.0, ..Source::default() }
        .messages()
        .into_iter()
        .filter(|m| !matches!(m, Message::Audio(ms, _) if (3_000..13_000).contains(ms)))
        .map(|m| if is_header(&m) { surround() } else { m })
        .collect();
    let (events, _) = segment(messages, config());
    let (outputs, _) = package(MEASURE, events.clone(), true);
    check(&outputs, &events);
    check_replacements(&events);
    let audio = ends(&outputs, TrackKind::Audio);
    let gaps: Vec<u64> = audio.iter().filter(|end| end.gap).map(|end| end.head.msn).collect();
    assert_eq!(gaps, [102, 103, 104, 105]);
    assert!(audio.iter().filter(|end| end.gap).all(|end| end.duration == 96_000), "two seconds each");
    assert_eq!(audio.len(), ends(&outputs, TrackKind::Video).len());
}

#[test]
fn video_that_joins_audio_is_measured_with_the_same_part_target() {
    let messages: Vec<_> = Source { seconds: 20.0, ..Source::default() }
        .messages()
        .into_iter()
        .filter(|m| {
            !matches!(m, Message::Video(ms, video) if *ms < 7_900
            && !matches!(video, millrace_media::container::flv::FlvVideo::SequenceHeader(_)))
        })
        .collect();
    let header = messages.iter().position(|m| matches!(m, Message::Video(..))).unwrap();
    for announced in [true, false] {
        let mut messages = messages.clone();
        if !announced {
            let header = messages.remove(header);
            let first = messages.iter().position(|m| matches!(m, Message::Video(..))).unwrap();
            messages.insert(first, header);
        }
        let (events, _) = segment(messages, config());
        let (outputs, _) = package(MEASURE, events.clone(), true);
        check(&outputs, &events);
        check_replacements(&events);
        assert_eq!(timings(&outputs).last().unwrap().1.init_version, Some(0));
        let video = ends(&outputs, TrackKind::Video);
        let joined = video.iter().find(|end| !end.gap).unwrap().head;
        assert!(joined.independent);
        assert_eq!(joined.discontinuity, !announced, "announced video is waited for");
    }
}

#[test]
fn changing_frame_rate_never_exceeds_part_target() {
    for (slow, fast) in [(30.0, 5.0), (30.0, 1.0), (60.0, 24.0), (15.0, 60.0), (30.0, 120.0)] {
        let mut messages =
            Source { fps: Some(slow), gop: 1_000_000, seconds: 6.0, ..Source::default() }.messages();
        let then = Source { fps: Some(fast), gop: 1_000_000, seconds: 20.0, ..Source::default() }.messages();
        messages.extend(then.into_iter().filter(|m| {
            let (Message::Video(ms, _) | Message::Audio(ms, _)) = m;
            *ms >= 6_000
        }));
        let (events, _) = segment(messages, config());
        let (outputs, _) = package(MEASURE, events.clone(), true);
        check(&outputs, &events);
        check_replacements(&events);
    }
}

#[test]
fn new_epoch_of_another_frame_rate_keeps_part_target() {
    let (events, _) = segment(Source::default().messages(), config());
    let (outputs, _) = package(MEASURE, events, true);
    let part_target = timings(&outputs)[0].1.part_target;
    for fps in [5.0, 24.0, 25.0, 50.0, 60.0] {
        let source = Source { fps: Some(fps), gop: (2.0 * fps) as u32, ..Source::default() };
        let (events, _) = segment(source.messages(), config());
        let (outputs, packager) = package(PartSetup::Frozen { part_target }, events.clone(), true);
        check(&outputs, &events);
        assert_eq!(packager.timing().unwrap().part_target, part_target);
    }
}

#[test]
fn new_configuration_is_measured_with_the_same_part_target() {
    let mut messages = Source::default().messages();
    let at = messages.iter().position(|m| matches!(m, Message::Video(ms, _) if *ms >= 3_990)).unwrap();
    messages.insert(
        at,
        Message::Video(3_990, millrace_media::container::flv::FlvVideo::SequenceHeader(avcc(OTHER_PPS))),
    );
    let (events, _) = segment(messages, config());
    let (outputs, _) = package(MEASURE, events.clone(), true);
    check(&outputs, &events);
    check_replacements(&events);
    assert_eq!(
        timings(&outputs).iter().map(|(_, timing)| timing.init_version).collect::<Vec<_>>(),
        [Some(0), Some(1)]
    );
    let marked: Vec<_> =
        ends(&outputs, TrackKind::Audio).into_iter().filter(|end| end.head.discontinuity).collect();
    assert_eq!(marked.len(), 1);
    assert_eq!(marked[0].head.init_version, 0, "audio keeps its init");
}

#[test]
fn packager_emits_every_frame_at_the_end() {
    for seconds in [0.05, 0.1, 0.4, 1.9, 2.1] {
        let (events, _) = segment(Source { seconds, ..Source::default() }.messages(), config());
        let (outputs, _) = package(MEASURE, events.clone(), true);
        check(&outputs, &events);
    }
}

#[test]
fn parts_share_the_memory_of_their_frames() {
    let (events, _) = segment(Source::default().messages(), config());
    let (outputs, _) = package(MEASURE, events.clone(), true);
    let part = parts(&outputs, TrackKind::Video)[0];
    let first = &frame_data(&events, TrackKind::Video)[0];
    assert_eq!(part.body.iter().nth(1).unwrap().as_ptr(), first.as_ptr());
}

/// Random streams; set `MILLRACE_SEED` to replay one.
#[test]
fn packager_keeps_its_rules_for_random_streams() {
    let seeds = match std::env::var("MILLRACE_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..200).collect::<Vec<u64>>(),
    };
    for seed in seeds {
        println!("seed {seed}");
        let mut rng = SmallRng::seed_from_u64(seed);
        let source = Source {
            start_ms: rng.random_range(0..1 << 32),
            seconds: rng.random_range(1.0..14.0),
            fps: (rng.random_range(0..8) > 0).then(|| rng.random_range(3.0..70.0)),
            gop: rng.random_range(1..300),
            b_frames: rng.random(),
            rate: Some([48_000, 44_100, 32_000, 8_000][rng.random_range(0..4)]),
            jitter: (0..17).map(|_| rng.random_range(-15..=15)).collect(),
            ..Source::default()
        };
        let mut messages = source.messages();
        let loss = rng.random_range(0..10);
        messages.retain(|m| {
            matches!(m, Message::Video(_, millrace_media::container::flv::FlvVideo::SequenceHeader(_)))
                || matches!(m, Message::Audio(_, millrace_media::container::flv::FlvAudio::SequenceHeader(_)))
                || rng.random_range(0..100) >= loss
        });
        let (events, _) = segment(messages, config());
        if !events.iter().any(|event| matches!(event, MediaEvent::Frame(_))) {
            continue;
        }
        let (outputs, packager) = package(MEASURE, events.clone(), true);
        check(&outputs, &events);
        assert_eq!(packager.repairs().get(Repair::LateFrame), 0);
        check_replacements(&events);
    }
}

/// Messages with any timestamps, offsets and order; set `MILLRACE_SEED` to replay one.
#[test]
fn packager_survives_any_timestamps_and_order() {
    use millrace_media::container::flv::{FlvAudio, FlvVideo};
    let seeds = match std::env::var("MILLRACE_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..300).collect::<Vec<u64>>(),
    };
    for seed in seeds {
        println!("seed {seed}");
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut messages = vec![Message::Video(0, FlvVideo::SequenceHeader(avcc(PPS))), surround()];
        let mut time: u32 = rng.random();
        for number in 0..rng.random_range(1..600) {
            time = match rng.random_range(0..100) {
                0 => rng.random(),
                1 => time.wrapping_sub(rng.random_range(0..5_000)),
                2 => time.wrapping_add(rng.random_range(0..5_000)),
                _ => time.wrapping_add(rng.random_range(0..60)),
            };
            messages.push(match rng.random_range(0..40) {
                0 => Message::Video(time, FlvVideo::SequenceHeader(avcc([PPS, OTHER_PPS][number % 2]))),
                1 => {
                    let rate = [48_000, 44_100, 8_000][rng.random_range(0..3)];
                    let channels = rng.random_range(1..=6);
                    let asc =
                        millrace_media::codec::aac::AudioSpecificConfig::aac_lc(rate, channels).unwrap();
                    Message::Audio(time, FlvAudio::SequenceHeader(asc))
                }
                2 => Message::Video(time, FlvVideo::EndOfSequence),
                3..20 => Message::Audio(time, audio_frame(number as u32)),
                _ => {
                    let cts = [0, 40, rng.random_range(-8_388_608..8_388_608)][rng.random_range(0..3)];
                    Message::Video(time, access_unit(number as u32, rng.random_range(0..20) == 0, cts))
                }
            });
        }
        let (events, _) = segment(messages, config());
        if !events.iter().any(|event| matches!(event, MediaEvent::Frame(_))) {
            continue;
        }
        let (outputs, packager) = package(MEASURE, events.clone(), true);
        assert_eq!(packager.repairs().get(Repair::LateFrame), 0);
        check(&outputs, &events);
        check_replacements(&events);
    }
}
