//! The resources under `/api/v1/webhooks`.

use actix_web::HttpResponse;
use actix_web::http::{Method, header};
use actix_web::web::{self, Data, Json, Path, Query};
use jiff::Timestamp;
use millrace_wire::ids::StreamId;
use serde::{Deserialize, Serialize};

use super::dto::timestamp;
use super::problem::Problem;
use super::resource::Resource;
use crate::audit::Caller;
use crate::domain::access::{Access, Owner, Scope};
use crate::domain::delivery::DeliveryKey;
use crate::domain::event::PublicEvent;
use crate::domain::webhook::{Create, Update, Webhook, WebhookId};
use crate::repo::{DeliveryRecord, DeliveryState};
use crate::webhooks::{Attempted, WebhookError, Webhooks};

/// Deliveries on a page when `limit` is not given.
const DEFAULT_LIMIT: usize = 50;

/// The highest `limit` of a page.
const MAX_LIMIT: usize = 200;

type Answer = Result<HttpResponse, Problem>;

/// Returns the resources of webhooks, relative to `/api/v1`.
pub(super) fn resources() -> Vec<Resource> {
    let (read, write) = (Access::Needs(Scope::WebhooksRead), Access::Needs(Scope::WebhooksWrite));
    vec![
        Resource::new(
            "/webhooks",
            [(Method::GET, read, web::to(list)), (Method::POST, write, web::to(create))],
        ),
        Resource::new(
            "/webhooks/{id}",
            [
                (Method::GET, read, web::to(show)),
                (Method::PATCH, write, web::to(update)),
                (Method::DELETE, write, web::to(delete)),
            ],
        ),
        Resource::new("/webhooks/{id}/rotate-secret", [(Method::POST, write, web::to(rotate))]),
        Resource::new("/webhooks/{id}/test", [(Method::POST, write, web::to(test))]),
        Resource::new("/webhooks/{id}/deliveries", [(Method::GET, read, web::to(deliveries))]),
        Resource::new(
            "/webhooks/{id}/deliveries/{delivery}/replay",
            [(Method::POST, write, web::to(replay))],
        ),
    ]
}

impl From<WebhookError> for Problem {
    fn from(error: WebhookError) -> Self {
        match error {
            WebhookError::NotFound(_) => Self::not_found(&error.to_string()),
            WebhookError::Invalid(errors) => Self::invalid(errors),
            WebhookError::TooMany(_) | WebhookError::Unusable(_) => Self::conflict(&error.to_string()),
            WebhookError::Repo(error) => error.into(),
        }
    }
}

