//! Limits of requests per token and per address, and of wrong tokens.

use millrace_control::Config;
use millrace_runtime::TrustedProxies;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::common::{Backends, Control, TOKEN};

const ME: &str = "/api/v1/me";

/// Returns how many of 100 requests were answered before the first 429, and that answer.
async fn until_refused(control: &Control, token: Option<&str>, path: &str) -> (usize, Response) {
    for count in 0..100 {
        let answer = control.raw(Method::GET, path, token, None).await;
        if answer.status() == StatusCode::TOO_MANY_REQUESTS {
            return (count, answer);
        }
    }
    panic!("never refused");
}

/// Checks a 429: it says when to come again, in its header and in its problem.
async fn assert_too_many(answer: Response, detail: &str) {
    let seconds: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["type"], "urn:millrace:problem:too-many-requests");
    let text = problem["detail"].as_str().unwrap();
    assert!(text.contains(detail) && text.ends_with(&format!("try again in {seconds} s")), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn token_that_asks_too_much_is_refused_and_others_are_not() {
    let config = Config { requests_per_token: 1, ..Config::default() };
    let control = Control::start_with(&Backends::embedded().await, config).await;
    let (eager, _) = control.token(json!({"name": "Eager", "role": "viewer"})).await;
    let (calm, _) = control.token(json!({"name": "Calm", "role": "viewer"})).await;
    let (count, answer) = until_refused(&control, Some(&eager), ME).await;
    assert!(count >= 5, "a burst of five seconds is answered: {count}");
    assert_too_many(answer, "with this token").await;
    assert_eq!(control.raw(Method::GET, ME, Some(&calm), None).await.status(), StatusCode::OK);
    control.node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn address_that_asks_too_much_is_refused_with_or_without_token_and_its_probes_are_not() {
    let proxies: TrustedProxies = serde_json::from_value(json!(["127.0.0.1"])).unwrap();
    let config = Config { requests_per_address: 1, trusted_proxies: proxies, ..Config::default() };
    let control = Control::start_with(&Backends::embedded().await, config).await;
    let (count, answer) = until_refused(&control, None, "/api/v1/livestreams").await;
    assert!(count >= 5, "{count}");
    assert_too_many(answer, "from this address").await;
    assert_eq!(control.raw(Method::GET, ME, Some(TOKEN), None).await.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(control.raw(Method::GET, "/healthz", None, None).await.status(), StatusCode::OK);
    let other = control.raw_from("192.0.2.9", Method::GET, ME, Some(TOKEN)).await;
    assert_eq!(other.status(), StatusCode::OK, "another client of the trusted proxy");
    control.node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_tokens_are_limited_harder_and_a_right_one_waits_with_them() {
    let config = Config { failed_auth_per_minute: 5, ..Config::default() };
    let control = Control::start_with(&Backends::embedded().await, config).await;
    let (count, answer) = until_refused(&control, Some("wrong-token-wrong-token"), ME).await;
    assert_eq!(count, 5);
    assert_too_many(answer, "too many wrong tokens").await;
    // Else a guess could be told from a miss.
    assert_eq!(control.raw(Method::GET, ME, Some(TOKEN), None).await.status(), StatusCode::TOO_MANY_REQUESTS);
    let open = control.raw(Method::GET, "/api/v1/livestreams", None, None).await;
    assert_eq!(open.status(), StatusCode::OK, "viewers' endpoints need no token");
    let metrics = control.raw(Method::GET, "/metrics", None, None).await.text().await.unwrap();
    let counted = |reason: &str, count: u32| {
        let series = format!("refused_requests_total{{reason=\"{reason}\"}} {count}");
        assert!(metrics.contains(&series), "{series}: {metrics}");
    };
    counted("bad_token", 5);
    counted("failed_auth_limit", 2);
    control.node.drain().await;
}
