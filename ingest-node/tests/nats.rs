//! Publishers over a real nats-server: messages split below its `max_payload`, a server that restarts.

#![allow(clippy::unwrap_used, reason = "a test helper fails its test by panicking")]

mod support;

use std::sync::Arc;

use millrace_bus::{NatsBus, NatsConfig, SharedBus};
use millrace_testkit::{ClipSpec, NatsServer};
use millrace_wire::message::media::Track;
use support::{Consumer, Pusher, World, check_order, config, eventually, frames, pushed, tags};

async fn bus(server: &NatsServer) -> SharedBus {
    Arc::new(NatsBus::connect(NatsConfig::new([server.url()])).await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_frame_crosses_nats_exactly_once() {
    let server = NatsServer::start_any().await;
    let world = World::with(config(), bus(&server).await).await;
    let (_clip, tags) = tags(ClipSpec::default()).await;
    let (stream, key) = world.control.stream();
    let mut consumer = Consumer::of(&bus(&server).await, stream).await;
    let mut pusher = Pusher::publish(&world.url(&key), 60_000).await.unwrap();
    pusher.push(&tags).await.unwrap();
    pusher.unpublish().await;
    let messages = consumer.read_to_end().await;
    check_order(messages);
    for track in [Track::Video, Track::Audio] {
        assert_eq!(frames(messages, track), pushed(&tags, track), "{track:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_survives_a_restart_of_nats() {
    let mut server = NatsServer::start_any().await;
    let world = World::with(config(), bus(&server).await).await;
    let (_clip, tags) = tags(ClipSpec::default()).await;
    let (stream, key) = world.control.stream();
    let mut pusher = Pusher::publish(&world.url(&key), 60_000).await.unwrap();
    let (before, after) = tags.split_at(tags.len() / 2);
    pusher.push(before).await.unwrap();
    server.restart().await;
    let mut connected = world.bus.connected();
    connected.wait_for(|connected| *connected).await.unwrap();
    pusher.push(after).await.unwrap();
    let renewals =
        || world.control.seen.lock().unwrap().renewals.iter().filter(|r| r.stream == stream).count();
    let so_far = renewals();
    eventually("renewals after the restart", async || (renewals() > so_far).then_some(())).await;
    assert_eq!(world.metric("millrace_ingest_publishers"), 1);
    pusher.unpublish().await;
    world.control.released(stream).await;
}
