//! The simulated nodes: how each handles a message and executes the outputs of its machines.

use std::collections::{BTreeMap, VecDeque};

use millrace_protocol::job::{self, Packaged, WorkerJob};
use millrace_protocol::log::writer::EncodedMessage;
use millrace_protocol::reader::{self, Media, MediaKind};
use millrace_protocol::session;
use millrace_protocol::{Machine, Millis};
use millrace_wire::close_reason::CloseReason;
use millrace_wire::ids::*;
use millrace_wire::message::announce::IndexFact;
use millrace_wire::message::control::LeaseReply;
use millrace_wire::message::job::{Bid, GrantOrder};
use rand::Rng;

use super::network::{Msg, To};
use super::packager::{ToyPackager, low, numbers};
use super::world::{Job, World};

/// The encoding rung hands in what it makes within so many milliseconds.
const MOST_LATE_MS: u64 = 400;

impl World {
    /// Hands a message to the node it is for, if that is up.
    pub fn deliver(&mut self, to: To, msg: Msg) {
        match to {
            To::Session(i) if self.sessions[i].up => self.session_gets(i, msg),
            To::Worker(i) if self.workers[i].up => self.worker_gets(i, msg),
            To::Edge(i) => self.edge_gets(i, msg),
            To::Control => self.control_gets(msg),
            _ => {}
        }
    }

    fn control_gets(&mut self, msg: Msg) {
        match msg {
            Msg::Renew(request, i) => {
                let ok = self.control.renew(
                    self.now,
                    request.epoch,
                    request.open_msn,
                    request.discontinuity_sequence,
                );
                let reply = if ok {
                    LeaseReply::Ok
                } else {
                    LeaseReply::Superseded { reason: CloseReason::TakenOver }
                };
                self.send(To::Session(i), Msg::Renewed(reply));
            }
            Msg::Release(request, i) => {
                self.control.release(
                    self.now,
                    request.epoch,
                    request.open_msn,
                    request.discontinuity_sequence,
                );
                self.send(To::Session(i), Msg::Released(LeaseReply::Ok));
            }
            Msg::Report(report, i) => {
                self.control.sealed(&report);
                self.send(To::Worker(i), Msg::Reported(report.epoch));
            }
            other => self.orphan_log_gets(other),
        }
    }

    fn session_gets(&mut self, i: usize, msg: Msg) {
        let now = Millis(self.now);
        let input = match msg {
            Msg::Bid(bid) => session::Input::Bid(bid),
            Msg::Heartbeat(heartbeat) => session::Input::Heartbeat(heartbeat),
            Msg::Fact(fragment) => match self.sessions[i].facts.push(fragment).unwrap() {
                Some(fact) => session::Input::Fact(fact),
                None => return,
            },
            Msg::Snapshot(state) => session::Input::Snapshot(state),
            Msg::FactReply((epoch, generation), reply) => session::Input::FactReply(epoch, generation, reply),
            Msg::Loopback => session::Input::Loopback,
            Msg::Renewed(reply) => session::Input::Renewed(reply),
            Msg::Released(reply) => session::Input::Released(reply),
            Msg::Kick(reason) => session::Input::Kick(reason),
            Msg::AskMedia(epoch, request, from) => {
                if epoch == self.sessions[i].epoch {
                    let reply = self.sessions[i].session.repair(now, &request);
                    self.send(To::Worker(from), Msg::MediaReply(epoch, reply));
                    self.drain_session(i);
                }
                return;
            }
            Msg::AskSnapshot(from) => {
                let state = self.sessions[i].session.snapshot().clone();
                return self.send(from, Msg::Snapshot(Box::new(state)));
            }
            _ => return,
        };
        self.input_session(i, input);
    }

    /// Hands an input to a session and executes what follows.
    pub fn input_session(&mut self, i: usize, input: session::Input) {
        if self.trace {
            match &input {
                session::Input::Tick
                | session::Input::Media(_)
                | session::Input::Loopback
                | session::Input::Snapshot(_) => {}
                session::Input::Fact(fact) => eprintln!("{} session {i} fact {}", self.now, fact.seq),
                other => eprintln!("{} session {i} {}", self.now, brief(other)),
            }
        }
        self.sessions[i].session.handle(Millis(self.now), input).unwrap();
        self.drain_session(i);
    }

