//! The interface between a session and the protocol its publisher speaks.
//!
//! A protocol implements [`Source`] and yields [`SourceEvent`]s; it knows nothing of claims, segments or the bus. The
//! session claims the credential, repairs timestamps, holds the limits and builds messages; it knows nothing of the
//! protocol. What differs between protocols is part of the types:
//!
//! | | RTMP | SRT, RTSP | WHIP |
//! |---|---|---|---|
//! | credential | stream name | stream id; the order to pull | bearer token |
//! | timescale | 1 kHz | 90 kHz; the audio's sampling rate | 90 kHz; 48 kHz |
//! | keyframe request | none | none | RTCP picture loss indication |

use std::fmt;
use std::net::IpAddr;

use millrace_buf::ByteChain;
use millrace_media::frame::{SyncKind, TrackConfig, TrackKind};
use millrace_media::repair::RepairCounts;
use millrace_media::time::Timescale;
use millrace_runtime::Secret;
use millrace_wire::close_reason::CloseReason;
use millrace_wire::ids::{KeyHash, StreamKey};

/// The stream key that a publisher presented. Its text is never printed and never leaves the node.
#[derive(Debug, Clone)]
pub struct Credential(Secret<String>);

impl Credential {
    /// Wraps the text that the protocol carries in place of a stream key.
    pub fn stream_key(text: impl Into<String>) -> Self {
        Self(Secret::new(text.into()))
    }

    /// Returns the hash that control knows the key by; `None` if the text is no stream key.
    pub(crate) fn key_hash(&self, secret: &[u8]) -> Option<KeyHash> {
        let key: StreamKey = self.text().parse().ok()?;
        Some(KeyHash::of(secret, &key))
    }

    /// Returns the hash of a key that another service may have handed out, in any form; `None` if the text can be no key.
    pub(crate) fn any_key_hash(&self, secret: &[u8]) -> Option<KeyHash> {
        KeyHash::of_text(secret, self.text())
    }

    /// Returns the plain key. A key pasted with a space or a line end is still the key.
    pub(crate) fn text(&self) -> &str {
        self.0.expose().trim()
    }
}

/// The identity of a publish, as the claim and the log lines need it.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The stream key, as the publisher presented it.
    pub credential: Credential,
    /// The peer's IP address, without its port.
    pub address: IpAddr,
    /// The protocol's name, such as `rtmps`.
    pub protocol: &'static str,
    /// True if a service outside the cluster may be asked about the key, where one is configured.
    pub may_ask_outside: bool,
}

/// The position of a media message in its publish: enough to find it in a capture of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessagePosition {
    /// The track that the message belongs to.
    pub track: TrackKind,
    /// The message's number within the publish, from 1, both tracks counted together.
    pub number: u64,
    /// Its decoding time in ticks of `timescale`, unwrapped.
    pub time: i64,
    /// The ticks per second of this track's timestamps.
    pub timescale: Timescale,
}

impl MessagePosition {
    /// Converts ticks of the message's timescale to 90 kHz, rounding to nearest.
    pub(crate) fn video_ticks(&self, ticks: i64) -> i64 {
        let (from, to) = (self.timescale.ticks_per_second(), Timescale::VIDEO.ticks_per_second());
        // RTMP's milliseconds and 90 kHz itself divide evenly, and this runs for every frame.
        if to.is_multiple_of(from) {
            ticks.saturating_mul(i64::from(to / from))
        } else {
            self.timescale.convert(ticks, Timescale::VIDEO)
        }
    }
}

impl fmt::Display for MessagePosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { track, number, time, timescale } = self;
        write!(f, "{track} message {number} at {:.3} s", timescale.seconds(*time))
    }
}

/// One coded frame in its codec's stream format (H.264: NAL units with 4-byte length prefixes; AAC: a raw data block).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFrame {
    /// The position of the message that carried the frame; its time is the decoding time.
    pub position: MessagePosition,
    /// Presentation time in ticks of the position's timescale.
    pub presentation_time: i64,
    /// The way in which a decoder can start at the frame.
    pub sync: SyncKind,
    /// The coded bytes.
    pub data: ByteChain,
}

/// Properties that a publisher declares of its stream. Hints: every value may be missing or untrue.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SourceMetadata {
    /// Declared picture width in pixels.
    pub width: Option<u32>,
    /// Declared picture height in pixels.
    pub height: Option<u32>,
    /// Declared frame rate in pictures per second.
    pub frame_rate: Option<f64>,
    /// Declared video bitrate in bits per second.
    pub video_bitrate: Option<u64>,
    /// Declared audio bitrate in bits per second.
    pub audio_bitrate: Option<u64>,
    /// The AAC track that the stream will have.
    pub aac: Option<DeclaredAudio>,
}

/// The format of audio that is declared before its configuration arrives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeclaredAudio {
    /// Declared sampling rate in samples per second.
    pub sample_rate: Option<u32>,
    /// Declared number of audio channels.
    pub channels: Option<u8>,
}

/// The end of a publish: the stable reason, and a sentence for the encoder's user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishEnd {
    /// The reason in metrics, in the API and in the claim's release.
    pub reason: CloseReason,
    /// The sentence that the encoder shows; never names the key.
    pub text: String,
}

impl From<CloseReason> for PublishEnd {
    fn from(reason: CloseReason) -> Self {
        Self { reason, text: reason.text().to_owned() }
    }
}

