//! From RTMP messages to tagged frames.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use bytes::Bytes;
use millrace_media::frame::{MediaEvent, MediaFrame, TaggedFrame, TrackKind};
use millrace_media::repair::Repair;
use millrace_media::segmenter::SEGMENT_AIM;
use millrace_media::time::Timescale;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use support::*;

fn tagged_frames(events: &[MediaEvent]) -> Vec<&TaggedFrame> {
    events
        .iter()
        .filter_map(|event| match event {
            MediaEvent::Frame(tagged) => Some(tagged),
            MediaEvent::Init { .. } => None,
        })
        .collect()
}

fn time(frame: &MediaFrame, rate: u32) -> i64 {
    match frame {
        MediaFrame::Video(picture) => picture.dts,
        MediaFrame::Audio(frame) => Timescale::of_rate(rate).convert(frame.pts, Timescale::VIDEO),
    }
}

/// (msn, time, independent, discontinuity) of every boundary.
fn boundaries(events: &[MediaEvent], rate: u32) -> Vec<(u64, i64, bool, bool)> {
    tagged_frames(events)
        .into_iter()
        .filter(|tagged| tagged.tag.boundary)
        .map(|u| (u.tag.msn, time(&u.frame, rate), u.tag.independent, u.tag.discontinuity))
        .collect()
}

/// Checks the rules that hold for every stream.
fn check(events: &[MediaEvent], rate: u32, target: u32) {
    let boundaries = boundaries(events, rate);
    for pair in boundaries.windows(2) {
        assert_eq!(pair[1].0, pair[0].0 + 1, "numbers grow by one");
        assert!(pair[1].1 > pair[0].1);
    }
    let (mut open, mut last) = (None, [(0u64, i64::MIN); 2]);
    for tagged in tagged_frames(events) {
        if tagged.tag.boundary {
            open = Some(tagged.tag.msn);
        }
        let (open, slot) = (open.unwrap(), &mut last[usize::from(tagged.frame.track() == TrackKind::Audio)]);
        let native = match &tagged.frame {
            MediaFrame::Video(picture) => picture.dts,
            MediaFrame::Audio(frame) => frame.pts,
        };
        assert!(tagged.tag.msn == open || tagged.tag.msn + 1 == open, "{tagged:?} in {open}");
        assert!(tagged.tag.msn >= slot.0 && native > slot.1, "{tagged:?} after {slot:?}");
        *slot = (tagged.tag.msn, native);
        let start = boundaries.iter().find(|b| b.0 == tagged.tag.msn).unwrap().1;
        // EXTINF is rounded before it is compared: audio may run a little ahead of the picture that
        // cuts.
        assert!(
            time(&tagged.frame, rate) - start <= i64::from(target) * 90_000 + 45_000,
            "{tagged:?} from {start}"
        );
    }
}

fn all_data_passes(source: &Source, events: &[MediaEvent]) {
    let messages = source.messages();
    for track in [TrackKind::Video, TrackKind::Audio] {
        assert_eq!(frame_data(events, track), message_data(&messages, track), "{track}");
    }
}

#[test]
fn segmenter_cuts_at_keyframes_every_two_seconds() {
    let source = Source::default();
    let (events, ingest) = segment(source.messages(), config());
    check(&events, 48_000, 4);
    all_data_passes(&source, &events);
    let boundaries = boundaries(&events, 48_000);
    assert_eq!(boundaries.len(), 5);
    assert!(boundaries.windows(2).all(|pair| pair[1].1 - pair[0].1 == SEGMENT_AIM));
    assert!(boundaries.iter().all(|b| b.2 && !b.3));
    assert_eq!(boundaries[0].0, 100);
    assert_eq!(ingest.segmenter.stats().longest_gop, SEGMENT_AIM);
    assert_eq!(ingest.segmenter.inits().count(), 2);
}

