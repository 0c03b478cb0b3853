//! A publisher session on the in-process bus with a worker and a control node that the test plays.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millrace_bus::{MemBus, SharedBus};
use millrace_link::publisher_session::{
    PublisherSession, SessionMetrics, SessionSetup, SessionTask, subscribe_kicks,
};
use millrace_link::{Link, LogServer, MediaReader};
use millrace_protocol::Millis;
use millrace_protocol::log::replay_buffer::ReplayLimits;
use millrace_protocol::log::writer::LogWriter;
use millrace_runtime::{Metrics, SystemClock};
use millrace_wire::close_reason::CloseReason;
use millrace_wire::fact::{Fact, Gap, MediaDuration};
use millrace_wire::ids::{
    BroadcastId, DiscontinuitySeq, Epoch, InitVersion, Msn, NodeId, PlaybackId, SessionId, StreamId,
};
use millrace_wire::message::control::{ClaimGrant, Kick, LeaseReply, PublishLimits, StreamSettings};
use millrace_wire::message::job::{Bid, COPY_COST, Grant, GrantOrder, Heartbeat, WorkerFree};
use millrace_wire::message::ladder_health::{LadderHealth, MediaCondition};
use millrace_wire::message::media::{FrameUnit, MediaMessage, MediaUnit, Track};
use millrace_wire::message::repair::{RepairRequest, SnapshotRequest};
use millrace_wire::topics;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_mins(1);
const EPOCH: Epoch = Epoch(1_763_000_000_000);
const FIRST: Msn = Msn(1_763_000_000);

fn stream() -> StreamId {
    StreamId::from_u128(1)
}

fn session_id() -> SessionId {
    SessionId::from_u128(2)
}

fn node() -> NodeId {
    "transcode-1".parse().unwrap()
}

fn claim() -> ClaimGrant {
    let playback: PlaybackId = "00112233445566778899aabbccddeeff".parse().unwrap();
    ClaimGrant {
        stream: stream(),
        playback,
        broadcast: BroadcastId::from_u128(3),
        airing: millrace_wire::ids::Airing::FIRST,
        epoch: EPOCH,
        first_msn: FIRST,
        discontinuity_sequence: DiscontinuitySeq(0),
        continues: false,
        follows: None,
        lease_ms: 3_000,
        limits: PublishLimits::default(),
        settings: StreamSettings::default(),
    }
}

fn frame(number: u64) -> MediaUnit {
    MediaUnit::Frame(FrameUnit {
        track: Track::Video,
        msn: FIRST,
        discontinuity_sequence: DiscontinuitySeq(0),
        init_version: InitVersion(0),
        dts: number as i64 * 3_000,
        cts: 0,
        keyframe: number == 0,
        boundary: number == 0,
        independent: true,
        discontinuity: false,
        duration: 0,
        may_be_last: false,
        data: Bytes::from(number.to_be_bytes().to_vec()).into(),
    })
}

struct World {
    link: Link,
    metrics: Metrics,
    session: PublisherSession,
    running: JoinHandle<()>,
    repairs: JoinHandle<()>,
    closed: mpsc::UnboundedReceiver<CloseReason>,
    control: JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        for task in [&self.running, &self.repairs, &self.control] {
            task.abort();
        }
    }
}

impl World {
    async fn start() -> Self {
        let bus: SharedBus = Arc::new(MemBus::new());
        let metrics = Metrics::new();
        let link = Link::new(bus, &metrics);
        let control = tokio::spawn(answer_leases(link.clone()));
        let (close, closed) = mpsc::unbounded_channel();
        let setup = SessionSetup {
            grant: claim(),
            session: session_id(),
            job_cost: COPY_COST,
            replay: ReplayLimits { bytes: 1 << 20, age_ms: 30_000 },
            clock: Arc::new(SystemClock::new()),
            metrics: SessionMetrics::register(&metrics),
            on_close: Box::new(move |reason| close.send(reason).unwrap()),
        };
        let kicks = subscribe_kicks(&link, session_id()).await.unwrap();
        let (session, task, repairs) = PublisherSession::open(&link, setup, kicks).await.unwrap();
        let running = tokio::spawn(SessionTask::run(task, CancellationToken::new(), |_| {}));
        let repairs = tokio::spawn(repairs.run());
        Self { link, metrics, session, running, repairs, closed, control }
    }

