//! A sequence of bytes that lies in several slices of memory.

use std::ops::Range;
use std::{fmt, iter, option, slice, vec};

use bytes::{Buf, Bytes};

/// One sequence of bytes in any number of reference-counted slices.
///
/// An access unit comes off the network in chunks with headers between them. It stays where it was
/// received, as slices of the read buffers, until the message for the bus is written, which is the
/// one copy. A segment is its parts one after the other, and stays in their memory. Cloning shares
/// the bytes.
///
/// Two chains are equal if their bytes are, however they are divided.
#[derive(Clone, Default)]
pub struct ByteChain {
    first: Bytes,
    /// None of these is empty, and there are none while `first` is empty.
    more: Vec<Bytes>,
}

impl ByteChain {
    /// Returns a chain without bytes. Does not allocate.
    pub const fn new() -> Self {
        Self { first: Bytes::new(), more: Vec::new() }
    }

    /// Returns an empty chain that takes `slices` slices without allocating again.
    pub fn with_capacity(slices: usize) -> Self {
        Self { first: Bytes::new(), more: Vec::with_capacity(slices.saturating_sub(1)) }
    }

    /// Returns the number of bytes in all slices together.
    pub fn len(&self) -> usize {
        self.first.len() + self.more.iter().map(Bytes::len).sum::<usize>()
    }

    /// True if the chain has no byte.
    pub const fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// Appends a slice, which is shared and not copied. An empty one is left out.
    pub fn push(&mut self, slice: Bytes) {
        if self.first.is_empty() {
            self.first = slice;
        } else if !slice.is_empty() {
            self.more.push(slice);
        }
    }

    /// Iterates over the slices in order; none of them is empty.
    pub fn iter(&self) -> impl Iterator<Item = &Bytes> + Clone {
        Some(&self.first).filter(|first| !first.is_empty()).into_iter().chain(&self.more)
    }

    /// Returns the first `N` bytes, or `None` if the chain is shorter.
    pub fn first_chunk<const N: usize>(&self) -> Option<[u8; N]> {
        if let Some(chunk) = self.first.first_chunk() {
            return Some(*chunk);
        }
        let (mut out, mut reader) = ([0; N], self.reader());
        reader.try_copy_to_slice(&mut out).is_ok().then_some(out)
    }

    /// Drops the first `count` bytes, or all of them if the chain is shorter.
    pub fn skip(&mut self, mut count: usize) {
        while count >= self.first.len() && !self.more.is_empty() {
            count -= self.first.len();
            self.first = self.more.remove(0);
        }
        self.first.advance(count.min(self.first.len()));
    }

    /// Takes the first slice off, or returns `None` if the chain is empty.
    pub fn pop_front(&mut self) -> Option<Bytes> {
        let first = Some(self.first.clone()).filter(|first| !first.is_empty())?;
        self.skip(first.len());
        Some(first)
    }

    /// Returns the bytes of `range` as a chain that shares them; the part of `range` beyond the end
    /// is left out.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        let mut position = 0;
        let overlap = |slice: &Bytes| {
            let start = position;
            position += slice.len();
            let (from, to) = (range.start.max(start), range.end.min(position));
            (from < to).then(|| slice.slice(from - start..to - start))
        };
        self.iter().filter_map(overlap).collect()
    }

    /// Returns a [`Buf`] that reads the chain from its first byte on, across the slices.
    pub fn reader(&self) -> Reader<'_> {
        Reader { slice: &self.first, more: self.more.iter(), remaining: self.len() }
    }

    /// Returns the bytes as one slice: shared if the chain has one slice, copied if it has several.
    pub fn contiguous(&self) -> Bytes {
        if self.more.is_empty() {
            return self.first.clone();
        }
        let mut reader = self.reader();
        reader.copy_to_bytes(reader.remaining())
    }
}

impl From<Bytes> for ByteChain {
    fn from(first: Bytes) -> Self {
        Self { first, more: Vec::new() }
    }
}

impl From<Vec<u8>> for ByteChain {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<&'static str> for ByteChain {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl From<Vec<Bytes>> for ByteChain {
    fn from(slices: Vec<Bytes>) -> Self {
        slices.into_iter().collect()
    }
}

impl Extend<Bytes> for ByteChain {
    fn extend<I: IntoIterator<Item = Bytes>>(&mut self, slices: I) {
        slices.into_iter().for_each(|slice| self.push(slice));
    }
}

impl FromIterator<Bytes> for ByteChain {
    fn from_iter<I: IntoIterator<Item = Bytes>>(slices: I) -> Self {
        let slices = slices.into_iter();
        let mut chain = Self::with_capacity(slices.size_hint().0);
        chain.extend(slices);
        chain
    }
}

