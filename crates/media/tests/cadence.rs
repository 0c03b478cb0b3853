//! Times of pictures that jitter around a steady rate, vary, or miss pictures.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use millrace_media::repair::Repair;
use millrace_media::timeline::TIMELINE_START;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use support::encoder::*;

const RATES: [f64; 6] = [24.0, 25.0, 30_000.0 / 1001.0, 30.0, 50.0, 60.0];

/// Sends pictures with times that are off by up to `jitter` ms, beside clean audio.
fn jittering(seconds: f64, fps: f64, jitter: f64, seed: u64) -> Repaired {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut frames =
        pictures(seconds, fps, |_, due| (due, ms(due + jitter * random.random_range(-1.0..1.0) + 1_000.0)));
    frames.extend(audio(seconds, |_, due| (due, ms(due + 1_000.0))));
    repair(both_tracks(), frames, false)
}

#[test]
fn jittering_times_are_put_on_a_steady_grid() {
    for fps in RATES {
        let frame = 90_000.0 / fps;
        for jitter in [5.0, 15.0, 30.0] {
            for seed in 0..4 {
                let name = format!("{fps:.2} fps, {jitter} ms, seed {seed}");
                let out = jittering(60.0, fps, jitter, seed);
                assert_eq!(out.video.len(), (60.0 * fps) as usize, "{name}");
                let steps: Vec<f64> = out.steps().iter().map(|step| *step as f64 / frame).collect();
                assert!(steps.iter().all(|step| *step >= 0.2), "{name}");
                let odd: Vec<&f64> = steps[300..].iter().filter(|step| !(0.8..1.2).contains(*step)).collect();
                // Where times scatter over several frames, one that looks left out is given back now and then.
                let allowed = if jitter * 90.0 > frame { 8 } else { 0 };
                assert!(odd.len() <= allowed, "{name}: {odd:?}");
                // The grid is where the times are: the rate is exact, and the distance from the audio stays.
                let first = out.video[0].0 as f64;
                for (number, (dts, pts)) in out.video.iter().enumerate() {
                    let error = (*dts as f64 - first - number as f64 * frame) / 90.0;
                    assert!(
                        error.abs() <= 2.0 * jitter + 30.0,
                        "{name}: picture {number} is off by {error} ms"
                    );
                    assert_eq!(dts, pts);
                }
                assert!(out.audio_is_contiguous() && out.silent() == 0, "{name}");
                assert!(out.repairs.get(Repair::PictureTimeSteadied) as f64 > 50.0 * fps, "{name}");
            }
        }
    }
}

#[test]
fn jittering_times_do_not_drift_against_the_audio_in_an_hour() {
    let out = jittering(3_600.0, 30.0, 15.0, 9);
    let first = out.video[0].0;
    for (number, (dts, _)) in out.video.iter().enumerate() {
        let error = dts - first - number as i64 * 3_000;
        assert!(error.abs() <= 40 * 90, "picture {number} is off by {error}");
    }
    assert_eq!(out.audio.len(), 168_750);
    assert!(out.audio_is_contiguous());
}

#[test]
fn clean_times_are_left_alone() {
    for fps in [5.0, 10.0, 15.0, 24.0, 25.0, 30_000.0 / 1001.0, 30.0, 48.0, 50.0, 60.0] {
        for start in [0.0, 0.3, 0.7] {
            let sent = pictures(60.0, fps, |_, due| (due, ms(due + start)));
            let times: Vec<i64> = sent
                .iter()
                .map(|sent| match sent {
                    Sent::Picture(_, time, ..) => TIMELINE_START + time - ms(start),
                    Sent::Audio(..) => 0,
                })
                .collect();
            let out = repair(both_tracks(), sent, false);
            assert_eq!(out.video.iter().map(|picture| picture.0).collect::<Vec<_>>(), times, "{fps}");
            assert_eq!(out.kinds(), [Repair::SilenceForAbsentAudio], "{fps}");
        }
    }
}

/// Pictures whose steps vary for themselves, as screens and phones in low light send them.
#[test]
fn rate_that_truly_varies_is_left_alone() {
    for (low, high) in [(20.0, 50.0), (25.0, 42.0), (33.0, 34.0)] {
        for seed in 0..8 {
            let mut random = SmallRng::seed_from_u64(seed);
            let mut time = 0.0;
            let sent = pictures(60.0, 30.0, |_, due| {
                time += random.random_range(low..high);
                (due, ms(time))
            });
            let out = repair(both_tracks(), sent, false);
            let moved = out.repairs.get(Repair::PictureTimeSteadied);
            assert!(moved * 20 <= out.video.len() as u64, "{low} to {high}, seed {seed}: {moved} moved");
            assert!(out.repairs.get(Repair::DecodingTimeMoved) * 50 <= out.video.len() as u64);
        }
    }
}

