//! Limits of one node, one address and one publisher, each with its reason. The memory of a single RTMP connection is
//! limited in `millrace_rtmp::limits`.

use std::time::Duration;

/// Open connections of a node: a 10 Gb/s port carries about 2 000 publishers of 5 Mb/s, and as many again come and go.
pub const MAX_CONNECTIONS: usize = 4_096;
/// Open connections from one address: a studio behind one address runs a few dozen encoders, and behind a load
/// balancer that hides addresses all publishers share a few.
pub const MAX_CONNECTIONS_PER_ADDRESS: usize = 256;
/// Connections that have not begun to publish. A whole event's encoders reconnecting at once stay below it; each
/// connection that sends nothing costs one 4 KB buffer.
pub const MAX_PENDING: usize = 1_024;
/// Weight of the share of the process's descriptors that each RTMP port is guaranteed; viewers' has as much, the API's a
/// quarter of it.
pub const PORT_WEIGHT: usize = 4;
/// Bits per second of one publisher: 2160p60 H.264 for distribution stays below 50 Mb/s.
pub const MAX_BITRATE: u64 = 60_000_000;
/// Time over which the bitrate is averaged: an encoder that catches up after a stalled link rightly sends several
/// seconds of media in one.
pub const BITRATE_WINDOW: Duration = Duration::from_secs(10);
/// Distance of keyframes in seconds: OBS's "auto" is 8.3 s; with more than this no viewer can join and no segment can be
/// cut.
pub const MAX_KEYFRAME_INTERVAL_S: u32 = 30;
/// Bytes of one publisher's replay buffer: 25 s at 5 Mb/s, two target durations of a stream with long GOPs.
pub const RING_BYTES: usize = 16 * 1024 * 1024;
/// The smallest replay buffer: one largest message and as much again.
pub const MIN_RING_BYTES: usize = 1024 * 1024;
/// Seconds of media kept after they are stored: no worker needs them, but messages of one segment are stored a moment
/// apart.
pub const RING_S: u32 = 2;
/// Seconds that publishers may go on after a drain began: a rolling update cannot wait for the end of every broadcast.
pub const DRAIN_S: u32 = 20;

/// First delay of a refusal; it doubles with each further one from the address.
pub const REFUSAL_DELAY_FIRST: Duration = Duration::from_millis(250);
/// Longest delay of a refusal: below the time-outs after which encoders report a dead server instead of the reason.
pub const REFUSAL_DELAY_MAX: Duration = Duration::from_secs(4);
/// Time without a refusal after which an address starts over.
pub const REFUSAL_FORGET: Duration = Duration::from_mins(5);
/// Addresses with refusals remembered; beyond, the one refused longest ago is forgotten.
pub const REFUSAL_ADDRESSES: usize = 16_384;

/// Smallest chunk size that may be announced: the protocol's initial one.
pub const MIN_CHUNK_BYTES: u32 = 128;
/// Largest: encoders that adopt it hold one chunk, and a frame in one chunk delays the audio behind it.
pub const MAX_CHUNK_BYTES: u32 = 1024 * 1024;

/// Audio alone is sent after this long, so that a stream without pictures flows steadily.
pub const AUDIO_FLUSH: Duration = Duration::from_millis(40);
/// Time one claim request waits for control's answer before it is sent again.
pub const CLAIM_ATTEMPT: Duration = Duration::from_secs(2);
/// Time between claim requests while control is away.
pub const CLAIM_RETRY: Duration = Duration::from_millis(200);
/// Interval of a connection's timer while no deadline is set.
pub const IDLE_TIMER: Duration = Duration::from_secs(1);
/// Time a peer has to read an answer before it is closed.
pub const ANSWER_WRITE: Duration = Duration::from_secs(2);
/// Time from the end of a connection to its close: for the last answer, and for the peer to close first. Closing with
/// unread bytes in the socket sends a reset, which drops the answer before the encoder has shown it.
pub const CLOSE_LINGER: Duration = Duration::from_secs(1);
/// Bytes of a peer that are read and thrown away at a connection's end: what an encoder may have under way in both
/// sockets' buffers. A peer that sends more gets the reset.
pub const LINGER_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of one such read.
pub const LINGER_READ_BYTES: usize = 16 * 1024;
/// Time for which a publish that is ended by an order is still read: its bytes that wait in the socket belong to the
/// broadcast.
pub const LAST_READ: Duration = Duration::from_millis(50);
/// Bytes of such a publish that are still read: all that the socket's buffer holds.
pub const LAST_READ_BYTES: usize = 6 * 1024 * 1024;
/// Time between a deadline's passing and its judgement, in which the socket is read once more: after a pause of the
/// process its timers fire before it learns what has arrived.
pub const SECOND_LOOK: Duration = Duration::from_millis(50);
/// Bytes that one connection may receive, and events that it may cause, before its task lets others run: one of them
/// takes some microseconds, so a turn stays below the time that a neighbour's part may be late.
pub const TURN_BYTES: usize = 256 * 1024;
/// See [`TURN_BYTES`].
pub const TURN_EVENTS: u32 = 256;
/// Reports of refused publishers that are on their way to control at once: a burst of encoders that meet a draining node.
pub const MAX_REFUSAL_REPORTS: usize = 64;
/// Unusable media messages that a publisher may send in a row before it is closed.
pub const MAX_BAD_MEDIA: u32 = 256;
/// Pause after a failed accept (out of file descriptors): accepting again at once would spin.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Interval at which certificate files are checked for changes: they are replaced days before the old certificate ends.
pub const CERTIFICATE_CHECK: Duration = Duration::from_mins(1);
/// TCP connections that the kernel keeps until they are accepted: a whole event's encoders at once.
pub const LISTEN_BACKLOG: i32 = 1_024;

/// Time after its first audio frame after which a second publisher whose metadata do not say it counts as one of sound
/// alone: encoders send the configurations of both tracks before the first frame.
pub(crate) const AUDIO_ALONE: Duration = Duration::from_secs(1);
/// Bytes of audio that are kept until the media of a second publisher are found usable: ten seconds at 800 kb/s.
pub(crate) const MAX_NEWCOMER_AUDIO_BYTES: usize = 1024 * 1024;
/// Events that are kept until then, most of them audio frames: ten seconds hold about 500.
pub(crate) const MAX_NEWCOMER_EVENTS: usize = 4_096;

/// Window in which changes of the codec configuration are counted.
pub(crate) const CONFIG_CHANGE_WINDOW: Duration = Duration::from_mins(1);
/// Changes of the codec configuration within the window after which the publish ends. Each costs an init segment and a
/// discontinuity; an encoder that changes something with every keyframe at 2 s stays below.
pub(crate) const MAX_CONFIG_CHANGES: usize = 40;

/// Requests to the key check service that are open at once: its answers take milliseconds, and a service that hangs must not
/// meet a thousand encoders at once. Those that wait for a place are refused when their time limit has passed.
pub(crate) const MAX_KEY_CHECKS: usize = 32;
/// Bytes of one answer of that service: a record of a stream takes a few hundred.
pub(crate) const MAX_KEY_CHECK_ANSWER: usize = 64 * 1024;
/// Accepted keys remembered: all publishers of a node, and those that left lately. One takes about 200 bytes.
pub(crate) const MAX_ACCEPTED_KEYS: usize = 8_192;
