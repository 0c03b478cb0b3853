//! Clocks that stray, step back, stand still or run slowly, and what may be made up for them.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use millrace_media::container::flv::FlvAudio;
use millrace_media::container::flv::FlvVideo;
use millrace_media::frame::TrackKind;
use millrace_media::repair::Repair;
use millrace_media::timeline::{MAX_SILENCE, TIMELINE_START};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use support::encoder::*;
use support::{Ingest, MEASURE, Message, PPS, access_unit, audio_frame, avcc, config, package, parts};

/// Clean pictures at 30 per second.
fn clean_pictures(seconds: f64) -> Vec<Sent> {
    pictures(seconds, 30.0, |_, due| (due, ms(due)))
}

/// Audio whose times stray though every frame comes when it is due.
type Stray = fn(usize, f64) -> i64;
const STRAY: [(&str, Stray); 6] = [
    ("ten frames under the first one's time", |number, _| ms((number / 10 * 10) as f64 * 1024.0 / 48.0)),
    ("steps of 21 ms", |number, _| ms(number as f64 * 21.0)),
    ("steps of 22 and 24 ms in turn", |number, _| ms(number as f64 * 23.0 - (number % 2) as f64)),
    ("a clock half a per cent fast", |_, due| ms(due * 1.005)),
    ("a clock half a per cent slow", |_, due| ms(due * 0.995)),
    ("a clock that stands still", |_, _| 0),
];

#[test]
fn audio_times_that_stray_cost_no_frame_and_add_none() {
    for (name, stray) in STRAY {
        for has_clock in [true, false] {
            let mut sent = audio(120.0, |number, due| (due, stray(number, due)));
            let count = sent.len();
            sent.extend(clean_pictures(120.0));
            let out = repair(both_tracks(), sent, has_clock);
            assert_eq!((out.audio.len(), out.silent(), out.discontinuities), (count, 0, 0), "{name}");
            assert!(out.audio_is_contiguous(), "{name}");
            assert!(
                (48_000 - 4_800..=48_000 + 4_800).contains(&out.audio[0].0),
                "{name}: {:?}",
                out.audio[0]
            );
            assert_eq!(out.steps(), clean_steps(out.video.len()), "{name}: the pictures are left alone");
        }
    }
}

fn clean_steps(pictures: usize) -> Vec<i64> {
    let time = |number: usize| ms(number as f64 * 1000.0 / 30.0);
    (1..pictures).map(|number| time(number) - time(number - 1)).collect()
}

#[test]
fn audio_alone_whose_times_stray_keeps_its_samples() {
    for (name, stray) in STRAY {
        let sent = audio(120.0, |number, due| (due, stray(number, due)));
        let count = sent.len();
        let out = repair(both_tracks(), sent, true);
        assert_eq!((out.audio.len(), out.silent(), out.discontinuities), (count, 0, 0), "{name}");
        assert!(out.audio_is_contiguous(), "{name}");
    }
}

/// The sound card has more or fewer samples than time passes, and its times say so.
#[test]
fn audio_of_a_wrong_sampling_rate_is_corrected_frame_by_frame() {
    for speed in [0.995, 0.999, 1.001, 1.005] {
        for has_clock in [true, false] {
            let mut sent = audio(300.0, |_, due| (due * speed, ms(due * speed)));
            sent.extend(clean_pictures(300.0));
            let due: Vec<i64> = sent
                .iter()
                .filter_map(|sent| match sent {
                    Sent::Audio(_, time) => Some(48_000 + time * 48 / 90),
                    Sent::Picture(..) => None,
                })
                .collect();
            let out = repair(both_tracks(), sent, has_clock);
            let end = out.audio.last().unwrap().0;
            assert!((end - due.last().unwrap()).abs() <= 48 * 180, "{speed}: in sync at the end");
            assert!(out.audio_is_contiguous(), "{speed}");
            // Single frames are added or left out, no two within half a second.
            let made_up: Vec<i64> = out.audio.iter().filter(|frame| frame.1).map(|frame| frame.0).collect();
            assert!(made_up.windows(2).all(|pair| pair[1] - pair[0] >= 24_000), "{speed}: {made_up:?}");
            let expected = (300.0 * (speed - 1.0f64).abs() / 0.0213) as usize;
            let left_out = due.len() + made_up.len() - out.audio.len();
            assert!(made_up.len() + left_out <= expected + 2, "{speed}: {} and {left_out}", made_up.len());
        }
    }
}

