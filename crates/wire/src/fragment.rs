//! Binary framing shared by media messages and facts: a fixed header, then a piece of the body.
//!
//! ```text
//! 0  version u8 · 1 kind u8 · 2 fragment u16 · 4 fragments u16 · 6 body length u32 (of the whole message)
//! 10 epoch u64 · 18 generation u64 (0 for media) · 26 sequence u64 · 34 body piece      (little endian)
//! ```
//! A message whose frame would exceed the server's `max_payload` is split; every fragment but the last carries the
//! same number of body bytes.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::ids::{Epoch, Generation};
use crate::version::WIRE_VERSION;

/// Length of the header before the body's piece, in bytes.
pub const HEADER: usize = 34;
/// Largest body of one message in bytes: a keyframe or a part of 100 Mb/s video fits several times over.
pub const MAX_BODY: usize = 32 << 20;
/// Smallest `max_payload` that is used; a server with less is treated as if it had this much.
pub const MIN_PAYLOAD: usize = 1 << 10;
/// Most fragments of one message: the limit of the header's field.
pub const MAX_FRAGMENTS: usize = u16::MAX as usize;
/// Most incomplete messages kept for reassembly: fragments of one message follow each other, so even two are rare.
pub const MAX_INCOMPLETE: usize = 8;

/// The kind of message that a fragment is a piece of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A media message of a publisher session.
    Media,
    /// A fact of a log writer.
    Fact,
}

impl Kind {
    const fn code(self) -> u8 {
        match self {
            Self::Media => 1,
            Self::Fact => 2,
        }
    }
}

/// The reason bytes are not accepted as a fragment or as the body of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FragmentError {
    /// There are fewer bytes than the header announces.
    #[error("truncated: {have} bytes where {need} are needed")]
    Truncated {
        /// Number of bytes that are needed.
        need: usize,
        /// Number of bytes that are present.
        have: usize,
    },
    /// The fragment has another version of the wire format.
    #[error("version {0}, this node speaks {WIRE_VERSION}")]
    Version(u8),
    /// The kind of message is unknown or not the expected one.
    #[error("unexpected kind {0}")]
    Kind(u8),
    /// Fragment number, count or lengths contradict each other or exceed a limit.
    #[error("inconsistent fragment {index} of {count}, body {body}")]
    Fragment {
        /// Number of the fragment, from 0.
        index: u16,
        /// Number of fragments in the message.
        count: u16,
        /// Length of the body that the header announces.
        body: u32,
    },
    /// The body breaks a rule of its kind.
    #[error("malformed body: {0}")]
    Body(&'static str),
}

/// The place of a message: its producer's numbers, and its own number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Epoch of the message's producer.
    pub epoch: Epoch,
    /// Generation of the log writer; 0 for media messages.
    pub generation: Generation,
    /// Number of the message within its epoch and generation.
    pub seq: u64,
}

/// One fragment as received; a slice of the received bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment {
    /// Kind of the whole message.
    pub kind: Kind,
    /// Author and number of the message.
    pub position: Position,
    /// Number of this fragment, from 0.
    pub index: u16,
    /// Number of fragments in the message, at least 1.
    pub count: u16,
    /// Length of the whole body.
    pub body_len: u32,
    /// This fragment's piece of the body.
    pub piece: Bytes,
}

impl Fragment {
    /// Reads one fragment; the piece is a slice of `bytes`.
    pub fn decode(mut bytes: Bytes) -> Result<Self, FragmentError> {
        if bytes.len() < HEADER {
            return Err(FragmentError::Truncated { need: HEADER, have: bytes.len() });
        }
        let version = bytes.get_u8();
        if version != WIRE_VERSION {
            return Err(FragmentError::Version(version));
        }
        let kind = match bytes.get_u8() {
            1 => Kind::Media,
            2 => Kind::Fact,
            other => return Err(FragmentError::Kind(other)),
        };
        let (index, count, body) = (bytes.get_u16_le(), bytes.get_u16_le(), bytes.get_u32_le());
        let epoch = Epoch(bytes.get_u64_le());
        let generation = Generation(bytes.get_u64_le());
        let position = Position { epoch, generation, seq: bytes.get_u64_le() };
        let frame = Self { kind, position, index, count, body_len: body, piece: bytes };
        if frame.is_consistent() { Ok(frame) } else { Err(FragmentError::Fragment { index, count, body }) }
    }

