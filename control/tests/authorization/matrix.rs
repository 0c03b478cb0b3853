//! Every route of the router for every role, on a livestream of its own and on one of another owner.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use millrace_control::{Config, ViewerEndpoints, api_routes};
use millrace_wire::message::control::ClaimReply;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::common::{Backends, Control, TOKEN};

/// The callers of the table, in the order of its columns.
const CALLERS: [&str; 6] = ["no token", "viewer", "other publisher", "owner", "operator", "admin"];

/// The expected answers of a route, in the order of [`CALLERS`].
type Answers = [u16; 6];

/// A row of the table.
#[derive(Clone, Copy)]
struct Row {
    method: &'static str,
    path: &'static str,
    body: Option<&'static str>,
    /// The answers while viewers' endpoints are public.
    public: Answers,
    /// The answers while they are closed, where they differ.
    closed: Option<Answers>,
}

const fn row(method: &'static str, path: &'static str, public: Answers) -> Row {
    Row { method, path, body: None, public, closed: None }
}

const fn viewers(path: &'static str, closed: Answers) -> Row {
    Row { closed: Some(closed), ..row("GET", path, [200; 6]) }
}

const fn with_body(body: &'static str, row: Row) -> Row {
    Row { body: Some(body), ..row }
}

/// A change of a livestream: a foreign one is absent.
const CHANGE: Answers = [401, 403, 404, 200, 200, 200];
/// A part of a livestream that viewers do not see: it is absent for them, as a foreign livestream is.
const OWNERS: Answers = [401, 404, 404, 200, 200, 200];
/// A list of what the caller owns, or of everything for operators.
const OWNED: Answers = [401, 403, 200, 200, 200, 200];
/// A route for operators.
const OPERATORS: Answers = [401, 403, 403, 403, 200, 200];

