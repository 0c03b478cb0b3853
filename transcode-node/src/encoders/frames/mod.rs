//! Orders and products as frames on a byte stream: a length, a kind, and a body. Descriptions are JSON; media are a short
//! fixed header and their own bytes, so that they are not copied to be framed.
//!
//! ```text
//! u32  bytes after this field
//! u8   kind
//! …    body
//! ```
//! All numbers are big-endian.

mod orders;
mod products;
#[cfg(test)]
mod tests;

use std::io::{self, Read};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use millrace_buf::ByteChain;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::orders::{decode_order, encode_order};
pub use self::products::{ChildMessage, decode_product, encode_failure, encode_product};

/// The largest frame: a coded picture of the largest source is well below it, since ingest bounds messages to less.
pub const MAX_FRAME: usize = 16 << 20;
/// The largest description: a plan of eight rungs with the longest names.
const MAX_JSON: usize = 64 << 10;
/// Bytes of a frame before its body.
const HEAD_BYTES: usize = 5;
/// Bytes that are asked of the stream at once: several pictures of an usual rate.
const READ_BYTES: usize = 64 << 10;

/// A frame that cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A length of zero, or beyond [`MAX_FRAME`].
    #[error("a frame of {0} bytes")]
    Length(usize),
    /// A kind that no message has.
    #[error("a frame of the unknown kind {0}")]
    Kind(u8),
    /// A body that is shorter than its fixed fields, or has unknown flags, or bytes after its end.
    #[error("a {0} of the wrong length or with unknown flags")]
    Body(&'static str),
    /// A description that is no such JSON.
    #[error("a {0} that is no such JSON: {1}")]
    Json(&'static str, String),
}

/// A frame that is ready to be written: the head, and the media as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    head: Bytes,
    media: ByteChain,
}

impl Frame {
    /// Makes a frame of a kind with the fixed fields and the media.
    fn new(kind: u8, fields: &[u8], media: ByteChain) -> Self {
        let length = 1 + fields.len() + media.len();
        let mut head = BytesMut::with_capacity(HEAD_BYTES + fields.len());
        head.put_u32(length as u32);
        head.put_u8(kind);
        head.put_slice(fields);
        Self { head: head.freeze(), media }
    }

    /// Makes a frame of a kind with a description.
    fn json<T: Serialize>(kind: u8, value: &T) -> Self {
        // Descriptions have string keys and no values that JSON lacks, so that this cannot fail; an empty one is refused by the reader.
        Self::new(kind, &serde_json::to_vec(value).unwrap_or_default(), ByteChain::new())
    }

    /// Returns the number of bytes on the stream.
    pub fn len(&self) -> usize {
        self.head.len() + self.media.len()
    }

    /// True if the reader refuses the frame for its length.
    pub fn is_too_long(&self) -> bool {
        self.len() - 4 > MAX_FRAME
    }

    /// True if the frame has no bytes, which none has.
    pub fn is_empty(&self) -> bool {
        self.head.is_empty()
    }

    /// Returns the slices to be written, in order.
    pub fn into_slices(self) -> impl Iterator<Item = Bytes> {
        std::iter::once(self.head).chain(self.media.iter().cloned().collect::<Vec<_>>())
    }
}

/// Finds frames in a byte stream. It holds at most one frame and what was read with it.
#[derive(Debug, Default)]
pub struct FrameReader {
    buffer: BytesMut,
}

impl FrameReader {
    /// Returns the buffer to append what the stream gave, with room for at least one more read.
    pub fn buffer(&mut self) -> &mut BytesMut {
        self.buffer.reserve(READ_BYTES);
        &mut self.buffer
    }

    /// Reads once from a blocking stream. Returns the number of bytes, 0 at the end.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn read_from(&mut self, stream: &mut impl Read) -> io::Result<usize> {
        let start = self.buffer.len();
        self.buffer.resize(start + READ_BYTES, 0);
        let result = loop {
            match stream.read(&mut self.buffer[start..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        self.buffer.truncate(start + result.as_ref().map_or(0, |read| *read));
        result
    }

    /// Takes the next whole frame off: its kind and body.
    ///
    /// # Errors
    /// [`FrameError::Length`]; the stream is useless from there on.
    pub fn next_frame(&mut self) -> Result<Option<(u8, Bytes)>, FrameError> {
        let Some(head) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*head) as usize;
        if length == 0 || length > MAX_FRAME {
            return Err(FrameError::Length(length));
        }
        if self.buffer.len() < 4 + length {
            self.buffer.reserve(4 + length - self.buffer.len());
            return Ok(None);
        }
        self.buffer.advance(4);
        let mut frame = self.buffer.split_to(length).freeze();
        let kind = frame.get_u8();
        Ok(Some((kind, frame)))
    }
}

/// Reads a description.
fn json<T: DeserializeOwned>(name: &'static str, body: &[u8]) -> Result<T, FrameError> {
    if body.len() > MAX_JSON {
        return Err(FrameError::Body(name));
    }
    serde_json::from_slice(body).map_err(|error| FrameError::Json(name, error.to_string()))
}

/// Reads a byte of flags, of which the lowest `known` have a meaning.
fn flags(name: &'static str, byte: u8, known: u32) -> Result<u8, FrameError> {
    if u32::from(byte) >> known == 0 { Ok(byte) } else { Err(FrameError::Body(name)) }
}
