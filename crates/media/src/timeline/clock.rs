//! The source's clock: its times, and the jumps, pauses and standstills among them.
//!
//! Both tracks of a source usually share one clock, so that they keep their distance. [`SourceClock`] adds an
//! offset to each time that puts it onto the timeline, and finds another offset when the clock jumps.

use crate::frame::TrackKind;

use super::limits::{BACK_LIMIT, JUMP_LIMIT, MIN_STEP, TIMELINE_START};

/// Longest pause of a track alone, in 90 kHz ticks (10 s): a camera that sends a picture every five seconds,
/// and twice that.
pub(super) const PAUSE_LIMIT: i64 = 900_000;
/// Distance of a pause from the time that passed meanwhile, in 90 kHz ticks (500 ms), within which they
/// agree: networks delay by as much. A quarter of the pause is allowed, too.
const PAUSE_SLACK: i64 = 45_000;
/// Furthest that a second track may start behind the first with the same zero, in 90 kHz ticks (3
/// s).
const LATE_START_LIMIT: i64 = 270_000;
/// Earliest time at which a second track starts, in 90 kHz ticks (100 ms), because `tfdt` is
/// unsigned.
const EARLIEST: i64 = 9_000;
/// Least gain in distance from the expected time for which a track takes over the other's new offset, in
/// 90 kHz ticks (100 ms).
const ADOPT_GAIN: i64 = 9_000;
/// A clock stands still when pictures of one time have arrived over this long, in 90 kHz ticks (250 ms), and
/// there are more than [`STILL_PICTURES`].
const STILL_AFTER: i64 = 22_500;
/// Pictures of one time that are no standstill: encoders under load repeat the time of the picture before.
const STILL_PICTURES: u32 = 4;

/// The mapping of one track from the source's clock to the timeline.
#[derive(Debug, Default)]
struct TrackClock {
    /// Ticks to add to the source's time; `None` before the first frame.
    offset: Option<i64>,
    /// The part of `offset` that this track does not share with the other.
    skew: i64,
    /// The jump that `offset` comes from.
    jump: u32,
    /// The time of the track's most recent frame on the timeline, in 90 kHz ticks.
    last: i64,
    /// The source's time of that frame and its distance from the one before, in 90 kHz ticks.
    last_time: i64,
    last_step: i64,
    /// The arrival of that frame in 90 kHz ticks.
    arrival: Option<i64>,
}

/// A time on the timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mapped {
    /// The time in 90 kHz ticks.
    pub(super) time: i64,
    /// True if the source's clock has jumped: a discontinuity.
    pub(super) is_jump: bool,
    /// True if the track has another offset than before, its own or the other track's.
    pub(super) is_moved: bool,
}

/// The clock of one publish; the module describes the rules.
#[derive(Debug, Default)]
pub(super) struct SourceClock {
    video: TrackClock,
    audio: TrackClock,
    jumps: u32,
    /// The greatest time of either track so far, in 90 kHz ticks.
    greatest: Option<i64>,
    /// The arrival of the frame that is being processed, in 90 kHz ticks of the caller's clock.
    arrival: Option<i64>,
    still: Standstill,
}

/// Pictures that arrive with the same time.
#[derive(Debug, Default)]
struct Standstill {
    /// The source's time of the latest picture.
    time: i64,
    /// The pictures that had this time, and the arrival of the first of them.
    pictures: u32,
    since: i64,
}

impl SourceClock {
    /// Sets the arrival of the frames that follow, in 90 kHz ticks since any origin.
    pub(super) const fn arrive(&mut self, arrival: i64) {
        self.arrival = Some(arrival);
    }

    /// Returns the arrival of the frame that is being processed, in 90 kHz ticks; `None` without a clock.
    pub(super) const fn arrival(&self) -> Option<i64> {
        self.arrival
    }

    /// Returns the greatest time of either track in 90 kHz ticks; `None` before the first frame.
    pub(super) const fn greatest(&self) -> Option<i64> {
        self.greatest
    }

    /// Moves the greatest time of either track forward to `time`.
    pub(super) fn advance(&mut self, time: i64) {
        self.greatest = Some(self.greatest.map_or(time, |greatest| greatest.max(time)));
    }

    /// Returns the time that the latest picture's distance from the one before spans, in 90 kHz ticks.
    pub(super) const fn picture_step(&self) -> i64 {
        self.video.last_step
    }

    /// Returns the time since the track's frame before arrived, in 90 kHz ticks; `None` without a clock.
    pub(super) fn arrival_gap(&self, track: TrackKind) -> Option<i64> {
        Some(self.arrival? - self.track(track).arrival?)
    }

    /// Moves all later times of the audio by `ticks`.
    pub(super) fn shift_audio(&mut self, ticks: i64) {
        if let Some(offset) = &mut self.audio.offset {
            *offset += ticks;
            self.audio.skew += ticks;
            self.audio.last += ticks;
        }
    }

    const fn track(&self, track: TrackKind) -> &TrackClock {
        match track {
            TrackKind::Video => &self.video,
            TrackKind::Audio => &self.audio,
        }
    }

    /// Returns the picture's time of the source, or the one by its arrival while the clock stands still; the
    /// second value is true then.
    pub(super) fn pace(&mut self, time: i64) -> (i64, bool) {
        let Some(arrival) = self.arrival else { return (time, false) };
        if self.still.pictures == 0 || time != self.still.time {
            self.still = Standstill { time, pictures: 1, since: arrival };
            return (time, false);
        }
        self.still.pictures = self.still.pictures.saturating_add(1);
        let passed = arrival - self.still.since;
        let is_paced = self.still.pictures > STILL_PICTURES && passed >= STILL_AFTER;
        (if is_paced { time + passed } else { time }, is_paced)
    }

