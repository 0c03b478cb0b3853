//! The world: the nodes of one stream's cluster, and what happens to them.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use millrace_protocol::job::{Packaged, WorkerJob};
use millrace_protocol::log::repair::RepairLimits;
use millrace_protocol::log::replay_buffer::ReplayLimits;
use millrace_protocol::reader::{self, StreamReader};
use millrace_protocol::session::{self, Session, SessionConfig};
use millrace_protocol::{Machine, Millis, job};
use millrace_wire::close_reason::CloseReason;
use millrace_wire::fact::{FactReader, StreamState};
use millrace_wire::ids::*;
use millrace_wire::ladder::{LadderPlan, LadderRung};
use millrace_wire::message::media::{MediaReader, MediaUnit, Track};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::checks::PlaylistCheckers;
use super::control::{ToyControl, WALL};
use super::network::{Msg, To};
use super::packager::{LowRung, SEGMENT_UNITS, ToyPackager, UNIT_MS, numbers, unit};
use super::takeover::Orphan;

/// Seeds with this bit make a ladder of two video renditions.
pub const LADDER: u64 = 1 << 41;

/// A job on a worker, with the packagers that work for it: one of the copy rung, and one of a rung that encodes.
#[expect(clippy::struct_field_names, reason = "the machine is the job; the rest works for it")]
pub struct Job {
    pub job: WorkerJob,
    pub packagers: BTreeMap<RungId, ToyPackager>,
    /// What the rung that encodes has made and not handed in yet, and when it does.
    pub late: VecDeque<(u64, Packaged)>,
    /// The newest frame of each track that its rungs were given, to decode or to package.
    pub given: BTreeMap<Track, u64>,
}

impl Job {
    /// Fails if rungs are given a frame twice or out of order.
    pub fn note(&mut self, units: &[MediaUnit]) {
        for frame in units.iter().filter_map(MediaUnit::frame) {
            let number = numbers(&frame.data.contiguous())[0];
            let before = self.given.insert(frame.track, number);
            assert!(before < Some(number), "frame {number} behind {before:?}");
        }
    }
}

pub struct Worker {
    pub node: NodeId,
    pub up: bool,
    pub leaving: bool,
    pub media: MediaReader,
    pub jobs: BTreeMap<(Epoch, Generation), Job>,
    /// The encoder of the low rung produces nothing on this node.
    pub is_low_failing: bool,
}

pub struct Edge {
    pub reader: StreamReader,
    pub facts: FactReader,
    /// The state that was shown before.
    pub seen: Option<StreamState>,
    pub playlists: PlaylistCheckers,
}

pub struct Ingest {
    pub session: Session,
    pub epoch: Epoch,
    pub facts: FactReader,
    pub up: bool,
    pub accepted: Vec<MediaUnit>,
    pub publishing: bool,
    msn: Msn,
    discontinuity: DiscontinuitySeq,
    units: u64,
}

pub struct World {
    pub rng: SmallRng,
    pub now: u64,
    pub queue: BTreeMap<(u64, u64), (To, Msg)>,
    pub order: u64,
    /// Probability that a message is lost.
    pub loss: f64,
    pub orphan: Orphan,
    /// Epochs whose ingest node died.
    pub lost_epochs: Vec<Epoch>,
    /// Bytes of media that a session keeps; too few for an outage now and then.
    pub replay_bytes: usize,
    pub store_down: bool,
    /// The ladder has a low rung, which ends for good at a segment.
    pub has_ladder: bool,
    pub low_ends_after: Option<Msn>,
    /// Every playlist of every edge is checked.
    pub checks_playlists: bool,
    /// Nodes die, drain or reconnect in this schedule.
    pub has_failovers: bool,
    pub sessions: Vec<Ingest>,
    pub workers: Vec<Worker>,
    pub edges: Vec<Edge>,
    pub control: ToyControl,
    /// The bytes of every name that an edge was given.
    pub names: BTreeMap<String, Bytes>,
    /// The numbers in every segment that was indexed.
    pub index: BTreeMap<(Epoch, Rendition, Msn), Vec<u64>>,
    pub bodies: BTreeMap<(Epoch, Generation, Rendition, Msn), Bytes>,
    /// The worker that each announced generation was granted to.
    pub writers: BTreeMap<(Epoch, Generation), NodeId>,
    number: u64,
    fault_count: u64,
    /// Print the inputs of nodes: `MILLRACE_SIM_TRACE=1`.
    pub trace: bool,
}

fn node(n: usize, life: u64) -> NodeId {
    format!("worker-{n}-{life}").parse().unwrap()
}

impl World {
    /// Creates the world of a seed.
    pub fn new(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let loss = [0.0, 0.01, 0.1][rng.random_range(0..3)];
        let mut world = Self {
            rng,
            now: 0,
            queue: BTreeMap::new(),
            order: 0,
            loss,
            orphan: Orphan::default(),
            lost_epochs: vec![],
            replay_bytes: 4 << 20,
            store_down: false,
            has_ladder: seed & LADDER != 0,
            low_ends_after: None,
            checks_playlists: seed.is_multiple_of(5),
            has_failovers: true,
            sessions: vec![],
            workers: vec![],
            edges: vec![],
            control: ToyControl::new(),
            names: BTreeMap::new(),
            index: BTreeMap::new(),
            bodies: BTreeMap::new(),
            writers: BTreeMap::new(),
            number: 0,
            fault_count: 0,
            trace: std::env::var_os("MILLRACE_SIM_TRACE").is_some(),
        };
        for n in 0..2 {
            let (media, jobs) = (MediaReader::default(), BTreeMap::new());
            let node = node(n, 0);
            world.workers.push(Worker { node, up: true, leaving: false, media, jobs, is_low_failing: false });
            let reader = StreamReader::new(Millis(0), seed ^ n as u64);
            world.edges.push(Edge::new(reader, None));
        }
        world
    }

