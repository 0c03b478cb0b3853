//! The description of the API against the router.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::*;

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
    let routed: BTreeMap<_, _> = api_resources().iter().map(Resource::describe).collect();
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

#[actix_web::test]
async fn slow_request_is_answered_503() {
    tokio::time::pause();
    let slow = || async {
        tokio::time::sleep(REQUEST_TIMEOUT * 2).await;
        HttpResponse::Ok()
    };
    let app = App::new().wrap(from_fn(limit_time)).route("/", web::get().to(slow));
    let app = actix_web::test::init_service(app).await;
    let request = actix_web::test::TestRequest::get().uri("/").to_request();
    let answer = actix_web::test::try_call_service(&app, request).await;
    let status =
        answer.map_or_else(|error| error.as_response_error().status_code(), |answer| answer.status());
    assert_eq!(status, 503);
}
