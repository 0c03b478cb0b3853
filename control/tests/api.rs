//! The API over HTTP and the claims over the bus, on the embedded backends and on NATS and Redis.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Backends, Control, TOKEN, renewal};
use millrace_buf::ByteChain;
use millrace_bus::{FaultPlan, FaultyBus, JournalConfig, ReaderConfig};
use millrace_store::{FaultyStore, Meta, StoreFaults, list_all};
use millrace_wire::close_reason::CloseReason;
use millrace_wire::ids::{Generation, SessionId, StreamId};
use millrace_wire::message::control::{ClaimReply, LeaseReply, LifecycleKind, RenewRequest, SealReport};
use millrace_wire::topics;
use reqwest::{Method, StatusCode};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// Bound of a failure: the tests wait for conditions, not for this time.
const LIMIT: Duration = Duration::from_secs(20);
/// Time in which an event that is in the journal is read.
const QUIET: Duration = Duration::from_millis(500);

async fn create_to_delete(backends: &Backends) {
    let control = Control::start(backends).await;
    let created = control.create(json!({"title": " Match ", "scheduled_at": "2030-01-01T10:00:00Z"})).await;
    let id = created["id"].as_str().unwrap();
    let key = created["stream_key"].as_str().unwrap();
    assert_eq!((created["title"].as_str(), created["status"].as_str()), (Some("Match"), Some("scheduled")));
    let playback = created["playback_id"].as_str().unwrap();
    assert!(created["hls_url"].as_str().unwrap().ends_with(&format!("/live/{playback}/index.m3u8")));
    assert!(created["rtmp_url"].as_str().unwrap().starts_with("rtmp://127.0.0.1:"));

    let (status, one) = control.call(Method::GET, &format!("/api/v1/livestreams/{id}"), None).await;
    assert_eq!(status, StatusCode::OK);
    assert!(one.get("stream_key").is_none(), "the key is shown once");
    assert!(one["hls_url"].is_null(), "nothing is playable yet");
    for _ in 0..2 {
        let (status, ready) = control.post(id, "start").await;
        assert_eq!((status, ready["status"].as_str()), (StatusCode::OK, Some("scheduled")));
        assert!(ready["ready_at"].is_string() && ready["started_at"].is_null() && ready["hls_url"].is_null());
    }

    let ClaimReply::Granted(grant) = control.claim(key, 1).await else { panic!("granted") };
    assert!(grant.first_msn.0 > 1_700_000_000 && grant.epoch.0 > 1_700_000_000_000);
    let status = control.status(id).await;
    assert_eq!((status["status"].as_str(), status["health"]["state"].as_str()), (Some("live"), Some("ok")));
    assert_eq!(status["viewer_count"], 0);
    let (_, live) = control.call(Method::GET, &format!("/api/v1/livestreams/{id}"), None).await;
    assert_eq!(live["hls_url"], created["hls_url"]);
    assert_eq!(control.post(id, "start").await.0, StatusCode::OK, "it is live already");

    // The operator's stop kicks the session, and its reconnect is refused.
    let mut kicks = control.link.subscribe(&topics::kick(SessionId::from_u128(1)), 8).await.unwrap();
    assert_eq!(control.post(id, "stop").await.0, StatusCode::OK);
    let kick = tokio::time::timeout(LIMIT, kicks.recv()).await.unwrap().unwrap();
    assert_eq!(kick.reason, CloseReason::Stopped);
    assert_eq!(control.claim(key, 2).await, ClaimReply::Refused { reason: CloseReason::StreamEnded });
    assert_eq!(control.post(id, "stop").await.0, StatusCode::CONFLICT);
    assert_eq!(control.post(id, "start").await.0, StatusCode::CONFLICT);
    assert_eq!(control.post(id, "archive").await.0, StatusCode::OK);
    let path = format!("/api/v1/livestreams/{id}");
    assert_eq!(control.call(Method::DELETE, &path, None).await.0, StatusCode::NO_CONTENT);
    assert_eq!(control.call(Method::GET, &path, None).await.0, StatusCode::NOT_FOUND);
    assert_eq!(control.claim(key, 3).await, ClaimReply::Refused { reason: CloseReason::RevokedKey });
    control.node.drain().await;
    let broadcast = grant.broadcast;
    let expected = [
        LifecycleKind::Created,
        LifecycleKind::Readied,
        LifecycleKind::Started { broadcast },
        LifecycleKind::Ended { broadcast },
        LifecycleKind::PublishRefused {
            code: "stream_ended".to_owned(),
            text: CloseReason::StreamEnded.text().to_owned(),
            protocol: "rtmp".to_owned(),
        },
        LifecycleKind::Archived,
        LifecycleKind::Deleted,
    ];
    assert_eq!(events(backends, grant.stream).await, expected, "the journal keeps events without a reader");
}