impl fmt::Display for PublishEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.text)
    }
}

/// One step of a publish, in the order the publisher sent it.
#[derive(Debug, Clone, PartialEq)]
pub enum SourceEvent {
    /// A codec configuration; the frames of its track that follow need it. Repeating one changes nothing.
    Config {
        /// The position of the message that carried it.
        position: MessagePosition,
        /// The configuration of one track.
        config: TrackConfig,
    },
    /// A coded frame of either track.
    Frame(SourceFrame),
    /// Declared properties of the stream; later ones replace earlier ones.
    Metadata(SourceMetadata),
    /// The publish ended at the source. Nothing follows.
    End(PublishEnd),
}

/// A media message that cannot be used, and its position.
#[derive(Debug, thiserror::Error)]
#[error("{position}: {fault}")]
pub struct MediaError {
    /// The position of the message.
    pub position: MessagePosition,
    /// The fault found in it.
    pub fault: MediaFault,
}

/// The fault of a media message.
#[derive(Debug, thiserror::Error)]
pub enum MediaFault {
    /// A codec that this service does not carry; the text names it and the setting to change.
    #[error("{0}")]
    CodecNotAccepted(String),
    /// A picture larger than the stream's limit.
    #[error("the picture is {width}x{height}, at most {max_width}x{max_height} is allowed")]
    PictureTooLarge {
        /// Width of the picture in pixels.
        width: u32,
        /// Height of the picture in pixels.
        height: u32,
        /// Largest accepted width in pixels.
        max_width: u32,
        /// Largest accepted height in pixels.
        max_height: u32,
    },
    /// Bytes that are not what the protocol or the codec prescribes.
    #[error(transparent)]
    Malformed(Box<dyn std::error::Error + Send + Sync>),
}

impl MediaFault {
    /// Wraps the error of a parser of the protocol or the codec.
    pub fn malformed(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Malformed(Box::new(error))
    }

    /// Returns the reason that this fault alone ends the publish with: no later message can make it good. `None` if
    /// the next message may be fine.
    pub(crate) fn ends_publish(&self) -> Option<CloseReason> {
        match self {
            Self::CodecNotAccepted(_) => Some(CloseReason::CodecNotAccepted),
            Self::PictureTooLarge { .. } => Some(CloseReason::PictureTooLarge),
            Self::Malformed(_) => None,
        }
    }
}

/// One publish of any protocol, from its request to its end, as the session drives it.
///
/// The session calls [`identity`](Self::identity) once, then either [`close`](Self::close) (the publish is refused), or
/// [`accept`](Self::accept) followed by [`next_event`](Self::next_event) until it returns `None` and
/// [`receive`](Self::receive), in turns, and [`close`](Self::close) at the end.
pub trait Source: Send {
    /// Returns the identity that the publisher presented.
    fn identity(&self) -> Identity;

    /// Accepts the publish: media may follow. An error ends it.
    fn accept(&mut self) -> Result<(), PublishEnd>;

    /// Waits until more has arrived, sends pending answers, and returns the bytes received, which count towards the
    /// bitrate limit. Cancel safe. An error is no return value but a [`SourceEvent::End`].
    fn receive(&mut self) -> impl Future<Output = usize> + Send;

    /// Returns the next event of what has arrived. An error costs that message alone.
    fn next_event(&mut self) -> Option<Result<SourceEvent, MediaError>>;

    /// Returns the counts of everything that the source has changed or left out since the publish began.
    fn repairs(&self) -> RepairCounts {
        RepairCounts::new()
    }

    /// Asks the encoder for a keyframe; returns false if the protocol has no way to.
    fn request_keyframe(&mut self) -> bool {
        false
    }

    /// Informs the peer how its publish ended. Called exactly once, as the last call, after the media have ended.
    fn close(&mut self, end: &PublishEnd) -> impl Future<Output = ()> + Send;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credential_hashes_a_stream_key_and_nothing_else() {
        let key = "000102030405060708090a0b0c0d0e0f";
        let hash = Credential::stream_key(key).key_hash(b"s").unwrap();
        assert_eq!(Credential::stream_key(format!(" {key}\n")).key_hash(b"s"), Some(hash));
        assert_ne!(Credential::stream_key(key).key_hash(b"t"), Some(hash));
        for bad in ["", "stream", "000102030405060708090A0B0C0D0E0F", "000102030405060708090a0b0c0d0e0f0"] {
            assert_eq!(Credential::stream_key(bad).key_hash(b"s"), None, "{bad}");
        }
    }

    #[test]
    fn credential_never_prints_the_key() {
        let identity = Identity {
            credential: Credential::stream_key("SECRET"),
            address: IpAddr::from([127, 0, 0, 1]),
            protocol: "rtmp",
            may_ask_outside: true,
        };
        assert!(!format!("{identity:?}").contains("SECRET"));
    }

    #[test]
    fn message_position_converts_its_ticks_to_90_khz() {
        let position =
            |timescale| MessagePosition { track: TrackKind::Audio, number: 7, time: 500, timescale };
        assert_eq!(position(Timescale::MILLIS).video_ticks(-40), -3_600);
        assert_eq!(position(Timescale::VIDEO).video_ticks(1), 1);
        assert_eq!(position(Timescale::of_rate(44_100)).video_ticks(44_100), 90_000);
        assert_eq!(position(Timescale::MILLIS).to_string(), "audio message 7 at 0.500 s");
    }
}
