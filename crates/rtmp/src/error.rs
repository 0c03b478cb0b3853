//! Errors that locate the fault on the connection: enough to find the packet in a capture.

use crate::amf::AmfError;
use std::fmt;

/// The place on the connection where a fault was found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Location {
    /// Bytes of the connection consumed before the fault, handshake included.
    pub offset: u64,
    /// Chunk stream id, if a chunk was being read.
    pub chunk_stream: Option<u32>,
    /// Message type id, if it was known.
    pub message_type: Option<u8>,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}", self.offset)?;
        if let Some(csid) = self.chunk_stream {
            write!(f, ", chunk stream {csid}")?;
        }
        if let Some(kind) = self.message_type {
            write!(f, ", message type {kind}")?;
        }
        Ok(())
    }
}

/// A fault that ends the connection.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{kind} (at {at})")]
pub struct RtmpError {
    /// The place on the connection.
    pub at: Location,
    /// The fault found at that place.
    #[source]
    pub kind: ErrorKind,
}

/// The step of a session that took too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// From the start of the connection to the end of the handshake.
    Handshake,
    /// From the handshake to `publish`.
    Publish,
    /// From one media message to the next while publishing.
    Media,
    /// From a ping to any byte of the peer.
    Ping,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Handshake => "the handshake",
            Self::Publish => "a publish request",
            Self::Media => "media",
            Self::Ping => "an answer to pings",
        })
    }
}

/// The fault. Holds no text from the peer, so that a key cannot leak through an error.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The peer does not speak plain RTMP (version byte, or digest).
    #[error("handshake refused: {0}")]
    Handshake(&'static str),
    /// A compressed chunk header on a chunk stream that had no full one (RTMP 5.3.1.2).
    #[error("chunk header of type {format} on a chunk stream without a previous header")]
    NoPreviousHeader {
        /// Header type, 2 or 3.
        format: u8,
    },
    /// The message is larger than allowed.
    #[error("message of {length} bytes exceeds the limit of {limit}")]
    MessageTooLarge {
        /// Declared length of the message in bytes.
        length: usize,
        /// Largest accepted length in bytes.
        limit: usize,
    },
    /// More chunk streams than allowed.
    #[error("more than {limit} chunk streams")]
    TooManyChunkStreams {
        /// Largest accepted number of chunk streams.
        limit: usize,
    },
    /// More bytes of unfinished messages than allowed.
    #[error("unfinished messages hold more than {limit} bytes")]
    BufferLimit {
        /// Largest accepted sum in bytes.
        limit: usize,
    },
    /// Chunk size of zero, or with its top bit set (RTMP 5.4.1).
    #[error("chunk size {0} is not in 1..=0x7fffffff")]
    InvalidChunkSize(u32),
    /// A protocol control message of the wrong length.
    #[error("malformed {0} message")]
    Malformed(&'static str),
    /// AMF0 that cannot be decoded or exceeds its limits.
    #[error("AMF0: {0}")]
    Amf(#[from] AmfError),
    /// A command that is not allowed in this state.
    #[error("unexpected {0}")]
    Unexpected(&'static str),
    /// A count or size limit of the session.
    #[error("limit reached: {0}")]
    Limit(&'static str),
    /// More messages or chunks per second than allowed.
    #[error("more than {limit} {what} per second, averaged over ten seconds")]
    RateExceeded {
        /// `messages` or `chunks`.
        what: &'static str,
        /// Largest accepted number per second.
        limit: u32,
    },
    /// The peer did not complete a phase in time.
    #[error("timed out waiting for {0}")]
    TimedOut(Phase),
    /// The caller used a method that the session's state does not allow.
    #[error("not possible now: {0}")]
    Misuse(&'static str),
}

impl RtmpError {
    pub(crate) fn at_offset(offset: u64, kind: ErrorKind) -> Self {
        Self { at: Location { offset, ..Location::default() }, kind }
    }
}
