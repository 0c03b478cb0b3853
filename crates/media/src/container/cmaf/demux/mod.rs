//! Reads init segments and fragments of this crate, for tests and for rebuilding a stream's state
//! from stored objects.

mod boxes;
mod init;

use bytes::Bytes;

pub use boxes::DemuxError;
use boxes::{child, next_box, skip, take_u32};
pub use init::{InitInfo, parse_config, parse_init};

/// One sample of a fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DemuxedSample {
    /// Decoding time in the track's timescale.
    pub dts: i64,
    /// Composition offset in the track's timescale; may be negative.
    pub cts: i32,
    /// Duration in the track's timescale.
    pub duration: u32,
    /// True if decoding can start here.
    pub sync: bool,
    /// The coded bytes; they share the input's memory.
    pub data: Bytes,
}

/// One `moof` with its `mdat`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment {
    /// Sequence number of the fragment (`mfhd`).
    pub sequence: u32,
    /// Decoding time of the first sample (`tfdt`).
    pub start: i64,
    /// The samples in decoding order.
    pub samples: Vec<DemuxedSample>,
}

impl Fragment {
    /// Returns the sum of the samples' durations.
    pub fn duration(&self) -> u64 {
        self.samples.iter().map(|sample| u64::from(sample.duration)).sum()
    }
}

/// Reads any number of fragments laid end to end: a part or a whole segment.
pub fn parse_fragments(data: &Bytes) -> Result<Vec<Fragment>, DemuxError> {
    let mut rest = data.clone();
    let mut fragments = Vec::new();
    let mut moof: Option<(Bytes, usize)> = None;
    while let Some((kind, body, size)) = next_box(&mut rest)? {
        match (&kind, moof.take()) {
            (b"moof", _) => moof = Some((body, size)),
            (b"mdat", Some((moof, moof_size))) => fragments.push(fragment(&moof, moof_size, &body)?),
            (b"mdat", None) => return Err(DemuxError::Missing("moof")),
            (_, before) => moof = before,
        }
    }
    if moof.is_some() { Err(DemuxError::Missing("mdat")) } else { Ok(fragments) }
}

/// Returns part `index` of a whole segment, which shares its memory: the parts are its fragments
/// laid end to end.
pub fn part_of(segment: &Bytes, index: u32) -> Option<Bytes> {
    let (mut rest, mut begins, mut before) = (segment.clone(), None, 0);
    loop {
        let at = segment.len() - rest.len();
        let (kind, ..) = next_box(&mut rest).ok()??;
        match (&kind, begins) {
            (b"moof", None) if before == index => begins = Some(at),
            (b"mdat", Some(start)) => return Some(segment.slice(start..segment.len() - rest.len())),
            (b"moof", None) => before += 1,
            _ => {}
        }
    }
}

struct Defaults {
    duration: u32,
    size: u32,
    flags: u32,
}

fn fragment(moof: &Bytes, moof_size: usize, mdat: &Bytes) -> Result<Fragment, DemuxError> {
    let mut mfhd = child(moof, *b"mfhd")?.ok_or(DemuxError::Missing("mfhd"))?;
    skip(&mut mfhd, 4, "mfhd")?;
    let sequence = take_u32(&mut mfhd, "mfhd")?;
    let traf = child(moof, *b"traf")?.ok_or(DemuxError::Missing("traf"))?;
    let defaults = tfhd(child(&traf, *b"tfhd")?.ok_or(DemuxError::Missing("tfhd"))?)?;
    let mut tfdt = child(&traf, *b"tfdt")?.ok_or(DemuxError::Missing("tfdt"))?;
    let version = take_u32(&mut tfdt, "tfdt")? >> 24;
    let high = if version == 1 { take_u32(&mut tfdt, "tfdt")? } else { 0 };
    let start = (u64::from(high) << 32 | u64::from(take_u32(&mut tfdt, "tfdt")?)) as i64;
    let trun = child(&traf, *b"trun")?.ok_or(DemuxError::Missing("trun"))?;
    let samples = samples(trun, &defaults, start, moof_size, mdat)?;
    Ok(Fragment { sequence, start, samples })
}

