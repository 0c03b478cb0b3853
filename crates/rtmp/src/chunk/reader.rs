//! Reassembles messages from the chunks of interleaved chunk streams.

use super::header::BasicHeader;
use super::stream::{ChunkStream, Parsed, parse_fields};
use super::{INITIAL_CHUNK_BYTES, MAX_CHUNK_BYTES};
use crate::error::{ErrorKind, Location, RtmpError};
use crate::limits::Limits;
use crate::message::{Message, MessageType, control_u32};
use bytes::{Buf, BytesMut};

/// The peer's dialect of extended timestamps in type 3 chunks: 5.3.1.3 repeats them, several encoders do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtendedTimestamps {
    /// No type 3 chunk has followed an extended timestamp yet.
    Unknown,
    /// The extended timestamp is repeated, as specified.
    Repeated,
    /// The extended timestamp is omitted.
    Omitted,
}

/// A chunk whose header has been read and whose payload has not.
#[derive(Debug, Clone, Copy)]
struct Current {
    index: usize,
    remaining: usize,
    /// The payload becomes slices of the read buffer rather than a copy.
    slice: bool,
}

/// Reads messages from a buffer that the caller fills; owns no bytes but those of unfinished messages.
///
/// Set Chunk Size and Abort are applied here, and returned like every message.
#[derive(Debug)]
pub struct ChunkReader {
    chunk_bytes: usize,
    streams: Vec<ChunkStream>,
    current: Option<Current>,
    buffered: usize,
    offset: u64,
    dialect: ExtendedTimestamps,
    abandoned: u64,
    chunks: u64,
    media_limit: usize,
    limits: Limits,
}

impl ChunkReader {
    /// Creates a reader at the first chunk of a connection, `offset` bytes into it (for the location of errors).
    pub fn new(limits: Limits, offset: u64) -> Self {
        Self {
            chunk_bytes: INITIAL_CHUNK_BYTES,
            streams: Vec::with_capacity(4),
            current: None,
            buffered: 0,
            offset,
            dialect: ExtendedTimestamps::Unknown,
            abandoned: 0,
            chunks: 0,
            media_limit: limits.message_bytes,
            limits,
        }
    }

    /// Sets the largest media message in bytes from now on.
    pub fn set_media_limit(&mut self, bytes: usize) {
        self.media_limit = bytes;
    }

    /// Returns the bytes of the connection consumed so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns the peer's chunk size in bytes.
    pub fn chunk_bytes(&self) -> usize {
        self.chunk_bytes
    }

    /// Returns the peer's dialect of extended timestamps as far as it is known.
    pub fn extended_timestamps(&self) -> ExtendedTimestamps {
        self.dialect
    }

    /// Returns the bytes of memory that unfinished messages hold.
    pub fn buffered(&self) -> usize {
        self.buffered
    }

    /// Returns the number of messages abandoned because a new header or an Abort cut them short.
    pub fn abandoned(&self) -> u64 {
        self.abandoned
    }

    /// Returns the number of chunks begun.
    pub fn chunks(&self) -> u64 {
        self.chunks
    }

    /// Takes the next whole message out of `buf`; `None` if more bytes are needed.
    pub fn read(&mut self, buf: &mut BytesMut) -> Result<Option<Message>, RtmpError> {
        loop {
            let current = match self.current {
                Some(current) => current,
                None => match self.read_header(buf)? {
                    Some(current) => current,
                    None => return Ok(None),
                },
            };
            if let Some(message) = self.read_payload(current, buf)? {
                self.apply_control(&message)?;
                return Ok(Some(message));
            }
            if self.current.is_some() {
                return Ok(None);
            }
        }
    }

    fn fail(&self, index: Option<usize>, chunk_stream: u32, kind: ErrorKind) -> RtmpError {
        let message_type = index.map(|i| self.streams[i].kind.0);
        RtmpError {
            at: Location { offset: self.offset, chunk_stream: Some(chunk_stream), message_type },
            kind,
        }
    }

    fn read_header(&mut self, buf: &mut BytesMut) -> Result<Option<Current>, RtmpError> {
        let Some(parsed) = self.parse_header(buf)? else { return Ok(None) };
        let kind = parsed.kind;
        let limit = if kind.is_media() { self.media_limit } else { self.limits.control_bytes };
        if parsed.length > limit {
            let at = Location {
                offset: self.offset,
                chunk_stream: Some(parsed.basic.chunk_stream),
                message_type: Some(kind.0),
            };
            return Err(RtmpError { at, kind: ErrorKind::MessageTooLarge { length: parsed.length, limit } });
        }
        let index = match parsed.index {
            Some(index) => index,
            None => self.add_stream(parsed.basic.chunk_stream)?,
        };
        buf.advance(parsed.size);
        self.offset += parsed.size as u64;
        self.chunks += 1;
        let current = self.apply_header(index, &parsed);
        self.current = Some(current);
        Ok(Some(current))
    }

    fn add_stream(&mut self, id: u32) -> Result<usize, RtmpError> {
        if self.streams.len() >= self.limits.chunk_streams {
            let kind = ErrorKind::TooManyChunkStreams { limit: self.limits.chunk_streams };
            return Err(self.fail(None, id, kind));
        }
        self.streams.push(ChunkStream::new(id));
        Ok(self.streams.len() - 1)
    }

