//! HTTP for viewers: playlists, media, the watch page and the heartbeats of players.

mod alias;
pub(crate) mod app;
mod beacon;
mod body;
mod error_response;
mod headers;
mod object;
mod origins;
mod page;
mod picture;
mod playlist;
mod range;
mod socket;
mod viewers;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::Method;
use actix_web::web::{Data, Payload, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, web};
use millrace_runtime::http::{
    Deadlines, HttpHandle, ServerOptions, admission, bind, listen as serve_on, routes,
};
use millrace_runtime::{Metrics, Port};
use millrace_wire::ids::PlaybackId;
use millrace_wire::object_names::airing_of_playlist;

use self::app::App;

/// Connections that one worker thread holds: about actix's own default, and within a usual limit of file
/// descriptors for two workers. Further connections wait in the listen queue.
const CONNECTIONS_PER_WORKER: usize = 25_000;
/// The time in which a drain lets open answers finish; waiting reloads are released at once.
const SHUTDOWN: Duration = Duration::from_secs(10);

/// Starts the HTTP server; `workers` is its number of threads, 0 for one per core.
pub(crate) fn serve(
    listen: SocketAddr,
    workers: usize,
    app: Arc<App>,
    metrics: &Metrics,
    port: Port,
) -> io::Result<HttpHandle> {
    let (listener, _) = bind(listen)?;
    let metrics = metrics.scope("edge");
    let options = ServerOptions {
        workers,
        max_connections: port.per_worker(workers, CONNECTIONS_PER_WORKER),
        shutdown: SHUTDOWN,
        admit: Some(admission(port, &metrics)),
        metrics,
        deadlines: Deadlines::default(),
    };
    let app = Data::from(app);
    serve_on(listener, options, move || {
        let app = app.clone();
        actix_web::App::new().configure(move |config| configure(config, &app))
    })
}

fn configure(config: &mut ServiceConfig, app: &Data<App>) {
    if let Some(operations) = &app.operations {
        routes(config, operations);
    }
    config
        .app_data(app.clone())
        .service(web::resource("/live/{tail:.*}").route(web::post().to(post)).default_service(web::to(live)))
        .service(web::resource("/ws").route(web::get().to(socket::open)))
        .service(web::resource("/watch/{playback}").to(page::watch))
        .service(web::resource("/assets/{name}").to(page::asset))
        .service(web::resource("/").to(page::landing))
        .default_service(web::to(|| async { error_response::not_found() }));
}

async fn live(app: Data<App>, request: HttpRequest) -> HttpResponse {
    let (kind, mut response) = match *request.method() {
        Method::GET | Method::HEAD => get(&app, &request).await,
        Method::OPTIONS => {
            let mut response = HttpResponse::NoContent().finish();
            headers::preflight(response.headers_mut());
            ("preflight", response)
        }
        _ => ("other", error_response::method_not_allowed()),
    };
    origins::narrow(&app.allow_origin, &request, response.headers_mut());
    count(&app, kind, &response);
    response
}

async fn get(app: &App, request: &HttpRequest) -> (&'static str, HttpResponse) {
    let key = request.path().trim_start_matches('/');
    if [b".m4s", b".mp4"].iter().any(|suffix| key.as_bytes().ends_with(*suffix)) {
        let response = object::serve(app, request, key).await;
        if *request.method() == Method::GET {
            viewers::got_media(app, request, key, &response).await;
        }
        return ("media", response);
    }
    let mut path = key.split('/').skip(1);
    let playback = path.next().and_then(|text| text.parse::<PlaybackId>().ok());
    if let Some((playback, tail)) = playback.zip(picture_path(key)) {
        return ("picture", picture::serve(app, request, playback, tail).await);
    }
    if let Some((name, "index.m3u8")) = key.strip_prefix("live/").and_then(|rest| rest.split_once('/'))
        && let Some(response) = alias::serve(app, request, name).await
    {
        return ("playlist", response);
    }
    if let Some(playback) = playback.filter(|_| *request.method() == Method::GET) {
        viewers::asks_for_playlist(app, request, playback).await;
    }
    let response = match (playback, path.next(), path.next(), path.next()) {
        (Some(playback), Some("index.m3u8"), None, _) => playlist::serve(app, request, playback, None).await,
        (Some(playback), Some(rendition), Some(file), None) => match airing_of_playlist(file) {
            Some(airing) => playlist::serve(app, request, playback, Some((rendition, airing))).await,
            None => error_response::not_found(),
        },
        _ => error_response::not_found(),
    };
    ("playlist", response)
}

/// Returns the path below the stream's own, if it may be one of a picture.
fn picture_path(key: &str) -> Option<&str> {
    let (_, tail) = key.split_once('/')?.1.split_once('/')?;
    [".jpg", ".vtt"].iter().any(|suffix| tail.ends_with(suffix)).then_some(tail)
}

async fn post(app: Data<App>, request: HttpRequest, payload: Payload) -> HttpResponse {
    let path = request.path().strip_prefix("/live/").and_then(|path| path.strip_suffix("/beacon"));
    let mut response = match path.map(str::parse::<PlaybackId>) {
        Some(Ok(playback)) => beacon::serve(&app, playback, &request, payload).await,
        Some(Err(_)) => error_response::not_found(),
        None => error_response::method_not_allowed(),
    };
    origins::narrow(&app.allow_origin, &request, response.headers_mut());
    count(&app, "beacon", &response);
    response
}

fn count(app: &App, kind: &'static str, response: &HttpResponse) {
    let class = match response.status().as_u16() {
        200..300 => 0,
        300..400 => 1,
        400..500 => 2,
        _ => 3,
    };
    app.metrics.answered(kind, class);
}
