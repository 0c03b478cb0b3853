//! The ends of segments, as far as they can be foretold.

use super::pause::LEAD;
use super::{
    BOUNDARY_SLACK, EXTINF_ROUNDING, MAX_AUDIO_FRAME, OpenSegment, SEGMENT_AIM, Segmenter, VIDEO_STALL,
};
use crate::frame::TrackConfig;

impl Segmenter {
    /// True if a segment without a keyframe has to begin with the picture at `dts` of this duration: the open one would
    /// exceed the target duration with it, or has its share of the time to the next keyframe.
    pub(super) fn is_due_without_keyframe(&self, open: &OpenSegment, dts: i64, duration: i64) -> bool {
        self.exceeds(self.longest_segment(), open, dts, duration)
            || self.share_of(open).is_some_and(|share| dts - open.start >= share)
    }

    /// True if the open segment would last longer than `longest` with a picture at `dts` of this duration.
    fn exceeds(&self, longest: i64, open: &OpenSegment, dts: i64, duration: i64) -> bool {
        dts - open.earliest + duration.max(self.clock.frame_ticks()) > longest
    }

    /// Returns the duration of the open segment if the time to the next keyframe is divided into equal segments; `None` if
    /// the open one reaches the keyframe. As long as they may be, the last of them would be a remnant of any length.
    fn share_of(&self, open: &OpenSegment) -> Option<i64> {
        let (frame, longest) = (self.clock.frame_ticks(), self.longest_segment());
        let span = self.keyframes.next_due()? - open.start;
        let share = (longest - 2 * frame).max(frame);
        (span > longest).then(|| span / ((span + share - 1) / share) - frame / 2)
    }

    /// Returns the longest duration of a segment between pictures.
    pub(super) fn longest_segment(&self) -> i64 {
        self.longest(if self.standing.is_standing() { LEAD } else { 0 })
    }

    /// Returns the longest duration of a segment between pictures that audio is `ahead` of; audio may last a frame longer at
    /// either end.
    fn longest(&self, ahead: i64) -> i64 {
        let audio = match &self.audio.config {
            Some(TrackConfig::Audio(config)) => i64::from(config.frame_ticks()),
            _ => 0,
        };
        self.target + (EXTINF_ROUNDING - ahead - 2 * audio - self.clock.step()).max(0)
    }

    /// True if a picture or audio frame at `time` may start a segment, as far as that can be foretold.
    pub(super) fn may_cut_at(&self, time: i64) -> bool {
        let Some(open) = self.open else { return false };
        let elapsed = time - open.start;
        if !self.video.started {
            return elapsed >= SEGMENT_AIM;
        }
        // Pictures may pause from here on.
        let longest = self.longest(LEAD);
        let keyframe_cuts = self.video.changed
            || !open.independent
            || self.discontinuity_pending
            || elapsed >= SEGMENT_AIM - BOUNDARY_SLACK
            || time - open.earliest + self.keyframes.distance() > longest;
        (keyframe_cuts && self.keyframes.is_expected_at(time))
            || (elapsed >= SEGMENT_AIM - BOUNDARY_SLACK && self.standing.may_begin_segment())
            || self.is_due_without_keyframe(&open, time, 0)
            || self.exceeds(longest, &open, time, 0)
            || self.audio_is_full_at(self.audio_segment.end() + MAX_AUDIO_FRAME)
            || self.is_stalled_at(time) && elapsed >= self.target - MAX_AUDIO_FRAME
    }

    /// True if pictures are so far behind audio at `time` that audio starts the segments.
    pub(super) fn is_stalled_at(&self, time: i64) -> bool {
        self.last_dts.is_none_or(|dts| time - dts > VIDEO_STALL)
    }

    /// True if the open segment's audio would exceed the target duration with a frame that ends at `end`.
    pub(super) fn audio_is_full_at(&self, end: i64) -> bool {
        let limit = self.target + EXTINF_ROUNDING;
        self.open.is_some_and(|open| self.audio_segment.length_to(end, open.msn) >= limit)
    }

    /// True if an audio frame that ends at `end` may be the last one of its segment.
    pub(super) fn may_be_last_audio(&self, end: i64) -> bool {
        let is_behind = self.open.is_some_and(|open| self.audio_msn < open.msn);
        // No segment starts before the picture that is to come next.
        let is_ahead = !self.video.started || self.clock.end().is_none_or(|next| end >= next);
        is_behind || is_ahead && self.may_cut_at(end)
    }
}
