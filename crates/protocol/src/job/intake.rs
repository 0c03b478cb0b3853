//! Media for the packager, in order: gaps are repaired from the session's ring, what the ring has lost becomes GAPs, and
//! a segment is begun at its boundary only.

use std::collections::BTreeSet;

use millrace_wire::fact::{SegmentSlot, StreamState};
use millrace_wire::ids::{Epoch, MediaSeq, Msn};
use millrace_wire::message::media::MediaMessage;
use millrace_wire::message::repair::{RepairReply, RepairRequest};

use crate::Millis;
use crate::log::repair::GapTracker;
use crate::state::apply;

/// The session must be silent this long, in announcements and to requests for its media, before "the publisher is gone" is believed from
/// anyone else: the lease may have run out because control was away. Several requests fall into it.
pub const SEAL_SILENCE_MS: u64 = 2500;

#[derive(Debug)]
pub(super) struct Intake {
    tracker: GapTracker<MediaMessage>,
    last_heard: Millis,
    heard: bool,
    caught_up: bool,
    /// First segment to package.
    resume: Msn,
    last_given: Option<Msn>,
    /// The next message is the first, or the first after a loss.
    lost: bool,
    /// A segment that was begun before a loss.
    spoilt: Option<Msn>,
}

impl Intake {
    /// Expects the message `from`, and packages from `resume` on; `seed` spreads requests.
    pub(super) fn new(now: Millis, from: MediaSeq, resume: Msn, seed: u64) -> Self {
        Self {
            tracker: GapTracker::new(now, from.0, seed),
            last_heard: now,
            heard: false,
            caught_up: false,
            resume,
            last_given: None,
            lost: true,
            spoilt: None,
        }
    }
    pub(super) fn resume(&self) -> Msn {
        self.resume
    }
    /// Everything the session was known to have has been taken.
    pub(super) fn is_caught_up(&self) -> bool {
        self.caught_up
    }
    /// No more media will come.
    pub(super) fn finish(&mut self) {
        self.caught_up = true;
    }
    /// A session that answers is alive and will send its last message.
    pub(super) fn is_silent(&self, now: Millis) -> bool {
        now - self.last_heard >= SEAL_SILENCE_MS
    }
    /// The session lives: it has spoken of something else than media.
    pub(super) fn hear(&mut self, now: Millis) {
        self.last_heard = now;
    }
    pub(super) fn receive(&mut self, now: Millis, message: MediaMessage) {
        self.heard = true;
        self.last_heard = now;
        self.tracker.receive(now, message.seq.0, message);
    }
    /// Takes the session's answer; gives whether the ring has lost messages this job needs.
    pub(super) fn on_reply(&mut self, now: Millis, reply: &RepairReply) -> bool {
        self.heard = true;
        self.last_heard = now;
        self.tracker.learn_head(now, reply.next);
        let lost = self.tracker.learn_oldest(reply.oldest.unwrap_or(reply.next)).is_some();
        if lost {
            self.lost = true;
            // The packager had begun this segment and cannot go on.
            if let Some(open) = self.last_given.filter(|m| *m >= self.resume) {
                self.spoilt = Some(open);
            }
        }
        lost
    }
    /// The next message, and the segments before it that nobody will package.
    pub(super) fn pop(&mut self, view: &StreamState, epoch: Epoch) -> Option<(MediaMessage, Vec<Msn>)> {
        let (_, mut message) = self.tracker.pop()?;
        let gaps = if self.lost { self.start(&message, view, epoch) } else { Vec::new() };
        // The resume point lies inside a message: its earlier units are another author's, already stored.
        let resume = self.resume;
        message.units.retain(|unit| unit.msn() >= resume);
        self.last_given = message.last_msn().max(self.last_given);
        Some((message, gaps))
    }

    /// The first message, or the first after a loss: a segment can be packaged from its beginning only. Gives the
    /// segments that are left out.
    fn start(&mut self, message: &MediaMessage, view: &StreamState, epoch: Epoch) -> Vec<Msn> {
        let Some(msn) = message.last_msn().filter(|m| *m >= self.resume) else { return Vec::new() };
        self.lost = false;
        let begins =
            message.seq.0 == 0 || message.units.iter().any(|unit| unit.is_boundary() && unit.msn() == msn);
        let first = if begins && self.spoilt < Some(msn) { msn } else { msn.next() };
        let tracks = view.renditions.len();
        let complete =
            |s: &SegmentSlot| s.tracks.len() >= tracks && s.tracks.values().all(|t| t.segment.is_some());
        let ours = view.slots.iter().filter(|s| s.epoch == epoch && s.gap.is_none());
        let done: BTreeSet<Msn> = ours.filter(|s| complete(s)).map(|s| s.msn).collect();
        // A hole too long to list is left out, as between epochs.
        let from = self.resume.max(Msn(first.0.saturating_sub(apply::MAX_HOLE)));
        self.resume = first;
        (from.0..first.0).map(Msn).filter(|msn| !done.contains(msn)).collect()
    }

    /// What to ask the session for now.
    pub(super) fn poll_request(&mut self, now: Millis) -> Option<RepairRequest> {
        self.caught_up |= self.heard && self.tracker.lag() == 0;
        self.tracker.poll_request(now)
    }
    /// When to poll again.
    pub(super) fn next_timeout(&self) -> Millis {
        self.tracker.next_timeout()
    }
}
