//! The operations routes `/metrics`, `/healthz`, `/readyz` and `/actors`, for a server of their own or as routes of a
//! node's server.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use actix_web::http::header;
use actix_web::web::{Data, Query, ServiceConfig, get, head, resource};
use actix_web::{App, HttpResponse};
use serde::Deserialize;
use serde_json::json;

use super::admission::admission;
use super::progress::Deadlines;
use super::server::{HttpHandle, ServerOptions, bind, listen as serve_on};
use crate::{ActorFilter, ActorRegistry, Connections, Drain, Metrics, PortOptions, Readiness};

/// The media type of the exposition format (OpenMetrics 1.0).
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The time that a graceful stop waits for open requests.
const SHUTDOWN: Duration = Duration::from_secs(5);
/// Connections of the operations routes: an operator's scrapers, probes and hands.
const MAX_CONNECTIONS: usize = 256;
/// Connections from one address; a scraper holds one or two.
const MAX_CONNECTIONS_PER_ADDRESS: usize = 64;
/// The weight of the port's share of the process's descriptors.
const PORT_WEIGHT: usize = 1;

/// Actors in one answer of `/actors` at most: some 300 kB of JSON. `total` is their number; `?kind=` narrows the list.
pub const MAX_LISTED_ACTORS: usize = 1_000;

/// The services that the operations routes show.
#[derive(Debug, Clone)]
pub struct Observability {
    /// Everything measured in this process.
    pub metrics: Metrics,
    /// The readiness conditions of this process.
    pub readiness: Readiness,
    /// The drain of the process; while it runs the process is not ready.
    pub drain: Drain,
    /// Every actor of this process.
    pub actors: ActorRegistry,
    /// The connections that the ports of the process hold.
    pub connections: Connections,
}

/// Adds `/metrics`, `/healthz` and `/readyz` to an actix-web application. `/actors` is left out: it names streams and
/// sessions, and this server may be the one viewers use; see [`actors`].
pub fn routes(config: &mut ServiceConfig, observability: &Observability) {
    config
        .app_data(Data::new(observability.clone()))
        .service(resource("/healthz").route(get().to(healthz)).route(head().to(healthz)))
        .service(resource("/readyz").route(get().to(readyz)).route(head().to(readyz)))
        .service(resource("/metrics").route(get().to(metrics)));
}

/// The query parameters of `/actors`.
#[derive(Debug, Deserialize)]
pub struct ActorsQuery {
    /// Only actors of this kind.
    pub kind: Option<String>,
}

/// Answers `GET /actors`: the actors of the process as JSON, at most [`MAX_LISTED_ACTORS`]. An application that adds this
/// handler needs [`routes`] too, and has to keep it from viewers.
pub async fn actors(observability: Data<Observability>, query: Query<ActorsQuery>) -> HttpResponse {
    let filter = ActorFilter { kind: query.kind.as_deref(), ..ActorFilter::default() };
    let list = observability.actors.list(filter, MAX_LISTED_ACTORS);
    HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(list)
}

async fn healthz() -> HttpResponse {
    HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(json!({"status": "ok"}))
}

async fn readyz(observability: Data<Observability>) -> HttpResponse {
    let mut report = observability.readiness.report();
    if observability.drain.is_draining() {
        let reason = observability.drain.reason().unwrap_or("draining").to_owned();
        report.ready = false;
        report.failing.push(crate::health::Failing { name: "draining".to_owned(), reason });
    }
    let mut response = if report.ready { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    response.insert_header((header::CACHE_CONTROL, "no-store")).json(report)
}

async fn metrics(observability: Data<Observability>) -> HttpResponse {
    HttpResponse::Ok().content_type(METRICS_TYPE).body(observability.metrics.render())
}

/// Serves the operations routes alone: for nodes without an HTTP server of their own.
pub fn serve(listen: SocketAddr, observability: Observability) -> io::Result<HttpHandle> {
    let (listener, _) = bind(listen)?;
    let metrics = observability.metrics.scope("operations");
    let port = PortOptions::new("operations", PORT_WEIGHT, MAX_CONNECTIONS_PER_ADDRESS);
    let port = observability.connections.port(port);
    let options = ServerOptions {
        workers: 1,
        max_connections: port.per_worker(1, MAX_CONNECTIONS),
        shutdown: SHUTDOWN,
        admit: Some(admission(port, &metrics)),
        metrics,
        deadlines: Deadlines::default(),
    };
    serve_on(listener, options, move || {
        let observability = observability.clone();
        App::new()
            .configure(move |config| routes(config, &observability))
            .service(resource("/actors").route(get().to(actors)))
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::{ActorId, Policy, Process, Supervisor};

    async fn fetch(addr: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn readyz_follows_conditions_and_drain_while_healthz_stays_ok() {
        let process = Process::default();
        let bus = process.readiness.condition("bus", "not connected");
        let drain = process.drain.clone();
        let observability = process.observability();
        observability.metrics.counter("things", crate::metrics::Unit::Count, "Things").inc();
        let server = serve(([127, 0, 0, 1], 0).into(), observability).unwrap();
        let addr = server.addr();

        let answer = fetch(addr, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("not connected"), "{answer}");
        bus.hold();
        assert!(fetch(addr, "/readyz").await.starts_with("HTTP/1.1 200"));
        drain.start("test");
        let answer = fetch(addr, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("draining"), "{answer}");
        assert!(fetch(addr, "/healthz").await.starts_with("HTTP/1.1 200"));
        assert!(fetch(addr, "/metrics").await.contains("millrace_things_total 1"));
        server.stop().await;
    }
    #[tokio::test]
    async fn actors_route_lists_all_actors_or_those_of_one_kind() {
        let process = Process::default();
        let Process { metrics, drain, actors, .. } = &process;
        let supervisor = Supervisor::start("edge", metrics, drain, actors).unwrap();
        for (kind, id) in [("feed", "01J"), ("probe", "edge")] {
            let child = supervisor.spawn(ActorId::new(kind, id), Policy::once(), |context| async move {
                context.status.set_state("following");
                context.stop.cancelled().await;
                Ok(())
            });
            child.await.unwrap();
        }
        let server = serve(([127, 0, 0, 1], 0).into(), process.observability()).unwrap();
        let all = fetch(server.addr(), "/actors").await;
        assert!(all.contains("\"total\":2") && all.contains("\"kind\":\"probe\""), "{all}");
        let feeds = fetch(server.addr(), "/actors?kind=feed").await;
        assert!(feeds.contains("\"total\":1") && feeds.contains("\"id\":\"01J\""), "{feeds}");
        assert!(!feeds.contains("probe"), "{feeds}");
        server.stop().await;
        assert!(supervisor.stop().await);
    }
}
