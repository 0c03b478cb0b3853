//! Random encoders with several habits at once: nothing is lost in silence, and the tracks stay together.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use millrace_media::repair::Repair;
use millrace_media::time::RtmpClock;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use support::encoder::*;

/// The habits of one encoder. Times are in milliseconds.
#[derive(Debug)]
struct Habits {
    fps: f64,
    /// Scatter of the times of pictures.
    jitter: f64,
    /// Parts of a thousand of pictures and of audio frames that are left out.
    lost: (u32, u32),
    /// Audio frames under one time.
    bundle: usize,
    /// Speed of the audio's times beside its samples.
    audio_speed: f64,
    /// Delay of audio behind the pictures, as it is sent.
    lag: f64,
    /// Both clocks step by so much at half time, forward or back.
    step: f64,
    /// Both tracks pause for so long at a quarter.
    pause: f64,
    start: u64,
    wrap_bits: u32,
    has_clock: bool,
}

const SECONDS: f64 = 40.0;

impl Habits {
    fn random(random: &mut SmallRng) -> Self {
        let mut one_of = |values: &[f64]| values[random.random_range(0..values.len())];
        let fps = one_of(&[15.0, 24.0, 25.0, 29.97, 30.0, 50.0, 60.0]);
        let (jitter, audio_speed) =
            (one_of(&[0.0, 0.0, 5.0, 15.0, 30.0]), one_of(&[1.0, 1.0, 0.995, 1.005, 0.984]));
        let (lag, step) =
            (one_of(&[0.0, 0.0, 60.0, 300.0]), one_of(&[0.0, 0.0, -300.0, -700.0, -9_000.0, 90_000.0]));
        let pause = one_of(&[0.0, 0.0, 400.0, 1_200.0, 3_000.0, 20_000.0]);
        let bundle = one_of(&[1.0, 1.0, 4.0, 10.0]) as usize;
        let bits = [24, 31, 32][random.random_range(0..3)];
        Self {
            fps,
            jitter,
            lost: (random.random_range(0..20), random.random_range(0..5)),
            bundle,
            audio_speed,
            lag,
            step,
            pause,
            start: if random.random() { (1u64 << bits) - 10_000 } else { 100_000 },
            wrap_bits: bits,
            has_clock: random.random(),
        }
    }

    /// The time of day at which something due at `due` happens, and the clock's time then.
    fn moment(&self, due: f64) -> (f64, f64) {
        let paused = if due >= SECONDS * 250.0 { self.pause } else { 0.0 };
        let stepped = if due >= SECONDS * 500.0 { self.step } else { 0.0 };
        (due + paused, due + paused + stepped)
    }

    /// Frames in the order of their arrival, with times as RTMP carries them, unwrapped again.
    fn send(&self, random: &mut SmallRng) -> Vec<Sent> {
        let mut sent = pictures(SECONDS, self.fps, |_, due| {
            let (arrival, time) = self.moment(due);
            (arrival, ms(time + self.jitter * random.random_range(-1.0..=1.0)))
        });
        sent.extend(audio(SECONDS, |number, _| {
            let due = |number: usize| number as f64 * 1024.0 / 48.0;
            let (arrival, _) = self.moment(due(number));
            let first = due(number / self.bundle * self.bundle);
            let (_, time) = self.moment(first);
            (arrival + self.lag, ms(time + first * (self.audio_speed - 1.0)))
        }));
        let mut number = 0;
        sent.retain(|sent| {
            number += 1;
            let lost = if matches!(sent, Sent::Picture(..)) { self.lost.0 } else { self.lost.1 };
            number < 20 || random.random_range(0..1_000) >= lost
        });
        sent.sort_by(|a, b| a.arrival().total_cmp(&b.arrival()));
        let mut clock = RtmpClock::new();
        let mut unwrap = |time: i64| {
            let raw = (self.start as i64 + time / 90).rem_euclid(1 << self.wrap_bits);
            clock.unwrap(raw as u32) * 90
        };
        for sent in &mut sent {
            match sent {
                Sent::Picture(_, time, ..) | Sent::Audio(_, time) => *time = unwrap(*time),
            }
        }
        sent
    }
}

/// Random encoders; set `MILLRACE_SEED` to replay one.
#[test]
fn every_frame_is_kept_or_counted_and_the_tracks_stay_together() {
    let seeds = match std::env::var("MILLRACE_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..400).collect::<Vec<u64>>(),
    };
    for seed in seeds {
        let mut random = SmallRng::seed_from_u64(seed);
        let habits = Habits::random(&mut random);
        println!("seed {seed}: {habits:?}");
        let sent = habits.send(&mut random);
        let pictures = sent.iter().filter(|sent| matches!(sent, Sent::Picture(..))).count();
        let frames = sent.len() - pictures;
        // Strictly growing decoding times and audio without overlap are checked for every frame.
        let out = repair(both_tracks(), sent, habits.has_clock);
        let count = |repair| out.repairs.get(repair) as usize;
        assert_eq!(out.video.len(), pictures, "pictures");
        let dropped = count(Repair::AudioOverlap) + count(Repair::AudioBehindSilence);
        let made_up = count(Repair::SilenceInHole) + count(Repair::SilenceForAbsentAudio);
        assert_eq!((out.audio.len(), out.silent()), (frames - dropped + made_up, made_up), "audio");
        let jumps = usize::from(habits.step != 0.0) + usize::from(habits.pause > 1_500.0);
        assert!(out.discontinuities <= jumps, "{} discontinuities", out.discontinuities);
        // Both tracks end at the same moment.
        let (video, audio) =
            (out.video.last().unwrap().0 as f64 / 90.0, out.audio.last().unwrap().0 as f64 / 48.0);
        let allowed = 250.0 + habits.jitter + if habits.step == 0.0 { 0.0 } else { 120.0 };
        assert!((video - audio).abs() <= allowed, "{video} ms and {audio} ms");
        // What is left out of the audio is what was lost before, overlaps, or is a drift's frame now and then.
        assert!(dropped <= 25, "{dropped} audio frames left out");
    }
}
