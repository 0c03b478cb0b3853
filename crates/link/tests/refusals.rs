//! Messages of another wire version: refused on every kind of topic, and counted by topic and reason.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millrace_bus::{MemBus, SharedBus};
use millrace_link::{Link, LinkError, LogForm, LogReader, MediaReader};
use millrace_runtime::Metrics;
use millrace_wire::WireError;
use millrace_wire::ids::{Epoch, Generation, NodeId, SessionId, StreamId};
use millrace_wire::message::job::{Bid, WorkerFree};
use millrace_wire::message::probe::Loopback;
use millrace_wire::message::repair::{RepairReply, RepairRequest, SnapshotRequest};
use millrace_wire::topic::{Message, RequestTopic, Topic};
use millrace_wire::topics;

const LIMIT: Duration = Duration::from_secs(20);
const EPOCH: Epoch = Epoch(1_763_000_000_000);
const GENERATION: Generation = Generation(2);

fn stream() -> StreamId {
    StreamId::from_u128(1)
}

fn session() -> SessionId {
    SessionId::from_u128(2)
}

/// A message as a build of wire version 1 sent it.
fn recorded(name: &str) -> Bytes {
    std::fs::read(format!("../wire/tests/v1/{name}")).unwrap().into()
}

struct World {
    bus: SharedBus,
    metrics: Metrics,
    link: Link,
}

impl World {
    fn new() -> Self {
        let (bus, metrics): (SharedBus, _) = (Arc::new(MemBus::new()), Metrics::new());
        let link = Link::new(bus.clone(), &metrics);
        Self { bus, metrics, link }
    }

    fn refused(&self, topic: &str, reason: &str) -> bool {
        let line =
            format!("millrace_link_refused_messages_total{{topic=\"{topic}\",reason=\"{reason}\"}} 1\n");
        self.metrics.render().contains(&line)
    }

    /// Publishes a recorded message of version 1, then `valid`; only `valid` is received.
    async fn check_topic<T: Message + PartialEq + std::fmt::Debug>(
        &self,
        topic: Topic<T>,
        name: &str,
        valid: T,
    ) {
        let mut received = self.link.subscribe(&topic, 8).await.unwrap();
        self.bus.publish(topic.subject(), recorded(name)).unwrap();
        self.link.publish(&topic, &valid).unwrap();
        let first = tokio::time::timeout(LIMIT, received.recv()).await.unwrap().unwrap();
        assert_eq!(first, valid, "{name}");
        assert!(self.refused(topic.name(), "version"), "{name}: {}", self.metrics.render());
    }

    /// Asks with a recorded request of version 1, which gets no answer.
    async fn check_requests<Q: Message, A: Message>(&self, topic: RequestTopic<Q, A>, name: &str) {
        let mut requests = self.link.serve(&topic, "group", 8).await.unwrap();
        self.bus.publish(topic.subject(), recorded(name)).unwrap();
        assert!(futures::poll!(std::pin::pin!(requests.recv())).is_pending(), "{name} was accepted");
        assert!(self.refused(topic.name(), "version"), "{name}: {}", self.metrics.render());
    }

    /// Gets a recorded answer of version 1 to a valid request.
    async fn check_answers<Q: Message, A: Message + std::fmt::Debug>(
        &self,
        topic: RequestTopic<Q, A>,
        request: Q,
        name: &'static str,
    ) {
        let mut asked = self.bus.subscribe(topic.subject(), 8).await.unwrap();
        let bus = self.bus.clone();
        let answering = tokio::spawn(async move {
            let request = asked.recv().await.unwrap();
            bus.respond(request.reply.as_deref().unwrap(), recorded(name)).unwrap();
        });
        let answer = self.link.request(&topic, &request, LIMIT).await;
        answering.await.unwrap();
        let refused = matches!(answer, Err(LinkError::Wire { source: WireError::Version { found: 1 }, .. }));
        assert!(refused, "{name}: {answer:?}");
        assert!(self.refused(topic.name(), "version"), "{name}: {}", self.metrics.render());
    }
}

/// Reads the message back from its version 1 form: the types have not changed, only the envelope.
fn valid<T: Message>(name: &str) -> T {
    let mut value: serde_json::Value = serde_json::from_slice(&recorded(name)).unwrap();
    value["v"] = millrace_wire::WIRE_VERSION.into();
    millrace_wire::topic::decode(value.to_string().as_bytes()).unwrap()
}

#[tokio::test]
async fn link_refuses_and_counts_version_1_of_every_published_message() {
    let node: NodeId = "transcode-1".parse().unwrap();
    let world = World::new();
    world.check_topic(topics::heartbeat(stream(), EPOCH), "heartbeat.json", valid("heartbeat.json")).await;
    world.check_topic(topics::bid(session()), "bid.json", valid("bid.json")).await;
    world.check_topic(topics::offer(), "offer.json", valid("offer.json")).await;
    world.check_topic(topics::grant(&node), "grant.json", valid("grant.json")).await;
    let name = "session-announcement.json";
    world.check_topic(topics::session(stream()), name, valid(name)).await;
    let name = "epoch-announcement.json";
    world.check_topic(topics::epoch(stream()), name, valid(name)).await;
    world.check_topic(topics::kick(session()), "kick.json", valid("kick.json")).await;
    world.check_topic(topics::worker_free(), "worker-free.empty", WorkerFree::default()).await;
    world.check_topic(topics::loopback(session()), "loopback.empty", Loopback::default()).await;
    world.check_topic(topics::events(stream()), "lifecycle-event.json", valid("lifecycle-event.json")).await;
    world.check_topic(topics::index(stream()), "index-fact.json", valid("index-fact.json")).await;
}

