//! Publishers that are refused or closed: their livestream stays as it was, and its status tells the reason.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Backends, Control, granted, release, renewal};
use millrace_bus::ReaderConfig;
use millrace_state::{FaultyState, StateFaults};
use millrace_wire::close_reason::CloseReason;
use millrace_wire::ids::{KeyHash, SessionId};
use millrace_wire::message::announce::EpochPhase;
use millrace_wire::message::control::{
    ClaimGrant, ClaimReply, HealthNote, LeaseReply, LifecycleKind, RefusalReport, ReleaseRequest,
    RenewRequest,
};
use millrace_wire::topics;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Bound of a failure: the tests wait for conditions, not for this time.
const LIMIT: Duration = Duration::from_secs(20);
/// Time in which an event that is in the journal is read.
const QUIET: Duration = Duration::from_millis(300);

/// A publisher that renews every 500 ms until the task is aborted, whether it is answered or not.
fn renewing(control: &Control, grant: &ClaimGrant, session: u128) -> tokio::task::JoinHandle<()> {
    let (link, request) = (control.link.clone(), renewal(grant, session));
    tokio::spawn(async move {
        loop {
            let asked = link.request(&topics::renew(), &request, Duration::from_millis(500)).await;
            assert!(!matches!(asked, Ok(LeaseReply::Superseded { .. })), "the session is ended");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    })
}

/// Longer than a lease and than the leader's.
const OUTAGE: Duration = Duration::from_secs(7);

#[tokio::test(flavor = "multi_thread")]
async fn publisher_that_goes_on_through_an_outage_of_the_state_store_never_counts_as_away() {
    let mut backends = Backends::embedded().await;
    let faulty = FaultyState::new(backends.state.clone().unwrap(), 1);
    backends.state = Some(Arc::new(faulty.clone()));
    let control = Control::start(&backends).await;
    let created = control.create(json!({"title": "Match"})).await;
    let (id, key) = (created["id"].as_str().unwrap(), created["stream_key"].as_str().unwrap());
    let grant = granted(control.claim(key, 1).await);
    let session = renewing(&control, &grant, 1);
    let topic = topics::epoch(grant.stream);
    let mut epochs = control.link.subscribe(&topic, 256).await.unwrap();
    faulty.set(StateFaults { away: true, ..StateFaults::default() });
    tokio::time::sleep(OUTAGE).await;
    faulty.set(StateFaults::default());
    // What was due in the outage would be announced by a leader that has had the time of two leases.
    let watched = tokio::time::timeout(OUTAGE, async {
        while let Some(announced) = epochs.recv().await {
            assert_eq!(announced.phase, EpochPhase::Open);
        }
    });
    assert!(watched.await.is_err(), "the bus is open");
    let status = control.status(id).await;
    assert_eq!((&status["health"]["state"], &status["last_disconnect"]), (&json!("ok"), &Value::Null));
    assert!(!session.is_finished(), "the session goes on");
    session.abort();
}

/// Waits until the health of a livestream has the note `state`, or has it no more.
async fn until_state_note(control: &Control, id: &str, wanted: bool) -> Value {
    millrace_testkit::wait::some(LIMIT, async || {
        let status = control.status(id).await;
        let notes = status["health"]["notes"].as_array()?;
        (notes.iter().any(|note| note["code"] == "state") == wanted).then_some(status)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn state_store_that_takes_no_changes_is_told_everywhere_and_a_running_publish_goes_on() {
    let mut backends = Backends::embedded().await;
    let faulty = FaultyState::new(backends.state.clone().unwrap(), 1);
    backends.state = Some(Arc::new(faulty.clone()));
    let control = Control::start(&backends).await;
    let created = control.create(json!({"title": "Match"})).await;
    let (id, key) = (created["id"].as_str().unwrap(), created["stream_key"].as_str().unwrap());
    let grant = granted(control.claim(key, 1).await);
    let session = renewing(&control, &grant, 1);

    faulty.set(StateFaults { full: true, ..StateFaults::default() });
    let status = until_state_note(&control, id, true).await;
    let message = status["health"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("degraded: state store takes no changes: No space left on device"),
        "{message}"
    );
    let (code, problem) =
        control.call(Method::POST, "/api/v1/livestreams", Some(json!({"title": "Another"}))).await;
    assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
    assert!(problem["detail"].as_str().unwrap().contains("No space left on device"), "{problem}");
    let (code, ready) = control.call(Method::GET, "/readyz", None).await;
    assert_eq!((code, &ready["ready"]), (StatusCode::OK, &json!(true)), "what runs goes on");
    assert_eq!(ready["degraded"][0]["name"], "state");
    // The leader goes on to announce the epochs that are stored.
    let mut epochs = control.link.subscribe(&topics::epoch(grant.stream), 8).await.unwrap();
    for _ in 0..3 {
        let announced = tokio::time::timeout(LIMIT, epochs.recv()).await.unwrap().unwrap();
        assert_eq!((announced.epoch, announced.phase), (grant.epoch, EpochPhase::Open));
    }

    faulty.set(StateFaults::default());
    until_state_note(&control, id, false).await;
    control.create(json!({"title": "Another"})).await;
    assert_eq!(control.status(id).await["last_disconnect"], Value::Null);
    assert!(!session.is_finished(), "the session goes on");
    session.abort();
}

async fn show(control: &Control, id: &str) -> Value {
    let (status, shown) = control.call(Method::GET, &format!("/api/v1/livestreams/{id}"), None).await;
    assert_eq!(status, StatusCode::OK);
    shown
}

async fn refused_publish(backends: &Backends) {
    let control = Control::start(backends).await;
    let created = control.create(json!({"title": "Match", "reconnect_window_s": 0})).await;
    let (id, key) = (created["id"].as_str().unwrap(), created["stream_key"].as_str().unwrap());
    let before = show(&control, id).await;
    let text = "video message 1 at 0.000 s: HEVC (hvc1) is not accepted: choose H.264 in the encoder";
    for session in 1..=3 {
        let grant = granted(control.claim_without_media(key, session).await);
        assert!(!grant.continues);
        let connected = control.status(id).await;
        assert_eq!(connected["status"], "scheduled", "a connection without media makes nothing live");
        assert_eq!(connected["health"]["state"], "waiting_for_media");
        let request = release(&grant, session, CloseReason::CodecNotAccepted, text);
        assert_eq!(control.ask(topics::release(), &request).await, LeaseReply::Ok);
        // The answer to a release may be lost: the request is repeated.
        assert_eq!(control.ask(topics::release(), &request).await, LeaseReply::Ok);
        assert_eq!(show(&control, id).await, before);
    }
    let status = control.status(id).await;
    assert_eq!(status["health"]["state"], "waiting_for_publisher");
    assert!(status["health"]["message"].as_str().unwrap().contains(text), "{status}");
    let last = &status["last_disconnect"];
    assert_eq!((last["code"].as_str(), last["text"].as_str()), (Some("codec_not_accepted"), Some(text)));
    assert_eq!((last["protocol"].as_str(), last["addr"].as_str()), (Some("rtmp"), Some("127.0.0.1")));
    assert!(last["at"].is_string() && last["refused"] == false);
    // The same key goes live with usable media.
    let grant = granted(control.claim(key, 9).await);
    assert_eq!(control.status(id).await["status"], "live");
    assert_eq!(control.status(id).await["health"]["state"], "ok");
    control.node.drain().await;
    let reader = ReaderConfig::new("test", topics::events(grant.stream).into_subject());
    backends.bus.journal_reader(topics::EVENTS_STREAM, &reader).await.unwrap();
    let mut events = 0;
    while let Some(fact) = backends.bus.journal_next(topics::EVENTS_STREAM, "test", QUIET).await.unwrap() {
        fact.ack().await.unwrap();
        let kind = topics::events(grant.stream).decode(&fact.payload).unwrap().kind;
        events += usize::from(matches!(kind, LifecycleKind::Started { .. }));
    }
    assert_eq!(events, 1, "only the publish with media started a broadcast");
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_publish_leaves_its_livestream_as_it_was_embedded() {
    refused_publish(&Backends::embedded().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_publish_leaves_its_livestream_as_it_was_on_nats_and_redis() {
    refused_publish(&Backends::real().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn publisher_that_vanishes_before_its_media_leaves_the_livestream_scheduled() {
    let backends = Backends::embedded().await;
    let control = Control::start(&backends).await;
    let created = control.create(json!({"title": "Vanished", "reconnect_window_s": 0})).await;
    let (id, key) = (created["id"].as_str().unwrap(), created["stream_key"].as_str().unwrap());
    granted(control.claim_without_media(key, 1).await);
    millrace_testkit::wait::until(LIMIT, async || {
        let status = control.status(id).await;
        assert_eq!(status["status"], "scheduled");
        status["health"]["publisher"].is_null()
    })
    .await;
    let status = control.status(id).await;
    assert_eq!(status["last_disconnect"]["code"], "connection_lost");
    granted(control.claim(key, 2).await);
    assert_eq!(control.status(id).await["status"], "live");
    control.node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_tells_refusals_of_control_and_of_an_ingest_node() {
    let control = Control::start(&Backends::embedded().await).await;
    let created = control.create(json!({"title": "Refused"})).await;
    let (id, key) = (created["id"].as_str().unwrap(), created["stream_key"].as_str().unwrap());
    assert!(control.status(id).await["last_disconnect"].is_null());
    let report = RefusalReport {
        key_hash: KeyHash::of(control.secret(), &key.parse().unwrap()),
        node: "ingest-1".parse().unwrap(),
        addr: Some([192, 0, 2, 7].into()),
        protocol: "rtmps".to_owned(),
        reason: CloseReason::Draining,
        text: String::new(),
    };
    assert_eq!(control.ask(topics::refused(), &report).await, LeaseReply::Ok);
    let last = control.status(id).await["last_disconnect"].clone();
    assert_eq!((last["code"].as_str(), last["addr"].as_str()), (Some("draining"), Some("192.0.2.7")));
    assert_eq!((last["refused"].as_bool(), last["protocol"].as_str()), (Some(true), Some("rtmps")));
    // A key that belongs to no livestream changes nothing.
    let unknown = RefusalReport { key_hash: KeyHash::of(b"x", &key.parse().unwrap()), ..report };
    assert_eq!(control.ask(topics::refused(), &unknown).await, LeaseReply::Ok);

    granted(control.claim(key, 1).await);
    assert_eq!(control.post(id, "stop").await.0, StatusCode::OK);
    assert_eq!(control.status(id).await["last_disconnect"]["code"], "stopped");
    assert!(matches!(control.claim(key, 2).await, ClaimReply::Refused { .. }));
    let status = control.status(id).await;
    assert_eq!(status["last_disconnect"]["code"], "stream_ended");
    assert!(status["health"]["message"].as_str().unwrap().contains("reopen it"), "{status}");
    control.node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_tells_the_notes_of_a_publish_and_why_its_publisher_is_away() {
    let control = Control::start(&Backends::embedded().await).await;
    let created = control.create(json!({"title": "Notes"})).await;
    let (id, key) = (created["id"].as_str().unwrap(), created["stream_key"].as_str().unwrap());
    let grant = granted(control.claim(key, 1).await);
    let text = "No usable picture for 5 s: the encoder sends no sequence header.";
    let notes = vec![HealthNote::new("no_usable_picture", text), HealthNote::new("audio_hole", "Holes.")];
    let request = RenewRequest { open_msn: Some(grant.first_msn), notes, ..renewal(&grant, 1) };
    assert_eq!(control.ask(topics::renew(), &request).await, LeaseReply::Ok);
    let health = control.status(id).await["health"].clone();
    assert_eq!(health["state"], "degraded");
    assert_eq!(health["message"], format!("degraded: {text}"));
    assert_eq!(health["notes"][0], json!({"code": "no_usable_picture", "text": text}));
    assert_eq!(health["notes"][1]["code"], "audio_hole");
    let request = RenewRequest { open_msn: Some(grant.first_msn), ..renewal(&grant, 1) };
    assert_eq!(control.ask(topics::renew(), &request).await, LeaseReply::Ok);
    assert_eq!(control.status(id).await["health"]["state"], "ok");
    let request = ReleaseRequest {
        open_msn: Some(grant.first_msn),
        ..release(&grant, 1, CloseReason::Idle, "no media for 15 s")
    };
    assert_eq!(control.ask(topics::release(), &request).await, LeaseReply::Ok);
    let health = control.status(id).await["health"].clone();
    assert_eq!(health["state"], "reconnecting");
    let message = health["message"].as_str().unwrap();
    assert!(
        message.contains("the publisher is away") && message.ends_with(": no media for 15 s"),
        "{message}"
    );
    control.node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_and_delete_kick_a_publisher_whose_media_have_not_come() {
    let control = Control::start(&Backends::embedded().await).await;
    for (session, delete) in [(21, false), (22, true)] {
        let created = control.create(json!({"title": "Waiting"})).await;
        let (id, key) = (created["id"].as_str().unwrap(), created["stream_key"].as_str().unwrap());
        let kick = topics::kick(SessionId::from_u128(session));
        let mut kicks = control.link.subscribe(&kick, 8).await.unwrap();
        let grant = granted(control.claim_without_media(key, session).await);
        let expected = if delete {
            let path = format!("/api/v1/livestreams/{id}");
            assert_eq!(control.call(Method::DELETE, &path, None).await.0, StatusCode::NO_CONTENT);
            CloseReason::RevokedKey
        } else {
            assert_eq!(control.post(id, "cancel").await.0, StatusCode::OK);
            // The kick may be lost: its first media are refused all the same.
            let media = RenewRequest { open_msn: Some(grant.first_msn), ..renewal(&grant, session) };
            let refused = LeaseReply::Superseded { reason: CloseReason::StreamEnded };
            assert_eq!(control.ask(topics::renew(), &media).await, refused);
            CloseReason::StreamEnded
        };
        let kick = tokio::time::timeout(LIMIT, kicks.recv()).await.unwrap().unwrap();
        assert_eq!(kick.reason, expected);
    }
    control.node.drain().await;
}
