//! What happens where nobody is left: control closes logs, the state at rest answers, workers drain.

use std::collections::BTreeSet;

use millrace_protocol::job;
use millrace_protocol::log::writer::EncodedMessage;
use millrace_protocol::reader::StreamReader;
use millrace_protocol::state::checkpoint::{at_rest, base, may_replace};
use millrace_protocol::takeover::{self, GENERATION, OrphanLog};
use millrace_protocol::{Machine, Millis};
use millrace_wire::fact::{FactReader, StreamState};
use millrace_wire::ids::*;
use rand::Rng;

use crate::world::{Edge, Msg, World};

/// Between two looks for an author.
const LOOK_MS: u64 = 5000;
/// Living authors taken for dead: their answers were lost.
const MISTAKEN: f64 = 0.05;
/// A log that a newer epoch follows is still answered for.
const FAREWELL_MS: u64 = 3000;
/// Snapshots are asked for so often before there are none.
const TRIES: usize = 3;

/// Control's own log, and the state that is kept.
#[derive(Default)]
pub struct Closing {
    closer: Option<(Epoch, OrphanLog)>,
    superseded: Option<u64>,
    looked: u64,
    rest: Option<StreamState>,
    pub taken_up: u64,
}

impl World {
    /// Whoever is granted, or control, has its state kept.
    pub fn keep(&mut self) {
        let jobs = self.workers.iter().filter(|w| w.up).flat_map(|w| w.jobs.values());
        let mut states: Vec<StreamState> =
            jobs.filter_map(|j| j.job.snapshot()).map(|view| at_rest(view, &BTreeSet::new(), 30)).collect();
        if let Some((_, closer)) = &self.closing.closer {
            let view = closer.view();
            let waiting = view.slots.iter().flat_map(|s| {
                let open = s.tracks.iter().filter(|(_, t)| !t.stored);
                open.map(|(r, _)| (r.clone(), s.msn))
            });
            states.push(at_rest(view, &waiting.collect(), 30));
        }
        for state in states {
            if self.closing.rest.as_ref().is_none_or(|old| may_replace(&state, old)) {
                self.closing.rest = Some(state);
            }
        }
    }

    /// The newest state whose answer comes.
    fn newest(&mut self) -> Option<StreamState> {
        let mut states: Vec<StreamState> =
            self.edges.iter().filter_map(|e| e.feed.snapshot().cloned()).collect();
        states.extend(self.sessions.iter().filter(|s| s.up).map(|s| s.session.snapshot().clone()));
        let jobs = self.workers.iter().filter(|w| w.up).flat_map(|w| w.jobs.values());
        states.extend(jobs.filter_map(|j| j.job.snapshot().cloned()));
        states.extend(self.closing.rest.clone().map(base));
        let epoch = self.control.epoch;
        states.retain(|s| s.epoch <= epoch && (s.ended || !s.slots.is_empty()));
        for _ in 0..TRIES {
            let loss = self.loss;
            let heard: Vec<_> = states.iter().filter(|_| !self.rng.random_bool(loss)).collect();
            if let Some(newest) = heard.into_iter().max_by_key(|s| (s.epoch, s.generation, s.seq)) {
                return Some(newest.clone());
            }
        }
        None
    }

    fn is_cared_for(&self, known: Option<&StreamState>) -> bool {
        let log = known.map(|s| (s.epoch, s.generation));
        let author = self.workers.iter().any(|w| w.up && log.is_some_and(|log| w.jobs.contains_key(&log)));
        let silent = self.control.is_away() && !self.control.released;
        let epoch = self.control.epoch;
        author || silent && self.sessions.iter().any(|s| s.up && s.epoch == epoch)
    }

