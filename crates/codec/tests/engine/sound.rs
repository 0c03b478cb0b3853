//! Encoded sound lies on its grid, sample by sample, also where one engine goes on behind another.

use std::f64::consts::TAU;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use ffmpeg_next as av;
use millrace_codec::engine::order::{AudioSource, Order, Plan, SourceSound};
use millrace_codec::engine::product::{AudioStart, Condition, Product};
use millrace_media::codec::AudioCodec;
use millrace_media::codec::opus::to_specific_box;
use millrace_testkit::ffmpeg::ffmpeg;
use millrace_testkit::tone;

use crate::support::run;

/// The tone of all sources: no multiple of a frame's rate.
const TONE: f64 = 997.0;

/// Frames that a successor decodes first; sessions give as many.
const PRE_ROLL: usize = 16;

/// A coded tone.
struct Tone {
    source: AudioSource,
    frames: Vec<Bytes>,
    /// Samples of a frame at the source's rate.
    samples: i64,
}

impl Tone {
    fn encode(
        codec: AudioCodec,
        rate: u32,
        channels: u8,
        samples: i64,
        arguments: &str,
        extension: &str,
    ) -> Result<Self> {
        let path = file(rate, channels, arguments, extension)?;
        let mut input = av::format::input(&path)?;
        // SAFETY: the parameters live as long as the input; the record has the size that they tell.
        let record = unsafe {
            let stream = input.streams().next().context("a stream")?;
            let parameters = stream.parameters();
            let raw = parameters.as_ptr();
            if (*raw).extradata.is_null() {
                Bytes::new()
            } else {
                Bytes::copy_from_slice(std::slice::from_raw_parts(
                    (*raw).extradata,
                    (*raw).extradata_size as usize,
                ))
            }
        };
        let record = if codec == AudioCodec::Opus { to_specific_box(record)? } else { record };
        let packets: Vec<Bytes> =
            input.packets().filter_map(|(_, packet)| packet.data().map(Bytes::copy_from_slice)).collect();
        // The first MP3 frame may hold the table of contents, and is silent.
        Ok(Self { source: AudioSource { codec, record, rate, channels }, frames: packets, samples })
    }

    /// Returns the frames `range` as orders; those from `encode` on are to be encoded.
    fn orders(&self, range: std::ops::Range<usize>, encode: usize, first_pts: i64) -> Vec<Order> {
        let plan = Plan { audio: true, pictures: true, ..Plan::default() };
        let mut orders = vec![Order::Start(plan), Order::AudioConfig(self.source.clone())];
        orders.extend(range.map(|at| {
            let (pts, data) = (first_pts + at as i64 * self.samples, self.frames[at].clone().into());
            Order::Sound(SourceSound { pts, encode: at >= encode, data })
        }));
        orders
    }
}

fn file(rate: u32, channels: u8, arguments: &str, extension: &str) -> Result<PathBuf> {
    let folder = std::env::temp_dir().join("millrace-clips");
    std::fs::create_dir_all(&folder)?;
    let name: String = arguments.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let path = folder.join(format!("tone-{rate}-{channels}-{name}.{extension}"));
    if !path.is_file() {
        let unfinished = tempfile::Builder::new().suffix(&format!(".{extension}")).tempfile_in(&folder)?;
        let tone = format!("sine=frequency={TONE}:sample_rate={rate}:duration=8");
        let mut command = ffmpeg();
        command.args(["-f", "lavfi", "-i", &tone, "-ac", &channels.to_string()]);
        command.args(arguments.split_whitespace()).arg(unfinished.path());
        ensure!(command.status()?.success(), "ffmpeg could not encode {name}");
        unfinished.persist(&path)?;
    }
    Ok(path)
}

/// Collects the encoded frames and checks that they lie on the grid without a gap.
fn sounds(products: &[Product]) -> Vec<(i64, Bytes)> {
    let sound = |product: &Product| match product {
        Product::Sound { pts, data } => Some((*pts, data.clone())),
        _ => None,
    };
    let sounds: Vec<(i64, Bytes)> = products.iter().filter_map(sound).collect();
    assert!(sounds.iter().all(|(pts, _)| pts.rem_euclid(1024) == 0));
    assert!(sounds.windows(2).all(|pair| pair[1].0 == pair[0].0 + 1024), "the grid has a gap");
    sounds
}

