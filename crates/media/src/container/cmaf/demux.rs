//! Reads back what this module writes: samples byte for byte. For tests, and for rebuilding from stored objects.

use bytes::{Buf, Bytes};

use crate::frame::{AudioConfig, TrackConfig, VideoConfig};

/// Why bytes were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DemuxError {
    /// A box or a field ends before its size.
    #[error("{0} is truncated")]
    Truncated(&'static str),
    /// A box that must be there is not.
    #[error("no {0} box")]
    Missing(&'static str),
    /// A feature the writer never uses.
    #[error("unsupported: {0}")]
    Unsupported(&'static str),
}

/// One sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DemuxedSample {
    /// Decoding time in the track's timescale.
    pub dts: i64,
    /// Presentation minus decoding time.
    pub cts: i32,
    /// In the track's timescale.
    pub duration: u32,
    /// Decoding can start here.
    pub sync: bool,
    /// Shares the input's memory.
    pub data: Bytes,
}

/// One `moof` + `mdat`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment {
    /// `mfhd` sequence number.
    pub sequence: u32,
    /// `tfdt`.
    pub start: i64,
    /// In decoding order.
    pub samples: Vec<DemuxedSample>,
}

impl Fragment {
    /// Sum of the samples' durations.
    pub fn duration(&self) -> u64 {
        self.samples.iter().map(|sample| u64::from(sample.duration)).sum()
    }
}

/// What an init segment tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitInfo {
    /// `mdhd` timescale.
    pub timescale: u32,
    /// Handler type: `vide` or `soun`.
    pub handler: [u8; 4],
    /// Sample entry type: `avc1` or `mp4a`.
    pub sample_entry: [u8; 4],
}

/// Reads an init segment.
pub fn parse_init(data: &Bytes) -> Result<InitInfo, DemuxError> {
    let moov = child(data, *b"moov")?.ok_or(DemuxError::Missing("moov"))?;
    let trak = child(&moov, *b"trak")?.ok_or(DemuxError::Missing("trak"))?;
    let mdia = child(&trak, *b"mdia")?.ok_or(DemuxError::Missing("mdia"))?;
    let mut mdhd = child(&mdia, *b"mdhd")?.ok_or(DemuxError::Missing("mdhd"))?;
    let version = take_u32(&mut mdhd, "mdhd")? >> 24;
    skip(&mut mdhd, if version == 1 { 16 } else { 8 }, "mdhd")?;
    let timescale = take_u32(&mut mdhd, "mdhd")?;
    let mut hdlr = child(&mdia, *b"hdlr")?.ok_or(DemuxError::Missing("hdlr"))?;
    skip(&mut hdlr, 8, "hdlr")?;
    let handler = take_u32(&mut hdlr, "hdlr")?.to_be_bytes();
    let (sample_entry, _) = sample_entry(&mdia)?;
    Ok(InitInfo { timescale, handler, sample_entry })
}

/// Reads what an init segment of this crate was made of.
pub fn parse_config(data: &Bytes) -> Result<TrackConfig, DemuxError> {
    let moov = child(data, *b"moov")?.ok_or(DemuxError::Missing("moov"))?;
    let trak = child(&moov, *b"trak")?.ok_or(DemuxError::Missing("trak"))?;
    let mdia = child(&trak, *b"mdia")?.ok_or(DemuxError::Missing("mdia"))?;
    match sample_entry(&mdia)? {
        (AVC1, mut body) => {
            skip(&mut body, AVC1_FIELDS, "avc1")?;
            let avcc = child(&body, *b"avcC")?.ok_or(DemuxError::Missing("avcC"))?;
            let config = VideoConfig::from_avcc(avcc).map_err(|_| DemuxError::Unsupported("avcC"))?;
            Ok(TrackConfig::Video(config))
        }
        (MP4A, mut body) => {
            skip(&mut body, MP4A_FIELDS, "mp4a")?;
            let esds = child(&body, *b"esds")?.ok_or(DemuxError::Missing("esds"))?;
            let config = AudioConfig::from_asc(specific_config(esds)?);
            Ok(TrackConfig::Audio(config.map_err(|_| DemuxError::Unsupported("esds"))?))
        }
        _ => Err(DemuxError::Unsupported("sample entry")),
    }
}

const AVC1: Kind = *b"avc1";
const MP4A: Kind = *b"mp4a";
/// Fields of a VisualSampleEntry before its boxes (ISO/IEC 14496-12 §12.1.3).
const AVC1_FIELDS: usize = 78;
/// Fields of an AudioSampleEntry before its boxes (ISO/IEC 14496-12 §12.2.3).
const MP4A_FIELDS: usize = 28;