    /// Control looks for an author, and takes its place when there is none.
    pub fn look(&mut self) {
        let own = self.closing.closer.as_ref().is_some_and(|(epoch, _)| *epoch == self.control.epoch);
        if own || !self.control.needs_author(self.now) || self.now < self.closing.looked + LOOK_MS {
            return;
        }
        self.closing.looked = self.now;
        let known = self.newest();
        if self.is_cared_for(known.as_ref()) && !self.rng.random_bool(MISTAKEN) {
            return;
        }
        let Some(known) = known else { return };
        let closing = self.control.take_up(self.now);
        if self.trace {
            eprintln!("{} control takes up {closing:?}, on {}", self.now, crate::summary(&known));
        }
        let epoch = closing.epoch;
        let closer = OrphanLog::open(Millis(self.now), closing, known, 1 << 16).unwrap();
        self.closing.taken_up += 1;
        self.closing.superseded = None;
        self.closing.closer = Some((epoch, closer));
        self.announce_epoch();
        self.drain_closer();
    }

    pub fn tick_closer(&mut self) {
        let newer = self.closing.closer.as_ref().is_some_and(|(epoch, _)| *epoch < self.control.epoch);
        if newer && *self.closing.superseded.get_or_insert(self.now) + FAREWELL_MS < self.now {
            self.closing.closer = None;
        }
        if let Some((_, closer)) = &mut self.closing.closer {
            closer.handle_timeout(Millis(self.now)).unwrap();
            self.drain_closer();
        }
    }

    /// What control is told as an author, or the state store is asked.
    pub fn closer_gets(&mut self, msg: Msg) {
        let now = Millis(self.now);
        if let (Msg::AskSnapshot(from), Some(rest)) = (&msg, &self.closing.rest) {
            self.send(*from, Msg::Snapshot(Box::new(base(rest.clone()))));
        }
        let Some((epoch, closer)) = &mut self.closing.closer else { return };
        match msg {
            Msg::Epoch(a) => closer.handle(now, takeover::Input::Epoch(a)).unwrap(),
            Msg::AskFacts(log, request, from) if log == (*epoch, GENERATION) => {
                let reply = closer.repair(now, &request);
                self.send(from, Msg::FactReply(log, reply));
            }
            Msg::AskSnapshot(from) => {
                let view = Box::new(closer.view().clone());
                self.send(from, Msg::Snapshot(view));
            }
            _ => {}
        }
        self.drain_closer();
    }

    fn drain_closer(&mut self) {
        let Some((_, closer)) = &mut self.closing.closer else { return };
        let ended = closer.view().ended;
        self.keep();
        let Some((_, closer)) = &mut self.closing.closer else { return };
        let frames: Vec<_> = std::iter::from_fn(|| closer.poll_output()).collect();
        let told = frames.into_iter().filter_map(|frames| match frames {
            EncodedMessage::Live(frames) | EncodedMessage::Retransmit(frames) => Some(frames),
            EncodedMessage::Digest(_) => None,
        });
        for frame in told.flatten() {
            self.all(&self.edges_to(), &Msg::Fact(frame));
        }
        self.control.ended_reported |= ended;
    }

    /// Everything dies at once and what was under way with it; a viewer remembers what it saw.
    pub fn blackout(&mut self) {
        if self.trace {
            eprintln!("{} blackout; at rest {:?}", self.now, self.closing.rest.as_ref().map(crate::summary));
        }
        self.kill_ingest();
        (0..self.workers.len()).for_each(|n| self.kill_worker(n));
        self.queue.clear();
        self.closing.closer = None;
        for n in 0..self.edges.len() {
            let feed = StreamReader::new(Millis(self.now), self.rng.random());
            let seen = self.edges[n].seen.take();
            self.edges[n] = Edge { feed, facts: FactReader::default(), seen };
            self.drain_edge(n);
        }
    }

    /// A worker drains: it takes no more jobs and asks for successors.
    pub fn drain_worker(&mut self, n: usize) {
        self.workers[n].leaving = true;
        let jobs: Vec<_> = self.workers[n].jobs.keys().copied().collect();
        for key in jobs {
            self.to_job(n, key, job::Input::Leave);
        }
    }
}
