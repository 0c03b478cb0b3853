//! Write buffers from memory that is used again and not given back to the allocator.
//!
//! A replay buffer holds some seconds of encoded messages, so it drops about as many bytes as are
//! written next. If those pages went back to the allocator, they would be unmapped and faulted in
//! again for every message.

use std::collections::VecDeque;
use std::mem;

use bytes::BytesMut;

/// Bytes of one chunk of memory: a dozen messages at the usual bit rates.
const CHUNK: usize = 64 << 10;
/// Longest message that is cut from a chunk. Longer ones (keyframes) get an allocation of their
/// own, because they would leave much of a chunk unused.
const LARGEST: usize = CHUNK / 4;
/// Most chunks kept for later use: 6 s at 2.5 Mb/s. The allocator gets back the chunks beyond that.
const KEPT: usize = 32;

/// Hands out buffers cut from chunks of memory; a chunk is used again once every buffer cut from it
/// has been dropped.
#[derive(Debug, Default)]
pub struct Arena {
    chunk: BytesMut,
    used: VecDeque<BytesMut>,
}

impl Arena {
    /// Returns an empty buffer with room for exactly `len` bytes.
    pub fn buffer(&mut self, len: usize) -> BytesMut {
        if len > LARGEST {
            return BytesMut::with_capacity(len);
        }
        if self.chunk.capacity() < len {
            let next = self.next_chunk();
            self.used.push_back(mem::replace(&mut self.chunk, next));
        }
        let rest = self.chunk.split_off(len);
        mem::replace(&mut self.chunk, rest)
    }

    fn next_chunk(&mut self) -> BytesMut {
        if let Some(free) = self.used.iter_mut().position(|chunk| chunk.try_reclaim(CHUNK))
            && let Some(chunk) = self.used.remove(free)
        {
            return chunk;
        }
        if self.used.len() >= KEPT {
            self.used.pop_front();
        }
        BytesMut::with_capacity(CHUNK)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use bytes::{BufMut, Bytes};
    use proptest::prelude::*;

    use super::*;

    fn write(arena: &mut Arena, len: usize, fill: u8) -> Bytes {
        let mut buffer = arena.buffer(len);
        assert_eq!((buffer.len(), buffer.capacity()), (0, len));
        buffer.put_bytes(fill, len);
        buffer.freeze()
    }

    proptest! {
        #[test]
        fn buffers_in_use_keep_their_bytes(lens in proptest::collection::vec(1usize..CHUNK / 3, 1..300), held in 1usize..60) {
            let (mut arena, mut ring) = (Arena::default(), VecDeque::new());
            for (n, len) in lens.into_iter().enumerate() {
                ring.push_back((n as u8, len, write(&mut arena, len, n as u8)));
                if ring.len() > held { ring.pop_front(); }
                for (fill, len, bytes) in &ring {
                    prop_assert!(bytes.len() == *len && bytes.iter().all(|b| b == fill));
                }
            }
            prop_assert!(arena.used.len() <= KEPT + 1);
        }
    }

    #[test]
    fn replay_buffer_of_constant_size_uses_the_same_chunks_again() {
        let (mut arena, mut ring, mut places) = (Arena::default(), VecDeque::new(), HashSet::new());
        for n in 0..2_000u32 {
            let bytes = write(&mut arena, 8_000, n as u8);
            if n > 200 {
                places.insert(bytes.as_ptr());
            }
            ring.push_back(bytes);
            if ring.len() > 50 {
                ring.pop_front();
            }
        }
        // Eight to a chunk, one chunk being filled and one being left.
        assert!(places.len() <= (50usize.div_ceil(8) + 2) * 8, "{} places", places.len());
    }

    #[test]
    fn arena_allocates_when_no_buffer_is_dropped() {
        let mut arena = Arena::default();
        let held: Vec<Bytes> = (0..=255).map(|n| write(&mut arena, LARGEST, n)).collect();
        assert_eq!(arena.used.len(), KEPT);
        assert!(held.iter().enumerate().all(|(n, bytes)| bytes.iter().all(|b| usize::from(*b) == n)));
    }
}
