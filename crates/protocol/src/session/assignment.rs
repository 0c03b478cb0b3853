//! The primary and the standby: the workers that hold a grant of this session, and which of them writes the log.
//!
//! A primary is lost when its node drains or is silent. It stays primary until the standby is ready; if its heartbeats
//! come back first, the standby is revoked.

use std::collections::VecDeque;

use millrace_wire::fact::{FactMessage, StreamState};
use millrace_wire::ids::{Epoch, FactSeq, Generation, MediaSeq, NodeId};
use millrace_wire::message::announce::Degraded;
use millrace_wire::message::job::{Grant, GrantOrder, Heartbeat};
use millrace_wire::message::ladder_health::LadderHealth;
use millrace_wire::message::repair::RepairReply;

use super::failure_detector::FailureDetector;
use super::io::Output;
use crate::log::follower::LogFollower;
use crate::time::{Millis, earlier};

/// Time without a heartbeat after which a worker counts as silent: three missed heartbeats and a half.
pub const SILENCE_MS: u64 = 700;
/// Time until the first heartbeat after which a granted worker counts as silent: it did not get or did not take the grant.
pub const GRANT_ACCEPT_MS: u64 = 1500;
/// A grant is repeated at this interval until a heartbeat confirms it.
pub const REGRANT_MS: u64 = 300;

/// The state of the worker's object store, as its last heartbeat told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Storage {
    Takes,
    TakesNothing,
}

/// One grant of the session: the worker that holds it, its heartbeats and its log.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent states of the worker")]
pub(super) struct Assignment {
    node: NodeId,
    grant: Box<Grant>,
    follower: LogFollower,
    granted_at: Millis,
    sent_at: Millis,
    last_heartbeat: Option<Millis>,
    ready: bool,
    leaving: bool,
    /// The number after the last fact of the log, once the worker has quiesced.
    quiesced_at: Option<FactSeq>,
    done: bool,
    storage: Storage,
    /// The health of its encoded rungs, as a heartbeat told it last.
    ladder: Option<Box<LadderHealth>>,
    /// The reason why the worker does not make all renditions of its grant.
    encoding: Option<Degraded>,
    /// True once another worker has won the bid for the job with what this grant leaves out.
    outbid: bool,
}

impl Assignment {
    fn new(now: Millis, node: NodeId, grant: Box<Grant>, seed: u64) -> Self {
        let follower = LogFollower::new(now, grant.epoch, grant.generation, seed);
        Self {
            node,
            grant,
            follower,
            granted_at: now,
            sent_at: now,
            last_heartbeat: None,
            ready: false,
            leaving: false,
            quiesced_at: None,
            done: false,
            storage: Storage::Takes,
            ladder: None,
            encoding: None,
            outbid: false,
        }
    }

    /// Returns the worker that holds the grant.
    pub(super) fn node(&self) -> &NodeId {
        &self.node
    }

    /// Returns the generation that was granted.
    pub(super) fn generation(&self) -> Generation {
        self.grant.generation
    }

    /// Returns the folded state of the worker's log; `None` until any of it has come.
    pub(super) fn state(&self) -> Option<&StreamState> {
        self.follower.state()
    }

    /// True if the worker's last heartbeat reported that the object store takes nothing.
    pub(super) fn is_storage_failing(&self) -> bool {
        self.storage == Storage::TakesNothing
    }

    /// Returns the health of the worker's encoded rungs, as it reported it last.
    pub(super) fn ladder(&self) -> Option<&LadderHealth> {
        self.ladder.as_deref()
    }

    /// Returns the reason why encoded renditions are missing: the grant leaves them out, or the worker's last heartbeat said so.
    pub(super) fn encoding(&self, cost: u64) -> Option<Degraded> {
        if self.leaves_out(cost) { Some(Degraded::CopyOnly) } else { self.encoding }
    }

    /// True if the grant is for less than a job of `cost`.
    fn leaves_out(&self, cost: u64) -> bool {
        self.grant.cost < cost
    }

