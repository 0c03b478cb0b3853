//! Limits of the memory and time that a peer can cost, each with its reason.

use std::time::Duration;

/// Three packets of 1.5 KB; a satellite link needs two seconds for them, a scanner that sends nothing gets five.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
/// From the end of the handshake to `publish`: six small messages, each waiting for an answer.
pub const PUBLISH_DEADLINE: Duration = Duration::from_secs(10);
/// Longest time without one whole audio or video message while publishing. Encoders that pause (a phone
/// switching from Wi-Fi to mobile) come back within about ten seconds or reconnect.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(15);
/// Time between two pings (RTMP 7.1.7) to a publisher: as other servers do.
pub const PING_INTERVAL: Duration = Duration::from_secs(10);
/// Longest time without any byte of a peer that is pinged.
pub const PING_TIMEOUT: Duration = Duration::from_mins(1);
/// Largest media message: an intra frame of 2160p60 at 100 Mb/s stays below 4 MB.
pub const MAX_MESSAGE_BYTES: usize = 8 * 1024 * 1024;
/// Largest message before `publish` is accepted, and largest command or data message ever:
/// OBS's metadata is below 1 KB; text tracks and cue points stay far below this.
pub const MAX_CONTROL_BYTES: usize = 64 * 1024;
/// Chunk streams remembered per connection: encoders use two to six, the protocol allows 65 597.
pub const MAX_CHUNK_STREAMS: usize = 32;
/// All messages being assembled at once on one connection: one largest frame and everything beside it.
pub const MAX_BUFFERED_BYTES: usize = 12 * 1024 * 1024;
/// Messages, and messages in chunks, of up to this size are copied out of the read buffer: a 300-byte audio frame must not
/// keep its 64 KB alive, and a handle on a 128-byte chunk costs more than the copy.
pub const COPY_BELOW_BYTES: usize = 1024;
/// Nesting of AMF objects and arrays: metadata uses two levels, Enhanced RTMP's track maps four.
pub const MAX_AMF_DEPTH: usize = 12;
/// AMF values (properties, elements, nested ones included) in one message.
pub const MAX_AMF_VALUES: usize = 1024;
/// One AMF string: the longest seen in the field are stream names with signed query strings of 1–2 KB.
pub const MAX_AMF_STRING_BYTES: usize = 16 * 1024;
/// Commands while nothing is published: OBS sends 5, ffmpeg 5, FMLE 7.
pub const MAX_COMMANDS_BEFORE_PUBLISH: u32 = 32;
/// Bytes while nothing is published: limits media that are sent before the publish is accepted.
pub const MAX_BYTES_BEFORE_PUBLISH: u64 = 512 * 1024;
/// Messages per second. An encoder sends 60 pictures, 50 audio frames of each track and a few data messages; 120 pictures
/// and 400 Opus frames of 2.5 ms are the most that makes sense.
pub const MAX_MESSAGES_PER_SECOND: u32 = 2_000;
/// Chunks per second: 60 Mb/s in chunks of 128 bytes, which encoders that keep the protocol's first size send, are half
/// of it.
pub const MAX_CHUNKS_PER_SECOND: u32 = 120_000;
/// Time over which the rates of messages and chunks are averaged, as the bitrate is: what an encoder has sent during a
/// stall arrives at once, and rightly so.
pub const RATE_WINDOW: Duration = Duration::from_secs(10);
/// Message streams one connection may create: encoders create one, and a new one after each stop.
pub const MAX_MESSAGE_STREAMS: u32 = 16;
/// Bytes waiting to be written: a peer that sends pings and never reads its answers is closed here.
pub const MAX_PENDING_TRANSMIT: usize = 64 * 1024;
/// `app`, `tcUrl` and stream name, each.
pub const MAX_NAME_BYTES: usize = 2048;
/// Acknowledgement window that the server announces, and uses if the peer announces none (5 s of 4 Mb/s, FMS's own default).
pub const WINDOW_ACK_BYTES: u32 = 2_500_000;
/// Smallest acknowledgement window: with a smaller one the server would answer every message.
pub const MIN_WINDOW_ACK_BYTES: u32 = 16 * 1024;
/// Chunk size that the server announces. ffmpeg adopts the server's size for its own chunks, and in large chunks a frame
/// arrives in one slice.
pub const OUTBOUND_CHUNK_BYTES: u32 = 60_000;
/// Room reserved for one read while publishing: two frames of a 5 Mb/s stream.
pub const READ_BYTES: usize = 64 * 1024;
/// Room reserved for one read before a publish, so that a thousand silent connections cost 4 MB, not 64.
pub const READ_BYTES_BEFORE_PUBLISH: usize = 4 * 1024;
/// Below this much spare room a new buffer is taken; smaller makes more system calls, larger wastes the tail.
pub const MIN_READ_BYTES: usize = 4 * 1024;

