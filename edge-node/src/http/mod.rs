//! The viewers' side: playlists, media, the watch page and the beacon over HTTP.

mod beacon;
mod body;
mod headers;
mod object;
mod page;
mod playlist;
mod range;
mod refuse;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::http::Method;
use actix_web::web::{Bytes, Data, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, HttpServer, web};
use millrace_runtime::http::{HttpHandle, Observability, bind, routes};
use millrace_wire::ids::PlaybackId;
use tokio::sync::Semaphore;

use crate::cache::ObjectCache;
use crate::fetch::Fetcher;
use crate::metrics::EdgeMetrics;
use crate::registry::Registry;
use crate::stream::LiveStream;
use crate::view::View;
use crate::viewers::{Signer, Viewers};

/// An idle connection is kept this long: longer than a player's reload interval.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// A client that does not finish its request head in this time is cut off.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections one worker holds.
const CONNECTIONS_PER_WORKER: usize = 25_000;
/// A drain lets open answers finish for this long; waiting reloads are released at once.
const SHUTDOWN_S: u64 = 10;

/// Limits of waiting requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// How long the first playlist request of a starting stream is held.
    pub(crate) start_hold: Duration,
    /// How long a hinted part is waited for: three parts of the longest kind.
    pub(crate) part_hold: Duration,
}

/// What the handlers share.
pub(crate) struct App {
    pub(crate) registry: Arc<Registry>,
    pub(crate) cache: Arc<ObjectCache>,
    pub(crate) fetcher: Arc<Fetcher>,
    pub(crate) signer: Signer,
    pub(crate) viewers: Arc<Viewers>,
    pub(crate) waiters: Semaphore,
    pub(crate) limits: Limits,
    pub(crate) metrics: EdgeMetrics,
    pub(crate) observability: Option<Observability>,
    pub(crate) stop: tokio_util::sync::CancellationToken,
}

/// The wait ended without what was waited for: time over, too many waiters, or the node leaves.
#[derive(Debug)]
pub(crate) struct NotYet;

impl App {
    /// Waits until the stream's view satisfies `ready`.
    async fn wait(
        &self,
        stream: &LiveStream,
        limit: Duration,
        ready: impl Fn(&View) -> bool,
    ) -> Result<(), NotYet> {
        let Ok(_permit) = self.waiters.try_acquire() else {
            self.metrics.waiters_refused.inc();
            return Err(NotYet);
        };
        let _gauge = Waiting::enter(self);
        let mut view = stream.watch();
        tokio::select! {
            changed = view.wait_for(|view| ready(view)) => changed.map(|_| ()).map_err(|_| NotYet),
            () = tokio::time::sleep(limit) => Err(NotYet),
            () = self.stop.cancelled() => Err(NotYet),
        }
    }
}

/// Counts a waiter down also when its client leaves.
struct Waiting<'a>(&'a App, Instant);

impl<'a> Waiting<'a> {
    fn enter(app: &'a App) -> Self {
        app.metrics.waiters.add(1);
        Self(app, Instant::now())
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.metrics.waiters.add(-1);
        self.0.metrics.waited.observe(self.1.elapsed().as_secs_f64());
    }
}

/// Starts the server.
pub(crate) fn serve(listen: SocketAddr, workers: usize, app: Arc<App>) -> io::Result<HttpHandle> {
    let (listener, addr) = bind(listen)?;
    let app = Data::from(app);
    let mut server = HttpServer::new(move || {
        let app = app.clone();
        actix_web::App::new().configure(move |config| configure(config, &app))
    })
    .disable_signals()
    .keep_alive(KEEP_ALIVE)
    .client_request_timeout(REQUEST_TIMEOUT)
    .max_connections(CONNECTIONS_PER_WORKER)
    .shutdown_timeout(SHUTDOWN_S);
    if workers > 0 {
        server = server.workers(workers);
    }
    Ok(HttpHandle::spawn(addr, server.listen(listener)?.run()))
}

fn configure(config: &mut ServiceConfig, app: &Data<App>) {
    if let Some(observability) = &app.observability {
        routes(config, observability);
    }
    config
        .app_data(app.clone())
        .app_data(web::PayloadConfig::new(beacon::MAX_BODY))
        .service(web::resource("/live/{tail:.*}").route(web::post().to(post)).default_service(web::to(live)))
        .service(web::resource("/watch/{playback}").to(page::watch))
        .service(web::resource("/assets/{name}").to(page::asset))
        .service(web::resource("/").to(page::landing))
        .default_service(web::to(|| async { refuse::missing() }));
}

async fn live(app: Data<App>, request: HttpRequest) -> HttpResponse {
    let (kind, answer) = match *request.method() {
        Method::GET | Method::HEAD => get(&app, &request).await,
        Method::OPTIONS => {
            let mut answer = HttpResponse::NoContent().finish();
            headers::preflight(answer.headers_mut());
            ("preflight", answer)
        }
        _ => ("other", refuse::method()),
    };
    count(&app, kind, &answer);
    answer
}

async fn get(app: &App, request: &HttpRequest) -> (&'static str, HttpResponse) {
    let key = request.path().trim_start_matches('/');
    if [b".m4s", b".mp4"].iter().any(|end| key.as_bytes().ends_with(*end)) {
        return ("media", object::serve(app, request, key).await);
    }
    let mut path = key.split('/').skip(1);
    let playback = path.next().and_then(|p| p.parse::<PlaybackId>().ok());
    let answer = match (playback, path.next(), path.next(), path.next()) {
        (Some(playback), Some("index.m3u8"), None, _) => playlist::serve(app, request, playback, None).await,
        (Some(playback), Some(rendition), Some("index.m3u8"), None) => {
            playlist::serve(app, request, playback, Some(rendition)).await
        }
        _ => refuse::missing(),
    };
    ("playlist", answer)
}

async fn post(app: Data<App>, request: HttpRequest, body: Bytes) -> HttpResponse {
    let path = request.path().strip_prefix("/live/").and_then(|p| p.strip_suffix("/beacon"));
    let answer = match path.and_then(|p| p.parse::<PlaybackId>().ok()) {
        Some(playback) => {
            let address = request.peer_addr().map(|peer| peer.ip());
            beacon::serve(&app, playback, address, &body).await
        }
        None => refuse::method(),
    };
    count(&app, "beacon", &answer);
    answer
}

fn count(app: &App, kind: &'static str, answer: &HttpResponse) {
    let class = match answer.status().as_u16() {
        200..300 => 0,
        300..400 => 1,
        400..500 => 2,
        _ => 3,
    };
    app.metrics.answered(kind, class);
}
