//! How fast this machine encodes: a short clip through the engine.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::{Buf, Bytes};
use millrace_codec::engine::Engine;
use millrace_codec::engine::order::{EncoderKind, Order, Plan, RungPlan, Slot, SourcePicture, VideoSource};
use millrace_codec::engine::product::Product;
use millrace_media::codec::VideoCodec;

/// One second of 640 × 360 at 30 pictures a second with noise, as H.264: the decoder's record and the pictures, each behind its
/// length in four bytes.
const CLIP: &[u8] = include_bytes!("calibration.bin");
const WIDTH: u32 = 640;
const HEIGHT: u32 = 360;
/// Times that the clip is encoded: long enough to measure, short beside the start of a node.
const ROUNDS: u64 = 3;
/// 90 kHz ticks of a picture.
const FRAME: u32 = 3_000;
/// The longest time that a machine takes: one that is slower encodes nothing in real time.
const LIMIT: Duration = Duration::from_secs(20);

/// Returns the pixels that the encoder makes in a second of one core's time, decoding included.
pub(super) fn measure(kind: EncoderKind) -> anyhow::Result<u64> {
    let (record, pictures) = clip()?;
    let rung = RungPlan { height: HEIGHT, bitrate: 1_000_000, fps: None, preset: None };
    let plan = Plan { rungs: vec![rung], encoders: vec![kind], threads: 1, ..Plan::default() };
    let source = VideoSource {
        codec: VideoCodec::H264,
        record,
        width: WIDTH,
        height: HEIGHT,
        pixel_aspect: (1, 1),
        frame_rate_milli: 30_000,
        bitrate: 0,
        version: 0,
    };
    let engine = Engine::start()?;
    engine.push(Order::Start(plan))?;
    engine.push(Order::VideoConfig(source))?;
    let cpu = cpu_time();
    let (mut slot, mut made, started) = (0, 0u64, Instant::now());
    for data in (0..ROUNDS).flat_map(|_| &pictures) {
        engine.push(Order::Picture(picture(slot, slot % pictures.len() as u64 == 0, data.clone())))?;
        slot += 1;
        while let Some(product) = engine.poll() {
            made += u64::from(matches!(product, Product::Picture(_)));
        }
    }
    engine.push(Order::Flush)?;
    loop {
        let rest = LIMIT.saturating_sub(started.elapsed());
        match engine.next_within(rest).context("calibration")? {
            Product::Picture(_) => made += 1,
            Product::Refused(refusal) => bail!("{}", refusal.reason),
            Product::Flushed => break,
            _ => {}
        }
    }
    ensure!(made == slot, "{made} of {slot} pictures were encoded");
    let micros = (cpu_time().saturating_sub(cpu)).as_micros().max(1) as u64;
    Ok(made * u64::from(WIDTH * HEIGHT) * 1_000_000 / micros)
}

fn picture(slot: u64, starts_segment: bool, data: Bytes) -> SourcePicture {
    SourcePicture {
        slot: Slot(slot),
        pts: slot as i64 * i64::from(FRAME),
        duration: FRAME,
        starts_segment,
        independent: false,
        encode: true,
        keyframe: starts_segment,
        data: data.into(),
    }
}

fn clip() -> anyhow::Result<(Bytes, Vec<Bytes>)> {
    let mut rest = Bytes::from_static(CLIP);
    let mut pieces = Vec::new();
    while rest.has_remaining() {
        let length = rest.try_get_u32()? as usize;
        ensure!(length <= rest.len(), "the clip is cut off");
        pieces.push(rest.split_to(length));
    }
    ensure!(pieces.len() > 1, "the clip is empty");
    Ok((pieces.remove(0), pieces))
}

/// Returns the processor time of all threads of this process.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clip_has_a_record_and_a_second_of_pictures() {
        let (record, pictures) = clip().unwrap();
        assert_eq!((record[0], pictures.len()), (1, 30), "an AVCDecoderConfigurationRecord of version 1");
    }

    #[test]
    fn machine_encodes_at_some_speed() {
        let speed = measure(EncoderKind::X264).unwrap();
        assert!(speed > 1_000_000, "{speed} pixels a second");
    }
}
