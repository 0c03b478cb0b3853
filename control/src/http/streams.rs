//! The resources under `/api/v1/livestreams`: each handler parses the request, calls the command and renders its result.

use actix_web::http::{Method, header};
use actix_web::web::{self, Data, Json, Path, Query};
use actix_web::{HttpRequest, HttpResponse};
use millrace_wire::close_reason::CloseReason;
use millrace_wire::ids::StreamId;
use serde::Deserialize;

use super::dto::{Page, StreamView, Updated, Urls};
use super::entity::{self, Expected};
use super::origin;
use super::problem::Problem;
use super::resource::Resource;
use super::status::StatusView;
use crate::auth::Authenticator;
use crate::domain::access::{Access, Role, Scope};
use crate::domain::stream::{Status, Stream};
use crate::domain::validate::{Create, Update};
use crate::livestreams::{Caller, Livestreams};
use crate::repo::RepoError;

/// Livestreams on a page when `limit` is not given.
const DEFAULT_LIMIT: usize = 50;

/// The highest `limit` of a page.
const MAX_LIMIT: usize = 200;

/// Records read to fill one filtered page; after that the page ends short, with a cursor.
const MAX_SCANNED: usize = 5_000;

pub(super) type Answer = Result<HttpResponse, Problem>;

/// Returns the resources of livestreams, relative to `/api/v1`.
pub(super) fn resources() -> Vec<Resource> {
    use Access::{Needs, Viewers};
    let write = Needs(Scope::StreamsWrite);
    let post = |path, route| Resource::new(path, [(Method::POST, write, route)]);
    vec![
        Resource::new(
            "/livestreams",
            [(Method::GET, Viewers, web::to(list)), (Method::POST, write, web::to(create))],
        ),
        Resource::new(
            "/livestreams/{id}",
            [
                (Method::GET, Viewers, web::to(show)),
                (Method::PATCH, write, web::to(update)),
                (Method::DELETE, write, web::to(delete)),
            ],
        ),
        Resource::new("/livestreams/{id}/status", [(Method::GET, Viewers, web::to(status))]),
        post("/livestreams/{id}/start", web::to(start)),
        post("/livestreams/{id}/stop", web::to(stop)),
        post("/livestreams/{id}/reopen", web::to(reopen)),
        post("/livestreams/{id}/cancel", web::to(cancel)),
        post("/livestreams/{id}/archive", web::to(archive)),
        post("/livestreams/{id}/rotate-key", web::to(rotate_key)),
    ]
}

/// The part of a livestream that an answer shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sight {
    /// Everything but the key.
    Full,
    /// What viewers may know.
    Viewers,
}

/// Returns the part of a livestream that the caller sees; `None` if the livestream is absent for it. A token never takes away
/// what is shown without one, so the publisher of another livestream sees what viewers see while viewers' endpoints are open.
pub(super) fn sight(caller: &Caller, auth: &Authenticator, stream: &Stream) -> Option<Sight> {
    if caller.owns(stream.owner.as_ref()) {
        return Some(Sight::Full);
    }
    let reads_all = caller.identity().is_some_and(|identity| identity.role == Role::Viewer);
    (reads_all || auth.viewers_are_public).then_some(Sight::Viewers)
}

/// Returns the livestream as the caller sees it.
fn shown(request: &HttpRequest, urls: &Urls, stream: &Stream, sight: Sight) -> StreamView {
    match sight {
        Sight::Full => view(request, urls, stream),
        Sight::Viewers => view(request, urls, stream).for_viewers(),
    }
}

fn view(request: &HttpRequest, urls: &Urls, stream: &Stream) -> StreamView {
    StreamView::new(stream, urls, &origin::host(request))
}

pub(super) fn parse_id(text: &str) -> Result<StreamId, Problem> {
    text.parse().map_err(|_| Problem::not_found("there is no such livestream"))
}

async fn create(
    request: HttpRequest,
    caller: Caller,
    livestreams: Data<Livestreams>,
    urls: Data<Urls>,
    body: Json<Create>,
) -> Answer {
    let (created, key) = livestreams.create(&caller, &body).await?;
    let location = format!("/api/v1/livestreams/{}", created.stream.id);
    Ok(HttpResponse::Created()
        .insert_header((header::LOCATION, location))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(view(&request, &urls, &created.stream).created(&urls, &origin::host(&request), &key)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    active: Option<String>,
    upcoming: Option<String>,
    mine: Option<String>,
    limit: Option<usize>,
    cursor: Option<StreamId>,
}

/// Parses a flag of the query: `?active` and `?active=true` set it, `?active=false` does not.
fn flag(value: Option<&str>, name: &str) -> Result<bool, Problem> {
    match value {
        None | Some("false" | "0") => Ok(false),
        Some("" | "true" | "1") => Ok(true),
        Some(_) => Err(Problem::bad_request(&format!("{name} must be true or false"))),
    }
}

async fn list(
    request: HttpRequest,
    caller: Caller,
    auth: Data<Authenticator>,
    livestreams: Data<Livestreams>,
    urls: Data<Urls>,
    query: Query<ListQuery>,
) -> Answer {
    let active = flag(query.active.as_deref(), "active")?;
    let upcoming = flag(query.upcoming.as_deref(), "upcoming")?;
    let mine = flag(query.mine.as_deref(), "mine")?;
    let own = caller.identity().and_then(|identity| identity.owner.as_ref());
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(Problem::bad_request(&format!("limit must be from 1 to {MAX_LIMIT}")));
    }
    let wanted = |stream: &Stream| match (active, upcoming) {
        (false, false) => true,
        (active, upcoming) => {
            (active && stream.status == Status::Live) || (upcoming && stream.status == Status::Scheduled)
        }
    };
    let mut page = Page { livestreams: Vec::new(), next_cursor: None };
    let (mut after, mut scanned) = (query.cursor, 0);
    'pages: loop {
        let streams = livestreams.services().repo.page(after, MAX_LIMIT).await?;
        let last = streams.len() < MAX_LIMIT;
        for stream in streams {
            // The page ends before this livestream, so there is a next page.
            if page.livestreams.len() == limit || scanned == MAX_SCANNED {
                page.next_cursor = after;
                break 'pages;
            }
            scanned += 1;
            after = Some(stream.id);
            let is_own = own.is_some() && stream.owner.as_ref() == own;
            let sight = sight(&caller, &auth, &stream).filter(|_| is_own || !mine);
            if let Some(sight) = sight.filter(|_| wanted(&stream)) {
                page.livestreams.push(shown(&request, &urls, &stream, sight));
            }
        }
        if last {
            break;
        }
    }
    Ok(HttpResponse::Ok().json(page))
}