fn start(products: &[Product]) -> Result<&AudioStart> {
    let start = products.iter().find_map(|product| match product {
        Product::AudioStarted(start) => Some(start),
        _ => None,
    });
    start.context("a start of the audio")
}

/// Decodes AAC frames: the samples of a channel, the first at the first frame's time.
fn decode(record: &[u8], frames: &[(i64, Bytes)], channel: usize) -> Result<Vec<f64>> {
    let codec = av::decoder::find(av::codec::Id::AAC).context("an AAC decoder")?;
    let mut context = av::codec::context::Context::new_with_codec(codec);
    // SAFETY: the context is not open yet; libav frees the record, which has its padding.
    unsafe {
        let context = context.as_mut_ptr();
        (*context).extradata = av::ffi::av_mallocz(record.len() + 64).cast();
        std::ptr::copy_nonoverlapping(record.as_ptr(), (*context).extradata, record.len());
        (*context).extradata_size = record.len() as i32;
    }
    let mut decoder = context.decoder().open_as(codec)?.audio()?;
    let mut samples = Vec::new();
    let mut frame = av::frame::Audio::empty();
    for (_, data) in frames {
        decoder.send_packet(&av::Packet::copy(data))?;
        while decoder.receive_frame(&mut frame).is_ok() {
            samples.extend(frame.plane::<f32>(channel).iter().map(|sample| f64::from(*sample)));
        }
    }
    Ok(samples)
}

/// Returns the tone that fits samples of `rate`, the first of which has the number `first`.
fn fit(samples: &[f64], first: i64, rate: f64) -> tone::Fit {
    tone::fit(samples, first, TAU * TONE / rate)
}

fn tones() -> Result<Vec<(&'static str, Tone)>> {
    let make = Tone::encode;
    Ok(vec![
        ("AAC mono of 44.1 kHz", make(AudioCodec::Aac, 44_100, 1, 1024, "-c:a aac -b:a 96k", "m4a")?),
        ("AAC 5.1 of 48 kHz", make(AudioCodec::Aac, 48_000, 6, 1024, "-c:a aac -b:a 320k", "m4a")?),
        ("AAC stereo of 32 kHz", make(AudioCodec::Aac, 32_000, 2, 1024, "-c:a aac -b:a 96k", "m4a")?),
        (
            "MP3 stereo of 44.1 kHz",
            make(AudioCodec::Mp3, 44_100, 2, 1152, "-c:a libmp3lame -b:a 128k", "mp3")?,
        ),
        ("Opus stereo", make(AudioCodec::Opus, 48_000, 2, 960, "-c:a libopus -b:a 128k", "mp4")?),
    ])
}

#[test]
fn sound_that_a_second_engine_goes_on_with_has_no_click() -> Result<()> {
    for (name, tone) in tones()? {
        let count = tone.frames.len().min(240);
        let first_pts = 1_234_567;
        let whole = run(tone.orders(0..count, 0, first_pts))?;
        let record = start(&whole)?.record.clone();
        let whole = sounds(&whole);
        // The successor begins in the middle, with a few frames before the first that it encodes.
        let middle = count / 2;
        let resumed = run(tone.orders(middle - PRE_ROLL..count, middle, first_pts))?;
        let resumed = sounds(&resumed);
        let join = resumed[0].0;
        let from = (first_pts + middle as i64 * tone.samples) * 48_000 / i64::from(tone.source.rate);
        assert!(join <= from && from < join + 1024, "{name}: first frame at {join} for {from}");
        let mut joined: Vec<(i64, Bytes)> = whole.iter().filter(|(pts, _)| *pts < join).cloned().collect();
        joined.extend(resumed);
        assert!(joined.windows(2).all(|pair| pair[1].0 == pair[0].0 + 1024), "{name}");
        assert_eq!(joined.last().map(|last| last.0), whole.last().map(|last| last.0), "{name}");
        let samples = decode(&record, &joined, 0)?;
        let at = (join - joined[0].0) as usize;
        // The first and last frames ramp up and down.
        let calm = fit(&samples[8 * 1024..at - 8 * 1024], joined[8].0, 48_000.0);
        let first = joined[0].0 + at as i64 - 8 * 1024;
        let over = fit(&samples[at - 8 * 1024..at + 8 * 1024], first, 48_000.0);
        assert!(calm.amplitude > 0.03, "{name}: {calm:?}");
        let turned = (over.phase - calm.phase + TAU / 2.0).rem_euclid(TAU) - TAU / 2.0;
        assert!(turned.abs() < 0.005, "{name}: the phase steps by {turned}");
        assert!(over.worst < 1.5 * calm.worst + 0.002, "{name}: {over:?} beside {calm:?}");
        // Sample by sample it is the undisturbed sound, but for what the rate control of the encoder remembers.
        let undisturbed = decode(&record, &whole, 0)?;
        let difference = samples.iter().zip(&undisturbed).map(|(own, other)| (own - other).abs());
        let difference = difference.fold(0.0, f64::max);
        assert!(difference < 0.1 * calm.amplitude, "{name}: {difference} beside {calm:?}");
    }
    Ok(())
}

