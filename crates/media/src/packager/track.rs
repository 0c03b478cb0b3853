//! One track's segments and parts.

use std::collections::VecDeque;

use bytes::Bytes;

use super::timing::audio_frame_ticks;
use super::{Boundary, Output, Part, PartTiming, SegmentEnd, SegmentStart};
use crate::container::cmaf::{Sample, fragment_header};
use crate::frame::{AAC_FRAME_SAMPLES, MediaFrame, SegmentTag, TrackConfig, TrackKind, VideoConfig};
use crate::time::Timescale;
use millrace_buf::ByteChain;

/// Init versions remembered: the newest and the one still in use, and room for a hurried publisher.
const MAX_VERSIONS: usize = 8;

#[derive(Debug)]
pub(super) struct Track {
    kind: TrackKind,
    inits: VecDeque<(u32, Timescale, TrackConfig)>,
    /// The segment to be closed next; `None` before the first boundary.
    next: Option<u64>,
    open: Option<Segment>,
    part: OpenPart,
}

#[derive(Debug)]
struct Segment {
    head: SegmentStart,
    end: i64,
    parts: u32,
    bytes: u64,
}

/// The part being collected; its two tables are used again for the next one.
#[derive(Debug, Default)]
struct OpenPart {
    start: i64,
    /// Decoding time of the last sample, and its end as it is predicted.
    last: i64,
    end: i64,
    samples: Vec<Sample>,
    data: Vec<Bytes>,
}

/// One sample on its way into a part.
struct Incoming {
    dts: i64,
    /// Presentation time, exact.
    pts: i64,
    duration: u32,
    sync: bool,
    data: ByteChain,
}

impl Track {
    pub(super) const fn new(kind: TrackKind, next: Option<u64>) -> Self {
        let part = OpenPart { start: 0, last: 0, end: 0, samples: Vec::new(), data: Vec::new() };
        Self { kind, inits: VecDeque::new(), next, open: None, part }
    }

    /// False when this version is known.
    pub(super) fn add_init(&mut self, version: u32, timescale: Timescale, config: &TrackConfig) -> bool {
        if self.inits.iter().any(|(known, ..)| *known == version) {
            return false;
        }
        if self.inits.len() == MAX_VERSIONS {
            self.inits.pop_front();
        }
        self.inits.push_back((version, timescale, config.clone()));
        true
    }

    pub(super) fn video_config(&self, version: u32) -> Option<&VideoConfig> {
        self.inits.iter().find_map(|(known, _, config)| match config {
            TrackConfig::Video(video) if *known == version => Some(video),
            _ => None,
        })
    }

    pub(super) fn timescale(&self) -> Timescale {
        self.inits.back().map_or(Timescale::VIDEO, |(_, timescale, _)| *timescale)
    }

    pub(super) fn timescale_of(&self, version: u32) -> Timescale {
        let known = self.inits.iter().find(|(known, ..)| *known == version);
        known.map_or_else(|| self.timescale(), |(_, timescale, _)| *timescale)
    }

    pub(super) fn audio_frame_ticks(&self) -> u32 {
        audio_frame_ticks(self.timescale().ticks_per_second())
    }

    pub(super) const fn next_msn(&self) -> Option<u64> {
        self.next
    }

    pub(super) fn begin_at(&mut self, msn: u64) {
        self.next.get_or_insert(msn);
    }

    /// Where its media ends, in 90 kHz ticks, if that segment is the open one.
    pub(super) fn end_of(&self, msn: u64) -> Option<i64> {
        let open = self.open.as_ref().filter(|open| open.head.msn == msn)?;
        let end = if self.part.samples.is_empty() { open.end } else { self.part.end };
        Some(open.head.timescale.convert(end, Timescale::VIDEO))
    }

