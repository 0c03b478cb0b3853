//! The machine of a reader: which log it adopts, when it takes a snapshot, and what it shows.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use millrace_wire::fact::{FactMessage, Origin, StreamState};
use millrace_wire::ids::{Epoch, Generation, Msn};
use millrace_wire::message::announce::{EpochAnnouncement, EpochPhase, SessionAnnouncement};
use millrace_wire::message::repair::{MAX_RANGES, RepairRequest};

use super::io::{Input, Output};
use super::media::{media_of, payload_ranges};
use super::overlay::{keep_ended, overlay};
use crate::log::follower::LogFollower;
use crate::machine::Machine;
use crate::state::checkpoint::is_complete;
use crate::state::position::Position;
use crate::time::{Millis, earlier};

/// A snapshot is requested again after this time while one is needed.
pub const SNAPSHOT_RETRY_MS: u64 = 300;
/// A reader that lags behind its log for longer than this is not current.
pub const CURRENT_MS: u64 = 1000;
/// Control repeats its announcements about every second: a stream it has not announced by then has no newer epoch.
pub const ANNOUNCED_MS: u64 = 1500;
/// The first fact of a newly adopted log may take this long before a snapshot is requested too.
pub const FIRST_FACT_MS: u64 = 300;
/// Control's own epochs have one log, which the epoch's announcement names by having no session.
const CONTROL_GENERATION: Generation = Generation(1);

/// A reader of one stream.
#[derive(Debug)]
pub struct StreamReader {
    seed: u64,
    epoch: Option<Epoch>,
    ended_epoch: Option<Epoch>,
    /// Control has announced that the publisher of the newest epoch is away.
    away: bool,
    /// The highest number that the newest epoch's log writer may have used for a GAP.
    gaps_through: Option<Msn>,
    /// An announcement of a session whose epoch control has not announced yet.
    pending: Option<SessionAnnouncement>,
    follower: Option<LogFollower>,
    tail: Option<Arc<StreamState>>,
    shown: Option<Arc<StreamState>>,
    /// The log has facts that are not in `shown` yet: facts that come together are merged together.
    unmerged: bool,
    /// Facts whose media a snapshot listed, to be repeated.
    backfill: Option<Vec<(u64, u64)>>,
    snapshot_at: Option<Millis>,
    lag_since: Option<Millis>,
    created_at: Millis,
    out: VecDeque<Output>,
}

impl Machine for StreamReader {
    type Input = Input;
    type Output = Output;
    /// A reader ignores inputs that contradict what it has adopted; none of them is an error.
    type Error = Infallible;

    fn handle(&mut self, now: Millis, input: Input) -> Result<(), Infallible> {
        if !matches!(input, Input::Fact(_)) {
            self.merge();
        }
        match input {
            Input::Epoch(announcement) => self.on_epoch(now, &announcement),
            Input::Session(announcement) => self.on_session(now, announcement),
            Input::Fact(message) => self.unmerged |= self.on_fact(now, message),
            Input::Snapshot(state) => self.unmerged |= self.on_snapshot(now, &state),
            Input::RepairReply(epoch, generation, reply) => {
                if let Some(follower) = self.follower.as_mut().filter(|f| f.log() == (epoch, generation)) {
                    follower.on_repair_reply(now, &reply);
                }
            }
            Input::Tick => {}
        }
        self.drive(now);
        Ok(())
    }

    fn handle_timeout(&mut self, now: Millis) -> Result<(), Infallible> {
        self.handle(now, Input::Tick)
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.merge();
        self.out.pop_front()
    }

    fn next_timeout(&self) -> Option<Millis> {
        earlier(self.follower.as_ref().map(LogFollower::next_timeout), self.snapshot_at)
    }

    /// A reader follows its stream until its owner drops it.
    fn is_done(&self) -> bool {
        false
    }
}

impl StreamReader {
    /// Creates a reader that knows nothing yet; it requests a snapshot at once. `seed` spreads its repair requests.
    pub fn new(now: Millis, seed: u64) -> Self {
        Self {
            seed,
            epoch: None,
            ended_epoch: None,
            away: false,
            gaps_through: None,
            pending: None,
            follower: None,
            tail: None,
            shown: None,
            unmerged: false,
            backfill: None,
            snapshot_at: Some(now),
            lag_since: None,
            created_at: now,
            out: VecDeque::new(),
        }
    }

