//! The life of an API token: made, used at every control, narrowed, expired, revoked.

use std::time::Duration;

use millrace_control::Config;
use millrace_state::scan_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::common::{Backends, Control, TOKEN};

/// Bound of a failure: the tests wait for conditions, not for this time.
const LIMIT: Duration = Duration::from_secs(20);

const STREAMS: &str = "/api/v1/livestreams";

async fn life_of_a_token(backends: &Backends) {
    let (one, other) = (Control::start(backends).await, Control::start(backends).await);
    let body = json!({"name": "Studio", "role": "publisher", "owner": "alice"});
    let (token, id) = one.token(body).await;
    assert!(token.starts_with(&format!("mrt_{id}_")), "{token}");

    // Every control knows it at once, and the state store has its hash alone.
    for control in [&one, &other] {
        let (status, me) = control.call_as(Some(&token), Method::GET, "/api/v1/me", None).await;
        assert_eq!(status, StatusCode::OK, "{me}");
        assert_eq!(
            me,
            json!({"actor": format!("token:{id}"), "role": "publisher", "owner": "alice",
                "scopes": ["streams:read", "streams:write", "events:read", "webhooks:read", "webhooks:write"]})
        );
    }
    let secret = token.rsplit('_').next().unwrap();
    for record in scan_all(&**backends.state.as_ref().unwrap(), "", 10_000).await.unwrap() {
        assert!(!String::from_utf8_lossy(&record.value).contains(secret), "{} holds the token", record.key);
    }
    let shown = one.call(Method::GET, &format!("/api/v1/tokens/{id}"), None).await.1;
    assert_eq!((shown["state"].as_str(), shown["created_by"].as_str()), (Some("active"), Some("admin")));
    assert!(!shown.to_string().contains(secret) && shown.get("token").is_none(), "{shown}");

    // A wrong secret with a right id is refused, and a revoked token at every control from the next request on.
    let forged = format!("{}{}", &token[..token.len() - 1], if token.ends_with('0') { '1' } else { '0' });
    assert_eq!(refusal(&other, &forged).await, "the token is wrong");
    let path = format!("/api/v1/tokens/{id}");
    assert_eq!(one.call(Method::DELETE, &path, None).await.0, StatusCode::NO_CONTENT);
    for control in [&one, &other] {
        assert_eq!(refusal(control, &token).await, "the token was revoked");
    }
    assert_eq!(refusal(&other, &forged).await, "the token is wrong");
    assert_eq!(other.call(Method::DELETE, &path, None).await.0, StatusCode::NO_CONTENT, "revoked twice");
    let listed = other.call(Method::GET, "/api/v1/tokens", None).await.1;
    let listed =
        listed["tokens"].as_array().unwrap().iter().find(|token| token["id"] == id.as_str()).unwrap();
    assert_eq!(listed["state"], "revoked");
    assert!(listed["revoked_at"].is_string());
    other.node.drain().await;
    one.node.drain().await;
}

/// Returns the detail of the 401 with which a token is refused.
async fn refusal(control: &Control, token: &str) -> String {
    let answer = control.raw(Method::GET, "/api/v1/me", Some(token), None).await;
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    let challenge = answer.headers()["www-authenticate"].to_str().unwrap().to_owned();
    let problem: Value = answer.json().await.unwrap();
    let detail = problem["detail"].as_str().unwrap().to_owned();
    let expected =
        format!("Bearer realm=\"millrace\", error=\"invalid_token\", error_description=\"{detail}\"");
    assert_eq!(challenge, expected);
    detail
}

#[tokio::test(flavor = "multi_thread")]
async fn token_is_known_to_every_control_until_it_is_revoked_embedded() {
    life_of_a_token(&Backends::embedded().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn token_is_known_to_every_control_until_it_is_revoked_on_redis() {
    life_of_a_token(&Backends::real().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn token_expires_and_is_refused_as_expired() {
    let control = Control::start_with(
        &Backends::embedded().await,
        Config { failed_auth_per_minute: 0, ..Config::default() },
    )
    .await;
    let (token, id) = control.token(json!({"name": "Brief", "role": "viewer", "expires_in_s": 1})).await;
    let me = async || control.raw(Method::GET, "/api/v1/me", Some(&token), None).await.status();
    millrace_testkit::wait::until(LIMIT, async || me().await == StatusCode::UNAUTHORIZED).await;
    assert_eq!(refusal(&control, &token).await, "the token has expired");
    let shown = control.call(Method::GET, &format!("/api/v1/tokens/{id}"), None).await.1;
    assert_eq!(shown["state"], "expired");
    control.node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn narrowed_token_lacks_what_its_role_has_and_gives_no_more_than_it_has() {
    let control = Control::start(&Backends::embedded().await).await;
    let narrowed = json!({"name": "Read", "role": "publisher", "owner": "a", "scopes": ["streams:read"]});
    let (reader, _) = control.token(narrowed).await;
    let body = Some(json!({"title": "A"}));
    assert_eq!(control.call_as(Some(&reader), Method::GET, STREAMS, None).await.0, StatusCode::OK);
    let (status, problem) = control.call_as(Some(&reader), Method::POST, STREAMS, body).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert_eq!(problem["detail"], "the token is narrowed and lacks the scope streams:write");
    assert_eq!(
        (problem["missing_scope"].as_str(), problem["role"].as_str()),
        (Some("streams:write"), Some("publisher"))
    );

    let makes = json!({"name": "Maker", "role": "admin", "scopes": ["tokens:write", "streams:read"]});
    let (maker, _) = control.token(makes).await;
    let make = async |body| control.call_as(Some(&maker), Method::POST, "/api/v1/tokens", Some(body)).await;
    let (status, problem) = make(json!({"name": "All", "role": "admin"})).await;
    assert_eq!((status.as_u16(), problem["errors"][0]["field"].as_str()), (422, Some("scopes")), "{problem}");
    assert_eq!(make(json!({"name": "Some", "role": "viewer"})).await.0, StatusCode::CREATED);
    for body in [
        json!({"name": "A"}),
        json!({"name": "A", "role": "root"}),
        json!({"name": "A", "role": "publisher"}),
    ] {
        assert_eq!(make(body.clone()).await.0, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
    }
    assert_eq!(control.call(Method::GET, "/api/v1/tokens/x", None).await.0, StatusCode::NOT_FOUND);
    let (_, me) = control.call_as(Some(TOKEN), Method::GET, "/api/v1/me", None).await;
    assert_eq!((me["actor"].as_str(), me["role"].as_str()), (Some("admin"), Some("admin")));
    control.node.drain().await;
}
