//! Timestamp repair of one publish.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use bytes::Bytes;
use millrace_media::codec::AudioCodec;
use millrace_media::container::flv::FlvVideo;
use millrace_media::frame::{AudioConfig, MediaFrame, TrackConfig, VideoConfig};
use millrace_media::repair::Repair;
use millrace_media::time::TimestampUnwrapper;
use millrace_media::timeline::{TIMELINE_START, Timeline, TimelineEvent};
use proptest::prelude::*;
use support::*;

fn timeline(channels: u8) -> Timeline {
    let mut timeline = Timeline::new();
    timeline.video_config(VideoConfig::from_avcc(avcc(PPS)).unwrap());
    timeline.audio_config(AudioConfig::aac_lc(48_000, channels).unwrap());
    timeline
}

fn picture(number: u32, keyframe: bool) -> Bytes {
    match access_unit(number, keyframe, 0) {
        FlvVideo::Nalus { data, .. } => data.contiguous(),
        _ => Bytes::new(),
    }
}

fn drain(timeline: &mut Timeline) -> (Vec<(i64, i64)>, Vec<i64>, usize) {
    let (mut video, mut audio, mut discontinuities) = (Vec::new(), Vec::new(), 0);
    while let Some(event) = timeline.poll() {
        let TimelineEvent::Frame { frame, discontinuity } = event else { continue };
        discontinuities += usize::from(discontinuity);
        match frame {
            MediaFrame::Video(picture) => video.push((picture.dts, picture.pts())),
            MediaFrame::Audio(frame) => audio.push(frame.pts),
        }
    }
    (video, audio, discontinuities)
}

#[test]
fn audio_with_jittering_timestamps_follows_the_sample_count() {
    let mut timeline = timeline(2);
    for n in 0..500i64 {
        let jitter = [0, 4_000, -4_000, 90, 8_000][n as usize % 5];
        timeline.push_audio((n * 1920 + jitter).max(0), Bytes::from_static(&[1]));
    }
    let (_, audio, discontinuities) = drain(&mut timeline);
    assert_eq!(audio.len(), 500);
    assert!(audio.windows(2).all(|pair| pair[1] - pair[0] == 1024));
    assert_eq!((audio[0], discontinuities), (48_000, 0));
}

#[test]
fn audio_announced_late_is_silent_from_its_announcement_on() {
    let mut timeline = Timeline::new();
    timeline.video_config(VideoConfig::from_avcc(avcc(PPS)).unwrap());
    for n in 0..600u32 {
        if n == 500 {
            timeline.audio_config(AudioConfig::aac_lc(48_000, 2).unwrap());
        }
        timeline.push_video(i64::from(n) * 3000, 0, picture(n, n == 0));
    }
    let (_, audio, _) = drain(&mut timeline);
    assert_eq!(audio[0], 48_000 + 499 * 1600);
    assert!((150..160).contains(&audio.len()));
}

#[test]
fn silence_after_an_hour_without_audio_is_bounded_and_ends_at_the_pictures() {
    const HOUR: u32 = 30 * 3600;
    // Six channels have no silent frame, so nothing stands in for the audio that stays away.
    let mut timeline = timeline(6);
    timeline.push_audio(0, Bytes::from_static(&[1]));
    for n in 0..HOUR {
        timeline.push_video(i64::from(n) * 3000, 0, picture(n, n == 0));
    }
    drain(&mut timeline);
    timeline.audio_config(AudioConfig::aac_lc(48_000, 2).unwrap());
    timeline.push_video(i64::from(HOUR) * 3000, 0, picture(HOUR, false));
    let (_, audio, _) = drain(&mut timeline);
    assert!(audio.len() <= 5 * 48_000 / 1024 + 1, "{} silent frames", audio.len());
    let end = audio.last().unwrap() + 1024;
    assert!((48_000 * 3601 - 1024..=48_000 * 3601).contains(&end), "silence ends at {end}");
}

