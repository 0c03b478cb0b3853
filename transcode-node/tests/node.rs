//! A worker node on embedded backends, with a simulated publisher's session that offers, grants and revokes jobs.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/audio.rs"]
mod audio;
#[path = "support/session.rs"]
mod session;

use std::collections::BTreeSet;
use std::time::Duration;

use audio::{FIRST, messages};
use millrace_media::hls::MediaPlaylist;
use millrace_media::hls::checker::Checker;
use millrace_runtime::{ActorFilter, Metrics, Order, OrderError};
use millrace_transcode::{Config, Node};
use millrace_wire::fact::{Fact, FactMessage, Origin, RenditionSegment, StreamState};
use millrace_wire::ids::{Generation, InitVersion, Rendition};
use millrace_wire::message::control::StreamSettings;
use millrace_wire::message::media::MediaMessage;
use millrace_wire::message::repair::SnapshotRequest;
use millrace_wire::object_names::{self, ObjectKind};
use millrace_wire::{topic, topics};
use session::{LIMIT, World, eventually, playback, stream};

const NODE: &str = "worker-a";

fn number(metrics: &Metrics, name: &str) -> u64 {
    let text = metrics.render();
    let line = text.lines().find(|l| l.starts_with(&format!("millrace_transcode_{name} ")));
    line.unwrap_or_else(|| panic!("{name} in {text}")).rsplit(' ').next().unwrap().parse().unwrap()
}

/// Returns the number of messages that make the first `count` segments.
fn until_segment(all: &[MediaMessage], count: u64) -> usize {
    all.iter().position(|m| m.units.iter().any(|unit| unit.msn().0 >= FIRST + count)).unwrap_or(all.len())
}

fn is_segment(fact: &FactMessage, msn: u64) -> bool {
    matches!(&fact.fact, Fact::Segment(s) if s.msn.0 == msn)
}

/// Returns a world whose one node has been granted generation 1.
async fn granted() -> (World, Node, Metrics) {
    let world = World::new().await;
    let (node, metrics) = world.node(NODE).await;
    world.offer(NODE).await;
    world.follow(Generation(1)).await;
    world.grant(NODE, 1, World::first_base(), StreamSettings::default());
    (world, node, metrics)
}