#[test]
fn another_steady_rate_is_followed_without_moving_a_picture() {
    for (before, after) in
        [(30.0, 24.0), (24.0, 30.0), (30.0, 15.0), (15.0, 30.0), (60.0, 30.0), (25.0, 50.0)]
    {
        let mut time = 0.0;
        let sent = pictures(60.0, 30.0, |number, due| {
            time += 1000.0 / if number / 300 % 2 == 0 { before } else { after };
            (due, ms(time))
        });
        let out = repair(both_tracks(), sent, false);
        assert_eq!(out.kinds(), [Repair::SilenceForAbsentAudio], "{before} {after}");
    }
}

#[test]
fn places_of_pictures_left_out_stay_empty() {
    for (jitter, slack) in [(0.0, 1.0), (5.0, 12.0)] {
        for seed in 0..4 {
            let mut random = SmallRng::seed_from_u64(seed);
            let (mut sent, mut places) = (Vec::new(), Vec::new());
            for number in 0..3_000 {
                if number < 30 || random.random_range(0..20) > 0 {
                    let due = f64::from(number) * 1000.0 / 30.0;
                    let time = ms(due + jitter * random.random_range(-1.0..1.0) + 500.0);
                    sent.push(Sent::Picture(due, time, 0, false));
                    places.push(due);
                }
            }
            let out = repair(both_tracks(), sent, false);
            let first = out.video[0].0 as f64 / 90.0 - places[0];
            for ((dts, _), due) in out.video.iter().zip(&places).skip(100) {
                let error = *dts as f64 / 90.0 - first - due;
                assert!(error.abs() <= slack + jitter, "seed {seed}: off by {error} ms at {due}");
            }
        }
    }
}

/// B pictures in groups of three, decoded one frame early: number shown, and true for a B picture.
fn groups(count: usize) -> Vec<(usize, bool)> {
    let group = |first: usize| [(first + 3, false), (first + 1, true), (first + 2, true)];
    [(0, false)].into_iter().chain((0..count).flat_map(|number| group(number * 3))).collect()
}

/// The network or the muxer jitters: composition offsets are whole frames.
#[test]
fn reordered_pictures_with_jittering_times_are_shown_on_the_grid() {
    let mut random = SmallRng::seed_from_u64(3);
    let mut sent = Vec::new();
    let groups = groups(600);
    for (number, (shown, is_b)) in groups.iter().enumerate() {
        let due = number as f64 * 1000.0 / 30.0;
        let cts = (*shown as i64 + 1 - number as i64) * 3_000;
        sent.push(Sent::Picture(due, ms(due + random.random_range(-15.0..15.0) + 500.0), cts, *is_b));
    }
    let out = repair(both_tracks(), sent, false);
    let mut shown: Vec<(usize, i64)> =
        groups.iter().zip(&out.video).skip(400).map(|(group, times)| (group.0, times.1)).collect();
    shown.sort_unstable();
    for pair in shown.windows(2) {
        let step = (pair[1].1 - pair[0].1) as f64 / 3_000.0;
        assert!(
            (0.8..1.2).contains(&step),
            "picture {} is shown {step} frames after the one before",
            pair[1].0
        );
    }
}

/// The encoder stamps pictures at capture and derives decoding times from the presentation times.
#[test]
fn reordered_pictures_with_jittering_presentation_keep_it_and_get_steady_decoding_times() {
    let mut random = SmallRng::seed_from_u64(4);
    let groups = groups(600);
    let shown: Vec<i64> = (0..=groups.len() + 3)
        .map(|number| ms(number as f64 * 1000.0 / 30.0 + random.random_range(-15.0..15.0) + 500.0))
        .collect();
    let mut sent = Vec::new();
    for (number, (place, is_b)) in groups.iter().enumerate() {
        let dts = if number == 0 { shown[0] - 3_000 } else { shown[number - 1] };
        sent.push(Sent::Picture(number as f64 * 1000.0 / 30.0, dts, shown[*place] - dts, *is_b));
    }
    let out = repair(both_tracks(), sent, false);
    let offset = out.video[0].1 - shown[0];
    for ((_, pts), (place, _)) in out.video.iter().zip(&groups).skip(10) {
        let error = pts - offset - shown[*place];
        assert!(error.abs() <= 40 * 90, "picture {place} is shown {error} ticks off");
    }
    for step in &out.steps()[300..] {
        assert!((2_400..3_600).contains(step), "{step}");
    }
}
