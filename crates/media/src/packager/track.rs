//! The segments and parts of one track.

use std::collections::VecDeque;

use super::open_part::{IncomingSample, OpenPart};
use super::output::{Output, Part, SegmentEnd, SegmentStart};
use super::timing::PartTiming;
use crate::frame::{AudioConfig, MediaFrame, SegmentTag, TrackConfig, TrackKind, VideoConfig};
use crate::time::Timescale;

/// Init versions that a track remembers: the newest, the one still in use, and room for a publisher
/// that changes often.
const MAX_VERSIONS: usize = 8;

/// The start of a segment over both tracks, as ingest decided it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Boundary {
    pub(super) msn: u64,
    /// The time of the boundary frame in 90 kHz ticks.
    pub(super) start: i64,
    pub(super) discontinuity: bool,
}

/// One track of the packager.
#[derive(Debug)]
pub(super) struct Track {
    kind: TrackKind,
    /// The newest init versions, oldest first.
    inits: VecDeque<(u32, TrackConfig)>,
    /// The segment to be closed next; `None` before the first boundary.
    next: Option<u64>,
    open: Option<OpenSegment>,
    part: OpenPart,
}

/// The segment that parts are being added to.
#[derive(Debug)]
struct OpenSegment {
    head: SegmentStart,
    /// End of its last part.
    end: i64,
    parts: u32,
    bytes: u64,
}

impl Track {
    /// Creates a track whose first segment is `next`, or that of the first boundary.
    pub(super) fn new(kind: TrackKind, next: Option<u64>) -> Self {
        Self { kind, inits: VecDeque::new(), next, open: None, part: OpenPart::default() }
    }

    /// Adds an init version; false if it is known.
    pub(super) fn add_init(&mut self, version: u32, config: &TrackConfig) -> bool {
        if self.inits.iter().any(|(known, ..)| *known == version) {
            return false;
        }
        if self.inits.len() == MAX_VERSIONS {
            self.inits.pop_front();
        }
        self.inits.push_back((version, config.clone()));
        true
    }

    /// Returns the configuration of this init version, or the newest one if it is unknown.
    fn config(&self, version: u32) -> Option<&TrackConfig> {
        let known = self.inits.iter().find(|(known, _)| *known == version);
        known.or(self.inits.back()).map(|(_, config)| config)
    }

    /// Returns the video configuration of this init version.
    pub(super) fn video_config(&self, version: u32) -> Option<&VideoConfig> {
        self.inits.iter().find_map(|(known, config)| match config {
            TrackConfig::Video(video) if *known == version => Some(video),
            _ => None,
        })
    }

    /// Returns the newest audio configuration.
    pub(super) fn audio_config(&self) -> Option<&AudioConfig> {
        match self.inits.back() {
            Some((_, TrackConfig::Audio(audio))) => Some(audio),
            _ => None,
        }
    }

    /// Returns the timescale of this init version.
    pub(super) fn timescale_of(&self, version: u32) -> Timescale {
        self.config(version).map_or(Timescale::VIDEO, TrackConfig::timescale)
    }

    /// Returns the segment to be closed next; `None` before the first boundary.
    pub(super) const fn next_msn(&self) -> Option<u64> {
        self.next
    }

    /// Begins with segment `msn`, unless the track has begun.
    pub(super) fn begin_at(&mut self, msn: u64) {
        self.next.get_or_insert(msn);
    }

    /// Returns the end of the track's media in 90 kHz ticks if segment `msn` is open.
    pub(super) fn end_of(&self, msn: u64) -> Option<i64> {
        let open = self.open.as_ref().filter(|open| open.head.msn == msn)?;
        let end = if self.part.is_empty() { open.end } else { self.part.end() };
        Some(open.head.timescale.convert(end, Timescale::VIDEO))
    }

    /// Drops the samples of the open part. Returns the open segment and the time at which its next part begins, in ticks of
    /// the track's timescale; `None` if no segment is open.
    pub(super) fn drop_open_part(&mut self) -> Option<(u64, i64)> {
        self.part.clear();
        self.open.as_ref().map(|open| (open.head.msn, open.end))
    }