    /// Returns the state to render playlists from; it never goes back. Facts count once [`Machine::poll_output`] has been
    /// called.
    pub fn shown(&self) -> Option<&Arc<StreamState>> {
        self.shown.as_ref()
    }

    /// Returns the folded state of the adopted log: the reply to a snapshot request.
    pub fn snapshot(&self) -> Option<&StreamState> {
        self.follower.as_ref().and_then(LogFollower::state)
    }

    /// Returns the epoch and generation of the adopted log.
    pub fn log(&self) -> Option<(Epoch, Generation)> {
        self.follower.as_ref().map(LogFollower::log)
    }

    /// True if the adopted log is folded but for facts that have been missing for less than [`CURRENT_MS`].
    pub fn is_current(&self, now: Millis) -> bool {
        self.snapshot().is_some() && self.lag_since.is_none_or(|at| now - at < CURRENT_MS)
    }

    /// Returns for how long facts of the adopted log have been missing, in milliseconds; 0 if none are.
    pub fn lagging_ms(&self, now: Millis) -> u64 {
        self.lag_since.map_or(0, |since| now - since)
    }

    /// True if control has announced that the publisher of the newest epoch is away and may come back.
    pub fn is_away(&self) -> bool {
        self.away
    }

    /// True if an epoch is known whose broadcast has not ended.
    pub fn has_broadcast(&self) -> bool {
        self.epoch.is_some() && !self.is_ending()
    }

    /// True if control has announced the end of the newest epoch's broadcast, whether or not the log has ended yet.
    pub fn is_ending(&self) -> bool {
        self.ended_epoch.is_some() && self.ended_epoch == self.epoch
    }

    fn on_epoch(&mut self, now: Millis, announcement: &EpochAnnouncement) {
        if self.epoch.is_some_and(|epoch| announcement.epoch < epoch) {
            return;
        }
        self.epoch = Some(announcement.epoch);
        self.ended_epoch = (announcement.phase == EpochPhase::Ended).then_some(announcement.epoch);
        self.away = matches!(announcement.phase, EpochPhase::Away { .. });
        self.gaps_through = match announcement.phase {
            EpochPhase::Away { gaps_through, .. } => gaps_through,
            EpochPhase::Open | EpochPhase::Ended => None,
        };
        if announcement.session.is_none() {
            self.adopt(now, announcement.epoch, CONTROL_GENERATION);
        } else if let Some(pending) = self.pending.take() {
            self.on_session(now, pending);
        }
    }

    fn on_session(&mut self, now: Millis, announcement: SessionAnnouncement) {
        match self.epoch {
            Some(epoch) if announcement.epoch == epoch => {
                if let Some(generation) = announcement.generation {
                    self.adopt(now, announcement.epoch, generation);
                }
            }
            Some(epoch) if announcement.epoch < epoch => {}
            // A session cannot announce its own epoch: control's announcement of it is awaited.
            _ if self.pending.as_ref().is_none_or(|pending| pending.epoch <= announcement.epoch) => {
                self.pending = Some(announcement);
            }
            _ => {}
        }
    }

    fn adopt(&mut self, now: Millis, epoch: Epoch, generation: Generation) {
        if self.log().is_some_and(|log| (epoch, generation) <= log) {
            return;
        }
        self.seed = self.seed.wrapping_add(1);
        self.follower = Some(LogFollower::new(now, epoch, generation, self.seed));
        self.snapshot_at = Some(now + FIRST_FACT_MS);
        self.backfill = None;
        self.tail.clone_from(&self.shown);
        self.out.push_back(Output::Follow(epoch, generation));
    }

    fn on_fact(&mut self, now: Millis, message: FactMessage) -> bool {
        let Some(follower) = &mut self.follower else { return false };
        if follower.log() != (message.epoch, message.generation) {
            return false;
        }
        let changed = follower.on_fact(now, &message);
        if let Some(media) = media_of(message) {
            self.out.push_back(Output::Bytes(media));
        }
        changed
    }

