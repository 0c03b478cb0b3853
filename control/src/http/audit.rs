//! The resource `/api/v1/audit`: the changes that callers made, the newest first.

use std::net::IpAddr;

use actix_web::HttpResponse;
use actix_web::http::{Method, header};
use actix_web::web::{self, Data, Query};
use jiff::Timestamp;
use millrace_wire::ids::{StreamId, UnixMillis};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::dto::timestamp;
use super::problem::Problem;
use super::resource::Resource;
use crate::domain::access::{Access, AuditFilter, AuditRecord, Role, Scope};
use crate::livestreams::Livestreams;

/// Entries on a page when `limit` is not given.
const DEFAULT_LIMIT: usize = 50;

/// The highest `limit` of a page.
const MAX_LIMIT: usize = 500;

/// Returns the resources of the audit log, relative to `/api/v1`.
pub(super) fn resources() -> Vec<Resource> {
    vec![Resource::new("/audit", [(Method::GET, Access::Needs(Scope::AuditRead), web::to(list))])]
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AuditQuery {
    stream: Option<StreamId>,
    actor: Option<String>,
    command: Option<String>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    limit: Option<usize>,
    cursor: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(super) struct EntryView {
    number: u64,
    at: Option<Timestamp>,
    actor: String,
    role: Option<Role>,
    from: Option<IpAddr>,
    command: String,
    stream: Option<StreamId>,
    target: Option<String>,
    error: Option<String>,
    before: Option<Value>,
    after: Option<Value>,
}

impl From<AuditRecord> for EntryView {
    fn from(entry: AuditRecord) -> Self {
        let AuditRecord { number, at, actor, role, from, command, stream, target, error, before, after } =
            entry;
        Self { number, at: timestamp(at), actor, role, from, command, stream, target, error, before, after }
    }
}

#[derive(Debug, Serialize)]
struct AuditList {
    entries: Vec<EntryView>,
    /// The value of `cursor` for the next page; null on the last one.
    next_cursor: Option<u64>,
}

async fn list(livestreams: Data<Livestreams>, query: Query<AuditQuery>) -> Result<HttpResponse, Problem> {
    let AuditQuery { stream, actor, command, since, until, limit, cursor } = query.into_inner();
    let limit = limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(Problem::bad_request(&format!("limit must be from 1 to {MAX_LIMIT}")));
    }
    let millis = |at: Timestamp| UnixMillis(u64::try_from(at.as_millisecond()).unwrap_or(0));
    let filter = AuditFilter { stream, actor, command, since: since.map(millis), until: until.map(millis) };
    let page = livestreams.services().repo.audit(&filter, cursor, limit).await?;
    let entries = page.entries.into_iter().map(EntryView::from).collect();
    let list = AuditList { entries, next_cursor: page.next };
    Ok(HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(list))
}
