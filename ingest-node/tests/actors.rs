//! The actors of an ingest node: their names and states, and the orders they carry out.
#![allow(clippy::unwrap_used, reason = "a helper fails its test by panicking")]

mod support;

use std::sync::Arc;

use millrace_bus::MemBus;
use millrace_ingest::Config;
use millrace_runtime::actors::{ActorFilter, ActorStatus, Order, OrderError};
use millrace_testkit::ClipSpec;
use millrace_wire::close_reason::CloseReason;
use support::{Consumer, Pusher, World, config, eventually, frames, tags};
use tokio::net::TcpStream;

fn actors(world: &World, kind: &'static str) -> Vec<ActorStatus> {
    world.actors.list(ActorFilter { kind: Some(kind), ..ActorFilter::default() }, 100).actors
}

/// Publishes a second of media and returns the publisher with the id of its actor.
async fn publishing(world: &World) -> (Pusher, millrace_wire::ids::StreamId, String) {
    let (_clip, tags) = tags(ClipSpec { frames: 30, ..ClipSpec::default() }).await;
    let (stream, key) = world.control.stream();
    let mut consumer = Consumer::of(&world.bus, stream).await;
    let mut pusher = Pusher::publish(&world.url(&key), 0).await.unwrap();
    pusher.push(&tags).await.unwrap();
    consumer
        .until(|messages| !frames(messages, millrace_wire::message::media::Track::Video).is_empty())
        .await;
    let id = format!("{stream}.{}", consumer.messages[0].epoch);
    (pusher, stream, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn publisher_and_listener_are_listed_with_their_states() {
    let world = World::start().await;
    let (_pusher, _, id) = publishing(&world).await;
    let listeners = actors(&world, "listener");
    assert_eq!(listeners.iter().map(|actor| actor.id.as_str()).collect::<Vec<_>>(), ["rtmp"]);
    assert_eq!(listeners[0].state, format!("accepting on {}", world.node.rtmp_addr()));
    let publishers = actors(&world, "publisher");
    assert_eq!(publishers.iter().map(|actor| &actor.id).collect::<Vec<_>>(), [&id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn kicked_publisher_is_disconnected_with_the_operators_reason() {
    let world = World::start().await;
    let (mut pusher, stream, id) = publishing(&world).await;
    let kick = Order::Kick { reason: "wrong scene".to_owned() };
    world.actors.order("publisher", &id, kick.clone()).await.unwrap();
    let refused = pusher.refused().await.unwrap();
    assert_eq!(refused, ("NetStream.Publish.Denied".to_owned(), "wrong scene".to_owned()));
    assert_eq!(world.control.released(stream).await.reason, CloseReason::Kicked);
    // Without a worker the session waits with its media; there is no publish left to end.
    let again = world.actors.order("publisher", &id, kick).await;
    assert!(matches!(again, Err(OrderError::Refused(_))), "{again:?}");
    eventually("the state of a session that waits for a worker", async || {
        let publisher = actors(&world, "publisher").into_iter().find(|actor| actor.id == id)?;
        (publisher.state == "publish ended (kicked); waiting for worker").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn drained_publisher_is_disconnected_to_connect_elsewhere() {
    let world = World::start().await;
    let (mut pusher, stream, id) = publishing(&world).await;
    world.actors.order("publisher", &id, Order::Drain).await.unwrap();
    assert_eq!(pusher.refusal().await.as_deref(), Some("NetStream.Failed"));
    assert_eq!(world.control.released(stream).await.reason, CloseReason::Draining);
}

#[tokio::test(flavor = "multi_thread")]
async fn drained_listener_accepts_no_connection_and_keeps_its_publishers() {
    let world = World::start().await;
    let (mut pusher, stream, _) = publishing(&world).await;
    let unsupported = world.actors.order("listener", "rtmp", Order::Reload).await;
    assert_eq!(unsupported, Err(OrderError::NotSupported));
    world.actors.order("listener", "rtmp", Order::Drain).await.unwrap();
    eventually("the port to be closed", async || TcpStream::connect(world.node.rtmp_addr()).await.err())
        .await;
    pusher.unpublish().await;
    assert_eq!(world.control.released(stream).await.reason, CloseReason::PublisherLeft);
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_is_reloaded_by_order_and_an_unreadable_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
    std::fs::copy("tests/data/localhost.crt", &cert).unwrap();
    std::fs::copy("tests/data/localhost.key", &key).unwrap();
    let config = Config {
        rtmps: Some(([127, 0, 0, 1], 0).into()),
        tls_cert: Some(cert.clone()),
        tls_key: Some(key),
        ..config()
    };
    let world = World::with(config, Arc::new(MemBus::new())).await;
    world.actors.order("certificate", "rtmps", Order::Reload).await.unwrap();
    std::fs::write(&cert, "no certificate").unwrap();
    let refused = world.actors.order("certificate", "rtmps", Order::Reload).await;
    assert!(
        matches!(&refused, Err(OrderError::Refused(why)) if why.contains("ingest.tls_cert")),
        "{refused:?}"
    );
}