    /// Maps a time of the source onto the timeline. `expected` is the time at which the track's next frame
    /// is due, in 90 kHz ticks of the timeline, `None` if that is not known; a step back of more than
    /// `back_limit` ticks is a jump.
    pub(super) fn map(
        &mut self,
        kind: TrackKind,
        time: i64,
        expected: Option<i64>,
        back_limit: i64,
    ) -> Mapped {
        let greatest = self.greatest.unwrap_or(TIMELINE_START);
        let (own, other) = (self.track(kind), self.track(other_than(kind)));
        let base = other.offset.unwrap_or_default() - other.skew;
        let (offset, skew, jump) = match own.offset {
            None => (first_offset(other, greatest, time), 0, self.jumps),
            Some(offset) => match self.next_offset(kind, time, expected, back_limit) {
                Next::Same => (offset, own.skew, own.jump),
                Next::Shared(offset) => (offset, offset - base, other.jump),
                Next::Jump(offset) => (offset, 0, self.jumps.saturating_add(1)),
            },
        };
        let is_jump = jump > self.jumps;
        self.jumps = self.jumps.max(jump);
        let arrival = self.arrival;
        let own = match kind {
            TrackKind::Video => &mut self.video,
            TrackKind::Audio => &mut self.audio,
        };
        let is_moved = own.offset.is_some_and(|old| old != offset);
        let step = if own.offset.is_some() { time - own.last_time } else { 0 };
        *own = TrackClock {
            offset: Some(offset),
            skew,
            jump,
            last: time + offset,
            last_time: time,
            last_step: step,
            arrival,
        };
        Mapped { time: own.last, is_jump, is_moved }
    }
}

/// The offset of a track's next frame.
enum Next {
    Same,
    /// The other track's, which has jumped before.
    Shared(i64),
    /// A new one: the clock has jumped.
    Jump(i64),
}

impl SourceClock {
    /// Finds the offset for a frame of a track that has begun.
    fn next_offset(&self, kind: TrackKind, time: i64, expected: Option<i64>, back_limit: i64) -> Next {
        let (own, other) = (self.track(kind), self.track(other_than(kind)));
        let (greatest, offset) = (self.greatest.unwrap_or(TIMELINE_START), own.offset.unwrap_or_default());
        // The greatest time is never below the track's own.
        let continues = |mapped: i64| mapped >= own.last - back_limit && mapped <= greatest + JUMP_LIMIT;
        let mapped = time + offset;
        let expected = expected.unwrap_or(own.last);
        let distance = |offset: i64| (time + offset - expected).abs();
        // If the other track has jumped before, its new offset holds for this track, too, with or without
        // what keeps the two apart.
        let shared = other.offset.filter(|_| other.jump > own.jump);
        let shared = shared
            .into_iter()
            .flat_map(|shared| [shared - other.skew, shared - other.skew + own.skew])
            .filter(|shared| *shared != offset && continues(time + shared))
            .min_by_key(|shared| distance(*shared));
        match shared {
            Some(shared) if !continues(mapped) || distance(shared) + ADOPT_GAIN < distance(offset) => {
                Next::Shared(shared)
            }
            _ if continues(mapped) || self.is_pause(kind, time, mapped) => Next::Same,
            _ => {
                let due = (own.last + MIN_STEP).max(expected);
                let is_small = (own.last - BACK_LIMIT..own.last).contains(&mapped);
                // The other track steps back by as much and keeps its distance from this one.
                let at = if is_small { due } else { due.max(greatest + MIN_STEP) };
                Next::Jump(at - time)
            }
        }
    }

    /// True if the step to this frame is a pause of a track that runs alone: as much time has passed since
    /// its last frame, or the step before was as long, as a camera of a slow rate makes it.
    fn is_pause(&self, kind: TrackKind, time: i64, mapped: i64) -> bool {
        let (own, other) = (self.track(kind), self.track(other_than(kind)));
        let step = mapped - own.last;
        let runs_alone = other.offset.is_none() || other.last < own.last - JUMP_LIMIT;
        let agrees = |passed: i64| (step - passed).abs() <= PAUSE_SLACK.max(step / 4);
        let is_steady = (time - own.last_time - own.last_step).abs() <= step / 4;
        let has_passed = self.arrival_gap(kind).is_some_and(agrees);
        (1..=PAUSE_LIMIT).contains(&step) && runs_alone && (has_passed || is_steady)
    }
}

/// Returns the other track.
const fn other_than(track: TrackKind) -> TrackKind {
    match track {
        TrackKind::Video => TrackKind::Audio,
        TrackKind::Audio => TrackKind::Video,
    }
}

/// Returns the offset of a track's first frame: that of the other track if it puts the frame near the start
/// of the other, else one of its own, because the source counts its tracks from different zeros.
fn first_offset(other: &TrackClock, greatest: i64, time: i64) -> i64 {
    let common_start = EARLIEST.max(greatest - LATE_START_LIMIT)..=greatest + JUMP_LIMIT;
    let shared = other.offset.filter(|shared| common_start.contains(&(time + shared)));
    shared.unwrap_or(greatest - time)
}
