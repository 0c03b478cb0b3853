//! Quiescing: a draining primary stops announcing before its successor is granted. The successor then builds on all that
//! readers were shown, and no part changes its name.
//!
//! A primary of several rungs first goes on to the end of the open segment: bits that are encoded twice differ, so a successor
//! would have to encode that segment from its beginning. Encoders look ahead, so its rungs take some media behind the boundary
//! as well (*post-roll*): what they make of the segment is what they would have made of it anyway. What they make of the next
//! one is held. Then they hand in the rest, and it stops.

use std::collections::{BTreeMap, BTreeSet};

use millrace_wire::ids::{Msn, RungId};
use millrace_wire::message::media::{MediaMessage, MediaUnit, Track};

use super::io::Packaged;
use crate::time::Millis;

/// A primary that has quiesced and receives no word of a successor for this long goes on: longer than a session waits for
/// it ([`crate::session::QUIESCE_WAIT_MS`]) and a standby takes to be ready.
pub const QUIESCE_LIMIT_MS: u64 = 3000;
/// Frames of each track that rungs take behind the last segment. The frame of encoded audio that ends with the segment needs
/// 43 ms of what follows, and resampler and encoder look some milliseconds further.
pub const POST_ROLL_FRAMES: u32 = 5;
/// Slow tracks are not waited for: five pictures of 25 a second take so long.
pub const POST_ROLL_MS: u64 = 200;

/// The stage of quiescing.
#[derive(Debug, Default)]
enum Stage {
    /// The job announces what its rungs make.
    #[default]
    Announces,
    /// It takes the media of the last segment to their end.
    ToTheEnd,
    /// It takes no media, and these rungs have yet to hand in what they hold.
    Flushes(BTreeSet<RungId>),
    /// It announces nothing until this time.
    Stopped(Millis),
}

/// The progress of quiescing.
#[derive(Debug, Default)]
pub(super) struct Quiesce {
    stage: Stage,
    /// The segment at whose end the job stops; `None` if it stops at once.
    last: Option<Msn>,
    /// The media behind it, should the job have to go on.
    media: Vec<MediaMessage>,
    /// Their frames.
    frames: BTreeMap<Track, u32>,
    /// The products behind it, should the media end before the job stops.
    products: Vec<(RungId, Packaged)>,
    /// The time until which slow tracks are waited for, once the last segment is over.
    post_roll_until: Option<Millis>,
    /// True if the rungs have closed their segments: to go on, they start anew.
    has_closed: bool,
    /// True if the last heartbeat reported that the log ends here.
    reported: bool,
}

impl Quiesce {
    /// Stops announcing, unless the job quiesces already.
    pub(super) fn start(&mut self, now: Millis) {
        if matches!(self.stage, Stage::Announces) {
            self.stage = Stage::Stopped(now + QUIESCE_LIMIT_MS);
        }
    }

    /// Goes on to the end of segment `open`, and stops announcing then; unless the job quiesces already.
    pub(super) fn start_after(&mut self, open: Msn) {
        if matches!(self.stage, Stage::Announces) {
            *self =
                Self { stage: Stage::ToTheEnd, last: Some(open), reported: self.reported, ..Self::default() };
        }
    }

    /// True if nothing new is announced.
    pub(super) fn is_active(&self) -> bool {
        matches!(self.stage, Stage::Stopped(_))
    }

    /// True if no media are taken.
    pub(super) fn takes_no_media(&self) -> bool {
        matches!(self.stage, Stage::Flushes(_) | Stage::Stopped(_))
    }

    /// Returns the segment at whose end the job stops, while it takes its media.
    pub(super) fn last(&self) -> Option<Msn> {
        self.last.filter(|_| matches!(self.stage, Stage::ToTheEnd))
    }

