//! One stream's cluster on a simulated, faulty network.

use std::collections::BTreeMap;

use bytes::Bytes;
use millrace_protocol::job::{self, Packaged, WorkerJob};
use millrace_protocol::log::repair::RepairLimits;
use millrace_protocol::log::replay_buffer::ReplayLimits;
use millrace_protocol::log::writer::EncodedMessage;
use millrace_protocol::reader::{self, MediaKind, StreamReader};
use millrace_protocol::session::{self, Session, SessionConfig};
use millrace_protocol::state::apply::end_of;
use millrace_protocol::{Machine, Millis};
use millrace_wire::close_reason::CloseReason;
use millrace_wire::fact::{FactReader, StreamState};
use millrace_wire::ids::*;
use millrace_wire::message::announce::{EpochAnnouncement, IndexFact, SessionAnnouncement};
use millrace_wire::message::control::{LeaseReply, ReleaseRequest, RenewRequest, SealReport};
use millrace_wire::message::job::{Bid, GrantOrder, Heartbeat, Offer};
use millrace_wire::message::media::{MediaReader, MediaUnit, Track};
use millrace_wire::message::repair::{RepairReply, RepairRequest};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::closing::Closing;
use crate::toy::*;

/// Receivers on the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    Session(usize),
    Worker(usize),
    Edge(usize),
    Control,
}

#[derive(Debug, Clone)]
pub enum Msg {
    Media(Bytes),
    Fact(Bytes),
    Epoch(EpochAnnouncement),
    Announce(SessionAnnouncement),
    Offer(Offer),
    Bid(Bid),
    Order(NodeId, Box<GrantOrder>),
    Heartbeat(Heartbeat),
    AskMedia(Epoch, RepairRequest, usize),
    MediaReply(Epoch, RepairReply),
    AskFacts((Epoch, Generation), RepairRequest, To),
    FactReply((Epoch, Generation), RepairReply),
    AskSnapshot(To),
    Snapshot(Box<StreamState>),
    Loopback,
    Renew(RenewRequest, usize),
    Release(ReleaseRequest, usize),
    Lease(LeaseReply),
    Kick(CloseReason),
    Report(SealReport, usize),
    Reported(Epoch),
    Stored(usize, (Epoch, Generation), Rendition, Msn),
}

pub struct Job {
    pub job: WorkerJob,
    packager: ToyPackager,
}
pub struct Worker {
    node: NodeId,
    pub up: bool,
    pub leaving: bool,
    media: MediaReader,
    pub jobs: BTreeMap<(Epoch, Generation), Job>,
}
pub struct Edge {
    pub feed: StreamReader,
    pub facts: FactReader,
    pub seen: Option<StreamState>,
}
pub struct Ingest {
    pub session: Session,
    pub epoch: Epoch,
    facts: FactReader,
    pub up: bool,
    pub accepted: Vec<MediaUnit>,
    publishing: bool,
    msn: Msn,
    discontinuity: DiscontinuitySeq,
    units: u64,
}

pub struct World {
    pub rng: SmallRng,
    pub now: u64,
    pub queue: BTreeMap<(u64, u64), (To, Msg)>,
    order: u64,
    pub loss: f64,
    pub closing: Closing,
    /// Epochs whose ingest node died.
    pub killed: Vec<Epoch>,
    /// Bytes of a media ring; too few for an outage now and then.
    pub ring_bytes: usize,
    pub store_down: bool,
    pub sessions: Vec<Ingest>,
    pub workers: Vec<Worker>,
    pub edges: Vec<Edge>,
    pub control: ToyControl,
    names: BTreeMap<String, Bytes>,
    pub index: BTreeMap<(Epoch, Rendition, Msn), Vec<u64>>,
    bodies: BTreeMap<(Epoch, Generation, Rendition, Msn), Bytes>,
    authors: BTreeMap<(Epoch, Generation), NodeId>,
    number: u64,
    pub fault_count: u64,
    /// Print what nodes are told: `MILLRACE_SIM_TRACE=1`.
    pub trace: bool,
}