#[test]
fn audio_hole_is_filled_with_silence_or_left_without_a_silent_frame() {
    for (channels, silence) in [(2, 16), (6, 0)] {
        let mut timeline = timeline(channels);
        for n in (0..50i64).chain(66..100) {
            timeline.push_audio(n * 1920, Bytes::from_static(&[1]));
        }
        let (_, audio, _) = drain(&mut timeline);
        assert_eq!(timeline.repairs().get(Repair::SilenceInHole), silence);
        assert_eq!(timeline.repairs().get(Repair::AudioHole), 1);
        assert_eq!(*audio.last().unwrap(), 48_000 + 99 * 1024, "in time again");
        assert_eq!(
            audio.windows(2).filter(|pair| pair[1] - pair[0] != 1024).count(),
            usize::from(silence == 0)
        );
    }
}

#[test]
fn audio_that_steps_back_alone_goes_on_by_its_samples() {
    let mut timeline = timeline(2);
    for n in 0..50i64 {
        timeline.push_audio(n * 1920, Bytes::from_static(&[1]));
    }
    let back = 10 * 1920; // 213 ms
    for n in 50..150i64 {
        timeline.push_audio(n * 1920 - back, Bytes::from_static(&[1]));
    }
    let (_, audio, discontinuities) = drain(&mut timeline);
    assert_eq!((audio.len(), discontinuities), (150, 0));
    assert!(audio.windows(2).all(|pair| pair[1] - pair[0] == 1024));
    assert_eq!(timeline.repairs().iter().collect::<Vec<_>>(), [(Repair::AudioTimesStray, 1)]);
}

#[test]
fn wraps_of_rtp_and_pes_clocks_leave_times_unchanged() {
    for bits in [32, 33] {
        let mut clock = TimestampUnwrapper::new(bits);
        let mut timeline = timeline(2);
        let start = (1u64 << bits) - 45_000;
        for n in 0..60u64 {
            let raw = (start + n * 3000) % (1 << bits);
            timeline.push_video(clock.unwrap(raw), 3000, picture(n as u32, n == 0));
        }
        let (video, ..) = drain(&mut timeline);
        let expected: Vec<_> =
            (0..60).map(|n| TIMELINE_START + n * 3000).map(|dts| (dts, dts + 3000)).collect();
        assert_eq!(video, expected, "2^{bits}");
    }
}

#[test]
fn reordered_pictures_with_equal_or_falling_dts_keep_their_presentation_times() {
    let mut timeline = timeline(2);
    // A GOP with two reordered pictures, whose decoding times were pressed together on the way.
    let times = [(0, 6000), (3000, 15_000), (3000, 9000), (2000, 12_000), (12_000, 18_000)];
    for (n, (dts, pts)) in times.into_iter().enumerate() {
        timeline.push_video(dts, pts - dts, picture(n as u32, n == 0));
    }
    let (video, _, discontinuities) = drain(&mut timeline);
    assert_eq!(discontinuities, 0);
    assert!(video.windows(2).all(|pair| pair[0].0 < pair[1].0));
    let pts: Vec<i64> = times.iter().map(|(_, pts)| TIMELINE_START + pts).collect();
    assert_eq!(video.iter().map(|tagged| tagged.1).collect::<Vec<_>>(), pts);
    assert_eq!(timeline.repairs().get(Repair::DecodingTimeMoved), 2);
}

/// GStreamer's flvmux under load gives pictures that come late the time of the one before.
#[test]
fn pictures_in_decoding_order_with_equal_dts_are_shown_one_after_the_other() {
    for cts in [0, 6000] {
        let mut timeline = timeline(2);
        for (n, dts) in [0, 3000, 3000, 2000, 9000, 12_000].into_iter().enumerate() {
            timeline.push_video(dts, cts, picture(n as u32, n == 0));
        }
        let (video, _, discontinuities) = drain(&mut timeline);
        let expected = [0, 3000, 4350, 5700, 9000, 12_000].map(|time| TIMELINE_START + time);
        assert_eq!(video, expected.map(|dts| (dts, dts + cts)));
        assert_eq!((timeline.repairs().get(Repair::DecodingTimeMoved), discontinuities), (2, 0));
    }
}