    /// Executes the outputs of a session.
    pub fn drain_session(&mut self, i: usize) {
        while let Some(out) = self.sessions[i].session.poll_output() {
            use session::Output as O;
            match out {
                O::Media(fragments) | O::Retransmit(fragments) => {
                    for fragment in fragments {
                        self.all(&self.workers(), &Msg::Media(fragment));
                    }
                }
                O::Announce(announcement) => {
                    let epoch = announcement.epoch;
                    if let (Some(generation), Some(worker)) =
                        (announcement.generation, announcement.worker.clone())
                    {
                        let known = self.writers.entry((epoch, generation)).or_insert(worker.clone());
                        assert_eq!(*known, worker, "two log writers of one generation");
                    }
                    self.all(&[self.workers(), self.edge_nodes()].concat(), &Msg::Announce(announcement));
                }
                O::Offer(offer) => self.all(&self.workers(), &Msg::Offer(offer)),
                O::Order(node, order) => self.all(&self.workers(), &Msg::Order(node, order)),
                O::AskFacts(epoch, generation, request) => {
                    let request = Msg::AskFacts((epoch, generation), request, To::Session(i));
                    self.all(&self.log_writers(), &request);
                }
                O::AskSnapshot => self.all(&self.snapshot_holders(), &Msg::AskSnapshot(To::Session(i))),
                O::Loopback => self.send(To::Session(i), Msg::Loopback),
                O::Renew(request) => self.send(To::Control, Msg::Renew(request, i)),
                O::Release(request) => {
                    self.sessions[i].publishing = false;
                    self.send(To::Control, Msg::Release(request, i));
                }
                O::Close(_) => self.sessions[i].publishing = false,
                O::Done => self.sessions[i].up = false,
                O::Backlog(_) | O::Follow(..) => {}
            }
        }
        assert!(
            self.sessions[i].session.replay_bytes() <= self.replay_bytes,
            "a replay buffer exceeds its bound"
        );
    }

    fn worker_gets(&mut self, i: usize, msg: Msg) {
        let keys: Vec<_> = self.workers[i].jobs.keys().copied().collect();
        match msg {
            Msg::Media(fragment) => {
                if let Some(message) = self.workers[i].media.push(fragment).unwrap() {
                    for key in keys.into_iter().filter(|key| key.0 == message.epoch) {
                        self.input_job(i, key, job::Input::Media(message.clone()));
                    }
                }
            }
            Msg::MediaReply(epoch, reply) => {
                for key in keys.into_iter().filter(|key| key.0 == epoch) {
                    self.input_job(i, key, job::Input::MediaReply(reply));
                }
            }
            Msg::Epoch(announcement) => {
                for key in keys {
                    self.input_job(i, key, job::Input::Epoch(announcement.clone()));
                }
            }
            Msg::Announce(announcement) => {
                for key in keys {
                    self.input_job(i, key, job::Input::Session(announcement.clone()));
                }
            }
            Msg::Reported(epoch) => {
                for key in keys.into_iter().filter(|key| key.0 == epoch) {
                    self.input_job(i, key, job::Input::Reported);
                }
            }
            Msg::Offer(_) if self.workers[i].leaving => {}
            Msg::Offer(offer) => {
                let node = self.workers[i].node.clone();
                let (free, continuing) = (10 - keys.len() as u64, !keys.is_empty());
                let bid = Bid { round: offer.round, node, free, continuing };
                let to = (0..self.sessions.len()).find(|s| self.sessions[*s].epoch == offer.epoch);
                self.send(To::Session(to.unwrap()), Msg::Bid(bid));
            }
            Msg::Order(node, order) if node == self.workers[i].node => self.order(i, *order),
            Msg::AskFacts(log, request, from) => {
                if let Some(running) = self.workers[i].jobs.get_mut(&log) {
                    let reply = running.job.repair(Millis(self.now), &request);
                    self.send(from, Msg::FactReply(log, reply));
                    self.drain_job(i, log);
                }
            }
            Msg::AskSnapshot(from) => {
                let jobs = self.workers[i].jobs.values();
                let states: Vec<_> = jobs.filter_map(|job| job.job.snapshot().cloned()).collect();
                for state in states {
                    self.send(from, Msg::Snapshot(Box::new(state)));
                }
            }
            Msg::Stored(life, key, rendition, msn) if life as u64 == self.life(i) => {
                self.input_job(i, key, job::Input::Stored(rendition, msn));
            }
            _ => {}
        }
    }

    /// Returns how often workers had started when this one did: the result of an upload is for that life only.
    fn life(&self, i: usize) -> u64 {
        self.workers[i].node.as_str().rsplit('-').next().unwrap().parse().unwrap()
    }

