//! The session and its workers: offer, bid, grant, supervision, backlog, and the end when everything is stored.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test helper fails its test by panicking")]

mod support;

use std::time::Duration;

use bytes::Bytes;
use millrace_bus::{QueueConfig, SharedBus};
use millrace_protocol::Millis;
use millrace_protocol::log::writer::{EncodedMessage, LogWriter};
use millrace_testkit::ClipSpec;
use millrace_wire::fact::{Fact, Gap, MediaDuration, StreamState};
use millrace_wire::ids::NodeId;
use millrace_wire::message::announce::{Degraded, SessionAnnouncement};
use millrace_wire::message::job::{Bid, Grant, GrantOrder, Heartbeat, Offer, WorkerFree};
use millrace_wire::message::repair::SnapshotRequest;
use millrace_wire::{topic, topics};
use support::{Consumer, LIMIT, Pusher, World, eventually, tags};
use tokio::sync::watch;
use tokio::task::JoinHandle;

fn short() -> ClipSpec {
    ClipSpec { frames: 90, ..ClipSpec::default() }
}

/// A worker that bids for every offer and sends heartbeats.
struct FakeWorker {
    grant: watch::Receiver<Option<Grant>>,
    done: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl FakeWorker {
    async fn start(bus: &SharedBus, name: &str) -> Self {
        let node: NodeId = name.parse().unwrap();
        let mut offers = bus.subscribe(topics::offer().subject(), 64).await.unwrap();
        let mut orders = bus.subscribe(topics::grant(&node).subject(), 64).await.unwrap();
        let (granted, grant) = watch::channel(None);
        let (done, is_done) = watch::channel(false);
        let bus = bus.clone();
        bus.publish(topics::worker_free().subject(), topic::encode(&WorkerFree {}).unwrap()).unwrap();
        let task = tokio::spawn(async move {
            let mut beat = tokio::time::interval(Duration::from_millis(200));
            let mut sealed = false;
            loop {
                tokio::select! {
                    Some(offer) = offers.recv() => {
                        let offer: Offer = topic::decode(&offer.payload).unwrap();
                        let bid = Bid { round: offer.round, node: node.clone(), free: 1, continuing: false };
                        tell(&bus, topics::bid(offer.session).subject(), &bid);
                    }
                    Some(order) = orders.recv() => {
                        let order: GrantOrder = topic::decode(&order.payload).unwrap();
                        if let GrantOrder::Grant(grant) = order {
                            granted.send_replace(Some(*grant));
                        }
                    }
                    _ = beat.tick() => {
                        let grant = granted.borrow().clone();
                        if let Some(grant) = grant {
                            if *is_done.borrow() && !sealed {
                                seal(&bus, &grant);
                                sealed = true;
                            }
                            let heartbeat =
                                Heartbeat { done: *is_done.borrow(), ..Heartbeat::new(node.clone(), &grant) };
                            tell(&bus, topics::heartbeat(grant.stream, grant.epoch).subject(), &heartbeat);
                        }
                    }
                }
            }
        });
        Self { grant, done, task }
    }

    async fn granted(&mut self) -> Grant {
        let granted = tokio::time::timeout(LIMIT, self.grant.wait_for(Option::is_some)).await;
        granted.expect("no grant came").unwrap().clone().unwrap()
    }

    fn kill(&self) {
        self.task.abort();
    }
}

impl Drop for FakeWorker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn tell(bus: &SharedBus, subject: &str, body: &impl topic::Message) {
    bus.publish(subject, topic::encode(body).unwrap()).unwrap();
}

/// Publishes the log of a worker that reports two missing segments and seals the epoch.
fn seal(bus: &SharedBus, grant: &Grant) {
    let log = (grant.epoch, grant.generation);
    let mut author = LogWriter::open(Millis(0), log, grant.base.clone(), bus.max_payload()).unwrap();
    let mut facts = vec![Fact::EpochOpen(grant.open.clone())];
    let first = grant.open.first_msn;
    facts.extend([first, first.next()].map(|msn| {
        Fact::Gap(Gap {
            msn,
            duration: MediaDuration::from_millis(2_000),
            discontinuity_sequence: grant.open.discontinuity_sequence,
            program_date_time: grant.open.program_date_time,
        })
    }));
    facts.push(Fact::Seal { last: Some(first.next()) });
    for fact in facts {
        author.announce(Millis(0), &fact, Bytes::new()).unwrap();
    }
    let subject = topics::digest(grant.stream, grant.epoch, grant.generation).into_subject();
    while let Some(frames) = author.poll_output() {
        let EncodedMessage::Digest(frames) = frames else { continue };
        for frame in frames {
            bus.publish(&subject, frame).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_once_its_worker_has_stored_every_segment() {
    let world = World::start().await;
    let mut worker = FakeWorker::start(&world.bus, "worker-1").await;
    let (_clip, tags) = tags(short()).await;
    let (stream, key) = world.control.stream();
    let mut consumer = Consumer::of(&world.bus, stream).await;
    let mut pusher = Pusher::publish(&world.url(&key), 60_000).await.unwrap();
    pusher.push(&tags).await.unwrap();
    let grant = worker.granted().await;
    assert_eq!((grant.stream, grant.resume_from.0, grant.open.first_msn.0), (stream, 0, 100));
    assert_eq!((grant.open.discontinuity_sequence.0, grant.open.lead_gaps), (7, 1));
    let mut announcements = world.bus.subscribe(topics::session(stream).subject(), 64).await.unwrap();
    let told = tokio::time::timeout(LIMIT, announcements.recv()).await.unwrap().unwrap();
    let told: SessionAnnouncement = topic::decode(&told.payload).unwrap();
    assert_eq!((told.generation, told.epoch), (Some(grant.generation), grant.epoch));
    // A reader that starts without state gets the newest one.
    let snapshot = world
        .bus
        .request(topics::snapshot(stream).subject(), topic::encode(&SnapshotRequest {}).unwrap(), LIMIT)
        .await
        .unwrap();
    topic::decode::<StreamState>(&snapshot).unwrap();
    pusher.unpublish().await;
    consumer.read_to_end().await;
    world.control.released(stream).await;
    assert_eq!(world.metric("millrace_ingest_sessions"), 1);
    assert!(world.metric("millrace_ingest_ring_bytes") > 0);
    worker.done.send_replace(true);
    eventually("the session's end", async || (world.metric("millrace_ingest_sessions") == 0).then_some(()))
        .await;
    assert_eq!(world.metric("millrace_ingest_ring_bytes"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_grants_a_standby_when_its_worker_dies() {
    let world = World::start().await;
    let mut first = FakeWorker::start(&world.bus, "worker-1").await;
    let (_clip, tags) = tags(short()).await;
    let (_, key) = world.control.stream();
    let mut pusher = Pusher::publish(&world.url(&key), 60_000).await.unwrap();
    pusher.push(&tags[..30]).await.unwrap();
    let before = first.granted().await;
    let mut second = FakeWorker::start(&world.bus, "worker-2").await;
    first.kill();
    let after = second.granted().await;
    assert_eq!(after.epoch, before.epoch);
    assert!(after.generation > before.generation);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_without_worker_puts_its_job_into_the_backlog() {
    let world = World::start().await;
    let (_clip, tags) = tags(short()).await;
    let (stream, key) = world.control.stream();
    let queue = QueueConfig::new(topics::JOBS_STREAM, topics::backlog().subject());
    world.bus.queue_declare(&queue).await.unwrap();
    let mut pusher = Pusher::publish(&world.url(&key), 60_000).await.unwrap();
    pusher.push(&tags[..30]).await.unwrap();
    let job = world.bus.queue_pull(&queue.name, LIMIT).await.unwrap().expect("a job in the backlog");
    let offer: Offer = topic::decode(&job.payload).unwrap();
    assert_eq!(offer.stream, stream);
    assert_eq!(world.metric("millrace_ingest_sessions_without_worker"), 1);
    eventually("a renewal that reports the missing capacity", async || {
        let seen = world.control.seen.lock().unwrap();
        seen.renewals.iter().any(|r| r.degraded == Some(Degraded::NoCapacity)).then_some(())
    })
    .await;
    // The job starts by itself when a worker registers.
    let mut worker = FakeWorker::start(&world.bus, "worker-1").await;
    assert_eq!(worker.granted().await.resume_from.0, 0);
    assert_eq!(world.metric("millrace_ingest_sessions_without_worker"), 0);
}
