//! The description of the API against the router.

use std::collections::{BTreeMap, BTreeSet};

use millrace_node::LadderTemplates;
use millrace_wire::close_reason::CloseReason;
use millrace_wire::ids::{Airing, BroadcastId, SessionId, StreamKey, UnixMillis};
use millrace_wire::message::control::{ClaimRequest, HealthNote, OutsideCheck};
use millrace_wire::message::ladder_health::{LadderHealth, MediaCondition, RungHealth, RungState};
use serde_json::Value;

use super::dto::StreamView;
use super::status::StatusView;
use super::*;
use crate::domain::airings::Broadcast;
use crate::domain::claim;
use crate::domain::stream::tests::sample;
use crate::domain::stream::{Status, Stream};
use crate::domain::validate::{Create, NewKey, Update};

#[test]
fn openapi_describes_every_route_of_the_router_and_no_other() {
    let description: Value = serde_json::from_str(OPENAPI).unwrap();
    let paths = description["paths"].as_object().unwrap();
    let described: BTreeMap<String, BTreeSet<String>> = paths
        .iter()
        .map(|(path, item)| {
            let methods = item.as_object().unwrap().keys().filter(|name| *name != "parameters").cloned();
            (path.clone(), methods.collect())
        })
        .collect();
    let mut routed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for route in api_routes().into_iter().filter(|route| route.path.starts_with("/api/")) {
        routed.entry(route.path).or_default().insert(route.method.to_ascii_lowercase());
    }
    assert_eq!(described, routed);
}

#[test]
fn openapi_references_only_schemas_that_it_defines() {
    fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(values) => values.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let description: Value = serde_json::from_str(OPENAPI).unwrap();
    let mut found = BTreeSet::new();
    references(&description, &mut found);
    assert!(!found.is_empty());
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap_or_else(|| panic!("{reference} is not local"));
        assert!(description.pointer(pointer).is_some(), "{reference} is not defined");
    }
}