    fn order(&mut self, i: usize, order: GrantOrder) {
        match order {
            GrantOrder::Grant(grant) => {
                let key = (grant.epoch, grant.generation);
                if self.workers[i].jobs.contains_key(&key) || self.bodies.keys().any(|b| (b.0, b.1) == key) {
                    return;
                }
                let (node, seed) = (self.workers[i].node.clone(), self.rng.random());
                let encodes = self.has_ladder.then(|| low().as_str().parse().unwrap());
                let rungs: Vec<RungId> = [RungId::copy()].into_iter().chain(encodes).collect();
                let packagers = rungs.iter().map(|id| (id.clone(), ToyPackager::of(id))).collect();
                let rungs = rungs.into_iter().collect();
                let job = WorkerJob::new(Millis(self.now), *grant, node, rungs, 1 << 16, seed).unwrap();
                self.workers[i]
                    .jobs
                    .insert(key, Job { job, packagers, late: VecDeque::new(), given: BTreeMap::new() });
                self.drain_job(i, key);
            }
            GrantOrder::Quiesce { epoch, generation, .. } => {
                self.input_job(i, (epoch, generation), job::Input::Quiesce);
            }
            GrantOrder::Revoke { epoch, generation, .. } => {
                self.input_job(i, (epoch, generation), job::Input::Revoked);
            }
        }
    }

    /// Hands an input to a job and executes what follows.
    pub fn input_job(&mut self, i: usize, key: (Epoch, Generation), input: job::Input) {
        if self.trace && !matches!(input, job::Input::Tick | job::Input::Media(_)) {
            eprintln!("{} worker {i} {}/{} {}", self.now, key.0, key.1, brief(&input));
        }
        if let Some(running) = self.workers[i].jobs.get_mut(&key) {
            running.job.handle(Millis(self.now), input).unwrap();
            self.drain_job(i, key);
        }
    }

    fn drain_job(&mut self, i: usize, key: (Epoch, Generation)) {
        use job::Output as O;
        let mut made: Vec<(RungId, Packaged)> = vec![];
        let rung = self.low_rung(i, key.1);
        loop {
            let Some(running) = self.workers[i].jobs.get_mut(&key) else { return };
            let Some(out) = running.job.poll_output() else { return };
            match out {
                O::PreRoll(units) => running.note(&units),
                O::Package(message) => {
                    running.note(&message.units);
                    for (id, packager) in &mut running.packagers {
                        let mut own = vec![];
                        packager.push(&message.units, rung, &mut own);
                        made.extend(own.into_iter().map(|packaged| (id.clone(), packaged)));
                    }
                }
                O::RestartRung(id) => {
                    running.given.clear();
                    if id != RungId::copy() {
                        running.late.clear();
                    }
                    running.packagers.insert(id.clone(), ToyPackager::of(&id));
                }
                O::Flush(id) => {
                    let mut own = vec![];
                    running.packagers.get_mut(&id).unwrap().flush(&mut own);
                    own.push(Packaged::Flushed);
                    made.extend(own.into_iter().map(|packaged| (id.clone(), packaged)));
                }
                O::Done => {
                    self.workers[i].jobs.remove(&key);
                    return;
                }
                O::Publish(message) => self.send_facts(message),
                O::AskMedia(request) => {
                    self.all(&self.live_sessions(), &Msg::AskMedia(key.0, request, i));
                }
                O::Heartbeat(heartbeat) => self.all(&self.live_sessions(), &Msg::Heartbeat(heartbeat)),
                O::Upload(segment, body) => {
                    self.upload(i, key, segment.rendition, segment.msn, body.contiguous().into());
                }
                O::Index(fact) => self.on_index(fact),
                O::Report(report) => self.send(To::Control, Msg::Report(report, i)),
                O::PreRollMissing | O::UploadInit(..) | O::Superseded => {}
            }
            for (id, packaged) in made.drain(..) {
                let running = self.workers[i].jobs.get_mut(&key).unwrap();
                if id == RungId::copy() {
                    running.job.handle(Millis(self.now), job::Input::Packaged(id, packaged)).unwrap();
                } else {
                    let before = running.late.back().map_or(0, |(at, _)| *at);
                    let at = before.max(self.now + self.rng.random_range(0..MOST_LATE_MS));
                    running.late.push_back((at, packaged));
                }
            }
        }
    }

    /// Hands in what the encoding rungs of a worker have finished by now, unless their jobs quiesce.
    pub fn take_late(&mut self, i: usize) {
        let keys: Vec<_> = self.workers[i].jobs.keys().copied().collect();
        for key in keys {
            while let Some(running) = self.workers[i].jobs.get_mut(&key)
                && !running.job.is_quiescing()
                && let Some((_, packaged)) = running.late.pop_front_if(|(at, _)| *at <= self.now)
            {
                let id = low().as_str().parse().unwrap();
                self.input_job(i, key, job::Input::Packaged(id, packaged));
            }
        }
    }

