//! Media for the packager, in order. Missing messages are repaired from the session's replay buffer; what it no longer
//! holds becomes GAPs, and a segment is begun at its boundary only.
//!
//! What comes before the resume point is *pre-roll*: decoders of encoding rungs begin with it, and nothing packages it. A
//! job waits for it for a moment only, because the rung that copies could go on without.

use std::collections::{BTreeMap, BTreeSet};

use millrace_wire::fact::{SegmentSlot, StreamState};
use millrace_wire::ids::{Epoch, MediaSeq, Msn};
use millrace_wire::message::media::{MediaMessage, MediaUnit, Track};
use millrace_wire::message::repair::{RepairReply, RepairRequest};

use crate::log::repair::GapTracker;
use crate::state::gaps::MAX_LISTED_GAPS;
use crate::state::query::{has_ended_before, is_closed_in};
use crate::time::Millis;

/// The session must be silent this long, in announcements and to requests for its media, before any other node's word that
/// the publisher has left is believed: the lease may have run out because control was away. Several requests fall into it.
pub const SEAL_SILENCE_MS: u64 = 2500;

/// Segments before a message whose media are lost.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Skipped {
    /// These are to be listed as GAP.
    Listed(Vec<Msn>),
    /// They are too many to list: the window begins with this segment.
    WindowRestarts(Msn),
}

/// A job that lacks some of its pre-roll waits so long for it. Several requests fall into it, and it leaves most of the two
/// seconds in which viewers are to see the next part.
pub const PRE_ROLL_WAIT_MS: u64 = 700;

/// The media before the resume point.
#[derive(Debug)]
struct PreRoll {
    /// The first message that is more than that.
    end: MediaSeq,
    units: Vec<MediaUnit>,
    /// The time until which the rest is waited for.
    until: Millis,
    /// True if the session no longer held some of it, or it did not come in time.
    is_cut: bool,
}

/// A message in its turn.
#[derive(Debug)]
pub(super) struct Taken {
    /// The message, without what comes before the resume point.
    pub(super) message: MediaMessage,
    /// The segments before it that no media will come for.
    pub(super) skipped: Skipped,
    /// The media before it that decoders begin with.
    pub(super) pre_roll: Vec<MediaUnit>,
}

/// The media of one job.
#[derive(Debug)]
pub(super) struct Intake {
    tracker: GapTracker<MediaMessage>,
    pre_roll: PreRoll,
    session_alive_at: Millis,
    /// Any media or reply has come.
    has_received: bool,
    caught_up: bool,
    /// The first segment to package.
    resume: Msn,
    last_given: Option<Msn>,
    /// The segment of the newest frame of each track.
    newest: BTreeMap<Track, Msn>,
    /// The next message is the first, or the first after a loss.
    after_loss: bool,
    /// A segment that was begun before a loss, and so cannot be completed.
    cut_short: Option<Msn>,
}

impl Intake {
    /// Creates an intake that packages from the message `from` and from segment `resume` on; `pre_roll` is the first message
    /// that decoders begin with, if there are any before. `seed` spreads its requests.
    pub(super) fn new(
        now: Millis,
        from: MediaSeq,
        pre_roll: Option<MediaSeq>,
        resume: Msn,
        seed: u64,
    ) -> Self {
        let first = pre_roll.map_or(from, |first| first.min(from));
        let until = now + PRE_ROLL_WAIT_MS;
        Self {
            tracker: GapTracker::new(now, first.0, seed),
            pre_roll: PreRoll { end: from, units: Vec::new(), until, is_cut: false },
            session_alive_at: now,
            has_received: false,
            caught_up: false,
            resume,
            last_given: None,
            newest: BTreeMap::new(),
            after_loss: true,
            cut_short: None,
        }
    }

    /// Returns the first segment to package.
    pub(super) fn resume(&self) -> Msn {
        self.resume
    }

    /// Returns the newest segment of which media were taken.
    pub(super) fn newest(&self) -> Option<Msn> {
        self.newest.values().max().copied()
    }

    /// True if all media of segment `msn` were taken: each track has gone on, or has had no frame since the segment before,
    /// or the other is two segments ahead, which ingest does not let happen otherwise.
    pub(super) fn has_passed(&self, msn: Msn) -> bool {
        let is_far_ahead = self.newest.values().any(|newest| *newest >= msn.plus(2));
        let is_behind = |newest: &&Msn| newest.next() >= msn && **newest <= msn;
        self.newest() > Some(msn) && (is_far_ahead || self.newest.values().find(is_behind).is_none())
    }

    /// True if everything that the session was known to have has been taken.
    pub(super) fn is_caught_up(&self) -> bool {
        self.caught_up
    }

    /// Notes that no more media will come.
    pub(super) fn finish(&mut self) {
        self.caught_up = true;
    }

    /// True if the session neither announces anything nor answers. One that does will send its last message.
    pub(super) fn is_session_silent(&self, now: Millis) -> bool {
        now - self.session_alive_at >= SEAL_SILENCE_MS
    }