    fn metric(&self, line: &str) -> bool {
        self.metrics.render().lines().any(|found| found == line)
    }

    /// Publishes the first frame, with which the session offers its job, bids for it, and returns the grant.
    async fn take_job(&self) -> Grant {
        let mut offers = self.link.subscribe(&topics::offer(), 16).await.unwrap();
        let mut orders = self.link.subscribe(&topics::grant(&node()), 16).await.unwrap();
        self.link.publish(&topics::worker_free(), &WorkerFree {}).unwrap();
        self.session.publish(vec![frame(0)]);
        let granted = async {
            loop {
                tokio::select! {
                    offer = offers.recv() => {
                        let offer = offer.unwrap();
                        let bid = Bid { round: offer.round, node: node(), free: 1, continuing: false };
                        self.link.publish(&topics::bid(offer.session), &bid).unwrap();
                    }
                    order = orders.recv() => {
                        if let Some(GrantOrder::Grant(grant)) = order {
                            return *grant;
                        }
                    }
                }
            }
        };
        tokio::time::timeout(LIMIT, granted).await.unwrap()
    }
}

/// Answers every renewal and release as control does for the holder of a claim.
async fn answer_leases(link: Link) {
    let mut renewals = link.serve(&topics::renew(), topics::CONTROL_QUEUE, 16).await.unwrap();
    let mut releases = link.serve(&topics::release(), topics::CONTROL_QUEUE, 16).await.unwrap();
    loop {
        tokio::select! {
            Some(request) = renewals.recv() => request.respond(&LeaseReply::Ok),
            Some(request) = releases.recv() => request.respond(&LeaseReply::Ok),
        }
    }
}

async fn receive(media: &mut MediaReader, until: usize) -> Vec<MediaMessage> {
    let mut messages = Vec::new();
    let all = async {
        while messages.len() < until {
            assert!(media.recv_many(&mut messages, 16).await > 0, "the bus is open");
        }
    };
    tokio::time::timeout(LIMIT, all).await.unwrap();
    messages
}

/// Publishes the log of a worker that could store nothing: every segment is a gap, and the epoch is sealed.
async fn seal(link: &Link, grant: &Grant) -> LogServer {
    let log = (grant.epoch, grant.generation);
    let server = LogServer::open(link, grant.stream, log, 16).await.unwrap();
    let mut writer = LogWriter::open(Millis(0), log, grant.base.clone(), link.max_payload()).unwrap();
    let gap = Fact::Gap(Gap {
        msn: FIRST,
        duration: MediaDuration::from_millis(2_000),
        discontinuity_sequence: grant.open.discontinuity_sequence,
        program_date_time: grant.open.program_date_time,
    });
    for fact in [Fact::EpochOpen(grant.open.clone()), gap, Fact::Seal { last: Some(FIRST) }] {
        writer.announce(Millis(0), &fact, Bytes::new()).unwrap();
    }
    while let Some(message) = writer.poll_output() {
        server.publish(message);
    }
    server
}

fn heartbeat(grant: &Grant, done: bool) -> Heartbeat {
    Heartbeat { done, ..Heartbeat::new(node(), grant) }
}