    /// False when the unit's segment is closed already.
    pub(super) fn push(
        &mut self,
        stamp: SegmentTag,
        unit: MediaFrame,
        params: &PartTiming,
        boundaries: &VecDeque<Boundary>,
        out: &mut VecDeque<Output>,
    ) -> bool {
        if self.next.is_none_or(|next| stamp.msn < next) {
            return false;
        }
        let timescale = self.timescale_of(stamp.init_version);
        let mut incoming = match unit {
            MediaFrame::Video(unit) => Incoming {
                dts: unit.dts,
                pts: unit.pts(),
                duration: params.frame_ticks.min(params.part_target),
                sync: unit.keyframe,
                data: unit.data,
            },
            MediaFrame::Audio(frame) => Incoming {
                dts: frame.pts,
                pts: frame.pts,
                duration: AAC_FRAME_SAMPLES,
                sync: true,
                data: frame.data,
            },
        };
        if self.open.as_ref().is_none_or(|open| open.head.msn != stamp.msn) {
            if self.kind == TrackKind::Video {
                self.part.meet(
                    incoming.dts,
                    i64::from(params.frame_ticks / 2).max(1),
                    limit(timescale, params),
                );
            }
            let Some(before) = stamp.msn.checked_sub(1) else { return false };
            self.close_through(before, boundaries, None, out);
            self.start_segment(stamp, &incoming, timescale, boundaries, out);
        }
        self.place(&mut incoming, params);
        self.make_room(&incoming, limit(timescale, params), out);
        self.part.add(incoming);
        if self.part_is_full(params, boundaries) {
            self.close_part(out);
        }
        true
    }

    fn start_segment(
        &mut self,
        stamp: SegmentTag,
        first: &Incoming,
        timescale: Timescale,
        boundaries: &VecDeque<Boundary>,
        out: &mut VecDeque<Output>,
    ) {
        let discontinuity =
            boundaries.iter().any(|boundary| boundary.msn == stamp.msn && boundary.discontinuity);
        let head = SegmentStart {
            track: self.kind,
            msn: stamp.msn,
            start: first.dts,
            timescale,
            discontinuity,
            independent: first.sync,
            init_version: stamp.init_version,
        };
        self.next = Some(stamp.msn);
        self.open = Some(Segment { head, end: first.dts, parts: 0, bytes: 0 });
        out.push_back(Output::SegmentStart(head));
    }

    /// Puts a sample's decoding time on the grid of its segment.
    fn place(&self, incoming: &mut Incoming, params: &PartTiming) {
        let Some(open) = self.open.as_ref().filter(|open| open.parts > 0 || !self.part.samples.is_empty())
        else {
            return; // the first sample of a segment is exact
        };
        let (predicted, earliest) = if self.part.samples.is_empty() {
            (open.end, open.end)
        } else {
            (self.part.end, self.part.last + 1)
        };
        let slack = match self.kind {
            TrackKind::Video => i64::from(params.frame_ticks) / 2,
            TrackKind::Audio => 0,
        };
        let error = incoming.dts - predicted;
        let exact = incoming.dts;
        incoming.dts = if error.abs() <= slack { predicted } else { exact.max(earliest) };
        let lead = incoming.dts - exact;
        if lead > slack {
            // Pictures come faster than predicted: a shorter one, or the segment would run ahead without end.
            incoming.duration = u32::try_from(i64::from(incoming.duration) - lead).unwrap_or(0).max(1);
        }
    }

    /// Closes the part when the sample would make it longer than PART-TARGET.
    fn make_room(&mut self, incoming: &Incoming, limit: i64, out: &mut VecDeque<Output>) {
        if self.part.samples.is_empty() {
            return;
        }
        if incoming.dts + i64::from(incoming.duration) - self.part.start > limit {
            if self.kind == TrackKind::Video {
                self.part.meet(incoming.dts, i64::MAX, limit);
            }
            self.close_part(out);
        } else {
            self.part.end_at(incoming.dts);
        }
    }

    fn part_is_full(&self, params: &PartTiming, boundaries: &VecDeque<Boundary>) -> bool {
        match (self.kind, &self.open) {
            (TrackKind::Video, _) => {
                let half = i64::from(params.frame_ticks) / 2;
                self.part.end - self.part.start > params.part_ticks() - half.max(1)
            }
            (TrackKind::Audio, Some(open)) => {
                // The grid of the video parts: the segment's boundary and multiples of the part's ticks.
                let grid = boundaries.iter().find(|boundary| boundary.msn == open.head.msn);
                let start = open.head.timescale.convert(self.part.start, Timescale::VIDEO);
                let origin = grid.map_or(start, |boundary| boundary.start);
                let cell = ((start - origin).div_euclid(params.part_ticks()) + 1).max(1);
                let end = origin + cell * params.part_ticks();
                !open.head.timescale.is_before(self.part.end, Timescale::VIDEO, end)
            }
            (TrackKind::Audio, None) => false,
        }
    }