async fn idle(metrics: &Metrics) {
    eventually("the job's end", async || (number(metrics, "jobs") == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn job_stops_announcing_and_stores_complete_segments_when_its_grant_is_revoked() {
    let (world, node, metrics) = granted().await;
    let all = messages(9);
    let half = until_segment(&all, 2) + 10;
    world.publish(&all[..half]);
    world.fact("two segments", |f| is_segment(f, FIRST + 1)).await;
    world.revoke(NODE, 1);
    idle(&metrics).await;
    let said = world.facts().len();
    world.publish(&all[half..]);
    // A second grant of another generation shows that the node has read everything up to here.
    world.follow(Generation(2)).await;
    world.grant(
        NODE,
        2,
        world.checkpoint().await.unwrap_or_else(World::first_base),
        StreamSettings::default(),
    );
    world.fact("the successor's seal", |f| f.generation.0 == 2 && matches!(f.fact, Fact::Seal { .. })).await;
    assert_eq!(world.facts().iter().filter(|f| f.generation.0 == 1).count(), said);
    for msn in FIRST..FIRST + 2 {
        assert!(world.segment(msn, 1).await.is_some(), "complete before the revocation: {msn}");
    }
    eventually("every segment once", async || {
        let numbers: Vec<u64> = world.index().await.iter().map(|f| f.segment.msn.0).collect();
        (numbers == (FIRST..FIRST + 5).collect::<Vec<_>>()).then_some(())
    })
    .await;
    world.revoke(NODE, 2);
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_that_takes_nothing_is_told_in_readiness_heartbeats_and_metrics_until_it_is_back() {
    let world = World::new().await;
    let (node, process) = world.node_in_process(NODE, Config::default()).await;
    let (metrics, readiness) = (process.metrics, process.readiness);
    world.offer(NODE).await;
    world.follow(Generation(1)).await;
    world.grant(NODE, 1, World::first_base(), StreamSettings::default());
    world.set_store_away(true);
    world.publish(&messages(9));
    world.fact("two segments", |f| is_segment(f, FIRST + 1)).await;
    let told = || world.heartbeats().last().is_some_and(|beat| beat.storage_failing);
    eventually("the trouble in a heartbeat", async || told().then_some(())).await;
    eventually("the trouble in readiness", async || {
        let degraded = readiness.degraded();
        let reason = degraded.iter().find(|part| part.name == "storage")?.reason.clone();
        reason.starts_with("degraded: storage: ").then_some(())
    })
    .await;
    assert!(readiness.is_ready(), "the live path goes on without storage");
    assert_eq!(number(&metrics, "storage_failing"), 1);
    world.set_store_away(false);
    eventually("the end of the trouble", async || {
        let over = readiness.degraded().is_empty() && number(&metrics, "storage_failing") == 0;
        (over && !told()).then_some(())
    })
    .await;
    assert_eq!(number(&metrics, "uploads_given_up_total"), 0, "what waited is stored");
    world.revoke(NODE, 1);
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_without_room_does_not_bid_until_a_job_ends() {
    // Two copied streams; one unit is for them alone.
    let config = Config { max_jobs: 2, capacity: Some(3), copy_reserve: Some(1), ..Config::default() };
    let world = World::new().await;
    let (node, metrics) = world.node_with(NODE, config).await;
    let mut free = world.bus.subscribe(topics::worker_free().subject(), 64).await.unwrap();
    assert_eq!((world.offer_of(NODE, 2).await.free, world.offer_of(NODE, 1).await.free), (2, 3));
    let declined = async |count| {
        eventually("an offer left alone", async || {
            (number(&metrics, "offers_declined_total") == count).then_some(())
        })
        .await;
    };
    let beyond = world.offer_once(3);
    declined(1).await;
    world.grant(NODE, 1, World::first_base(), StreamSettings::default());
    eventually("the job", async || (number(&metrics, "jobs") == 1).then_some(())).await;
    let encoded = world.offer_once(2);
    declined(2).await;
    assert_eq!(world.offer_of(NODE, 1).await.free, 2, "copies have their share");
    world.grant(NODE, 2, World::first_base(), StreamSettings::default());
    eventually("another job", async || (number(&metrics, "jobs") == 2).then_some(())).await;
    let full = world.offer_once(1);
    declined(3).await;

    while free.try_recv().is_some() {}
    for generation in [1, 2] {
        world.revoke(NODE, generation);
    }
    idle(&metrics).await;
    tokio::time::timeout(LIMIT, free.recv()).await.expect("a notice of free capacity").unwrap();
    assert_eq!(world.offer_of(NODE, 2).await.free, 2);
    let answered: Vec<u64> = world.bids().iter().map(|bid| bid.round).collect();
    assert!(![beyond, encoded, full].iter().any(|round| answered.contains(round)), "{answered:?}");
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn job_of_a_draining_node_goes_on_until_its_successor_is_announced() {
    let world = World::new().await;
    let (old, metrics) = world.node(NODE).await;
    let (new, _) = world.node("worker-b").await;
    world.offer(NODE).await;
    world.follow(Generation(1)).await;
    world.follow(Generation(2)).await;
    let all = messages(9);
    let (first, second) = (until_segment(&all, 2), until_segment(&all, 3));
    world.grant(NODE, 1, World::first_base(), StreamSettings::default());
    world.publish(&all[..first]);
    world.fact("a segment", |f| is_segment(f, FIRST)).await;
    let drained = tokio::spawn(async move { old.drain().await });
    eventually("a heartbeat that asks for a successor", async || {
        world.heartbeats().last().filter(|beat| beat.leaving && beat.generation.0 == 1).map(|_| ())
    })
    .await;
    // It does not bid any more, and still packages what comes.
    assert_eq!(world.offer("worker-b").await.node.as_str(), "worker-b");
    world.publish(&all[first..second]);
    world.fact("a segment while leaving", |f| is_segment(f, FIRST + 1)).await;
    let base = folded(&world);
    world.grant("worker-b", 2, base, StreamSettings::default());
    world.fact("the successor", |f| f.generation.0 == 2).await;
    world.announce_generation(2, "worker-b");
    drained.await.unwrap();
    assert_eq!(number(&metrics, "jobs"), 0);
    world.publish(&all[second..]);
    world.fact("the seal", |f| f.generation.0 == 2 && matches!(f.fact, Fact::Seal { .. })).await;
    eventually("every segment once", async || {
        let numbers: Vec<u64> = world.index().await.iter().map(|f| f.segment.msn.0).collect();
        (numbers == (FIRST..FIRST + 5).collect::<Vec<_>>()).then_some(())
    })
    .await;
    world.revoke("worker-b", 2);
    new.drain().await;
}

/// Returns the state that a reader of the first author's log has.
fn folded(world: &World) -> StreamState {
    let mut view = World::first_base();
    view.epoch = millrace_wire::ids::Epoch(1);
    view.generation = Generation(1);
    for message in world.facts().iter().filter(|f| f.generation.0 == 1) {
        millrace_protocol::state::apply::apply(&mut view, message.seq, &message.fact);
    }
    view
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoint_answers_snapshot_requests_when_no_job_runs() {
    let (world, node, metrics) = granted().await;
    let all = messages(9);
    world.publish(&all[..until_segment(&all, 4)]);
    world.fact("a segment", |f| is_segment(f, FIRST)).await;
    world.announce_generation(1, NODE);
    let kept = async || world.checkpoint().await.filter(|kept| kept.slots.len() >= 3);
    let kept = eventually("three segments kept", kept).await;
    let whole = |t: &RenditionSegment| t.segment.as_ref().is_some_and(|s| t.parts.len() == s.parts as usize);
    assert!(kept.slots.iter().all(|s| s.tracks.values().all(|t| t.stored && whole(t))));
    world.revoke(NODE, 1);
    idle(&metrics).await;

    let ask = async || {
        let wait = Duration::from_millis(300);
        let replies = world
            .bus
            .gather(
                topics::snapshot(stream()).subject(),
                topic::encode(&SnapshotRequest {}).unwrap(),
                wait,
                1,
            )
            .await
            .unwrap();
        replies.first().map(|r| topic::decode::<StreamState>(r).unwrap())
    };
    let base = eventually("an answer", ask).await;
    assert_eq!((base.origin, base.epoch, base.ended), (Origin::Checkpoint, kept.epoch, false));
    assert!(base.slots.len() >= 3);
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn job_is_an_actor_that_a_drain_hands_over_and_a_kick_ends() {
    let world = World::new().await;
    let (node, process) = world.node_in_process(NODE, Config::default()).await;
    let actors = &process.actors;
    world.offer(NODE).await;
    world.follow(Generation(1)).await;
    world.grant(NODE, 1, World::first_base(), StreamSettings::default());
    let all = messages(9);
    world.publish(&all[..=until_segment(&all, 2)]);
    world.fact("a segment", |f| is_segment(f, FIRST)).await;
    world.announce_generation(1, NODE);
    let id = format!("{}.1.1", stream());
    let state = async |state: &str| (actors.status("job", &id).await.ok()?.state == state).then_some(());
    eventually("its state", async || state("packaging").await).await;
    let kinds = actors.list(ActorFilter::default(), 100).actors;
    let kinds: BTreeSet<&str> = kinds.iter().map(|actor| actor.kind).collect();
    for kind in ["worker", "backlog", "uploader", "index_writer", "checkpoint_responder", "job"] {
        assert!(kinds.contains(kind), "{kind} in {kinds:?}");
    }

    assert!(matches!(actors.order("job", &id, Order::Reload).await, Err(OrderError::Refused(_))));
    assert!(world.heartbeats().iter().all(|beat| !beat.leaving));
    actors.order("job", &id, Order::Drain).await.unwrap();
    eventually("a heartbeat that asks for a successor", async || {
        world.heartbeats().last().filter(|beat| beat.leaving).map(|_| ())
    })
    .await;
    eventually("its state", async || state("packaging, waiting for a successor").await).await;

    actors.order("job", &id, Order::Kick { reason: "test".to_owned() }).await.unwrap();
    idle(&process.metrics).await;
    assert!(matches!(actors.status("job", &id).await, Err(OrderError::NotFound { .. })));
    assert_eq!(number(&process.metrics, "job_failures_total"), 0, "an operator's order is no failure");
    assert!(world.offer(NODE).await.free > 0, "the node goes on bidding");
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn index_writes_take_no_task_per_segment_while_the_state_store_is_away() {
    let (world, node, metrics) = granted().await;
    let all = messages(60);
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let stored = async |count: usize| (world.stored(1).len() == count).then_some(());
    world.set_state_away(true);
    let (few, many) = (until_segment(&all, 4), until_segment(&all, 29));
    world.publish(&all[..=few]);
    eventually("a few segments stored", async || stored(4).await).await;
    let tasks = alive();
    world.publish(&all[few + 1..=many]);
    eventually("many segments stored", async || stored(29).await).await;
    // Some tasks come and go; a task for each segment would be 25 more.
    eventually("no task per segment", async || (alive() < tasks + 10).then_some(())).await;
    assert!(world.index().await.is_empty());
    world.set_state_away(false);
    eventually("every stored segment in the index", async || (world.index().await.len() == 29).then_some(()))
        .await;
    world.revoke(NODE, 1);
    idle(&metrics).await;
    node.drain().await;
}

/// Viewers are shown the state that a successor's log opens with, so it is in the checkpoint before the successor has
/// stored anything itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn successor_writes_its_base_as_checkpoint_before_it_has_stored_anything() {
    let (world, node, metrics) = granted().await;
    world.follow(Generation(2)).await;
    let all = messages(9);
    world.publish(&all[..until_segment(&all, 2) + 10]);
    world.announce_generation(1, NODE);
    let stored = async || (world.stored(1).len() == 2).then_some(());
    eventually("two segments stored", stored).await;
    let kept = async || world.checkpoint().await.filter(|kept| kept.slots.len() == 2);
    let before = eventually("both kept", kept).await;
    world.revoke(NODE, 1);
    idle(&metrics).await;
    world.delete_checkpoint().await;

    world.offer(NODE).await;
    world.grant(NODE, 2, folded(&world), StreamSettings::default());
    world.fact("the successor", |f| f.generation.0 == 2).await;
    world.announce_generation(2, NODE);
    let after = eventually("both kept again", kept).await;
    assert_eq!(after.slots, before.slots);
    assert!(world.stored(2).is_empty(), "the successor has stored something");
    world.revoke(NODE, 2);
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn job_announces_stores_indexes_publishes_playlists_and_ends_with_the_broadcast() {
    let world = World::new().await;
    let (node, metrics) = world.node(NODE).await;
    assert!(world.offer(NODE).await.free > 0);
    world.follow(Generation(1)).await;
    let settings = StreamSettings { publish_playlist: true, ..StreamSettings::default() };
    let all = messages(9);
    let half = until_segment(&all, 3);
    // What was published before the grant comes from the ring; grants are repeated until a heartbeat shows them.
    world.publish(&all[..half]);
    for _ in 0..3 {
        world.grant(NODE, 1, World::first_base(), settings.clone());
    }
    world.fact("the second segment", |f| is_segment(f, FIRST + 1)).await;
    world.announce_generation(1, NODE);
    let (key, mut checker) = (object_names::media_playlist(playback(), &Rendition::audio()), Checker::new());
    let live = eventually("a playlist in the bucket", async || world.text(&key).await).await;
    assert_eq!(checker.check(std::str::from_utf8(&live).unwrap()), []);
    world.publish(&all[half..]);
    world.fact("the seal", |f| matches!(f.fact, Fact::Seal { .. })).await;
    world.announce_end();
    world.fact("the end", |f| f.fact == Fact::End).await;

    let numbers: Vec<u64> = (FIRST..FIRST + 5).collect();
    for msn in &numbers {
        let stored = world.segment(*msn, 1).await.expect("a stored segment is in the store");
        assert_eq!(stored, world.joined(1, *msn), "segment {msn} is its parts");
    }
    let mut stored = world.stored(1);
    stored.sort_unstable();
    assert_eq!(stored, numbers);
    assert!(world.object(ObjectKind::Init(InitVersion(0))).await.is_some());
    let index = eventually("the index", async || Some(world.index().await).filter(|i| i.len() == 5)).await;
    assert_eq!(index.iter().map(|f| f.segment.msn.0).collect::<Vec<_>>(), numbers);
    let mut facts = Vec::new();
    while facts.len() < numbers.len() {
        facts.push(world.index_fact().await);
    }
    // In the order in which objects were stored.
    facts.sort_by_key(|fact| fact.segment.msn);
    assert_eq!(facts, index, "the same is kept as facts");
    let seqs: Vec<u64> = world.facts().iter().map(|f| f.seq.0).collect();
    assert_eq!(seqs, (0..seqs.len() as u64).collect::<Vec<_>>(), "one log writer for repeated grants");
    assert_eq!(number(&metrics, "grants_total"), 1);

    let ended = async || world.text(&key).await.filter(|t| t.ends_with(b"#EXT-X-ENDLIST\n"));
    let ended = String::from_utf8(eventually("ENDLIST in the bucket", ended).await.to_vec()).unwrap();
    assert_eq!(checker.check(&ended), [], "{ended}");
    let playlist = MediaPlaylist::parse(&ended).unwrap();
    assert_eq!((playlist.segments.len(), playlist.part_target), (5, None));
    for segment in &playlist.segments {
        let object = format!("live/{}/audio/{}", playback(), segment.uri);
        assert!(world.text(&object).await.is_some(), "{object}");
    }
    let multivariant = world.text(&object_names::multivariant(playback())).await.unwrap();
    assert!(String::from_utf8_lossy(&multivariant).contains("audio/index.m3u8"));
    let kept = async || world.checkpoint().await.filter(|kept| kept.ended);
    assert_eq!(eventually("the kept state", kept).await.slots.len(), 5);
    idle(&metrics).await;
    node.drain().await;
}
