//! Streams without a log writer: control takes over orphaned logs, the state store's checkpoint answers, workers drain.

use std::collections::BTreeSet;

use millrace_protocol::job;
use millrace_protocol::log::writer::EncodedMessage;
use millrace_protocol::reader::StreamReader;
use millrace_protocol::state::checkpoint::{checkpoint_of, may_replace, restored};
use millrace_protocol::state::position::Position;
use millrace_protocol::takeover::{self, GENERATION, OrphanLog};
use millrace_protocol::{Machine, Millis};
use millrace_wire::fact::{Origin, StreamState};
use millrace_wire::ids::*;
use rand::Rng;

use super::network::Msg;
use super::world::{Edge, World};

/// Time between two looks for a log writer.
const LOOK_MS: u64 = 5000;
/// Probability that a living log writer is taken for dead, because its answers were lost.
const MISTAKEN: f64 = 0.05;
/// A log that a newer epoch follows is still served for this long.
const SERVED_MS: u64 = 3000;
/// Snapshot requests before control gives up.
const TRIES: usize = 3;
/// Length of the playlists' window in seconds.
const WINDOW_S: u32 = 30;

/// Control's own log, and the checkpoint in the state store.
#[derive(Default)]
pub struct Orphan {
    log: Option<(Epoch, OrphanLog)>,
    superseded_at: Option<u64>,
    looked_at: u64,
    checkpoint: Option<StreamState>,
    /// Logs that control has taken over.
    pub takeovers: u64,
}

impl World {
    /// Writes the checkpoint of every log that has a writer.
    pub fn keep_checkpoint(&mut self) {
        let jobs = self.workers.iter().filter(|worker| worker.up).flat_map(|worker| worker.jobs.values());
        let states = jobs.filter_map(|job| job.job.snapshot());
        let mut checkpoints: Vec<StreamState> =
            states.map(|state| checkpoint_of(state, &BTreeSet::new(), WINDOW_S)).collect();
        if let Some((_, log)) = &self.orphan.log {
            let state = log.state();
            let lost = state.slots.iter().flat_map(|slot| {
                let unstored = slot.tracks.iter().filter(|(_, track)| !track.stored);
                unstored.map(|(name, _)| (name.clone(), slot.msn))
            });
            checkpoints.push(checkpoint_of(state, &lost.collect(), WINDOW_S));
        }
        for checkpoint in checkpoints {
            if self.orphan.checkpoint.as_ref().is_none_or(|old| may_replace(&checkpoint, old)) {
                self.orphan.checkpoint = Some(checkpoint);
            }
        }
    }

    /// Returns the newest state among the replies to a snapshot request of control.
    fn newest_reply(&mut self) -> Option<StreamState> {
        let mut states: Vec<StreamState> =
            self.edges.iter().filter_map(|edge| edge.reader.snapshot().cloned()).collect();
        states.extend(self.sessions.iter().filter(|s| s.up).map(|s| s.session.snapshot().clone()));
        let jobs = self.workers.iter().filter(|worker| worker.up).flat_map(|worker| worker.jobs.values());
        states.extend(jobs.filter_map(|job| job.job.snapshot().cloned()));
        states.extend(self.orphan.checkpoint.clone().map(restored));
        let epoch = self.control.epoch;
        states.retain(|state| state.epoch <= epoch && (state.ended || !state.slots.is_empty()));
        for _ in 0..TRIES {
            let loss = self.loss;
            let replies: Vec<_> = states.iter().filter(|_| !self.rng.random_bool(loss)).collect();
            if let Some(newest) = replies.into_iter().max_by_key(|state| Position::of(state)) {
                return Some(newest.clone());
            }
        }
        None
    }

    /// True if the writer of the log that `known` comes from answers, or the session that would find another one does.
    fn has_live_owner(&self, known: Option<&StreamState>) -> bool {
        let followed = known.filter(|state| state.origin == Origin::Log);
        let has_job = |log| self.workers.iter().any(|worker| worker.up && worker.jobs.contains_key(&log));
        let has_writer = followed.is_some_and(|state| has_job((state.epoch, state.generation)));
        let may_be_alive = self.control.is_away() && !self.control.released;
        let epoch = self.control.epoch;
        has_writer || may_be_alive && self.sessions.iter().any(|s| s.up && s.epoch == epoch)
    }

