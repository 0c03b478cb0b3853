//! Sample entries, which carry the decoder configuration, one for each codec.

use bytes::{BufMut, BytesMut};

use super::boxes::{boxed, full};
use crate::codec::mp3::Mp3Header;
use crate::codec::{AudioCodec, VideoCodec};
use crate::frame::{AudioConfig, VideoConfig};

/// Types of the sample entry and of the box with the record, of each video codec.
pub(super) const fn video_types(codec: VideoCodec) -> ([u8; 4], [u8; 4]) {
    match codec {
        VideoCodec::H264 => (*b"avc1", *b"avcC"),
        VideoCodec::Hevc => (*b"hvc1", *b"hvcC"),
        VideoCodec::Av1 => (*b"av01", *b"av1C"),
    }
}

/// Object type indication of MPEG-4 audio (ISO/IEC 14496-1 table 5).
pub(super) const OBJECT_TYPE_MPEG4_AUDIO: u8 = 0x40;

/// Appends a VisualSampleEntry (ISO/IEC 14496-12 §12.1.3) with the configuration record.
pub(super) fn put_video(out: &mut BytesMut, video: &VideoConfig) {
    let (entry, record) = video_types(video.codec);
    boxed(out, entry, |out| {
        out.put_bytes(0, 6);
        out.put_u16(1); // data reference
        out.put_bytes(0, 16);
        out.put_u16(video.width as u16);
        out.put_u16(video.height as u16);
        out.put_u32(0x0048_0000); // 72 dpi
        out.put_u32(0x0048_0000);
        out.put_u32(0);
        out.put_u16(1); // frames per sample
        out.put_bytes(0, 32); // compressor name
        out.put_u16(24); // depth
        out.put_i16(-1);
        boxed(out, record, |out| out.put_slice(&video.record));
        if video.pixel_aspect != (1, 1) {
            // ISO/IEC 14496-12 §12.1.4
            boxed(out, *b"pasp", |out| {
                out.put_u32(video.pixel_aspect.0);
                out.put_u32(video.pixel_aspect.1);
            });
        }
    });
}

/// Appends an AudioSampleEntry (ISO/IEC 14496-12 §12.2.3) with the configuration: an ES descriptor
/// (ISO/IEC 14496-14 §5.6) for AAC and MP3, a `dOps` box for Opus.
pub(super) fn put_audio(out: &mut BytesMut, audio: &AudioConfig) {
    let entry = match audio.codec {
        AudioCodec::Aac | AudioCodec::Mp3 => *b"mp4a",
        AudioCodec::Opus => *b"Opus",
    };
    boxed(out, entry, |out| {
        out.put_bytes(0, 6);
        out.put_u16(1);
        out.put_bytes(0, 8);
        out.put_u16(u16::from(audio.channels));
        out.put_u16(16); // sample size
        out.put_u32(0);
        // 16.16; a rate above 65 535 Hz does not fit, and the record has it.
        out.put_u32(u32::from(u16::try_from(audio.rate).unwrap_or(0)) << 16);
        match audio.codec {
            AudioCodec::Aac => {
                full(out, *b"esds", 0, 0, |out| put_descriptors(out, OBJECT_TYPE_MPEG4_AUDIO, &audio.record));
            }
            AudioCodec::Mp3 => {
                let object_type = Mp3Header::parse(&audio.record).map_or(0x6b, |header| header.object_type());
                full(out, *b"esds", 0, 0, |out| put_descriptors(out, object_type, &[]));
            }
            AudioCodec::Opus => boxed(out, *b"dOps", |out| out.put_slice(&audio.record)),
        }
    });
}

/// Appends an ES descriptor (ISO/IEC 14496-1 §7.2.6.5) with its decoder-specific information, if
/// there is any.
fn put_descriptors(out: &mut BytesMut, object_type: u8, specific: &[u8]) {
    const DESCRIPTOR_HEADER: usize = 5;
    let specific_size = if specific.is_empty() { 0 } else { DESCRIPTOR_HEADER + specific.len() };
    let decoder = 13 + specific_size;
    let stream = 3 + DESCRIPTOR_HEADER + decoder + DESCRIPTOR_HEADER + 1;
    put_descriptor(out, 3, stream);
    out.put_u16(0); // ES id
    out.put_u8(0);
    put_descriptor(out, 4, decoder);
    out.put_u8(object_type);
    out.put_u8(0x15); // audio stream
    out.put_bytes(0, 11); // buffer size and bit rates unknown
    if !specific.is_empty() {
        put_descriptor(out, 5, specific.len());
        out.put_slice(specific);
    }
    put_descriptor(out, 6, 1);
    out.put_u8(2); // predefined: MP4
}

/// Appends a descriptor's tag and its length in four bytes of seven bits (ISO/IEC 14496-1 §8.3.3).
fn put_descriptor(out: &mut BytesMut, tag: u8, length: usize) {
    out.put_u8(tag);
    for shift in [21, 14, 7] {
        out.put_u8(0x80 | (length >> shift) as u8 & 0x7f);
    }
    out.put_u8(length as u8 & 0x7f);
}
