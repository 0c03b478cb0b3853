//! What each node does with a message, and with the outputs of its machines.

use millrace_protocol::job::{self, Packaged, WorkerJob};
use millrace_protocol::log::writer::EncodedMessage;
use millrace_protocol::reader::{self, MediaKind};
use millrace_protocol::session;
use millrace_protocol::{Machine, Millis};
use millrace_wire::close_reason::CloseReason;
use millrace_wire::ids::*;
use millrace_wire::message::announce::IndexFact;
use millrace_wire::message::control::LeaseReply;
use millrace_wire::message::job::{Bid, GrantOrder};
use rand::Rng;

use super::network::{Msg, To};
use super::packager::{ToyPackager, numbers};
use super::world::{Job, World};

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
            other => self.orphan_log_gets(other),
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
        self.input_session(i, input);
    }

    pub fn input_session(&mut self, i: usize, input: session::Input) {
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

    pub fn drain_session(&mut self, i: usize) {
        while let Some(out) = self.sessions[i].session.poll_output() {
            use session::Output as O;
            match out {
                O::Media(frames) | O::Retransmit(frames) => {
                    for f in frames {
                        self.all(&self.workers(), &Msg::Media(f));
                    }
                }
                O::Announce(a) => {
                    if let (Some(g), Some(w)) = (a.generation, a.worker.clone()) {
                        let known = self.writers.entry((a.epoch, g)).or_insert(w.clone());
                        assert_eq!(*known, w, "two log writers of one generation");
                    }
                    self.all(&[self.workers(), self.edge_nodes()].concat(), &Msg::Announce(a));
                }
                O::Offer(o) => self.all(&self.workers(), &Msg::Offer(o)),
                O::Order(node, order) => self.all(&self.workers(), &Msg::Order(node, order)),
                O::AskFacts(e, g, r) => {
                    self.all(&self.log_writers(), &Msg::AskFacts((e, g), r, To::Session(i)));
                }
                O::AskSnapshot => self.all(&self.snapshot_holders(), &Msg::AskSnapshot(To::Session(i))),
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
        assert!(self.sessions[i].session.replay_bytes() <= self.replay_bytes, "ring");
    }

    fn worker_gets(&mut self, i: usize, msg: Msg) {
        let keys: Vec<_> = self.workers[i].jobs.keys().copied().collect();
        match msg {
            Msg::Media(b) => {
                if let Some(m) = self.workers[i].media.push(b).unwrap() {
                    for k in keys.into_iter().filter(|k| k.0 == m.epoch) {
                        self.input_job(i, k, job::Input::Media(m.clone()));
                    }
                }
            }
            Msg::MediaReply(e, r) => {
                for k in keys.into_iter().filter(|k| k.0 == e) {
                    self.input_job(i, k, job::Input::MediaReply(r));
                }
            }
            Msg::Epoch(a) => {
                for k in keys {
                    self.input_job(i, k, job::Input::Epoch(a.clone()));
                }
            }
            Msg::Announce(a) => {
                for k in keys {
                    self.input_job(i, k, job::Input::Session(a.clone()));
                }
            }
            Msg::Reported(e) => {
                for k in keys.into_iter().filter(|k| k.0 == e) {
                    self.input_job(i, k, job::Input::Reported);
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
                self.input_job(i, key, job::Input::Stored(rendition, msn));
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
            GrantOrder::Quiesce { epoch, generation, .. } => {
                self.input_job(i, (epoch, generation), job::Input::Quiesce);
            }
            GrantOrder::Revoke { epoch, generation, .. } => {
                self.input_job(i, (epoch, generation), job::Input::Revoked);
            }
        }
    }

    pub fn input_job(&mut self, i: usize, key: (Epoch, Generation), input: job::Input) {
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
        let rung = self.low_rung(i);
        loop {
            let Some(j) = self.workers[i].jobs.get_mut(&key) else { return };
            let Some(out) = j.job.poll_output() else { return };
            match out {
                O::Package(message) => j.packager.push(&message.units, rung, &mut made),
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
                O::AskMedia(r) => self.all(&self.live_sessions(), &Msg::AskMedia(key.0, r, i)),
                O::Heartbeat(h) => self.all(&self.live_sessions(), &Msg::Heartbeat(h)),
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
            EncodedMessage::Live(frames) => (frames, self.edge_nodes()),
            EncodedMessage::Digest(frames) => (frames, self.live_sessions()),
            EncodedMessage::Retransmit(frames) => {
                (frames, [self.edge_nodes(), self.live_sessions()].concat())
            }
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
                if let Some(s) = self.edges[i].reader.snapshot().cloned() {
                    self.send(from, Msg::Snapshot(Box::new(s)));
                }
                return;
            }
            _ => return,
        };
        self.input_edge(i, input);
    }

    pub fn input_edge(&mut self, i: usize, input: reader::Input) {
        let Ok(()) = self.edges[i].reader.handle(Millis(self.now), input);
        self.drain_edge(i);
    }

    pub fn drain_edge(&mut self, i: usize) {
        while let Some(out) = self.edges[i].reader.poll_output() {
            match out {
                reader::Output::AskSnapshot => {
                    self.all(&self.snapshot_holders(), &Msg::AskSnapshot(To::Edge(i)));
                }
                reader::Output::Repair(e, g, r) => {
                    self.all(&self.log_writers(), &Msg::AskFacts((e, g), r, To::Edge(i)));
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
}

fn brief(input: &impl std::fmt::Debug) -> String {
    format!("{input:?}").chars().take(160).collect()
}