    /// A publisher connects, for the first time or after an interruption.
    pub fn publish(&mut self) {
        let id = SessionId::from_u128(self.sessions.len() as u128 + 1);
        let mut claim = self.control.claim(self.now, id);
        if self.has_ladder {
            let rung = LadderRung { height: 360, bitrate: 800_000, fps: None, preset: None, codec: None };
            claim.settings.plan = LadderPlan::of_rungs(vec![rung]);
        }
        for s in self.live_sessions() {
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
            replay: ReplayLimits { bytes: self.replay_bytes, age_ms: 10_000 },
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

    /// The publisher closes its connection.
    pub fn unpublish(&mut self) {
        if let Some(i) = self.sessions.iter().position(|s| s.up && s.publishing) {
            self.input_session(i, session::Input::PublisherGone(CloseReason::ConnectionLost, String::new()));
        }
    }

    /// True if a publisher is connected.
    pub fn is_publishing(&self) -> bool {
        self.sessions.iter().any(|s| s.up && s.publishing)
    }

    /// The ingest node and its session die.
    pub fn kill_ingest(&mut self) {
        for s in self.sessions.iter_mut().filter(|s| s.up) {
            s.up = false;
            self.lost_epochs.push(s.epoch);
        }
    }

    /// A worker node and its jobs die.
    pub fn kill_worker(&mut self, n: usize) {
        self.workers[n].up = false;
        self.workers[n].jobs.clear();
    }

    /// A worker node starts again, under another id.
    pub fn revive_worker(&mut self, n: usize) {
        self.fault_count += 1;
        self.workers[n].node = node(n, self.fault_count);
        self.workers[n].up = true;
        self.workers[n].leaving = false;
        self.workers[n].jobs.clear();
        self.workers[n].is_low_failing = false;
    }

    /// An edge starts again and knows nothing.
    pub fn restart_edge(&mut self, n: usize) {
        let reader = StreamReader::new(Millis(self.now), self.rng.random());
        self.edges[n] = Edge::new(reader, None);
        self.drain_edge(n);
    }

    /// Control publishes the newest epoch.
    pub fn announce_epoch(&mut self) {
        if let Some(a) = self.control.announcement() {
            let to = [self.workers(), self.edge_nodes(), vec![To::Control]].concat();
            self.all(&to, &Msg::Epoch(a));
        }
    }

    /// Lets time pass until `until`, in steps of 4 ms.
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
                self.look_for_writer();
            }
            if self.now.is_multiple_of(100) {
                self.keep_checkpoint();
                self.check_bounds();
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
        let mut units = vec![unit(Track::Video, n, self.now, s.msn, s.discontinuity, boundary)];
        // Audio starts late and stays behind a boundary for one message, as interleaving makes it.
        if s.units > 5 {
            let msn = if boundary { Msn(s.msn.0 - 1) } else { s.msn };
            units.push(unit(Track::Audio, n, self.now, msn, s.discontinuity, false));
        }
        s.accepted.extend(units.iter().cloned());
        self.input_session(i, session::Input::Media(units));
    }

    fn ticks(&mut self) {
        let now = Millis(self.now);
        for i in 0..self.sessions.len() {
            if self.sessions[i].up && self.sessions[i].session.next_timeout().is_some_and(|t| t <= now) {
                self.input_session(i, session::Input::Tick);
            }
        }
        for i in 0..self.workers.len() {
            let due = self.workers[i].jobs.iter();
            let due: Vec<_> = due
                .filter(|(_, j)| j.job.next_timeout().is_some_and(|t| t <= now))
                .map(|(k, _)| *k)
                .collect();
            for key in due {
                self.input_job(i, key, job::Input::Tick);
            }
            self.take_late(i);
        }
        self.tick_orphan_log();
        for i in 0..self.edges.len() {
            if self.edges[i].reader.next_timeout().is_some_and(|t| t <= now) {
                self.input_edge(i, reader::Input::Tick);
            }
        }
    }

    /// Returns the segment that the publisher's media belong to now.
    pub fn newest_msn(&self) -> Option<Msn> {
        self.sessions.last().filter(|session| session.up).map(|session| session.msn)
    }

    /// Returns the state of the low rung's encoder on a worker.
    pub fn low_rung(&self, worker: usize, generation: Generation) -> LowRung {
        let is_failing = self.workers[worker].is_low_failing;
        LowRung { exists: self.has_ladder, is_failing, last: self.low_ends_after, generation }
    }
}

impl Edge {
    /// Creates an edge whose viewers have `seen` a state before.
    pub fn new(reader: StreamReader, seen: Option<StreamState>) -> Self {
        Self { reader, facts: FactReader::default(), seen, playlists: PlaylistCheckers::default() }
    }
}