#[test]
fn wraps_of_rtmp_clocks_leave_events_unchanged() {
    let start = |bits: u32| (1u64 << bits) - 5_000;
    let reference = segment(Source::default().messages(), config()).0;
    for (bits, wrap_bits) in [(24, 24), (24, 32), (31, 31), (31, 32), (32, 32)] {
        let source = Source { start_ms: start(bits), wrap_bits, ..Source::default() };
        assert_eq!(segment(source.messages(), config()).0, reference, "2^{bits} wrapping at 2^{wrap_bits}");
    }
}

#[test]
fn segmenter_joins_short_gops_and_cuts_odd_ones_in_time() {
    for (gop, expected) in
        [(15, 180_000), (30, 180_000), (45, 270_000), (50, 300_000), (59, 177_000), (61, 183_000)]
    {
        let (events, _) = segment(Source { gop, seconds: 20.0, ..Source::default() }.messages(), config());
        check(&events, 48_000, 4);
        let boundaries = boundaries(&events, 48_000);
        assert!(
            boundaries.windows(2).all(|pair| (pair[1].1 - pair[0].1 - expected).abs() <= 90),
            "{gop} {boundaries:?}"
        );
        assert!(boundaries.iter().all(|b| b.2));
    }
    // With the smallest target duration a keyframe is taken early rather than missed.
    let small = millrace_media::segmenter::SegmenterConfig { target_duration: 2, ..config() };
    let (events, _) = segment(Source { gop: 45, seconds: 20.0, ..Source::default() }.messages(), small);
    check(&events, 48_000, 2);
    assert!(boundaries(&events, 48_000).iter().skip(2).all(|b| b.2));
}

#[test]
fn segmenter_cuts_long_gops_and_starts_a_segment_at_every_keyframe() {
    let source = Source { gop: 250, seconds: 40.0, ..Source::default() }; // OBS "auto": 8.3 s
    let (events, ingest) = segment(source.messages(), config());
    check(&events, 48_000, 4);
    all_data_passes(&source, &events);
    let boundaries = boundaries(&events, 48_000);
    assert!(boundaries.iter().any(|b| !b.2));
    assert!(ingest.segmenter.repairs().get(Repair::SegmentWithoutKeyframe) > 0);
    let keyframes = tagged_frames(&events)
        .into_iter()
        .filter(|u| matches!(&u.frame, MediaFrame::Video(v) if v.sync.is_keyframe()));
    assert!(keyframes.into_iter().all(|tagged| tagged.tag.boundary && tagged.tag.independent));
}

/// The default target duration.
const DEFAULT: millrace_media::segmenter::SegmenterConfig =
    millrace_media::segmenter::SegmenterConfig { first_msn: 100, discontinuity: false, target_duration: 2 };

#[test]
fn segmenter_divides_the_distance_of_keyframes_evenly_at_the_default_target_duration() {
    // Keyframes 2.5 to 10 s apart.
    for (gop, shares) in [(75, 2), (90, 2), (120, 2), (150, 3), (180, 3), (250, 4), (300, 5)] {
        let source = Source { gop, seconds: 45.0, ..Source::default() };
        let (events, _) = segment(source.messages(), DEFAULT);
        check(&events, 48_000, 2);
        all_data_passes(&source, &events);
        let boundaries = boundaries(&events, 48_000);
        // The distance is known from the second keyframe on.
        let second = boundaries.iter().filter(|b| b.2).nth(1).unwrap().0;
        let share = i64::from(gop) * 3_000 / shares;
        let known = boundaries.iter().filter(|b| b.0 >= second).collect::<Vec<_>>();
        assert!(known.len() > 4, "{gop}");
        for pair in known.windows(2) {
            assert!((pair[1].1 - pair[0].1 - share).abs() <= 3_000, "{gop}: {pair:?} for {share}");
        }
        let keyframes = known.iter().filter(|b| b.2).count() as i64;
        assert!((known.len() as i64 - keyframes * shares).abs() < shares, "{gop}: one keyframe in {shares}");
    }
}

