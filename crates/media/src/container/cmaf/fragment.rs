//! `moof` and the `mdat` header of one part.

use bytes::{BufMut, Bytes, BytesMut};

use super::boxes::{TRACK_ID, boxed, full};

/// One sample of a fragment, as `trun` describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Decoding time to the next sample, in the track's timescale.
    pub duration: u32,
    /// Number of bytes in `mdat`.
    pub size: u32,
    /// Composition offset in the track's timescale; may be negative.
    pub cts: i32,
    /// True if decoding can start here.
    pub sync: bool,
}

/// Sample flags of one that depends on no other sample.
const FLAGS_SYNC: u32 = 0x0200_0000;
/// Sample flags of one that depends on others and is no sync sample.
const FLAGS_DELTA: u32 = 0x0101_0000;

const TFHD_DEFAULT_BASE_IS_MOOF: u32 = 0x02_0000;
const TFHD_DURATION: u32 = 0x08;
const TFHD_FLAGS: u32 = 0x20;
const TRUN_DATA_OFFSET: u32 = 0x01;
const TRUN_DURATION: u32 = 0x100;
const TRUN_SIZE: u32 = 0x200;
const TRUN_FLAGS: u32 = 0x400;
const TRUN_CTS: u32 = 0x800;

/// Returns a `moof` and the header of an `mdat` that holds the samples back to back.
///
/// `start` is the first sample's decoding time; below zero it counts as zero, because `tfdt` is
/// unsigned. Fields that are equal for all samples are written once. The media data must stay below
/// 4 GiB.
pub fn fragment_header(sequence: u32, start: i64, samples: &[Sample]) -> Bytes {
    let first = samples.first().copied().unwrap_or(Sample { duration: 0, size: 0, cts: 0, sync: true });
    let differ = |pick: fn(&Sample) -> u32| samples.iter().any(|sample| pick(sample) != pick(&first));
    let mut flags = TRUN_DATA_OFFSET | TRUN_SIZE;
    flags |= if differ(|sample| sample.duration) { TRUN_DURATION } else { 0 };
    flags |= if differ(|sample| u32::from(sample.sync)) { TRUN_FLAGS } else { 0 };
    flags |= if samples.iter().any(|sample| sample.cts != 0) { TRUN_CTS } else { 0 };
    let mut out = BytesMut::with_capacity(128 + 16 * samples.len());
    let mut offset_at = 0;
    boxed(&mut out, *b"moof", |out| {
        full(out, *b"mfhd", 0, 0, |out| out.put_u32(sequence));
        boxed(out, *b"traf", |out| {
            full(out, *b"tfhd", 0, TFHD_DEFAULT_BASE_IS_MOOF | TFHD_DURATION | TFHD_FLAGS, |out| {
                out.put_u32(TRACK_ID);
                out.put_u32(first.duration);
                out.put_u32(sample_flags(first));
            });
            full(out, *b"tfdt", 1, 0, |out| out.put_u64(start.max(0) as u64));
            full(out, *b"trun", 1, flags, |out| {
                out.put_u32(samples.len() as u32);
                offset_at = out.len();
                out.put_u32(0);
                for sample in samples {
                    put_sample(out, flags, *sample);
                }
            });
        });
    });
    let data_offset = out.len() as u32 + 8;
    out[offset_at..offset_at + 4].copy_from_slice(&data_offset.to_be_bytes());
    let media: u32 = samples.iter().map(|sample| sample.size).sum();
    out.put_u32(media + 8);
    out.put_slice(b"mdat");
    out.freeze()
}

fn put_sample(out: &mut BytesMut, flags: u32, sample: Sample) {
    if flags & TRUN_DURATION != 0 {
        out.put_u32(sample.duration);
    }
    out.put_u32(sample.size);
    if flags & TRUN_FLAGS != 0 {
        out.put_u32(sample_flags(sample));
    }
    if flags & TRUN_CTS != 0 {
        out.put_i32(sample.cts);
    }
}

const fn sample_flags(sample: Sample) -> u32 {
    if sample.sync { FLAGS_SYNC } else { FLAGS_DELTA }
}
