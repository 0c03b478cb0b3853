//! An object's bytes: in one piece, or as the pieces they came in.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

/// Immutable bytes; a clone shares them.
#[derive(Debug, Clone)]
pub enum Payload {
    /// In one piece.
    One(Bytes),
    /// A segment as its parts, which stay in memory under their own names: it takes no memory itself.
    Parts(Arc<[Bytes]>),
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self::One(bytes)
    }
}

impl Payload {
    /// The pieces, in order.
    pub fn pieces(&self) -> &[Bytes] {
        match self {
            Self::One(bytes) => std::slice::from_ref(bytes),
            Self::Parts(parts) => parts,
        }
    }

    /// Bytes in total.
    pub fn len(&self) -> usize {
        self.pieces().iter().map(Bytes::len).sum()
    }

    /// True without bytes.
    pub fn is_empty(&self) -> bool {
        self.pieces().iter().all(Bytes::is_empty)
    }

    /// The bytes of `range`, which lies within them; shared, not copied.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        let mut at = 0;
        let overlap = |piece: &Bytes| {
            let start = at;
            at += piece.len();
            let (from, to) = (range.start.max(start), range.end.min(at));
            (from < to).then(|| piece.slice(from - start..to - start))
        };
        Self::Parts(self.pieces().iter().filter_map(overlap).collect())
    }

    /// In one piece: a copy when they are in several.
    pub fn contiguous(&self) -> Bytes {
        match self.pieces() {
            [only] => only.clone(),
            pieces => {
                let mut whole = BytesMut::with_capacity(self.len());
                for piece in pieces {
                    whole.extend_from_slice(piece);
                }
                whole.freeze()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_takes_what_overlaps_of_each_piece() {
        let pieces = [&b"abc"[..], b"", b"defg", b"h"].map(Bytes::from_static);
        let payload = Payload::Parts(pieces.into());
        assert_eq!(payload.contiguous(), "abcdefgh");
        for from in 0..=8 {
            for to in from..=8 {
                let slice = payload.slice(from..to);
                assert_eq!(slice.contiguous(), &b"abcdefgh"[from..to], "{from}..{to}");
                assert_eq!((slice.len(), slice.is_empty()), (to - from, from == to));
            }
        }
    }
}