/// What each route answers. A new route needs its row here.
const TABLE: &[Row] = &[
    viewers("/api/v1/livestreams", [401, 200, 200, 200, 200, 200]),
    viewers("/api/v1/livestreams/{id}", [401, 200, 404, 200, 200, 200]),
    viewers("/api/v1/livestreams/{id}/status", [401, 200, 404, 200, 200, 200]),
    with_body(r#"{"title": "A"}"#, row("POST", "/api/v1/livestreams", [401, 403, 201, 201, 201, 201])),
    with_body(r#"{"title": "B"}"#, row("PATCH", "/api/v1/livestreams/{id}", CHANGE)),
    row("DELETE", "/api/v1/livestreams/{id}", [401, 403, 404, 204, 204, 204]),
    row("POST", "/api/v1/livestreams/{id}/start", CHANGE),
    row("POST", "/api/v1/livestreams/{id}/stop", CHANGE),
    row("POST", "/api/v1/livestreams/{id}/reopen", CHANGE),
    row("POST", "/api/v1/livestreams/{id}/cancel", CHANGE),
    row("POST", "/api/v1/livestreams/{id}/archive", CHANGE),
    row("POST", "/api/v1/livestreams/{id}/rotate-key", CHANGE),
    row("GET", "/api/v1/livestreams/{id}/keys", OWNERS),
    with_body(
        r#"{"name": "Second"}"#,
        row("POST", "/api/v1/livestreams/{id}/keys", [401, 403, 404, 201, 201, 201]),
    ),
    row("DELETE", "/api/v1/livestreams/{id}/keys/{key}", [401, 403, 404, 204, 204, 204]),
    row("GET", "/api/v1/livestreams/{id}/broadcasts", OWNERS),
    row("GET", "/api/v1/livestreams/{id}/analytics", OWNERS),
    row("GET", "/api/v1/templates", [401, 200, 200, 200, 200, 200]),
    row("GET", "/api/v1/nodes", OPERATORS),
    row("GET", "/api/v1/nodes/{id}", OPERATORS),
    row("GET", "/api/v1/audit", OPERATORS),
    row("GET", "/api/v1/me", [401, 200, 200, 200, 200, 200]),
    row("GET", "/api/v1/tokens", [401, 403, 403, 403, 403, 200]),
    with_body(
        r#"{"name": "A", "role": "viewer"}"#,
        row("POST", "/api/v1/tokens", [401, 403, 403, 403, 403, 201]),
    ),
    row("GET", "/api/v1/tokens/{id}", [401, 403, 403, 403, 403, 200]),
    row("DELETE", "/api/v1/tokens/{id}", [401, 403, 403, 403, 403, 204]),
    row("GET", "/api/v1/webhooks", OWNED),
    with_body(
        r#"{"url": "https://webhook.invalid/"}"#,
        row("POST", "/api/v1/webhooks", [401, 403, 201, 201, 201, 201]),
    ),
    row("GET", "/api/v1/webhooks/{id}", CHANGE),
    with_body(r#"{"enabled": false}"#, row("PATCH", "/api/v1/webhooks/{id}", CHANGE)),
    row("DELETE", "/api/v1/webhooks/{id}", [401, 403, 404, 204, 204, 204]),
    row("POST", "/api/v1/webhooks/{id}/rotate-secret", CHANGE),
    row("POST", "/api/v1/webhooks/{id}/test", CHANGE),
    row("GET", "/api/v1/webhooks/{id}/deliveries", CHANGE),
    // No delivery is dead.
    row("POST", "/api/v1/webhooks/{id}/deliveries/{delivery}/replay", [401, 403, 404, 404, 404, 404]),
    row("GET", "/api/v1/events", OWNED),
    row("GET", "/actors", OPERATORS),
];

/// Returns the tokens of [`CALLERS`].
async fn callers(control: &Control) -> Vec<Option<String>> {
    let mut tokens = vec![None];
    for (role, owner) in
        [("viewer", None), ("publisher", Some("bob")), ("publisher", Some("alice")), ("operator", None)]
    {
        let body = json!({"name": role, "role": role, "owner": owner});
        tokens.push(Some(control.token(body).await.0));
    }
    tokens.push(Some(TOKEN.to_owned()));
    tokens
}

/// Returns the path of a thing that the row's request finds: a new one for each request, of the owner `alice`.
async fn path(control: &Control, row: &Row) -> String {
    let Some((kind, verb)) = row.path.split_once("{id}") else { return row.path.to_owned() };
    let id = match kind {
        "/api/v1/livestreams/" => {
            let id = stream_before(control, verb).await;
            let key = if verb.contains("{key}") { second_key(control, &id).await } else { String::new() };
            return row.path.replace("{id}", &id).replace("{key}", &key);
        }
        "/api/v1/tokens/" => control.token(json!({"name": "Subject", "role": "viewer"})).await.1,
        "/api/v1/nodes/" => {
            let (_, list) = control.call(Method::GET, "/api/v1/nodes", None).await;
            list["nodes"][0]["id"].as_str().unwrap().to_owned()
        }
        "/api/v1/webhooks/" => webhook_of_alice(control).await,
        kind => panic!("say here how a thing of {kind} is made"),
    };
    let id_of_delivery = "01JDN7PK2XFT7S04HMASW9NF6Y-1";
    row.path.replace("{id}", &id).replace("{delivery}", id_of_delivery)
}

/// Returns a new webhook of `alice`, of whom it is the only one.
async fn webhook_of_alice(control: &Control) -> String {
    let alice = control.token(json!({"name": "Alice", "role": "publisher", "owner": "alice"})).await.0;
    let call = async |method, path: &str, body| control.call_as(Some(&alice), method, path, body).await;
    let (_, list) = call(Method::GET, "/api/v1/webhooks", None).await;
    for webhook in list["webhooks"].as_array().unwrap() {
        let path = format!("/api/v1/webhooks/{}", webhook["id"].as_str().unwrap());
        assert_eq!(call(Method::DELETE, &path, None).await.0, StatusCode::NO_CONTENT);
    }
    let body = json!({"url": "https://webhook.invalid/"});
    let (status, created) = call(Method::POST, "/api/v1/webhooks", Some(body)).await;
    assert_eq!(status, StatusCode::CREATED, "{created}");
    created["id"].as_str().unwrap().to_owned()
}

/// Returns a livestream of `alice` in the state in which the verb is possible.
async fn stream_before(control: &Control, verb: &str) -> String {
    let created = control.create(json!({"title": "Show", "owner": "alice"})).await;
    let id = created["id"].as_str().unwrap().to_owned();
    if ["/stop", "/archive", "/reopen"].contains(&verb) {
        let claimed = control.claim(created["stream_key"].as_str().unwrap(), session()).await;
        assert!(matches!(claimed, ClaimReply::Granted(_)), "{claimed:?}");
    }
    if ["/archive", "/reopen"].contains(&verb) {
        assert_eq!(control.post(&id, "stop").await.0, StatusCode::OK);
    }
    id
}

/// Returns a session that no other publisher of the test has.
fn session() -> u128 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    u128::from(NEXT.fetch_add(1, Ordering::Relaxed))
}

async fn second_key(control: &Control, stream: &str) -> String {
    let path = format!("/api/v1/livestreams/{stream}/keys");
    let (status, key) = control.call(Method::POST, &path, Some(json!({"name": "Second"}))).await;
    assert_eq!(status, StatusCode::CREATED, "{key}");
    key["id"].as_str().unwrap().to_owned()
}

async fn check(control: &Control, closed: bool) {
    let tokens = callers(control).await;
    let mut wrong = Vec::new();
    for row in TABLE {
        let expected = row.closed.filter(|_| closed).unwrap_or(row.public);
        for ((caller, token), expected) in CALLERS.iter().zip(&tokens).zip(expected) {
            let path = path(control, row).await;
            let method: Method = row.method.parse().unwrap();
            let answer = control.raw(method, &path, token.as_deref(), row.body).await;
            let name = format!("{} {} by {caller}, closed: {closed}", row.method, row.path);
            let status = answer.status().as_u16();
            if status != expected {
                wrong.push(format!("{name}: {status} instead of {expected}"));
            }
            if [401, 403].contains(&status) {
                let challenge = answer.headers()["www-authenticate"].to_str().unwrap().to_owned();
                assert!(challenge.starts_with("Bearer realm=\"millrace\""), "{name}: {challenge}");
                assert_eq!(answer.headers()["content-type"], "application/problem+json", "{name}");
                let problem: Value = answer.json().await.unwrap();
                if status == 403 {
                    let scope = problem["missing_scope"].as_str().unwrap();
                    assert!(problem["detail"].as_str().unwrap().contains(scope), "{name}: {problem}");
                    assert!(challenge.contains(&format!("scope=\"{scope}\"")), "{name}: {challenge}");
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn table_has_a_row_for_every_route_of_the_router_and_no_other() {
    let routes = api_routes().into_iter().map(|route| (route.method, route.path));
    let rows = TABLE.iter().map(|row| (row.method.to_owned(), row.path.to_owned()));
    let (routes, rows): (BTreeSet<_>, BTreeSet<_>) = (routes.collect(), rows.collect());
    let without: Vec<_> = routes.difference(&rows).collect();
    assert!(without.is_empty(), "routes without a row in TABLE: say what each role gets: {without:#?}");
    assert_eq!(rows.len(), TABLE.len(), "one row for each route");
    assert_eq!(rows.difference(&routes).collect::<Vec<_>>(), Vec::<&(String, String)>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_answers_each_role_as_the_table_says() {
    let backends = Backends::embedded().await;
    let control = Control::start(&backends).await;
    check(&control, false).await;
    control.node.drain().await;
    let config = Config { viewer_endpoints: ViewerEndpoints::Token, ..Config::default() };
    let control = Control::start_with(&backends, config).await;
    check(&control, true).await;
    control.node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn viewers_see_neither_owner_nor_ingest_url_nor_publisher_and_owners_see_all_but_the_key() {
    let control = Control::start(&Backends::embedded().await).await;
    let tokens = callers(&control).await;
    let created = control.create(json!({"title": "Show", "owner": "alice"})).await;
    let (id, key) = (created["id"].as_str().unwrap(), created["stream_key"].as_str().unwrap());
    control.claim(key, 1).await;
    let paths = [
        "/api/v1/livestreams".to_owned(),
        format!("/api/v1/livestreams/{id}"),
        format!("/api/v1/livestreams/{id}/status"),
    ];
    for (caller, token) in CALLERS.iter().zip(&tokens) {
        let sees_all = ["owner", "operator", "admin"].contains(caller);
        for path in &paths {
            let (status, answer) = control.call_as(token.as_deref(), Method::GET, path, None).await;
            assert_eq!(status, StatusCode::OK, "{caller} {path}");
            let text = answer.to_string();
            assert!(!text.contains(key), "{caller} {path}: {text}");
            for secret in ["alice", "rtmp://", "127.0.0.1\"", "ingest-1"] {
                let shown = text.contains(secret);
                assert!(sees_all || !shown, "{caller} {path} shows {secret}: {text}");
            }
        }
        let one = control.call_as(token.as_deref(), Method::GET, &paths[1], None).await.1;
        let status = control.call_as(token.as_deref(), Method::GET, &paths[2], None).await.1;
        let full =
            (one["owner"] == "alice", one["rtmp_url"].is_string(), status["health"]["publisher"].is_object());
        assert_eq!(full, (sees_all, sees_all, sees_all), "{caller}: {one} {status}");
        assert_eq!((one["status"].as_str(), status["health"]["state"].as_str()), (Some("live"), Some("ok")));
    }
    control.node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn publisher_owns_what_it_creates_and_cannot_give_it_away() {
    let control = Control::start(&Backends::embedded().await).await;
    let tokens = callers(&control).await;
    let (bob, alice) = (tokens[2].as_deref(), tokens[3].as_deref());
    let path = "/api/v1/livestreams";
    let create = async |token, body| control.call_as(token, Method::POST, path, Some(body)).await;
    let (_, of_alice) = create(alice, json!({"title": "Hers"})).await;
    let (_, of_bob) = create(bob, json!({"title": "His", "owner": "bob"})).await;
    control.create(json!({"title": "Nobody's"})).await;
    assert_eq!((of_alice["owner"].as_str(), of_bob["owner"].as_str()), (Some("alice"), Some("bob")));
    let (status, problem) = create(bob, json!({"title": "His", "owner": "alice"})).await;
    assert_eq!((status.as_u16(), problem["errors"][0]["field"].as_str()), (422, Some("owner")));
    let own = format!("{path}/{}", of_bob["id"].as_str().unwrap());
    let give = Some(json!({"owner": "alice"}));
    assert_eq!(control.call_as(bob, Method::PATCH, &own, give.clone()).await.0.as_u16(), 422);

    let titles = async |token| {
        let (_, page) = control.call_as(token, Method::GET, "/api/v1/livestreams?mine=true", None).await;
        let titles = page["livestreams"].as_array().unwrap().iter().map(|one| one["title"].clone());
        titles.collect::<Vec<_>>()
    };
    assert_eq!((titles(alice).await, titles(bob).await), (vec![json!("Hers")], vec![json!("His")]));
    assert_eq!(control.call(Method::PATCH, &own, give).await.0, StatusCode::OK, "an operator may");
    assert_eq!(titles(bob).await, Vec::<Value>::new());
    assert_eq!(titles(alice).await.len(), 2);
    control.node.drain().await;
}
