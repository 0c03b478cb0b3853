//! Chunk headers on the wire (RTMP 5.3.1).

use super::EXTENDED;
use bytes::{BufMut, BytesMut};

/// Basic header (5.3.1.1): header type and chunk stream id in 1 to 3 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BasicHeader {
    /// Header type (5.3.1.2), 0..=3.
    pub format: u8,
    /// Chunk stream id (5.3.1.1), 2..=65599.
    pub chunk_stream: u32,
}

impl BasicHeader {
    /// Parses the header and returns it with its length; `None` if bytes are missing.
    pub fn parse(buf: &[u8]) -> Option<(Self, usize)> {
        let first = *buf.first()?;
        let format = first >> 6;
        let (chunk_stream, length) = match first & 0x3f {
            0 => (64 + u32::from(*buf.get(1)?), 2),
            1 => (64 + u32::from(*buf.get(1)?) + 256 * u32::from(*buf.get(2)?), 3),
            id => (u32::from(id), 1),
        };
        Some((Self { format, chunk_stream }, length))
    }

    /// Appends the header in its shortest form.
    pub fn write(self, out: &mut BytesMut) {
        let format = self.format << 6;
        match self.chunk_stream {
            id @ 0..=63 => out.put_u8(format | id as u8),
            id @ 64..=319 => out.put_slice(&[format, (id - 64) as u8]),
            id => {
                let rest = id.saturating_sub(64).min(0xffff) as u16;
                out.put_u8(format | 1);
                out.put_u16_le(rest);
            }
        }
    }
}

/// A message header of any type (5.3.1.2) with every field free to choose, for tests of malformed input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawHeader {
    /// Header type and chunk stream.
    pub basic: BasicHeader,
    /// Timestamp (type 0) or delta (types 1, 2), ms; extended by itself at 2^24 - 1.
    pub timestamp: u32,
    /// Message length, bytes (types 0, 1).
    pub length: u32,
    /// Message type id (types 0, 1).
    pub kind: u8,
    /// Message stream id (type 0).
    pub stream: u32,
    /// Writes an extended timestamp after a type 3 header.
    pub repeat_extended: bool,
}

impl RawHeader {
    /// Appends the header to `out`.
    pub fn write(&self, out: &mut BytesMut) {
        self.basic.write(out);
        let format = self.basic.format;
        let extended = self.timestamp >= EXTENDED;
        if format < 3 {
            out.put_uint(u64::from(self.timestamp.min(EXTENDED)), 3);
        }
        if format < 2 {
            out.put_uint(u64::from(self.length), 3);
            out.put_u8(self.kind);
        }
        if format == 0 {
            out.put_u32_le(self.stream);
        }
        if extended && (format < 3 || self.repeat_extended) {
            out.put_u32(self.timestamp);
        }
    }
}

/// Reads a 24-bit big-endian number at `at`.
pub(super) fn u24(buf: &[u8], at: usize) -> Option<u32> {
    let b = buf.get(at..)?.first_chunk::<3>()?;
    Some(u32::from_be_bytes([0, b[0], b[1], b[2]]))
}

/// Reads a 32-bit big-endian number at `at`.
pub(super) fn u32_be(buf: &[u8], at: usize) -> Option<u32> {
    buf.get(at..)?.first_chunk::<4>().map(|b| u32::from_be_bytes(*b))
}

/// Reads a 32-bit little-endian number at `at`.
pub(super) fn u32_le(buf: &[u8], at: usize) -> Option<u32> {
    buf.get(at..)?.first_chunk::<4>().map(|b| u32::from_le_bytes(*b))
}