#[test]
fn standing_clock_keeps_composition_offsets_bounded() {
    let mut timeline = timeline(2);
    for n in 0..20_000 {
        timeline.push_video(0, 0, picture(n, n == 0));
    }
    let (video, ..) = drain(&mut timeline);
    assert!(video.iter().all(|(dts, pts)| (pts - dts).abs() <= 720_000));
}

#[test]
fn tracks_of_one_clock_keep_their_distance_and_those_of_two_start_together() {
    // Audio 200 ms before the pictures.
    let mut together = timeline(2);
    together.push_video(1_000_000, 0, picture(0, true));
    together.push_audio(1_000_000 - 18_000, Bytes::from_static(&[1]));
    let (video, audio, _) = drain(&mut together);
    assert_eq!((video[0].0 - TIMELINE_START, audio[0] - 48_000), (0, -9_600));
    // Audio that counts from zero while the pictures carry the encoder's up-time.
    let mut apart = timeline(2);
    apart.push_video(90_000_000, 0, picture(0, true));
    apart.push_audio(0, Bytes::from_static(&[1]));
    apart.push_video(90_003_000, 0, picture(1, false));
    apart.push_audio(1920, Bytes::from_static(&[1]));
    let (video, audio, discontinuities) = drain(&mut apart);
    assert_eq!((video[0].0, audio[0], discontinuities), (TIMELINE_START, 48_000, 0));
    assert_eq!(audio[1], 48_000 + 1024);
}

#[test]
fn jump_of_both_tracks_is_one_discontinuity_in_any_interleaving() {
    for audio_first in [false, true] {
        let mut timeline = timeline(2);
        for n in 0..60i64 {
            // The tracks jump at different messages, as interleaving has it.
            let (video_jump, audio_jump) = if audio_first { (n >= 32, n >= 30) } else { (n >= 30, n >= 32) };
            let time = |jump: bool| n * 3000 + if jump { 800_000_000 } else { 0 };
            timeline.push_video(time(video_jump), 0, picture(n as u32, n == 0));
            timeline.push_audio(time(audio_jump), Bytes::from_static(&[1]));
        }
        let (video, _, discontinuities) = drain(&mut timeline);
        assert_eq!(discontinuities, 1);
        assert!(video.windows(2).all(|pair| (1..12_000).contains(&(pair[1].0 - pair[0].0))));
    }
}

#[test]
fn every_new_configuration_is_passed_on_however_many_there_are() {
    let mut timeline = Timeline::new();
    for n in 0..1000 {
        let pps = if n % 2 == 0 { PPS } else { OTHER_PPS };
        timeline.video_config(VideoConfig::from_avcc(avcc(pps)).unwrap());
    }
    assert_eq!(std::iter::from_fn(|| timeline.poll()).count(), 1000);
}

#[test]
fn frames_without_configuration_and_malformed_ones_are_counted() {
    let mut timeline = Timeline::new();
    timeline.push_video(0, 0, picture(0, true));
    timeline.push_audio(0, Bytes::from_static(&[1]));
    let repairs: Vec<_> = timeline.repairs().iter().collect();
    assert_eq!(repairs, [(Repair::UnconfiguredPicture, 1), (Repair::UnconfiguredAudio, 1)]);
    timeline.video_config(VideoConfig::from_avcc(avcc(PPS)).unwrap());
    timeline.push_video(0, 0, Bytes::from_static(&[0, 0, 0, 9, 0x65]));
    assert_eq!(timeline.repairs().get(Repair::MalformedPicture), 1);
    assert!(drain(&mut timeline).0.is_empty());
}

/// Stereo at 48 kHz, without and with the extension that encoders append.
const PLAIN: &[u8] = &[0x11, 0x90];
const EXTENDED: &[u8] = &[0x11, 0x90, 0x56, 0xe5, 0x00];
const MONO: &[u8] = &[0x11, 0x88];

fn asc(bytes: &'static [u8]) -> AudioConfig {
    AudioConfig::from_asc(Bytes::from_static(bytes)).unwrap()
}