#[test]
fn hole_of_the_audio_is_filled_once() {
    for has_clock in [true, false] {
        for lost in [6, 16, 40] {
            let mut sent = audio(20.0, |_, due| (due, ms(due)));
            sent.drain(200..200 + lost);
            sent.extend(clean_pictures(20.0));
            let out = repair(both_tracks(), sent, has_clock);
            let silent: Vec<usize> = (0..out.audio.len()).filter(|number| out.audio[*number].1).collect();
            assert_eq!(silent, (200..200 + lost).collect::<Vec<_>>());
            assert!(out.audio_is_contiguous());
            assert_eq!(out.repairs.get(Repair::AudioHole), 1);
        }
    }
}

#[test]
fn audio_that_comes_late_with_right_times_is_heard() {
    for lag in [0.3, 0.9, 2.1, 2.7] {
        for has_clock in [true, false] {
            let mut sent = audio(30.0, |_, due| (due + lag * 1_000.0, ms(due)));
            sent.extend(clean_pictures(30.0));
            let out = repair(both_tracks(), sent, has_clock);
            assert_eq!(out.discontinuities, 0, "{lag}");
            let real: Vec<i64> = out.audio.iter().filter(|frame| !frame.1).map(|frame| frame.0).collect();
            assert!(real.len() as f64 >= (30.0 - 2.0 * lag - 0.5) * 46.875, "{lag}: {}", real.len());
            let end = 48_000 + (30.0 * 48_000.0) as i64;
            assert!((end - real.last().unwrap()).abs() <= 4_800 + 1_024, "{lag}: at its own time");
            let silent = out.silent() as f64;
            assert!(silent <= (lag + 0.1) * 46.875, "{lag}: {silent} silent frames");
            assert!(out.audio_is_contiguous(), "{lag}");
        }
    }
}

#[test]
fn audio_that_lags_beyond_the_limit_follows_the_silence() {
    let mut sent = audio(30.0, |_, due| (due + 5_000.0, ms(due)));
    sent.extend(clean_pictures(35.0));
    let out = repair(both_tracks(), sent, true);
    let real = out.audio.iter().filter(|frame| !frame.1).count();
    assert!(real >= 1_400, "{real}");
    assert!(out.audio_is_contiguous());
}

#[test]
fn clock_of_both_tracks_that_steps_back_is_one_discontinuity() {
    for back in [0.15, 0.3, 0.7, 0.95, 5.0] {
        for delay in [-80.0, -21.0, 0.0, 21.0, 80.0] {
            for has_clock in [true, false] {
                let step = |due: f64, at: f64| {
                    if due >= at { ms(due - back * 1_000.0 + 6_000.0) } else { ms(due + 6_000.0) }
                };
                let mut sent = audio(20.0, |_, due| (due + delay, step(due, 10_000.0)));
                sent.extend(pictures(20.0, 30.0, |_, due| (due, step(due, 10_000.0))));
                let counts = (sent.len() - 600, 600);
                let out = repair(both_tracks(), sent, has_clock);
                let name = format!("{back} s, audio {delay} ms after");
                assert_eq!(out.discontinuities, 1, "{name}");
                assert_eq!(
                    (out.audio.len() - out.silent(), out.video.len()),
                    counts,
                    "{name}: nothing is lost"
                );
                assert!(out.silent() <= 5, "{name}: {} silent frames", out.silent());
                for step in out.steps() {
                    assert!((1_500..=15_000).contains(&step), "{name}: pictures {step} ticks apart");
                }
                // The tracks keep their distance.
                let last = out.video.last().unwrap().0 - out.audio.last().unwrap().0 * 90 / 48;
                assert!(last.abs() <= 90 * 160, "{name}: {last}");
            }
        }
    }
}

