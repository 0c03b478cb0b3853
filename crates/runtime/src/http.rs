//! `/metrics`, `/healthz` and `/readyz`, for a server of their own or as routes of a node's server.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use actix_web::dev::{Server, ServerHandle};
use actix_web::http::header;
use actix_web::web::{Data, ServiceConfig, get, head, resource};
use actix_web::{App, HttpResponse, HttpServer};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::{Drain, Metrics, Readiness};

/// What the exposition format is called (OpenMetrics 1.0).
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Seconds a graceful stop waits for open requests.
const SHUTDOWN_S: u64 = 5;

/// A scraper or probe that does not finish its request in this time is cut off.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// What the observability routes show.
#[derive(Debug, Clone)]
pub struct Observability {
    /// Everything measured in this process.
    pub metrics: Metrics,
    /// The readiness conditions.
    pub readiness: Readiness,
    /// A draining node is not ready.
    pub drain: Drain,
}

/// Adds the three routes to an actix-web application.
pub fn routes(config: &mut ServiceConfig, observability: &Observability) {
    config
        .app_data(Data::new(observability.clone()))
        .service(resource("/healthz").route(get().to(healthz)).route(head().to(healthz)))
        .service(resource("/readyz").route(get().to(readyz)).route(head().to(readyz)))
        .service(resource("/metrics").route(get().to(metrics)));
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

/// A running HTTP server.
#[derive(Debug)]
pub struct HttpHandle {
    addr: SocketAddr,
    handle: ServerHandle,
    task: JoinHandle<io::Result<()>>,
}

impl HttpHandle {
    /// Drives a server built by a node on the current tokio runtime.
    pub fn spawn(addr: SocketAddr, server: Server) -> Self {
        Self { addr, handle: server.handle(), task: tokio::spawn(server) }
    }

    /// The address it listens on, with the port the system chose for port 0.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops accepting, finishes open requests within the server's shutdown time, returns when done.
    pub async fn stop(self) {
        self.handle.stop(true).await;
        if let Ok(Err(error)) = self.task.await {
            tracing::warn!(%error, "HTTP server ended with an error");
        }
    }
}

/// Binds a listening socket and says which address it got; an error names the address.
pub fn bind(listen: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let located = |e: io::Error| io::Error::new(e.kind(), format!("cannot listen on {listen}: {e}"));
    let listener = TcpListener::bind(listen).map_err(located)?;
    listener.set_nonblocking(true).map_err(located)?;
    let addr = listener.local_addr().map_err(located)?;
    Ok((listener, addr))
}

/// Serves the three routes alone: for nodes without an HTTP server of their own.
pub fn serve(listen: SocketAddr, observability: Observability) -> io::Result<HttpHandle> {
    let (listener, addr) = bind(listen)?;
    let server = HttpServer::new(move || {
        let observability = observability.clone();
        App::new().configure(move |config| routes(config, &observability))
    })
    .workers(1)
    .disable_signals()
    .client_request_timeout(REQUEST_TIMEOUT)
    .shutdown_timeout(SHUTDOWN_S)
    .listen(listener)?
    .run();
    Ok(HttpHandle::spawn(addr, server))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn fetch(addr: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn readiness_means_it_and_health_stays_during_drain() {
        let readiness = Readiness::new();
        let bus = readiness.condition("bus", "not connected");
        let drain = Drain::new();
        let observability = Observability { metrics: Metrics::new(), readiness, drain: drain.clone() };
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
}
