//! Who holds a grant: the author, and the standby that replaces it. A seat is lost when its node is leaving or silent;
//! the author keeps its seat until the standby is ready, and a heartbeat that comes again gives the standby up.

use std::collections::VecDeque;

use millrace_wire::fact::{FactMessage, StreamState};
use millrace_wire::ids::{Epoch, FactSeq, Generation, MediaSeq, NodeId};
use millrace_wire::message::job::{Grant, GrantOrder, Heartbeat};
use millrace_wire::message::repair::RepairReply;

use super::Output;
use super::failure_detector::Pulse;
use crate::Millis;
use crate::log::follower::LogFollower;
use crate::time::earlier;

/// Silence after which an author is replaced: three missed heartbeats and a half.
pub const SILENCE_MS: u64 = 700;
/// A granted worker that has not sent a heartbeat after this time never got or took the grant.
pub const TAKE_UP_MS: u64 = 1500;
/// A grant is repeated at this interval until it shows in a heartbeat.
pub const REGRANT_MS: u64 = 300;

#[derive(Debug)]
pub(super) struct Seat {
    node: NodeId,
    grant: Box<Grant>,
    follower: LogFollower,
    granted_at: Millis,
    sent_at: Millis,
    heard: Option<Millis>,
    ready: bool,
    leaving: bool,
    yielded: Option<FactSeq>,
    done: bool,
}

impl Seat {
    pub(super) fn node(&self) -> &NodeId {
        &self.node
    }
    pub(super) fn generation(&self) -> Generation {
        self.grant.generation
    }
    /// The log as its author wrote it, once that has come.
    pub(super) fn view(&self) -> Option<&StreamState> {
        self.follower.view()
    }
    /// The node says that everything is stored.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    fn is_silent(&self, now: Millis, pulse: &Pulse) -> bool {
        let limit = if self.heard.is_some() { SILENCE_MS } else { TAKE_UP_MS };
        pulse.is_silent(now, self.heard.unwrap_or(self.granted_at), limit)
    }

    fn is_lost(&self, now: Millis, pulse: &Pulse) -> bool {
        self.leaving || self.is_silent(now, pulse)
    }

    fn revocation(&self) -> Output {
        let Grant { stream, epoch, generation, .. } = *self.grant;
        let order = Box::new(GrantOrder::Revoke { stream, epoch, generation });
        Output::Order(self.node.clone(), order)
    }

    /// The whole log is known: its author has ended it.
    fn is_handed_over(&self) -> bool {
        let known = self.view().map_or(0, |view| view.seq.0 + 1);
        self.yielded.is_some_and(|next| known >= next.0)
    }
}

#[derive(Debug, Default)]
pub(super) struct Seats {
    author: Option<Seat>,
    standby: Option<Seat>,
}

impl Seats {
    /// The announced author.
    pub(super) fn author(&self) -> Option<&Seat> {
        self.author.as_ref()
    }

    /// The first media message that the standby was granted.
    pub(super) fn standby_from(&self) -> Option<MediaSeq> {
        self.standby.as_ref().map(|seat| seat.grant.resume_from)
    }

    fn each_mut(&mut self) -> impl Iterator<Item = &mut Seat> {
        [&mut self.author, &mut self.standby].into_iter().flatten()
    }

    /// Seats `node` as standby and sends it its grant.
    pub(super) fn seat(
        &mut self,
        now: Millis,
        node: NodeId,
        grant: Box<Grant>,
        seed: u64,
        out: &mut VecDeque<Output>,
    ) {
        let (epoch, generation) = (grant.epoch, grant.generation);
        out.push_back(Output::Follow(epoch, generation));
        out.push_back(Output::Order(node.clone(), Box::new(GrantOrder::Grant(grant.clone()))));
        self.standby = Some(Seat {
            node,
            grant,
            follower: LogFollower::new(now, epoch, generation, seed),
            granted_at: now,
            sent_at: now,
            heard: None,
            ready: false,
            leaving: false,
            yielded: None,
            done: false,
        });
    }

    pub(super) fn on_heartbeat(&mut self, now: Millis, h: &Heartbeat) {
        for seat in self.each_mut() {
            if seat.node == h.node && (seat.grant.epoch, seat.grant.generation) == (h.epoch, h.generation) {
                seat.heard = Some(now);
                seat.ready |= h.ready;
                seat.done = h.done;
                seat.leaving |= h.leaving;
                seat.yielded = h.yielded.then_some(h.next_fact);
            }
        }
    }

