//! The copy rung: the publisher's own bits, packaged without encoding.
//!
//! Its output depends only on the media from a segment's boundary on, on the epoch's numbers and on the part timing. So
//! two workers that package the same segment announce the same facts and write the same bytes.

use std::task::{Context, Poll};

use millrace_link::media_convert::media_event;
use millrace_media::frame::TrackKind;
use millrace_media::packager::{Packager, PartSetup};
use millrace_media::repair::{Repair, RepairCounts};
use millrace_protocol::job::Packaged;
use millrace_wire::fact::{EpochOpen, StreamState};
use millrace_wire::ids::{Rendition, RungId};
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
}

impl CopyRung {
    /// Starts the rung on the epoch that `open` describes; the packager takes its part timing from `setup`.
    pub fn new(open: &EpochOpen, setup: PartSetup) -> Self {
        Self {
            id: RungId::copy(),
            packager: Packager::new(setup),
            facts: FactBuilder::new(renditions(), open, setup),
            unreadable_units: 0,
        }
    }

    /// Ends the renditions of `base` that are not among `made`: an earlier epoch of the broadcast had another ladder, and
    /// nothing more comes of them.
    #[must_use]
    pub fn ending_others(mut self, base: &StreamState, made: &[Rendition]) -> Self {
        let Some(last) = base.slots.back().map(|slot| slot.msn) else { return self };
        for (rendition, known) in &base.renditions {
            if known.ended.is_none() && !made.contains(rendition) {
                self.facts.end_rendition(rendition.clone(), last);
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
        self.facts.next().map_or(Poll::Pending, Poll::Ready)
    }
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