#[test]
fn segmenter_waits_for_keyframes_that_come_a_little_late_at_the_default_target_duration() {
    for late in [0, 5, 10] {
        let keyframes = [0, 60, 120 + late, 180 + late, 240 + 2 * late];
        let source = Source { seconds: 12.0, b_frames: false, ..Source::default() };
        let mut number = 0;
        let messages = source.messages().into_iter().map(|message| match message {
            Message::Video(ms, millrace_media::container::flv::FlvVideo::Nalus { .. }) => {
                number += 1;
                Message::Video(ms, access_unit(number, keyframes.contains(&(number - 1)), 0))
            }
            other => other,
        });
        let (events, _) = segment(messages.collect(), DEFAULT);
        check(&events, 48_000, 2);
        let boundaries = boundaries(&events, 48_000);
        let at: Vec<i64> = boundaries.iter().take(5).map(|b| (b.1 - boundaries[0].1) / 3_000).collect();
        assert_eq!(at, keyframes.map(i64::from), "{late} frames late");
        assert!(boundaries.iter().take(5).all(|b| b.2));
    }
}

#[test]
fn segmenter_cuts_audio_alone_every_two_seconds() {
    for rate in [48_000, 44_100, 22_050, 8_000] {
        let source = Source { fps: None, rate: Some(rate), ..Source::default() };
        let (events, _) = segment(source.messages(), config());
        check(&events, rate, 4);
        all_data_passes(&source, &events);
        let frame = i64::from(1024 * 90_000 / rate) + 1;
        let boundaries = boundaries(&events, rate);
        assert!(boundaries.len() >= 4);
        assert!(
            boundaries.windows(2).all(|pair| (0..=frame).contains(&(pair[1].1 - pair[0].1 - SEGMENT_AIM)))
        );
        assert!(boundaries.iter().all(|b| b.2));
    }
}

#[test]
fn segmenter_passes_video_alone_and_audio_that_joins_late() {
    let source = Source { rate: None, ..Source::default() };
    let (events, _) = segment(source.messages(), config());
    check(&events, 48_000, 4);
    all_data_passes(&source, &events);
    // Audio whose very configuration comes late.
    let asc = millrace_media::codec::aac::AudioSpecificConfig::aac_lc(48_000, 2).unwrap();
    let header = millrace_media::container::flv::FlvAudio::SequenceHeader(asc);
    let messages: Vec<_> = Source::default()
        .messages()
        .into_iter()
        .filter(|m| {
            !matches!(m, Message::Audio(_, millrace_media::container::flv::FlvAudio::SequenceHeader(_)))
        })
        .flat_map(|m| match m {
            Message::Audio(ms, _) if ms < 5_000 => vec![],
            Message::Audio(ms, _) if ms < 5_022 => vec![Message::Audio(ms, header.clone()), m],
            _ => vec![m],
        })
        .collect();
    let expected = message_data(&messages, TrackKind::Audio);
    let (events, _) = segment(messages, config());
    check(&events, 48_000, 4);
    assert!(expected.len() > 200);
    assert_eq!(frame_data(&events, TrackKind::Audio), expected);
}

#[test]
fn announced_audio_that_stays_away_is_silent_until_it_comes() {
    let source = Source { audio_from_ms: 3_000, ..Source::default() };
    let (events, ingest) = segment(source.messages(), config());
    check(&events, 48_000, 4);
    let silence = ingest.timeline.repairs().get(Repair::SilenceForAbsentAudio);
    assert!((138..=142).contains(&silence), "{silence}");
    let real: Vec<Bytes> = frame_data(&events, TrackKind::Audio).split_off(silence as usize);
    assert_eq!(real, message_data(&source.messages(), TrackKind::Audio));
    // No hole anywhere.
    let pts: Vec<i64> = tagged_frames(&events)
        .into_iter()
        .filter_map(
            |tagged| if let MediaFrame::Audio(frame) = &tagged.frame { Some(frame.pts) } else { None },
        )
        .collect();
    assert!(pts.windows(2).all(|pair| pair[1] - pair[0] == 1024));
}

