//! The picture that stands while an encoder sends none, and the pictures that repeat it.

use millrace_buf::ByteChain;

use crate::codec::VideoCodec;
use crate::codec::h264::PictureRepeater;
use crate::fill_budget::FillBudget;
use crate::frame::{AccessUnit, SyncKind, VideoConfig};

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
    budget: FillBudget<LONGEST_STAND>,
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

    /// True if the picture that stands may itself be repeated where a segment is due.
    pub(super) const fn may_begin_segment(&self) -> bool {
        self.idr.is_some()
    }

    /// Takes a picture of the encoder.
    pub(super) fn observe(&mut self, picture: &AccessUnit) {
        self.is_repeated = false;
        if let Some(repeater) = &mut self.repeater {
            repeater.observe(&picture.data);
            let is_whole = repeater.is_between_frames();
            self.idr = (picture.sync == SyncKind::Idr && is_whole).then(|| picture.data.clone());
        }
    }

    /// Notes that pictures are shown until `end`.
    pub(super) fn shown_until(&mut self, end: i64) {
        self.shown = self.shown.max(end);
    }

    /// Returns the time up to which the picture may be repeated from `first` on in steps of `step`, if `until` is wanted;
    /// all in 90 kHz ticks. The budget of what is made up bounds it.
    pub(super) fn stand(&mut self, first: i64, step: i64, until: i64, arrival: Option<i64>) -> i64 {
        let wanted = (until - first).max(0) / step * step;
        first + self.budget.take(wanted, arrival)
    }

    /// Returns the next picture, an independent one if a segment is due and the picture that stands is one, and the time
    /// from which it is shown if it is decoded at `dts`; `None` if the picture cannot be repeated.
    pub(super) fn repeat(&mut self, dts: i64, is_due: bool) -> Option<AccessUnit> {
        let (sync, data) = match &self.idr {
            Some(idr) if is_due => (SyncKind::Idr, idr.clone()),
            _ => (SyncKind::None, self.repeater.as_ref()?.repeat()?.into()),
        };
        self.is_repeated = true;
        let cts = (dts.max(self.shown) - dts) as i32;
        Some(AccessUnit { dts, cts, sync, data })
    }
}
