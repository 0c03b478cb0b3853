//! The last picture stands until the next one: while an encoder sends no pictures, pictures that repeat
//! the last one are added, so that both tracks go on together.
//!
//! No player keeps playing over a hole in one track, no part may be longer than PART-TARGET, and the
//! duration of a picture is final when it is sent. So a pause can only be filled with pictures. An IDR
//! picture that stands is repeated itself where a segment is due, so that players can join there.

use super::Segmenter;
use super::limits::{BOUNDARY_SLACK, SEGMENT_AIM};
use crate::repair::Repair;

/// Audio may be ahead of the pictures by this much before the last one is repeated: encoders and
/// muxers send either track in advance. 90 kHz ticks (250 ms).
pub(super) const LEAD: i64 = 22_500;

impl Segmenter {
    /// Repeats the last picture while audio that has come to `time` is ahead of the pictures.
    pub(super) fn stand_beside_audio(&mut self, time: i64) {
        self.stand_until(time - LEAD);
    }

    /// Repeats the last picture until the next one, which the source decodes at `dts`.
    pub(super) fn stand_before_picture(&mut self, dts: i64) {
        if self.clock.end().is_some_and(|end| dts - end >= LEAD) {
            self.stand_until(dts);
        }
    }

    /// Adds pictures that end at or before `time`.
    fn stand_until(&mut self, time: i64) {
        let is_possible = self.video.started && !self.video.changed && self.standing.is_possible();
        let Some(first) = self.clock.end().filter(|_| is_possible && !self.discontinuity_pending) else {
            return;
        };
        let arrival = self.arrival;
        let allowed = self.standing.stand(first, self.clock.step(), time, arrival);
        let is_limited = allowed + self.clock.step() <= time;
        self.repairs.add(Repair::RepeatLimit, u64::from(is_limited));
        while let Some(end) = self.clock.end().filter(|end| end + self.clock.step() <= allowed) {
            let is_due = self.open.is_some_and(|open| end - open.start >= SEGMENT_AIM - BOUNDARY_SLACK);
            let Some(picture) = self.standing.repeat(end, is_due) else { return };
            self.repairs.add(Repair::RepeatedPicture, 1);
            self.place_picture(picture);
        }
    }
}
