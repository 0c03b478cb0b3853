//! Reassembly of one message from its chunks.

use bytes::{BufMut, BytesMut};
use millrace_buf::ByteChain;

use crate::limits::READ_BYTES;

/// Largest copy buffer: most pictures fit, and a peer that only declares 8 MB on each chunk stream gets no more than
/// this.
const OWN_BYTES: usize = 128 * 1024;
/// Slices of one message may lie this many times their length apart, and a read buffer: interleaved audio is little. Beyond
/// it they are copied together, so that few bytes of each read buffer do not keep them all.
const SPREAD: u64 = 2;

/// The received part of a message: slices of the read buffers, or copies where slices would be too small.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    /// Copies, which come before the slices.
    settled: ByteChain,
    /// Slices of read buffers; `tail` belongs to them unless it is a copy.
    slices: ByteChain,
    sliced: usize,
    /// Offset of the first slice in the connection.
    since: u64,
    /// The slice or copy being extended.
    tail: BytesMut,
    tail_is_own: bool,
    received: usize,
    memory: usize,
}

impl Assembly {
    /// Returns the bytes of the message received so far.
    pub(super) fn received(&self) -> usize {
        self.received
    }

    /// Returns the bytes of memory held; slices count with their length.
    pub(super) fn memory(&self) -> usize {
        self.memory
    }

    /// Appends a slice of the read buffer, which begins `offset` bytes into the connection.
    pub(super) fn slice(&mut self, piece: BytesMut, offset: u64) {
        if self.tail_is_own {
            self.settled.push(std::mem::take(&mut self.tail).freeze());
            self.tail_is_own = false;
        }
        if offset.saturating_sub(self.since) > SPREAD * self.sliced as u64 + READ_BYTES as u64 {
            self.settle();
        }
        if self.sliced == 0 {
            self.since = offset;
        }
        self.received += piece.len();
        self.sliced += piece.len();
        self.memory += piece.len();
        if self.tail.as_ptr_range().end == piece.as_ptr() {
            self.tail.unsplit(piece);
        } else {
            self.slices.push(std::mem::replace(&mut self.tail, piece).freeze());
        }
    }

    /// Appends a copy of `bytes`, the first of `left` that are missing.
    pub(super) fn copy(&mut self, mut bytes: &[u8], left: usize) {
        if !self.tail_is_own {
            self.settle();
            self.tail_is_own = true;
        }
        let end = self.received + left;
        while !bytes.is_empty() {
            if self.tail.len() == self.tail.capacity() {
                let next = BytesMut::with_capacity((end - self.received).min(OWN_BYTES));
                self.memory += next.capacity();
                self.settled.push(std::mem::replace(&mut self.tail, next).freeze());
            }
            let room = self.tail.capacity() - self.tail.len();
            let (head, rest) = bytes.split_at(bytes.len().min(room));
            self.tail.put_slice(head);
            self.received += head.len();
            bytes = rest;
        }
    }

    /// Copies the slices, which frees the read buffers.
    fn settle(&mut self) {
        let last = std::mem::take(&mut self.tail).freeze();
        self.slices.push(last);
        if self.sliced > 0 {
            let mut own = BytesMut::with_capacity(self.sliced);
            self.slices.iter().for_each(|slice| own.put_slice(slice));
            self.slices = ByteChain::new();
            self.settled.push(own.freeze());
        }
        self.sliced = 0;
    }

    /// Returns the message when all of it is received.
    pub(super) fn finish(mut self) -> ByteChain {
        self.slices.push(self.tail.freeze());
        if self.settled.is_empty() {
            return self.slices;
        }
        self.settled.into_iter().chain(self.slices).collect()
    }
}