#[test]
fn audio_that_stops_for_good_goes_on_silent() {
    let source = Source { seconds: 20.0, ..Source::default() };
    let messages = source
        .messages()
        .into_iter()
        .filter(|m| !matches!(m, Message::Audio(ms, _) if *ms > 5_000))
        .collect();
    let (events, ingest) = segment(messages, config());
    check(&events, 48_000, 4);
    let last = tagged_frames(&events).into_iter().rfind(|u| u.frame.track() == TrackKind::Audio).unwrap();
    assert!(time(&last.frame, 48_000) > 19 * 90_000);
    assert!(ingest.timeline.repairs().get(Repair::SilenceForAbsentAudio) > 600);
}

#[test]
fn segmenter_cuts_on_audio_while_pictures_stop() {
    let source = Source { seconds: 30.0, ..Source::default() };
    let messages: Vec<_> = source
        .messages()
        .into_iter()
        .filter(|m| !matches!(m, Message::Video(ms, _) if (5_000..20_000).contains(ms)))
        .collect();
    let expected = message_data(&messages, TrackKind::Audio);
    let (events, _) = segment(messages, config());
    check(&events, 48_000, 4);
    assert_eq!(frame_data(&events, TrackKind::Audio), expected);
    let boundaries = boundaries(&events, 48_000);
    assert!(boundaries.windows(2).all(|pair| pair[1].1 - pair[0].1 <= 4 * 90_000 + 22_500), "{boundaries:?}");
    assert!(boundaries.iter().all(|b| !b.3), "a pause is no discontinuity");
}

#[test]
fn jump_of_the_clock_is_one_discontinuity_without_a_hole() {
    for jump in [-3_600_000i64, 50_000_000] {
        let mut messages = Source { start_ms: 4_000_000, ..Source::default() }.messages();
        let at = messages.len() / 2;
        for message in &mut messages[at..] {
            let (Message::Video(ms, _) | Message::Audio(ms, _)) = message;
            *ms = (i64::from(*ms) + jump) as u32;
        }
        let (events, ingest) = segment(messages, config());
        check(&events, 48_000, 4);
        let boundaries = boundaries(&events, 48_000);
        assert_eq!(boundaries.iter().filter(|b| b.3).count(), 1, "{jump}: {boundaries:?}");
        assert_eq!(ingest.timeline.repairs().get(Repair::ClockJump), 1);
        assert!((900_000 - 360_000..900_000).contains(&(boundaries.last().unwrap().1 - boundaries[0].1)));
    }
}

#[test]
fn new_configuration_is_a_new_init_version_and_a_discontinuity() {
    let mut messages = Source::default().messages();
    let at = messages.iter().position(|m| matches!(m, Message::Video(ms, _) if *ms >= 3_900)).unwrap();
    let header = millrace_media::container::flv::FlvVideo::SequenceHeader(avcc(OTHER_PPS));
    messages.insert(at, Message::Video(3_900, header));
    // The same header again changes nothing.
    messages
        .insert(40, Message::Video(500, millrace_media::container::flv::FlvVideo::SequenceHeader(avcc(PPS))));
    let (events, ingest) = segment(messages, config());
    check(&events, 48_000, 4);
    let marked: Vec<_> = boundaries(&events, 48_000).into_iter().filter(|b| b.3).collect();
    assert_eq!(marked.len(), 1);
    assert_eq!(marked[0].0, 102);
    for tagged in tagged_frames(&events).into_iter().filter(|tagged| tagged.frame.track() == TrackKind::Video)
    {
        assert_eq!(tagged.tag.init_version, u32::from(tagged.tag.msn >= 102));
    }
    assert!(ingest.segmenter.repairs().get(Repair::PictureBeforeKeyframe) <= 3);
    // New audio parameters cut at the next audio frame.
    let mut messages = Source::default().messages();
    let asc = millrace_media::codec::aac::AudioSpecificConfig::aac_lc(44_100, 1).unwrap();
    messages
        .insert(200, Message::Audio(2_500, millrace_media::container::flv::FlvAudio::SequenceHeader(asc)));
    let (events, _) = segment(messages, config());
    assert_eq!(boundaries(&events, 48_000).iter().filter(|b| b.3).count(), 1);
}

