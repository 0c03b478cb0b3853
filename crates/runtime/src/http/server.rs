//! The HTTP server of a node: listener, deadlines of every state of a connection, and a graceful end.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_http::body::MessageBody;
use actix_http::error::DispatchError;
use actix_http::{HttpService, KeepAlive, Protocol, Request, Response};
use actix_server::{Server, ServerHandle};
use actix_service::{IntoServiceFactory, Service, ServiceFactory, ServiceFactoryExt, map_config};
use actix_web::HttpRequest;
use actix_web::dev::AppConfig;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::connection::{Connection, Permit, Stream};
use super::cut::Cut;
use super::exchange::ExchangeFactory;
use super::progress::Deadlines;
use crate::LogLimit;
use crate::metrics::{Counter, Metrics, Unit};

/// The time in which a client must close a connection after the server has ended it.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);

/// Decides whether an address may connect; `None` closes its connection unread.
pub type Admit = Arc<dyn Fn(IpAddr) -> Option<Permit> + Send + Sync>;

/// The settings of a server that are not the same for all.
#[derive(Clone)]
pub struct ServerOptions {
    /// The number of worker threads; 0 stands for one per core.
    pub workers: usize,
    /// Connections that one worker holds; further ones wait in the listen queue.
    pub max_connections: usize,
    /// The time in which a drain lets open answers finish, in whole seconds.
    pub shutdown: Duration,
    /// The metrics of the node, where the server counts the connections that it ends.
    pub metrics: Metrics,
    /// The decision about each new connection, if there is one.
    pub admit: Option<Admit>,
    /// The deadlines of connections.
    pub deadlines: Deadlines,
}

impl fmt::Debug for ServerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerOptions").field("workers", &self.workers).finish_non_exhaustive()
    }
}

/// A running HTTP server and the address it listens on.
#[derive(Debug)]
pub struct HttpHandle {
    addr: SocketAddr,
    handle: ServerHandle,
    task: JoinHandle<io::Result<()>>,
}

impl HttpHandle {
    /// Returns the address the server listens on, with the port that the system chose for port 0.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops accepting, and returns when open requests are finished or the server's shutdown time is over.
    pub async fn stop(self) {
        self.handle.stop(true).await;
        if let Ok(Err(error)) = self.task.await {
            tracing::warn!(%error, "HTTP server ended with an error");
        }
    }
}

/// Binds a listening socket and returns it with the address it got; an error names the address.
pub fn bind(listen: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let located = |e: io::Error| io::Error::new(e.kind(), format!("cannot listen on {listen}: {e}"));
    let listener = TcpListener::bind(listen).map_err(located)?;
    listener.set_nonblocking(true).map_err(located)?;
    let addr = listener.local_addr().map_err(located)?;
    Ok((listener, addr))
}

/// Returns the connection that a request came on; `None` in a server that [`listen`] has not made.
pub fn connection(request: &HttpRequest) -> Option<Arc<Connection>> {
    request.conn_data::<Arc<Connection>>().cloned()
}

/// The ends of connections, counted and logged.
struct Ends {
    cut: [Counter; Cut::ALL.len()],
    malformed: Counter,
    log: LogLimit,
}

impl Ends {
    fn new(metrics: &Metrics) -> Self {
        let help = "Connections of HTTP clients that the server ended, by reason";
        let cut = metrics.counters("http_connections_cut", Unit::Count, help, &["reason"]);
        let malformed =
            metrics.counter("http_malformed_requests", Unit::Count, "Requests that are not HTTP/1.1");
        Self { cut: Cut::ALL.map(|reason| cut.with(&[reason.as_str()])), malformed, log: LogLimit::default() }
    }

    fn note(&self, connection: &Connection, error: &DispatchError) {
        if let Some(reason) = connection.reason() {
            self.cut[reason as usize - 1].inc();
        }
        if let DispatchError::Parse(error) = error {
            self.malformed.inc();
            if let Some(suppressed) = self.log.due() {
                tracing::debug!(%error, suppressed, "malformed HTTP request; it was answered with an error and its connection closed");
            }
        }
    }
}