    /// True if the worker's last heartbeat reported that the epoch is sealed and stored.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    fn is_silent(&self, now: Millis, detector: &FailureDetector) -> bool {
        let limit = if self.last_heartbeat.is_some() { SILENCE_MS } else { GRANT_ACCEPT_MS };
        detector.is_silent(now, self.last_heartbeat.unwrap_or(self.granted_at), limit)
    }

    fn is_lost(&self, now: Millis, detector: &FailureDetector) -> bool {
        self.leaving || self.outbid || self.is_silent(now, detector)
    }

    fn revocation(&self) -> Output {
        let Grant { stream, epoch, generation, .. } = *self.grant;
        let order = Box::new(GrantOrder::Revoke { stream, epoch, generation });
        Output::Order(self.node.clone(), order)
    }

    /// True if the worker has quiesced and its log is folded to its end.
    fn is_handed_over(&self) -> bool {
        let folded = self.state().map_or(0, |state| state.seq.0 + 1);
        self.quiesced_at.is_some_and(|next| folded >= next.0)
    }
}

/// The assignments of one session: at most one announced primary, and at most one standby that is to replace it.
#[derive(Debug, Default)]
pub(super) struct PrimaryStandby {
    primary: Option<Assignment>,
    standby: Option<Assignment>,
}

impl PrimaryStandby {
    /// Returns the primary, which the session has announced.
    pub(super) fn primary(&self) -> Option<&Assignment> {
        self.primary.as_ref()
    }

    /// Returns the first media message that the standby was granted.
    pub(super) fn standby_resume_from(&self) -> Option<MediaSeq> {
        self.standby.as_ref().map(|standby| standby.grant.resume_from)
    }

    fn each_mut(&mut self) -> impl Iterator<Item = &mut Assignment> {
        [&mut self.primary, &mut self.standby].into_iter().flatten()
    }

    /// Makes `node` the standby, sends it its grant, and follows its log.
    pub(super) fn assign_standby(
        &mut self,
        now: Millis,
        node: NodeId,
        grant: Box<Grant>,
        seed: u64,
        out: &mut VecDeque<Output>,
    ) {
        out.push_back(Output::Follow(grant.epoch, grant.generation));
        out.push_back(Output::Order(node.clone(), Box::new(GrantOrder::Grant(grant.clone()))));
        self.standby = Some(Assignment::new(now, node, grant, seed));
    }

    /// Takes a heartbeat; one of another grant is ignored.
    pub(super) fn on_heartbeat(&mut self, now: Millis, heartbeat: &Heartbeat) {
        let confirmed = (heartbeat.epoch, heartbeat.generation);
        for assignment in self.each_mut() {
            let granted = (assignment.grant.epoch, assignment.grant.generation);
            if assignment.node == heartbeat.node && granted == confirmed {
                assignment.last_heartbeat = Some(now);
                assignment.ready |= heartbeat.ready;
                assignment.done = heartbeat.done;
                assignment.storage =
                    if heartbeat.storage_failing { Storage::TakesNothing } else { Storage::Takes };
                assignment.leaving |= heartbeat.leaving;
                if let Some(ladder) = &heartbeat.ladder {
                    assignment.ladder = Some(Box::new((**ladder).clone().bounded()));
                }
                assignment.encoding = heartbeat.encoding;
                assignment.quiesced_at = heartbeat.quiesced.then_some(heartbeat.next_fact);
            }
        }
    }

    /// Takes a fact of a followed log.
    pub(super) fn on_fact(&mut self, now: Millis, message: &FactMessage) {
        for assignment in self.each_mut() {
            assignment.follower.on_fact(now, message);
        }
    }

    /// Takes a snapshot of a followed log.
    pub(super) fn on_snapshot(&mut self, snapshot: &StreamState) {
        for assignment in self.each_mut() {
            assignment.follower.on_snapshot(snapshot);
        }
    }

    /// Takes a worker's reply to a repair request of its log.
    pub(super) fn on_repair_reply(&mut self, now: Millis, log: (Epoch, Generation), reply: &RepairReply) {
        for assignment in self.each_mut().filter(|assignment| assignment.follower.log() == log) {
            assignment.follower.on_repair_reply(now, reply);
        }
    }

    /// True if no worker writes the log, or the primary is to be replaced.
    pub(super) fn is_primary_lost(&self, now: Millis, detector: &FailureDetector) -> bool {
        self.primary.as_ref().is_none_or(|primary| primary.is_lost(now, detector))
    }

    /// Asks a draining primary to quiesce, so that its successor builds on its whole log. False if there is none that could
    /// answer.
    pub(super) fn request_quiesce(
        &self,
        now: Millis,
        detector: &FailureDetector,
        out: &mut VecDeque<Output>,
    ) -> bool {
        let draining = self.primary.as_ref().filter(|primary| primary.leaving || primary.outbid);
        let Some(primary) = draining.filter(|primary| !primary.is_silent(now, detector)) else {
            return false;
        };
        let Grant { stream, epoch, generation, .. } = *primary.grant;
        let order = Box::new(GrantOrder::Quiesce { stream, epoch, generation });
        out.push_back(Output::Order(primary.node.clone(), order));
        true
    }