#[test]
fn segmenter_joined_mid_gop_starts_at_the_first_keyframe() {
    let source = Source::default();
    let messages = source.messages();
    let late: Vec<_> = messages[..2].iter().cloned().chain(messages[60..].iter().cloned()).collect();
    let (events, ingest) = segment(late, config());
    check(&events, 48_000, 4);
    let first = tagged_frames(&events)[0];
    assert!(first.tag.boundary && first.tag.independent && first.frame.track() == TrackKind::Video);
    assert!(ingest.segmenter.repairs().get(Repair::PictureBeforeKeyframe) > 0);
}

#[test]
fn b_frames_keep_their_exact_presentation_times() {
    let source = Source { jitter: vec![0, 3, -2, 0, 1], ..Source::default() };
    let messages = source.messages();
    let base = millrace_media::timeline::TIMELINE_START;
    let expected: Vec<i64> = messages
        .iter()
        .filter_map(|message| match message {
            Message::Video(ms, millrace_media::container::flv::FlvVideo::Nalus { cts_ms, .. }) => {
                Some(base + (i64::from(*ms) + i64::from(*cts_ms)) * 90)
            }
            _ => None,
        })
        .collect();
    let (events, _) = segment(messages, config());
    let actual: Vec<i64> = tagged_frames(&events)
        .into_iter()
        .filter_map(
            |tagged| if let MediaFrame::Video(video) = &tagged.frame { Some(video.pts()) } else { None },
        )
        .collect();
    assert_eq!(actual, expected);
}

/// Random streams; set `MILLRACE_SEED` to replay one.
#[test]
fn segmenter_keeps_its_rules_for_random_streams() {
    let seeds = match std::env::var("MILLRACE_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..300).collect::<Vec<u64>>(),
    };
    for seed in seeds {
        println!("seed {seed}");
        let mut rng = SmallRng::seed_from_u64(seed);
        let rate = [48_000, 44_100, 32_000][rng.random_range(0..3)];
        let source = Source {
            start_ms: [0, (1 << 24) - 3_000, (1 << 31) - 3_000, (1 << 32) - 3_000][rng.random_range(0..4)],
            seconds: rng.random_range(6.0..14.0),
            fps: Some([24.0, 25.0, 29.97, 30.0, 60.0][rng.random_range(0..5)]),
            gop: rng.random_range(1..300),
            b_frames: rng.random(),
            rate: Some(rate),
            jitter: (0..17).map(|_| rng.random_range(-12..=12)).collect(),
            ..Source::default()
        };
        let mut messages = source.messages();
        // Lose some, and let the clock jump now and then.
        messages.retain(|m| {
            matches!(m, Message::Video(_, millrace_media::container::flv::FlvVideo::SequenceHeader(_)))
                || matches!(m, Message::Audio(_, millrace_media::container::flv::FlvAudio::SequenceHeader(_)))
                || rng.random_range(0..50) > 0
        });
        if rng.random_range(0..3) == 0 {
            let at = rng.random_range(0..messages.len());
            let jump: u32 = rng.random();
            for message in &mut messages[at..] {
                let (Message::Video(ms, _) | Message::Audio(ms, _)) = message;
                *ms = ms.wrapping_add(jump);
            }
        }
        let target = rng.random_range(2..=10);
        let config = millrace_media::segmenter::SegmenterConfig { target_duration: target, ..config() };
        let (events, _) = segment(messages, config);
        check(&events, rate, target);
    }
}