/// A timeline with audio that is announced by metadata alone.
fn expecting() -> Timeline {
    let mut timeline = Timeline::new();
    timeline.video_config(VideoConfig::from_avcc(avcc(PPS)).unwrap());
    timeline.expect_audio(asc(PLAIN));
    timeline
}

/// The audio configurations, and the times of audio frames with true for silent ones.
fn audio_of(timeline: &mut Timeline) -> (Vec<AudioConfig>, Vec<(i64, bool)>) {
    let (mut configs, mut frames) = (Vec::new(), Vec::new());
    while let Some(event) = timeline.poll() {
        match event {
            TimelineEvent::Config(TrackConfig::Audio(config)) => configs.push(config),
            TimelineEvent::Frame { frame: MediaFrame::Audio(frame), discontinuity } => {
                assert!(!discontinuity);
                frames.push((frame.pts, frame.data.contiguous() != [1][..]));
            }
            _ => {}
        }
    }
    (configs, frames)
}

#[test]
fn audio_of_metadata_alone_is_silent_until_its_configuration_comes() {
    for header in [PLAIN, EXTENDED] {
        let mut timeline = expecting();
        let silent_at = |timeline: &mut Timeline, number: i64| {
            timeline.push_video(number * 3000, 0, picture(number as u32, number == 0));
            audio_of(timeline)
        };
        let (configs, frames) = silent_at(&mut timeline, 0);
        assert_eq!((configs, frames.len()), (vec![asc(PLAIN)], 0), "known with the first keyframe");
        for number in 1..=12 {
            assert_eq!(silent_at(&mut timeline, number).1, [], "not before 400 ms");
        }
        let (_, frames) = silent_at(&mut timeline, 13);
        assert_eq!(frames[0], (48_000, true), "from the first keyframe on");
        // Frames without a configuration cannot be decoded.
        timeline.push_audio(14 * 3000, Bytes::from_static(&[1]));
        assert_eq!(
            (audio_of(&mut timeline).1.len(), timeline.repairs().get(Repair::UnconfiguredAudio)),
            (0, 1)
        );
        let before = frames.len();
        timeline.audio_config(asc(header));
        for number in 0..50 {
            timeline.push_audio(15 * 3000 + number * 1920, Bytes::from_static(&[1]));
        }
        let (configs, after) = audio_of(&mut timeline);
        assert_eq!(configs, [], "decodes alike: nothing changes");
        let times: Vec<i64> = frames.iter().chain(&after).map(|frame| frame.0).collect();
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] == 1024), "{times:?}");
        assert_eq!(after.iter().filter(|frame| !frame.1).count(), 50);
        assert!(before < 25, "{before}");
    }
}

#[test]
fn configuration_in_time_replaces_that_of_metadata_without_an_event() {
    let mut timeline = expecting();
    timeline.audio_config(asc(MONO));
    timeline.push_video(0, 0, picture(0, true));
    assert_eq!(audio_of(&mut timeline).0, [asc(MONO)]);
    // Metadata that is sent again changes nothing.
    timeline.expect_audio(asc(PLAIN));
    for number in 1..60 {
        timeline.push_audio((number - 1) * 1920, Bytes::from_static(&[1]));
        timeline.push_video(number * 3000, 0, picture(number as u32, false));
    }
    let (configs, frames) = audio_of(&mut timeline);
    assert_eq!(configs, []);
    assert!(frames.iter().all(|frame| !frame.1));
}

#[test]
fn audio_other_than_announced_gets_its_own_configuration() {
    let mut timeline = expecting();
    for number in 0..60 {
        timeline.push_video(number * 3000, 0, picture(number as u32, number == 0));
    }
    audio_of(&mut timeline);
    let real = AudioConfig::aac_lc(44_100, 2).unwrap();
    timeline.audio_config(real.clone());
    timeline.push_audio(60 * 3000, Bytes::from_static(&[1]));
    let (configs, frames) = audio_of(&mut timeline);
    assert_eq!(configs, [real]);
    let at = 44_100 + 60 * 3000 * 441 / 900;
    assert!((frames.last().unwrap().0 - at).abs() <= 44_100 / 10, "{frames:?} for {at}");
}

