//! One encoded rung: the transcoder's pictures take over the places of the source's.

use std::collections::VecDeque;

use millrace_buf::ByteChain;
use millrace_codec::engine::order::{RungIndex, Slot};
use millrace_codec::engine::product::{CodedPicture, RungStart};
use millrace_media::codec::CodecError;
use millrace_media::frame::{
    AccessUnit, MediaFrame, SegmentTag, SyncKind, TaggedFrame, TrackConfig, TrackKind, VideoConfig,
};
use millrace_media::packager::PartTiming;
use millrace_protocol::job::Packaged;
use millrace_wire::fact::{EpochOpen, StreamState};
use millrace_wire::ids::Rendition;

use super::segments::{Place, Places, Segments};
use super::track::Track;

/// Bytes of a part's `moof` and of the header of its `mdat`, without the entries of samples.
const PART_HEADER_BYTES: u64 = 104;
/// Bytes of a sample's entry in `trun`: duration, size, flags, composition offset.
const SAMPLE_ENTRY_BYTES: u64 = 16;
/// 90 kHz ticks of a second.
const SECOND: u64 = 90_000;

/// One encoded rung at work.
#[derive(Debug)]
pub(super) struct VideoRung {
    pub(super) index: RungIndex,
    pub(super) track: Track,
    /// The place of the next picture; `None` if the rung waits for the first place of a segment.
    next: Option<Slot>,
    /// The decoding time from which on the rung goes on behind the parts of a transcoder that has ended, until its place is
    /// ordered.
    resumes: Option<i64>,
    /// The place at which it goes on: its picture must be an IDR picture.
    joint: Option<Slot>,
    /// The source's version of the newest start.
    version: u32,
    /// True if the transcoder makes nothing of the newest configuration for this rung.
    pub(super) is_dropped: bool,
    /// True if the rung is shed: the transcoder was told to leave it out.
    pub(super) is_shed: bool,
}

impl VideoRung {
    /// Creates the rung `index` of the plan, whose rendition goes on from `base`.
    pub(super) fn new(index: RungIndex, rendition: Rendition, open: &EpochOpen, base: &StreamState) -> Self {
        let track = Track::new(rendition, TrackKind::Video, open, base);
        let (next, resumes, joint, version) = (None, None, None, 0);
        Self { index, track, next, resumes, joint, version, is_dropped: false, is_shed: false }
    }

    /// True if the transcoder is to make pictures for the rung.
    pub(super) const fn is_wanted(&self) -> bool {
        !self.is_dropped && !self.is_shed
    }

    /// Takes the start of the rung's encoder. `source` is the part timing of the source's configuration, `rate` its frame
    /// rate in thousandths.
    pub(super) fn start(
        &mut self,
        start: RungStart,
        source: PartTiming,
        rate: u32,
        out: &mut VecDeque<Packaged>,
    ) -> Result<(), CodecError> {
        if start.source_version < self.version {
            // Its pictures have been packaged, or are lost: a transcoder decodes them before those that are owed.
            return Ok(());
        }
        self.version = start.source_version;
        let mut config = VideoConfig::from_avcc(start.record)?;
        config.frame_rate = Some((start.frame_rate_milli, 1000));
        let timing = divided(source, division(rate, start.frame_rate_milli), self.track.part_target());
        let bandwidth = start.bitrate + overhead(timing);
        let config = TrackConfig::Video(config);
        if self.track.describe(start.source_version, config, timing, bandwidth, out) {
            if self.joint.is_some() || self.resumes.is_some() {
                // The parts that are packaged need another section than those that would follow.
                self.wait();
            }
            self.next = None;
        }
        Ok(())
    }

    /// Takes a picture of the encoder. One that cannot be packaged loses its segment.
    pub(super) fn picture(
        &mut self,
        coded: CodedPicture,
        places: &Places,
        segments: &Segments,
        out: &mut VecDeque<Packaged>,
    ) {
        let CodedPicture { slot, slots, pts, idr, data, .. } = coded;
        if self.resumes.is_some() || self.next.is_some_and(|next| slot < next) {
            // Another transcoder has encoded its place, and it is packaged.
            return;
        }
        let Some(first) = places.get(slot) else { return self.wait() };
        let is_next = self.next == Some(slot);
        let span = segments.get(first.msn).filter(|_| self.track.owed.is_open(first.msn));
        let (Some(span), Some((duration, last))) = (span, places.over(slot, slots)) else {
            return self.wait();
        };
        let is_joint = self.joint.take_if(|joint| *joint == slot).is_some();
        let is_whole = if first.starts_segment { idr } else { is_next && (idr || !is_joint) };
        if !is_whole {
            if self.next.is_some() {
                self.track.owed.lose_through(first.msn);
            }
            return self.wait();
        }
        if first.starts_segment {
            if !is_next {
                self.wait();
            }
            // What is open has all its pictures: it closes.
            self.track.begin(&span, out);
            self.track.owed.lose_through(first.msn.saturating_sub(1));
        }
        let tag = SegmentTag {
            msn: first.msn,
            discontinuity: false,
            boundary: false,
            independent: idr,
            init_version: 0,
            duration,
            may_be_last: last.may_be_last,
        };
        let sync = if idr { SyncKind::Idr } else { SyncKind::None };
        let cts = i32::try_from(pts.saturating_sub(first.dts)).unwrap_or_default();
        let picture = AccessUnit { dts: first.dts, cts, sync, data: ByteChain::from(data) };
        self.track.push(TaggedFrame { tag, frame: MediaFrame::Video(picture) }, out);
        let next = Slot(slot.0 + u64::from(slots.max(1)));
        self.next = Some(next);
        self.close_if_last(first, places.get(next), segments, out);
    }

