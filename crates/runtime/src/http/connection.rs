//! A server's connection: the socket, which ends itself when the client makes no progress, and the handle by which others
//! end it.

use std::any::Any;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::cut::Cut;
use super::progress::{Deadlines, Handling, Progress};
use crate::running_time::running_time;

/// The time between a deadline and the end of the connection. After the process was stopped for a while (a paused virtual
/// machine), timers run out before the sockets are found readable; within this time they are.
const SECOND_LOOK: Duration = Duration::from_millis(50);

/// The answer to a first request whose head does not come in time.
const REQUEST_TIMEOUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// Returns the time for which the process has been running.
fn running() -> Duration {
    Duration::from_millis(running_time().now_ms)
}

/// The right of a client to be connected; it is held until the connection has ended.
pub type Permit = Box<dyn Any + Send>;

/// The handle of one connection, which the connection's requests carry; see [`super::connection`].
#[derive(Debug, Default)]
pub struct Connection {
    /// The reason to end the connection, 0 for none.
    cut: AtomicU8,
    running: AtomicBool,
    unhandled: AtomicBool,
    unread_body: AtomicBool,
    requests: AtomicU32,
    waker: AtomicWaker,
}

impl Connection {
    /// Ends the connection now: what is not sent of an answer is not sent any more. The first reason counts.
    pub fn cut(&self, reason: Cut) {
        let order = Ordering::Relaxed;
        let _ = self.cut.compare_exchange(0, reason as u8, order, order);
        self.waker.wake();
    }

    /// Returns the reason why the connection was ended, once it was.
    pub fn reason(&self) -> Option<Cut> {
        Cut::from_u8(self.cut.load(Ordering::Relaxed))
    }

    /// Notes that the handler of a request begins.
    pub(super) fn begin(&self) {
        self.running.store(true, Ordering::Relaxed);
        self.unhandled.store(false, Ordering::Relaxed);
        self.unread_body.store(false, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that the handler has ended.
    pub(super) fn end(&self) {
        self.running.store(false, Ordering::Relaxed);
    }

    /// Notes that the handler left a part of its request's body unread.
    pub(super) fn leave_body(&self) {
        self.unread_body.store(true, Ordering::Relaxed);
    }

    fn received(&self) {
        // Bytes that come while a handler runs are the rest of its request, or a request that is handled next.
        if !self.running.load(Ordering::Relaxed) {
            self.unhandled.store(true, Ordering::Relaxed);
        }
    }

    fn handling(&self) -> Handling {
        Handling {
            running: self.running.load(Ordering::Relaxed),
            unhandled: self.unhandled.load(Ordering::Relaxed),
            unread_body: self.unread_body.load(Ordering::Relaxed),
            requests: self.requests.load(Ordering::Relaxed),
        }
    }
}

/// The socket of a connection.
pub(super) struct Stream {
    socket: TcpStream,
    connection: Arc<Connection>,
    progress: Progress,
    look_every: Duration,
    /// The next look at the connection; made when the connection first waits.
    look: Option<Pin<Box<Sleep>>>,
    /// A look found a reason to end the connection, and the next one decides.
    suspected: bool,
    /// The right to be connected, which counts until this is dropped.
    _permit: Option<Permit>,
}

impl Stream {
    /// Wraps an accepted socket.
    pub(super) fn new(socket: TcpStream, deadlines: Deadlines, permit: Option<Permit>) -> Self {
        // A part's last bytes must not wait for the acknowledgement of the ones before them (Nagle's algorithm).
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY could not be set; the end of an answer may come a round trip later");
        }
        let (progress, look_every) = (Progress::new(deadlines, running()), deadlines.look);
        let connection = Arc::default();
        Self { socket, connection, progress, look_every, look: None, suspected: false, _permit: permit }
    }

    /// Returns the connection's handle.
    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Called when the socket has nothing to read or no room to write: ends the connection if it is to end, and waits
    /// for the next look otherwise.
    fn poll_cut<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        self.connection.waker.register(context.waker());
        let every = self.look_every;
        let look = self.look.get_or_insert_with(|| Box::pin(tokio::time::sleep(every)));
        while self.connection.reason().is_none() && look.as_mut().poll(context).is_ready() {
            let handling = self.connection.handling();
            let found = self.progress.tick(running(), handling);
            let next = match found {
                Some(cut) if self.suspected => {
                    self.connection.cut(cut);
                    every
                }
                Some(_) => SECOND_LOOK,
                None => every,
            };
            self.suspected = found.is_some();
            look.as_mut().reset(Instant::now() + next);
        }
        match self.connection.reason() {
            None => Poll::Pending,
            Some(cut) => {
                match cut {
                    // Nothing has been answered yet on this connection, so that an answer fits here.
                    Cut::SlowHead if self.connection.handling().requests == 0 => {
                        // A client that does not even take these bytes gets none.
                        let _ = self.socket.try_write(REQUEST_TIMEOUT);
                    }
                    Cut::Idle => {}
                    _ => {
                        // A reset instead of an orderly end: the kernel gives up what the client does not read.
                        let _ = self.socket.set_zero_linger();
                    }
                }
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, cut.as_str())))
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let this = &mut *self;
        match Pin::new(&mut this.socket).poll_read(context, buffer) {
            Poll::Ready(result) => {
                if buffer.filled().len() > before {
                    this.progress.received();
                    this.connection.received();
                }
                Poll::Ready(result)
            }
            Poll::Pending => this.poll_cut(context),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        match Pin::new(&mut this.socket).poll_write(context, bytes) {
            Poll::Ready(result) => {
                if let Ok(count) = &result {
                    this.progress.accepted(*count);
                }
                Poll::Ready(result)
            }
            Poll::Pending => {
                this.progress.blocked();
                this.poll_cut(context)
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