    /// Control looks for a log writer, and takes the log over if there is none.
    pub fn look_for_writer(&mut self) {
        let has_own = self.orphan.log.as_ref().is_some_and(|(epoch, _)| *epoch == self.control.epoch);
        let is_due = self.now >= self.orphan.looked_at + LOOK_MS;
        if has_own || !self.control.needs_writer(self.now) || !is_due {
            return;
        }
        self.orphan.looked_at = self.now;
        let known = self.newest_reply();
        if self.has_live_owner(known.as_ref()) && !self.rng.random_bool(MISTAKEN) {
            return;
        }
        let Some(known) = known else { return };
        let params = self.control.take_over(self.now);
        if self.trace {
            eprintln!("{} control takes over {params:?}, on {}", self.now, crate::summary(&known));
        }
        let log = OrphanLog::open(Millis(self.now), params, known, 1 << 16).unwrap();
        self.orphan.takeovers += 1;
        self.orphan.superseded_at = None;
        self.orphan.log = Some((params.epoch, log));
        self.announce_epoch();
        self.drain_orphan_log();
    }

    /// Lets time pass for control's own log.
    pub fn tick_orphan_log(&mut self) {
        let is_superseded = self.orphan.log.as_ref().is_some_and(|(epoch, _)| *epoch < self.control.epoch);
        if is_superseded && *self.orphan.superseded_at.get_or_insert(self.now) + SERVED_MS < self.now {
            self.orphan.log = None;
        }
        if let Some((_, log)) = &mut self.orphan.log {
            log.handle_timeout(Millis(self.now)).unwrap();
            self.drain_orphan_log();
        }
    }

    /// Handles a message for control as a log writer, or for the state store.
    pub fn orphan_log_gets(&mut self, msg: Msg) {
        let now = Millis(self.now);
        if let (Msg::AskSnapshot(from), Some(checkpoint)) = (&msg, &self.orphan.checkpoint) {
            self.send(*from, Msg::Snapshot(Box::new(restored(checkpoint.clone()))));
        }
        let Some((epoch, log)) = &mut self.orphan.log else { return };
        match msg {
            Msg::Epoch(announcement) => log.handle(now, takeover::Input::Epoch(announcement)).unwrap(),
            Msg::AskFacts(of, request, from) if of == (*epoch, GENERATION) => {
                let reply = log.repair(now, &request);
                self.send(from, Msg::FactReply(of, reply));
            }
            Msg::AskSnapshot(from) => {
                let state = Box::new(log.state().clone());
                self.send(from, Msg::Snapshot(state));
            }
            _ => {}
        }
        self.drain_orphan_log();
    }

    fn drain_orphan_log(&mut self) {
        let Some((_, log)) = &mut self.orphan.log else { return };
        let ended = log.state().ended;
        self.keep_checkpoint();
        let Some((_, log)) = &mut self.orphan.log else { return };
        let messages: Vec<_> = std::iter::from_fn(|| log.poll_output()).collect();
        let published = messages.into_iter().filter_map(|message| match message {
            EncodedMessage::Live(fragments) | EncodedMessage::Retransmit(fragments) => Some(fragments),
            EncodedMessage::Digest(_) => None,
        });
        for fragment in published.flatten() {
            self.all(&self.edge_nodes(), &Msg::Fact(fragment));
        }
        self.control.ended_reported |= ended;
    }

    /// Every node dies at once, and what was under way with it; a viewer remembers what it saw.
    pub fn blackout(&mut self) {
        if self.trace {
            let checkpoint = self.orphan.checkpoint.as_ref().map(crate::summary);
            eprintln!("{} blackout; checkpoint {checkpoint:?}", self.now);
        }
        self.kill_ingest();
        (0..self.workers.len()).for_each(|n| self.kill_worker(n));
        self.queue.clear();
        self.orphan.log = None;
        for n in 0..self.edges.len() {
            let reader = StreamReader::new(Millis(self.now), self.rng.random());
            let seen = self.edges[n].seen.take();
            self.edges[n] = Edge::new(reader, seen);
            self.drain_edge(n);
        }
    }

    /// A worker drains: it takes no more jobs and asks for successors.
    pub fn drain_worker(&mut self, n: usize) {
        self.workers[n].leaving = true;
        let jobs: Vec<_> = self.workers[n].jobs.keys().copied().collect();
        for key in jobs {
            self.input_job(n, key, job::Input::Leave);
        }
    }
}
