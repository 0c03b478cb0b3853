//! RTMP messages (RTMP 1.0, 5.4, 6.1 and 7.1) as they leave the chunk layer.

use crate::error::ErrorKind;
use bytes::{Buf, Bytes, BytesMut};
use millrace_buf::ByteChain;
use std::fmt;

/// Message type id (RTMP 5.4, 7.1). Unknown ids are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageType(pub u8);

impl MessageType {
    /// Id of a message of type "Set Chunk Size" (RTMP 5.4.1).
    pub const SET_CHUNK_SIZE: Self = Self(1);
    /// Id of a message of type "Abort" (RTMP 5.4.2).
    pub const ABORT: Self = Self(2);
    /// Id of a message of type "Acknowledgement" (RTMP 5.4.3).
    pub const ACKNOWLEDGEMENT: Self = Self(3);
    /// Id of a message of type "User Control" (RTMP 6.2).
    pub const USER_CONTROL: Self = Self(4);
    /// Id of a message of type "Window Acknowledgement Size" (RTMP 5.4.4).
    pub const WINDOW_ACK_SIZE: Self = Self(5);
    /// Id of a message of type "Set Peer Bandwidth" (RTMP 5.4.5).
    pub const SET_PEER_BANDWIDTH: Self = Self(6);
    /// Id of a message of type "Audio" (RTMP 7.1.4).
    pub const AUDIO: Self = Self(8);
    /// Id of a message of type "Video" (RTMP 7.1.5).
    pub const VIDEO: Self = Self(9);
    /// Id of a message of type "Data, AMF3" (RTMP 7.1.2).
    pub const DATA_AMF3: Self = Self(15);
    /// Id of a message of type "Command, AMF3" (RTMP 7.1.1).
    pub const COMMAND_AMF3: Self = Self(17);
    /// Id of a message of type "Data, AMF0" (RTMP 7.1.2).
    pub const DATA_AMF0: Self = Self(18);
    /// Id of a message of type "Command, AMF0" (RTMP 7.1.1).
    pub const COMMAND_AMF0: Self = Self(20);
    /// Id of a message of type "Aggregate" (RTMP 7.1.6).
    pub const AGGREGATE: Self = Self(22);

    /// Returns true for audio, video and aggregates, the only messages that may be large.
    pub fn is_media(self) -> bool {
        matches!(self, Self::AUDIO | Self::VIDEO | Self::AGGREGATE)
    }
}

/// One whole message (RTMP 6.1).
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Chunk stream that carries the message, 2..=65599.
    pub chunk_stream: u32,
    /// Message type id (RTMP 6.1.1).
    pub kind: MessageType,
    /// Message stream id (little-endian on the wire; 0 is the connection itself).
    pub stream: u32,
    /// Timestamp in milliseconds, wrapping at 2^32.
    pub timestamp: u32,
    /// The message body, in one slice unless [`MessageType::is_media`].
    pub payload: ByteChain,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The payload may hold a stream key.
        f.debug_struct("Message")
            .field("chunk_stream", &self.chunk_stream)
            .field("kind", &self.kind.0)
            .field("stream", &self.stream)
            .field("timestamp", &self.timestamp)
            .field("payload_bytes", &self.payload.len())
            .finish()
    }
}

/// User Control events (RTMP 7.1.7) that matter to a server or a publisher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserControl {
    /// A message stream became usable.
    StreamBegin(u32),
    /// Ping with the sender's timestamp.
    PingRequest(u32),
    /// Answer to a ping, carrying its timestamp.
    PingResponse(u32),
    /// Any other event; ignored (SWF verification, buffer events).
    Other(u16),
}

impl UserControl {
    /// Decodes a User Control payload.
    pub fn decode(payload: &ByteChain) -> Result<Self, ErrorKind> {
        let malformed = || ErrorKind::Malformed("user control");
        let mut rest = payload.reader();
        let event = rest.try_get_u16().map_err(|_| malformed())?;
        let mut value = || rest.try_get_u32().map_err(|_| malformed());
        Ok(match event {
            0 => Self::StreamBegin(value()?),
            6 => Self::PingRequest(value()?),
            7 => Self::PingResponse(value()?),
            other => Self::Other(other),
        })
    }

    /// Encodes the event as a message body.
    pub fn encode(self) -> Bytes {
        let (event, value) = match self {
            Self::StreamBegin(v) => (0u16, Some(v)),
            Self::PingRequest(v) => (6, Some(v)),
            Self::PingResponse(v) => (7, Some(v)),
            Self::Other(event) => (event, None),
        };
        let mut out = BytesMut::with_capacity(6);
        out.extend_from_slice(&event.to_be_bytes());
        if let Some(value) = value {
            out.extend_from_slice(&value.to_be_bytes());
        }
        out.freeze()
    }
}

/// Reads the 32-bit big-endian number that is the whole body of most control messages.
pub(crate) fn control_u32(payload: &ByteChain, what: &'static str) -> Result<u32, ErrorKind> {
    payload.first_chunk().map(u32::from_be_bytes).ok_or(ErrorKind::Malformed(what))
}