    /// Takes a frame; false if its segment is closed already.
    pub(super) fn push(
        &mut self,
        tag: SegmentTag,
        frame: MediaFrame,
        timing: &PartTiming,
        boundaries: &VecDeque<Boundary>,
        out: &mut VecDeque<Output>,
    ) -> bool {
        if self.next.is_none_or(|next| tag.msn < next) {
            return false;
        }
        let timescale = self.timescale_of(tag.init_version);
        let limit = limit(timescale, timing);
        let mut sample = self.sample(tag, frame, limit);
        if self.open.as_ref().is_none_or(|open| open.head.msn != tag.msn) {
            let Some(before) = tag.msn.checked_sub(1) else { return false };
            self.close_through(before, boundaries, None, out);
            self.start_segment(tag, &sample, timescale, boundaries, out);
        }
        if self.kind == TrackKind::Audio {
            self.keep_order(&mut sample);
        }
        self.make_room(&sample, limit, timing, boundaries, out);
        self.part.add(sample);
        if !tag.may_be_last && self.part_is_full(timing, boundaries) {
            self.close_part(false, out);
        }
        true
    }

    /// Returns the frame as a sample, which lasts `limit` at most: PART-TARGET.
    fn sample(&self, tag: SegmentTag, frame: MediaFrame, limit: i64) -> IncomingSample {
        match frame {
            MediaFrame::Video(picture) => IncomingSample {
                dts: picture.dts,
                pts: picture.pts(),
                duration: i64::from(tag.duration).clamp(1, limit.max(1)) as u32,
                sync: picture.sync.is_join(),
                independent: picture.sync.is_keyframe(),
                data: picture.data,
            },
            MediaFrame::Audio(frame) => IncomingSample {
                dts: frame.pts,
                pts: frame.pts,
                duration: match self.config(tag.init_version) {
                    Some(TrackConfig::Audio(audio)) => audio.samples_of(&frame.data),
                    _ => 1,
                },
                sync: true,
                independent: true,
                data: frame.data,
            },
        }
    }

    fn start_segment(
        &mut self,
        tag: SegmentTag,
        first: &IncomingSample,
        timescale: Timescale,
        boundaries: &VecDeque<Boundary>,
        out: &mut VecDeque<Output>,
    ) {
        let discontinuity =
            boundaries.iter().any(|boundary| boundary.msn == tag.msn && boundary.discontinuity);
        let head = SegmentStart {
            track: self.kind,
            msn: tag.msn,
            start: first.dts,
            timescale,
            discontinuity,
            independent: first.independent,
            init_version: tag.init_version,
        };
        self.next = Some(tag.msn);
        self.open = Some(OpenSegment { head, end: first.dts, parts: 0, bytes: 0 });
        out.push_back(Output::SegmentStart(head));
    }

    /// Lets no audio frame start before the one before it has ended: codecs differ in the length of
    /// frames.
    fn keep_order(&self, sample: &mut IncomingSample) {
        let earliest = match &self.open {
            _ if !self.part.is_empty() => self.part.last() + 1,
            Some(open) if open.parts > 0 => open.end,
            _ => return,
        };
        sample.dts = sample.dts.max(earliest);
    }

    /// Closes the part if it waited for this sample, or would be longer than PART-TARGET with it.
    fn make_room(
        &mut self,
        sample: &IncomingSample,
        limit: i64,
        timing: &PartTiming,
        boundaries: &VecDeque<Boundary>,
        out: &mut VecDeque<Output>,
    ) {
        if self.part.is_empty() {
            return;
        }
        let is_too_long = sample.dts + i64::from(sample.duration) - self.part.start() > limit;
        if is_too_long || self.part_is_full(timing, boundaries) {
            self.close_part(false, out);
        } else {
            self.part.end_last_at(sample.dts);
        }
    }

    /// True if the part ends with its last sample: a video part after its number of frames, an
    /// audio part at or after the end of the video part beside it.
    fn part_is_full(&self, timing: &PartTiming, boundaries: &VecDeque<Boundary>) -> bool {
        match (self.kind, &self.open) {
            (TrackKind::Video, _) => {
                let half = i64::from(timing.frame_ticks) / 2;
                self.part.end() - self.part.start() > timing.part_ticks() - half.max(1)
            }
            (TrackKind::Audio, Some(open)) => {
                // The grid of the video parts: the segment's boundary and multiples of the part's
                // ticks.
                let grid = boundaries.iter().find(|boundary| boundary.msn == open.head.msn);
                let start = open.head.timescale.convert(self.part.start(), Timescale::VIDEO);
                let origin = grid.map_or(start, |boundary| boundary.start);
                let cell = ((start - origin).div_euclid(timing.part_ticks()) + 1).max(1);
                let end = origin + cell * timing.part_ticks();
                !open.head.timescale.is_before(self.part.end(), Timescale::VIDEO, end)
            }
            (TrackKind::Audio, None) => false,
        }
    }

