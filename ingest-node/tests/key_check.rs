//! Keys that a service outside the cluster decides on: what it is asked, what its answers do to a publisher, and what happens while
//! it is down.
#![allow(clippy::unwrap_used, reason = "a helper fails its test by panicking")]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_bus::MemBus;
use millrace_ingest::{Config, KeyCheckShape, PathRule, Paths, WhenDown};
use millrace_runtime::Secret;
use millrace_testkit::servers::{KeyService, Mood};
use millrace_testkit::{ClipSpec, FfmpegPublisher};
use millrace_wire::close_reason::CloseReason;
use millrace_wire::message::control::OutsideCheck;
use support::{LIMIT, Pusher, World, config, eventually, tags};

const KEY: &str = "0123456789abcdef0123456789abcdef";

fn checked(service: &KeyService, shape: KeyCheckShape) -> Config {
    Config {
        key_check_url: Some(service.url()),
        key_check_shape: shape,
        key_check_timeout_s: 1,
        key_check_cache_s: 0,
        ..config()
    }
}

async fn world(config: Config) -> World {
    World::with(config, Arc::new(MemBus::new())).await
}

fn url(world: &World, key: &str) -> String {
    format!("rtmp://{}/live/{key}", world.node.rtmp_addr())
}

async fn refusal(world: &World, key: &str) -> (String, String) {
    let published = Pusher::publish_or_refusal(&url(world, key), 0).await;
    let Err(refusal) = published else { panic!("the publisher is not refused") };
    refusal
}