/// Serves the application that `factory` makes for each worker on a bound listener.
pub fn listen<F, I, S, B>(listener: TcpListener, options: ServerOptions, factory: F) -> io::Result<HttpHandle>
where
    F: Fn() -> I + Send + Clone + 'static,
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Error: Into<actix_web::Error> + 'static,
    S::InitError: fmt::Debug,
    S::Response: Into<Response<B>> + 'static,
    <S::Service as Service<Request>>::Future: 'static,
    S::Service: 'static,
    B: MessageBody + 'static,
{
    let addr = listener.local_addr()?;
    let ServerOptions { workers, max_connections, shutdown, metrics, admit, deadlines } = options;
    let ends = Arc::new(Ends::new(&metrics));
    let mut server = Server::build()
        .disable_signals()
        .max_concurrent_connections(max_connections)
        .shutdown_timeout(shutdown.as_secs());
    if workers > 0 {
        server = server.workers(workers);
    }
    let ending = server.graceful_shutdown_signal();
    let server = server.listen("http", listener, move || {
        let ending = ending.clone();
        let application = factory().into_factory().map_err(|error| error.into().error_response());
        let http = HttpService::build()
            .graceful_shutdown_signal(move || {
                let ending = ending.clone();
                async move { ending.notified().await }
            })
            // The socket has these two deadlines (`progress`): actix-http's count the time for which the process is stopped.
            .keep_alive(KeepAlive::Os)
            .client_request_timeout(Duration::ZERO)
            .client_disconnect_timeout(CLOSE_DEADLINE)
            .local_addr(addr)
            .on_connect_ext(|stream: &Stream, data| {
                data.insert(stream.connection().clone());
            })
            .finish(ExchangeFactory::new(map_config(application, |()| AppConfig::default())));
        let (admit, ends) = (admit.clone(), ends.clone());
        ServeConnection { http, admit, ends, deadlines }
    })?;
    let server = server.run();
    Ok(HttpHandle { addr, handle: server.handle(), task: tokio::spawn(server) })
}

/// Makes the service of each worker that takes accepted sockets.
struct ServeConnection<H> {
    http: H,
    admit: Option<Admit>,
    ends: Arc<Ends>,
    deadlines: Deadlines,
}

type Boxed<T> = Pin<Box<dyn Future<Output = T>>>;
/// What actix-http takes: a socket, its protocol and the peer's address.
type Accepted = (Stream, Protocol, Option<SocketAddr>);

impl<H> ServiceFactory<TcpStream> for ServeConnection<H>
where
    H: ServiceFactory<Accepted, Config = (), Response = (), Error = DispatchError>,
    H::Future: 'static,
    <H::Service as Service<Accepted>>::Future: 'static,
{
    type Response = ();
    type Error = ();
    type Config = ();
    type Service = ServeConnectionService<H::Service>;
    type InitError = H::InitError;
    type Future = Boxed<Result<Self::Service, Self::InitError>>;

    fn new_service(&self, (): ()) -> Self::Future {
        let http = self.http.new_service(());
        let (admit, ends, deadlines) = (self.admit.clone(), self.ends.clone(), self.deadlines);
        Box::pin(async move { Ok(ServeConnectionService { http: http.await?, admit, ends, deadlines }) })
    }
}

struct ServeConnectionService<H> {
    http: H,
    admit: Option<Admit>,
    ends: Arc<Ends>,
    deadlines: Deadlines,
}

impl<H> Service<TcpStream> for ServeConnectionService<H>
where
    H: Service<Accepted, Response = (), Error = DispatchError>,
    H::Future: 'static,
{
    type Response = ();
    type Error = ();
    type Future = Boxed<Result<(), ()>>;

    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<Result<(), ()>> {
        self.http.poll_ready(context).map_err(drop)
    }

    fn call(&self, socket: TcpStream) -> Self::Future {
        // A client that has gone already has no address, and nothing to be served.
        let Ok(peer) = socket.peer_addr() else { return Box::pin(async { Err(()) }) };
        let permit = match &self.admit {
            None => None,
            Some(admit) => match admit(peer.ip()) {
                None => return Box::pin(async { Err(()) }),
                permit => permit,
            },
        };
        let stream = Stream::new(socket, self.deadlines, permit);
        let (connection, ends) = (stream.connection().clone(), self.ends.clone());
        let served = self.http.call((stream, Protocol::Http1, Some(peer)));
        Box::pin(async move { served.await.map_err(|error| ends.note(&connection, &error)) })
    }
}
