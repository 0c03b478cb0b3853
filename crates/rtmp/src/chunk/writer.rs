//! Cuts messages into chunks of the announced size.

use super::header::{BasicHeader, RawHeader};
use super::{EXTENDED, INITIAL_CHUNK_BYTES, MAX_CHUNK_BYTES, MAX_HEADER_BYTES, MAX_MESSAGE_FIELD};
use crate::error::ErrorKind;
use crate::message::{Message, MessageType};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use millrace_buf::Reader;

#[derive(Debug)]
struct Written {
    chunk_stream: u32,
    timestamp: u32,
    /// `None` after a type 0 header, whose delta peers interpret in two ways.
    delta: Option<u32>,
    length: usize,
    kind: MessageType,
    stream: u32,
}

/// Writes messages as chunks, with the shortest header every known reader understands.
#[derive(Debug)]
pub struct ChunkWriter {
    chunk_bytes: usize,
    written: Vec<Written>,
    repeat_extended: bool,
}

impl Default for ChunkWriter {
    fn default() -> Self {
        Self { chunk_bytes: INITIAL_CHUNK_BYTES, written: Vec::with_capacity(4), repeat_extended: true }
    }
}

impl ChunkWriter {
    /// Returns the chunk size in use, in bytes.
    pub fn chunk_bytes(&self) -> usize {
        self.chunk_bytes
    }

    /// Chooses the dialect of type 3 chunks after an extended timestamp; repeated (5.3.1.3) by default.
    pub fn set_repeat_extended(&mut self, repeat: bool) {
        self.repeat_extended = repeat;
    }

    /// Announces a chunk size (clipped to 1..=0x7fffffff) and uses it from then on.
    pub fn set_chunk_bytes(&mut self, bytes: u32, out: &mut BytesMut) {
        let bytes = bytes.clamp(1, MAX_CHUNK_BYTES);
        let message = Message {
            chunk_stream: 2,
            kind: MessageType::SET_CHUNK_SIZE,
            stream: 0,
            timestamp: 0,
            payload: Bytes::copy_from_slice(&bytes.to_be_bytes()).into(),
        };
        self.write_chunks(&message, out);
        self.chunk_bytes = bytes as usize;
    }

    /// Appends one message as chunks.
    pub fn write(&mut self, message: &Message, out: &mut BytesMut) -> Result<(), ErrorKind> {
        check_length(message)?;
        self.write_chunks(message, out);
        Ok(())
    }

    /// Appends several messages with their chunks interleaved round-robin. Each needs its own chunk stream.
    pub fn write_interleaved(&mut self, messages: &[Message], out: &mut BytesMut) -> Result<(), ErrorKind> {
        for message in messages {
            check_length(message)?;
        }
        let mut cuts: Vec<_> = messages.iter().map(|m| (m, m.payload.reader(), None)).collect();
        let mut open = true;
        while std::mem::take(&mut open) {
            for (message, rest, field) in &mut cuts {
                match *field {
                    Some(_) if !rest.has_remaining() => continue,
                    Some(field) => self.continuation(message, field, out),
                    None => *field = Some(self.first_header(message, out)),
                }
                self.chunk(rest, out);
                open |= rest.has_remaining();
            }
        }
        Ok(())
    }

    fn write_chunks(&mut self, message: &Message, out: &mut BytesMut) {
        let chunks = message.payload.len().div_ceil(self.chunk_bytes);
        out.reserve(message.payload.len() + MAX_HEADER_BYTES + chunks * 7);
        let field = self.first_header(message, out);
        let mut rest = message.payload.reader();
        self.chunk(&mut rest, out);
        while rest.has_remaining() {
            self.continuation(message, field, out);
            self.chunk(&mut rest, out);
        }
    }

    /// Appends the payload of one chunk.
    fn chunk(&self, rest: &mut Reader<'_>, out: &mut BytesMut) {
        out.put(rest.take(self.chunk_bytes));
    }

    fn continuation(&self, message: &Message, field: u32, out: &mut BytesMut) {
        BasicHeader { format: 3, chunk_stream: message.chunk_stream }.write(out);
        if field >= EXTENDED && self.repeat_extended {
            out.put_u32(field);
        }
    }

    /// Writes the header that opens a message; returns its timestamp field.
    fn first_header(&mut self, message: &Message, out: &mut BytesMut) -> u32 {
        let length = message.payload.len();
        let known = self.written.iter_mut().find(|w| w.chunk_stream == message.chunk_stream);
        let (format, timestamp) = match known.as_deref() {
            // Time never runs backwards in a delta.
            Some(w)
                if w.stream == message.stream && message.timestamp.wrapping_sub(w.timestamp) < 1 << 31 =>
            {
                let delta = message.timestamp.wrapping_sub(w.timestamp);
                let same = w.length == length && w.kind == message.kind;
                let format = match same {
                    true if w.delta == Some(delta) && delta < EXTENDED => 3,
                    true => 2,
                    false => 1,
                };
                (format, delta)
            }
            _ => (0, message.timestamp),
        };
        let next = Written {
            chunk_stream: message.chunk_stream,
            timestamp: message.timestamp,
            delta: (format > 0).then_some(timestamp),
            length,
            kind: message.kind,
            stream: message.stream,
        };
        match known {
            Some(w) => *w = next,
            None => self.written.push(next),
        }
        RawHeader {
            basic: BasicHeader { format, chunk_stream: message.chunk_stream },
            timestamp,
            length: length as u32,
            kind: message.kind.0,
            stream: message.stream,
            repeat_extended: self.repeat_extended,
        }
        .write(out);
        timestamp
    }
}

fn check_length(message: &Message) -> Result<(), ErrorKind> {
    let length = message.payload.len();
    if length > MAX_MESSAGE_FIELD {
        return Err(ErrorKind::MessageTooLarge { length, limit: MAX_MESSAGE_FIELD });
    }
    Ok(())
}