#[tokio::test]
async fn publisher_session_publishes_repairs_and_ends_once_everything_is_stored() {
    let mut world = World::start().await;
    let mut media = MediaReader::follow(&world.link, stream(), EPOCH, 64).await.unwrap();
    let grant = world.take_job().await;
    assert_eq!((grant.epoch, grant.open.first_msn), (EPOCH, FIRST));
    for number in 1..10 {
        world.session.publish(vec![frame(number)]);
    }
    let live = receive(&mut media, 10).await;
    assert!(live.iter().enumerate().all(|(n, message)| message.seq.0 == n as u64 && !message.end));
    assert_eq!(live[3].units, [frame(3)]);

    // A worker that missed three messages asks for them.
    let request = RepairRequest { ranges: vec![(2, 3), (7, 7)] };
    let reply = tokio::time::timeout(LIMIT, media.ask_repair(request)).await.unwrap().unwrap();
    assert_eq!((reply.oldest, reply.next), (Some(0), 10));
    let again = receive(&mut media, 3).await;
    assert_eq!(again, [live[2].clone(), live[3].clone(), live[7].clone()]);
    assert!(world.metric("millrace_media_messages_total 10"));
    assert!(world.metric("millrace_repair_messages_total 3"));

    // The state is there for readers, the publisher leaves, and the session waits for its worker.
    let states = world.link.gather(&topics::snapshot(stream()), &SnapshotRequest {}, LIMIT, 1).await.unwrap();
    assert_eq!(states.len(), 1);
    world.session.end(CloseReason::PublisherLeft, "");
    assert!(receive(&mut media, 1).await[0].end);
    assert!(!world.running.is_finished());
    let log = seal(&world.link, &grant).await;
    let mut beat = tokio::time::interval(Duration::from_millis(200));
    let ended = async {
        while !world.running.is_finished() || !world.repairs.is_finished() {
            beat.tick().await;
            world.link.publish(&topics::heartbeat(stream(), EPOCH), &heartbeat(&grant, true)).unwrap();
        }
    };
    tokio::time::timeout(LIMIT, ended).await.unwrap();
    drop(log);
    assert!(world.closed.try_recv().is_err(), "a session whose publisher left closes no connection");
}

#[tokio::test]
async fn renewal_of_the_lease_carries_the_newest_health_of_the_worker_s_rungs() {
    let world = World::start().await;
    let mut renewals = world.link.serve(&topics::renew(), topics::CONTROL_QUEUE, 16).await.unwrap();
    world.control.abort();
    let grant = world.take_job().await;
    let health = LadderHealth {
        rungs: Vec::new(),
        conditions: vec![MediaCondition::Frozen, MediaCondition::Frozen],
        decoder_waiting_ms: 5,
    };
    let mut beat = tokio::time::interval(Duration::from_millis(50));
    let mut sent = Some(Box::new(health.clone()));
    let told = async {
        loop {
            tokio::select! {
                _ = beat.tick() => {
                    // A worker sends its health once: later heartbeats have none.
                    let heartbeat = Heartbeat { ladder: sent.take(), ..heartbeat(&grant, false) };
                    world.link.publish(&topics::heartbeat(stream(), EPOCH), &heartbeat).unwrap();
                }
                Some(request) = renewals.recv() => {
                    request.respond(&LeaseReply::Ok);
                    if let Some(ladder) = &request.message.ladder {
                        return ladder.clone();
                    }
                }
            }
        }
    };
    let told = tokio::time::timeout(LIMIT, told).await.unwrap();
    assert_eq!(*told, health.bounded());
}

#[tokio::test]
async fn publisher_session_closes_its_publisher_on_a_kick_and_ends_the_media() {
    let mut world = World::start().await;
    let mut media = MediaReader::follow(&world.link, stream(), EPOCH, 64).await.unwrap();
    world.session.publish(vec![frame(0)]);
    let topic = topics::kick(session_id());
    let other = Kick { session: SessionId::from_u128(9), reason: CloseReason::Stopped };
    world.link.publish(&topic, &other).unwrap();
    world.link.publish(&topic, &Kick { session: session_id(), reason: CloseReason::TakenOver }).unwrap();
    let reason = tokio::time::timeout(LIMIT, world.closed.recv()).await.unwrap();
    assert_eq!(reason, Some(CloseReason::TakenOver));
    assert!(receive(&mut media, 2).await[1].end);
    // Media of a session that has ended is not published.
    world.session.publish(vec![frame(1)]);
    assert!(world.metric("millrace_media_messages_total 2"));
}
