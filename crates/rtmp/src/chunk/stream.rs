//! The state of one chunk stream at the reader, and the headers that change it (RTMP 5.3.1.2).

use super::EXTENDED;
use super::assembly::Assembly;
use super::header::{BasicHeader, u24, u32_be, u32_le};
use crate::message::{Message, MessageType};
use millrace_buf::ByteChain;

/// A type 3 header after a type 0 header means, by 5.3.1.2.4, "delta = that timestamp". librtmp writes it for
/// "same timestamp again". No frame lasts this long, so a larger value is librtmp's meaning.
const MAX_REPEATED_TIMESTAMP_MS: u32 = 5_000;

/// The last header of a chunk stream and the message being received on it.
#[derive(Debug)]
pub(super) struct ChunkStream {
    pub(super) id: u32,
    pub(super) timestamp: u32,
    /// Delta of the last header, or its timestamp if that was of type 0.
    pub(super) delta: u32,
    pub(super) last_was_absolute: bool,
    /// The extended timestamp of the last type 0, 1 or 2 header, if it had one.
    pub(super) extended: Option<u32>,
    pub(super) length: usize,
    pub(super) kind: MessageType,
    pub(super) stream: u32,
    /// The message that is not complete yet.
    pub(super) partial: Option<Assembly>,
}

/// A parsed message header that has not been applied yet.
pub(super) struct Parsed {
    pub(super) basic: BasicHeader,
    pub(super) size: usize,
    pub(super) index: Option<usize>,
    pub(super) field: u32,
    pub(super) extended: Option<u32>,
    pub(super) length: usize,
    pub(super) kind: MessageType,
    pub(super) stream: u32,
}

impl ChunkStream {
    pub(super) fn new(id: u32) -> Self {
        Self {
            id,
            timestamp: 0,
            delta: 0,
            last_was_absolute: false,
            extended: None,
            length: 0,
            kind: MessageType(0),
            stream: 0,
            partial: None,
        }
    }

    pub(super) fn start_message(&mut self, parsed: &Parsed) {
        let delta = match parsed.basic.format {
            0 => {
                self.timestamp = 0;
                self.last_was_absolute = true;
                parsed.field
            }
            3 if self.last_was_absolute && parsed.field > MAX_REPEATED_TIMESTAMP_MS => 0,
            3 => parsed.field,
            _ => {
                self.last_was_absolute = false;
                parsed.field
            }
        };
        self.timestamp = self.timestamp.wrapping_add(delta);
        self.delta = parsed.field;
        self.extended = parsed.extended;
        self.length = parsed.length;
        self.kind = parsed.kind;
        self.stream = parsed.stream;
    }

    pub(super) fn message(&self, payload: ByteChain) -> Message {
        Message {
            chunk_stream: self.id,
            kind: self.kind,
            stream: self.stream,
            timestamp: self.timestamp,
            payload,
        }
    }
}

/// Fills in the fields of a header of type 0, 1 or 2; `None` if bytes are missing.
pub(super) fn parse_fields(buf: &[u8], start: usize, mut parsed: Parsed) -> Option<Parsed> {
    let mut at = start;
    parsed.field = u24(buf, at)?;
    at += 3;
    if parsed.basic.format < 2 {
        parsed.length = u24(buf, at)? as usize;
        parsed.kind = MessageType(*buf.get(at + 3)?);
        at += 4;
    }
    if parsed.basic.format == 0 {
        parsed.stream = u32_le(buf, at)?;
        at += 4;
    }
    parsed.extended = None;
    if parsed.field == EXTENDED {
        parsed.field = u32_be(buf, at)?;
        parsed.extended = Some(parsed.field);
        at += 4;
    }
    parsed.size = at;
    Some(parsed)
}