#[test]
fn presentation_times_sent_as_decoding_times_keep_their_order() {
    for depth in [1, 2, 3] {
        for fps in [10.0, 25.0, 30.0, 60.0] {
            let frame = 1000.0 / fps;
            // Groups of one P picture and `depth` B pictures.
            let group = |first: usize| {
                let shown = [(first + depth + 1, false)];
                shown.into_iter().chain((1..=depth).map(move |number| (first + number, true)))
            };
            let order: Vec<(usize, bool)> =
                [(0, false)].into_iter().chain((0..200).flat_map(|n| group(n * (depth + 1)))).collect();
            let sent: Vec<Sent> = order
                .iter()
                .enumerate()
                .map(|(number, (shown, is_b))| {
                    Sent::Picture(number as f64 * frame, ms(*shown as f64 * frame), 0, *is_b)
                })
                .collect();
            let out = repair(both_tracks(), sent, false);
            assert_eq!((out.video.len(), out.discontinuities), (order.len(), 0), "{depth} at {fps}");
            for (number, ((dts, pts), (shown, _))) in out.video.iter().zip(&order).enumerate() {
                assert_eq!(
                    *pts,
                    TIMELINE_START + ms(*shown as f64 * frame),
                    "{depth} at {fps}: picture {number}"
                );
                let settled = number > 24;
                assert!(!settled || dts <= pts, "{depth} at {fps}: picture {number} is decoded too late");
            }
            for step in &out.steps()[30..] {
                let frames = *step as f64 / (frame * 90.0);
                assert!((0.4..2.0).contains(&frames), "{depth} at {fps}: {frames} frames");
            }
            assert!(out.repairs.get(Repair::DecodingTimeRecovered) > 0);
        }
    }
}

#[test]
fn clock_that_stands_still_is_paced_by_arrival() {
    let mut random = SmallRng::seed_from_u64(1);
    let mut sent = audio(30.0, |_, due| (due, 0));
    sent.extend(pictures(30.0, 30.0, |_, due| (due + random.random_range(0.0..20.0), 0)));
    let out = repair(both_tracks(), sent, true);
    assert_eq!((out.video.len(), out.audio.len()), (900, 1_406));
    assert!(out.audio_is_contiguous() && out.discontinuities == 0);
    for (number, (dts, _)) in out.video.iter().enumerate().skip(30) {
        let error = dts - TIMELINE_START - number as i64 * 3_000;
        assert!(error.abs() <= 90 * 60, "picture {number} is off by {error}");
    }
    let odd: Vec<i64> =
        out.steps()[60..].iter().copied().filter(|step| !(1_200..=6_000).contains(step)).collect();
    assert_eq!(odd, []);
    assert!(out.repairs.get(Repair::ClockStandsStill) > 850);
}

#[test]
fn slow_rates_are_no_jumps() {
    for fps in [0.2, 0.5, 1.0, 2.0] {
        for (has_audio, has_clock) in [(true, true), (true, false), (false, true)] {
            let count = 20;
            let seconds = f64::from(count) / fps;
            let mut sent = pictures(seconds, fps, |_, due| (due, ms(due)));
            if has_audio {
                sent.extend(audio(seconds, |_, due| (due, ms(due))));
            }
            let out = repair(both_tracks(), sent, has_clock);
            let times: Vec<i64> =
                (0..count).map(|n| TIMELINE_START + ms(f64::from(n) * 1000.0 / fps)).collect();
            assert_eq!(out.video.iter().map(|picture| picture.0).collect::<Vec<_>>(), times, "{fps}");
            assert_eq!(out.discontinuities, 0, "{fps}");
            if has_audio {
                assert_eq!(out.silent(), 0, "{fps}");
            }
        }
        // Without a clock the first step alone is unknown.
        let sent = pictures(20.0 / fps, fps, |_, due| (due, ms(due)));
        assert!(repair(both_tracks(), sent, false).discontinuities <= 1, "{fps}");
    }
}

