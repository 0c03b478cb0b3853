//! Streams that exist and are not live, and ids that do not exist: none of them costs a feed.

use std::collections::BTreeSet;

use bytes::Bytes;
use millrace_edge::Node;
use millrace_protocol::state::checkpoint;
use millrace_state::{StateFaults, StateStore, Tx};
use millrace_store::Meta;
use millrace_wire::ids::Rendition;
use millrace_wire::{state_keys, topic};

use crate::client::{KeepAlive, request};
use crate::log_writer::{FIRST, LogWriter};
use crate::world::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_ids_are_refused_without_a_subscription_or_growing_memory() {
    let world = World::new().await;
    let node = world.edge().await;
    let subscriptions = world.bus.subscriptions();
    let mut client = KeepAlive::connect(node.addr()).await;
    for i in 0..10_000_u32 {
        let path = match i % 3 {
            0 => "/live/ffffffffffffffffffffffffffffffff/index.m3u8".to_owned(),
            1 => format!("/live/{i:032x}/video/index.m3u8"),
            _ => format!("/live/{i:032x}/video/1/{i}.1.m4s"),
        };
        assert_eq!(client.get(&path).await.status, 404, "{path}");
    }
    assert_eq!(node.registry().len(), 0);
    assert_eq!(world.bus.subscriptions(), subscriptions, "no feed is started for an id that does not exist");
    assert!(node.catalog().unknown_len() <= 16_384);
    assert_eq!(node.catalog().known_len(), 0);
    assert!(node.cache().is_empty());
    for bad in ["/live/../etc/passwd", "/live/%2e%2e/x.m4s", "/live/x", "/live//index.m3u8", "/nothing"] {
        assert_eq!(get(&node, bad).await.status, 404, "{bad}");
    }
    node.drain().await;
}

/// A state store that is away.
fn away() -> StateFaults {
    StateFaults { away: true, ..StateFaults::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn known_streams_are_served_and_unknown_ones_answer_503_while_the_state_store_is_away() {
    let world = World::new().await;
    let (node, writer) = (world.edge().await, world.writer().await);
    append_segment(&writer, FIRST);
    let playlist = world.path("video/index.m3u8");
    until(&node, &playlist, |answer| answer.status == 200).await;
    let cold = world.edge().await;
    let stored = format!("live/{}/video/17/55.3.m4s", world.playback);
    let body = Bytes::from(vec![9; 1_000]);
    world.store.put(&stored, body.clone().into(), Meta::default()).await.unwrap();
    // The second edge knows the id and has no feed.
    assert_eq!(get(&cold, &format!("/{stored}")).await.body, body);
    assert!(cold.registry().is_empty());

    world.state.set(away());
    assert_eq!(get(&node, &playlist).await.status, 200);
    let other = format!("live/{}/video/17/56.3.m4s", world.playback);
    world.store.put(&other, body.clone().into(), Meta::default()).await.unwrap();
    assert_eq!(get(&cold, &format!("/{other}")).await.body, body);
    assert_eq!(until(&cold, &playlist, |answer| answer.status == 200).await.status, 200);
    for path in ["index.m3u8", "video/index.m3u8", "video/17/55.3.m4s"] {
        let refused = get(&cold, &format!("/live/ffffffffffffffffffffffffffffffff/{path}")).await;
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{path}");
    }
    world.state.set(StateFaults::default());
    let unknown = get(&cold, "/live/ffffffffffffffffffffffffffffffff/index.m3u8").await;
    assert_eq!(unknown.status, 404, "the failure is not remembered");
    node.drain().await;
    cold.drain().await;
}

/// Stores the checkpoint of the stream as its log writer stands.
async fn store_checkpoint(world: &World, writer: &LogWriter) {
    let checkpoint = checkpoint::checkpoint_of(&writer.state(), &BTreeSet::new(), 600);
    let value = topic::encode(&checkpoint).unwrap();
    world.state.commit(Tx::new().put(state_keys::snapshot(world.stream), value)).await.unwrap();
}

async fn ended_stream(world: &World) -> LogWriter {
    let writer = world.writer().await;
    for msn in FIRST..FIRST + 3 {
        append_segment(&writer, msn);
        for rendition in [Rendition::video(), Rendition::audio()] {
            let key = uri(world, &writer, rendition.as_str(), &format!("{msn}.1.m4s"));
            let body = segment_bytes(&rendition, msn);
            world.store.put(&key[1..], body.into(), Meta::default()).await.unwrap();
            writer.stored(rendition, msn);
        }
    }
    writer.seal();
    writer.end();
    store_checkpoint(world, &writer).await;
    writer.stop_answering().await;
    writer
}

async fn phase(node: &Node, world: &World) -> serde_json::Value {
    let answer = request(node.addr(), "POST", &world.path("beacon"), &[], b"").await;
    let answer: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    answer["phase"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ended_stream_is_served_from_its_checkpoint_without_a_feed_until_it_is_claimed_again() {
    let world = World::new().await;
    let writer = ended_stream(&world).await;
    let node = world.edge().await;
    let subscriptions = world.bus.subscriptions();
    let playlist = get(&node, &world.path("video/index.m3u8")).await;
    assert_eq!(playlist.status, 200);
    assert!(playlist.text().contains("#EXT-X-ENDLIST"), "{}", playlist.text());
    assert_eq!(get(&node, &world.path("index.m3u8")).await.status, 200);
    let segment = uri(&world, &writer, "video", &format!("{FIRST}.1.m4s"));
    assert_eq!(get(&node, &segment).await.body, segment_bytes(&Rendition::video(), FIRST));
    assert_eq!(phase(&node, &world).await, "ended");
    assert_eq!(world.bus.subscriptions(), subscriptions, "an ended stream takes no feed");
    assert_eq!(metric(&node, "millrace_edge_feeds").await.as_deref(), Some("0"));

    // A publisher claims the stream: it may be live, so a feed looks for its log.
    let claim = Tx::new().put(state_keys::claim(world.stream), "a claim");
    world.state.commit(claim).await.unwrap();
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while world.bus.subscriptions() == subscriptions {
        assert_eq!(phase(&node, &world).await, "ended", "viewers keep the ended broadcast meanwhile");
        assert!(tokio::time::Instant::now() < deadline, "no feed was started");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    until(&node, "/metrics", |answer| answer.text().contains("millrace_edge_feeds 1\n")).await;
    node.drain().await;
}