    fn is_consistent(&self) -> bool {
        let (len, body) = (self.piece.len(), self.body_len as usize);
        self.index < self.count
            && body <= MAX_BODY
            && if self.count == 1 {
                len == body
            } else {
                len > 0 && len < body && usize::from(self.count) <= body
            }
    }
}

/// Encodes one message whose body is the concatenation of `body` into frames of at most `max_payload` bytes.
/// Every body byte is copied once, into a `buffer` with room for as many bytes as it is asked for.
pub fn encode(
    kind: Kind,
    at: Position,
    body: &[&[u8]],
    max_payload: usize,
    mut buffer: impl FnMut(usize) -> BytesMut,
) -> Result<Vec<Bytes>, FragmentError> {
    let total: usize = body.iter().map(|b| b.len()).sum();
    let room = max_payload.max(MIN_PAYLOAD) - HEADER;
    let count = total.div_ceil(room).max(1);
    let (Ok(body_len), Ok(count)) = (u32::try_from(total), u16::try_from(count)) else {
        return Err(FragmentError::Body("too long"));
    };
    if total > MAX_BODY {
        return Err(FragmentError::Body("too long"));
    }
    let mut pieces = body.iter().copied();
    let mut piece: &[u8] = &[];
    let mut frames = Vec::with_capacity(usize::from(count));
    for index in 0..count {
        let mut left = room.min(total - usize::from(index) * room);
        let mut out = buffer(HEADER + left);
        out.put_u8(WIRE_VERSION);
        out.put_u8(kind.code());
        out.put_u16_le(index);
        out.put_u16_le(count);
        out.put_u32_le(body_len);
        out.put_u64_le(at.epoch.0);
        out.put_u64_le(at.generation.0);
        out.put_u64_le(at.seq);
        while left > 0 {
            if piece.is_empty() {
                let Some(next) = pieces.next() else { break };
                piece = next;
            }
            let (head, tail) = piece.split_at(left.min(piece.len()));
            out.put_slice(head);
            left -= head.len();
            piece = tail;
        }
        frames.push(out.freeze());
    }
    Ok(frames)
}

#[derive(Debug)]
struct Partial {
    pieces: Vec<Option<Bytes>>,
    have: usize,
    bytes: usize,
    body_len: u32,
}

/// Puts fragments back together, in any order and with duplicates; bounded by [`MAX_INCOMPLETE`] messages of
/// [`MAX_BODY`] bytes, of which the oldest is given up first.
#[derive(Debug, Default)]
pub struct Reassembler {
    partial: BTreeMap<Position, Partial>,
}

impl Reassembler {
    /// Takes one fragment and returns the body that it completes, if it completes one. A message of one fragment is not copied.
    pub fn push(&mut self, frame: Fragment) -> Option<(Position, Bytes)> {
        if frame.count == 1 {
            return Some((frame.position, frame.piece));
        }
        let (at, count) = (frame.position, usize::from(frame.count));
        let partial = self.partial.entry(at).or_insert_with(|| Partial {
            pieces: vec![None; count],
            have: 0,
            bytes: 0,
            body_len: frame.body_len,
        });
        if partial.pieces.len() != count || partial.body_len != frame.body_len {
            self.partial.remove(&at);
            return None;
        }
        let slot = &mut partial.pieces[usize::from(frame.index)];
        if slot.is_none() {
            partial.have += 1;
            partial.bytes += frame.piece.len();
            *slot = Some(frame.piece);
        }
        if partial.bytes > partial.body_len as usize {
            self.partial.remove(&at);
            return None;
        }
        if partial.have < count {
            if self.partial.len() > MAX_INCOMPLETE {
                self.partial.pop_first();
            }
            return None;
        }
        let partial = self.partial.remove(&at)?;
        if partial.bytes != partial.body_len as usize {
            return None;
        }
        let mut body = BytesMut::with_capacity(partial.bytes);
        partial.pieces.into_iter().flatten().for_each(|p| body.put(p));
        Some((at, body.freeze()))
    }
}