    /// Notes that the session has announced something.
    pub(super) fn on_session_alive(&mut self, now: Millis) {
        self.session_alive_at = now;
    }

    /// Takes a media message of this job's epoch.
    pub(super) fn on_media(&mut self, now: Millis, message: MediaMessage) {
        self.has_received = true;
        self.session_alive_at = now;
        self.tracker.receive(now, message.seq.0, message);
    }

    /// Takes the session's reply to a request. True if the session no longer holds messages that this job needs.
    pub(super) fn on_reply(&mut self, now: Millis, reply: &RepairReply) -> bool {
        self.has_received = true;
        self.session_alive_at = now;
        self.tracker.learn_head(now, reply.next);
        let lost = self.tracker.learn_oldest(reply.oldest.unwrap_or(reply.next));
        let PreRoll { end, units, is_cut, .. } = &mut self.pre_roll;
        if lost.as_ref().is_some_and(|lost| lost.start < end.0) {
            *is_cut = true;
            units.clear();
        }
        let has_lost = lost.is_some_and(|lost| lost.end > end.0);
        if has_lost {
            self.after_loss = true;
            // The packager had begun this segment and cannot go on.
            if let Some(open) = self.last_given.filter(|msn| *msn >= self.resume) {
                self.cut_short = Some(open);
            }
        }
        has_lost
    }

    /// Gives up what is missing of the pre-roll if it has been waited for long enough. True, once, if some of it is missing.
    pub(super) fn review_pre_roll(&mut self, now: Millis) -> bool {
        let PreRoll { end, units, until, is_cut } = &mut self.pre_roll;
        if self.tracker.next_seq() < end.0 && now >= *until {
            // What follows a hole cannot be decoded.
            units.clear();
            *is_cut = true;
            self.tracker.skip_to(end.0);
        }
        std::mem::take(is_cut)
    }

    /// Returns the next message.
    pub(super) fn pop(&mut self, state: &StreamState, epoch: Epoch) -> Option<Taken> {
        let mut message = loop {
            let (seq, mut message) = self.tracker.pop()?;
            if seq >= self.pre_roll.end.0 {
                break message;
            }
            self.pre_roll.units.append(&mut message.units);
        };
        let skipped = if self.after_loss { self.restart(&message, state, epoch) } else { Vec::new() };
        let skipped = if skipped.len() as u64 > MAX_LISTED_GAPS {
            Skipped::WindowRestarts(self.resume)
        } else {
            Skipped::Listed(skipped)
        };
        // The resume point lies inside a message: its earlier units are stored already.
        let resume = self.resume;
        let mut pre_roll = std::mem::take(&mut self.pre_roll.units);
        pre_roll.extend(message.units.extract_if(.., |unit| unit.msn() < resume));
        self.last_given = message.last_msn().max(self.last_given);
        for frame in message.units.iter().filter_map(MediaUnit::frame) {
            self.newest.insert(frame.track, frame.msn);
        }
        Some(Taken { message, skipped, pre_roll })
    }

    /// Moves the resume point to the first segment that `message`, the first one or the first after a loss, lets the
    /// packager begin at its boundary. Returns the segments that are left out by it.
    fn restart(&mut self, message: &MediaMessage, state: &StreamState, epoch: Epoch) -> Vec<Msn> {
        let Some(msn) = message.last_msn().filter(|msn| *msn >= self.resume) else { return Vec::new() };
        self.after_loss = false;
        let begins_segment =
            message.seq.0 == 0 || message.units.iter().any(|unit| unit.is_boundary() && unit.msn() == msn);
        let first = if begins_segment && self.cut_short < Some(msn) { msn } else { msn.next() };
        let is_complete = |slot: &SegmentSlot| {
            let is_closed =
                |name| is_closed_in(slot, name) || has_ended_before(&state.renditions, name, slot.msn);
            state.renditions.keys().all(is_closed)
        };
        let of_epoch = state.slots.iter().filter(|slot| slot.epoch == epoch && slot.gap.is_none());
        let done: BTreeSet<Msn> = of_epoch.filter(|slot| is_complete(slot)).map(|slot| slot.msn).collect();
        let skipped = (self.resume.0..first.0).map(Msn).filter(|msn| !done.contains(msn)).collect();
        self.resume = first;
        skipped
    }

    /// Returns the request to send to the session now, if one is due.
    pub(super) fn poll_request(&mut self, now: Millis) -> Option<RepairRequest> {
        self.caught_up |= self.has_received && self.tracker.lag() == 0;
        self.tracker.poll_request(now)
    }

    /// Returns when to poll again.
    pub(super) fn next_timeout(&self) -> Millis {
        let next = self.tracker.next_timeout();
        if self.tracker.next_seq() < self.pre_roll.end.0 { next.min(self.pre_roll.until) } else { next }
    }
}
