//! The segments and the places of the source, as ingest has tagged them.

use std::collections::VecDeque;

use millrace_codec::engine::order::Slot;
use millrace_media::time::Timescale;
use millrace_media::timeline::TIMELINE_START;
use millrace_wire::fact::{EpochOpen, MediaDuration, RenditionGap};
use millrace_wire::ids::{DiscontinuitySeq, Msn, Rendition, UnixMillis};

/// Segments that are remembered: renditions are at most six behind the source.
const MAX_SEGMENTS: usize = 16;
/// Places that are remembered: 34 s of 120 pictures a second, and all that a new transcoder is given
/// ([`recent`](super::recent)). One that is further behind has been given up.
const MAX_PLACES: usize = 4096;

/// The beginning of a segment of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// Media sequence number of the segment.
    pub(super) msn: u64,
    /// The time of its boundary, in 90 kHz ticks.
    pub(super) start: i64,
    /// True if it follows a discontinuity.
    pub(super) discontinuity: bool,
    /// Its absolute discontinuity sequence number.
    pub(super) sequence: DiscontinuitySeq,
}

/// The newest segments of the source.
#[derive(Debug)]
pub(super) struct Segments {
    spans: VecDeque<Span>,
    /// The end of the newest segment in 90 kHz ticks, once the source has ended.
    end: Option<i64>,
    epoch_start: UnixMillis,
}

impl Segments {
    /// Creates the segments of the epoch that `open` describes, of which there are none yet.
    pub(super) fn new(open: &EpochOpen) -> Self {
        Self { spans: VecDeque::new(), end: None, epoch_start: open.program_date_time }
    }

    /// Adds a segment.
    pub(super) fn begin(&mut self, span: Span) {
        self.spans.push_back(span);
        if self.spans.len() > MAX_SEGMENTS {
            self.spans.pop_front();
        }
    }

    /// Ends the newest segment: no other one follows.
    pub(super) fn end(&mut self, ticks: i64) {
        self.end = Some(ticks);
    }

    /// Returns the number of the newest segment.
    pub(super) fn newest(&self) -> Option<u64> {
        self.spans.back().map(|span| span.msn)
    }

    /// Returns the oldest segment that `choose` takes.
    pub(super) fn first(&self, choose: impl Fn(&Span) -> bool) -> Option<Span> {
        self.spans.iter().find(|span| choose(span)).copied()
    }

    /// Returns a segment by its number.
    pub(super) fn get(&self, msn: u64) -> Option<Span> {
        self.spans.iter().find(|span| span.msn == msn).copied()
    }

    /// Returns the segment in whose time `ticks` of 90 kHz lies; `None` before the first one.
    pub(super) fn at(&self, ticks: i64) -> Option<Span> {
        self.spans.iter().rev().find(|span| span.start <= ticks).copied()
    }

    /// Returns the time from a segment's boundary to its end in 90 kHz ticks; `None` while its end is not known.
    pub(super) fn duration(&self, span: &Span) -> Option<u64> {
        let next = self.spans.iter().find(|next| next.msn > span.msn).map(|next| next.start);
        next.or(self.end).map(|end| u64::try_from(end - span.start).unwrap_or(0).max(1))
    }

    /// True if the segment has ended, or is too old to be remembered.
    pub(super) fn is_over(&self, msn: u64) -> bool {
        self.get(msn).is_none_or(|span| self.duration(&span).is_some())
    }

    /// Returns the GAP of a rendition that lacks the segment; `None` if the segment is not remembered.
    pub(super) fn gap(&self, rendition: &Rendition, msn: u64) -> Option<RenditionGap> {
        let span = self.get(msn)?;
        let ticks = self.duration(&span)?;
        Some(RenditionGap {
            rendition: rendition.clone(),
            msn: Msn(msn),
            duration: MediaDuration { ticks, timescale: Timescale::VIDEO.ticks_per_second() },
            discontinuity_sequence: span.sequence,
            program_date_time: self.wall_clock(span.start),
        })
    }

    /// Returns the wall clock of a time in 90 kHz ticks.
    pub(super) fn wall_clock(&self, ticks: i64) -> UnixMillis {
        let start = Timescale::VIDEO.convert(TIMELINE_START, Timescale::MILLIS);
        let millis = Timescale::VIDEO.convert(ticks, Timescale::MILLIS) - start;
        UnixMillis(self.epoch_start.0.saturating_add_signed(millis))
    }
}

/// A place in the source's decoding order, which one picture of each rung takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Media sequence number of its segment.
    pub(super) msn: u64,
    /// Its decoding time in 90 kHz ticks.
    pub(super) dts: i64,
    /// Decoding time to the next place, in 90 kHz ticks.
    pub(super) duration: u32,
    /// True for the first place of its segment.
    pub(super) starts_segment: bool,
    /// True if the next place may begin another segment.
    pub(super) may_be_last: bool,
}

/// The newest places that were given to the transcoder, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Places {
    first: u64,
    places: VecDeque<Place>,
}

impl Places {
    /// Adds a place and returns its number.
    pub(super) fn add(&mut self, place: Place) -> Slot {
        self.places.push_back(place);
        if self.places.len() > MAX_PLACES {
            self.places.pop_front();
            self.first += 1;
        }
        Slot(self.first + self.places.len() as u64 - 1)
    }

    /// Returns a place by its number.
    pub(super) fn get(&self, slot: Slot) -> Option<Place> {
        let index = usize::try_from(slot.0.checked_sub(self.first)?).ok()?;
        self.places.get(index).copied()
    }

    /// Returns the decoding time from place `slot` over `slots` places, which all must be known, and the last of them.
    pub(super) fn over(&self, slot: Slot, slots: u32) -> Option<(u32, Place)> {
        let last = Slot(slot.0.checked_add(u64::from(slots.max(1)) - 1)?);
        let newest = self.get(last)?;
        let places = (slot.0..=last.0).map(|slot| self.get(Slot(slot)));
        let duration = places.map(|place| place.map_or(0, |place| u64::from(place.duration))).sum::<u64>();
        Some((u32::try_from(duration).unwrap_or(u32::MAX), newest))
    }
}