    pub(super) fn on_fact(&mut self, now: Millis, message: &FactMessage) {
        for seat in self.each_mut() {
            seat.follower.receive(now, message);
        }
    }

    pub(super) fn on_snapshot(&mut self, snapshot: &StreamState) {
        for seat in self.each_mut() {
            seat.follower.snapshot(snapshot);
        }
    }

    pub(super) fn on_reply(&mut self, now: Millis, log: (Epoch, Generation), reply: &RepairReply) {
        for seat in self.each_mut().filter(|s| s.follower.log() == log) {
            seat.follower.reply(now, reply);
        }
    }

    /// Nobody writes the log, or whoever does is to be replaced.
    pub(super) fn is_author_lost(&self, now: Millis, pulse: &Pulse) -> bool {
        self.author.as_ref().is_none_or(|a| a.is_lost(now, pulse))
    }

    /// The author leaves in order: it is to fall silent before its successor builds on its log.
    pub(super) fn ask_to_yield(&self, now: Millis, pulse: &Pulse, out: &mut VecDeque<Output>) -> bool {
        let Some(author) = self.author.as_ref().filter(|a| a.leaving && !a.is_silent(now, pulse)) else {
            return false;
        };
        let Grant { stream, epoch, generation, .. } = *author.grant;
        let order = Box::new(GrantOrder::Yield { stream, epoch, generation });
        out.push_back(Output::Order(author.node.clone(), order));
        true
    }

    /// Nothing more is to come of the author's log.
    pub(super) fn is_handed_over(&self, now: Millis, pulse: &Pulse) -> bool {
        self.author.as_ref().is_none_or(|a| a.is_handed_over() || a.is_silent(now, pulse))
    }

    /// A standby is wanted and there is none.
    pub(super) fn is_vacant(&self, now: Millis, pulse: &Pulse) -> bool {
        self.standby.is_none() && self.is_author_lost(now, pulse)
    }

    /// Gives up a standby that is lost itself, or whose author is well again.
    pub(super) fn review_standby(&mut self, now: Millis, pulse: &Pulse, out: &mut VecDeque<Output>) {
        let lost = self.standby.as_ref().is_some_and(|s| s.is_lost(now, pulse));
        if lost || !self.is_author_lost(now, pulse) {
            self.revoke_standby(out);
        }
    }

    pub(super) fn revoke_standby(&mut self, out: &mut VecDeque<Output>) {
        if let Some(seat) = self.standby.take() {
            out.push_back(seat.revocation());
        }
    }

    /// Whether the standby is to be the author now: a first one at once, a later one when it is ready.
    pub(super) fn is_takeover_due(&self, now: Millis, pulse: &Pulse) -> bool {
        let Some(standby) = &self.standby else { return false };
        self.author.is_none() || (standby.ready && self.is_author_lost(now, pulse))
    }

    /// The standby becomes the author.
    pub(super) fn take_over(&mut self, out: &mut VecDeque<Output>) {
        let Some(standby) = self.standby.take() else { return };
        if let Some(old) = self.author.replace(standby) {
            out.push_back(old.revocation());
        }
    }

    /// Repeats the grants that no heartbeat has answered.
    pub(super) fn repeat_grants(&mut self, now: Millis, out: &mut VecDeque<Output>) {
        for seat in self.each_mut() {
            if seat.heard.is_none() && now - seat.sent_at >= REGRANT_MS {
                seat.sent_at = now;
                let order = Box::new(GrantOrder::Grant(seat.grant.clone()));
                out.push_back(Output::Order(seat.node.clone(), order));
            }
        }
    }

    /// Asks for what the followed logs lack.
    pub(super) fn follow(&mut self, now: Millis, out: &mut VecDeque<Output>) {
        for seat in self.each_mut() {
            let (epoch, generation) = seat.follower.log();
            if let Some(request) = seat.follower.poll_request(now) {
                out.push_back(Output::AskFacts(epoch, generation, request));
            }
            if seat.follower.take_wants_snapshot() {
                out.push_back(Output::AskSnapshot);
            }
        }
    }

    /// When to follow again.
    pub(super) fn next_timeout(&self) -> Option<Millis> {
        let at = |seat: &Option<Seat>| seat.as_ref().map(|s| s.follower.next_timeout());
        earlier(at(&self.author), at(&self.standby))
    }
}