#[test]
fn edge_origin_is_scheme_and_host() {
    for (url, origin) in [
        ("https://cdn.example.com/a/b", "https://cdn.example.com"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ] {
        assert_eq!(edge_origin(url), origin);
    }
}

#[actix_web::test]
async fn slow_request_is_answered_503() {
    async fn slow() -> HttpResponse {
        std::future::pending().await
    }
    let app = App::new()
        .wrap(from_fn(|request, next| answer_within(Duration::from_millis(20), request, next)))
        .route("/", web::get().to(slow));
    let app = actix_web::test::init_service(app).await;
    let request = actix_web::test::TestRequest::get().uri("/").to_request();
    let answer = actix_web::test::try_call_service(&app, request).await;
    let status =
        answer.map_or_else(|error| error.as_response_error().status_code(), |answer| answer.status());
    assert_eq!(status, 503);
}

fn live(stream: &Stream) -> Stream {
    Stream { status: Status::Live, ..stream.clone() }
}

fn schema(name: &str) -> Value {
    let description: Value = serde_json::from_str(OPENAPI).unwrap();
    description["components"]["schemas"][name].clone()
}

fn keys(object: &Value) -> BTreeSet<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

/// The names that a schema requires.
fn required(schema: &Value) -> BTreeSet<&str> {
    schema["required"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect()
}

/// Fails unless the schema of an object has the fields of `answer`, requires them all, and describes the objects in it
/// likewise.
fn assert_describes(schema: &Value, answer: &Value, place: &str) {
    assert_eq!(keys(&schema["properties"]), keys(answer), "{place}");
    assert_eq!(required(schema), keys(answer), "{place}: every field is always there");
    for (name, value) in answer.as_object().unwrap() {
        let (property, place) = (&schema["properties"][name], format!("{place}.{name}"));
        match value {
            Value::Object(_) => assert_describes(property, value, &place),
            Value::Array(items) if !items.is_empty() => {
                assert_describes(&property["items"], &items[0], &place);
            }
            Value::Null => assert!(allows_null(property), "{place} may be null"),
            _ => {}
        }
    }
}

fn allows_null(property: &Value) -> bool {
    property["type"].as_array().is_some_and(|types| types.contains(&"null".into()))
}

fn takes(field: &str, value: &Value) -> bool {
    let mut body = serde_json::json!({ "title": "A" });
    body[field] = value.clone();
    serde_json::from_value::<Create>(body)
        .is_ok_and(|create| create.check(&LadderTemplates::default()).is_ok())
}

#[test]
fn openapi_describes_every_field_of_a_new_livestream_with_its_limits() {
    let described = schema("Create");
    let create: Create = serde_json::from_value(serde_json::json!({ "title": "A" })).unwrap();
    let fields = serde_json::to_value(&create).unwrap();
    assert_eq!(keys(&described["properties"]), keys(&fields));
    assert_eq!(required(&described), BTreeSet::from(["title"]));
    assert_eq!(described["additionalProperties"], false);
    assert!(!takes("unknown", &"x".into()));
    for (name, property) in described["properties"].as_object().unwrap() {
        assert_eq!(takes(name, &Value::Null), allows_null(property), "{name}: null");
        if let Some(default) = property.get("default") {
            assert!(takes(name, default), "{name}: its default");
        }
        for value in property["enum"].as_array().into_iter().flatten() {
            assert!(takes(name, value), "{name}: {value}");
        }
        if property["enum"].is_array() {
            assert!(!takes(name, &"other".into()), "{name}: a name outside of the list");
        }
        for (limit, step) in [("minimum", -1), ("maximum", 1)] {
            let Some(limit) = property[limit].as_i64() else { continue };
            assert!(takes(name, &limit.into()) && !takes(name, &(limit + step).into()), "{name}: {limit}");
        }
        if let Some(limit) = property["maxLength"].as_u64() {
            let text = |length: u64| "x".repeat(length as usize).into();
            assert!(takes(name, &text(limit)) && !takes(name, &text(limit + 1)), "{name}: {limit}");
        }
        if property["minLength"] == 1 {
            assert!(!takes(name, &"".into()), "{name}: empty");
        }
    }
    let settings = create.check(&LadderTemplates::default()).unwrap().settings;
    let default = |name: &str| described["properties"][name]["default"].clone();
    assert_eq!(default("reconnect_window_s"), settings.reconnect_window);
    assert_eq!(default("target_duration_s"), settings.target_duration);
    assert_eq!(default("part_ms"), settings.part_ms);
    assert_eq!(default("takeover"), serde_json::to_value(settings.takeover).unwrap());
    assert_eq!(default("away"), serde_json::to_value(settings.away).unwrap());
    assert_eq!(default("ladder"), serde_json::to_value(settings.ladder).unwrap());
    assert_eq!((default("record"), default("publish_playlist")), (false.into(), false.into()));
}

#[test]
fn openapi_describes_every_field_of_a_change_and_of_the_templates() {
    let described = schema("Change");
    let changes = |field: &str| {
        let patch: Update = serde_json::from_value(serde_json::json!({ field: null })).unwrap();
        patch.check(&LadderTemplates::default())
    };
    for name in keys(&described["properties"]) {
        assert!(name == "title" || changes(name).is_ok(), "{name} can be changed");
        assert!(keys(&schema("Create")["properties"]).contains(name), "{name} is described");
    }
    assert_eq!(keys(&described["properties"]), keys(&schema("Create")["properties"]));
    assert_eq!(described["additionalProperties"], false);
    assert!(changes("unknown").is_err());
    let list = super::templates::tests::sample();
    assert_describes(
        &schema("Templates")["properties"]["templates"]["items"],
        &list["templates"][0],
        "template",
    );
}

#[test]
fn openapi_describes_every_field_of_a_livestream_and_its_status() {
    let urls = Urls::new(&Config::default());
    let mut stream = sample();
    let view = StreamView::new(&stream, &urls, "example.com");
    assert_describes(&schema("Livestream"), &serde_json::to_value(&view).unwrap(), "Livestream");
    let key: StreamKey = "000102030405060708090a0b0c0d0e0f".parse().unwrap();
    let with_key = serde_json::to_value(view.with_key(&key)).unwrap();
    assert!(with_key["stream_key"].is_string());
    assert_eq!(required(&schema("LivestreamWithKey")["allOf"][1]), BTreeSet::from(["stream_key"]));

    let request = ClaimRequest {
        key_hash: stream.key_hash,
        session: SessionId::from_u128(1),
        node: "ingest-1".parse().unwrap(),
        addr: None,
        protocol: "rtmp".to_owned(),
        takes_over: true,
        outside: OutsideCheck::Absent,
    };
    let (now, broadcast) = (UnixMillis(5), BroadcastId::from_u128(1));
    let bare = serde_json::to_value(StatusView::new(&stream, None, 0, None, now)).unwrap();
    assert_describes(&schema("Status"), &bare, "Status without publisher");
    let mut claim = claim::decide(now, &stream, None, &request, broadcast).unwrap().claim;
    claim.ladder = Some(Box::new(LadderHealth {
        rungs: vec![RungHealth {
            rendition: "720p".parse().unwrap(),
            state: RungState::Shed,
            encoder: None,
            fps_milli: 29_970,
            bitrate: 2_800_000,
            speed_percent: 250,
            waiting_ms: 7,
        }],
        conditions: vec![MediaCondition::Silent],
        decoder_waiting_ms: 3,
    }));
    let words = serde_json::to_value(StatusView::new(&live(&stream), Some(&claim), 3, None, now)).unwrap();
    let health = &words["health"];
    assert_eq!(
        (&health["state"], &health["message"]),
        (&"degraded".into(), &"degraded: overloaded: 720p left out".into())
    );
    let codes: Vec<_> =
        health["notes"].as_array().unwrap().iter().map(|note| note["code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["rungs_left_out", "silent"]);
    assert_eq!(
        (&health["ladder"]["rungs"][0]["fps"], &health["ladder"]["rungs"][0]["speed"]),
        (&29.97.into(), &2.5.into())
    );
    claim.notes = vec![HealthNote::new("audio_hole", "The audio has holes.")];
    stream.status = Status::Live;
    stream.last_disconnect = Some(claim.disconnect(now, CloseReason::Idle, ""));
    let full = serde_json::to_value(StatusView::new(&stream, Some(&claim), 3, None, now)).unwrap();
    assert_describes(&schema("Status"), &full, "Status with publisher");
    let full_disk = StatusView::new(&stream, Some(&claim), 3, Some("No space left on device"), now);
    let full_disk = serde_json::to_value(full_disk).unwrap();
    assert_eq!(full_disk["health"]["state"], "degraded");
    assert_eq!(full_disk["health"]["notes"][0]["code"], "state", "it comes before the publisher's notes");
    assert!(full_disk["health"]["message"].as_str().unwrap().contains("No space left on device"));
}

#[test]
fn openapi_describes_the_status_codes_of_every_route() {
    let description: Value = serde_json::from_str(OPENAPI).unwrap();
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if method == "parameters" {
                continue;
            }
            let described = keys(&operation["responses"]);
            let (has_body, deleted) = (operation.get("requestBody").is_some(), method == "delete");
            let mut expected = BTreeSet::from(["401", "403", "429", "500", "503"]);
            expected.insert(if has_body && method == "post" {
                "201"
            } else if deleted {
                "204"
            } else {
                "200"
            });
            if has_body {
                expected.extend(["400", "413", "415", "422"]);
            }
            let takes = |place: &str| {
                let parameters = operation["parameters"].as_array().into_iter().flatten();
                parameters.filter(|parameter| parameter["in"] == place).count() > 0
            };
            if takes("header") {
                expected.insert(if method == "patch" { "412" } else { "304" });
            }
            if takes("query") {
                expected.insert("400");
            }
            if path.contains("{id}") {
                expected.insert("404");
            }
            let is_transition = method == "post" && path.contains("{id}") && !path.ends_with("rotate-key");
            let is_token = path.starts_with("/api/v1/tokens");
            if (is_transition || (deleted && !path.contains("/keys/")) || method == "patch") && !is_token
                || (path == "/api/v1/tokens" || path == "/api/v1/webhooks") && has_body
            {
                expected.insert("409");
            }
            assert_eq!(described, expected, "{method} {path}");
        }
    }
}

#[test]
fn openapi_describes_every_field_of_a_key_and_of_a_broadcast() {
    let key = sample().all_keys().remove(0);
    let view = serde_json::to_value(super::keys::KeyView::new(&key, UnixMillis(5))).unwrap();
    assert_describes(&schema("Key"), &view, "Key");
    let described = schema("NewKey");
    let new: NewKey = serde_json::from_value(serde_json::json!({ "name": "A" })).unwrap();
    assert_eq!(keys(&described["properties"]), keys(&serde_json::to_value(&new).unwrap()));
    assert_eq!(required(&described), BTreeSet::from(["name"]));
    assert_eq!(described["properties"]["priority"]["default"], new.check(UnixMillis(5)).unwrap().priority);
    let broadcast = Broadcast {
        id: BroadcastId::from_u128(1),
        stream: sample().id,
        airing: Airing::FIRST,
        started_at: UnixMillis(1),
        ended_at: None,
        reason: None,
    };
    let view = serde_json::to_value(super::keys::BroadcastView::new(&broadcast)).unwrap();
    assert_eq!(view["number"], 1);
    assert_describes(&schema("Broadcast"), &view, "Broadcast");
}