impl IntoIterator for ByteChain {
    type Item = Bytes;
    type IntoIter = iter::Chain<option::IntoIter<Bytes>, vec::IntoIter<Bytes>>;

    fn into_iter(self) -> Self::IntoIter {
        Some(self.first).filter(|first| !first.is_empty()).into_iter().chain(self.more)
    }
}

impl PartialEq for ByteChain {
    fn eq(&self, other: &Self) -> bool {
        let (mut left, mut right) = (self.reader(), other.reader());
        if left.remaining() != right.remaining() {
            return false;
        }
        while left.has_remaining() {
            let count = left.chunk().len().min(right.chunk().len());
            if left.chunk()[..count] != right.chunk()[..count] {
                return false;
            }
            left.advance(count);
            right.advance(count);
        }
        true
    }
}

impl Eq for ByteChain {}

impl fmt::Debug for ByteChain {
    /// Writes lengths only: RTMP commands contain stream keys, and media is long.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ByteChain({} bytes in {})", self.len(), self.iter().count())
    }
}

/// A read position in a [`ByteChain`].
#[derive(Clone)]
pub struct Reader<'a> {
    slice: &'a [u8],
    more: slice::Iter<'a, Bytes>,
    remaining: usize,
}

impl Buf for Reader<'_> {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        self.slice
    }

    fn advance(&mut self, count: usize) {
        assert!(count <= self.remaining, "advance by {count} with {} bytes left", self.remaining);
        self.remaining -= count;
        let mut count = count;
        while count >= self.slice.len() {
            count -= self.slice.len();
            let Some(next) = self.more.next() else {
                self.slice = &[];
                return;
            };
            self.slice = next;
        }
        self.slice = &self.slice[count..];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn divide(bytes: &[u8], cuts: &[usize]) -> ByteChain {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        cuts.windows(2).map(|pair| Bytes::copy_from_slice(&bytes[pair[0]..pair[1]])).collect()
    }

    proptest! {
        #[test]
        fn chain_divided_anywhere_reads_the_same_bytes(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            cuts in prop::collection::vec(any::<usize>(), 0..9),
            others in prop::collection::vec(any::<usize>(), 0..9),
            skipped in 0usize..220,
        ) {
            let mut chain = divide(&bytes, &cuts);
            prop_assert_eq!(&chain, &divide(&bytes, &others));
            prop_assert_eq!(chain.len(), bytes.len());
            prop_assert_eq!(chain.is_empty(), bytes.is_empty());
            prop_assert!(chain.iter().all(|slice| !slice.is_empty()));
            prop_assert!(chain.iter().eq(&chain.clone().into_iter().collect::<Vec<_>>()));
            prop_assert_eq!(chain.first_chunk::<5>(), bytes.first_chunk::<5>().copied());
            let rest = &bytes[skipped.min(bytes.len())..];
            let mut reader = chain.reader();
            reader.advance(skipped.min(bytes.len()));
            prop_assert_eq!(&reader.copy_to_bytes(rest.len())[..], rest);
            let mut drained = chain.clone();
            let slices: Vec<Bytes> = std::iter::from_fn(|| drained.pop_front()).collect();
            prop_assert!(drained.is_empty() && chain.iter().eq(&slices));
            chain.skip(skipped);
            prop_assert_eq!(chain.is_empty(), rest.is_empty());
            prop_assert_eq!(&chain.contiguous()[..], rest);
            if let Some((last, head)) = rest.split_last() {
                let other: Vec<u8> = head.iter().copied().chain([!last]).collect();
                prop_assert_ne!(&chain, &divide(&other, &others));
                prop_assert_ne!(&chain, &divide(head, &others));
            }
        }
    }

    #[test]
    fn contiguous_of_a_single_slice_shares_its_memory() {
        let bytes = Bytes::from(vec![7; 100]);
        let mut chain = ByteChain::from(bytes.clone());
        chain.skip(10);
        assert_eq!(chain.contiguous().as_ptr(), bytes[10..].as_ptr());
    }

    #[test]
    fn slice_takes_the_overlap_of_each_slice() {
        let chain: ByteChain =
            [&b"abc"[..], b"", b"defg", b"h"].map(Bytes::from_static).into_iter().collect();
        assert_eq!(chain.contiguous(), "abcdefgh");
        for from in 0..=8 {
            for to in from..=8 {
                let slice = chain.slice(from..to);
                assert_eq!(slice.contiguous(), &b"abcdefgh"[from..to], "{from}..{to}");
                assert_eq!((slice.len(), slice.is_empty()), (to - from, from == to));
            }
        }
        assert_eq!(chain.slice(6..20).contiguous(), "gh");
    }
}