#[tokio::test]
async fn link_refuses_and_counts_version_1_of_every_request() {
    let world = World::new();
    world.check_requests(topics::snapshot(stream()), "snapshot-request.empty").await;
    world.check_requests(topics::ring_media(stream(), EPOCH), "repair-request.json").await;
    world.check_requests(topics::ring_live(stream(), EPOCH, GENERATION), "repair-request.json").await;
    world.check_requests(topics::claim(), "claim-request.json").await;
    world.check_requests(topics::renew(), "renew-request.json").await;
    world.check_requests(topics::release(), "release-request.json").await;
    world.check_requests(topics::sealed(), "seal-report.json").await;
}

#[tokio::test]
async fn link_refuses_and_counts_version_1_of_every_answer() {
    let world = World::new();
    let request = || RepairRequest { ranges: Vec::new() };
    world.check_answers(topics::ring_media(stream(), EPOCH), request(), "repair-reply.json").await;
    world.check_answers(topics::ring_live(stream(), EPOCH, GENERATION), request(), "repair-reply.json").await;
    world.check_answers(topics::claim(), valid("claim-request.json"), "claim-reply.json").await;
    world.check_answers(topics::renew(), valid("renew-request.json"), "lease-reply.json").await;
    world.check_answers(topics::snapshot(stream()), SnapshotRequest::default(), "snapshot.json").await;
}

#[tokio::test]
async fn gather_leaves_out_and_counts_answers_of_version_1() {
    let world = World::new();
    let topic = topics::ring_media(stream(), EPOCH);
    let mut asked = world.bus.subscribe(topic.subject(), 8).await.unwrap();
    let (bus, link) = (world.bus.clone(), world.link.clone());
    let valid = RepairReply { oldest: None, next: 7 };
    let answering = tokio::spawn(async move {
        let request = asked.recv().await.unwrap();
        let reply = request.reply.as_deref().unwrap();
        bus.respond(reply, recorded("repair-reply.json")).unwrap();
        bus.respond(reply, millrace_wire::topic::encode(&valid).unwrap()).unwrap();
    });
    let answers = link.gather(&topic, &RepairRequest { ranges: Vec::new() }, LIMIT, 2).await.unwrap();
    answering.await.unwrap();
    assert_eq!(answers, [valid]);
    assert!(world.refused("ring.media", "version"), "{}", world.metrics.render());
}

#[tokio::test]
async fn readers_refuse_and_count_version_1_of_media_and_facts() {
    let world = World::new();
    let mut media = MediaReader::follow(&world.link, stream(), EPOCH, 8).await.unwrap();
    let log = (EPOCH, GENERATION);
    let mut facts = LogReader::follow(&world.link, stream(), log, LogForm::Live, 8).await.unwrap();
    for (topic, name) in [
        (topics::media(stream(), EPOCH).into_subject(), "media-message.bin"),
        (topics::live(stream(), EPOCH, GENERATION).into_subject(), "fact.bin"),
    ] {
        world.bus.publish(&topic, recorded(name)).unwrap();
    }
    let (mut messages, mut read) = (Vec::new(), Vec::new());
    assert_eq!(tokio::time::timeout(LIMIT, media.recv_many(&mut messages, 8)).await.unwrap(), 1);
    assert_eq!(tokio::time::timeout(LIMIT, facts.recv_many(&mut read, 8)).await.unwrap(), 1);
    assert!(messages.is_empty() && read.is_empty());
    assert!(world.refused("media", "version"), "{}", world.metrics.render());
    assert!(world.refused("live", "version"), "{}", world.metrics.render());
}

#[tokio::test]
async fn malformed_and_invalid_messages_are_counted_apart_from_other_versions() {
    let world = World::new();
    let topic: Topic<Bid> = topics::bid(session());
    let mut bids = world.link.subscribe(&topic, 8).await.unwrap();
    world.bus.publish(topic.subject(), Bytes::from_static(b"{\"v\":3,\"round\":\"x\"}")).unwrap();
    assert!(futures::poll!(std::pin::pin!(bids.recv())).is_pending());
    assert!(world.refused("jobs.bid", "malformed"), "{}", world.metrics.render());
    let topic = topics::ring_media(stream(), EPOCH);
    let mut requests = world.link.respond(&topic, 8).await.unwrap();
    world.bus.publish(topic.subject(), Bytes::from_static(b"{\"v\":3,\"ranges\":[[5,3]]}")).unwrap();
    assert!(futures::poll!(std::pin::pin!(requests.recv())).is_pending());
    assert!(world.refused("ring.media", "invalid"), "{}", world.metrics.render());
}
