//! A reader of one stream (an edge's, or any other): adopts authors, repairs gaps, joins late, and merges what it has
//! already shown with what the newest author says, so that nothing shown goes backwards.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use millrace_wire::fact::{Fact, FactMessage, SegmentSlot, StreamState};
use millrace_wire::ids::{Epoch, FactSeq, Generation, InitVersion, Msn, PartIndex, Rendition};
use millrace_wire::message::announce::{EpochAnnouncement, EpochPhase, SessionAnnouncement};
use millrace_wire::message::repair::{MAX_RANGES, RepairReply, RepairRequest};

use crate::log::follower::LogFollower;
use crate::state::apply::end_of;
use crate::state::checkpoint::is_closed;
use crate::time::earlier;
use crate::{Machine, Millis};

/// A snapshot is asked for again after this time while one is needed.
pub const SNAPSHOT_RETRY_MS: u64 = 300;
/// A feed lagging longer than this is not current.
pub const CURRENT_MS: u64 = 1000;
/// Control repeats its announcements about every second: a stream it has not spoken of by then has no newer epoch.
pub const ANNOUNCED_MS: u64 = 1500;
/// A newly adopted author's first fact may take this long before a snapshot is asked for too.
pub const FIRST_FACT_MS: u64 = 300;

/// What a feed is told.
#[derive(Debug)]
pub enum Input {
    /// From `epoch.{stream}`.
    Epoch(EpochAnnouncement),
    /// From `session.{stream}`.
    Session(SessionAnnouncement),
    /// From the `live` or `repair.live` subject of any author; others than the adopted one are dropped.
    Fact(FactMessage),
    /// A reply to [`Output::AskSnapshot`].
    Snapshot(Box<StreamState>),
    /// The author's reply to [`Output::Repair`] of this log.
    RepairReply(Epoch, Generation, RepairReply),
    /// Nothing but time.
    Tick,
}

/// What a feed wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Subscribe to `live` and `repair.live` of this author and leave those of earlier ones.
    Follow(Epoch, Generation),
    /// Request on `snap.{stream}`; hand every reply in.
    AskSnapshot,
    /// Request on `ring.live` of this author; hand the reply in.
    Repair(Epoch, Generation, RepairRequest),
    /// Bytes to keep under this name.
    Bytes(Media),
    /// [`StreamReader::shown`] has changed.
    Changed,
}

/// Bytes that came with a fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    /// Rendition.
    pub rendition: Rendition,
    /// Epoch in the name.
    pub epoch: Epoch,
    /// Generation in the name (init sections: of the carrier only).
    pub generation: Generation,
    /// Which object.
    pub what: MediaKind,
    /// The bytes.
    pub bytes: Bytes,
}

/// Which object [`Media`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaKind {
    /// Initialisation section.
    Init(InitVersion),
    /// Part.
    Part(Msn, PartIndex),
    /// Whole segment.
    Segment(Msn),
}

