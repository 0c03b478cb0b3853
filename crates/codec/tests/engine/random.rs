//! Random sources through random ladders: no place is lost or doubled, and segments begin with IDR pictures.

use anyhow::{Context as _, Result};
use millrace_codec::engine::order::{EncoderKind, Order};
use millrace_media::codec::VideoCodec;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::support::{Made, Recipe, Source, Timing, plan, run};

const FRAMES: usize = 72;

/// Sources of every kind: without B pictures, with a pyramid of them, with open groups, interlaced, of other formats and codecs.
pub const SOURCES: [Recipe; 8] = [
    Recipe::h264(FRAMES, "-c:v libx264 -preset veryfast -crf 20 -pix_fmt yuv420p -bf 0 -g 25"),
    Recipe::h264(FRAMES, "-c:v libx264 -preset veryfast -crf 20 -pix_fmt yuv420p -x264-params keyint=30:scenecut=0:bframes=3:b-adapt=0:b-pyramid=normal"),
    Recipe::h264(FRAMES, "-c:v libx264 -preset veryfast -crf 20 -pix_fmt yuv420p -x264-params open-gop=1:keyint=24:scenecut=0:bframes=2"),
    Recipe::h264(FRAMES, "-c:v libx264 -preset veryfast -crf 20 -pix_fmt yuv420p -g 24 -x264-params tff=1"),
    Recipe::h264(FRAMES, "-c:v libx264 -preset veryfast -crf 20 -pix_fmt yuv422p10le -g 24"),
    Recipe::h264(FRAMES, "-c:v libx264 -preset veryfast -crf 20 -pix_fmt yuv444p -color_range pc -g 24"),
    Recipe::h264(FRAMES, "-c:v libx265 -preset ultrafast -crf 20 -pix_fmt yuv420p -tag:v hvc1 -x265-params log-level=error:keyint=30:bframes=3:b-pyramid=1")
        .of(VideoCodec::Hevc),
    Recipe::h264(FRAMES, "-c:v libsvtav1 -preset 12 -crf 30 -g 30 -pix_fmt yuv420p").of(VideoCodec::Av1),
];

/// Durations of pictures at the usual rates; 0 stands for a rate that changes with each picture.
const RATES: [(u32, u32); 8] = [
    (3750, 24_000),
    (3600, 25_000),
    (3003, 29_970),
    (3000, 30_000),
    (1800, 50_000),
    (1501, 59_960),
    (1500, 60_000),
    (0, 30_000),
];

fn timing(random: &mut StdRng, duration: u32) -> Timing {
    let mut until = 0;
    let mut timing = Timing { durations: Vec::new(), segments: Vec::new() };
    for _ in 0..FRAMES {
        let own = if duration == 0 { random.random_range(1200..6000) } else { duration };
        // A frame that the source left out makes the one before longer.
        let missing = if random.random_bool(0.05) { random.random_range(1..4) } else { 0 };
        timing.durations.push(own * (1 + missing));
        timing.segments.push(until == 0);
        until = if until == 0 { random.random_range(5..40) } else { until - 1 };
    }
    timing
}

fn check(seed: u64, source: &Source, kind: EncoderKind) -> Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let (duration, rate) = RATES[random.random_range(0..RATES.len())];
    let timing = timing(&mut random, duration);
    let limit = |random: &mut StdRng| random.random_bool(0.5).then_some(30);
    let mut plan = plan(&[(180, limit(&mut random)), (144, limit(&mut random)), (90, limit(&mut random))]);
    plan.encoders = vec![kind];
    let limits: Vec<Option<u32>> = plan.rungs.iter().map(|rung| rung.fps).collect();
    let mut orders = vec![Order::Start(plan), Order::VideoConfig(source.config(rate))];
    orders.extend(source.orders(&timing, 0).into_iter().map(Order::Picture));
    let products = run(orders)?;
    let mut ranks: Vec<usize> = source.pictures.iter().map(|picture| picture.rank).collect();
    ranks.sort_unstable();
    for (rung, limit) in (0u8..).zip(limits) {
        let made = Made::of(&products, rung);
        let division = if limit.is_some() && rate > 30_200 { 2 } else { 1 };
        let mut expected = Vec::new();
        let mut since = 0;
        for (place, starts) in timing.segments.iter().enumerate() {
            since = if *starts { 0 } else { since + 1 };
            if since % division == 0 {
                expected.push((place, *starts));
            }
        }
        let pictures: Vec<(usize, bool)> =
            made.pictures.iter().map(|picture| (picture.slot.0 as usize, picture.idr)).collect();
        assert_eq!(pictures, expected, "rung {rung}");
        let numbers = made.numbers()?;
        let drawn: Vec<Option<u16>> = expected.iter().map(|(place, _)| Some(*place as u16)).collect();
        assert_eq!(numbers, drawn, "rung {rung}");
        let total: u32 = made.pictures.iter().map(|picture| picture.slots).sum();
        assert_eq!(total as usize, FRAMES, "rung {rung}: places covered");
        assert!(made.pictures.windows(2).all(|pair| pair[0].pts < pair[1].pts), "rung {rung}");
    }
    Ok(())
}

#[test]
fn random_sources_keep_their_places_and_numbers_in_each_rung() -> Result<()> {
    let sources = SOURCES.iter().map(Recipe::source).collect::<Result<Vec<_>>>()?;
    for seed in 0..32u64 {
        let at = seed as usize % sources.len();
        // Each fourth source goes through OpenH264.
        let kind = if seed % 5 == 4 { EncoderKind::Openh264 } else { EncoderKind::X264 };
        check(seed, &sources[at], kind).with_context(|| format!("seed {seed}, {:?}, {kind}", SOURCES[at]))?;
    }
    Ok(())
}
