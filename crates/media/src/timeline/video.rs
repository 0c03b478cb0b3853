//! The times of pictures.

use millrace_buf::ByteChain;

use super::{BACK_LIMIT, MIN_STEP, STEP_BACK_LIMIT, Timeline};
use crate::frame::{AccessUnit, MediaFrame, SyncKind, TrackKind};
use crate::repair::Repair;

/// Largest composition offset accepted, in 90 kHz ticks (8 s: 16 reordered pictures at 2 per
/// second). A larger one is replaced by 0.
const MAX_CTS: i64 = 720_000;
/// Furthest that decoding times may be moved forward to keep them apart, in 90 kHz ticks (150 ms); beyond it
/// they grow by [`MIN_STEP`] until the source's have caught up.
const MAX_LEAD: i64 = 13_500;
/// Largest distance of a composition offset from a multiple of the frame time, in 90 kHz ticks (3 ms), that
/// rounding explains.
const OFFSET_SLACK: i64 = 270;
/// Pictures for which presentation times stay exact after a composition offset that is no multiple of the
/// frame time: the encoder reorders pictures by times that jitter themselves.
const RAGGED_FOR: u32 = 300;

impl Timeline {
    /// Processes an access unit. `dts` and `cts` are the source's decoding time, unwrapped, and
    /// composition offset in 90 kHz ticks. The access unit is dropped and counted if no configuration
    /// came before it or its inner lengths do not add up.
    pub fn push_video(&mut self, dts: i64, cts: i64, data: impl Into<ByteChain>) {
        let Some(config) = &self.video_config else {
            self.repairs.add(Repair::UnconfiguredPicture, 1);
            return;
        };
        let data = data.into();
        let Ok(sync) = config.sync_of(&data, false) else {
            self.repairs.add(Repair::MalformedPicture, 1);
            return;
        };
        self.push_picture(dts, cts, sync, data);
    }

    /// Processes an access unit whose kind is known. `dts` and `cts` are the source's decoding time,
    /// unwrapped, and composition offset in 90 kHz ticks. The access unit is dropped and counted if no
    /// configuration came before it.
    pub fn push_picture(&mut self, dts: i64, cts: i64, sync: SyncKind, data: ByteChain) {
        if self.video_config.is_none() {
            self.repairs.add(Repair::UnconfiguredPicture, 1);
            return;
        }
        if sync.is_join() {
            self.assume_audio();
        }
        let (source, is_paced) = self.clock.pace(dts);
        self.repairs.add(Repair::ClockStandsStill, u64::from(is_paced));
        let is_offset_usable = cts.abs() <= MAX_CTS;
        let cts = if is_offset_usable { cts } else { 0 };
        let config = self.video_config.as_ref();
        let is_bidirectional = || config.is_some_and(|config| config.is_bidirectional(&data));
        let (source, cts) = self.order.place(source, cts, is_bidirectional);
        let is_recovering = self.order.is_recovering();
        self.repairs.add(Repair::DecodingTimeRecovered, u64::from(is_recovering));
        let due = self.last_dts.zip(self.cadence.period()).map(|(last, period)| last + period);
        let back_limit = if is_recovering { BACK_LIMIT } else { STEP_BACK_LIMIT };
        let mapped = self.clock.map(TrackKind::Video, source, due, back_limit);
        if mapped.is_moved {
            self.cadence.restart();
        }
        let (dts, pts) = self.place_picture(mapped.time, cts);
        self.last_dts = Some(dts);
        self.clock.advance(dts);
        self.first_picture.get_or_insert((dts, self.clock.arrival()));
        if sync.is_join() {
            self.first_keyframe.get_or_insert(dts);
            self.last_keyframe = Some(dts);
        }
        let is_in_reach = (pts - dts).abs() <= MAX_CTS;
        self.repairs.add(Repair::CompositionOffsetReset, u64::from(!is_offset_usable || !is_in_reach));
        let cts = (pts - dts).clamp(-MAX_CTS, MAX_CTS) as i32;
        self.emit(MediaFrame::Video(AccessUnit { dts, cts, sync, data }), mapped.is_jump);
        self.replace_absent_audio(dts);
    }

    /// Returns the decoding and the presentation time of a picture at `time` with this composition offset.
    fn place_picture(&mut self, time: i64, cts: i64) -> (i64, i64) {
        let place = self.cadence.place(time);
        self.repairs.add(Repair::PictureTimeSteadied, u64::from(place != time));
        let floor = self.cadence.floor();
        let dts = self.last_dts.map_or(place, |last| {
            let is_near = last + floor - place <= MAX_LEAD;
            place.max(last + if is_near { floor } else { MIN_STEP })
        });
        self.repairs.add(Repair::DecodingTimeMoved, u64::from(dts != place));
        let is_same_offset = self.last_cts.replace(cts) == Some(cts);
        let pts = match () {
            () if self.order.is_recovering() => time,
            () if is_same_offset => dts,
            () if self.offset_is_even(cts) => place,
            () => time,
        };
        (dts, pts + cts)
    }

    /// True if composition offsets are multiples of the frame time, so that pictures may be shown on the grid
    /// that they are decoded on.
    fn offset_is_even(&mut self, cts: i64) -> bool {
        let Some(period) = self.cadence.period().filter(|_| self.cadence.is_steady()) else { return false };
        let rest = cts.rem_euclid(period.max(1));
        let is_even = rest.min(period - rest) <= OFFSET_SLACK;
        self.ragged_offsets = if is_even { self.ragged_offsets.saturating_sub(1) } else { RAGGED_FOR };
        self.ragged_offsets == 0
    }

    /// Returns the time since the most recent keyframe, or since the first picture if there was none, in 90 kHz
    /// ticks: by the times of pictures, and before the first keyframe by their arrival, too. `None` without
    /// pictures.
    pub fn since_keyframe(&self) -> Option<i64> {
        let (first, arrived) = self.first_picture?;
        let last = self.last_dts?;
        if let Some(keyframe) = self.last_keyframe {
            return Some(last - keyframe);
        }
        let passed = self.clock.arrival().zip(arrived).map_or(0, |(now, then)| now - then);
        Some((last - first).max(passed))
    }
}
