//! Sessions whose job encodes, among workers that have room for it, for a copy only, or for nothing.

use millrace_protocol::log::repair::RepairLimits;
use millrace_protocol::log::replay_buffer::ReplayLimits;
use millrace_protocol::session::{Input, Output, Session, SessionConfig};
use millrace_protocol::{Machine, Millis};
use millrace_wire::ids::{
    BroadcastId, DiscontinuitySeq, Epoch, Generation, Msn, NodeId, SessionId, StreamId, UnixMillis,
};
use millrace_wire::ladder::{LadderPlan, LadderRung};
use millrace_wire::message::announce::Degraded;
use millrace_wire::message::control::{ClaimGrant, PublishLimits, StreamSettings};
use millrace_wire::message::job::{Bid, COPY_COST, Grant, GrantOrder, Heartbeat, Offer, job_cost};
use millrace_wire::message::media::MediaUnit;

use super::frames::first_of;

const MSN: Msn = Msn(1_000);

fn settings() -> StreamSettings {
    let rung = LadderRung { height: 720, bitrate: 2_800_000, fps: None, preset: None, codec: None };
    StreamSettings { plan: LadderPlan::of_rungs(vec![rung]), ..StreamSettings::default() }
}

pub(super) fn config() -> SessionConfig {
    let settings = settings();
    let cost = job_cost(&settings.plan);
    let claim = ClaimGrant {
        stream: StreamId::from_u128(1),
        playback: "00112233445566778899aabbccddeeff".parse().unwrap(),
        broadcast: BroadcastId::from_u128(3),
        airing: millrace_wire::ids::Airing::FIRST,
        epoch: Epoch(1),
        first_msn: MSN,
        discontinuity_sequence: DiscontinuitySeq(0),
        continues: false,
        follows: None,
        lease_ms: 3_000,
        limits: PublishLimits::default(),
        settings,
    };
    SessionConfig {
        claim,
        session: SessionId::from_u128(4),
        program_date_time: UnixMillis(0),
        lead_gaps: 0,
        cost,
        max_payload: 1 << 16,
        replay: ReplayLimits { bytes: 1 << 20, age_ms: 30_000 },
        repair: RepairLimits::default(),
        seed: 1,
    }
}

/// A worker with free cost units. It sends heartbeats for each of its grants.
struct Worker {
    node: NodeId,
    free: u64,
    grants: Vec<Grant>,
    quiesced: bool,
}

impl Worker {
    fn new(name: &str, free: u64) -> Self {
        Self { node: name.parse().unwrap(), free, grants: Vec::new(), quiesced: false }
    }

    fn bid(&self, offer: &Offer) -> Option<Bid> {
        let bid = Bid { round: offer.round, node: self.node.clone(), free: self.free, continuing: false };
        (self.free >= offer.cost).then_some(bid)
    }

    fn heartbeat(&self, grant: &Grant) -> Heartbeat {
        Heartbeat { quiesced: self.quiesced, ..Heartbeat::new(self.node.clone(), grant) }
    }
}

struct World {
    now: u64,
    session: Session,
    workers: Vec<Worker>,
    backlog: u32,
}

impl World {
    fn new(workers: Vec<Worker>) -> Self {
        let session = Session::new(Millis(0), config());
        let mut world = Self { now: 0, session, workers, backlog: 0 };
        world.hand(Input::Media(vec![MediaUnit::Frame(first_of(MSN))]));
        world
    }

    fn hand(&mut self, input: Input) {
        self.session.handle(Millis(self.now), input).unwrap();
    }