/// Returns the lifecycle events of a stream in the journal.
async fn events(backends: &Backends, stream: StreamId) -> Vec<LifecycleKind> {
    let reader = ReaderConfig::new("test", topics::events(stream).into_subject());
    backends.bus.journal_reader(topics::EVENTS_STREAM, &reader).await.unwrap();
    let mut events = Vec::new();
    while let Some(fact) = backends.bus.journal_next(topics::EVENTS_STREAM, "test", QUIET).await.unwrap() {
        fact.ack().await.unwrap();
        events.push(topics::events(stream).decode(&fact.payload).unwrap());
    }
    let sequences: Vec<u64> = events.iter().map(|event| event.sequence).collect();
    assert_eq!(sequences, (1..=events.len() as u64).collect::<Vec<_>>(), "numbered in order, without a hole");
    events.into_iter().map(|event| event.kind).collect()
}

async fn two_controls_one_key(backends: &Backends) {
    let (a, b) = (Control::start(backends).await, Control::start(backends).await);
    let created = a.create(json!({"title": "Race", "takeover": "refuse"})).await;
    let key = created["stream_key"].as_str().unwrap();
    let claims = (10..26).map(|session| a.claim(key, session));
    let replies = futures_join(claims).await;
    let granted = replies.iter().filter(|reply| matches!(reply, ClaimReply::Granted(_))).count();
    assert_eq!(granted, 1, "{replies:?}");
    let refused = ClaimReply::Refused { reason: CloseReason::AlreadyLive };
    assert_eq!(replies.iter().filter(|reply| **reply == refused).count(), 15, "{replies:?}");
    b.node.drain().await;
    a.node.drain().await;
}