fn tfhd(mut body: Bytes) -> Result<Defaults, DemuxError> {
    let flags = take_u32(&mut body, "tfhd")? & 0xff_ffff;
    if flags & 0x02_0000 == 0 {
        return Err(DemuxError::Unsupported("base data offset"));
    }
    skip(&mut body, 4, "tfhd")?;
    let mut field = |bit| if flags & bit != 0 { take_u32(&mut body, "tfhd") } else { Ok(0) };
    field(0x02)?;
    Ok(Defaults { duration: field(0x08)?, size: field(0x10)?, flags: field(0x20)? })
}

fn samples(
    mut trun: Bytes,
    defaults: &Defaults,
    start: i64,
    moof_size: usize,
    mdat: &Bytes,
) -> Result<Vec<DemuxedSample>, DemuxError> {
    let flags = take_u32(&mut trun, "trun")? & 0xff_ffff;
    let count = take_u32(&mut trun, "trun")?;
    if flags & 0x01 != 0 && take_u32(&mut trun, "trun")? as usize != moof_size + 8 {
        return Err(DemuxError::Unsupported("data offset"));
    }
    let first_flags = if flags & 0x04 != 0 { Some(take_u32(&mut trun, "trun")?) } else { None };
    let (mut dts, mut data) = (start, mdat.clone());
    let mut out = Vec::with_capacity((count as usize).min(trun.len() + 1));
    for index in 0..count {
        let mut field =
            |bit, default| if flags & bit != 0 { take_u32(&mut trun, "trun") } else { Ok(default) };
        let duration = field(0x100, defaults.duration)?;
        let size = field(0x200, defaults.size)? as usize;
        let default_flags = first_flags.filter(|_| index == 0).unwrap_or(defaults.flags);
        let sample_flags = field(0x400, default_flags)?;
        let cts = field(0x800, 0)? as i32;
        if size == 0 || size > data.len() {
            return Err(DemuxError::Truncated("mdat"));
        }
        let sync = sample_flags & 0x01_0000 == 0;
        out.push(DemuxedSample { dts, cts, duration, sync, data: data.split_to(size) });
        dts += i64::from(duration);
    }
    if data.is_empty() { Ok(out) } else { Err(DemuxError::Unsupported("bytes in mdat that no sample names")) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::h264::AvcConfig;
    use crate::codec::{AudioCodec, VideoCodec};
    use crate::container::cmaf::{Sample, fragment_header, init_segment};
    use crate::frame::{AudioConfig, TrackConfig, VideoConfig};

    #[test]
    fn init_segment_gives_its_configuration_back() {
        let sps = [
            0x67, 0x64, 0x00, 0x1f, 0xac, 0xd9, 0x40, 0x50, 0x05, 0xbb, 0x01, 0x10, 0x00, 0x00, 0x03, 0x00,
            0x10, 0x00, 0x00, 0x03, 0x03, 0xc0, 0xf1, 0x83, 0x19, 0x60,
        ];
        let avcc = AvcConfig::build(&sps, &[0x68, 0xce, 0x3c, 0x80]).unwrap();
        let video = |codec, record| TrackConfig::Video(VideoConfig::parse(codec, record).unwrap());
        let audio = |codec, record: &'static [u8]| {
            TrackConfig::Audio(AudioConfig::parse(codec, Bytes::from_static(record)).unwrap())
        };
        let av1 = Bytes::from_static(&[
            0x81, 0x00, 0x0c, 0x00, 0x0a, 0x0b, 0x00, 0x00, 0x00, 0x04, 0x3c, 0xfe, 0xcc, 0x02, 0xf8, 0x00,
            0x40,
        ]);
        let configs = [
            video(VideoCodec::H264, avcc),
            video(VideoCodec::Av1, av1),
            TrackConfig::Audio(AudioConfig::aac_lc(44_100, 2).unwrap()),
            audio(AudioCodec::Opus, b"OpusHead\x01\x02\x38\x01\x80\xbb\0\0\0\0\0"),
            audio(AudioCodec::Mp3, &[0xff, 0xfb, 0x90, 0x64]),
            audio(AudioCodec::Mp3, &[0xff, 0xf3, 0x84, 0xc4]),
            audio(AudioCodec::Mp3, &[0xff, 0xe3, 0x18, 0x64]),
        ];
        for config in configs {
            assert_eq!(parse_config(&init_segment(&config)).unwrap(), config);
        }
    }

    proptest! {
        #[test]
        fn fragment_gives_its_samples_back(
            sequence: u32,
            start in 0i64..1 << 40,
            samples in prop::collection::vec((1u32..10_000, 1u32..50, -9000i32..9000, any::<bool>()), 1..40),
        ) {
            let samples: Vec<Sample> = samples
                .into_iter()
                .map(|(duration, size, cts, sync)| Sample { duration, size, cts, sync })
                .collect();
            let mut bytes = fragment_header(sequence, start, &samples).to_vec();
            for (index, sample) in samples.iter().enumerate() {
                bytes.extend(std::iter::repeat_n(index as u8, sample.size as usize));
            }
            let parsed = parse_fragments(&Bytes::from(bytes)).unwrap();
            prop_assert_eq!(parsed.len(), 1);
            prop_assert_eq!((parsed[0].sequence, parsed[0].start), (sequence, start));
            let mut dts = start;
            for (index, (out, sample)) in parsed[0].samples.iter().zip(&samples).enumerate() {
                prop_assert_eq!((out.dts, out.cts, out.duration, out.sync), (dts, sample.cts, sample.duration, sample.sync));
                prop_assert!(out.data.len() == sample.size as usize && out.data.iter().all(|byte| *byte == index as u8));
                dts += i64::from(sample.duration);
            }
        }

        #[test]
        fn segment_gives_its_parts_back(sizes in prop::collection::vec(1u32..60, 1..12)) {
            let part = |(size, n): (&u32, u32)| {
                let sample = Sample { duration: 10, size: *size, cts: 0, sync: n == 0 };
                let mut part = fragment_header(n, i64::from(n) * 10, &[sample]).to_vec();
                part.extend(std::iter::repeat_n(n as u8, *size as usize));
                part
            };
            let parts: Vec<Vec<u8>> = sizes.iter().zip(0..).map(part).collect();
            let segment = Bytes::from(parts.concat());
            for (part, n) in parts.iter().zip(0..) {
                prop_assert_eq!(&part_of(&segment, n).unwrap(), part);
            }
            prop_assert_eq!(part_of(&segment, parts.len() as u32), None);
        }

        #[test]
        fn garbage_never_panics(data in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..300, flip in 0usize..300) {
            let _ = parse_fragments(&Bytes::from(data.clone()));
            let _ = part_of(&Bytes::from(data.clone()), 1);
            let _ = parse_init(&Bytes::from(data));
            let audio = TrackConfig::Audio(AudioConfig::aac_lc(48_000, 2).unwrap());
            let mut init = init_segment(&audio).to_vec();
            let at = flip % init.len();
            init[at] ^= 0x81;
            let _ = parse_config(&Bytes::from(init));
            let samples = [Sample { duration: 1, size: 5, cts: 1, sync: true }; 3];
            let mut bytes = fragment_header(1, 2, &samples).to_vec();
            bytes.extend([7; 15]);
            let flip = flip % bytes.len();
            bytes[flip] ^= 0x81;
            bytes.truncate(cut.max(1));
            let _ = parse_fragments(&Bytes::from(bytes));
        }
    }
}
