//! What one node, one address and one publisher may cost, as named constants with their reasons. What a single
//! RTMP connection may make us buffer is in `millrace_rtmp::limits`.

use std::time::Duration;

/// Open connections of a node: a 10 Gb/s port carries about 2 000 publishers of 5 Mb/s; the rest is head-room
/// for connections that come and go.
pub const MAX_CONNECTIONS: usize = 4_096;
/// Open connections from one address: a studio behind one address runs a few dozen encoders, and behind a load
/// balancer that hides addresses all publishers share a few.
pub const MAX_CONNECTIONS_PER_ADDRESS: usize = 256;
/// Connections that have not begun to publish. A whole event's encoders reconnecting at once stay below it;
/// connections that send nothing cost no more than this many 4 KB buffers.
pub const MAX_PENDING: usize = 1_024;
/// Bits per second of one publisher: 2160p60 H.264 for distribution stays below 50 Mb/s.
pub const MAX_BITRATE: u64 = 60_000_000;
/// Time over which the bitrate is averaged: an encoder that catches up after a stalled link sends several
/// seconds in one, and is within its rights.
pub const BITRATE_WINDOW: Duration = Duration::from_secs(10);
/// Distance of keyframes, seconds: OBS's "auto" is 8.3 s; beyond this nobody can join and nothing can be cut.
pub const MAX_KEYFRAME_INTERVAL_S: u32 = 30;
/// Bytes of one publisher's ring: 25 s at 5 Mb/s, two target durations of a long-GOP stream.
pub const RING_BYTES: usize = 16 * 1024 * 1024;
/// The least a ring may be: one largest message and as much again.
pub const MIN_RING_BYTES: usize = 1024 * 1024;
/// Seconds of media kept though they are in the store: nobody needs them, but messages of one segment are stored a
/// moment apart.
pub const RING_S: u32 = 2;
/// Seconds publishers may go on after a drain began: an operator's rolling update waits for no show to end.
pub const DRAIN_S: u32 = 20;

/// First delay of a refusal; doubles with each further one from the address.
pub const REFUSAL_DELAY_FIRST: Duration = Duration::from_millis(250);
/// Longest delay of a refusal: below the time-outs after which encoders report a dead server instead of the reason.
pub const REFUSAL_DELAY_MAX: Duration = Duration::from_secs(4);
/// An address without a refusal for this long starts over.
pub const REFUSAL_FORGET: Duration = Duration::from_mins(5);
/// Addresses with refusals remembered; beyond, the one refused longest ago is forgotten.
pub const REFUSAL_ADDRESSES: usize = 16_384;

/// Audio alone is sent on after this long, so that a stream without pictures flows steadily.
pub const AUDIO_FLUSH: Duration = Duration::from_millis(40);
/// How long one claim request waits for control's answer; then it is asked again.
pub const CLAIM_ATTEMPT: Duration = Duration::from_secs(2);
/// Time between claim attempts while control is away.
pub const CLAIM_RETRY: Duration = Duration::from_millis(200);
/// How long one renewal, release or repair request waits for its answer: it is asked again anyway.
pub const CONTROL_ATTEMPT: Duration = Duration::from_secs(1);
/// Longest pause between attempts to put a job into the backlog.
pub const BACKLOG_RETRY_MAX: Duration = Duration::from_secs(5);
/// How often a connection without a deadline looks at the time.
pub const LOOK: Duration = Duration::from_secs(1);
/// How long a peer may take to read its last answer before it is closed.
pub const CLOSE_WRITE: Duration = Duration::from_secs(2);
/// How long we wait for the peer to close after the last answer: closing first with unread bytes in the socket
/// sends a reset, which drops the answer before the encoder has shown it.
pub const CLOSE_LINGER: Duration = Duration::from_secs(1);
/// Malformed media messages a publisher may send in a row before it is closed.
pub const MAX_BAD_MEDIA: u32 = 256;
/// Pause after a failed accept (out of file descriptors): accepting again at once would spin.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Pending TCP connections the kernel keeps for us: a whole event's encoders at once.
pub const LISTEN_BACKLOG: i32 = 1_024;
/// Repair requests waiting: each may ask for many messages, and is repeated when lost.
pub const REPAIR_QUEUE: usize = 256;
/// Control messages (bids, heartbeats, facts) waiting per publisher: 5 heartbeats a second of a few workers.
pub const CONTROL_QUEUE: usize = 1_024;