/// A webhook as the API shows it.
#[derive(Debug, Serialize)]
struct WebhookView {
    id: WebhookId,
    owner: Option<Owner>,
    url: String,
    description: String,
    events: Vec<String>,
    stream: Option<StreamId>,
    enabled: bool,
    created_at: Option<Timestamp>,
    /// The time until which the replaced secret signs beside the newest one.
    old_secret_until: Option<Timestamp>,
    /// The secret, in the answer that makes it and in no other.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

impl WebhookView {
    fn new(webhook: Webhook) -> Self {
        let old_secret_until = webhook.secrets.get(1).and_then(|secret| secret.until).and_then(timestamp);
        let Webhook { id, owner, url, description, events, stream, enabled, created_at, .. } = webhook;
        let created_at = timestamp(created_at);
        Self {
            id,
            owner,
            url,
            description,
            events,
            stream,
            enabled,
            created_at,
            old_secret_until,
            secret: None,
        }
    }
}

/// A delivery as the API shows it.
#[derive(Debug, Serialize)]
struct DeliveryView {
    id: String,
    event: PublicEvent,
    state: &'static str,
    attempts: u32,
    since: Option<Timestamp>,
    next_attempt_at: Option<Timestamp>,
    last_attempt_at: Option<Timestamp>,
    last_status: Option<u16>,
    last_error: Option<String>,
}

impl DeliveryView {
    fn new(record: &DeliveryRecord, state: DeliveryState) -> Self {
        let (progress, last) = (&record.progress, record.last.as_ref());
        let is_pending = state == DeliveryState::Pending;
        Self {
            id: record.event.id(),
            event: PublicEvent::new(&record.event),
            state: if is_pending { "pending" } else { "dead" },
            attempts: progress.attempts,
            since: timestamp(progress.since),
            next_attempt_at: timestamp(progress.due).filter(|_| is_pending),
            last_attempt_at: last.and_then(|last| timestamp(last.at)),
            last_status: last.and_then(|last| last.status),
            last_error: last.map(|last| last.error.clone()),
        }
    }
}

/// The outcome of a test.
#[derive(Debug, Serialize)]
struct TestView {
    delivered: bool,
    status: Option<u16>,
    error: Option<String>,
    took_ms: u64,
}

fn parse_id(text: &str) -> Result<WebhookId, Problem> {
    text.parse().map_err(|_| WebhookError::NotFound("webhook").into())
}

/// Parses the id of a delivery, which is that of its event.
fn parse_delivery(text: &str) -> Option<(StreamId, u64)> {
    let (stream, sequence) = text.split_once('-')?;
    Some((stream.parse().ok()?, sequence.parse().ok()?))
}

async fn list(caller: Caller, webhooks: Data<Webhooks>) -> Answer {
    let list: Vec<_> = webhooks.list(&caller).await?.into_iter().map(WebhookView::new).collect();
    Ok(HttpResponse::Ok().json(serde_json::json!({ "webhooks": list })))
}

async fn create(caller: Caller, webhooks: Data<Webhooks>, body: Json<Create>) -> Answer {
    let (webhook, secret) = webhooks.create(&caller, &body).await?;
    let location = format!("/api/v1/webhooks/{}", webhook.id);
    Ok(HttpResponse::Created()
        .insert_header((header::LOCATION, location))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(WebhookView { secret: Some(secret), ..WebhookView::new(webhook) }))
}

async fn show(caller: Caller, webhooks: Data<Webhooks>, id: Path<String>) -> Answer {
    let webhook = webhooks.get(&caller, &parse_id(&id)?).await?;
    Ok(HttpResponse::Ok().json(WebhookView::new(webhook)))
}

async fn update(caller: Caller, webhooks: Data<Webhooks>, id: Path<String>, body: Json<Update>) -> Answer {
    let webhook = webhooks.update(&caller, &parse_id(&id)?, body.into_inner()).await?;
    Ok(HttpResponse::Ok().json(WebhookView::new(webhook)))
}

async fn delete(caller: Caller, webhooks: Data<Webhooks>, id: Path<String>) -> Answer {
    webhooks.delete(&caller, &parse_id(&id)?).await?;
    Ok(HttpResponse::NoContent().finish())
}

async fn rotate(caller: Caller, webhooks: Data<Webhooks>, id: Path<String>) -> Answer {
    let (webhook, secret) = webhooks.rotate(&caller, &parse_id(&id)?).await?;
    Ok(HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(WebhookView { secret: Some(secret), ..WebhookView::new(webhook) }))
}

async fn test(caller: Caller, webhooks: Data<Webhooks>, id: Path<String>) -> Answer {
    let Attempted { status, error, took, .. } = webhooks.test(&caller, &parse_id(&id)?).await?;
    let delivered = error.is_empty();
    let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    let error = Some(error).filter(|error| !error.is_empty());
    Ok(HttpResponse::Ok().json(TestView { delivered, status, error, took_ms }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeliveriesQuery {
    state: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
}

async fn deliveries(
    caller: Caller,
    webhooks: Data<Webhooks>,
    id: Path<String>,
    query: Query<DeliveriesQuery>,
) -> Answer {
    let state = match query.state.as_deref() {
        None | Some("pending") => DeliveryState::Pending,
        Some("dead") => DeliveryState::Dead,
        Some(_) => return Err(Problem::bad_request("state must be pending or dead")),
    };
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(Problem::bad_request(&format!("limit must be from 1 to {MAX_LIMIT}")));
    }
    let cursor = query.cursor.as_deref().map(parse_delivery);
    if cursor == Some(None) {
        return Err(Problem::bad_request("cursor must be the next_cursor of a page"));
    }
    let records = webhooks.deliveries(&caller, &parse_id(&id)?, state, cursor.flatten(), limit).await?;
    let next_cursor = records.last().filter(|_| records.len() == limit).map(|last| last.event.id());
    let list: Vec<_> = records.iter().map(|record| DeliveryView::new(record, state)).collect();
    Ok(HttpResponse::Ok().json(serde_json::json!({ "deliveries": list, "next_cursor": next_cursor })))
}

async fn replay(caller: Caller, webhooks: Data<Webhooks>, path: Path<(String, String)>) -> Answer {
    let (id, delivery) = path.into_inner();
    let unknown = || Problem::from(WebhookError::NotFound("dead delivery"));
    let (stream, sequence) = parse_delivery(&delivery).ok_or_else(unknown)?;
    webhooks.replay(&caller, &DeliveryKey { endpoint: parse_id(&id)?, stream, sequence }).await?;
    Ok(HttpResponse::Ok().json(serde_json::json!({ "id": delivery, "state": "pending" })))
}
