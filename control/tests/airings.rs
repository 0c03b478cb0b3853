//! Livestreams that air again, their keys, and changes that name the version they write over, through the API and the bus.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::{Backends, Control, TOKEN, granted};
use millrace_state::{StateStore, scan_all};
use millrace_wire::close_reason::CloseReason;
use millrace_wire::ids::{Generation, SessionId};
use millrace_wire::message::control::{ClaimGrant, ClaimReply, LeaseReply, ReleaseRequest, SealReport};
use millrace_wire::{state_keys, topics};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// Bound of a failure: the tests wait for conditions, not for this time.
const LIMIT: Duration = Duration::from_secs(30);
/// Controls of the hammer test.
const CONTROLS: usize = 3;
/// Clients that change one livestream at once, and the number of changes that each of them makes.
const CLIENTS: usize = 6;
const CHANGES: usize = 5;

async fn get(control: &Control, path: &str) -> Value {
    let (status, body) = control.call(Method::GET, &format!("/api/v1/livestreams/{path}"), None).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    body
}

async fn patch(control: &Control, id: &str, body: Value) -> (StatusCode, Value) {
    control.call(Method::PATCH, &format!("/api/v1/livestreams/{id}"), Some(body)).await
}

/// Reports the end of a grant's log, as its writer does.
async fn report_end(control: &Control, grant: &ClaimGrant) {
    let report = SealReport {
        stream: grant.stream,
        epoch: grant.epoch,
        generation: Generation(1),
        last: Some(grant.first_msn.plus(3)),
        discontinuity_sequence: grant.discontinuity_sequence,
        ended: true,
    };
    let _: LeaseReply = control.ask(topics::sealed(), &report).await;
}

fn leave(grant: &ClaimGrant, session: u128) -> ReleaseRequest {
    common::release(grant, session, CloseReason::PublisherLeft, "")
}

async fn release(control: &Control, grant: &ClaimGrant, session: u128) {
    let left = leave(grant, session);
    let release = ReleaseRequest { open_msn: Some(grant.first_msn.plus(3)), ..left };
    let _: LeaseReply = control.ask(topics::release(), &release).await;
}

fn refused(reason: CloseReason) -> ClaimReply {
    ClaimReply::Refused { reason }
}

fn assert_follows(next: &ClaimGrant, last: &ClaimGrant) {
    assert_ne!(next.broadcast, last.broadcast);
    assert_eq!(next.airing, last.airing.next());
    assert!(next.epoch > last.epoch && !next.continues);
    assert!(next.first_msn.0 > last.first_msn.0 + 4, "above the numbers used, with room for a GAP");
    assert!(next.discontinuity_sequence > last.discontinuity_sequence);
}

