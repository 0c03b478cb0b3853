//! The resources of a livestream's stream keys and of its broadcasts.

use actix_web::HttpResponse;
use actix_web::http::{Method, header};
use actix_web::web::{self, Data, Json, Path, Query};
use jiff::Timestamp;
use millrace_wire::ids::{BroadcastId, KeyId, StreamId, StreamKey, UnixMillis};
use serde::{Deserialize, Serialize};

use super::dto::timestamp;
use super::problem::Problem;
use super::resource::Resource;
use super::streams::{Answer, Sight, parse_id, sight};
use crate::auth::Authenticator;
use crate::domain::access::{Access, Scope};
use crate::domain::airings::Broadcast;
use crate::domain::keys::{Key, KeyState};
use crate::domain::stream::Stream;
use crate::domain::validate::NewKey;
use crate::livestreams::{Caller, Livestreams};
use crate::repo::RepoError;

/// Broadcasts on a page when `limit` is not given.
const DEFAULT_LIMIT: usize = 50;

/// The highest `limit` of a page.
const MAX_LIMIT: usize = 200;

/// Returns the resources of keys and broadcasts, relative to `/api/v1`.
pub(super) fn resources() -> Vec<Resource> {
    let (read, write) = (Access::Needs(Scope::StreamsRead), Access::Needs(Scope::StreamsWrite));
    vec![
        Resource::new(
            "/livestreams/{id}/keys",
            [(Method::GET, read, web::to(list)), (Method::POST, write, web::to(add))],
        ),
        Resource::new("/livestreams/{id}/keys/{key}", [(Method::DELETE, write, web::to(revoke))]),
        Resource::new("/livestreams/{id}/broadcasts", [(Method::GET, read, web::to(broadcasts))]),
    ]
}

/// A stream key without its secret.
#[derive(Debug, Serialize)]
pub(super) struct KeyView {
    id: KeyId,
    name: String,
    priority: u8,
    state: KeyState,
    created_at: Option<Timestamp>,
    expires_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
    /// The key itself, in the answer that creates it and in no other.
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_key: Option<String>,
}

impl KeyView {
    pub(super) fn new(key: &Key, now: UnixMillis) -> Self {
        Self {
            id: key.id,
            name: key.name.clone(),
            priority: key.priority,
            state: key.state(now),
            created_at: timestamp(key.created_at),
            expires_at: key.expires_at.and_then(timestamp),
            revoked_at: key.revoked_at.and_then(timestamp),
            stream_key: None,
        }
    }

    fn with_secret(self, secret: &StreamKey) -> Self {
        Self { stream_key: Some(secret.reveal()), ..self }
    }
}

#[derive(Debug, Serialize)]
struct KeyList {
    keys: Vec<KeyView>,
}

/// Returns a livestream that the caller sees all of.
pub(super) async fn own(
    caller: &Caller,
    auth: &Authenticator,
    livestreams: &Livestreams,
    id: &str,
) -> Result<Stream, Problem> {
    let stream = livestreams.services().repo.stream(parse_id(id)?).await?.value;
    let full = sight(caller, auth, &stream).filter(|sight| *sight == Sight::Full);
    full.map(|_| stream).ok_or_else(|| RepoError::NotFound.into())
}

async fn list(
    caller: Caller,
    auth: Data<Authenticator>,
    livestreams: Data<Livestreams>,
    id: Path<String>,
) -> Answer {
    let stream = own(&caller, &auth, &livestreams, &id).await?;
    let now = livestreams.services().wall_clock();
    let keys = stream.all_keys().iter().map(|key| KeyView::new(key, now)).collect();
    Ok(HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(KeyList { keys }))
}

async fn add(caller: Caller, livestreams: Data<Livestreams>, id: Path<String>, body: Json<NewKey>) -> Answer {
    let id = parse_id(&id)?;
    let (_, key, secret) = livestreams.add_key(&caller, id, &body).await?;
    let now = livestreams.services().wall_clock();
    Ok(HttpResponse::Created()
        .insert_header((header::LOCATION, format!("/api/v1/livestreams/{id}/keys/{}", key.id)))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(KeyView::new(&key, now).with_secret(&secret)))
}

async fn revoke(caller: Caller, livestreams: Data<Livestreams>, path: Path<(String, String)>) -> Answer {
    let (id, key) = path.into_inner();
    let id = parse_id(&id)?;
    let key = key.parse().map_err(|_| RepoError::NoSuchKey)?;
    livestreams.revoke_key(&caller, id, key).await?;
    Ok(HttpResponse::NoContent().finish())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BroadcastQuery {
    limit: Option<usize>,
    cursor: Option<BroadcastId>,
}

/// One broadcast of a livestream.
#[derive(Debug, Serialize)]
pub(super) struct BroadcastView {
    id: BroadcastId,
    livestream_id: StreamId,
    /// Its number among the broadcasts of the livestream, from 1.
    number: u32,
    started_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    reason: Option<String>,
}

impl BroadcastView {
    pub(super) fn new(broadcast: &Broadcast) -> Self {
        Self {
            id: broadcast.id,
            livestream_id: broadcast.stream,
            number: broadcast.airing.next().0,
            started_at: timestamp(broadcast.started_at),
            ended_at: broadcast.ended_at.and_then(timestamp),
            reason: broadcast.reason.clone(),
        }
    }
}

#[derive(Debug, Serialize)]
struct BroadcastPage {
    broadcasts: Vec<BroadcastView>,
    /// The value of `cursor` for the next page; null on the last one.
    next_cursor: Option<BroadcastId>,
}

async fn broadcasts(
    caller: Caller,
    auth: Data<Authenticator>,
    livestreams: Data<Livestreams>,
    id: Path<String>,
    query: Query<BroadcastQuery>,
) -> Answer {
    let stream = own(&caller, &auth, &livestreams, &id).await?;
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(Problem::bad_request(&format!("limit must be from 1 to {MAX_LIMIT}")));
    }
    let repo = &livestreams.services().repo;
    let (found, has_more) = repo.broadcasts(stream.id, query.cursor, limit).await?;
    let next_cursor = found.last().filter(|_| has_more).map(|last| last.id);
    let broadcasts = found.iter().map(BroadcastView::new).collect();
    let page = BroadcastPage { broadcasts, next_cursor };
    Ok(HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(page))
}
