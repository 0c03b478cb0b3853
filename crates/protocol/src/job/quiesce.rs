//! Quiescing: a draining primary stops announcing before its successor is granted. The successor then builds on all that
//! readers were shown, and no part changes its name.
//!
//! A primary of several rungs first goes on to the end of the open segment: bits that are encoded twice differ, so a successor
//! would have to encode that segment from its beginning. Its rungs hand in what they hold, and then it stops.

use std::collections::BTreeSet;

use millrace_wire::ids::{Msn, RungId};
use millrace_wire::message::media::MediaMessage;

use crate::time::Millis;

/// A primary that has quiesced and receives no word of a successor for this long goes on: longer than a session waits for
/// it ([`crate::session::QUIESCE_WAIT_MS`]) and a standby takes to be ready.
pub const QUIESCE_LIMIT_MS: u64 = 3000;

/// The stage of quiescing.
#[derive(Debug, Default)]
enum Stage {
    /// The job announces what its rungs make.
    #[default]
    Announces,
    /// It takes the media of the open segment, the number of which this is, to their end.
    ToTheEndOf(Msn),
    /// It takes no media, and these rungs have yet to hand in what they hold.
    Flushes(BTreeSet<RungId>),
    /// It announces nothing until this time.
    Stopped(Millis),
}

/// The progress of quiescing.
#[derive(Debug, Default)]
pub(super) struct Quiesce {
    stage: Stage,
    /// The media behind the segment at whose end the job stops, should it have to go on.
    held: Vec<MediaMessage>,
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
            self.stage = Stage::ToTheEndOf(open);
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
        if let Stage::ToTheEndOf(last) = self.stage { Some(last) } else { None }
    }

    /// Returns the message without the media behind the segment at whose end the job stops; those are held.
    pub(super) fn hold_behind(&mut self, mut message: MediaMessage) -> MediaMessage {
        let Some(last) = self.last() else { return message };
        let (behind, within) = message.units.into_iter().partition(|unit| unit.msn() > last);
        message.units = within;
        if !Vec::is_empty(&behind) {
            self.held.push(MediaMessage { units: behind, ..message.clone() });
        }
        message
    }

    /// Notes that the media of the last segment are complete: `rungs` hand in what they hold.
    pub(super) fn flush(&mut self, rungs: &BTreeSet<RungId>) {
        self.stage = Stage::Flushes(rungs.clone());
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

    /// Gives up stopping at the end of a segment. Returns the media that were held.
    pub(super) fn give_up(&mut self) -> Vec<MediaMessage> {
        if self.last().is_some() {
            self.stage = Stage::Announces;
        }
        if self.takes_no_media() { Vec::new() } else { std::mem::take(&mut self.held) }
    }

    /// Resumes announcing once the limit is over. Returns the media that were held if the rungs must start anew.
    pub(super) fn expire(&mut self, now: Millis) -> Option<Vec<MediaMessage>> {
        if !matches!(self.stage, Stage::Stopped(until) if until <= now) {
            return None;
        }
        self.stage = Stage::Announces;
        std::mem::take(&mut self.has_closed).then(|| std::mem::take(&mut self.held))
    }

    /// Notes whether everything announced is stored. True if that is to be reported at once, because it has just become so.
    pub(super) fn set_complete(&mut self, complete: bool) -> bool {
        let was_reported = std::mem::replace(&mut self.reported, complete);
        complete && !was_reported
    }

    /// Returns when announcing resumes; `None` if it has not stopped.
    pub(super) fn next_timeout(&self) -> Option<Millis> {
        if let Stage::Stopped(until) = self.stage { Some(until) } else { None }
    }
}
