//! Requests of players on pages of other origins, route by route.

use millrace_edge::Config;
use millrace_runtime::{Process, SystemClock};

use crate::client::request;
use crate::log_writer::FIRST;
use crate::world::*;

/// The request headers that players set, with the player that does. Browsers ask for them in lower case and in order.
const SENT: [(&str, &str); 7] = [
    ("hls.js, Shaka, dash.js with CMCD in headers", "cmcd-object,cmcd-request,cmcd-session,cmcd-status"),
    ("AVPlayer", "x-playback-session-id"),
    ("Shaka, dash.js with byte ranges", "range"),
    ("service workers and conditional reloads", "if-modified-since,if-none-match,if-range"),
    ("the beacon's JSON", "content-type"),
    ("reloads without a cache", "cache-control,pragma"),
    ("frameworks", "x-requested-with"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn preflight_of_every_route_allows_the_headers_that_players_send() {
    let world = World::new().await;
    let node = world.edge().await;
    for (tail, method) in [
        ("index.m3u8", "GET"),
        ("video/index.m3u8", "GET"),
        ("video/index.m3u8?_HLS_msn=1000&_HLS_part=1", "GET"),
        ("video/17/init-0.mp4", "GET"),
        ("video/17/55.1.m4s", "HEAD"),
        ("video/17/55.1.0.m4s", "GET"),
        ("beacon", "POST"),
    ] {
        for (player, headers) in SENT {
            let asked = [
                ("origin", "https://player.example"),
                ("access-control-request-method", method),
                ("access-control-request-headers", headers),
            ];
            let answer = request(node.addr(), "OPTIONS", &world.path(tail), &asked, b"").await;
            assert_eq!(answer.status, 204, "{tail}");
            assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{tail}");
            assert_eq!(answer.header("access-control-max-age"), Some("86400"), "{tail}");
            let methods = answer.header("access-control-allow-methods").unwrap();
            assert!(methods.split(", ").any(|allowed| allowed == method), "{tail}: {methods}");
            let allowed = answer.header("access-control-allow-headers").unwrap();
            for header in headers.split(',') {
                assert!(
                    allowed.split(", ").any(|allowed| allowed == header),
                    "{player}: {header} of {allowed}"
                );
            }
        }
    }
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_of_every_route_may_be_read_by_pages_of_other_origins() {
    let world = World::new().await;
    let (node, writer) = (world.edge().await, world.writer().await);
    append_segment(&writer, FIRST);
    append_part(&writer, FIRST + 1, 0);
    until(&node, &world.path("video/index.m3u8"), |answer| answer.status == 200).await;
    let media = |file: &str| uri(&world, &writer, "video", file);
    for (method, path, body, status) in [
        ("GET", world.path("index.m3u8"), &b""[..], 200),
        ("GET", world.path("video/index.m3u8"), b"", 200),
        ("GET", world.path("video/index.m3u8?_HLS_msn=99999999"), b"", 400),
        ("GET", world.path("nothing/index.m3u8"), b"", 404),
        ("GET", media("init-0.mp4"), b"", 200),
        ("GET", media(&format!("{FIRST}.1.m4s")), b"", 200),
        ("GET", media(&format!("{FIRST}.1.0.m4s")), b"", 200),
        ("GET", media(&format!("{FIRST}.1.99.m4s")), b"", 404),
        ("PUT", media("init-0.mp4"), b"", 405),
        ("POST", world.path("beacon"), b"", 200),
        ("POST", world.path("beacon"), b"not json", 400),
        ("POST", world.path("beacon"), &[b' '; 2_000], 413),
        ("POST", "/live/ffffffffffffffffffffffffffffffff/beacon".to_owned(), b"", 404),
    ] {
        let headers = [("origin", "https://player.example"), ("cmcd-request", "bl=2100")];
        let answer = request(node.addr(), method, &path, &headers, body).await;
        assert_eq!(answer.status, status, "{method} {path}");
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{method} {path}");
        assert_eq!(answer.header("timing-allow-origin"), Some("*"), "{method} {path}");
        let exposed = answer.header("access-control-expose-headers").unwrap();
        for header in ["content-length", "content-range", "date", "etag", "age", "retry-after"] {
            assert!(exposed.split(", ").any(|exposed| exposed == header), "{header} of {exposed}");
        }
    }
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_name_the_configured_origin_that_asked_and_no_other() {
    let world = World::new().await;
    let allow_origin = serde_json::from_str("\"https://a.example,https://b.example\"").unwrap();
    let config = Config { allow_origin, listen: ([127, 0, 0, 1], 0).into(), workers: 1, ..Config::default() };
    let node = world.edge_of(config, Process::new(SystemClock::shared())).await;
    for (origin, allowed) in
        [("https://a.example", true), ("https://b.example", true), ("https://c.example", false)]
    {
        for (method, tail) in [("GET", "other/index.m3u8/x"), ("OPTIONS", "index.m3u8"), ("POST", "beacon")] {
            let answer = request(node.addr(), method, &world.path(tail), &[("origin", origin)], b"").await;
            let named = answer.header("access-control-allow-origin");
            assert_eq!(named, allowed.then_some(origin), "{method} {tail} {origin}");
            assert_eq!(answer.header("vary"), Some("origin"), "{method} {tail} {origin}");
        }
    }
    node.drain().await;
}
