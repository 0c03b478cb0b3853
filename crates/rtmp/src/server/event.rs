//! The events of a server session.

use millrace_buf::ByteChain;

use super::info::{ConnectInfo, PublishRequest};
use crate::amf::{Properties, Value};

/// The reason for which the session has refused a peer by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The peer asked to play a stream.
    Play,
    /// The peer published without a stream key.
    NoKey,
}

/// An event of a server session, in the order the peer caused it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// `connect` (RTMP 7.2.1.1): answered with [`ServerSession::accept_connect`] or [`ServerSession::reject_connect`].
    ///
    /// [`ServerSession::accept_connect`]: super::ServerSession::accept_connect
    /// [`ServerSession::reject_connect`]: super::ServerSession::reject_connect
    ConnectRequested(ConnectInfo),
    /// `publish` (RTMP 7.2.2.6): answered with [`ServerSession::accept_publish`] or [`ServerSession::reject_publish`].
    ///
    /// [`ServerSession::accept_publish`]: super::ServerSession::accept_publish
    /// [`ServerSession::reject_publish`]: super::ServerSession::reject_publish
    PublishRequested(PublishRequest),
    /// A video message (RTMP 7.1.5).
    Video {
        /// The message's timestamp in milliseconds, wrapping at 2^32.
        timestamp: u32,
        /// An FLV VIDEODATA body, never empty.
        data: ByteChain,
    },
    /// An audio message (RTMP 7.1.4).
    Audio {
        /// The message's timestamp in milliseconds, wrapping at 2^32.
        timestamp: u32,
        /// An FLV AUDIODATA body, never empty.
        data: ByteChain,
    },
    /// `onMetaData`, or `@setDataFrame` with `onMetaData`.
    Metadata {
        /// The message's timestamp in milliseconds, wrapping at 2^32.
        timestamp: u32,
        /// The properties in the sender's order; may be empty.
        properties: Properties,
    },
    /// Any other data message (`onFI`, `onCaptionInfo`, `onTextData`, …).
    Data {
        /// The message's timestamp in milliseconds, wrapping at 2^32.
        timestamp: u32,
        /// The name at the message's start.
        name: String,
        /// The values after the name.
        values: Vec<Value>,
    },
    /// The session has refused the peer and queued the status. It is finished: nothing is read any more, and the
    /// connection closes once the status is sent.
    Refused(Refusal),
    /// The publisher ended its stream in order; it may publish again on this connection.
    Unpublished,
}