    /// True if nothing more is to come of the primary's log: it is folded to its end, or the primary is silent.
    pub(super) fn is_handed_over(&self, now: Millis, detector: &FailureDetector) -> bool {
        self.primary.as_ref().is_none_or(|p| p.is_handed_over() || p.is_silent(now, detector))
    }

    /// True if the primary is well, but its grant is for less than a job of `cost`, and no standby is to replace it.
    pub(super) fn wants_more(&self, now: Millis, detector: &FailureDetector, cost: u64) -> bool {
        let well = self.primary.as_ref().filter(|primary| !primary.is_lost(now, detector));
        self.standby.is_none() && well.is_some_and(|primary| primary.leaves_out(cost))
    }

    /// True if `node` is a primary that stays: it is not to bid for its own replacement.
    pub(super) fn is_full_primary(&self, node: &NodeId, cost: u64) -> bool {
        self.primary.as_ref().is_some_and(|primary| primary.node == *node && !primary.leaves_out(cost))
    }

    /// Has the primary replaced by a worker that has won the bid for the job with what the primary's grant leaves out.
    pub(super) fn outbid_primary(&mut self) {
        if let Some(primary) = &mut self.primary {
            primary.outbid = true;
        }
    }

    /// True if a standby is needed and there is none.
    pub(super) fn needs_standby(&self, now: Millis, detector: &FailureDetector) -> bool {
        self.standby.is_none() && self.is_primary_lost(now, detector)
    }

    /// Revokes the standby if it is lost itself, or if the primary is well again.
    pub(super) fn review_standby(
        &mut self,
        now: Millis,
        detector: &FailureDetector,
        out: &mut VecDeque<Output>,
    ) {
        let lost = self.standby.as_ref().is_some_and(|standby| standby.is_lost(now, detector));
        if lost || !self.is_primary_lost(now, detector) {
            self.revoke_standby(out);
        }
    }

    /// Revokes the standby, if there is one.
    pub(super) fn revoke_standby(&mut self, out: &mut VecDeque<Output>) {
        if let Some(standby) = self.standby.take() {
            out.push_back(standby.revocation());
        }
    }

    /// True if the standby is to become the primary now: the first one at once, a later one when it is ready.
    pub(super) fn is_promotion_due(&self, now: Millis, detector: &FailureDetector) -> bool {
        let Some(standby) = &self.standby else { return false };
        self.primary.is_none() || (standby.ready && self.is_primary_lost(now, detector))
    }

    /// Makes the standby the primary and revokes the former one.
    pub(super) fn promote_standby(&mut self, out: &mut VecDeque<Output>) {
        let Some(standby) = self.standby.take() else { return };
        if let Some(former) = self.primary.replace(standby) {
            out.push_back(former.revocation());
        }
    }

    /// Repeats the grants that no heartbeat has confirmed.
    pub(super) fn repeat_grants(&mut self, now: Millis, out: &mut VecDeque<Output>) {
        for assignment in self.each_mut() {
            if assignment.last_heartbeat.is_none() && now - assignment.sent_at >= REGRANT_MS {
                assignment.sent_at = now;
                let order = Box::new(GrantOrder::Grant(assignment.grant.clone()));
                out.push_back(Output::Order(assignment.node.clone(), order));
            }
        }
    }

    /// Requests what the followed logs lack.
    pub(super) fn request_repairs(&mut self, now: Millis, out: &mut VecDeque<Output>) {
        for assignment in self.each_mut() {
            let (epoch, generation) = assignment.follower.log();
            if let Some(request) = assignment.follower.poll_request(now) {
                out.push_back(Output::AskFacts(epoch, generation, request));
            }
            if assignment.follower.take_wants_snapshot() {
                out.push_back(Output::AskSnapshot);
            }
        }
    }

    /// Returns when to call [`PrimaryStandby::request_repairs`] again.
    pub(super) fn next_timeout(&self) -> Option<Millis> {
        let due = |assignment: &Option<Assignment>| assignment.as_ref().map(|a| a.follower.next_timeout());
        earlier(due(&self.primary), due(&self.standby))
    }
}