    /// Lets time pass, with the answers of the workers to everything that the session says.
    fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.now < end {
            self.now += 10;
            self.hand(Input::Tick);
            while let Some(output) = self.session.poll_output() {
                self.answer(output);
            }
            for worker in 0..self.workers.len() {
                for grant in self.workers[worker].grants.clone() {
                    let heartbeat = self.workers[worker].heartbeat(&grant);
                    self.hand(Input::Heartbeat(heartbeat));
                }
            }
        }
    }

    fn answer(&mut self, output: Output) {
        match output {
            Output::Offer(offer) => {
                let bids: Vec<Bid> = self.workers.iter().filter_map(|worker| worker.bid(&offer)).collect();
                for bid in bids {
                    self.hand(Input::Bid(bid));
                }
            }
            Output::Order(node, order) => {
                let worker = self.workers.iter_mut().find(|worker| worker.node == node).unwrap();
                match *order {
                    GrantOrder::Grant(grant) => {
                        if !worker.grants.iter().any(|known| known.generation == grant.generation) {
                            worker.grants.push(*grant);
                        }
                    }
                    GrantOrder::Quiesce { .. } => worker.quiesced = true,
                    GrantOrder::Revoke { generation, .. } => {
                        worker.quiesced = false;
                        worker.grants.retain(|grant| grant.generation != generation);
                    }
                }
            }
            Output::Backlog(offer) => {
                assert_eq!(offer.cost, COPY_COST, "a worker with room for a copy takes it from the backlog");
                self.backlog += 1;
            }
            _ => {}
        }
    }

    fn grants(&self, worker: usize) -> Vec<(Generation, bool)> {
        let grants = self.workers[worker].grants.iter();
        grants.map(|grant| (grant.generation, grant.settings.plan.encodes())).collect()
    }
}

#[test]
fn job_that_encodes_is_granted_whole_to_a_worker_with_room_for_it() {
    let mut world = World::new(vec![Worker::new("copies", 50), Worker::new("encodes", 500)]);
    world.run(1_000);
    assert_eq!(world.grants(0), []);
    assert_eq!(world.grants(1), [(Generation(1), true)]);
    assert_eq!((world.session.degraded(), world.backlog), (None, 0));
}

#[test]
fn source_is_copied_while_no_worker_has_room_to_encode_and_says_so() {
    let mut world = World::new(vec![Worker::new("copies", 50)]);
    world.run(1_000);
    assert_eq!(world.grants(0), [(Generation(1), false)]);
    assert_eq!((world.session.degraded(), world.backlog), (Some(Degraded::CopyOnly), 0));
    world.run(30_000);
    assert_eq!(world.grants(0), [(Generation(1), false)], "the copy goes on undisturbed");
}

#[test]
fn copied_stream_moves_to_a_worker_that_gets_room_to_encode() {
    let mut world = World::new(vec![Worker::new("copies", 50), Worker::new("full", 0)]);
    world.run(6_000);
    assert_eq!(world.grants(0), [(Generation(1), false)]);
    world.workers[1].free = 500;
    world.run(5_000);
    assert_eq!((world.grants(0), world.grants(1)), (vec![], vec![(Generation(2), true)]));
    assert_eq!(world.session.degraded(), None);
}

#[test]
fn copying_worker_that_gets_room_takes_its_own_stream_over() {
    let mut world = World::new(vec![Worker::new("alone", 50)]);
    world.run(6_000);
    world.workers[0].free = 500;
    world.hand(Input::WorkerFree);
    world.run(5_000);
    assert_eq!(world.grants(0), [(Generation(2), true)]);
    assert_eq!(world.session.degraded(), None);
}

#[test]
fn job_waits_in_the_backlog_only_when_no_worker_has_room_for_a_copy() {
    let mut world = World::new(vec![Worker::new("full", 0)]);
    world.run(5_000);
    assert_eq!((world.session.degraded(), world.backlog), (Some(Degraded::NoCapacity), 1));
    world.workers[0].free = 1;
    world.run(3_000);
    assert_eq!(world.grants(0), [(Generation(1), false)]);
    assert_eq!(world.session.degraded(), Some(Degraded::CopyOnly));
}

#[test]
fn trouble_of_the_worker_with_its_encoders_is_announced_while_it_lasts() {
    let mut world = World::new(vec![Worker::new("encodes", 500)]);
    world.run(1_000);
    let grant = world.workers[0].grants[0].clone();
    let heartbeat = world.workers[0].heartbeat(&grant);
    world.hand(Input::Heartbeat(Heartbeat { encoding: Some(Degraded::RungsShed), ..heartbeat.clone() }));
    assert_eq!(world.session.degraded(), Some(Degraded::RungsShed));
    world.hand(Input::Heartbeat(heartbeat));
    assert_eq!(world.session.degraded(), None);
}