    /// Drops what is open, and waits for the first place of a segment.
    pub(super) fn wait(&mut self) {
        self.joint = None;
        if self.next.take().is_some() | self.resumes.take().is_some() {
            self.track.drop_open();
        }
    }

    /// Drops what is open, and loses what the rung owes.
    pub(super) fn lose(&mut self) {
        self.wait();
        self.track.owed.lose_through(u64::MAX);
    }

    /// Goes on behind the parts that are packaged, because another transcoder encodes again what the ended one had not handed
    /// in. Segments before `first` are lost.
    pub(super) fn rewind(&mut self, first: u64) {
        self.track.owed.lose_before(first);
        if self.next.is_none() && self.resumes.is_none() {
            return;
        }
        match self.track.rewind() {
            Some((_, at)) => (self.next, self.resumes, self.joint) = (None, Some(at), None),
            None => self.wait(),
        }
    }

    /// Returns the decoding time of the first place that the rung needs from the next transcoder; `None` if it owes nothing.
    pub(super) fn needs_from(&self, segments: &Segments) -> Option<i64> {
        let first = self.track.owed.first()?;
        self.resumes.or_else(|| segments.get(first).map(|span| span.start))
    }

    /// Notes that a place is ordered. True if the rung goes on there, which takes an IDR picture.
    pub(super) fn ordered(&mut self, slot: Slot, dts: i64) -> bool {
        let goes_on = self.resumes.take_if(|at| *at <= dts).is_some();
        if goes_on {
            (self.next, self.joint) = (Some(slot), Some(slot));
        }
        goes_on
    }

    /// Closes the open segment: no picture follows.
    pub(super) fn close(&mut self, out: &mut VecDeque<Packaged>) {
        if self.next.take().is_some() | self.resumes.take().is_some() {
            self.track.close(out);
        }
    }

    /// Closes the open segment at once if the place that follows is known to begin another one.
    fn close_if_last(
        &mut self,
        first: Place,
        next: Option<Place>,
        segments: &Segments,
        out: &mut VecDeque<Packaged>,
    ) {
        if let Some(next) = next.filter(|next| next.msn != first.msn)
            && let Some(span) = segments.get(next.msn)
        {
            self.track.begin(&span, out);
        }
    }
}

/// Returns how many places one picture of a rung takes.
fn division(source_rate: u32, rung_rate: u32) -> u32 {
    let rung_rate = rung_rate.max(1);
    ((source_rate + rung_rate / 2) / rung_rate).max(1)
}

/// Returns the part timing of a rung whose pictures take `division` places each. Its parts are those of the source where
/// their number of pictures can be divided, else a picture shorter. A PART-TARGET that is known stays.
fn divided(source: PartTiming, division: u32, known: Option<u32>) -> PartTiming {
    let frame_ticks = source.frame_ticks.saturating_mul(division).max(1);
    let frames = (source.frames / division).max(1);
    let own = if source.frames.is_multiple_of(division) { source.part_target } else { frames * frame_ticks };
    let part_target = known.unwrap_or(own);
    let frames = frames.min((part_target / frame_ticks).max(1));
    PartTiming { init_version: source.init_version, frame_ticks, frames, part_target }
}

/// Returns the bits per second that packaging adds to the pictures.
fn overhead(timing: PartTiming) -> u64 {
    let parts = SECOND.div_ceil(timing.part_ticks().max(1).unsigned_abs());
    let pictures = SECOND.div_ceil(u64::from(timing.frame_ticks.max(1)));
    8 * (parts * PART_HEADER_BYTES + pictures * SAMPLE_ENTRY_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: PartTiming =
        PartTiming { init_version: Some(0), frame_ticks: 1500, frames: 12, part_target: 19_200 };

    #[test]
    fn parts_of_a_divided_rung_lie_on_the_source_s_grid_where_they_can() {
        assert_eq!(divided(SOURCE, 1, None), SOURCE);
        let half = divided(SOURCE, 2, None);
        assert_eq!((half.frame_ticks, half.frames, half.part_target), (3000, 6, 19_200));
        let odd =
            divided(PartTiming { frames: 17, frame_ticks: 1800, part_target: 30_720, ..SOURCE }, 2, None);
        assert_eq!((odd.frame_ticks, odd.frames, odd.part_target), (3600, 8, 28_800));
        let kept = divided(SOURCE, 2, Some(12_000));
        assert_eq!((kept.frames, kept.part_target), (4, 12_000));
    }

    #[test]
    fn division_follows_from_the_frame_rates() {
        let rates =
            [(60_000, 30_000), (59_940, 29_970), (50_000, 25_000), (30_000, 30_000), (120_000, 30_000)];
        assert_eq!(rates.map(|(source, rung)| division(source, rung)), [2, 2, 2, 1, 4]);
        assert_eq!(division(1_000, 0), 1_000);
    }

    #[test]
    fn overhead_of_five_parts_of_thirty_pictures_a_second_is_8_kilobits() {
        let timing = PartTiming { frame_ticks: 3000, frames: 6, ..SOURCE };
        assert_eq!(overhead(timing), 8_000);
    }
}
