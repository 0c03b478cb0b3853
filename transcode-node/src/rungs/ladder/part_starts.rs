//! The first places of the parts that a successor begins with: it encodes an IDR picture for each, because its pictures
//! do not refer to those of its predecessor.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use millrace_buf::ByteChain;
use millrace_link::media_convert::media_event;
use millrace_media::frame::{MediaEvent, TrackConfig};
use millrace_media::packager::{Output, Packager, PartSetup, PartTiming};
use millrace_wire::fact::StreamState;
use millrace_wire::ids::{Epoch, InitVersion, Rendition};
use millrace_wire::message::media::{FrameUnit, MediaUnit};

use super::segments::Span;
use super::steps::VideoStart;

/// The parts of one open segment of a rendition that a predecessor has announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Announced {
    /// The number of parts.
    pub(super) parts: u32,
    /// The initialisation section that they are decoded with.
    pub(super) init_version: InitVersion,
}

/// Returns the segments of a rendition in `epoch` that a predecessor has begun and not completed.
pub(super) fn announced(base: &StreamState, epoch: Epoch, rendition: &Rendition) -> BTreeMap<u64, Announced> {
    let of_epoch = base.slots.iter().filter(|slot| slot.epoch == epoch && slot.gap.is_none());
    let begun = of_epoch.filter_map(|slot| {
        let track = slot.tracks.get(rendition)?;
        let is_open = track.segment.is_none() && !slot.rendition_gaps.contains_key(rendition);
        let parts = u32::try_from(track.parts.len()).ok().filter(|parts| *parts > 0 && is_open)?;
        Some((slot.msn.0, Announced { parts, init_version: track.init_version }))
    });
    begun.collect()
}

/// Finds the first places of parts among the source's pictures.
#[derive(Debug, Default)]
pub(super) struct PartStarts {
    /// The parts to be found, by segment and index.
    wanted: BTreeSet<(u64, u32)>,
    grid: Option<Grid>,
}

impl PartStarts {
    /// Creates a finder of these parts: segment and index.
    pub(super) fn new(wanted: BTreeSet<(u64, u32)>) -> Self {
        Self { wanted, grid: None }
    }

    /// Takes the next picture, whose segment is `span` and which `start` configures. True if one of the wanted parts
    /// begins with it.
    pub(super) fn take(&mut self, frame: &FrameUnit, span: Option<Span>, start: &VideoStart) -> bool {
        let is_past = |(last, _): &(u64, u32)| *last < frame.msn.0;
        if self.wanted.last().is_none_or(is_past) {
            (self.grid, self.wanted) = (None, BTreeSet::new());
            return false;
        }
        let begun = self.grid.get_or_insert_with(|| Grid::new(start.timing)).take(frame, span, start);
        begun.is_some_and(|part| self.wanted.contains(&(frame.msn.0, part)))
    }
}

/// Packages pictures without their bytes, to see which of them begin parts.
#[derive(Debug)]
struct Grid {
    packager: Packager,
    version: Option<u32>,
    msn: Option<u64>,
    /// The index of the open part in its segment.
    part: u32,
    /// The number of pictures in the open part.
    pictures: u32,
}

impl Grid {
    fn new(timing: PartTiming) -> Self {
        let packager = Packager::new(PartSetup::Resume(timing));
        Self { packager, version: None, msn: None, part: 0, pictures: 0 }
    }

    /// Takes a picture; returns the index of the part that begins with it, if one does.
    fn take(&mut self, frame: &FrameUnit, span: Option<Span>, start: &VideoStart) -> Option<u32> {
        let VideoStart { version, config, timing, .. } = start;
        if self.version.replace(*version) != Some(*version) {
            let config = TrackConfig::Video(config.clone());
            self.packager.push(MediaEvent::Init { version: *version, config });
            self.packager.adopt(frame.msn.0, *timing);
        }
        if let Some(span) = span.filter(|span| span.msn == frame.msn.0) {
            self.packager.begin_segment(span.msn, span.start, span.discontinuity);
        }
        let without_bytes = FrameUnit { data: ByteChain::new(), ..frame.clone() };
        self.packager.push(media_event(MediaUnit::Frame(without_bytes)).ok()?);
        if self.msn.replace(frame.msn.0) != Some(frame.msn.0) {
            (self.part, self.pictures) = (0, 0);
        }
        let outputs = std::iter::from_fn(|| self.packager.poll());
        let closed = outputs.filter_map(|output| match output {
            Output::Part(part) if part.msn == frame.msn.0 => Some(part.samples),
            _ => None,
        });
        let mut closed = closed.collect::<VecDeque<u32>>();
        // A part that waited for the next picture closes without it.
        if self.pictures > 0 && closed.pop_front_if(|samples| *samples == self.pictures).is_some() {
            (self.part, self.pictures) = (self.part + 1, 0);
        }
        let begun = (self.pictures == 0).then_some(self.part);
        self.pictures += 1;
        if !closed.is_empty() {
            (self.part, self.pictures) = (self.part + 1, 0);
        }
        begun
    }
}