#[test]
fn pictures_that_pause_while_sound_goes_on_come_back_in_their_place() {
    for pause in [2.0, 6.0, 60.0] {
        let mut sent = audio(20.0 + pause, |_, due| (due, ms(due)));
        sent.extend(pictures(10.0, 30.0, |_, due| (due, ms(due))));
        let after = 10_000.0 + pause * 1_000.0;
        sent.extend(pictures(10.0, 30.0, |_, due| (due + after, ms(due + after))));
        for has_clock in [true, false] {
            let out = repair(both_tracks(), sent.clone(), has_clock);
            assert_eq!((out.discontinuities, out.silent()), (0, 0), "{pause}");
            assert_eq!(out.video[300].0, TIMELINE_START + ms(after), "{pause}");
        }
    }
}

/// An encoder that pauses, or a network that stalls: both tracks go on without the pause.
#[test]
fn pause_of_both_tracks_is_one_discontinuity() {
    for pause in [2.0, 20.0] {
        let place = |due: f64| if due >= 10_000.0 { due + pause * 1_000.0 } else { due };
        let mut sent = audio(20.0, |_, due| (place(due), ms(place(due))));
        sent.extend(pictures(20.0, 30.0, |_, due| (place(due), ms(place(due)))));
        let out = repair(both_tracks(), sent, true);
        assert_eq!(out.discontinuities, 1, "{pause}");
        assert!(out.silent() <= 5 && out.steps().iter().all(|step| *step <= 9_000), "{pause}");
    }
}

#[test]
fn silence_is_bounded_for_each_message_and_each_second() {
    // Times that run away: pictures 1.5 s apart, a thousand in a second.
    let mut sent = pictures(10.0, 1_000.0, |number, due| (due, ms(number as f64 * 1_500.0)));
    sent.push(Sent::Audio(10_001.0, ms(15_000_000.0)));
    let out = repair(both_tracks(), sent.clone(), true);
    let frames = MAX_SILENCE / 1_920;
    let allowed = 30 * 47 + 10 * 8 * 47;
    assert!((out.silent() as i64) <= allowed, "{} silent frames", out.silent());
    assert!(out.repairs.get(Repair::SilenceLimit) > 0);
    // A single step is bounded without a clock, too.
    let jump = [Sent::Picture(0.0, 0, 0, false), Sent::Audio(1.0, 0), Sent::Audio(2.0, 130_000)];
    assert!((repair(both_tracks(), jump.to_vec(), false).silent() as i64) <= frames);
}

/// A few megabytes of one sender may not become gigabytes.
#[test]
fn tiny_pictures_whose_times_run_away_cost_a_bounded_amount() {
    const PICTURES: u32 = 20_000;
    for has_keyframe in [false, true] {
        let mut ingest = Ingest::new(config());
        let asc = millrace_media::codec::aac::AudioSpecificConfig::aac_lc(48_000, 2).unwrap();
        let mut events = ingest.push(Message::Video(0, FlvVideo::SequenceHeader(avcc(PPS))));
        events.extend(ingest.push(Message::Audio(0, FlvAudio::SequenceHeader(asc))));
        let mut most = 0;
        for number in 0..PICTURES {
            let arrival = i64::from(number) * 90 / 4;
            ingest.timeline.arrive(arrival);
            ingest.segmenter.arrive(arrival);
            let picture = access_unit(number, has_keyframe && number == 0, 0);
            let before = events.len();
            events.extend(ingest.push(Message::Video(number * 1_500, picture)));
            most = most.max(events.len() - before);
        }
        let before = events.len();
        events.extend(ingest.push(Message::Audio(PICTURES * 1_500, audio_frame(0))));
        most = most.max(events.len() - before);
        assert!(most <= 500, "{most} events of one message");
        let limit = 30 * 47 + 5 * 8 * 47 + PICTURES as usize + 10;
        assert!(events.len() <= limit, "{} events", events.len());
        assert!(ingest.timeline.since_keyframe().unwrap() >= i64::from(PICTURES - 1) * 135_000);
        let (outputs, _) = package(MEASURE, events, true);
        let bytes: usize = [TrackKind::Video, TrackKind::Audio]
            .into_iter()
            .flat_map(|track| parts(&outputs, track))
            .map(|part| part.body.len())
            .sum();
        assert!(bytes <= 16_000_000, "{bytes} bytes");
    }
}
