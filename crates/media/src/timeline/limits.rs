//! The limits of the timeline: what it takes for a pause, for jitter, and for audio that is absent.

/// The time of the first frame, in 90 kHz ticks. It is one second and not zero, so that a track
/// that starts a little before the other stays positive: `tfdt`, the decoding time in CMAF, is
/// unsigned.
pub const TIMELINE_START: i64 = 90_000;
/// Largest step forward beyond both tracks that still counts as a pause, in 90 kHz ticks (1.5 s).
/// It is below the smallest target duration (2 s), so that a segment can hold the pause.
pub const JUMP_LIMIT: i64 = 135_000;
/// Largest step back of audio times that is no jump by itself, in 90 kHz ticks (1 s): the count of samples
/// decides about it. A step back of pictures within it is taken for one of both tracks.
pub const BACK_LIMIT: i64 = 90_000;
/// Largest step back of the times of pictures that still counts as jitter, in 90 kHz ticks (100 ms).
pub const STEP_BACK_LIMIT: i64 = 9_000;
/// Largest distance of an audio timestamp from the sample count that is ignored, in 90 kHz ticks
/// (100 ms).
pub const AUDIO_SLACK: i64 = 9_000;
/// Silence starts if announced audio has not come this long after the first keyframe, or after its
/// announcement if that came later. 90 kHz ticks (400 ms).
pub const AUDIO_START_LIMIT: i64 = 36_000;
/// Silence starts if audio that has come before is this far behind the pictures. 90 kHz ticks (2
/// s).
pub const AUDIO_STALL_LIMIT: i64 = 180_000;
/// Most silence that one frame of the source can add, in 90 kHz ticks (5 s): the longest stall before
/// silence starts and a pause of the largest size on top of it, twice. It bounds what is made up when
/// a codec without a silent frame is replaced by one that has it.
pub const MAX_SILENCE: i64 = AUDIO_STALL_LIMIT + 2 * JUMP_LIMIT;
/// Smallest step between decoding times, and between the two sides of a discontinuity, in 90 kHz
/// ticks (1 ms, the resolution of RTMP).
pub const MIN_STEP: i64 = 90;