    /// Keeps the media of a message behind the segment at whose end the job stops. Their bytes are shared.
    pub(super) fn note_media(&mut self, message: &MediaMessage) {
        let Some(last) = self.last() else { return };
        let is_behind = |unit: &&MediaUnit| unit.msn() > last;
        if !message.units.iter().any(|unit| is_behind(&unit)) {
            return;
        }
        let units: Vec<MediaUnit> = message.units.iter().filter(is_behind).cloned().collect();
        for frame in units.iter().filter_map(MediaUnit::frame) {
            *self.frames.entry(frame.track).or_default() += 1;
        }
        let MediaMessage { epoch, seq, end, .. } = *message;
        self.media.push(MediaMessage { epoch, seq, end, units });
    }

    /// True if the media behind the last segment, which is over, suffice for encoders.
    pub(super) fn has_post_roll(&mut self, now: Millis) -> bool {
        let until = *self.post_roll_until.get_or_insert(now + POST_ROLL_MS);
        now >= until || self.frames.values().all(|count| *count >= POST_ROLL_FRAMES)
    }

    /// Returns the product, unless it is of a segment behind the last one: those are held, or dropped once they can only be
    /// made anew.
    pub(super) fn hold_behind(&mut self, rung: &RungId, packaged: Packaged) -> Option<Packaged> {
        let is_behind = self.last.is_some_and(|last| segment_of(&packaged) > Some(last));
        if !is_behind {
            return Some(packaged);
        }
        if matches!(self.stage, Stage::ToTheEnd) {
            self.products.push((rung.clone(), packaged));
        }
        None
    }

    /// Notes that the media of the last segment are complete: `rungs` hand in what they hold.
    pub(super) fn flush(&mut self, rungs: &BTreeSet<RungId>) {
        self.stage = Stage::Flushes(rungs.clone());
        self.products.clear();
        self.has_closed = true;
    }

    /// Notes that a rung has handed in everything. False if that was not asked for to quiesce.
    pub(super) fn on_flushed(&mut self, now: Millis, rung: &RungId) -> bool {
        let Stage::Flushes(rungs) = &mut self.stage else { return self.is_active() && self.has_closed };
        rungs.remove(rung);
        if rungs.is_empty() {
            self.stage = Stage::Stopped(now + QUIESCE_LIMIT_MS);
        }
        true
    }

    /// Gives up stopping at the end of a segment. Returns the products that were held; the rungs go on behind them.
    pub(super) fn give_up(&mut self) -> Vec<(RungId, Packaged)> {
        if self.last().is_none() {
            return Vec::new();
        }
        let Self { products, .. } =
            std::mem::replace(self, Self { reported: self.reported, ..Self::default() });
        products
    }

    /// Resumes announcing once the limit is over. Returns the media that were held if the rungs must start anew.
    pub(super) fn expire(&mut self, now: Millis) -> Option<Vec<MediaMessage>> {
        if !matches!(self.stage, Stage::Stopped(until) if until <= now) {
            return None;
        }
        let Self { has_closed, media, .. } =
            std::mem::replace(self, Self { reported: self.reported, ..Self::default() });
        has_closed.then_some(media)
    }

    /// Notes whether everything announced is stored. True if that is to be reported at once, because it has just become so.
    pub(super) fn set_complete(&mut self, complete: bool) -> bool {
        let was_reported = std::mem::replace(&mut self.reported, complete);
        complete && !was_reported
    }

    /// Returns when announcing resumes, or when slow tracks are no longer waited for.
    pub(super) fn next_timeout(&self) -> Option<Millis> {
        match self.stage {
            Stage::Stopped(until) => Some(until),
            Stage::ToTheEnd => self.post_roll_until,
            Stage::Announces | Stage::Flushes(_) => None,
        }
    }
}

/// Returns the segment that a product is of; `None` if it is of none.
fn segment_of(packaged: &Packaged) -> Option<Msn> {
    match packaged {
        Packaged::Part(part, _) => Some(part.msn),
        Packaged::Segment(segment) => Some(segment.msn),
        Packaged::Gap(gap) => Some(gap.msn),
        Packaged::Init { .. }
        | Packaged::PartTarget { .. }
        | Packaged::RenditionEnd { .. }
        | Packaged::Flushed => None,
    }
}