async fn futures_join<T: Send + 'static>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut all: Vec<_> = futures.map(Box::pin).collect();
    let mut done: Vec<Option<T>> = all.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, slot) in all.iter_mut().zip(&mut done) {
            if slot.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(context)
            {
                *slot = Some(value);
            }
        }
        if done.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn livestream_goes_from_create_to_delete_embedded() {
    create_to_delete(&Backends::embedded().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn livestream_goes_from_create_to_delete_on_nats_and_redis() {
    create_to_delete(&Backends::real().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_controls_grant_one_key_once_embedded() {
    two_controls_one_key(&Backends::embedded().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_controls_grant_one_key_once_on_nats_and_redis() {
    two_controls_one_key(&Backends::real().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claim_of_a_second_publisher_supersedes_and_kicks_the_first() {
    let backends = Backends::embedded().await;
    let control = Control::start(&backends).await;
    let created = control.create(json!({"title": "Takeover"})).await;
    let key = created["stream_key"].as_str().unwrap();
    let mut kicks = control.link.subscribe(&topics::kick(SessionId::from_u128(1)), 8).await.unwrap();
    let ClaimReply::Granted(first) = control.claim(key, 1).await else { panic!("granted") };
    let held = control.ask_for_claim(key, 2).await;
    assert!(matches!(held, ClaimReply::Held { stream, .. } if stream == first.stream), "{held:?}");
    assert_eq!(
        control.ask(topics::renew(), &renewal(&first, 1)).await,
        LeaseReply::Ok,
        "nothing has changed"
    );
    assert!(tokio::time::timeout(Duration::from_millis(50), kicks.recv()).await.is_err());
    let ClaimReply::Granted(second) = control.claim(key, 2).await else { panic!("granted") };
    assert!(second.epoch > first.epoch && second.first_msn > first.first_msn && second.continues);
    assert_eq!(second.broadcast, first.broadcast);
    assert!(tokio::time::timeout(LIMIT, kicks.recv()).await.unwrap().is_some());
    let renew = RenewRequest {
        stream: first.stream,
        session: SessionId::from_u128(1),
        epoch: first.epoch,
        open_msn: None,
        discontinuity_sequence: first.discontinuity_sequence,
        degraded: None,
        notes: Vec::new(),
        ladder: None,
    };
    let reply = control.ask(topics::renew(), &renew).await;
    assert_eq!(reply, LeaseReply::Superseded { reason: CloseReason::TakenOver });
    let degraded = RenewRequest {
        session: SessionId::from_u128(2),
        epoch: second.epoch,
        degraded: Some(millrace_wire::message::announce::Degraded::NoCapacity),
        ..renew
    };
    assert_eq!(control.ask(topics::renew(), &degraded).await, LeaseReply::Ok);
    let status = control.status(created["id"].as_str().unwrap()).await;
    assert_eq!(status["health"]["message"], "degraded: no capacity");
    control.node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn renewal_of_a_sealed_epoch_is_superseded() {
    let backends = Backends::embedded().await;
    let control = Control::start(&backends).await;
    let created = control.create(json!({"title": "Sealed"})).await;
    let key = created["stream_key"].as_str().unwrap();
    let ClaimReply::Granted(grant) = control.claim(key, 1).await else { panic!("granted") };
    let report = SealReport {
        stream: grant.stream,
        epoch: grant.epoch,
        generation: Generation(1),
        last: Some(grant.first_msn),
        discontinuity_sequence: grant.discontinuity_sequence,
        ended: false,
    };
    assert_eq!(control.ask(topics::sealed(), &report).await, LeaseReply::Ok);
    let renew = RenewRequest {
        stream: grant.stream,
        session: SessionId::from_u128(1),
        epoch: grant.epoch,
        open_msn: Some(grant.first_msn.next()),
        discontinuity_sequence: grant.discontinuity_sequence,
        degraded: None,
        notes: Vec::new(),
        ladder: None,
    };
    let reply = control.ask(topics::renew(), &renew).await;
    assert_eq!(reply, LeaseReply::Superseded { reason: CloseReason::ConnectionLost });
    let ClaimReply::Granted(next) = control.claim(key, 2).await else { panic!("granted") };
    assert_eq!(next.first_msn, grant.first_msn.plus(2), "the sealed number is not trusted alone");
    control.node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_key_revokes_the_old_key_and_kicks_its_publisher() {
    let backends = Backends::embedded().await;
    let control = Control::start(&backends).await;
    let created = control.create(json!({"title": "Rotate"})).await;
    let (id, old) = (created["id"].as_str().unwrap(), created["stream_key"].as_str().unwrap());
    let mut kicks = control.link.subscribe(&topics::kick(SessionId::from_u128(1)), 8).await.unwrap();
    assert!(matches!(control.claim(old, 1).await, ClaimReply::Granted(_)));
    let (status, rotated) = control.post(id, "rotate-key").await;
    assert_eq!(status, StatusCode::OK);
    let new = rotated["stream_key"].as_str().unwrap();
    assert_ne!(new, old);
    assert!(tokio::time::timeout(LIMIT, kicks.recv()).await.unwrap().is_some());
    assert_eq!(control.claim(old, 2).await, ClaimReply::Refused { reason: CloseReason::RevokedKey });
    assert!(matches!(control.claim(new, 3).await, ClaimReply::Granted(_)));
    let unknown = control.claim("000102030405060708090a0b0c0d0e0f", 4).await;
    assert_eq!(unknown, ClaimReply::Refused { reason: CloseReason::UnknownKey });
    control.node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restart_keeps_livestreams_and_claims() {
    let mut backends = Backends::embedded().await;
    let control = Control::start(&backends).await;
    let created = control.create(json!({"title": "Durable"})).await;
    let key = created["stream_key"].as_str().unwrap();
    let ClaimReply::Granted(first) = control.claim(key, 1).await else { panic!("granted") };
    control.node.drain().await;
    backends.reopen().await;
    let control = Control::start(&backends).await;
    let status = control.status(created["id"].as_str().unwrap()).await;
    assert_eq!(status["status"], "live");
    let ClaimReply::Granted(again) = control.claim(key, 1).await else { panic!("granted") };
    assert_eq!(again, first, "the same session is given the same epoch");
    control.node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reconciler_ends_a_stream_whose_publisher_stays_away() {
    let backends = Backends::embedded().await;
    let control = Control::start(&backends).await;
    let created = control.create(json!({"title": "Gone", "reconnect_window_s": 0})).await;
    let id = created["id"].as_str().unwrap();
    assert!(matches!(
        control.claim(created["stream_key"].as_str().unwrap(), 1).await,
        ClaimReply::Granted(_)
    ));
    millrace_testkit::wait::until(LIMIT, async || control.status(id).await["status"] == "ended").await;
    control.node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn purge_deletes_the_objects_of_a_deleted_stream_after_a_store_outage() {
    let mut backends = Backends::embedded().await;
    let faulty = Arc::new(FaultyStore::new(backends.store.clone(), 1));
    let store = std::mem::replace(&mut backends.store, faulty.clone());
    let control = Control::start(&backends).await;
    let mut prefixes = Vec::new();
    for title in ["Goes", "Stays"] {
        let created = control.create(json!({"title": title})).await;
        let prefix = format!("live/{}/", created["playback_id"].as_str().unwrap());
        for n in 0..3 {
            let key = format!("{prefix}video/1/{n}.1.m4s");
            store.put(&key, ByteChain::from("media"), Meta::default()).await.unwrap();
        }
        prefixes.push((created["id"].as_str().unwrap().to_owned(), prefix));
    }
    let (id, gone) = &prefixes[0];
    let count = async |prefix: &str| list_all(&*store, prefix, 10).await.unwrap().len();
    // The object store is away: the livestream is deleted all the same, and its objects after a restart of control.
    faulty.set(StoreFaults { away: true, ..StoreFaults::default() });
    let path = format!("/api/v1/livestreams/{id}");
    assert_eq!(control.call(Method::DELETE, &path, None).await.0, StatusCode::NO_CONTENT);
    assert_eq!(count(gone).await, 3);
    control.node.drain().await;
    faulty.set(StoreFaults::default());
    let control = Control::start(&backends).await;
    millrace_testkit::wait::until(LIMIT, async || count(gone).await == 0).await;
    assert_eq!(count(&prefixes[1].1).await, 3, "another stream's objects stay");
    // With the object store present, objects are deleted at once.
    let path = format!("/api/v1/livestreams/{}", prefixes[1].0);
    assert_eq!(control.call(Method::DELETE, &path, None).await.0, StatusCode::NO_CONTENT);
    millrace_testkit::wait::until(LIMIT, async || count(&prefixes[1].1).await == 0).await;
    control.node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn list_pages_and_filters_livestreams() {
    let control = Control::start(&Backends::embedded().await).await;
    let mut ids = Vec::new();
    for n in 0..5 {
        let created = control.create(json!({"title": format!("Stream {n}")})).await;
        ids.push(created["id"].as_str().unwrap().to_owned());
        if n == 1 {
            let reply = control.claim(created["stream_key"].as_str().unwrap(), 1).await;
            assert!(matches!(reply, ClaimReply::Granted(_)), "{reply:?}");
        }
    }
    control.post(&ids[2], "cancel").await;
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let (_, page) =
            control.call(Method::GET, &format!("/api/v1/livestreams?limit=2{cursor}"), None).await;
        let list = page["livestreams"].as_array().unwrap();
        seen.extend(list.iter().map(|one| one["id"].as_str().unwrap().to_owned()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        assert_eq!(list.len(), 2);
        cursor = format!("&cursor={next}");
    }
    seen.sort();
    ids.sort();
    assert_eq!(seen, ids);
    let count = async |query: &str| {
        let (_, page) = control.call(Method::GET, &format!("/api/v1/livestreams?{query}"), None).await;
        page["livestreams"].as_array().unwrap().len()
    };
    assert_eq!((count("active").await, count("upcoming=true").await, count("active=false").await), (1, 3, 5));
    control.node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_error_of_the_api_is_a_problem_document() {
    let control = Control::start(&Backends::embedded().await).await;
    let base = "/api/v1/livestreams";
    let big = format!("{{\"title\": \"{}\"}}", "x".repeat(70_000));
    let ladder = r#"{"title": "A", "ladder": [{"height": 720, "bitrate": 1}]}"#;
    for (method, path, token, body, expected) in [
        (Method::GET, "/nothing", None, None, 404),
        (Method::GET, "/api/v1/nothing", Some(TOKEN), None, 404),
        (Method::POST, base, None, None, 401),
        (Method::GET, base, Some("wrong-token-wrong-token"), None, 401),
        (Method::PUT, base, Some(TOKEN), None, 405),
        (Method::GET, "/api/v1/livestreams/x/stop", Some(TOKEN), None, 405),
        (Method::POST, "/", None, None, 405),
        (Method::POST, base, Some(TOKEN), Some("{"), 400),
        (Method::POST, base, Some(TOKEN), Some("{}"), 422),
        (Method::POST, base, Some(TOKEN), Some(r#"{"title": "A", "titel": "B"}"#), 422),
        (Method::POST, base, Some(TOKEN), Some(ladder), 422),
        (Method::POST, base, Some(TOKEN), Some(big.as_str()), 413),
        (Method::GET, "/api/v1/livestreams?limit=0", Some(TOKEN), None, 400),
        (Method::GET, "/api/v1/livestreams?limt=1", Some(TOKEN), None, 400),
        (Method::GET, "/api/v1/livestreams/not-an-id", Some(TOKEN), None, 404),
        (Method::GET, "/api/v1/livestreams/01ARZ3NDEKTSV4RRFFQ69G5FAV", Some(TOKEN), None, 404),
    ] {
        let name = format!("{method} {path}");
        let answer = control.raw(method, path, token, body).await;
        assert_eq!(answer.status().as_u16(), expected, "{name}");
        let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
        assert_eq!(kind, "application/problem+json", "{name}");
        if expected == 401 {
            assert!(answer.headers().contains_key("www-authenticate"), "{name}");
        }
        if expected == 405 {
            assert!(answer.headers().contains_key("allow"), "{name}");
        }
        let problem: serde_json::Value = answer.json().await.unwrap();
        assert_eq!(problem["status"], expected, "{name}");
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{name}");
    }
    control.node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dashboard_and_openapi_need_no_token() {
    let control = Control::start(&Backends::embedded().await).await;
    for (path, kind) in [("/", "text/html; charset=utf-8"), ("/api/openapi.json", "application/json")] {
        let answer = control.raw(Method::GET, path, None, None).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["content-type"], kind);
    }
    let description = control.raw(Method::GET, "/api/openapi.json", None, None).await;
    let description: serde_json::Value = description.json().await.unwrap();
    assert!(description["paths"]["/api/v1/livestreams/{id}/rotate-key"]["post"].is_object());
    millrace_testkit::wait::until(LIMIT, async || {
        control.raw(Method::GET, "/readyz", None, None).await.status() == StatusCode::OK
    })
    .await;
    let metrics = control.raw(Method::GET, "/metrics", None, None).await.text().await.unwrap();
    assert!(metrics.contains("millrace_control_"), "{metrics}");
    control.node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_relays_every_event_that_its_writer_could_not_relay() {
    let mut backends = Backends::embedded().await;
    let bus = backends.bus.clone();
    let faulty = FaultyBus::new(bus.clone(), 1);
    faulty.set(FaultPlan { subject_prefix: "events.".into(), fail: 1.0, ..FaultPlan::default() });
    backends.bus = Arc::new(faulty);
    let first = Control::start(&backends).await;
    let created = first.create(json!({"title": "Unsaid"})).await;
    let ClaimReply::Granted(grant) = first.claim(created["stream_key"].as_str().unwrap(), 1).await else {
        panic!("granted")
    };
    first.node.drain().await;

    backends.bus = bus;
    let second = Control::start(&backends).await;
    let reader = ReaderConfig::new("test", topics::events(grant.stream).into_subject());
    backends
        .bus
        .journal_declare(&JournalConfig::new(topics::EVENTS_STREAM, topics::EVENTS_SUBJECTS))
        .await
        .unwrap();
    backends.bus.journal_reader(topics::EVENTS_STREAM, &reader).await.unwrap();
    let broadcast = grant.broadcast;
    for expected in [LifecycleKind::Created, LifecycleKind::Started { broadcast }] {
        let next = backends.bus.journal_next(topics::EVENTS_STREAM, "test", LIMIT).await.unwrap();
        let fact = next.expect("every event is relayed, also those before the newest");
        fact.ack().await.unwrap();
        assert_eq!(topics::events(grant.stream).decode(&fact.payload).unwrap().kind, expected);
    }
    second.node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_lists_a_node_as_silent_after_its_last_answer() {
    let backends = Backends::embedded().await;
    let control = Control::start(&backends).await;
    let other = Control::start(&backends).await;
    let nodes = async || {
        let (status, list) = control.call(Method::GET, "/api/v1/nodes", None).await;
        assert_eq!(status, StatusCode::OK, "{list}");
        list["nodes"].as_array().unwrap().clone()
    };
    let listed = nodes().await;
    assert_eq!(listed.len(), 2, "{listed:?}");
    for node in &listed {
        assert_eq!((node["role"].as_str(), node["last_answer_s"].as_u64()), (Some("control"), Some(0)));
        assert!(node["actors"].as_u64().unwrap() >= 8, "{node}");
        let path = format!("/api/v1/nodes/{}", node["id"].as_str().unwrap());
        let (status, details) = control.call(Method::GET, &path, None).await;
        assert_eq!(status, StatusCode::OK, "{details}");
        let actors = details["actor_list"].as_array().unwrap();
        assert_eq!(actors.len() as u64, node["actors"].as_u64().unwrap());
        for kind in ["reconciler", "retention", "purge", "probe", "bus_service", "report"] {
            assert!(actors.iter().any(|actor| actor["kind"] == kind), "{kind}: {details}");
        }
    }
    // The other node stops without a drain of its process, as a crash does.
    other.node.drain().await;
    let listed = nodes().await;
    let states: Vec<_> = listed.iter().map(|node| node["state"].as_str().unwrap()).collect();
    assert_eq!(states.iter().filter(|state| **state == "silent").count(), 1, "{states:?}");
    let silent = listed.iter().find(|node| node["state"] == "silent").unwrap();
    let path = format!("/api/v1/nodes/{}", silent["id"].as_str().unwrap());
    let (status, details) = control.call(Method::GET, &path, None).await;
    assert_eq!((status, details["state"].as_str()), (StatusCode::OK, Some("silent")));
    let (status, _) = control.call(Method::GET, "/api/v1/nodes/no-such-node", None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    control.node.drain().await;
}
