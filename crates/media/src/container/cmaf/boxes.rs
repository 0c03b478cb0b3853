//! Boxes, of which every file consists (ISO/IEC 14496-12 §4.2).

use bytes::{BufMut, BytesMut};

/// The id of the only track of every file.
pub const TRACK_ID: u32 = 1;

/// Appends a box of what `content` writes.
pub(super) fn boxed(out: &mut BytesMut, kind: [u8; 4], content: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_u32(0);
    out.put_slice(&kind);
    content(out);
    let size = (out.len() - start) as u32;
    out[start..start + 4].copy_from_slice(&size.to_be_bytes());
}

/// Appends a full box, which begins with a version and flags.
pub(super) fn full(
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