/// Limits of decoding one AMF0 message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AmfLimits {
    /// Nesting of objects and arrays.
    pub depth: usize,
    /// Values in one message, nested ones included.
    pub values: usize,
    /// Bytes of one string or name.
    pub string_bytes: usize,
}

impl Default for AmfLimits {
    fn default() -> Self {
        Self { depth: MAX_AMF_DEPTH, values: MAX_AMF_VALUES, string_bytes: MAX_AMF_STRING_BYTES }
    }
}

/// Limits of one connection; `default()` holds the constants of this module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest handshake, from the session's creation.
    pub handshake: Duration,
    /// Longest time from the handshake (or the last unpublish) to `publish`.
    pub publish: Duration,
    /// Longest silence of media while publishing.
    pub idle: Duration,
    /// Time between two pings to a publisher; zero sends none.
    pub ping: Duration,
    /// Longest time without any byte of a peer that is pinged.
    pub ping_timeout: Duration,
    /// Largest media message while publishing, bytes.
    pub message_bytes: usize,
    /// Largest command or data message, and any message before publish, bytes.
    pub control_bytes: usize,
    /// Number of chunk streams remembered.
    pub chunk_streams: usize,
    /// Bytes of messages being assembled.
    pub buffered_bytes: usize,
    /// Largest message, or chunk, copied out of the read buffer instead of sliced, bytes.
    pub copy_below: usize,
    /// Limits of decoding one AMF0 message.
    pub amf: AmfLimits,
    /// Commands while nothing is published.
    pub commands_before_publish: u32,
    /// Bytes while nothing is published.
    pub bytes_before_publish: u64,
    /// Messages per second, averaged over [`RATE_WINDOW`].
    pub messages_per_second: u32,
    /// Chunks per second, averaged over [`RATE_WINDOW`].
    pub chunks_per_second: u32,
    /// Message streams created per connection.
    pub message_streams: u32,
    /// Bytes waiting to be written.
    pub pending_transmit: usize,
    /// Acknowledgement window that is announced, in bytes.
    pub window_ack: u32,
    /// Chunk size that is announced, in bytes.
    pub outbound_chunk: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: HANDSHAKE_DEADLINE,
            publish: PUBLISH_DEADLINE,
            idle: IDLE_TIMEOUT,
            ping: PING_INTERVAL,
            ping_timeout: PING_TIMEOUT,
            message_bytes: MAX_MESSAGE_BYTES,
            control_bytes: MAX_CONTROL_BYTES,
            chunk_streams: MAX_CHUNK_STREAMS,
            buffered_bytes: MAX_BUFFERED_BYTES,
            copy_below: COPY_BELOW_BYTES,
            amf: AmfLimits::default(),
            commands_before_publish: MAX_COMMANDS_BEFORE_PUBLISH,
            bytes_before_publish: MAX_BYTES_BEFORE_PUBLISH,
            messages_per_second: MAX_MESSAGES_PER_SECOND,
            chunks_per_second: MAX_CHUNKS_PER_SECOND,
            message_streams: MAX_MESSAGE_STREAMS,
            pending_transmit: MAX_PENDING_TRANSMIT,
            window_ack: WINDOW_ACK_BYTES,
            outbound_chunk: OUTBOUND_CHUNK_BYTES,
        }
    }
}