/// A message that travels as binary fragments: a media message or a fact.
pub trait Fragmented: Sized + Send + 'static {
    /// Kind in the header of the message's fragments.
    const KIND: Kind;

    /// Decodes a reassembled body; byte data of the message are slices of it.
    fn decode(position: Position, body: Bytes) -> Result<Self, FragmentError>;
}

/// Turns the fragments received on one subject into messages.
#[derive(Debug)]
pub struct FragmentReader<T> {
    reassembler: Reassembler,
    message: PhantomData<fn() -> T>,
}

impl<T> Default for FragmentReader<T> {
    fn default() -> Self {
        Self { reassembler: Reassembler::default(), message: PhantomData }
    }
}

impl<T: Fragmented> FragmentReader<T> {
    /// Takes one received fragment; returns the message that it completes, if it completes one.
    pub fn push(&mut self, bytes: Bytes) -> Result<Option<T>, FragmentError> {
        let fragment = Fragment::decode(bytes)?;
        if fragment.kind != T::KIND {
            return Err(FragmentError::Kind(fragment.kind.code()));
        }
        self.reassembler.push(fragment).map(|(position, body)| T::decode(position, body)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seq: u64) -> Position {
        Position { epoch: Epoch(7), generation: Generation(3), seq }
    }

    proptest! {
        #[test]
        fn split_and_joined_in_any_order(
            body in proptest::collection::vec(any::<u8>(), 0..9000), cut in 0usize..9000, order in any::<u64>()
        ) {
            let (a, b) = body.split_at(cut.min(body.len()));
            let mut frames = encode(Kind::Media, at(1), &[a, b], 1024, BytesMut::with_capacity).unwrap();
            prop_assert!(frames.iter().all(|f| f.len() <= 1024));
            let n = frames.len();
            frames.rotate_left(order as usize % n);
            let again = frames[0].clone();
            if n > 1 { frames.insert(1, again); }
            let mut r = Reassembler::default();
            let mut whole = Vec::new();
            for f in frames { whole.extend(r.push(Fragment::decode(f).unwrap())); }
            prop_assert_eq!(whole, vec![(at(1), Bytes::from(body))]);
            prop_assert!(r.partial.is_empty());
        }

        #[test]
        fn garbage_is_bounded(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 0..60)) {
            let mut r = Reassembler::default();
            for mut p in pieces {
                if p.len() > 2 { p[0] = WIRE_VERSION; p[1] = 1 + p[1] % 2; }
                if p.len() > 9 { p[2] %= 4; p[3] = 0; p[4] = 4; p[5] = 0; p[8] = 0; p[9] = 0; }
                if let Ok(f) = Fragment::decode(p.into()) { r.push(f); }
                prop_assert!(r.partial.len() <= MAX_INCOMPLETE);
            }
        }
    }

    #[test]
    fn lost_fragments_do_not_pile_up() {
        let mut r = Reassembler::default();
        for seq in 0..100 {
            let frames = encode(Kind::Fact, at(seq), &[&[0; 5000]], 1024, BytesMut::with_capacity).unwrap();
            assert_eq!(r.push(Fragment::decode(frames[0].clone()).unwrap()), None);
        }
        assert!(r.partial.len() <= MAX_INCOMPLETE);
    }

    #[test]
    fn an_empty_body_is_one_frame() {
        let frames = encode(Kind::Fact, at(0), &[], 1024, BytesMut::with_capacity).unwrap();
        assert_eq!(frames.len(), 1);
        assert_eq!(Fragment::decode(frames[0].clone()).unwrap().piece.len(), 0);
    }
}