#[test]
fn sound_keeps_the_time_of_its_source() -> Result<()> {
    for (name, tone) in tones()? {
        if tone.source.codec != AudioCodec::Aac {
            continue;
        }
        let frames: Vec<(i64, Bytes)> =
            (0..).zip(&tone.frames).map(|(n, data)| (n * 1024, data.clone())).collect();
        let rate = f64::from(tone.source.rate);
        // One channel sounds in the middle of 5.1.
        let channel = if tone.source.channels == 6 { 2 } else { 0 };
        let source = decode(&tone.source.record, &frames, channel)?;
        let before = fit(&source[20_000..100_000], 20_000, rate);
        let made = run(tone.orders(0..tone.frames.len(), 0, 0))?;
        let record = start(&made)?.record.clone();
        let made = sounds(&made);
        assert_eq!(made[0].0, 0, "{name}");
        let after = fit(&decode(&record, &made, 0)?[20_000..100_000], 20_000, 48_000.0);
        let turned = (after.phase - before.phase + TAU / 2.0).rem_euclid(TAU) - TAU / 2.0;
        assert!(turned.abs() < 0.01, "{name}: {turned} between {before:?} and {after:?}");
    }
    Ok(())
}

#[test]
fn gap_in_the_source_is_silence_and_an_overlap_is_dropped() -> Result<()> {
    let tone = Tone::encode(AudioCodec::Aac, 44_100, 1, 1024, "-c:a aac -b:a 96k", "m4a")?;
    let mut orders = tone.orders(0..120, 0, 0);
    for order in &mut orders {
        if let Order::Sound(sound) = order {
            // Half a second is missing behind frame 40; the times of the frames from 80 on overlap by 10 ms.
            let late = if sound.pts >= 40 * 1024 { 22_050 } else { 0 };
            let early = if sound.pts >= 80 * 1024 { 441 } else { 0 };
            sound.pts += late - early;
        }
    }
    let products = run(orders)?;
    let record = start(&products)?.record.clone();
    let sounds = sounds(&products);
    let end = (120 * 1024 + 22_050 - 441) * 160 / 147;
    assert!((sounds.last().context("a frame")?.0 + 1024 - end).abs() <= 2048);
    let samples = decode(&record, &sounds, 0)?;
    let gap = 40 * 1024 * 160 / 147;
    let loudest =
        |range: std::ops::Range<usize>| samples[range].iter().fold(0f64, |most, x| most.max(x.abs()));
    assert!(loudest(gap + 2048..gap + 20_000) < 0.001);
    assert!(loudest(gap - 8000..gap - 2048) > 0.05);
    assert!(loudest(gap + 28_000..gap + 40_000) > 0.05);
    Ok(())
}

#[test]
fn silence_is_told_once_it_has_lasted_and_ends_with_the_sound() -> Result<()> {
    let tone = Tone::encode(AudioCodec::Aac, 44_100, 1, 1024, "-c:a aac -b:a 96k", "m4a")?;
    let mut orders = tone.orders(0..100, 0, 0);
    for order in &mut orders {
        if let Order::Sound(sound) = order
            && sound.pts >= 40 * 1024
        {
            sound.pts += 6 * 44_100;
        }
    }
    let conditions: Vec<Product> =
        run(orders)?.into_iter().filter(|product| matches!(product, Product::Condition { .. })).collect();
    let told = |begins| Product::Condition { condition: Condition::Silent, begins };
    assert_eq!(conditions, [told(true), told(false)]);
    Ok(())
}