    fn send_facts(&mut self, message: EncodedMessage) {
        let (fragments, to) = match message {
            EncodedMessage::Live(fragments) => (fragments, self.edge_nodes()),
            EncodedMessage::Digest(fragments) => (fragments, self.live_sessions()),
            EncodedMessage::Retransmit(fragments) => {
                (fragments, [self.edge_nodes(), self.live_sessions()].concat())
            }
        };
        for fragment in fragments {
            self.all(&to, &Msg::Fact(fragment));
        }
    }

    fn upload(&mut self, i: usize, key: (Epoch, Generation), rendition: Rendition, msn: Msn, body: Vec<u8>) {
        let name = (key.0, key.1, rendition.clone(), msn);
        assert!(self.bodies.insert(name.clone(), body.into()).is_none(), "object {name:?} written twice");
        let delay = if self.store_down { 4000 } else { self.rng.random_range(10..400) };
        self.order += 1;
        let stored = Msg::Stored(self.life(i) as usize, key, rendition, msn);
        self.queue.insert((self.now + delay, self.order), (To::Worker(i), stored));
    }

    fn on_index(&mut self, fact: IndexFact) {
        let IndexFact { epoch, generation, segment, .. } = fact;
        let body = &self.bodies[&(epoch, generation, segment.rendition.clone(), segment.msn)];
        let units = numbers(body);
        let known =
            self.index.entry((epoch, segment.rendition, segment.msn)).or_insert_with(|| units.clone());
        // An ingest node that dies in a handover leaves a primary that closes the open segment short beside a standby that
        // had more of it (ADR 1).
        let is_cut_short = units.starts_with(known) || known.starts_with(&units);
        if self.lost_epochs.contains(&epoch) && is_cut_short {
            if units.len() > known.len() {
                *known = units;
            }
        } else {
            assert_eq!(*known, units, "two generations stored different segments");
        }
    }

    fn edge_gets(&mut self, i: usize, msg: Msg) {
        let input = match msg {
            Msg::Epoch(announcement) => reader::Input::Epoch(announcement),
            Msg::Announce(announcement) => reader::Input::Session(announcement),
            Msg::Fact(fragment) => match self.edges[i].facts.push(fragment).unwrap() {
                Some(fact) => reader::Input::Fact(fact),
                None => return,
            },
            Msg::Snapshot(state) => reader::Input::Snapshot(state),
            Msg::FactReply((epoch, generation), reply) => {
                reader::Input::RepairReply(epoch, generation, reply)
            }
            Msg::AskSnapshot(from) => {
                if let Some(state) = self.edges[i].reader.snapshot().cloned() {
                    self.send(from, Msg::Snapshot(Box::new(state)));
                }
                return;
            }
            _ => return,
        };
        self.input_edge(i, input);
    }

    /// Hands an input to an edge's reader and executes what follows.
    pub fn input_edge(&mut self, i: usize, input: reader::Input) {
        let Ok(()) = self.edges[i].reader.handle(Millis(self.now), input);
        self.drain_edge(i);
    }

    /// Executes the outputs of an edge's reader, and checks what it shows.
    pub fn drain_edge(&mut self, i: usize) {
        while let Some(out) = self.edges[i].reader.poll_output() {
            match out {
                reader::Output::AskSnapshot => {
                    self.all(&self.snapshot_holders(), &Msg::AskSnapshot(To::Edge(i)));
                }
                reader::Output::Repair(epoch, generation, request) => {
                    let request = Msg::AskFacts((epoch, generation), request, To::Edge(i));
                    self.all(&self.log_writers(), &request);
                }
                reader::Output::Bytes(Media { rendition, epoch, generation, what, bytes }) => {
                    let name = match what {
                        MediaKind::Init(version) => format!("{rendition}/{epoch}/init-{version}"),
                        MediaKind::Part(msn, part) => part_name(&rendition, epoch, (msn, generation), part.0),
                        MediaKind::Segment(msn) => segment_name(&rendition, epoch, (msn, generation)),
                    };
                    let known = self.names.entry(name.clone()).or_insert_with(|| bytes.clone());
                    assert_eq!(*known, bytes, "{name} names two contents");
                }
                reader::Output::Changed => self.check_edge(i),
                reader::Output::Follow(..) => {}
            }
        }
    }
}

/// Returns the name of a part as edges know it.
pub fn part_name(rendition: &Rendition, epoch: Epoch, (msn, by): (Msn, Generation), part: u32) -> String {
    format!("{rendition}/{epoch}/{msn}.{by}.{part}")
}

/// Returns the name of a segment as edges know it.
pub fn segment_name(rendition: &Rendition, epoch: Epoch, (msn, by): (Msn, Generation)) -> String {
    format!("{rendition}/{epoch}/{msn}.{by}")
}

fn brief(input: &impl std::fmt::Debug) -> String {
    format!("{input:?}").chars().take(160).collect()
}