#[tokio::test(flavor = "multi_thread")]
async fn reusable_livestream_airs_again_by_itself_and_after_a_stop_only_once_it_is_reopened() {
    let control = Control::start(&Backends::embedded().await).await;
    let body = json!({ "title": "Show", "reusable": true, "reconnect_window_s": 0 });
    let created = control.create(body).await;
    let (id, key) = (created["id"].as_str().unwrap(), created["stream_key"].as_str().unwrap());
    let first = granted(control.claim(key, 1).await);
    release(&control, &first, 1).await;
    let ended = async || (control.status(id).await["status"] == "ended").then_some(());
    millrace_testkit::wait::some(LIMIT, ended).await;
    let between = get(&control, id).await;
    assert!(between["hls_url"].is_null() && between["reusable"] == true, "{between}");
    assert_eq!(control.status(id).await["health"]["state"], "waiting_for_publisher");
    assert_eq!(control.claim(key, 2).await, refused(CloseReason::StillEnding), "ENDLIST is not out yet");
    report_end(&control, &first).await;

    let (status, changed) = patch(&control, id, json!({ "target_duration_s": 6, "title": "Next" })).await;
    assert_eq!(status, StatusCode::OK, "{changed}");
    let second = granted(control.claim(key, 3).await);
    assert_follows(&second, &first);
    assert_eq!(second.settings.target_duration, 6);
    let live = get(&control, id).await;
    assert_eq!((live["status"].as_str(), &live["hls_url"]), (Some("live"), &created["hls_url"]));
    assert!(live["ended_at"].is_null() && live["broadcast_id"] == second.broadcast.to_string());
    let (status, problem) = patch(&control, id, json!({ "target_duration_s": 4 })).await;
    assert_eq!((status, &problem["errors"][0]["field"]), (StatusCode::CONFLICT, &json!("target_duration_s")));

    assert_eq!(control.post(id, "stop").await.0, StatusCode::OK);
    report_end(&control, &second).await;
    assert_eq!(control.claim(key, 3).await, refused(CloseReason::StreamEnded), "its encoder connects again");
    let (status, reopened) = control.post(id, "reopen").await;
    assert_eq!((status, reopened["status"].as_str()), (StatusCode::OK, Some("scheduled")));
    assert!(reopened["started_at"].is_null() && reopened["broadcast_id"].is_null(), "{reopened}");
    assert_eq!(control.post(id, "reopen").await.0, StatusCode::CONFLICT);
    // A publisher without media leaves no trace and takes no number.
    let without = granted(control.claim_without_media(key, 4).await);
    let left = ReleaseRequest { open_msn: None, ..leave(&without, 4) };
    let _: LeaseReply = control.ask(topics::release(), &left).await;
    let third = granted(control.claim(key, 5).await);
    assert_follows(&third, &second);

    let page = get(&control, &format!("{id}/broadcasts?limit=2")).await;
    let rows = page["broadcasts"].as_array().unwrap();
    let seen: Vec<_> = rows.iter().map(|row| (row["number"].as_u64().unwrap(), &row["reason"])).collect();
    assert_eq!(seen, [(3, &Value::Null), (2, &json!("stopped"))]);
    assert!(rows[0]["ended_at"].is_null() && rows[1]["ended_at"].is_string());
    let rest =
        get(&control, &format!("{id}/broadcasts?cursor={}", page["next_cursor"].as_str().unwrap())).await;
    assert_eq!(rest["broadcasts"][0]["reason"], "publisher_left", "{rest}");
    assert_eq!(rest["broadcasts"][0]["id"], first.broadcast.to_string());
    assert_eq!((rest["broadcasts"].as_array().unwrap().len(), &rest["next_cursor"]), (1, &Value::Null));
    control.node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn livestream_that_is_not_reusable_stays_over_until_it_is_reopened() {
    let control = Control::start(&Backends::embedded().await).await;
    let created = control.create(json!({ "title": "Once" })).await;
    let (id, key) = (created["id"].as_str().unwrap(), created["stream_key"].as_str().unwrap());
    assert_eq!(control.post(id, "reopen").await.0, StatusCode::CONFLICT, "it has not been on");
    let first = granted(control.claim(key, 1).await);
    assert_eq!(control.post(id, "reopen").await.0, StatusCode::CONFLICT, "it is on");
    control.post(id, "stop").await;
    report_end(&control, &first).await;
    assert_eq!(patch(&control, id, json!({ "title": "B" })).await.0, StatusCode::CONFLICT);
    assert_eq!(control.claim(key, 2).await, refused(CloseReason::StreamEnded));
    assert_eq!(control.post(id, "reopen").await.0, StatusCode::OK);
    assert_follows(&granted(control.claim(key, 3).await), &first);
    control.post(id, "stop").await;
    assert_eq!(control.post(id, "archive").await.0, StatusCode::OK);
    assert_eq!(control.post(id, "reopen").await.0, StatusCode::CONFLICT);
    control.node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn key_of_higher_priority_takes_over_and_each_refused_key_says_why() {
    let backends = Backends::embedded().await;
    let control = Control::start(&backends).await;
    let created = control.create(json!({ "title": "Keys", "takeover": "refuse" })).await;
    let (id, main) = (created["id"].as_str().unwrap(), created["stream_key"].as_str().unwrap());
    let path = format!("/api/v1/livestreams/{id}/keys");
    let add = async |body: Value| control.call(Method::POST, &path, Some(body)).await;
    let (status, backup) = add(json!({ "name": "backup", "priority": 10 })).await;
    assert_eq!((status, backup["state"].as_str()), (StatusCode::CREATED, Some("active")), "{backup}");
    let spare = backup["stream_key"].as_str().unwrap();
    for bad in [json!({}), json!({ "name": "x", "priority": 101 }), json!({ "name": "x", "key": "y" })] {
        assert_eq!(add(bad.clone()).await.0, StatusCode::UNPROCESSABLE_ENTITY, "{bad}");
    }

    let first = granted(control.claim(spare, 1).await);
    let mut kicks = control.link.subscribe(&topics::kick(SessionId::from_u128(1)), 8).await.unwrap();
    assert!(
        matches!(control.ask_for_claim(main, 2).await, ClaimReply::Held { .. }),
        "it shows its media first"
    );
    let second = granted(control.claim(main, 2).await);
    assert_eq!(second.broadcast, first.broadcast);
    let kick = tokio::time::timeout(LIMIT, kicks.recv()).await.unwrap().unwrap();
    assert_eq!(kick.reason, CloseReason::HigherPriorityLive);
    assert_eq!(control.claim(spare, 3).await, refused(CloseReason::HigherPriorityLive));
    assert_eq!(control.claim(main, 4).await, refused(CloseReason::AlreadyLive), "the setting is for equals");
    // The higher one leaves: the backup goes on with the same broadcast.
    release(&control, &second, 2).await;
    assert_eq!(granted(control.claim(spare, 5).await).broadcast, first.broadcast);

    let mut kicks = control.link.subscribe(&topics::kick(SessionId::from_u128(5)), 8).await.unwrap();
    let one = format!("{path}/{}", backup["id"].as_str().unwrap());
    for _ in 0..2 {
        assert_eq!(control.call(Method::DELETE, &one, None).await.0, StatusCode::NO_CONTENT);
    }
    let kick = tokio::time::timeout(LIMIT, kicks.recv()).await.unwrap().unwrap();
    assert_eq!(kick.reason, CloseReason::RevokedKey);
    assert_eq!(control.claim(spare, 6).await, refused(CloseReason::RevokedKey));
    let absent = format!("{path}/{}", created["id"].as_str().unwrap().replace('0', "1"));
    assert_eq!(control.call(Method::DELETE, &absent, None).await.0, StatusCode::NOT_FOUND);

    let soon = jiff::Timestamp::now().checked_add(jiff::SignedDuration::from_millis(300)).unwrap();
    let (_, short) = add(json!({ "name": "short", "priority": 90, "expires_at": soon.to_string() })).await;
    let short = short["stream_key"].as_str().unwrap();
    let expired = async || (control.claim(short, 7).await == refused(CloseReason::ExpiredKey)).then_some(());
    millrace_testkit::wait::some(LIMIT, expired).await;

    let listed = get(&control, &format!("{id}/keys")).await;
    let seen: Vec<_> = listed["keys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| (key["name"].as_str().unwrap(), key["state"].as_str().unwrap()))
        .collect();
    assert_eq!(seen, [("main", "active"), ("backup", "revoked"), ("short", "expired")]);
    assert!(listed["keys"][0].get("stream_key").is_none());
    let records = scan_all(&**backends.state.as_ref().unwrap(), state_keys::PREFIX, 10_000).await.unwrap();
    for key in [main, spare, short] {
        let holds = |value: &[u8]| value.windows(key.len()).any(|window| window == key.as_bytes());
        assert!(
            !records.iter().any(|record| holds(&record.value) || record.key.contains(key)),
            "a key is stored"
        );
    }
    control.node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn patch_with_if_match_writes_over_the_named_version_alone() {
    let backends = Backends::embedded().await;
    let (a, b) = (Control::start(&backends).await, Control::start(&backends).await);
    let created = a.create(json!({ "title": "Versions" })).await;
    let path = format!("/api/v1/livestreams/{}", created["id"].as_str().unwrap());
    // The URLs in an answer are of the host of its request.
    let host = ("host", "control.example:8080");
    let read = async |control: &Control, known: Option<&str>| {
        let mut headers = vec![host];
        headers.extend(known.map(|tag| ("if-none-match", tag)));
        control.raw_with(Method::GET, &path, &headers, None).await
    };
    let tag_of = |answer: &reqwest::Response| answer.headers()["etag"].to_str().unwrap().to_owned();
    let tag = tag_of(&read(&a, None).await);
    assert!(tag.starts_with('"') && tag.ends_with('"'), "{tag} is strong");
    assert_eq!(tag_of(&read(&b, None).await), tag, "every control gives the same");
    assert_eq!(read(&b, Some(&tag)).await.status(), StatusCode::NOT_MODIFIED);
    let write = async |control: &Control, expected: &str, title: &str| {
        let body = json!({ "title": title }).to_string();
        control.raw_with(Method::PATCH, &path, &[host, ("if-match", expected)], Some(&body)).await
    };
    let written = write(&b, &tag, "B").await;
    assert_eq!(written.status(), StatusCode::OK);
    let newer = tag_of(&written);
    assert_ne!(newer, tag);
    assert_eq!(tag_of(&read(&a, None).await), newer, "the tag of the answer is the one to write over next");
    let stale = write(&a, &tag, "C").await;
    assert_eq!(stale.status(), StatusCode::PRECONDITION_FAILED);
    assert!(stale.text().await.unwrap().contains("read it again"));
    for (expected, status) in [
        (format!("W/{newer}"), StatusCode::PRECONDITION_FAILED),
        ("unquoted".to_owned(), StatusCode::BAD_REQUEST),
        (format!("\"x\", {newer}"), StatusCode::OK),
        ("*".to_owned(), StatusCode::OK),
    ] {
        assert_eq!(write(&a, &expected, "D").await.status(), status, "{expected}");
    }
    a.node.drain().await;
    b.node.drain().await;
}

/// Adds one to the number in the description until it was this client that did.
async fn count_up(control: &Control, path: &str) {
    loop {
        let read = control.raw(Method::GET, path, Some(TOKEN), None).await;
        let tag = read.headers()["etag"].to_str().unwrap().to_owned();
        let body: Value = read.json().await.unwrap();
        let count: usize = body["description"].as_str().unwrap().parse().unwrap();
        let body = json!({ "description": (count + 1).to_string() }).to_string();
        let written = control.raw_with(Method::PATCH, path, &[("if-match", &tag)], Some(&body)).await;
        match written.status() {
            StatusCode::OK => return,
            StatusCode::PRECONDITION_FAILED => {}
            other => panic!("{other}: {}", written.text().await.unwrap()),
        }
    }
}

/// Returns the grant among the replies, of which all others say that the livestream has a publisher.
fn the_one_grant(replies: Vec<ClaimReply>) -> ClaimGrant {
    let (granted, others): (Vec<_>, Vec<_>) =
        replies.into_iter().partition(|reply| matches!(reply, ClaimReply::Granted(_)));
    for other in others {
        assert_eq!(other, refused(CloseReason::AlreadyLive));
    }
    let [ClaimReply::Granted(grant)] = &granted[..] else { panic!("one publisher at a time: {granted:?}") };
    (**grant).clone()
}

/// Stops the livestream and asks every control at once to reopen it, then to grant its next broadcast.
async fn airs_again_once(
    controls: &[Control],
    state: &dyn StateStore,
    created: &Value,
    first: &ClaimGrant,
    airing: u32,
) {
    let of = |number: usize| &controls[number % CONTROLS];
    let (id, key) = (created["id"].as_str().unwrap(), created["stream_key"].as_str().unwrap());
    assert_eq!(of(1).post(id, "stop").await.0, StatusCode::OK);
    let last = state.get(&state_keys::claim(first.stream)).await.unwrap();
    let claim: Value = serde_json::from_slice(&last.unwrap().value).unwrap();
    let grant = ClaimGrant {
        epoch: millrace_wire::ids::Epoch(claim["epoch"].as_u64().unwrap()),
        first_msn: millrace_wire::ids::Msn(claim["first_msn"].as_u64().unwrap()),
        ..first.clone()
    };
    report_end(of(2), &grant).await;
    let reopened = futures::future::join_all((0..6).map(|number| of(number).post(id, "reopen"))).await;
    let accepted = reopened.iter().filter(|(status, _)| *status == StatusCode::OK).count();
    assert_eq!(accepted, 1, "{reopened:?}");
    assert!(reopened.iter().all(|(status, _)| [StatusCode::OK, StatusCode::CONFLICT].contains(status)));
    let session = |number: usize| 1_000 * u128::from(airing) + number as u128;
    let replies =
        futures::future::join_all((0..6).map(|number| of(number).claim(key, session(number)))).await;
    let granted: Vec<_> = replies.iter().filter(|reply| matches!(reply, ClaimReply::Granted(_))).collect();
    let [ClaimReply::Granted(next)] = granted[..] else { panic!("{replies:?}") };
    assert_eq!(next.airing.0, airing);
}

#[tokio::test(flavor = "multi_thread")]
async fn three_controls_on_one_redis_lose_no_update_and_grant_and_reopen_once() {
    let backends = Backends::real().await;
    let mut controls = Vec::new();
    for _ in 0..CONTROLS {
        controls.push(Control::start(&backends).await);
    }
    let of = |number: usize| &controls[number % CONTROLS];
    let created = of(0).create(json!({ "title": "Hammer", "description": "0", "takeover": "refuse" })).await;
    let (id, key) = (created["id"].as_str().unwrap(), created["stream_key"].as_str().unwrap());
    let path = format!("/api/v1/livestreams/{id}");
    let counters = futures::future::join_all((0..CLIENTS).map(async |client| {
        for change in 0..CHANGES {
            count_up(of(client + change), &path).await;
        }
    }));
    let keys = futures::future::join_all((0..8).map(async |number: usize| {
        let body = json!({ "name": format!("key {number}"), "priority": 0 });
        let (status, added) = of(number).call(Method::POST, &format!("{path}/keys"), Some(body)).await;
        assert_eq!(status, StatusCode::CREATED, "{added}");
        if number.is_multiple_of(2) {
            let one = format!("{path}/keys/{}", added["id"].as_str().unwrap());
            assert_eq!(of(number + 1).call(Method::DELETE, &one, None).await.0, StatusCode::NO_CONTENT);
        }
    }));
    let starts = futures::future::join_all((0..6).map(async |number| {
        assert_eq!(of(number).post(id, "start").await.0, StatusCode::OK);
    }));
    let claims = futures::future::join_all((0..9).map(|number| of(number).claim(key, 100 + number as u128)));
    let creations =
        futures::future::join_all((0..9).map(|number| of(number).create(json!({ "title": "Other" }))));
    let (_, _, _, replies, others) = tokio::join!(counters, keys, starts, claims, creations);

    let grant = the_one_grant(replies);
    let after = get(of(1), id).await;
    assert_eq!(after["description"], (CLIENTS * CHANGES).to_string(), "no update is lost");
    assert_eq!(after["status"], "live");
    let listed = get(of(2), &format!("{id}/keys")).await;
    let states: Vec<_> =
        listed["keys"].as_array().unwrap().iter().map(|key| key["state"].as_str().unwrap()).collect();
    let count = |state| states.iter().filter(|it| **it == state).count();
    assert_eq!((count("active"), count("revoked")), (5, 4), "{listed}");
    let ids: BTreeSet<_> = others.iter().map(|other| other["id"].as_str().unwrap()).collect();
    let state = backends.state.clone().unwrap();
    let records = scan_all(&*state, &format!("{}key:", state_keys::PREFIX), 1_000).await.unwrap();
    assert_eq!((ids.len(), records.len()), (9, 9 + 9), "one record for each key");

    for airing in 1..4 {
        airs_again_once(&controls, &*state, &created, &grant, airing).await;
    }
    let broadcasts = get(of(0), &format!("{id}/broadcasts")).await;
    let numbers: Vec<_> = broadcasts["broadcasts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["number"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, [4, 3, 2, 1]);
    for control in controls {
        control.node.drain().await;
    }
}
