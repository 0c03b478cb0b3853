//! Bytes that lie in several pieces of memory and are read as one sequence.
//!
//! A picture comes off the network in chunks with headers between them. It stays where it was received, as slices of
//! the read buffers, until the message for the bus is written: that is the one copy.

use std::{fmt, iter, option, slice, vec};

use bytes::{Buf, Bytes};

/// A sequence of bytes in one or more pieces; equal to another when the bytes are, wherever they lie.
#[derive(Clone, Default)]
pub struct Pieces {
    first: Bytes,
    /// None of them is empty, and there are none while `first` is empty.
    more: Vec<Bytes>,
}

impl Pieces {
    /// No bytes.
    pub const fn new() -> Self {
        Self { first: Bytes::new(), more: Vec::new() }
    }

    /// Bytes in all pieces together.
    pub fn len(&self) -> usize {
        self.first.len() + self.more.iter().map(Bytes::len).sum::<usize>()
    }

    /// True when there is no byte.
    pub const fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// Appends a piece.
    pub fn push(&mut self, piece: Bytes) {
        if self.first.is_empty() {
            self.first = piece;
        } else if !piece.is_empty() {
            self.more.push(piece);
        }
    }

    /// The pieces in order, none of them empty.
    pub fn iter(&self) -> impl Iterator<Item = &Bytes> + Clone {
        Some(&self.first).filter(|first| !first.is_empty()).into_iter().chain(&self.more)
    }

    /// The first `N` bytes, or `None` when there are fewer.
    pub fn first_chunk<const N: usize>(&self) -> Option<[u8; N]> {
        if let Some(chunk) = self.first.first_chunk() {
            return Some(*chunk);
        }
        let (mut out, mut reader) = ([0; N], self.reader());
        reader.try_copy_to_slice(&mut out).is_ok().then_some(out)
    }

    /// Drops the first `count` bytes, or all when there are fewer.
    pub fn skip(&mut self, mut count: usize) {
        while count >= self.first.len() && !self.more.is_empty() {
            count -= self.first.len();
            self.first = self.more.remove(0);
        }
        self.first.advance(count.min(self.first.len()));
    }

    /// Reads from the first byte on, across the pieces.
    pub fn reader(&self) -> Reader<'_> {
        Reader { piece: &self.first, more: self.more.iter(), remaining: self.len() }
    }

    /// The bytes in one piece; copied if there are several.
    pub fn contiguous(&self) -> Bytes {
        if self.more.is_empty() {
            return self.first.clone();
        }
        let mut reader = self.reader();
        reader.copy_to_bytes(reader.remaining())
    }
}

impl From<Bytes> for Pieces {
    fn from(first: Bytes) -> Self {
        Self { first, more: Vec::new() }
    }
}

impl FromIterator<Bytes> for Pieces {
    fn from_iter<I: IntoIterator<Item = Bytes>>(pieces: I) -> Self {
        let mut out = Self::new();
        pieces.into_iter().for_each(|piece| out.push(piece));
        out
    }
}

impl IntoIterator for Pieces {
    type Item = Bytes;
    type IntoIter = iter::Chain<option::IntoIter<Bytes>, vec::IntoIter<Bytes>>;

    fn into_iter(self) -> Self::IntoIter {
        Some(self.first).filter(|first| !first.is_empty()).into_iter().chain(self.more)
    }
}

impl PartialEq for Pieces {
    fn eq(&self, other: &Self) -> bool {
        let (mut a, mut b) = (self.reader(), other.reader());
        if a.remaining() != b.remaining() {
            return false;
        }
        while a.has_remaining() {
            let count = a.chunk().len().min(b.chunk().len());
            if a.chunk()[..count] != b.chunk()[..count] {
                return false;
            }
            a.advance(count);
            b.advance(count);
        }
        true
    }
}

impl Eq for Pieces {}

impl fmt::Debug for Pieces {
    /// Lengths only: control messages hold stream keys, and media is long.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pieces({} bytes in {})", self.len(), self.iter().count())
    }
}

/// A position in [`Pieces`].
#[derive(Clone)]
pub struct Reader<'a> {
    piece: &'a [u8],
    more: slice::Iter<'a, Bytes>,
    remaining: usize,
}

impl Buf for Reader<'_> {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        self.piece
    }

    fn advance(&mut self, count: usize) {
        assert!(count <= self.remaining, "advance by {count} with {} bytes left", self.remaining);
        self.remaining -= count;
        let mut count = count;
        while count >= self.piece.len() {
            count -= self.piece.len();
            let Some(next) = self.more.next() else {
                self.piece = &[];
                return;
            };
            self.piece = next;
        }
        self.piece = &self.piece[count..];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(bytes: &[u8], cuts: &[usize]) -> Pieces {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        cuts.windows(2).map(|pair| Bytes::copy_from_slice(&bytes[pair[0]..pair[1]])).collect()
    }

    proptest! {
        #[test]
        fn cut_anywhere_it_reads_the_same(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            cuts in prop::collection::vec(any::<usize>(), 0..9),
            others in prop::collection::vec(any::<usize>(), 0..9),
            skipped in 0usize..220,
        ) {
            let mut pieces = cut(&bytes, &cuts);
            prop_assert_eq!(&pieces, &cut(&bytes, &others));
            prop_assert_eq!(pieces.len(), bytes.len());
            prop_assert_eq!(pieces.is_empty(), bytes.is_empty());
            prop_assert!(pieces.iter().all(|piece| !piece.is_empty()));
            prop_assert!(pieces.iter().eq(&pieces.clone().into_iter().collect::<Vec<_>>()));
            prop_assert_eq!(pieces.first_chunk::<5>(), bytes.first_chunk::<5>().copied());
            let rest = &bytes[skipped.min(bytes.len())..];
            let mut reader = pieces.reader();
            reader.advance(skipped.min(bytes.len()));
            prop_assert_eq!(&reader.copy_to_bytes(rest.len())[..], rest);
            pieces.skip(skipped);
            prop_assert_eq!(pieces.is_empty(), rest.is_empty());
            prop_assert_eq!(&pieces.contiguous()[..], rest);
            if let Some((last, head)) = rest.split_last() {
                let other: Vec<u8> = head.iter().copied().chain([!last]).collect();
                prop_assert_ne!(&pieces, &cut(&other, &others));
                prop_assert_ne!(&pieces, &cut(head, &others));
            }
        }
    }

    #[test]
    fn one_piece_is_not_copied() {
        let bytes = Bytes::from(vec![7; 100]);
        let mut pieces = Pieces::from(bytes.clone());
        pieces.skip(10);
        assert_eq!(pieces.contiguous().as_ptr(), bytes[10..].as_ptr());
    }
}
