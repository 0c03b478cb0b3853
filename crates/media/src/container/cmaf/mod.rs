//! Fragmented MP4 as CMAF wants it (ISO/IEC 23000-19, ISO/IEC 14496-12): one track per file.
//!
//! A part is one `moof` + `mdat`; a segment is the concatenation of its parts, without `styp` or `sidx`. Presentation
//! follows `tfdt` (version 1, 64 bits) and signed composition offsets (`trun` version 1): there is no edit list, so a
//! negative offset is kept as it is and AAC priming is played as published.

pub mod demux;
mod fragment;
mod init;

pub use fragment::{Sample, fragment_header};
pub use init::init_segment;

use bytes::{BufMut, BytesMut};

/// The only track of every file.
pub const TRACK_ID: u32 = 1;

/// Appends a box: its size is patched when `content` has written.
pub(crate) fn boxed(out: &mut BytesMut, kind: [u8; 4], content: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_u32(0);
    out.put_slice(&kind);
    content(out);
    let size = (out.len() - start) as u32;
    out[start..start + 4].copy_from_slice(&size.to_be_bytes());
}

/// Appends a full box (version and flags).
pub(crate) fn full(
    out: &mut BytesMut,
    kind: [u8; 4],
    version: u8,
    flags: u32,
    content: impl FnOnce(&mut BytesMut),
) {
    boxed(out, kind, |out| {
        out.put_u32(u32::from(version) << 24 | flags);
        content(out);
    });
}
