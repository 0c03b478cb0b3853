//! The limits of segments, and of what the segmenter waits for.

/// Aimed segment duration in 90 kHz ticks (2 s).
pub const SEGMENT_AIM: i64 = 180_000;
/// A keyframe that comes this much early counts as on time, because timestamps are rounded. 90 kHz
/// ticks (100 ms).
pub const BOUNDARY_SLACK: i64 = 9_000;
/// Audio starts the segments while pictures are this far behind it. 90 kHz ticks (1 s).
pub const VIDEO_STALL: i64 = 90_000;
/// Audio without a video configuration for this long is an audio-only stream. 90 kHz ticks (500
/// ms).
pub const AUDIO_ONLY_WAIT: i64 = 45_000;
/// Audio starts alone if a video configuration is not followed by a keyframe for this long. 90 kHz
/// ticks (10 s).
pub const KEYFRAME_WAIT: i64 = 900_000;
/// Audio from before the first keyframe is kept for this long. 90 kHz ticks (500 ms).
pub(super) const WAITING_AUDIO: i64 = 45_000;
/// Shortest segment that a discontinuity of timestamps may end. 90 kHz ticks (500 ms).
pub(super) const MIN_DISCONTINUITY_SEGMENT: i64 = 45_000;
/// Longest audio frame that is allowed for when the end of a segment is foretold. 90 kHz ticks (256 ms).
pub(super) const MAX_AUDIO_FRAME: i64 = 23_040;
/// EXTINF is rounded to the nearest second before it is compared with the target duration (RFC
/// 8216bis §4.4.3.1), so a segment may be longer than that by less than this. 90 kHz ticks (500 ms).
pub(super) const EXTINF_ROUNDING: i64 = 45_000;
