//! The reasons for which a publisher is refused or disconnected: stable codes, and the RTMP status that carries them.

use serde::{Deserialize, Serialize};

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $status:expr, $text:literal;)*) => {
        /// A close-reason code. Codes are stable: they appear in the API, events and metrics.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum CloseReason {
            $($(#[$doc])* $name,)*
        }
        impl CloseReason {
            /// All reasons, in the order of their declaration.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
            /// Returns the stable code of the reason.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }
            /// Returns the `code` of the RTMP status that the publisher receives; `None` if its connection is closed without a status.
            pub const fn rtmp_status(self) -> Option<&'static str> {
                match self { $(Self::$name => $status,)* }
            }
            /// Returns one sentence for the publisher, which never names the key.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

reasons! {
    /// The key is not known.
    UnknownKey = "unknown_key", Some("NetStream.Publish.BadName"), "The stream key is not known.";
    /// The key was rotated or its stream deleted.
    RevokedKey = "revoked_key", Some("NetStream.Publish.BadName"), "The stream key has been revoked.";
    /// The key's time is over.
    ExpiredKey = "expired_key", Some("NetStream.Publish.BadName"), "The stream key has expired.";
    /// The service outside the cluster that checks keys says that the key or its stream is not active.
    InactiveKey = "inactive_key", Some("NetStream.Publish.BadName"), "The stream key is not active.";
    /// Another publisher is live and the stream's setting is to refuse.
    AlreadyLive = "already_live", Some("NetStream.Publish.BadName"), "The stream already has a publisher.";
    /// A publisher with a key of higher priority is live.
    HigherPriorityLive = "higher_priority_live", Some("NetStream.Failed"), "A publisher with a stream key of higher priority is live; try again when it has left.";
    /// The last broadcast's playlists have not ended yet, so the next broadcast cannot begin.
    StillEnding = "still_ending", Some("NetStream.Failed"), "The last broadcast is still ending; try again in a few seconds.";
    /// The stream was stopped, cancelled or archived.
    StreamEnded = "stream_ended", Some("NetStream.Publish.BadName"), "The stream has ended.";
    /// The scheduled time is too far away.
    TooEarly = "too_early", Some("NetStream.Publish.BadName"), "The stream does not start yet.";
    /// The application in the publisher's URL is not `live`.
    WrongApp = "wrong_app", Some("NetConnection.Connect.InvalidApp"), "Publish to the application \"live\".";
    /// The node takes no new streams.
    Draining = "draining", Some("NetStream.Failed"), "The server is restarting; connect again.";
    /// A limit of the node or of the address is reached: the connection is closed before its first byte is read.
    TooManyConnections = "too_many_connections", None, "Too many connections.";
    /// Control did not answer within the time limit.
    Unavailable = "unavailable", Some("NetStream.Failed"), "The service is unavailable; try again.";
    /// The service that checks keys does not accept connections.
    KeyCheckUnreachable = "key_check_unreachable", Some("NetStream.Failed"), "The service that checks stream keys cannot be reached; try again.";
    /// The service that checks keys did not answer within the time limit.
    KeyCheckSlow = "key_check_slow", Some("NetStream.Failed"), "The service that checks stream keys did not answer in time; try again.";
    /// The service that checks keys failed, or its answer cannot be understood.
    KeyCheckFailed = "key_check_failed", Some("NetStream.Failed"), "The service that checks stream keys gave no usable answer; try again.";
    /// A newer publisher with the same key took over.
    TakenOver = "taken_over", Some("NetStream.Publish.BadName"), "Another publisher took over.";
    /// An operator stopped the stream over the API.
    Stopped = "stopped", Some("NetStream.Publish.Denied"), "The stream was stopped.";
    /// An operator ended this publish; the key stays valid.
    Kicked = "kicked", Some("NetStream.Publish.Denied"), "An operator ended the publish.";
    /// The key was rotated while live.
    KeyRotated = "key_rotated", Some("NetStream.Publish.BadName"), "The stream key has been replaced.";
    /// The publisher left by itself.
    PublisherLeft = "publisher_left", Some("NetStream.Unpublish.Success"), "Unpublished.";
    /// The connection broke before the publisher ended the stream.
    ConnectionLost = "connection_lost", None, "The connection was lost.";
    /// No data within the deadline.
    Idle = "idle", Some("NetStream.Publish.Denied"), "No media arrived in time.";
    /// Handshake or publish did not happen in time.
    Timeout = "timeout", None, "The client was too slow.";
    /// Bytes that break the protocol.
    ProtocolError = "protocol_error", Some("NetStream.Publish.Denied"), "The client broke the protocol.";
    /// A codec that this service does not carry: only H.264 video and AAC audio are accepted.
    CodecNotAccepted = "codec_not_accepted", Some("NetStream.Publish.Denied"), "The codec is not accepted: send H.264 video and AAC audio.";
    /// A picture larger than the livestream allows.
    PictureTooLarge = "picture_too_large", Some("NetStream.Publish.Denied"), "The picture is larger than the livestream allows: choose a smaller output resolution.";
    /// No keyframe within the longest interval.
    KeyframeInterval = "keyframe_interval", Some("NetStream.Publish.Denied"), "Keyframes are too far apart: set the encoder's keyframe interval to 2 s.";
    /// Too many media messages in a row that break the container's or the codec's format. The alias is the code under which other versions of an ingest node send it.
    #[serde(alias = "unsupported_codec")]
    UnreadableMedia = "unreadable_media", Some("NetStream.Publish.Denied"), "The media cannot be read: the encoder's output is damaged.";
    /// Media arrived for the longest time allowed, and no frame of them could be used.
    NoUsableMedia = "no_usable_media", Some("NetStream.Publish.Denied"), "No usable media arrived in time.";
    /// The codec configuration changes more often than a player can follow.
    ConfigurationChanges = "configuration_changes", Some("NetStream.Publish.Denied"), "The encoder changes its codec configuration too often.";
    /// More bits per second than allowed.
    BitrateExceeded = "bitrate_exceeded", Some("NetStream.Publish.Denied"), "The bitrate limit is exceeded.";
    /// More messages per second than allowed.
    MessageRateExceeded = "message_rate_exceeded", Some("NetStream.Publish.Denied"), "The encoder sends more messages per second than allowed.";
    /// The peer asked to play; RTMP is for publishers.
    PlayRefused = "play_refused", Some("NetStream.Play.StreamNotFound"), "This port takes publishers; viewers use HLS.";
    /// A fault of the server.
    Internal = "internal", Some("NetStream.Failed"), "The server failed; try again.";
}

impl CloseReason {
    /// True if trying again with the same key now cannot succeed.
    pub const fn is_final(self) -> bool {
        !matches!(
            self,
            Self::Draining
                | Self::TooManyConnections
                | Self::Unavailable
                | Self::KeyCheckUnreachable
                | Self::KeyCheckSlow
                | Self::KeyCheckFailed
                | Self::PublisherLeft
                | Self::ConnectionLost
                | Self::Idle
                | Self::Timeout
                | Self::Internal
                | Self::Kicked
                | Self::HigherPriorityLive
                | Self::StillEnding
        )
    }
    /// True if the refusal counts towards the growing delay of its address, because the address may be guessing keys.
    pub const fn is_guess(self) -> bool {
        matches!(self, Self::UnknownKey | Self::RevokedKey | Self::ExpiredKey | Self::InactiveKey)
    }
}

impl std::fmt::Display for CloseReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_serde_form_is_the_code() {
        for r in CloseReason::ALL {
            assert_eq!(serde_json::to_string(r).unwrap(), format!("\"{}\"", r.code()));
        }
    }
}
