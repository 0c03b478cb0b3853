//! The last picture stands until the next one: while an encoder sends no pictures, pictures that repeat
//! the last one are added, so that both tracks go on together.
//!
//! No player keeps playing over a hole in one track, no part may be longer than PART-TARGET, and the
//! duration of a picture is final when it is sent. So a pause can only be filled with pictures. An IDR
//! picture that stands is repeated itself where a segment is due, so that players can join there.

use bytes::Bytes;
use millrace_buf::ByteChain;

use super::{BOUNDARY_SLACK, SEGMENT_AIM, Segmenter};
use crate::codec::VideoCodec;
use crate::codec::h264::PictureRepeater;
use crate::frame::{AccessUnit, SyncKind, VideoConfig};
use crate::repair::Repair;

/// Audio may be ahead of the pictures by this much before the last one is repeated: encoders and
/// muxers send either track in advance. 90 kHz ticks (250 ms).
const LEAD: i64 = 22_500;
/// Longest time that is filled at once, in 90 kHz ticks (10 s): a bound on the pictures that one frame
/// can add.
const LONGEST_STAND: i64 = 900_000;
/// Longest frame time of a stream whose pictures can be repeated, in 90 kHz ticks (200 ms): slower
/// pictures would make parts longer than the smallest setting.
pub(super) const LONGEST_STEP: i64 = 18_000;

/// The picture that stands, and how it is repeated.
#[derive(Debug, Default)]
pub(super) struct Standing {
    repeater: Option<PictureRepeater>,
    /// The newest picture if it is an IDR picture.
    idr: Option<ByteChain>,
    /// The end of presentation of all pictures so far, in 90 kHz ticks.
    shown: i64,
    /// True while the newest picture is a repeated one.
    is_repeated: bool,
}

impl Standing {
    /// Takes the configuration of the pictures that follow.
    pub(super) fn configure(&mut self, config: &VideoConfig) {
        self.repeater = match config.codec {
            VideoCodec::H264 => PictureRepeater::new(&config.record),
            VideoCodec::Hevc | VideoCodec::Av1 => None,
        };
        self.idr = None;
    }

    /// True if the pictures can be repeated.
    pub(super) const fn is_possible(&self) -> bool {
        self.repeater.is_some()
    }

    /// True while the newest picture is a repeated one.
    pub(super) const fn is_standing(&self) -> bool {
        self.is_repeated
    }

    /// Takes a picture of the encoder.
    pub(super) fn observe(&mut self, picture: &AccessUnit) {
        self.is_repeated = false;
        if let Some(repeater) = &mut self.repeater {
            repeater.observe(&picture.data);
            self.idr = (picture.sync == SyncKind::Idr).then(|| picture.data.clone());
        }
    }

    /// Notes that pictures are shown until `end`.
    pub(super) fn shown_until(&mut self, end: i64) {
        self.shown = self.shown.max(end);
    }

    fn repeat(&self) -> Option<Bytes> {
        self.repeater.as_ref()?.repeat()
    }
}

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
        let time = time.min(first + LONGEST_STAND);
        while let Some(end) = self.clock.end().filter(|end| end + self.clock.step() <= time) {
            let is_due = self.open.is_some_and(|open| end - open.start >= SEGMENT_AIM - BOUNDARY_SLACK);
            let (sync, data) = match (&self.standing.idr, self.standing.repeat()) {
                (Some(idr), _) if is_due => (SyncKind::Idr, idr.clone()),
                (_, Some(repeat)) => (SyncKind::None, repeat.into()),
                (_, None) => return,
            };
            let pts = end.max(self.standing.shown);
            self.repairs.add(Repair::RepeatedPicture, 1);
            self.standing.is_repeated = true;
            self.place_picture(AccessUnit { dts: end, cts: (pts - end) as i32, sync, data });
        }
    }
}
