//! The copy rung: the publisher's own bits, packaged without encoding.
//!
//! Its output depends only on the media from a segment's boundary on, on the epoch's numbers and on the part timing. So
//! two workers that package the same segment announce the same facts and write the same bytes.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use millrace_link::media_convert::media_event;
use millrace_media::frame::TrackKind;
use millrace_media::packager::{Packager, PartSetup};
use millrace_media::repair::{Repair, RepairCounts};
use millrace_protocol::job::Packaged;
use millrace_wire::fact::{EpochOpen, RenditionGap, Segment, StreamState};
use millrace_wire::ids::{Msn, Rendition, RungId};
use millrace_wire::message::control::StreamSettings;
use millrace_wire::message::media::{MediaMessage, Track};

use super::Rung;
use super::facts::{FactBuilder, TrackRenditions};

/// The copy rung at work on one epoch.
#[derive(Debug)]
pub struct CopyRung {
    id: RungId,
    packager: Packager,
    facts: FactBuilder,
    unreadable_units: u64,
    /// Listed renditions that no rung of the job makes.
    absent: Vec<Rendition>,
    /// The newest segment that they lack.
    lacked: Option<Msn>,
    gaps: VecDeque<Packaged>,
}

impl CopyRung {
    /// Starts the rung on the epoch that `open` describes; the packager takes its part timing from `setup`.
    pub fn new(open: &EpochOpen, setup: PartSetup) -> Self {
        Self {
            id: RungId::copy(),
            packager: Packager::new(setup),
            facts: FactBuilder::new(renditions(), open, setup),
            unreadable_units: 0,
            absent: Vec::new(),
            lacked: None,
            gaps: VecDeque::new(),
        }
    }

    /// Answers for the renditions of `base` that no rung of this job makes. Those that the epoch's plan has not, because an
    /// earlier epoch had another ladder, end; those that are only not encoded here lack each segment.
    #[must_use]
    pub fn beside(mut self, base: &StreamState, planned: &[Rendition], made: &[Rendition]) -> Self {
        for (rendition, _) in base.renditions.iter().filter(|(_, known)| known.ended.is_none()) {
            if !planned.contains(rendition) {
                if let Some(last) = base.slots.back().map(|slot| slot.msn) {
                    self.facts.end_rendition(rendition.clone(), last);
                }
            } else if !made.contains(rendition) {
                self.absent.push(rendition.clone());
            }
        }
        self
    }

    /// Returns how many units could not be read or came too late to be packaged.
    pub const fn lost_units(&self) -> u64 {
        self.unreadable_units + self.packager.repairs().get(Repair::LateFrame)
    }

    fn collect(&mut self) {
        while let Some(output) = self.packager.poll() {
            self.facts.take(output);
        }
    }
}

impl Rung for CopyRung {
    fn id(&self) -> &RungId {
        &self.id
    }

    fn repairs(&self) -> RepairCounts {
        let mut repairs = *self.packager.repairs();
        repairs.add(Repair::UnreadableMessage, self.unreadable_units);
        repairs
    }

    fn push(&mut self, message: MediaMessage) {
        for unit in message.units {
            self.facts.begin_segment(unit.msn(), unit.discontinuity_sequence());
            if let Some(config) = unit.config() {
                self.facts.declare(track_kind(unit.track()), config.init_version, config.bit_rate);
            }
            match media_event(unit) {
                Ok(event) => {
                    self.packager.push(event);
                    self.collect();
                }
                Err(error) => {
                    self.unreadable_units += 1;
                    tracing::warn!(%error, "media unit left out of its segment");
                }
            }
        }
    }

    fn finish(&mut self) {
        self.packager.finish();
        self.collect();
        self.facts.flushed();
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<Packaged> {
        let next = self.gaps.pop_front().or_else(|| self.facts.next());
        if let Some(Packaged::Segment(segment)) = &next
            && self.lacked < Some(segment.msn)
        {
            self.lacked = Some(segment.msn);
            self.gaps.extend(self.absent.iter().map(|rendition| gap(rendition, segment)));
        }
        next.map_or(Poll::Pending, Poll::Ready)
    }
}

/// Returns the GAP of a rendition that lacks a segment which the copy rung has.
fn gap(rendition: &Rendition, segment: &Segment) -> Packaged {
    let Segment { msn, duration, discontinuity_sequence, program_date_time, .. } = *segment;
    let rendition = rendition.clone();
    Packaged::Gap(RenditionGap { rendition, msn, duration, discontinuity_sequence, program_date_time })
}

/// Returns the part timing that the copy rung starts with if it goes on from `base`: a running stream keeps its
/// PART-TARGET, that of a new one follows from its settings.
pub fn part_setup(base: &StreamState, settings: &StreamSettings) -> PartSetup {
    renditions().part_setup(base, settings.part_ms)
}

fn renditions() -> TrackRenditions {
    TrackRenditions { video: Rendition::video(), audio: Rendition::audio() }
}

const fn track_kind(track: Track) -> TrackKind {
    match track {
        Track::Video => TrackKind::Video,
        Track::Audio => TrackKind::Audio,
    }
}