#[test]
fn audio_of_metadata_is_assumed_at_the_first_keyframe() {
    let mut timeline = expecting();
    for number in 0..90 {
        timeline.push_video(number * 3000, 0, picture(number as u32, false));
    }
    assert_eq!(audio_of(&mut timeline), (vec![], vec![]), "nothing can be played yet");
    timeline.push_video(90 * 3000, 0, picture(90, true));
    for number in 91..120 {
        timeline.push_video(number * 3000, 0, picture(number as u32, false));
    }
    let (configs, frames) = audio_of(&mut timeline);
    assert_eq!(configs, [asc(PLAIN)]);
    assert_eq!(frames[0].0, 48_000 + 90 * 1600, "from the keyframe on");
}

/// Opus packets of 20 and 60 ms, and MP3 frames of 1152 samples.
#[test]
fn audio_of_other_codecs_is_counted_by_its_own_frame_length() {
    let head = Bytes::from_static(b"OpusHead\x01\x02\x38\x01\x80\xbb\0\0\0\0\0");
    let cases: [(AudioCodec, Bytes, &[u8], i64); 3] = [
        (AudioCodec::Opus, head.clone(), &[0xfc, 1], 960),
        (AudioCodec::Opus, head, &[0x18, 1], 2_880),
        (AudioCodec::Mp3, Bytes::from_static(&[0xff, 0xfb, 0x94, 0x64]), &[0xff, 0xfb, 0x94, 0x64], 1_152),
    ];
    for (codec, record, frame, samples) in cases {
        let mut timeline = Timeline::new();
        timeline.audio_config(AudioConfig::parse(codec, record).unwrap());
        for n in 0..200i64 {
            let jitter = [0, 900, -900][n as usize % 3];
            timeline.push_audio((n * samples * 90 / 48 + jitter).max(0), Bytes::from_static(frame));
        }
        let (_, audio, _) = drain(&mut timeline);
        assert_eq!(audio.len(), 200);
        assert!(audio.windows(2).all(|pair| pair[1] - pair[0] == samples), "{codec} {samples}");
    }
}

proptest! {
    #[test]
    fn announced_audio_has_no_hole_whenever_it_comes(
        metadata_at in 0..40i64, header_at in 0..120i64, lag in 0..9i64, which in 0..3usize, pauses in any::<u64>(),
    ) {
        let mut timeline = Timeline::new();
        timeline.video_config(VideoConfig::from_avcc(avcc(PPS)).unwrap());
        let mut configs = 0;
        let mut ends: Vec<(i64, u32)> = Vec::new();
        let mut rate = 48_000;
        for number in 0..150i64 {
            if number == metadata_at {
                timeline.expect_audio(asc(PLAIN));
            }
            if number == header_at {
                timeline.audio_config([asc(PLAIN), asc(EXTENDED), asc(MONO)][which].clone());
            }
            timeline.push_video(number * 3000, 0, picture(number as u32, number == 0));
            // Audio lags behind its time, and now and then pauses for a while.
            if number >= header_at + lag && pauses >> (number / 16) & 1 == 0 {
                timeline.push_audio((number - lag) * 3000, Bytes::from_static(&[1]));
            }
            while let Some(event) = timeline.poll() {
                match event {
                    TimelineEvent::Config(TrackConfig::Audio(config)) => {
                        configs += 1;
                        rate = config.rate;
                    }
                    TimelineEvent::Frame { frame: MediaFrame::Audio(frame), .. } => ends.push((frame.pts, rate)),
                    _ => {}
                }
            }
            let known = metadata_at.min(header_at);
            if number * 3000 > known * 3000 + 180_000 + 36_000 {
                let (last, rate) = *ends.last().expect("audio or silence");
                let behind = (number * 3000 + 90_000) - last * 90_000 / i64::from(rate);
                prop_assert!(behind <= 180_000 + 6_000, "{behind} behind at {number}");
            }
        }
        prop_assert!(configs <= 1 + usize::from(which == 2));
        for pair in ends.windows(2) {
            prop_assert_eq!(pair[1].0 - pair[0].0, 1024);
        }
    }
}