    fn on_snapshot(&mut self, now: Millis, state: &StreamState) -> bool {
        // Only a reader that knows no epoch takes one from a snapshot.
        if self.epoch.is_some_and(|epoch| state.epoch > epoch) {
            return false;
        }
        if state.origin == Origin::Checkpoint {
            self.on_checkpoint(now, state);
            return false;
        }
        if self.epoch.is_none() {
            self.epoch = Some(state.epoch);
        }
        // Only a reader without a log takes one from a snapshot.
        if self.follower.is_none() {
            self.adopt(now, state.epoch, state.generation);
        }
        let Some(follower) = &mut self.follower else { return false };
        if !follower.on_snapshot(state) {
            return false;
        }
        self.backfill = Some(payload_ranges(state));
        true
    }

    /// Shows a checkpoint if nothing newer can have been shown than it lists. Only a checkpoint gives way to it.
    fn on_checkpoint(&mut self, now: Millis, checkpoint: &StreamState) {
        let gives_way = |shown: &Arc<StreamState>| {
            shown.origin == Origin::Checkpoint && Position::of(shown) < Position::of(checkpoint)
        };
        if self.shown.as_ref().is_none_or(gives_way) && self.is_final(now, checkpoint) {
            self.shown = Some(Arc::new(checkpoint.clone()));
            // A log adopted before may have begun below it.
            self.tail.clone_from(&self.shown);
            self.out.push_back(Output::Changed);
        }
    }

    /// True if nothing was shown beyond a checkpoint: it is complete, no newer epoch was opened, and its log did not grow
    /// after it.
    fn is_final(&self, now: Millis, checkpoint: &StreamState) -> bool {
        let is_newest = match self.epoch {
            Some(epoch) => epoch == checkpoint.epoch && (checkpoint.ended || !self.is_ending()),
            // Control no longer announces broadcasts whose end is known.
            None => checkpoint.ended && now - self.created_at >= ANNOUNCED_MS,
        };
        let last = checkpoint.slots.back().map(|slot| slot.msn);
        is_newest && is_complete(checkpoint) && last.is_some() && last >= self.gaps_through
    }

    fn drive(&mut self, now: Millis) {
        let Some(follower) = &mut self.follower else {
            return self.request_snapshot(now);
        };
        let (epoch, generation) = follower.log();
        if follower.take_wants_snapshot() {
            self.snapshot_at = Some(now);
        } else if follower.state().is_some() {
            self.snapshot_at = None;
        }
        if follower.lag() == 0 && follower.state().is_some() {
            self.lag_since = None;
        } else {
            self.lag_since.get_or_insert(now);
        }
        if let Some(request) = follower.poll_request(now) {
            self.out.push_back(Output::Repair(epoch, generation, request));
        }
        if let Some(ranges) = self.backfill.take() {
            for ranges in ranges.chunks(MAX_RANGES) {
                let request = RepairRequest { ranges: ranges.to_vec() };
                self.out.push_back(Output::Repair(epoch, generation, request));
            }
        }
        self.request_snapshot(now);
    }

    fn request_snapshot(&mut self, now: Millis) {
        if self.snapshot_at.is_some_and(|at| at <= now) {
            self.out.push_back(Output::AskSnapshot);
            self.snapshot_at = Some(now + SNAPSHOT_RETRY_MS);
        }
    }

    /// Shows the folded log together with what was shown beyond it.
    fn merge(&mut self) {
        if !std::mem::take(&mut self.unmerged) {
            return;
        }
        let Some(folded) = self.follower.as_ref().and_then(LogFollower::state) else { return };
        // A base that lists nothing says nothing about what is shown.
        let has_shown = self.shown.as_ref().is_some_and(|shown| !shown.slots.is_empty());
        if folded.slots.is_empty() && !folded.ended && has_shown {
            return;
        }
        // Until its epoch is open, a log shows its base, which may list less than readers were shown.
        let is_beyond_base = folded.opened || is_complete(folded);
        if self.shown.is_none() && !is_beyond_base {
            return;
        }
        let mut next = folded.clone();
        if let Some(tail) = &self.tail
            && !(tail.broadcast == folded.broadcast && overlay(&mut next, tail))
            && is_beyond_base
        {
            self.tail = None;
        }
        if let Some(shown) = &self.shown {
            keep_ended(&mut next, shown);
        }
        let lowest = self.shown.as_ref().map_or(Msn(0), |shown| shown.first_msn);
        if next.first_msn < lowest {
            next.first_msn = lowest;
            next.slots.retain(|slot| slot.msn >= lowest);
        }
        self.shown = Some(Arc::new(next));
        self.out.push_back(Output::Changed);
    }
}