/// The first sample entry below `mdia`: its type and body.
fn sample_entry(mdia: &Bytes) -> Result<(Kind, Bytes), DemuxError> {
    let minf = child(mdia, *b"minf")?.ok_or(DemuxError::Missing("minf"))?;
    let stbl = child(&minf, *b"stbl")?.ok_or(DemuxError::Missing("stbl"))?;
    let mut stsd = child(&stbl, *b"stsd")?.ok_or(DemuxError::Missing("stsd"))?;
    skip(&mut stsd, 8, "stsd")?;
    let (kind, body, _) = next_box(&mut stsd)?.ok_or(DemuxError::Missing("sample entry"))?;
    Ok((kind, body))
}

/// The AudioSpecificConfig inside an `esds` (ISO/IEC 14496-1 §7.2.6).
fn specific_config(mut esds: Bytes) -> Result<Bytes, DemuxError> {
    skip(&mut esds, 4, "esds")?;
    descriptor(&mut esds, 3)?;
    skip(&mut esds, 3, "esds")?;
    descriptor(&mut esds, 4)?;
    skip(&mut esds, 13, "esds")?;
    let length = descriptor(&mut esds, 5)?;
    if length > esds.len() {
        return Err(DemuxError::Truncated("esds"));
    }
    Ok(esds.split_to(length))
}

/// Reads a descriptor's tag and length: seven bits a byte, at most four bytes (ISO/IEC 14496-1 §8.3.3).
fn descriptor(data: &mut Bytes, tag: u8) -> Result<usize, DemuxError> {
    if data.is_empty() || data.get_u8() != tag {
        return Err(DemuxError::Missing("descriptor"));
    }
    let mut length = 0;
    for _ in 0..4 {
        if data.is_empty() {
            return Err(DemuxError::Truncated("esds"));
        }
        let byte = data.get_u8();
        length = length << 7 | usize::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            break;
        }
    }
    Ok(length)
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

/// Part `index` of a whole segment: parts are its fragments, laid end to end. Shares the segment's memory.
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

type Kind = [u8; 4];

/// Splits off the next box: type, body, whole size.
fn next_box(rest: &mut Bytes) -> Result<Option<(Kind, Bytes, usize)>, DemuxError> {
    if rest.is_empty() {
        return Ok(None);
    }
    let size = take_u32(rest, "box")? as usize;
    let kind = take_u32(rest, "box")?.to_be_bytes();
    let body = size.checked_sub(8).filter(|body| *body <= rest.len()).ok_or(DemuxError::Truncated("box"))?;
    Ok(Some((kind, rest.split_to(body), size)))
}

fn child(parent: &Bytes, kind: Kind) -> Result<Option<Bytes>, DemuxError> {
    let mut rest = parent.clone();
    while let Some((found, body, _)) = next_box(&mut rest)? {
        if found == kind {
            return Ok(Some(body));
        }
    }
    Ok(None)
}

fn take_u32(data: &mut Bytes, what: &'static str) -> Result<u32, DemuxError> {
    if data.len() < 4 { Err(DemuxError::Truncated(what)) } else { Ok(data.get_u32()) }
}

fn skip(data: &mut Bytes, count: usize, what: &'static str) -> Result<(), DemuxError> {
    if data.len() < count {
        return Err(DemuxError::Truncated(what));
    }
    data.advance(count);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::h264::AvcConfig;
    use crate::container::cmaf::{Sample, fragment_header, init_segment};

    #[test]
    fn an_init_segment_gives_its_configuration_back() {
        let sps = [
            0x67, 0x64, 0x00, 0x1f, 0xac, 0xd9, 0x40, 0x50, 0x05, 0xbb, 0x01, 0x10, 0x00, 0x00, 0x03, 0x00,
            0x10, 0x00, 0x00, 0x03, 0x03, 0xc0, 0xf1, 0x83, 0x19, 0x60,
        ];
        let avcc = AvcConfig::build(&sps, &[0x68, 0xce, 0x3c, 0x80]).unwrap();
        let video = TrackConfig::Video(VideoConfig::from_avcc(avcc).unwrap());
        let audio = TrackConfig::Audio(AudioConfig::aac_lc(44_100, 2).unwrap());
        for config in [video, audio] {
            assert_eq!(parse_config(&init_segment(&config)).unwrap(), config);
        }
    }

    proptest! {
        #[test]
        fn reads_what_is_written(
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
        fn a_segment_gives_its_parts_back(sizes in prop::collection::vec(1u32..60, 1..12)) {
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
        fn never_panics(data in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..300, flip in 0usize..300) {
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
