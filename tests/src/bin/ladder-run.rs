//! `ladder-run SOURCE.flv FOLDER [PRESET]`: runs the transcoder over a recording as fast as it goes, with the rungs of the template
//! `standard`. Writes a byte stream for each rung into the folder, and one line of JSON: what it took.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::thread;

use anyhow::{Context, Result};
use bytes::Bytes;
use millrace_codec::engine::order::{EncoderKind, Order, Plan, RungPlan, Slot, SourcePicture, VideoSource};
use millrace_codec::engine::product::Product;
use millrace_codec::engine::{Engine, PushError};
use millrace_media::container::flv::FlvVideo;
use millrace_media::container::flv::file::{Reader, TagKind};
use millrace_media::frame::VideoConfig;

/// Heights and bit rates of the rungs.
const RUNGS: [(u32, u64); 3] = [(720, 2_800_000), (480, 1_400_000), (360, 800_000)];
/// Ticks of 90 kHz of a picture: 30 a second.
const PICTURE: u32 = 3000;
/// Ticks of 90 kHz of a millisecond.
const MILLISECOND: i64 = 90;
/// Pictures from segment to segment: 2 s.
const SEGMENT: u64 = 60;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let source = arguments.next().context("SOURCE.flv")?;
    let folder = arguments.next().context("FOLDER")?;
    let preset = arguments.next();
    let orders = orders(&source, preset.as_deref())?;
    let pictures = orders.iter().filter(|order| matches!(order, Order::Picture(_))).count();
    let (input, output) = Engine::start()?.split();
    let feeder = thread::spawn(move || {
        for order in orders.into_iter().chain([Order::Flush]) {
            input.push(order)?;
        }
        Ok::<_, PushError>(())
    });
    let mut files: Vec<BufWriter<File>> = Vec::new();
    for (height, _) in RUNGS {
        files.push(BufWriter::new(File::create(Path::new(&folder).join(format!("{height}.h264")))?));
    }
    let (mut decode_us, mut encode_us) = (0, [0; RUNGS.len()]);
    for product in output {
        match product {
            Product::RungStarted(start) => {
                let file = &mut files[usize::from(start.rung.0)];
                sets(file, &start.record)?;
            }
            Product::Picture(picture) => units(&mut files[usize::from(picture.rung.0)], &picture.data)?,
            Product::Report(report) => {
                decode_us += report.decode_us;
                for rung in report.rungs {
                    encode_us[usize::from(rung.rung.0)] += rung.encode_us;
                }
            }
            Product::Refused(refusal) => anyhow::bail!("{}", refusal.reason),
            _ => {}
        }
    }
    feeder.join().ok().context("the feeder")??;
    files.iter_mut().try_for_each(BufWriter::flush)?;
    let media = pictures as f64 * f64::from(PICTURE) / 90_000.0;
    let line = serde_json::json!({
        "cpu_s": cpu_seconds()?,
        "peak_kb": peak_kilobytes()?,
        "media_s": media,
        // Up to the last report, which comes each second.
        "decode_us": decode_us,
        "encode_us": encode_us,
    });
    println!("{line}");
    Ok(())
}

fn orders(source: &str, preset: Option<&str>) -> Result<Vec<Order>> {
    let file = Bytes::from(std::fs::read(source).with_context(|| source.to_owned())?);
    let rung =
        |(height, bitrate)| RungPlan { height, bitrate, fps: None, preset: preset.map(ToOwned::to_owned) };
    let rungs = RUNGS.into_iter().map(rung).collect();
    let plan = Plan { rungs, encoders: vec![EncoderKind::X264], ..Plan::default() };
    let mut orders = vec![Order::Start(plan)];
    let mut slot = 0;
    for tag in Reader::new(file)? {
        let tag = tag?;
        if tag.kind != TagKind::Video {
            continue;
        }
        match FlvVideo::parse(tag.body)? {
            Some(FlvVideo::SequenceHeader(record)) => {
                let config = VideoConfig::from_avcc(record)?;
                orders.push(Order::VideoConfig(VideoSource {
                    codec: config.codec,
                    record: config.record,
                    width: config.width,
                    height: config.height,
                    pixel_aspect: config.pixel_aspect,
                    frame_rate_milli: 30_000,
                    bitrate: 0,
                    version: 1,
                }));
            }
            Some(FlvVideo::Nalus { cts_ms, keyframe, data }) => {
                orders.push(Order::Picture(SourcePicture {
                    slot: Slot(slot),
                    pts: (i64::from(tag.timestamp_ms) + i64::from(cts_ms)) * MILLISECOND,
                    duration: PICTURE,
                    starts_segment: slot.is_multiple_of(SEGMENT),
                    independent: false,
                    encode: true,
                    keyframe,
                    data,
                }));
                slot += 1;
            }
            _ => {}
        }
    }
    Ok(orders)
}

/// Writes NAL units with length prefixes as a byte stream.
fn units(file: &mut impl std::io::Write, mut data: &[u8]) -> Result<()> {
    while let Some((length, rest)) = data.split_first_chunk::<4>() {
        let (unit, rest) =
            rest.split_at_checked(u32::from_be_bytes(*length) as usize).context("a NAL unit")?;
        write(file, unit)?;
        data = rest;
    }
    Ok(())
}

/// Writes the parameter sets of a record as a byte stream: one SPS and one PPS, as the transcoder's records have them.
fn sets(file: &mut impl std::io::Write, record: &[u8]) -> Result<()> {
    let mut rest = record.get(6..).context("a record")?;
    for _ in 0..2 {
        let (length, tail) = rest.split_first_chunk::<2>().context("a parameter set")?;
        let (set, tail) =
            tail.split_at_checked(usize::from(u16::from_be_bytes(*length))).context("a parameter set")?;
        write(file, set)?;
        // The count of PPS stands between the two.
        rest = tail.get(1..).unwrap_or_default();
    }
    Ok(())
}

fn write(file: &mut impl std::io::Write, unit: &[u8]) -> Result<()> {
    file.write_all(&[0, 0, 0, 1])?;
    Ok(file.write_all(unit)?)
}

/// Returns the CPU seconds of this process, user and system.
fn cpu_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // Fields 14 and 15 in hundredths of a second, counted behind the name, which ends with the last parenthesis.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 =
        rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(ticks as f64 / 100.0)
}

/// Returns the most resident memory that this process had, in kilobytes.
fn peak_kilobytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
    peak.trim().trim_end_matches("kB").trim().parse().context("VmHWM")
}
