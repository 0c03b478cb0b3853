//! The init segment: `ftyp` and `moov` without samples.

use bytes::{BufMut, Bytes, BytesMut};

use super::{TRACK_ID, boxed, full};
use crate::frame::{AudioConfig, TrackConfig, VIDEO_TIMESCALE, VideoConfig};

/// Unity matrix (ISO/IEC 14496-12 §6.2.2).
const MATRIX: [u32; 9] = [0x0001_0000, 0, 0, 0, 0x0001_0000, 0, 0, 0, 0x4000_0000];
/// ISO 639-2 `und`, packed.
const LANGUAGE_UND: u16 = 0x55c4;

/// The init segment of a track; the same configuration gives the same bytes.
pub fn init_segment(config: &TrackConfig) -> Bytes {
    let mut out = BytesMut::with_capacity(1024);
    boxed(&mut out, *b"ftyp", |out| {
        out.put_slice(b"iso6");
        out.put_u32(1);
        out.put_slice(b"iso6cmfcmp41");
    });
    boxed(&mut out, *b"moov", |out| {
        mvhd(out);
        boxed(out, *b"trak", |out| trak(out, config));
        boxed(out, *b"mvex", |out| {
            full(out, *b"trex", 0, 0, |out| {
                out.put_u32(TRACK_ID);
                out.put_u32(1); // sample description index
                out.put_bytes(0, 12); // default duration, size, flags: in every fragment instead
            });
        });
    });
    out.freeze()
}

fn put_matrix(out: &mut BytesMut) {
    for value in MATRIX {
        out.put_u32(value);
    }
}

fn mvhd(out: &mut BytesMut) {
    full(out, *b"mvhd", 0, 0, |out| {
        out.put_bytes(0, 8); // no times: the same input gives the same bytes
        out.put_u32(1000);
        out.put_u32(0);
        out.put_u32(0x0001_0000); // rate
        out.put_u16(0x0100); // volume
        out.put_bytes(0, 10);
        put_matrix(out);
        out.put_bytes(0, 24);
        out.put_u32(TRACK_ID + 1);
    });
}

fn trak(out: &mut BytesMut, config: &TrackConfig) {
    let (timescale, handler, name): (u32, &[u8; 4], &[u8]) = match config {
        TrackConfig::Video(_) => (VIDEO_TIMESCALE.ticks_per_second(), b"vide", b"video\0"),
        TrackConfig::Audio(audio) => (audio.rate, b"soun", b"audio\0"),
    };
    tkhd(out, config);
    boxed(out, *b"mdia", |out| {
        full(out, *b"mdhd", 0, 0, |out| {
            out.put_bytes(0, 8);
            out.put_u32(timescale);
            out.put_u32(0);
            out.put_u16(LANGUAGE_UND);
            out.put_u16(0);
        });
        full(out, *b"hdlr", 0, 0, |out| {
            out.put_u32(0);
            out.put_slice(handler);
            out.put_bytes(0, 12);
            out.put_slice(name);
        });
        boxed(out, *b"minf", |out| minf(out, config));
    });
}

fn tkhd(out: &mut BytesMut, config: &TrackConfig) {
    let (volume, width, height) = match config {
        TrackConfig::Video(video) => (0, video.width, video.height),
        TrackConfig::Audio(_) => (0x0100, 0, 0),
    };
    // Enabled, in movie, in preview.
    full(out, *b"tkhd", 0, 7, |out| {
        out.put_bytes(0, 8);
        out.put_u32(TRACK_ID);
        out.put_bytes(0, 4 + 4 + 8 + 2 + 2);
        out.put_u16(volume);
        out.put_u16(0);
        put_matrix(out);
        out.put_u32(width << 16);
        out.put_u32(height << 16);
    });
}

fn minf(out: &mut BytesMut, config: &TrackConfig) {
    match config {
        TrackConfig::Video(_) => full(out, *b"vmhd", 0, 1, |out| out.put_bytes(0, 8)),
        TrackConfig::Audio(_) => full(out, *b"smhd", 0, 0, |out| out.put_bytes(0, 4)),
    }
    boxed(out, *b"dinf", |out| {
        full(out, *b"dref", 0, 0, |out| {
            out.put_u32(1);
            full(out, *b"url ", 0, 1, |_| {}); // the media is in this file
        });
    });
    boxed(out, *b"stbl", |out| {
        full(out, *b"stsd", 0, 0, |out| {
            out.put_u32(1);
            match config {
                TrackConfig::Video(video) => avc1(out, video),
                TrackConfig::Audio(audio) => mp4a(out, audio),
            }
        });
        full(out, *b"stts", 0, 0, |out| out.put_u32(0));
        full(out, *b"stsc", 0, 0, |out| out.put_u32(0));
        full(out, *b"stsz", 0, 0, |out| out.put_u64(0));
        full(out, *b"stco", 0, 0, |out| out.put_u32(0));
    });
}

/// AVCSampleEntry (ISO/IEC 14496-15 §5.4.2.1.2).
fn avc1(out: &mut BytesMut, video: &VideoConfig) {
    boxed(out, *b"avc1", |out| {
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
        boxed(out, *b"avcC", |out| out.put_slice(&video.avcc));
    });
}

/// MP4AudioSampleEntry (ISO/IEC 14496-14 §5.6) with an ES descriptor (ISO/IEC 14496-1 §7.2.6.5).
fn mp4a(out: &mut BytesMut, audio: &AudioConfig) {
    const DESCRIPTOR_HEADER: usize = 5;
    let specific = audio.asc.len();
    let decoder = 13 + DESCRIPTOR_HEADER + specific;
    let stream = 3 + DESCRIPTOR_HEADER + decoder + DESCRIPTOR_HEADER + 1;
    boxed(out, *b"mp4a", |out| {
        out.put_bytes(0, 6);
        out.put_u16(1);
        out.put_bytes(0, 8);
        out.put_u16(u16::from(audio.channels));
        out.put_u16(16); // sample size
        out.put_u32(0);
        // 16.16; rates above 65 535 Hz do not fit and the descriptor tells them.
        out.put_u32(u32::from(u16::try_from(audio.rate).unwrap_or(0)) << 16);
        full(out, *b"esds", 0, 0, |out| {
            descriptor(out, 3, stream);
            out.put_u16(0); // ES id
            out.put_u8(0);
            descriptor(out, 4, decoder);
            out.put_u8(0x40); // MPEG-4 audio
            out.put_u8(0x15); // audio stream
            out.put_bytes(0, 11); // buffer size and bit rates unknown
            descriptor(out, 5, specific);
            out.put_slice(&audio.asc);
            descriptor(out, 6, 1);
            out.put_u8(2); // predefined: MP4
        });
    });
}

/// Tag and a four-byte length, seven bits each (ISO/IEC 14496-1 §8.3.3).
fn descriptor(out: &mut BytesMut, tag: u8, length: usize) {
    out.put_u8(tag);
    for shift in [21, 14, 7] {
        out.put_u8(0x80 | (length >> shift) as u8 & 0x7f);
    }
    out.put_u8(length as u8 & 0x7f);
}