/// A reader of one stream.
#[derive(Debug)]
pub struct StreamReader {
    seed: u64,
    epoch: Option<Epoch>,
    ended_epoch: Option<Epoch>,
    /// What the newest epoch's author may have used for GAPs.
    gaps_through: Option<Msn>,
    pending: Option<SessionAnnouncement>,
    follower: Option<LogFollower>,
    followed_at: Millis,
    tail: Option<Arc<StreamState>>,
    shown: Option<Arc<StreamState>>,
    /// The log has facts that are not in `shown` yet: facts that come together are merged together.
    unmerged: bool,
    backfill: Option<Vec<u64>>,
    snapshot_at: Option<Millis>,
    lag_since: Option<Millis>,
    since: Millis,
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
            Input::Epoch(a) => self.on_epoch(now, &a),
            Input::Session(a) => self.on_session(now, a),
            Input::Fact(message) => self.unmerged |= self.on_fact(now, message),
            Input::Snapshot(s) => self.unmerged |= self.on_snapshot(now, &s),
            Input::RepairReply(epoch, generation, reply) => {
                if let Some(f) = self.follower.as_mut().filter(|f| f.log() == (epoch, generation)) {
                    f.reply(now, &reply);
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
    /// A feed that knows nothing yet; it asks for a snapshot at once.
    pub fn new(now: Millis, seed: u64) -> Self {
        Self {
            seed,
            epoch: None,
            ended_epoch: None,
            gaps_through: None,
            pending: None,
            follower: None,
            followed_at: now,
            tail: None,
            shown: None,
            unmerged: false,
            backfill: None,
            snapshot_at: Some(now),
            lag_since: None,
            since: now,
            out: VecDeque::new(),
        }
    }
    /// What to render: never goes backwards. Facts count once [`StreamReader::poll_output`] has been asked.
    pub fn shown(&self) -> Option<&Arc<StreamState>> {
        self.shown.as_ref()
    }
    /// The folded state of the adopted log: the answer to a snapshot request.
    pub fn snapshot(&self) -> Option<&StreamState> {
        self.follower.as_ref().and_then(LogFollower::view)
    }
    /// The adopted log.
    pub fn log(&self) -> Option<(Epoch, Generation)> {
        self.follower.as_ref().map(LogFollower::log)
    }
    /// The newest log is folded but for what is under way.
    pub fn is_current(&self, now: Millis) -> bool {
        self.snapshot().is_some() && self.lag_since.is_none_or(|at| now - at < CURRENT_MS)
    }
    /// Control says that the newest epoch's broadcast is over, whether or not ENDLIST has come yet.
    pub fn is_ending(&self) -> bool {
        self.ended_epoch.is_some() && self.ended_epoch == self.epoch
    }
    fn on_epoch(&mut self, now: Millis, a: &EpochAnnouncement) {
        if self.epoch.is_some_and(|e| a.epoch < e) {
            return;
        }
        self.epoch = Some(a.epoch);
        self.ended_epoch = (a.phase == EpochPhase::Ended).then_some(a.epoch);
        self.gaps_through = match a.phase {
            EpochPhase::Away { gaps_through, .. } => gaps_through,
            EpochPhase::Open | EpochPhase::Ended => None,
        };
        if a.session.is_none() {
            self.adopt(now, a.epoch, Generation(1));
        } else if let Some(pending) = self.pending.take() {
            self.on_session(now, pending);
        }
    }

    fn on_session(&mut self, now: Millis, a: SessionAnnouncement) {
        match self.epoch {
            Some(e) if a.epoch == e => {
                if let Some(generation) = a.generation {
                    self.adopt(now, a.epoch, generation);
                }
            }
            Some(e) if a.epoch < e => {}
            // A session cannot announce its own epoch: control's word is awaited.
            _ if self.pending.as_ref().is_none_or(|p| p.epoch <= a.epoch) => self.pending = Some(a),
            _ => {}
        }
    }

    fn adopt(&mut self, now: Millis, epoch: Epoch, generation: Generation) -> bool {
        if self.log().is_some_and(|log| (epoch, generation) <= log) {
            return false;
        }
        self.seed = self.seed.wrapping_add(1);
        self.follower = Some(LogFollower::new(now, epoch, generation, self.seed));
        self.followed_at = now;
        self.snapshot_at = Some(now + FIRST_FACT_MS);
        self.backfill = None;
        self.tail.clone_from(&self.shown);
        self.out.push_back(Output::Follow(epoch, generation));
        true
    }

    fn on_fact(&mut self, now: Millis, message: FactMessage) -> bool {
        let Some(follower) = &mut self.follower else { return false };
        if follower.log() != (message.epoch, message.generation) {
            return false;
        }
        let changed = follower.receive(now, &message);
        if let Some(media) = media_of(message) {
            self.out.push_back(Output::Bytes(media));
        }
        changed
    }

    fn on_snapshot(&mut self, now: Millis, s: &StreamState) -> bool {
        // Only a reader that knows no epoch takes one from a snapshot.
        if self.epoch.is_some_and(|e| s.epoch > e) {
            return false;
        }
        if s.generation == Generation(0) {
            // Only what is at rest itself gives way to it.
            let rank = |s: &StreamState| (s.epoch, s.seq, s.ended);
            let older = |old: &Arc<StreamState>| old.generation == Generation(0) && rank(old) < rank(s);
            if self.shown.as_ref().is_none_or(older) && self.is_last_word(now, s) {
                self.shown = Some(Arc::new(s.clone()));
                // An author adopted before may have begun below it.
                self.tail.clone_from(&self.shown);
                self.out.push_back(Output::Changed);
            }
            return false;
        }
        if self.epoch.is_none() {
            self.epoch = Some(s.epoch);
        }
        // Only a reader without a log takes one from a snapshot.
        if self.follower.is_none() {
            self.adopt(now, s.epoch, s.generation);
        }
        let Some(follower) = &mut self.follower else { return false };
        if !follower.snapshot(s) {
            return false;
        }
        self.backfill = Some(payload_seqs(s));
        true
    }

    /// Whether nothing was shown beyond a state at rest: it is closed, no newer epoch has been opened, and its author did
    /// not go on after it.
    fn is_last_word(&self, now: Millis, rest: &StreamState) -> bool {
        let newest = match self.epoch {
            Some(epoch) => epoch == rest.epoch && (rest.ended || !self.is_ending()),
            // Control no longer speaks of broadcasts whose end is known.
            None => rest.ended && now - self.since >= ANNOUNCED_MS,
        };
        let last = rest.slots.back().map(|slot| slot.msn);
        newest && is_closed(rest) && last.is_some() && last >= self.gaps_through
    }

    fn drive(&mut self, now: Millis) {
        let Some(follower) = &mut self.follower else {
            return self.ask_snapshot(now);
        };
        let (epoch, generation) = follower.log();
        if follower.take_wants_snapshot() {
            self.snapshot_at = Some(now);
        } else if follower.view().is_some() {
            self.snapshot_at = None;
        }
        if follower.lag() == 0 && follower.view().is_some() {
            self.lag_since = None;
        } else {
            self.lag_since.get_or_insert(now);
        }
        if let Some(request) = follower.poll_request(now) {
            self.out.push_back(Output::Repair(epoch, generation, request));
        }
        if let Some(seqs) = self.backfill.take() {
            for ranges in ranges_of(&seqs).chunks(MAX_RANGES) {
                let request = RepairRequest { ranges: ranges.to_vec() };
                self.out.push_back(Output::Repair(epoch, generation, request));
            }
        }
        self.ask_snapshot(now);
    }

    fn ask_snapshot(&mut self, now: Millis) {
        if self.snapshot_at.is_some_and(|at| at <= now) {
            self.out.push_back(Output::AskSnapshot);
            self.snapshot_at = Some(now + SNAPSHOT_RETRY_MS);
        }
    }

    fn merge(&mut self) {
        if !std::mem::take(&mut self.unmerged) {
            return;
        }
        let Some(view) = self.follower.as_ref().and_then(LogFollower::view) else { return };
        // A base that knows nothing says nothing about what is shown.
        if view.slots.is_empty() && !view.ended && self.shown.as_ref().is_some_and(|s| !s.slots.is_empty()) {
            return;
        }
        // Its base may show less than the author of the base did. What became of the rest follows.
        if self.shown.is_none() && !view.opened && !is_closed(view) {
            return;
        }
        let mut next = view.clone();
        if let Some(tail) = &self.tail
            && !(tail.broadcast == view.broadcast && overlay(&mut next, tail))
            && (view.opened || is_closed(view))
        {
            self.tail = None;
        }
        let floor = self.shown.as_ref().map_or(Msn(0), |s| s.first_msn);
        if next.first_msn < floor {
            next.first_msn = floor;
            next.slots.retain(|s| s.msn >= floor);
        }
        self.shown = Some(Arc::new(next));
        self.out.push_back(Output::Changed);
    }
}

/// Adds to `view` what `tail` shows beyond it; gives whether there was anything.
fn overlay(view: &mut StreamState, tail: &StreamState) -> bool {
    // The newer epoch has said what became of every number below its first.
    if view.ended || (view.opened && view.epoch > tail.epoch) {
        return false;
    }
    let mut beyond = false;
    let ends: Vec<_> = tail.renditions.keys().map(|r| (r.clone(), end_of(view, r))).collect();
    let last = view.slots.back().map(|s| s.msn);
    for old in &tail.slots {
        if last.is_none_or(|l| old.msn > l) {
            if last.is_some() || old.msn >= view.first_msn {
                view.slots.push_back(old.clone());
                beyond = true;
            }
            continue;
        }
        let Some(slot) = view.slots.iter_mut().find(|s| s.msn == old.msn && s.gap.is_none()) else {
            continue;
        };
        for (rendition, end) in &ends {
            if end.is_none_or(|(msn, _, closed)| msn < old.msn || (msn == old.msn && !closed)) {
                beyond |= extend(Arc::make_mut(slot), old, rendition);
            }
        }
    }
    for (name, state) in &tail.renditions {
        view.renditions.entry(name.clone()).or_insert_with(|| state.clone());
    }
    beyond
}

fn extend(slot: &mut SegmentSlot, old: &SegmentSlot, rendition: &Rendition) -> bool {
    let Some(theirs) = old.tracks.get(rendition) else { return false };
    let Some(ours) = slot.tracks.get_mut(rendition) else {
        slot.tracks.insert(rendition.clone(), theirs.clone());
        return true;
    };
    let have = ours.parts.len();
    if have < theirs.parts.len() {
        ours.parts.extend_from_slice(&theirs.parts[have..]);
    } else if theirs.segment.as_ref().is_none_or(|s| (s.parts as usize) < have) {
        return false;
    }
    ours.segment.clone_from(&theirs.segment);
    true
}

fn media_of(message: FactMessage) -> Option<Media> {
    let (rendition, what) = match message.fact {
        Fact::Init { rendition, version, .. } => (rendition, MediaKind::Init(version)),
        Fact::Part(p) if !p.gap => (p.rendition, MediaKind::Part(p.msn, p.part)),
        Fact::Segment(s) if !message.payload.is_empty() => (s.rendition, MediaKind::Segment(s.msn)),
        _ => return None,
    };
    let (epoch, generation) = (message.epoch, message.generation);
    Some(Media { rendition, epoch, generation, what, bytes: message.payload })
}

/// Numbers of the facts of this log whose payloads the state lists.
fn payload_seqs(s: &StreamState) -> Vec<u64> {
    let own = |g: Generation, seq: FactSeq| (g == s.generation).then_some(seq.0);
    let inits = s.renditions.values().flat_map(|r| &r.inits).filter(|i| i.epoch == s.epoch);
    let parts =
        s.slots.iter().filter(|l| l.epoch == s.epoch).flat_map(|l| l.tracks.values()).flat_map(|t| &t.parts);
    let mut seqs: Vec<u64> = inits
        .filter_map(|i| own(i.generation, i.seq))
        .chain(parts.filter_map(|p| own(p.generation, p.seq)))
        .collect();
    seqs.sort_unstable();
    seqs
}

fn ranges_of(seqs: &[u64]) -> Vec<(u64, u64)> {
    let mut out: Vec<(u64, u64)> = Vec::new();
    for &seq in seqs {
        match out.last_mut() {
            Some((_, to)) if *to + 1 == seq => *to = seq,
            _ => out.push((seq, seq)),
        }
    }
    out
}
