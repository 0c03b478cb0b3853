//! Stream keys in viewers' URLs.

use millrace_edge::Config;
use millrace_link::Link;
use millrace_runtime::{Process, Secret};
use millrace_wire::ids::KeyHash;
use millrace_wire::message::alias::{AliasReply, AliasRequest};
use millrace_wire::topics;
use tokio::sync::mpsc;

use crate::client::request;
use crate::log_writer::FIRST;
use crate::world::*;

const KEY: &str = "0123456789abcdef0123456789abcdef";

fn config(key_alias: bool) -> Config {
    let stream_key_secret = Secret::new("secret".to_owned());
    let listen = ([127, 0, 0, 1], 0).into();
    Config { listen, workers: 1, key_alias, stream_key_secret, ..Config::default() }
}

/// A control that knows one key; returns the hashes it was asked for.
async fn control(world: &World) -> mpsc::UnboundedReceiver<KeyHash> {
    let link = Link::new(world.shared_bus(), &Process::default().metrics);
    let mut requests = link.serve(&topics::alias(), topics::CONTROL_QUEUE, 64).await.unwrap();
    let (asked, seen) = mpsc::unbounded_channel();
    let known = (KeyHash::of_text(b"secret", KEY).unwrap(), world.playback);
    tokio::spawn(async move {
        while let Some(request) = requests.recv().await {
            let AliasRequest { key_hash } = request.message;
            request.respond(&AliasReply { playback: (key_hash == known.0).then_some(known.1) });
            let _ = asked.send(key_hash);
        }
    });
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stream_key_redirects_to_the_public_id_where_it_is_taken() {
    let world = World::new().await;
    let mut asked = control(&world).await;
    let (node, writer) = (world.edge_of(config(true), Process::default()).await, world.writer().await);
    append_segment(&writer, FIRST);
    let origin = [("origin", "https://site.example")];
    for (method, query) in [("GET", ""), ("GET", "?a=b"), ("HEAD", "")] {
        let path = format!("/live/{KEY}/index.m3u8{query}");
        let answer = request(node.addr(), method, &path, &origin, b"").await;
        assert_eq!(answer.status, 302);
        assert_eq!(answer.header("location"), Some(&*world.path(&format!("index.m3u8{query}"))));
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    let multivariant = until(&node, &world.path("index.m3u8"), |answer| answer.status == 200).await;
    assert!(!multivariant.text().contains(KEY));
    // The answer was remembered, and the key went out as a hash.
    assert_eq!(asked.recv().await, KeyHash::of_text(b"secret", KEY));
    assert!(asked.try_recv().is_err());
    // Media are served under the public id alone.
    for path in ["video/index.m3u8", "video/17/1.1.m4s"] {
        assert_eq!(get(&node, &format!("/live/{KEY}/{path}")).await.status, 404, "{path}");
    }
    node.drain().await;
    let plain = world.edge_of(config(false), Process::default()).await;
    assert_eq!(get(&plain, &format!("/live/{KEY}/index.m3u8")).await.status, 404);
    plain.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn address_that_guesses_keys_gets_a_bounded_number_of_answers() {
    let world = World::new().await;
    let mut asked = control(&world).await;
    let node = world.edge_of(config(true), Process::default()).await;
    let mut statuses = Vec::new();
    for guess in 0..140 {
        statuses.push(get(&node, &format!("/live/guess-{guess}/index.m3u8")).await.status);
    }
    assert_eq!(statuses.iter().filter(|status| **status == 404).count(), 120, "{statuses:?}");
    assert!(statuses[120..].iter().all(|status| *status == 503));
    let mut questions = 0;
    while asked.try_recv().is_ok() {
        questions += 1;
    }
    assert_eq!(questions, 120);
    // A public id is served to the address all the same.
    let writer = world.writer().await;
    append_segment(&writer, FIRST);
    until(&node, &world.path("index.m3u8"), |answer| answer.status == 200).await;
    node.drain().await;
}
