//! Accepting connections: one task per connection, whose panic ends that connection alone.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::FutureExt;
use millrace_runtime::metrics::Counter;
use millrace_runtime::supervisor::panic_message;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::connection;
use crate::gate::Place;
use crate::limits;
use crate::node::Shared;

/// A bound listener.
pub(crate) struct Listener {
    socket: TcpListener,
    addr: SocketAddr,
    tls: Option<TlsAcceptor>,
}

/// Probes of a silent peer's host: a pulled cable is noticed by the idle time-out, a half-open handshake by these.
const KEEPALIVE: Duration = Duration::from_secs(30);

impl Listener {
    /// Binds `addr`; an error names it.
    pub(crate) fn bind(addr: SocketAddr, tls: Option<TlsAcceptor>) -> Result<Self> {
        let socket = listen(addr).with_context(|| format!("cannot listen on {addr}"))?;
        let socket = TcpListener::from_std(socket)?;
        Ok(Self { addr: socket.local_addr()?, socket, tls })
    }

    /// The address, with the port the system chose for port 0.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    fn protocol(&self) -> &'static str {
        if self.tls.is_some() { "rtmps" } else { "rtmp" }
    }

    /// Accepts until the node drains.
    pub(crate) async fn run(self: Arc<Self>, shared: Arc<Shared>, stop: CancellationToken) -> Result<()> {
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = shared.drain.draining() => return Ok(()),
                accepted = self.socket.accept() => accepted,
            };
            match accepted {
                Ok((socket, peer)) => self.accepted(socket, peer, &shared),
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(limits::ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn accepted(&self, socket: TcpStream, peer: SocketAddr, shared: &Arc<Shared>) {
        shared.metrics.accepted.inc();
        let place = match shared.gate.enter(peer.ip()) {
            Ok(place) => place,
            Err(full) => {
                shared.metrics.turned_away.with(&[full.as_str()]).inc();
                tracing::debug!(%peer, limit = full.as_str(), "connection turned away");
                return;
            }
        };
        let options = socket.set_nodelay(true).and_then(|()| {
            SockRef::from(&socket).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))
        });
        if let Err(error) = options {
            tracing::debug!(%peer, %error, "socket options");
        }
        let work = serve(socket, peer, self.tls.clone(), place, shared.clone());
        let work = connection::spanned(work, peer, self.protocol());
        tokio::spawn(contained(work, peer, shared.metrics.panics.clone()));
    }
}

/// A panic ends its connection alone, and is counted. Everything a connection holds is freed by unwinding.
async fn contained(work: impl Future<Output = ()>, peer: SocketAddr, panics: Counter) {
    if let Err(panic) = AssertUnwindSafe(work).catch_unwind().await {
        panics.inc();
        tracing::error!(%peer, panic = panic_message(&*panic), "a connection panicked and was closed");
    }
}

async fn serve(
    socket: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    place: Place,
    shared: Arc<Shared>,
) {
    let Some(tls) = tls else {
        return connection::serve(socket, peer, "rtmp", place, shared).await;
    };
    let limit = shared.config.rtmp_limits().handshake;
    match tokio::time::timeout(limit, tls.accept(socket)).await {
        Ok(Ok(socket)) => connection::serve(socket, peer, "rtmps", place, shared).await,
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => tracing::debug!("TLS handshake timed out"),
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
    async fn a_panic_is_counted_and_goes_no_further() {
        let panics = Metrics::new().counter("panics", Unit::Count, "Panics");
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        contained(async { panic!("on purpose") }, peer, panics.clone()).await;
        contained(async {}, peer, panics.clone()).await;
        assert_eq!(panics.get(), 1);
    }

    #[tokio::test]
    async fn an_address_in_use_is_named() {
        let first = Listener::bind(([127, 0, 0, 1], 0).into(), None).unwrap();
        let error = Listener::bind(first.addr(), None).err().map(|error| format!("{error:#}"));
        assert!(error.is_some_and(|error| error.contains(&first.addr().to_string())));
    }
}