    fn close_part(&mut self, out: &mut VecDeque<Output>) {
        let Some(open) = &mut self.open else { return };
        let Some(first) = self.part.samples.first() else { return };
        let independent = first.sync;
        let header =
            fragment_header(sequence(open.head.msn, open.parts), self.part.start, &self.part.samples);
        let mut body = ByteChain::with_capacity(1 + self.part.data.len());
        body.push(header);
        body.extend(self.part.data.drain(..));
        let part = Part {
            track: self.kind,
            msn: open.head.msn,
            part: open.parts,
            independent,
            start: self.part.start,
            duration: (self.part.end - self.part.start) as u32,
            timescale: open.head.timescale,
            samples: self.part.samples.len() as u32,
            body,
        };
        open.parts += 1;
        open.bytes += part.body.len() as u64;
        open.end = self.part.end;
        self.part.samples.clear();
        out.push_back(Output::Part(part));
    }

    /// Closes every segment up to and including `msn`; those without media are gaps, which end at `end` when no later
    /// boundary is known.
    pub(super) fn close_through(
        &mut self,
        msn: u64,
        boundaries: &VecDeque<Boundary>,
        end: Option<i64>,
        out: &mut VecDeque<Output>,
    ) {
        while let Some(next) = self.next.filter(|next| *next <= msn) {
            self.close_part(out);
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

    fn gap(&self, msn: u64, boundaries: &VecDeque<Boundary>, end: Option<i64>) -> Option<SegmentEnd> {
        let boundary = boundaries.iter().find(|boundary| boundary.msn == msn)?;
        let end = boundaries.iter().find(|later| later.msn == msn + 1).map(|later| later.start).or(end);
        let (init_version, timescale) =
            self.inits.back().map_or((0, Timescale::VIDEO), |init| (init.0, init.1));
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

    /// Audio that reaches the next boundary has its segment complete; no need to wait for the next frame.
    pub(super) fn close_if_reached(&mut self, boundaries: &VecDeque<Boundary>, out: &mut VecDeque<Output>) {
        let Some(open) = &self.open else { return };
        let (msn, timescale) = (open.head.msn, open.head.timescale);
        let Some(next) = boundaries.iter().find(|boundary| boundary.msn == msn + 1) else { return };
        let end = if self.part.samples.is_empty() { open.end } else { self.part.end };
        if !timescale.is_before(end, Timescale::VIDEO, next.start) {
            self.close_through(msn, boundaries, None, out);
        }
    }
}

impl OpenPart {
    /// Appends a sample.
    fn add(&mut self, incoming: Incoming) {
        if self.samples.is_empty() {
            self.start = incoming.dts;
        }
        self.last = incoming.dts;
        self.end = incoming.dts + i64::from(incoming.duration);
        self.samples.push(Sample {
            duration: incoming.duration,
            size: incoming.data.len() as u32,
            cts: (incoming.pts - incoming.dts) as i32,
            sync: incoming.sync,
        });
        self.data.extend(incoming.data);
    }

    /// The last sample lasts until `end`.
    fn end_at(&mut self, end: i64) {
        let Some(last) = self.samples.last_mut() else { return };
        self.end = end.max(self.last + 1);
        last.duration = (self.end - self.last) as u32;
    }

    /// The last sample lasts until `next` when that is within `slack` of the prediction and within the limit; a later
    /// `next` leaves a hole.
    fn meet(&mut self, next: i64, slack: i64, limit: i64) {
        if !self.samples.is_empty() && next > self.last && next - self.end <= slack {
            self.end_at(next.min(self.start + limit));
        }
    }
}

/// PART-TARGET in the track's timescale, rounded down.
fn limit(timescale: Timescale, params: &PartTiming) -> i64 {
    i64::from(params.part_target) * i64::from(timescale.ticks_per_second()) / 90_000
}

/// `mfhd` sequence number: grows with the part within a segment and with the segments, and wraps after 16 million.
const fn sequence(msn: u64, part: u32) -> u32 {
    ((msn as u32) << 8).wrapping_add(part)
}