    /// Closes the open part, which may be known to be the last one of its segment.
    fn close_part(&mut self, last: bool, out: &mut VecDeque<Output>) {
        let Some(open) = &mut self.open else { return };
        let Some(part) = self.part.finish(sequence(open.head.msn, open.parts)) else { return };
        let part = Part {
            track: self.kind,
            msn: open.head.msn,
            part: open.parts,
            independent: part.independent,
            last,
            start: part.start,
            duration: (part.end - part.start) as u32,
            timescale: open.head.timescale,
            samples: part.samples,
            body: part.body,
        };
        open.parts += 1;
        open.bytes += part.body.len() as u64;
        open.end = part.start + i64::from(part.duration);
        out.push_back(Output::Part(part));
    }

    /// Closes every segment up to and including `msn`. Those without media are gaps, which end at
    /// the next boundary, or at `end` if there is none.
    pub(super) fn close_through(
        &mut self,
        msn: u64,
        boundaries: &VecDeque<Boundary>,
        end: Option<i64>,
        out: &mut VecDeque<Output>,
    ) {
        while let Some(next) = self.next.filter(|next| *next <= msn) {
            self.close_part(true, out);
            if let Some(open) = self.open.take() {
                out.push_back(Output::SegmentEnd(SegmentEnd {
                    head: open.head,
                    parts: open.parts,
                    duration: (open.end - open.head.start).max(0) as u64,
                    bytes: open.bytes,
                    gap: false,
                }));
            } else if let Some(gap) = self.gap(next, boundaries, end) {
                out.push_back(Output::SegmentStart(gap.head));
                out.push_back(Output::SegmentEnd(gap));
            }
            self.next = Some(next + 1);
        }
    }

    /// Returns segment `msn` as a gap; `None` if its boundary is not known.
    fn gap(&self, msn: u64, boundaries: &VecDeque<Boundary>, end: Option<i64>) -> Option<SegmentEnd> {
        let boundary = boundaries.iter().find(|boundary| boundary.msn == msn)?;
        let end = boundaries.iter().find(|later| later.msn == msn + 1).map(|later| later.start).or(end);
        let newest = self.inits.back().map(|(version, config)| (*version, config.timescale()));
        let (init_version, timescale) = newest.unwrap_or((0, Timescale::VIDEO));
        let duration = end.map_or(0, |end| (end - boundary.start).max(0));
        let head = SegmentStart {
            track: self.kind,
            msn,
            start: Timescale::VIDEO.convert(boundary.start, timescale),
            timescale,
            discontinuity: boundary.discontinuity,
            independent: false,
            init_version,
        };
        let duration = Timescale::VIDEO.convert(duration, timescale) as u64;
        Some(SegmentEnd { head, parts: 0, duration, bytes: 0, gap: true })
    }

    /// Closes the open segment if its media reach the next boundary, without waiting for the next
    /// frame.
    pub(super) fn close_if_reached(&mut self, boundaries: &VecDeque<Boundary>, out: &mut VecDeque<Output>) {
        let Some(open) = &self.open else { return };
        let (msn, timescale) = (open.head.msn, open.head.timescale);
        let Some(next) = boundaries.iter().find(|boundary| boundary.msn == msn + 1) else { return };
        let end = if self.part.is_empty() { open.end } else { self.part.end() };
        if !timescale.is_before(end, Timescale::VIDEO, next.start) {
            self.close_through(msn, boundaries, None, out);
        }
    }
}

/// Returns PART-TARGET in the track's timescale, rounded down.
fn limit(timescale: Timescale, timing: &PartTiming) -> i64 {
    i64::from(timing.part_target) * i64::from(timescale.ticks_per_second()) / 90_000
}

/// Returns the `mfhd` sequence number of a part. It grows with the parts of a segment and with the
/// segments, and wraps after 16 million segments.
const fn sequence(msn: u64, part: u32) -> u32 {
    ((msn as u32) << 8).wrapping_add(part)
}