fn outcome(world: &World, outcome: &str) -> i64 {
    world.metric(&format!("millrace_ingest_key_checks_total{{outcome=\"{outcome}\"}}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn ffmpeg_publishes_a_key_that_the_service_accepts_in_either_shape_and_own_keys_ask_nobody() {
    let service = KeyService::start().await.unwrap();
    service.answer(KEY, 200, r#"{"valid":true,"title":"Show","artist_id":7}"#);
    service.answer("artist-7_live", 200, r#"{"id":3,"isActive":true,"expiresAt":"2090-01-01T00:00:00Z"}"#);
    let (clip, _) = tags(ClipSpec { frames: 60, ..ClipSpec::default() }).await;
    let validate = Config {
        key_check_secret: Secret::new("hush".to_owned()),
        ..checked(&service, KeyCheckShape::Validate)
    };
    for (config, key) in [(validate, KEY), (checked(&service, KeyCheckShape::Lookup), "artist-7_live")] {
        let world = world(config).await;
        let mut ffmpeg = FfmpegPublisher::push(&url(&world, key), &clip.path, false).unwrap();
        assert!(ffmpeg.process().wait(LIMIT).await.unwrap().success());
        let (_, own) = world.control.stream();
        drop(Pusher::publish(&world.url(&own), 0).await.unwrap());
        let seen = world.control.seen.lock().unwrap();
        let checks: Vec<_> = seen.claims.iter().map(|claim| claim.outside.clone()).collect();
        let [OutsideCheck::Available, OutsideCheck::Accepted(accepted), OutsideCheck::Available] =
            &checks[..]
        else {
            panic!("{checks:?}")
        };
        assert_eq!(accepted.title.as_deref(), (key == KEY).then_some("Show"));
        assert_eq!(accepted.owner.as_deref(), (key == KEY).then_some("7"));
    }
    let [posted, got] = &service.asked()[..] else { panic!("{:?}", service.asked()) };
    assert_eq!(posted.line, "POST /api/v1/streaming/validate");
    assert_eq!(posted.body, format!("{{\"stream_key\":\"{KEY}\"}}"));
    assert_eq!(posted.headers["content-type"], "application/json");
    assert_eq!(posted.headers["authorization"], "Bearer hush");
    assert_eq!((got.line.as_str(), got.body.as_str()), ("GET /api/streams/artist-7_live", ""));
    assert!(!got.headers.contains_key("authorization"));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_answer_that_accepts_no_key_is_told_apart_in_the_status_and_the_metrics() {
    let service = KeyService::start().await.unwrap();
    service.answer("good", 200, "{}");
    service.answer("idle", 200, r#"{"active":false}"#);
    service.answer("old", 200, r#"{"active":true,"expires_at":"2020-01-01T00:00:00Z"}"#);
    let world = world(checked(&service, KeyCheckShape::Lookup)).await;
    let page = Mood::Says(200, "text/html", "<!doctype html><title>Site</title>");
    let cases = [
        ("nobodys", Mood::Works, CloseReason::UnknownKey, "unknown"),
        ("idle", Mood::Works, CloseReason::InactiveKey, "inactive"),
        ("old", Mood::Works, CloseReason::ExpiredKey, "expired"),
        ("good", Mood::Says(500, "text/plain", "oops"), CloseReason::KeyCheckFailed, "unusable"),
        ("good", page, CloseReason::KeyCheckFailed, "unusable"),
        // The third failure in a row: the service counts as down from here on.
        ("good", Mood::Hangs, CloseReason::KeyCheckSlow, "slow"),
    ];
    for (key, mood, reason, code) in cases {
        service.mood(mood);
        let before = outcome(&world, code);
        let (status, text) = refusal(&world, key).await;
        assert_eq!((Some(status.as_str()), text.as_str()), (reason.rtmp_status(), reason.text()), "{key}");
        assert_eq!(outcome(&world, code), before + 1, "{code}");
    }
    assert_eq!(world.metric("millrace_ingest_refused_total{reason=\"key_check_failed\"}"), 2);
    assert!(!world.metrics.render().contains("nobodys"));
    // Control keeps them in the status of the livestream, if the key has one.
    let reported = eventually("six reports", async || {
        let seen = world.control.seen.lock().unwrap();
        (seen.refusals.len() == 6)
            .then(|| seen.refusals.iter().map(|report| report.reason).collect::<Vec<_>>())
    });
    assert!(reported.await.contains(&CloseReason::ExpiredKey));
}

#[tokio::test(flavor = "multi_thread")]
async fn service_that_is_down_refuses_at_once_or_accepts_keys_of_lately_and_is_used_again_when_it_is_back() {
    let service = KeyService::start().await.unwrap();
    service.answer("good", 200, "{}");
    let addr = service.addr();
    let recent =
        Config { key_check_when_down: WhenDown::AcceptRecent, ..checked(&service, KeyCheckShape::Lookup) };
    let (strict, lenient) = (world(checked(&service, KeyCheckShape::Lookup)).await, world(recent).await);
    for world in [&strict, &lenient] {
        assert!(Pusher::publish(&url(world, "good"), 0).await.is_ok());
    }
    drop(service);
    let unreachable = CloseReason::KeyCheckUnreachable;
    for _ in 0..4 {
        let (status, text) = refusal(&strict, "good").await;
        assert_eq!((Some(status.as_str()), text.as_str()), (unreachable.rtmp_status(), unreachable.text()));
        assert!(Pusher::publish(&url(&lenient, "good"), 0).await.is_ok());
    }
    assert_eq!(refusal(&lenient, "other").await.1, unreachable.text());
    // The fourth publisher did not wait for the service.
    assert_eq!((outcome(&strict, "unreachable"), outcome(&strict, "not_asked")), (3, 1));
    assert_eq!(strict.metric("millrace_ingest_key_check_down"), 1);
    assert_eq!(outcome(&lenient, "accepted_while_down"), 4);

    let service = KeyService::start_at(addr).await.unwrap();
    service.answer("good", 200, "{}");
    let began = Instant::now();
    eventually("the service to be used again", async || Pusher::publish(&url(&strict, "good"), 0).await.ok())
        .await;
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(strict.metric("millrace_ingest_key_check_down"), 0);
    assert!(!service.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn accepted_key_is_published_again_without_asking_while_it_is_fresh() {
    let service = KeyService::start().await.unwrap();
    service.answer("good", 204, "");
    let config = Config { key_check_cache_s: 60, ..checked(&service, KeyCheckShape::Validate) };
    let world = world(config).await;
    assert!(Pusher::publish(&url(&world, "good"), 0).await.is_ok());
    drop(service);
    assert!(Pusher::publish(&url(&world, "good"), 0).await.is_ok());
    assert_eq!((outcome(&world, "accepted"), outcome(&world, "cached")), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn application_of_own_keys_never_asks_the_service() {
    let service = KeyService::start().await.unwrap();
    service.answer(KEY, 200, "{}");
    let paths = [("live", PathRule::OwnKey), ("site", PathRule::Key)];
    let paths = Paths(paths.map(|(name, rule)| (name.to_owned(), rule)).into());
    let world = world(Config { paths, ..checked(&service, KeyCheckShape::Lookup) }).await;
    assert_eq!(refusal(&world, KEY).await.1, CloseReason::UnknownKey.text());
    assert!(service.asked().is_empty());
    let site = format!("rtmp://{}/site/{KEY}", world.node.rtmp_addr());
    assert!(Pusher::publish(&site, 0).await.is_ok());
}