fn node(n: usize, life: u64) -> NodeId {
    format!("worker-{n}-{life}").parse().unwrap()
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let loss = [0.0, 0.01, 0.1][rng.random_range(0..3)];
        let mut w = Self {
            rng,
            now: 0,
            queue: BTreeMap::new(),
            order: 0,
            loss,
            closing: Closing::default(),
            killed: vec![],
            ring_bytes: 4 << 20,
            store_down: false,
            sessions: vec![],
            workers: vec![],
            edges: vec![],
            control: ToyControl::new(),
            names: BTreeMap::new(),
            index: BTreeMap::new(),
            bodies: BTreeMap::new(),
            authors: BTreeMap::new(),
            number: 0,
            fault_count: 0,
            trace: std::env::var_os("MILLRACE_SIM_TRACE").is_some(),
        };
        for n in 0..2 {
            let (media, jobs) = (MediaReader::default(), BTreeMap::new());
            w.workers.push(Worker { node: node(n, 0), up: true, leaving: false, media, jobs });
            let feed = StreamReader::new(Millis(0), seed ^ n as u64);
            w.edges.push(Edge { feed, facts: FactReader::default(), seen: None });
        }
        w
    }

    pub fn send(&mut self, to: To, msg: Msg) {
        let lossless = matches!(msg, Msg::Stored(..) | Msg::Loopback);
        if !lossless && self.rng.random_bool(self.loss) {
            return;
        }
        let copies = if !lossless && self.rng.random_bool(self.loss / 2.0) { 2 } else { 1 };
        for _ in 0..copies {
            let late = if self.rng.random_bool(self.loss) { 200 } else { 8 };
            let at = self.now + 1 + self.rng.random_range(0..late);
            self.order += 1;
            self.queue.insert((at, self.order), (to, msg.clone()));
        }
        assert!(self.queue.len() < 100_000, "messages pile up");
    }
    pub fn all(&mut self, to: &[To], msg: &Msg) {
        for t in to {
            self.send(*t, msg.clone());
        }
    }
    fn workers_to(&self) -> Vec<To> {
        (0..self.workers.len()).map(To::Worker).collect()
    }
    fn authors_to(&self) -> Vec<To> {
        [self.workers_to(), vec![To::Control]].concat()
    }
    pub fn edges_to(&self) -> Vec<To> {
        (0..self.edges.len()).map(To::Edge).collect()
    }
    pub fn sessions_to(&self) -> Vec<To> {
        (0..self.sessions.len()).filter(|i| self.sessions[*i].up).map(To::Session).collect()
    }
    fn readers(&self) -> Vec<To> {
        [self.workers_to(), self.edges_to(), self.sessions_to(), vec![To::Control]].concat()
    }

    /// A publisher connects (again).
    pub fn publish(&mut self) {
        let id = SessionId::from_u128(self.sessions.len() as u128 + 1);
        let claim = self.control.claim(self.now, id);
        for s in self.sessions_to() {
            self.send(s, Msg::Kick(CloseReason::TakenOver));
        }
        let (epoch, msn, discontinuity) = (claim.epoch, claim.first_msn, claim.discontinuity_sequence);
        let cfg = SessionConfig {
            claim,
            session: id,
            program_date_time: UnixMillis(WALL + self.now),
            lead_gaps: 2,
            cost: 1,
            max_payload: 1 << 16,
            ring: ReplayLimits { bytes: self.ring_bytes, age_ms: 10_000 },
            repair: RepairLimits::default(),
            seed: self.rng.random(),
        };
        let session = Session::new(Millis(self.now), cfg);
        let facts = FactReader::default();
        let (accepted, publishing, units) = (vec![], true, 0);
        self.sessions.push(Ingest {
            session,
            epoch,
            facts,
            up: true,
            accepted,
            publishing,
            msn,
            discontinuity,
            units,
        });
        self.announce_epoch();
        self.drain_session(self.sessions.len() - 1);
    }
    pub fn unpublish(&mut self) {
        if let Some(i) = self.sessions.iter().position(|s| s.up && s.publishing) {
            self.to_session(i, session::Input::PublisherGone(CloseReason::ConnectionLost));
        }
    }
    pub fn is_publishing(&self) -> bool {
        self.sessions.iter().any(|s| s.up && s.publishing)
    }
    pub fn kill_ingest(&mut self) {
        for s in self.sessions.iter_mut().filter(|s| s.up) {
            s.up = false;
            self.killed.push(s.epoch);
        }
    }
    pub fn kill_worker(&mut self, n: usize) {
        self.workers[n].up = false;
        self.workers[n].jobs.clear();
    }
    pub fn revive_worker(&mut self, n: usize) {
        self.fault_count += 1;
        self.workers[n].node = node(n, self.fault_count);
        self.workers[n].up = true;
        self.workers[n].leaving = false;
        self.workers[n].jobs.clear();
    }
    pub fn restart_edge(&mut self, n: usize) {
        let feed = StreamReader::new(Millis(self.now), self.rng.random());
        self.edges[n] = Edge { feed, facts: FactReader::default(), seen: None };
        self.drain_edge(n);
    }
    pub fn announce_epoch(&mut self) {
        if let Some(a) = self.control.announcement() {
            let to = [self.workers_to(), self.edges_to(), vec![To::Control]].concat();
            self.all(&to, &Msg::Epoch(a));
        }
    }

    /// One millisecond-stepped run until `until`.
    pub fn run(&mut self, until: u64) {
        while self.now < until {
            self.now += 4;
            if self.now.is_multiple_of(UNIT_MS) {
                self.produce();
            }
            while let Some(e) = self.queue.first_entry().filter(|e| e.key().0 <= self.now) {
                let (to, msg) = e.remove();
                self.deliver(to, msg);
            }
            self.ticks();
            if self.now.is_multiple_of(500) {
                self.control.tick(self.now);
                self.announce_epoch();
                self.look();
            }
            if self.now.is_multiple_of(100) {
                self.keep();
                self.check();
            }
        }
    }

    fn produce(&mut self) {
        let Some(i) = self.sessions.iter().position(|s| s.up && s.publishing) else { return };
        let n = self.number;
        self.number += 1;
        let s = &mut self.sessions[i];
        let boundary = s.units.is_multiple_of(SEGMENT_UNITS);
        if boundary && s.units > 0 {
            s.msn = s.msn.next();
        }
        s.units += 1;
        let mut units = vec![unit(Track::Video, n, s.msn, s.discontinuity, boundary)];
        // Audio starts late and stays behind a boundary for one message, as interleaving makes it.
        if s.units > 5 {
            let msn = if boundary { Msn(s.msn.0 - 1) } else { s.msn };
            units.push(unit(Track::Audio, n, msn, s.discontinuity, false));
        }
        s.accepted.extend(units.iter().cloned());
        self.to_session(i, session::Input::Media(units));
    }

    fn ticks(&mut self) {
        let now = Millis(self.now);
        for i in 0..self.sessions.len() {
            if self.sessions[i].up && self.sessions[i].session.next_timeout().is_some_and(|t| t <= now) {
                self.to_session(i, session::Input::Tick);
            }
        }
        for i in 0..self.workers.len() {
            let due = self.workers[i].jobs.iter();
            let due: Vec<_> = due
                .filter(|(_, j)| j.job.next_timeout().is_some_and(|t| t <= now))
                .map(|(k, _)| *k)
                .collect();
            for key in due {
                self.to_job(i, key, job::Input::Tick);
            }
        }
        self.tick_closer();
        for i in 0..self.edges.len() {
            if self.edges[i].feed.next_timeout().is_some_and(|t| t <= now) {
                self.to_edge(i, reader::Input::Tick);
            }
        }
    }

    fn deliver(&mut self, to: To, msg: Msg) {
        match to {
            To::Session(i) if self.sessions[i].up => self.session_gets(i, msg),
            To::Worker(i) if self.workers[i].up => self.worker_gets(i, msg),
            To::Edge(i) => self.edge_gets(i, msg),
            To::Control => self.control_gets(msg),
            _ => {}
        }
    }

    fn control_gets(&mut self, msg: Msg) {
        let lease = |ok| {
            let reason = CloseReason::TakenOver;
            Msg::Lease(if ok { LeaseReply::Ok } else { LeaseReply::Superseded { reason } })
        };
        match msg {
            Msg::Renew(r, i) => {
                let ok = self.control.renew(self.now, r.epoch, r.open_msn, r.discontinuity_sequence);
                self.send(To::Session(i), lease(ok));
            }
            Msg::Release(r, i) => {
                self.control.release(self.now, r.epoch, r.open_msn, r.discontinuity_sequence);
                self.send(To::Session(i), lease(true));
            }
            Msg::Report(r, i) => {
                self.control.sealed(&r);
                self.send(To::Worker(i), Msg::Reported(r.epoch));
            }
            other => self.closer_gets(other),
        }
    }

    fn session_gets(&mut self, i: usize, msg: Msg) {
        let now = Millis(self.now);
        let input = match msg {
            Msg::Bid(b) => session::Input::Bid(b),
            Msg::Heartbeat(h) => session::Input::Heartbeat(h),
            Msg::Fact(b) => match self.sessions[i].facts.push(b).unwrap() {
                Some(m) => session::Input::Fact(m),
                None => return,
            },
            Msg::Snapshot(s) => session::Input::Snapshot(s),
            Msg::FactReply((e, g), r) => session::Input::FactReply(e, g, r),
            Msg::Loopback => session::Input::Loopback,
            Msg::Lease(l) => session::Input::Lease(l),
            Msg::Kick(r) => session::Input::Kick(r),
            Msg::AskMedia(epoch, request, from) => {
                if epoch == self.sessions[i].epoch {
                    let reply = self.sessions[i].session.repair(now, &request);
                    self.send(To::Worker(from), Msg::MediaReply(epoch, reply));
                    self.drain_session(i);
                }
                return;
            }
            Msg::AskSnapshot(from) => {
                let s = self.sessions[i].session.snapshot().clone();
                return self.send(from, Msg::Snapshot(Box::new(s)));
            }
            _ => return,
        };
        self.to_session(i, input);
    }

    fn to_session(&mut self, i: usize, input: session::Input) {
        if self.trace {
            match &input {
                session::Input::Tick
                | session::Input::Media(_)
                | session::Input::Loopback
                | session::Input::Snapshot(_) => {}
                session::Input::Fact(m) => eprintln!("{} session {i} fact {}", self.now, m.seq),
                other => eprintln!("{} session {i} {}", self.now, brief(other)),
            }
        }
        self.sessions[i].session.handle(Millis(self.now), input).unwrap();
        self.drain_session(i);
    }

    fn drain_session(&mut self, i: usize) {
        while let Some(out) = self.sessions[i].session.poll_output() {
            use session::Output as O;
            match out {
                O::Media(frames) | O::Retransmit(frames) => {
                    for f in frames {
                        self.all(&self.workers_to(), &Msg::Media(f));
                    }
                }
                O::Announce(a) => {
                    if let (Some(g), Some(w)) = (a.generation, a.worker.clone()) {
                        let known = self.authors.entry((a.epoch, g)).or_insert(w.clone());
                        assert_eq!(*known, w, "two authors of one generation");
                    }
                    self.all(&[self.workers_to(), self.edges_to()].concat(), &Msg::Announce(a));
                }
                O::Offer(o) => self.all(&self.workers_to(), &Msg::Offer(o)),
                O::Order(node, order) => self.all(&self.workers_to(), &Msg::Order(node, order)),
                O::AskFacts(e, g, r) => {
                    self.all(&self.authors_to(), &Msg::AskFacts((e, g), r, To::Session(i)));
                }
                O::AskSnapshot => self.all(&self.readers(), &Msg::AskSnapshot(To::Session(i))),
                O::Loopback => self.send(To::Session(i), Msg::Loopback),
                O::Renew(r) => self.send(To::Control, Msg::Renew(r, i)),
                O::Release(r) => {
                    self.sessions[i].publishing = false;
                    self.send(To::Control, Msg::Release(r, i));
                }
                O::Close(_) => self.sessions[i].publishing = false,
                O::Done => self.sessions[i].up = false,
                O::Backlog(_) | O::Follow(..) => {}
            }
        }
        assert!(self.sessions[i].session.ring_bytes() <= self.ring_bytes, "ring");
    }

    fn worker_gets(&mut self, i: usize, msg: Msg) {
        let keys: Vec<_> = self.workers[i].jobs.keys().copied().collect();
        match msg {
            Msg::Media(b) => {
                if let Some(m) = self.workers[i].media.push(b).unwrap() {
                    for k in keys.into_iter().filter(|k| k.0 == m.epoch) {
                        self.to_job(i, k, job::Input::Media(m.clone()));
                    }
                }
            }
            Msg::MediaReply(e, r) => {
                for k in keys.into_iter().filter(|k| k.0 == e) {
                    self.to_job(i, k, job::Input::MediaReply(r));
                }
            }
            Msg::Epoch(a) => {
                for k in keys {
                    self.to_job(i, k, job::Input::Epoch(a.clone()));
                }
            }
            Msg::Announce(a) => {
                for k in keys {
                    self.to_job(i, k, job::Input::Session(a.clone()));
                }
            }
            Msg::Reported(e) => {
                for k in keys.into_iter().filter(|k| k.0 == e) {
                    self.to_job(i, k, job::Input::Reported);
                }
            }
            Msg::Offer(_) if self.workers[i].leaving => {}
            Msg::Offer(o) => {
                let node = self.workers[i].node.clone();
                let bid =
                    Bid { round: o.round, node, free: 10 - keys.len() as u64, continuing: !keys.is_empty() };
                let to = (0..self.sessions.len()).find(|s| self.sessions[*s].epoch == o.epoch);
                self.send(To::Session(to.unwrap()), Msg::Bid(bid));
            }
            Msg::Order(node, order) if node == self.workers[i].node => self.order(i, *order),
            Msg::AskFacts(log, request, from) => {
                if let Some(j) = self.workers[i].jobs.get_mut(&log) {
                    let reply = j.job.repair(Millis(self.now), &request);
                    self.send(from, Msg::FactReply(log, reply));
                    self.drain_job(i, log);
                }
            }
            Msg::AskSnapshot(from) => {
                let all: Vec<_> =
                    self.workers[i].jobs.values().filter_map(|j| j.job.snapshot().cloned()).collect();
                for s in all {
                    self.send(from, Msg::Snapshot(Box::new(s)));
                }
            }
            Msg::Stored(life, key, rendition, msn) if life as u64 == self.life(i) => {
                self.to_job(i, key, job::Input::Stored(rendition, msn));
            }
            _ => {}
        }
    }
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
                let rungs = [RungId::copy()].into();
                let job = WorkerJob::new(Millis(self.now), *grant, node, rungs, 1 << 16, seed).unwrap();
                self.workers[i].jobs.insert(key, Job { job, packager: ToyPackager::default() });
                self.drain_job(i, key);
            }
            GrantOrder::Yield { epoch, generation, .. } => {
                self.to_job(i, (epoch, generation), job::Input::Yield);
            }
            GrantOrder::Revoke { epoch, generation, .. } => {
                self.to_job(i, (epoch, generation), job::Input::Revoked);
            }
        }
    }

    pub fn to_job(&mut self, i: usize, key: (Epoch, Generation), input: job::Input) {
        if self.trace && !matches!(input, job::Input::Tick | job::Input::Media(_)) {
            eprintln!("{} worker {i} {}/{} {}", self.now, key.0, key.1, brief(&input));
        }
        if let Some(j) = self.workers[i].jobs.get_mut(&key) {
            j.job.handle(Millis(self.now), input).unwrap();
            self.drain_job(i, key);
        }
    }

    fn drain_job(&mut self, i: usize, key: (Epoch, Generation)) {
        use job::Output as O;
        let mut made: Vec<Packaged> = vec![];
        loop {
            let Some(j) = self.workers[i].jobs.get_mut(&key) else { return };
            let Some(out) = j.job.poll_output() else { return };
            match out {
                O::Package(m) => j.packager.push(&m.units, &mut made),
                O::RestartRung(_) => j.packager = ToyPackager::default(),
                O::Flush(_) => {
                    j.packager.flush(&mut made);
                    made.push(Packaged::Flushed);
                }
                O::Done => {
                    self.workers[i].jobs.remove(&key);
                    return;
                }
                O::Publish(frames) => self.send_facts(frames),
                O::AskMedia(r) => self.all(&self.sessions_to(), &Msg::AskMedia(key.0, r, i)),
                O::Heartbeat(h) => self.all(&self.sessions_to(), &Msg::Heartbeat(h)),
                O::Upload(segment, body) => {
                    self.upload(i, key, segment.rendition, segment.msn, body.contiguous().into());
                }
                O::Index(fact) => self.on_index(fact),
                O::Report(r) => self.send(To::Control, Msg::Report(r, i)),
                O::UploadInit(..) | O::Superseded => {}
            }
            for p in made.drain(..) {
                self.workers[i]
                    .jobs
                    .get_mut(&key)
                    .unwrap()
                    .job
                    .handle(Millis(self.now), job::Input::Packaged(RungId::copy(), p))
                    .unwrap();
            }
        }
    }

    fn send_facts(&mut self, frames: EncodedMessage) {
        let (frames, to) = match frames {
            EncodedMessage::Live(frames) => (frames, self.edges_to()),
            EncodedMessage::Digest(frames) => (frames, self.sessions_to()),
            EncodedMessage::Retransmit(frames) => (frames, [self.edges_to(), self.sessions_to()].concat()),
        };
        for frame in frames {
            self.all(&to, &Msg::Fact(frame));
        }
    }

    fn upload(&mut self, i: usize, key: (Epoch, Generation), r: Rendition, msn: Msn, body: Vec<u8>) {
        let name = (key.0, key.1, r.clone(), msn);
        assert!(self.bodies.insert(name.clone(), body.into()).is_none(), "object {name:?} written twice");
        let delay = if self.store_down { 4000 } else { self.rng.random_range(10..400) };
        self.order += 1;
        let stored = Msg::Stored(self.life(i) as usize, key, r, msn);
        self.queue.insert((self.now + delay, self.order), (To::Worker(i), stored));
    }

    fn on_index(&mut self, f: IndexFact) {
        let s = f.segment;
        let body = &self.bodies[&(f.epoch, f.generation, s.rendition.clone(), s.msn)];
        let units = numbers(body);
        let known = self.index.entry((f.epoch, s.rendition, s.msn)).or_insert_with(|| units.clone());
        assert_eq!(*known, units, "two generations stored different segments");
    }

    fn edge_gets(&mut self, i: usize, msg: Msg) {
        let input = match msg {
            Msg::Epoch(a) => reader::Input::Epoch(a),
            Msg::Announce(a) => reader::Input::Session(a),
            Msg::Fact(b) => match self.edges[i].facts.push(b).unwrap() {
                Some(m) => reader::Input::Fact(m),
                None => return,
            },
            Msg::Snapshot(s) => reader::Input::Snapshot(s),
            Msg::FactReply((e, g), r) => reader::Input::RepairReply(e, g, r),
            Msg::AskSnapshot(from) => {
                if let Some(s) = self.edges[i].feed.snapshot().cloned() {
                    self.send(from, Msg::Snapshot(Box::new(s)));
                }
                return;
            }
            _ => return,
        };
        self.to_edge(i, input);
    }

    fn to_edge(&mut self, i: usize, input: reader::Input) {
        let Ok(()) = self.edges[i].feed.handle(Millis(self.now), input);
        self.drain_edge(i);
    }

    pub fn drain_edge(&mut self, i: usize) {
        while let Some(out) = self.edges[i].feed.poll_output() {
            match out {
                reader::Output::AskSnapshot => self.all(&self.readers(), &Msg::AskSnapshot(To::Edge(i))),
                reader::Output::Repair(e, g, r) => {
                    self.all(&self.authors_to(), &Msg::AskFacts((e, g), r, To::Edge(i)));
                }
                reader::Output::Bytes(m) => {
                    let name = match m.what {
                        MediaKind::Init(v) => format!("{}/{}/init-{v}", m.rendition, m.epoch),
                        MediaKind::Part(n, p) => {
                            format!("{}/{}/{n}.{}.{p}", m.rendition, m.epoch, m.generation)
                        }
                        MediaKind::Segment(n) => format!("{}/{}/{n}.{}", m.rendition, m.epoch, m.generation),
                    };
                    let known = self.names.entry(name.clone()).or_insert_with(|| m.bytes.clone());
                    assert_eq!(*known, m.bytes, "{name} names two contents");
                }
                reader::Output::Changed => self.check_edge(i),
                reader::Output::Follow(..) => {}
            }
        }
    }

    fn check(&mut self) {
        let jobs: usize = self.workers.iter().map(|w| w.jobs.len()).sum();
        assert!(jobs <= 40, "{jobs} jobs");
    }

    fn check_edge(&mut self, i: usize) {
        let edge = &mut self.edges[i];
        let Some(new) = edge.feed.shown().map(|shown| (**shown).clone()) else { return };
        let contiguous = new.slots.iter().zip(new.slots.iter().skip(1)).all(|(a, b)| a.msn.next() == b.msn);
        assert!(contiguous, "edge {i}: numbers are not contiguous");
        let sorted = new.slots.iter().is_sorted_by_key(|s| s.discontinuity_sequence);
        let at = || crate::summary(&new);
        assert!(sorted, "edge {i}: discontinuity sequence falls within the window: {}", at());
        if self.trace {
            let ends: Vec<_> = new.renditions.keys().map(|r| end_of(&new, r)).collect();
            eprintln!(
                "{} edge {i} shows {}/{}/{} from {} {ends:?}",
                self.now, new.epoch, new.generation, new.seq, new.first_msn
            );
        }
        if let Some(old) = edge.seen.replace(new.clone()) {
            let at = self.now;
            assert!(new.first_msn >= old.first_msn, "{at}: edge {i}: media sequence fell");
            let discontinuity = |s: &StreamState| s.slots.front().map(|l| l.discontinuity_sequence);
            assert!(
                new.slots.is_empty() || discontinuity(&new) >= discontinuity(&old),
                "{at}: edge {i}: discontinuity sequence fell"
            );
            for r in old.renditions.keys() {
                // Without a listing, everything below the window's start counts as complete.
                let end = |s: &StreamState| end_of(s, r).unwrap_or((Msn(s.first_msn.0 - 1), u32::MAX, true));
                let (a, b) = (end(&old), end(&new));
                // A segment whose author died before it was closed is a GAP once the next epoch opens; when its
                // ingest node died too, another author may close it short.
                let slot = new.slots.iter().find(|l| l.msn == b.0);
                let excused = slot.is_some_and(|l| l.gap.is_some() || self.killed.contains(&l.epoch));
                let short = excused && b.0 == a.0 && b.2;
                assert!(b >= a || short, "{at}: edge {i}: {r} fell from {a:?} to {b:?}");
            }
            assert!(!old.ended || new.ended || new.epoch > old.epoch, "{at}: edge {i}: ENDLIST taken back");
        }
    }

    pub fn facts_of(&self, epoch: Epoch, track: Track) -> Vec<u64> {
        let r = rendition(track);
        let own = self.index.range((epoch, r.clone(), Msn(0))..=(epoch, r, Msn(u64::MAX)));
        own.flat_map(|(_, units)| units.clone()).collect()
    }
}

fn brief(input: &impl std::fmt::Debug) -> String {
    format!("{input:?}").chars().take(160).collect()
}
