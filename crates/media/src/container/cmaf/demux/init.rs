//! Init segments and the configuration in them.

use bytes::{Buf, Bytes};

use super::boxes::{DemuxError, Kind, child, next_box, skip, take_u32};
use crate::codec::mp3::{Mp3Header, MpegVersion};
use crate::codec::{AudioCodec, VideoCodec};
use crate::container::cmaf::sample_entry::{OBJECT_TYPE_MPEG4_AUDIO, video_types};
use crate::frame::{AudioConfig, TrackConfig, VideoConfig};

/// The fields of an init segment that tests compare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitInfo {
    /// Timescale of the track (`mdhd`).
    pub timescale: u32,
    /// Handler type, which is `vide` or `soun`.
    pub handler: [u8; 4],
    /// Type of the sample entry, such as `avc1` or `mp4a`.
    pub sample_entry: [u8; 4],
}

/// Reads the timescale and types of an init segment.
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

/// Reads the configuration that an init segment of this crate was made of.
pub fn parse_config(data: &Bytes) -> Result<TrackConfig, DemuxError> {
    let moov = child(data, *b"moov")?.ok_or(DemuxError::Missing("moov"))?;
    let trak = child(&moov, *b"trak")?.ok_or(DemuxError::Missing("trak"))?;
    let mdia = child(&trak, *b"mdia")?.ok_or(DemuxError::Missing("mdia"))?;
    let (entry, body) = sample_entry(&mdia)?;
    for codec in [VideoCodec::H264, VideoCodec::Hevc, VideoCodec::Av1] {
        if video_types(codec).0 == entry {
            return video_config(codec, body);
        }
    }
    match &entry {
        b"mp4a" => mpeg_audio_config(body),
        b"Opus" => opus_config(body),
        _ => Err(DemuxError::Unsupported("sample entry")),
    }
}

fn video_config(codec: VideoCodec, mut body: Bytes) -> Result<TrackConfig, DemuxError> {
    skip(&mut body, VISUAL_FIELDS, "visual sample entry")?;
    let record = child(&body, video_types(codec).1)?.ok_or(DemuxError::Missing("decoder configuration"))?;
    Ok(TrackConfig::Video(VideoConfig::parse(codec, record)?))
}

fn opus_config(mut body: Bytes) -> Result<TrackConfig, DemuxError> {
    skip(&mut body, AUDIO_FIELDS, "Opus")?;
    let record = child(&body, *b"dOps")?.ok_or(DemuxError::Missing("dOps"))?;
    Ok(TrackConfig::Audio(AudioConfig::parse(AudioCodec::Opus, record)?))
}

fn mpeg_audio_config(mut body: Bytes) -> Result<TrackConfig, DemuxError> {
    skip(&mut body, CHANNELS_OFFSET, "mp4a")?;
    let channels = take_u32(&mut body, "mp4a")? >> 16;
    skip(&mut body, 4, "mp4a")?;
    let rate = take_u32(&mut body, "mp4a")? >> 16;
    let esds = child(&body, *b"esds")?.ok_or(DemuxError::Missing("esds"))?;
    let (object_type, specific) = elementary_stream(esds)?;
    let config = match object_type {
        OBJECT_TYPE_MPEG4_AUDIO => AudioConfig::parse(AudioCodec::Aac, specific),
        0x6b | 0x69 => {
            let version = match (object_type, rate) {
                (0x6b, _) => MpegVersion::One,
                (_, ..16_000) => MpegVersion::TwoAndAHalf,
                _ => MpegVersion::Two,
            };
            let header = Mp3Header { version, rate, channels: if channels == 1 { 1 } else { 2 } };
            AudioConfig::parse(AudioCodec::Mp3, Bytes::copy_from_slice(&header.record()))
        }
        _ => return Err(DemuxError::Unsupported("object type of mp4a")),
    };
    Ok(TrackConfig::Audio(config?))
}

/// Fields of a VisualSampleEntry before its boxes (ISO/IEC 14496-12 §12.1.3).
const VISUAL_FIELDS: usize = 78;
/// Fields of an AudioSampleEntry before its boxes (ISO/IEC 14496-12 §12.2.3).
const AUDIO_FIELDS: usize = 28;
/// Offset of the channel count in it.
const CHANNELS_OFFSET: usize = 16;

/// Returns the first sample entry below `mdia`: its type and body.
fn sample_entry(mdia: &Bytes) -> Result<(Kind, Bytes), DemuxError> {
    let minf = child(mdia, *b"minf")?.ok_or(DemuxError::Missing("minf"))?;
    let stbl = child(&minf, *b"stbl")?.ok_or(DemuxError::Missing("stbl"))?;
    let mut stsd = child(&stbl, *b"stsd")?.ok_or(DemuxError::Missing("stsd"))?;
    skip(&mut stsd, 8, "stsd")?;
    let (kind, body, _) = next_box(&mut stsd)?.ok_or(DemuxError::Missing("sample entry"))?;
    Ok((kind, body))
}

/// Reads an `esds` (ISO/IEC 14496-1 §7.2.6): the object type indication and the decoder-specific
/// information.
fn elementary_stream(mut esds: Bytes) -> Result<(u8, Bytes), DemuxError> {
    skip(&mut esds, 4, "esds")?;
    descriptor(&mut esds, 3)?;
    skip(&mut esds, 3, "esds")?;
    descriptor(&mut esds, 4)?;
    let object_type = *esds.first().ok_or(DemuxError::Truncated("esds"))?;
    skip(&mut esds, 13, "esds")?;
    if esds.first() != Some(&5) {
        return Ok((object_type, Bytes::new()));
    }
    let length = descriptor(&mut esds, 5)?;
    if length > esds.len() {
        return Err(DemuxError::Truncated("esds"));
    }
    Ok((object_type, esds.split_to(length)))
}

/// Reads a descriptor's tag and length: seven bits a byte, at most four bytes (ISO/IEC 14496-1
/// §8.3.3).
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