    /// Reads a header; changes nothing but the dialect.
    fn parse_header(&mut self, buf: &[u8]) -> Result<Option<Parsed>, RtmpError> {
        let Some((basic, start)) = BasicHeader::parse(buf) else { return Ok(None) };
        // A connection has a handful of chunk streams: a scan beats a map.
        let index = self.streams.iter().position(|s| s.id == basic.chunk_stream);
        let mut parsed = match (index, basic.format) {
            (Some(index), _) => {
                let s = &self.streams[index];
                let (length, kind, stream) = (s.length, s.kind, s.stream);
                Parsed {
                    basic,
                    size: start,
                    index: Some(index),
                    field: s.delta,
                    extended: s.extended,
                    length,
                    kind,
                    stream,
                }
            }
            // librtmp opens chunk stream 2 with a type 1 header.
            (None, 0 | 1) => {
                let kind = MessageType(0);
                Parsed { basic, size: start, index, field: 0, extended: None, length: 0, kind, stream: 0 }
            }
            (None, format) => {
                return Err(self.fail(None, basic.chunk_stream, ErrorKind::NoPreviousHeader { format }));
            }
        };
        if basic.format == 3 {
            let Some(size) = self.repeated_extended(buf, &parsed) else { return Ok(None) };
            parsed.size += size;
            return Ok(Some(parsed));
        }
        Ok(parse_fields(buf, start, parsed))
    }

    /// Returns the length of the extended timestamp after a type 3 header, 0 or 4; `None` if bytes are missing.
    fn repeated_extended(&mut self, buf: &[u8], parsed: &Parsed) -> Option<usize> {
        let (Some(extended), Some(index)) = (parsed.extended, parsed.index) else { return Some(0) };
        let size = match self.dialect {
            ExtendedTimestamps::Omitted => 0,
            ExtendedTimestamps::Repeated => 4,
            ExtendedTimestamps::Unknown => {
                let rest = buf.get(parsed.size..).unwrap_or_default();
                let next = &rest[..rest.len().min(4)];
                // Some senders repeat the absolute timestamp where the header carried a delta.
                let matches = [extended, self.streams[index].timestamp]
                    .iter()
                    .any(|candidate| candidate.to_be_bytes().starts_with(next));
                match (matches, next.len()) {
                    (true, 4) => {
                        self.dialect = ExtendedTimestamps::Repeated;
                        4
                    }
                    (true, _) => return None,
                    (false, _) => {
                        self.dialect = ExtendedTimestamps::Omitted;
                        0
                    }
                }
            }
        };
        (buf.len() >= parsed.size + size).then_some(size)
    }

    fn apply_header(&mut self, index: usize, parsed: &Parsed) -> Current {
        let stream = &mut self.streams[index];
        let format = parsed.basic.format;
        let continues = format == 3 && stream.partial.is_some();
        if !continues {
            if let Some(partial) = stream.partial.take() {
                // A new header in mid-message: the sender abandoned the old message.
                self.buffered -= partial.memory();
                self.abandoned += 1;
            }
            stream.start_message(parsed);
        }
        let received = stream.partial.get_or_insert_default().received();
        let remaining = (stream.length - received).min(self.chunk_bytes);
        let smallest = stream.length.min(self.chunk_bytes);
        let slice = stream.kind.is_media() && smallest > self.limits.copy_below;
        Current { index, remaining, slice }
    }

    fn read_payload(&mut self, current: Current, buf: &mut BytesMut) -> Result<Option<Message>, RtmpError> {
        let count = buf.len().min(current.remaining);
        if count == 0 && current.remaining > 0 {
            return Ok(None);
        }
        let stream = &mut self.streams[current.index];
        let Some(partial) = stream.partial.as_mut() else { return Ok(None) };
        let before = partial.memory();
        if current.slice {
            partial.slice(buf.split_to(count), self.offset);
        } else {
            partial.copy(&buf[..count], stream.length - partial.received());
            buf.advance(count);
        }
        self.offset += count as u64;
        self.buffered += partial.memory() - before;
        if self.buffered > self.limits.buffered_bytes {
            let id = stream.id;
            let kind = ErrorKind::BufferLimit { limit: self.limits.buffered_bytes };
            return Err(self.fail(Some(current.index), id, kind));
        }
        let remaining = current.remaining - count;
        self.current = (remaining > 0).then_some(Current { remaining, ..current });
        if partial.received() < stream.length {
            return Ok(None);
        }
        self.buffered -= partial.memory();
        let payload = stream.partial.take().unwrap_or_default().finish();
        Ok(Some(stream.message(payload)))
    }

    fn apply_control(&mut self, message: &Message) -> Result<(), RtmpError> {
        let at = Location {
            offset: self.offset,
            chunk_stream: Some(message.chunk_stream),
            message_type: Some(message.kind.0),
        };
        match message.kind {
            MessageType::SET_CHUNK_SIZE => {
                let size =
                    control_u32(&message.payload, "set chunk size").map_err(|kind| RtmpError { at, kind })?;
                if size == 0 || size > MAX_CHUNK_BYTES {
                    return Err(RtmpError { at, kind: ErrorKind::InvalidChunkSize(size) });
                }
                self.chunk_bytes = size as usize;
            }
            MessageType::ABORT => {
                let id = control_u32(&message.payload, "abort").map_err(|kind| RtmpError { at, kind })?;
                if let Some(stream) = self.streams.iter_mut().find(|s| s.id == id)
                    && let Some(partial) = stream.partial.take()
                {
                    self.buffered -= partial.memory();
                    self.abandoned += 1;
                }
            }
            _ => {}
        }
        Ok(())
    }
}
