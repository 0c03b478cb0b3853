//! The audit log: who changed what, when and from where, before and after, without secrets.

use std::time::Duration;

use millrace_control::Config;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::common::{Backends, Control};

/// Bound of a failure: the tests wait for conditions, not for this time.
const LIMIT: Duration = Duration::from_secs(20);

/// Returns the entries of a query, once there are as many as expected: they are stored in the background.
async fn entries(control: &Control, query: &str, count: usize) -> Vec<Value> {
    let path = format!("/api/v1/audit?{query}");
    millrace_testkit::wait::some(LIMIT, async || {
        let (status, page) = control.call(Method::GET, &path, None).await;
        assert_eq!(status, StatusCode::OK, "{page}");
        let entries = page["entries"].as_array().unwrap().clone();
        (entries.len() >= count).then_some(entries)
    })
    .await
}

async fn changes_of_a_livestream(backends: &Backends) {
    let (one, other) = (Control::start(backends).await, Control::start(backends).await);
    let (token, id) = one.token(json!({"name": "Studio", "role": "publisher", "owner": "alice"})).await;
    let path = "/api/v1/livestreams";
    let (_, created) = one.call_as(Some(&token), Method::POST, path, Some(json!({"title": "Draft"}))).await;
    let (stream, key) = (created["id"].as_str().unwrap(), created["stream_key"].as_str().unwrap());
    let own = format!("{path}/{stream}");
    let change = json!({"title": "Final", "description": "x".repeat(1_000)});
    // The other control made the change; both list it.
    assert_eq!(other.call_as(Some(&token), Method::PATCH, &own, Some(change)).await.0, StatusCode::OK);
    let (_, rotated) = one.call_as(Some(&token), Method::POST, &format!("{own}/rotate-key"), None).await;
    assert_eq!(one.call(Method::DELETE, &own, None).await.0, StatusCode::NO_CONTENT);
    // Refusals change nothing.
    assert_eq!(one.call(Method::DELETE, &own, None).await.0, StatusCode::NOT_FOUND);

    let found = entries(&other, &format!("stream={stream}"), 4).await;
    let commands: Vec<_> = found.iter().map(|entry| entry["command"].as_str().unwrap()).collect();
    let mut sorted = commands.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, ["create", "delete", "rotate_key", "update"], "{found:?}");
    let entry = |command: &str| found.iter().find(|entry| entry["command"] == command).unwrap();
    let create = entry("create");
    assert_eq!(
        (create["actor"].as_str(), create["role"].as_str(), create["from"].as_str()),
        (Some(&*format!("token:{id}")), Some("publisher"), Some("127.0.0.1"))
    );
    assert_eq!((&create["before"], &create["after"]["title"]), (&Value::Null, &json!("Draft")));
    assert!(create["at"].as_str().is_some_and(|at| at.starts_with("20")), "{create}");
    let update = entry("update");
    assert_eq!(update["before"], json!({"title": "Draft", "description": ""}));
    let cut = format!("{}…", "x".repeat(200));
    assert_eq!(update["after"], json!({"title": "Final", "description": cut}));
    assert_eq!(entry("rotate_key")["after"]["stream_key"], "replaced");
    let delete = entry("delete");
    assert_eq!((delete["actor"].as_str(), &delete["after"]), (Some("admin"), &Value::Null));
    assert_eq!(delete["before"]["title"], "Final");

    let all = json!(entries(&one, "limit=500", 5).await).to_string();
    let secrets = [key, rotated["stream_key"].as_str().unwrap(), token.rsplit('_').next().unwrap()];
    for secret in secrets {
        assert!(!all.contains(secret), "{all}");
    }
    assert!(!all.contains("hash"), "{all}");
    other.node.drain().await;
    one.node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_lists_every_change_of_every_control_before_and_after_embedded() {
    changes_of_a_livestream(&Backends::embedded().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_lists_every_change_of_every_control_before_and_after_on_redis() {
    changes_of_a_livestream(&Backends::real().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_is_filtered_paged_kept_over_a_restart_and_bounded() {
    let mut backends = Backends::embedded().await;
    let config = || Config { audit_entries: 100, ..Config::default() };
    let control = Control::start_with(&backends, config()).await;
    for number in 0..3 {
        control.create(json!({"title": format!("Early {number}")})).await;
    }
    let early = entries(&control, "", 3).await;
    assert_eq!(early[0]["after"]["title"], "Early 2", "the newest first");
    control.node.drain().await;
    backends.reopen().await;

    let control = Control::start_with(&backends, config()).await;
    let (_, id) = control.token(json!({"name": "T", "role": "viewer"})).await;
    let tokens = entries(&control, "command=create_token", 1).await;
    assert_eq!((tokens.len(), tokens[0]["target"].as_str()), (1, Some(&*format!("token:{id}"))));
    assert_eq!(tokens[0]["after"]["role"], "viewer");
    let all = entries(&control, "actor=admin", 4).await;
    let since = format!("since={}", all[0]["at"].as_str().unwrap());
    let newest = entries(&control, &since, 1).await;
    assert!(
        newest.iter().all(|entry| entry["at"].as_str() >= all[0]["at"].as_str()) && newest.len() < 4,
        "{newest:?}"
    );
    assert_eq!(entries(&control, "actor=nobody", 0).await, Vec::<Value>::new());

    let mut paged: Vec<Value> = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/api/v1/audit?limit=3{cursor}");
        let (_, page) = control.call(Method::GET, &path, None).await;
        paged.extend(page["entries"].as_array().unwrap().iter().cloned());
        let Some(next) = page["next_cursor"].as_u64() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(paged, all, "every entry once, in order");
    for query in ["limit=0", "limit=501", "since=yesterday", "stream=x", "colour=red"] {
        let (status, _) = control.call(Method::GET, &format!("/api/v1/audit?{query}"), None).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}");
    }

    for number in 0..120 {
        control.create(json!({"title": format!("Late {number}")})).await;
    }
    let newest = millrace_testkit::wait::some(LIMIT, async || {
        let newest = entries(&control, "limit=500", 100).await;
        (newest[0]["after"]["title"] == "Late 119").then_some(newest)
    })
    .await;
    assert_eq!(newest.len(), 100, "the oldest are gone");
    assert_eq!(newest[99]["after"]["title"], "Late 20");
    control.node.drain().await;
}
