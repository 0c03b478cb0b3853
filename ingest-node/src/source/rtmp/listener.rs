//! The RTMP and RTMPS listeners: one task per connection, whose panic ends that connection alone.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::FutureExt;
use millrace_runtime::actors::{ActorContext, Order};
use millrace_runtime::metrics::Counter;
use millrace_runtime::supervisor::panic_message;
use millrace_runtime::{Connections, Port, PortOptions};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::connection;
use super::tls::Certificate;
use crate::admission::ConnectionPermit;
use crate::context::Context;
use crate::limits;

/// A bound listener of RTMP or RTMPS.
pub(crate) struct Listener {
    socket: TcpListener,
    addr: SocketAddr,
    certificate: Option<Arc<Certificate>>,
    port: Port,
}

/// Time without traffic after which the kernel probes the peer's host. A lost publisher is noticed earlier, by the idle
/// time-out; a half-open handshake by these probes.
const KEEPALIVE: Duration = Duration::from_secs(30);

impl Listener {
    /// Binds `addr`, for RTMPS if there is a certificate. An error names the address.
    pub(crate) fn bind(
        addr: SocketAddr,
        certificate: Option<Arc<Certificate>>,
        connections: &Connections,
    ) -> Result<Self> {
        let socket = listen(addr).with_context(|| format!("cannot listen on {addr}"))?;
        let socket = TcpListener::from_std(socket)?;
        // The limit per address is the limiter's, which counts both protocols together.
        let name = if certificate.is_some() { "rtmps" } else { "rtmp" };
        let port = connections.port(PortOptions::new(name, limits::PORT_WEIGHT, 0));
        Ok(Self { addr: socket.local_addr()?, socket, certificate, port })
    }

    /// Returns the address, with the port the system chose for port 0.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the protocol's name: `rtmp` or `rtmps`.
    pub(crate) fn protocol(&self) -> &'static str {
        if self.certificate.is_some() { "rtmps" } else { "rtmp" }
    }

    /// Accepts connections until the node or this listener drains. Connections that were accepted go on.
    pub(crate) async fn run(self: Arc<Self>, context: Arc<Context>, actor: ActorContext) -> Result<()> {
        let mut orders = actor.orders();
        actor.status.set_state(format!("accepting on {}", self.addr));
        loop {
            let accepted = tokio::select! {
                () = actor.stop.cancelled() => return Ok(()),
                received = orders.recv() => {
                    if *received.order() == Order::Drain {
                        tracing::info!(addr = %self.addr, "listener drained by order; it accepts no more connections");
                        received.accept();
                        return Ok(());
                    }
                    continue;
                }
                () = context.drain.draining() => return Ok(()),
                accepted = self.socket.accept() => accepted,
            };
            match accepted {
                Ok((socket, peer)) => self.accept(socket, peer, &context),
                Err(error) => {
                    tracing::warn!(%error, pause = ?limits::ACCEPT_PAUSE, "accept failed; the listener pauses");
                    tokio::time::sleep(limits::ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn accept(&self, socket: TcpStream, peer: SocketAddr, context: &Arc<Context>) {
        context.metrics.accepted.inc();
        let permit = match context.limiter.admit(peer.ip()) {
            Ok(permit) => permit,
            Err(limit) => {
                context.metrics.turned_away.with(&[limit.as_str()]).inc();
                tracing::debug!(%peer, limit = limit.as_str(), "connection limit reached; connection closed");
                return;
            }
        };
        let place = match self.port.admit(peer.ip()) {
            Ok(place) => place,
            Err(limit) => {
                context.metrics.turned_away.with(&[limit.as_str()]).inc();
                return;
            }
        };
        let options = socket.set_nodelay(true).and_then(|()| {
            SockRef::from(&socket).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))
        });
        if let Err(error) = options {
            tracing::debug!(%peer, %error, "socket options cannot be set; the connection goes on without");
        }
        let tls = self.certificate.as_ref().map(|certificate| certificate.acceptor());
        let work = serve(socket, peer, tls, permit, context.clone());
        let work = connection::spanned(work, peer, self.protocol());
        let work = contain_panic(work, peer, context.metrics.panics.clone());
        tokio::spawn(async move {
            work.await;
            drop(place);
        });
    }
}

/// Counts a panic and lets it end its connection alone. Everything the connection holds is freed by unwinding.
async fn contain_panic(work: impl Future<Output = ()>, peer: SocketAddr, panics: Counter) {
    if let Err(panic) = AssertUnwindSafe(work).catch_unwind().await {
        panics.inc();
        tracing::error!(%peer, panic = panic_message(&*panic), "a connection panicked and was closed");
    }
}

async fn serve(
    socket: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    permit: ConnectionPermit,
    context: Arc<Context>,
) {
    let Some(tls) = tls else {
        return connection::serve(socket, peer, "rtmp", permit, context).await;
    };
    let limit = context.config.rtmp_limits().handshake;
    match millrace_runtime::timeout(limit, tls.accept(socket)).await {
        Ok(Ok(socket)) => connection::serve(socket, peer, "rtmps", permit, context).await,
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed; connection closed"),
        Err(_) => tracing::debug!(?limit, "TLS handshake timed out; connection closed"),
    }
}

fn listen(addr: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted node takes its port back at once.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(limits::LISTEN_BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use millrace_runtime::Metrics;
    use millrace_runtime::metrics::Unit;

    use super::*;

    #[tokio::test]
    async fn a_connections_panic_is_counted_and_contained() {
        let panics = Metrics::new().counter("panics", Unit::Count, "Panics");
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        contain_panic(async { panic!("on purpose") }, peer, panics.clone()).await;
        contain_panic(async {}, peer, panics.clone()).await;
        assert_eq!(panics.get(), 1);
    }

    #[tokio::test]
    async fn listener_names_the_address_it_cannot_bind() {
        let connections = Connections::of_process();
        let first = Listener::bind(([127, 0, 0, 1], 0).into(), None, &connections).unwrap();
        let error = Listener::bind(first.addr(), None, &connections).err().map(|error| format!("{error:#}"));
        assert!(error.is_some_and(|error| error.contains(&first.addr().to_string())));
    }
}
