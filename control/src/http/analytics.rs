//! The audiences of a livestream's broadcasts: `GET /api/v1/livestreams/{id}/analytics`.

use actix_web::HttpResponse;
use actix_web::http::{Method, header};
use actix_web::web::{self, Data, Path, Query};
use jiff::Timestamp;
use millrace_wire::ids::{BroadcastId, UnixMillis};
use serde::{Deserialize, Serialize};

use super::dto::timestamp;
use super::keys::own;
use super::problem::Problem;
use super::resource::Resource;
use super::streams::Answer;
use crate::auth::Authenticator;
use crate::domain::access::{Access, Scope};
use crate::domain::audience::BroadcastAudience;
use crate::livestreams::{Caller, Livestreams};

/// Broadcasts in an answer when `limit` is not given.
const DEFAULT_LIMIT: usize = 10;
/// The highest `limit`: the course of a broadcast takes some 15 KiB.
const MAX_LIMIT: usize = 50;

/// Returns the resource, relative to `/api/v1`.
pub(super) fn resources() -> Vec<Resource> {
    let read = Access::Needs(Scope::StreamsRead);
    vec![Resource::new("/livestreams/{id}/analytics", [(Method::GET, read, web::to(analytics))])]
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AnalyticsQuery {
    limit: Option<usize>,
}

#[derive(Debug, Serialize)]
struct Analytics {
    broadcasts: Vec<AudienceView>,
}

/// The audience of one broadcast.
#[derive(Debug, Serialize)]
struct AudienceView {
    broadcast_id: BroadcastId,
    /// The times of the first and the newest sample.
    began_at: Option<Timestamp>,
    sampled_at: Option<Timestamp>,
    unique_viewers: u64,
    peak_viewers: u64,
    watch_seconds: u64,
    step_seconds: u64,
    concurrent: Vec<StepView>,
}

/// The viewers at the same time during one step.
#[derive(Debug, Serialize)]
struct StepView {
    at: Option<Timestamp>,
    average: f64,
    peak: u64,
}

impl AudienceView {
    fn new(audience: &BroadcastAudience) -> Self {
        let concurrent = audience.steps.iter().enumerate().map(|(number, step)| {
            let from = audience.began.0 + number as u64 * audience.step_ms;
            // The last step is under way.
            let lasted_ms = audience.sampled.0.saturating_sub(from).clamp(1, audience.step_ms);
            // A sample's watch time may belong to the step before.
            let average = (step.watch_ms as f64 / lasted_ms as f64).min(step.peak as f64);
            let average = (average * 10.0).round() / 10.0;
            StepView { at: timestamp(UnixMillis(from)), average, peak: step.peak }
        });
        Self {
            broadcast_id: audience.broadcast,
            began_at: timestamp(audience.began),
            sampled_at: timestamp(audience.sampled),
            unique_viewers: audience.unique,
            peak_viewers: audience.peak,
            watch_seconds: audience.watch_ms / 1_000,
            step_seconds: audience.step_ms / 1_000,
            concurrent: concurrent.collect(),
        }
    }
}

async fn analytics(
    caller: Caller,
    auth: Data<Authenticator>,
    livestreams: Data<Livestreams>,
    id: Path<String>,
    query: Query<AnalyticsQuery>,
) -> Answer {
    let stream = own(&caller, &auth, &livestreams, &id).await?;
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(Problem::bad_request(&format!("limit must be from 1 to {MAX_LIMIT}")));
    }
    let audiences = livestreams.services().repo.audiences(stream.id, limit).await?;
    let broadcasts = audiences.iter().map(AudienceView::new).collect();
    Ok(HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(Analytics { broadcasts }))
}
