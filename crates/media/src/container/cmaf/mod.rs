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

use bytes::{BufMut, Bytes, BytesMut};

/// The only track of every file.
pub const TRACK_ID: u32 = 1;

/// A part or segment in pieces: `moof` with the `mdat` header first, then the samples as they came in. Media bytes are
/// shared, not copied; [`Body::to_contiguous`] copies once, for whoever needs one buffer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Body {
    chunks: Vec<Bytes>,
    len: usize,
}

impl Body {
    /// A body of these pieces.
    pub fn new(chunks: Vec<Bytes>) -> Self {
        let len = chunks.iter().map(Bytes::len).sum();
        Self { chunks, len }
    }

    /// Bytes in total.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// True without bytes.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The pieces in order.
    pub fn chunks(&self) -> &[Bytes] {
        &self.chunks
    }

    /// The pieces in order.
    pub fn into_chunks(self) -> Vec<Bytes> {
        self.chunks
    }

    /// One buffer; free for a single piece, otherwise one copy.
    pub fn to_contiguous(&self) -> Bytes {
        if let [only] = &self.chunks[..] {
            return only.clone();
        }
        let mut out = BytesMut::with_capacity(self.len);
        for chunk in &self.chunks {
            out.put_slice(chunk);
        }
        out.freeze()
    }
}

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
