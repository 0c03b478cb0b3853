//! `/api/v1/livestreams`.

use actix_web::http::header;
use actix_web::web::{self, Data, Json, Path, Query, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use millrace_wire::close_reason::CloseReason;
use millrace_wire::ids::{PlaybackId, StreamId, StreamKey, UnixMillis};
use serde::Deserialize;
use tracing::info;

use super::dto::{Page, StatusView, StreamView, Urls};
use super::problem::{Problem, method_not_allowed};
use crate::domain::stream::{Move, Status, Stream};
use crate::domain::validate::{Create, FieldError};
use crate::service::Core;

/// Livestreams on a page when `limit` is not given, and at most.
const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 200;

/// Records looked at to fill one filtered page; then the page ends short, with a cursor.
const MAX_SCANNED: usize = 5_000;

type Answer = Result<HttpResponse, Problem>;

pub(crate) fn routes(config: &mut ServiceConfig) {
    let one = "/livestreams/{id}";
    config
        .service(
            web::resource("/livestreams")
                .route(web::get().to(list))
                .route(web::post().to(create))
                .default_service(web::to(|| method_not_allowed("GET, POST"))),
        )
        .service(
            web::resource(one)
                .route(web::get().to(show))
                .route(web::delete().to(delete))
                .default_service(web::to(|| method_not_allowed("GET, DELETE"))),
        )
        .service(
            web::resource(format!("{one}/status"))
                .route(web::get().to(status))
                .default_service(web::to(|| method_not_allowed("GET"))),
        );
    for (verb, route) in [
        ("start", web::post().to(start)),
        ("stop", web::post().to(stop)),
        ("cancel", web::post().to(cancel)),
        ("archive", web::post().to(archive)),
        ("rotate-key", web::post().to(rotate_key)),
    ] {
        let resource = web::resource(format!("{one}/{verb}")).route(route);
        config.service(resource.default_service(web::to(|| method_not_allowed("POST"))));
    }
}

fn view(request: &HttpRequest, urls: &Urls, stream: &Stream) -> StreamView {
    StreamView::new(stream, urls, request.connection_info().host())
}

fn parse_id(text: &str) -> Result<StreamId, Problem> {
    text.parse().map_err(|_| Problem::not_found("there is no such livestream"))
}

fn scheduled_at(create: &Create) -> Result<Option<UnixMillis>, Problem> {
    let Some(at) = create.scheduled_at else { return Ok(None) };
    let ms = u64::try_from(at.as_millisecond()).map_err(|_| {
        let message = "must not be before 1970".to_owned();
        Problem::invalid(vec![FieldError { field: "scheduled_at", message }])
    })?;
    Ok(Some(UnixMillis(ms)))
}

async fn create(request: HttpRequest, core: Data<Core>, urls: Data<Urls>, body: Json<Create>) -> Answer {
    let settings = body.settings().map_err(Problem::invalid)?;
    let scheduled_at = scheduled_at(&body)?;
    let now = crate::unix(&*core.clock);
    let (stream, key) = {
        let mut rng = rand::rng();
        let key = StreamKey::generate(&mut rng);
        let stream = Stream {
            id: StreamId::generate(now, &mut rng),
            playback_id: PlaybackId::generate(&mut rng),
            key_hash: core.repo.hash(&key),
            title: body.title.trim().to_owned(),
            description: body.description.clone(),
            scheduled_at,
            settings,
            status: Status::Scheduled,
            broadcast: None,
            created_at: now,
            started_at: None,
            ended_at: None,
        };
        (stream, key)
    };
    core.repo.create(&stream).await?;
    info!(stream = %stream.id, playback = %stream.playback_id, "livestream created");
    let location = format!("/api/v1/livestreams/{}", stream.id);
    Ok(HttpResponse::Created()
        .insert_header((header::LOCATION, location))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(view(&request, &urls, &stream).with_key(&key)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    active: Option<String>,
    upcoming: Option<String>,
    limit: Option<usize>,
    cursor: Option<StreamId>,
}

/// `?active` and `?active=true` ask for it, `?active=false` does not.
fn flag(value: Option<&str>, name: &str) -> Result<bool, Problem> {
    match value {
        None | Some("false" | "0") => Ok(false),
        Some("" | "true" | "1") => Ok(true),
        Some(_) => Err(Problem::bad_request(&format!("{name} must be true or false"))),
    }
}

async fn list(request: HttpRequest, core: Data<Core>, urls: Data<Urls>, query: Query<ListQuery>) -> Answer {
    let active = flag(query.active.as_deref(), "active")?;
    let upcoming = flag(query.upcoming.as_deref(), "upcoming")?;
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
        let streams = core.repo.page(after, MAX_LIMIT).await?;
        let last = streams.len() < MAX_LIMIT;
        for stream in streams {
            // One more exists: the page ends before it.
            if page.livestreams.len() == limit || scanned == MAX_SCANNED {
                page.next_cursor = after;
                break 'pages;
            }
            scanned += 1;
            after = Some(stream.id);
            if wanted(&stream) {
                page.livestreams.push(view(&request, &urls, &stream));
            }
        }
        if last {
            break;
        }
    }
    Ok(HttpResponse::Ok().json(page))
}

async fn show(request: HttpRequest, core: Data<Core>, urls: Data<Urls>, id: Path<String>) -> Answer {
    let stream = core.repo.stream(parse_id(&id)?).await?.value;
    Ok(HttpResponse::Ok().json(view(&request, &urls, &stream)))
}

async fn status(core: Data<Core>, id: Path<String>) -> Answer {
    let id = parse_id(&id)?;
    let stream = core.repo.stream(id).await?.value;
    let claim = core.repo.claim(id).await?.map(|claim| claim.value);
    let viewers = core.repo.viewers(id).await?;
    let now = crate::unix(&*core.clock);
    Ok(HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(StatusView::new(
        &stream,
        claim.as_ref(),
        viewers,
        now,
    )))
}

async fn apply(request: HttpRequest, core: &Core, urls: &Urls, id: &str, asked: Move) -> Answer {
    let id = parse_id(id)?;
    let stream = core.repo.apply(id, asked, &*core.clock).await?.stream;
    info!(stream = %id, r#move = asked.as_str(), "livestream moved");
    Ok(HttpResponse::Ok().json(view(&request, urls, &stream)))
}

async fn start(request: HttpRequest, core: Data<Core>, urls: Data<Urls>, id: Path<String>) -> Answer {
    apply(request, &core, &urls, &id, Move::Start).await
}

async fn cancel(request: HttpRequest, core: Data<Core>, urls: Data<Urls>, id: Path<String>) -> Answer {
    apply(request, &core, &urls, &id, Move::Cancel).await
}

async fn archive(request: HttpRequest, core: Data<Core>, urls: Data<Urls>, id: Path<String>) -> Answer {
    apply(request, &core, &urls, &id, Move::Archive).await
}

async fn stop(request: HttpRequest, core: Data<Core>, urls: Data<Urls>, id: Path<String>) -> Answer {
    let changed = core.stop(parse_id(&id)?, CloseReason::Stopped).await?;
    Ok(HttpResponse::Ok().json(view(&request, &urls, &changed.stream)))
}

async fn rotate_key(request: HttpRequest, core: Data<Core>, urls: Data<Urls>, id: Path<String>) -> Answer {
    let id = parse_id(&id)?;
    let key = StreamKey::generate(&mut rand::rng());
    let changed = core.repo.rotate(id, core.repo.hash(&key)).await?;
    info!(stream = %id, "stream key replaced");
    let now = crate::unix(&*core.clock);
    if let Some(claim) = changed.claim.filter(|claim| claim.is_held(now)) {
        core.kick(claim.session, CloseReason::KeyRotated);
    }
    Ok(HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(view(&request, &urls, &changed.stream).with_key(&key)))
}

async fn delete(core: Data<Core>, id: Path<String>) -> Answer {
    let id = parse_id(&id)?;
    core.repo.delete(id, &*core.clock).await?;
    core.deleted.notify_one();
    info!(stream = %id, "livestream deleted");
    Ok(HttpResponse::NoContent().finish())
}
