//! The init segment: `ftyp` and `moov` without samples.

use bytes::{BufMut, Bytes, BytesMut};

use super::boxes::{TRACK_ID, boxed, full};
use super::sample_entry;
use crate::frame::TrackConfig;

/// Unity matrix (ISO/IEC 14496-12 §6.2.2).
const MATRIX: [u32; 9] = [0x0001_0000, 0, 0, 0, 0x0001_0000, 0, 0, 0, 0x4000_0000];
/// Largest side that a track header can state, in pixels.
const MAX_SIDE: u32 = 0xffff;
/// The ISO 639-2 code `und`, packed as `mdhd` requires.
const LANGUAGE_UND: u16 = 0x55c4;

/// Returns the init segment of a track; the same configuration gives the same bytes.
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
    let timescale = config.timescale().ticks_per_second();
    let (handler, name): (&[u8; 4], &[u8]) = match config {
        TrackConfig::Video(_) => (b"vide", b"video\0"),
        TrackConfig::Audio(_) => (b"soun", b"audio\0"),
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
        TrackConfig::Video(video) => {
            let (width, height) = video.display_size();
            (0, width.min(MAX_SIDE), height.min(MAX_SIDE))
        }
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
                TrackConfig::Video(video) => sample_entry::put_video(out, video),
                TrackConfig::Audio(audio) => sample_entry::put_audio(out, audio),
            }
        });
        full(out, *b"stts", 0, 0, |out| out.put_u32(0));
        full(out, *b"stsc", 0, 0, |out| out.put_u32(0));
        full(out, *b"stsz", 0, 0, |out| out.put_u64(0));
        full(out, *b"stco", 0, 0, |out| out.put_u32(0));
    });
}