async fn show(
    request: HttpRequest,
    caller: Caller,
    auth: Data<Authenticator>,
    livestreams: Data<Livestreams>,
    urls: Data<Urls>,
    id: Path<String>,
) -> Answer {
    let stream = livestreams.services().repo.stream(parse_id(&id)?).await?.value;
    let sight = sight(&caller, &auth, &stream).ok_or(RepoError::NotFound)?;
    Ok(entity::answer(&request, &shown(&request, &urls, &stream, sight)))
}

async fn update(
    request: HttpRequest,
    caller: Caller,
    livestreams: Data<Livestreams>,
    urls: Data<Urls>,
    id: Path<String>,
    body: Json<Update>,
) -> Answer {
    let expected = Expected::of(&request)?;
    let is_expected = |stream: &Stream| expected.allows(&entity::tag(&view(&request, &urls, stream)));
    let (changed, takes_effect) = livestreams.update(&caller, parse_id(&id)?, &body, is_expected).await?;
    let livestream = view(&request, &urls, &changed.stream);
    let tag = entity::tag(&livestream);
    Ok(HttpResponse::Ok().insert_header((header::ETAG, tag)).json(Updated { livestream, takes_effect }))
}

async fn status(
    caller: Caller,
    auth: Data<Authenticator>,
    livestreams: Data<Livestreams>,
    id: Path<String>,
) -> Answer {
    let id = parse_id(&id)?;
    let services = livestreams.services();
    let stream = services.repo.stream(id).await?.value;
    let sight = sight(&caller, &auth, &stream).ok_or(RepoError::NotFound)?;
    let claim = services.repo.claim(id).await?.map(|claim| claim.value);
    let viewers = services.repo.viewers(id).await?;
    let refusal = services.state_refusal.borrow().clone();
    let status = StatusView::new(&stream, claim.as_ref(), viewers, refusal.as_deref(), services.wall_clock());
    let known = services.templates.plan(&stream.settings.ladder).is_some();
    let status = if known { status } else { status.with_unknown_template(&stream) };
    let status = if sight == Sight::Viewers { status.for_viewers() } else { status };
    Ok(HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(status))
}

async fn start(
    request: HttpRequest,
    caller: Caller,
    livestreams: Data<Livestreams>,
    urls: Data<Urls>,
    id: Path<String>,
) -> Answer {
    let changed = livestreams.start(&caller, parse_id(&id)?).await?;
    Ok(HttpResponse::Ok().json(view(&request, &urls, &changed.stream)))
}

async fn stop(
    request: HttpRequest,
    caller: Caller,
    livestreams: Data<Livestreams>,
    urls: Data<Urls>,
    id: Path<String>,
) -> Answer {
    let changed = livestreams.stop(&caller, parse_id(&id)?, CloseReason::Stopped).await?;
    Ok(HttpResponse::Ok().json(view(&request, &urls, &changed.stream)))
}

async fn reopen(
    request: HttpRequest,
    caller: Caller,
    livestreams: Data<Livestreams>,
    urls: Data<Urls>,
    id: Path<String>,
) -> Answer {
    let changed = livestreams.reopen(&caller, parse_id(&id)?).await?;
    Ok(HttpResponse::Ok().json(view(&request, &urls, &changed.stream)))
}

async fn cancel(
    request: HttpRequest,
    caller: Caller,
    livestreams: Data<Livestreams>,
    urls: Data<Urls>,
    id: Path<String>,
) -> Answer {
    let changed = livestreams.cancel(&caller, parse_id(&id)?).await?;
    Ok(HttpResponse::Ok().json(view(&request, &urls, &changed.stream)))
}

async fn archive(
    request: HttpRequest,
    caller: Caller,
    livestreams: Data<Livestreams>,
    urls: Data<Urls>,
    id: Path<String>,
) -> Answer {
    let changed = livestreams.archive(&caller, parse_id(&id)?).await?;
    Ok(HttpResponse::Ok().json(view(&request, &urls, &changed.stream)))
}

async fn rotate_key(
    request: HttpRequest,
    caller: Caller,
    livestreams: Data<Livestreams>,
    urls: Data<Urls>,
    id: Path<String>,
) -> Answer {
    let (changed, key) = livestreams.rotate_key(&caller, parse_id(&id)?).await?;
    Ok(HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(view(&request, &urls, &changed.stream).with_key(&key)))
}

async fn delete(caller: Caller, livestreams: Data<Livestreams>, id: Path<String>) -> Answer {
    livestreams.delete(&caller, parse_id(&id)?).await?;
    Ok(HttpResponse::NoContent().finish())
}
