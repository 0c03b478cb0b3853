//! The I/O of one RTMP connection: a socket, the `millrace_rtmp::ServerSession` that reads and writes it, and the timer
//! of its deadlines.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use millrace_rtmp::{ErrorKind, Event, Phase, RtmpError, ServerSession};
use millrace_wire::close_reason::CloseReason;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, Sleep};

use crate::context::Context;
use crate::limits;
use crate::session::source::PublishEnd;

/// A byte stream that RTMP runs over: TCP, or TLS on it.
pub(super) trait Socket: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Socket for T {}

/// The timer is never set shorter: the node's clock counts whole milliseconds, so when the timer fires the deadline may
/// still be a fraction of one ahead.
const SHORTEST_TIMER: Duration = Duration::from_millis(5);

impl From<RtmpError> for PublishEnd {
    fn from(error: RtmpError) -> Self {
        let reason = match error.kind {
            ErrorKind::TimedOut(Phase::Media | Phase::Ping) => CloseReason::Idle,
            ErrorKind::TimedOut(_) => CloseReason::Timeout,
            ErrorKind::RateExceeded { .. } => CloseReason::MessageRateExceeded,
            _ => CloseReason::ProtocolError,
        };
        Self { reason, text: error.to_string() }
    }
}

fn connection_lost(error: &std::io::Error) -> PublishEnd {
    PublishEnd { reason: CloseReason::ConnectionLost, text: error.to_string() }
}

/// A socket that speaks RTMP.
pub(super) struct Transport<S> {
    socket: S,
    context: Arc<Context>,
    /// The state machine of the RTMP connection.
    pub(super) rtmp: ServerSession,
    buf: BytesMut,
    /// The rest of the answer being sent: a cancelled write may have sent a part of it.
    unsent: Bytes,
    /// One timer for the connection, moved when it fires or is due sooner: the deadline moves with every frame.
    timer: Pin<Box<Sleep>>,
    /// The time that the timer is set to.
    armed: Duration,
    /// The deadline has passed, and the socket is read once more before that is judged.
    second_look: bool,
}

impl<S: Socket> Transport<S> {
    /// Wraps an accepted socket; the handshake comes first.
    pub(super) fn new(socket: S, context: Arc<Context>) -> Self {
        let now = context.now();
        let mut transport = Self {
            rtmp: ServerSession::new(context.config.rtmp_limits(), now),
            buf: BytesMut::new(),
            unsent: Bytes::new(),
            timer: Box::pin(tokio::time::sleep(SHORTEST_TIMER)),
            armed: now,
            second_look: false,
            socket,
            context,
        };
        transport.arm();
        transport
    }

    /// Returns the next event of what was read.
    pub(super) fn next_event(&mut self) -> Result<Option<Event>, PublishEnd> {
        Ok(self.rtmp.next_event(self.context.now(), &mut self.buf)?)
    }

    /// Sends pending answers, then reads once or runs into a deadline; returns the bytes read. Cancel safe.
    pub(super) async fn receive(&mut self) -> Result<usize, PublishEnd> {
        self.flush().await?;
        if self.rtmp.deadline().is_some_and(|due| due < self.armed) {
            self.arm();
        }
        self.rtmp.prepare_read(&mut self.buf);
        tokio::select! {
            // The timer is polled only when no data is waiting.
            biased;
            read = self.socket.read_buf(&mut self.buf) => match read {
                Ok(0) => Err(CloseReason::ConnectionLost.into()),
                Ok(bytes) => {
                    self.second_look = false;
                    Ok(bytes)
                }
                Err(error) => Err(connection_lost(&error)),
            },
            () = &mut self.timer => {
                self.on_timer()?;
                Ok(0)
            }
        }
    }

    /// Judges the deadline. One that has passed is judged at the second look: timers fire before the process has
    /// learned which sockets have data when both happened while it was stopped.
    fn on_timer(&mut self) -> Result<(), PublishEnd> {
        if self.second_look {
            self.second_look = false;
            self.rtmp.handle_timeout(self.context.now())?;
        } else if self.rtmp.deadline().is_some_and(|due| due <= self.context.now()) {
            self.second_look = true;
            self.armed = self.context.now() + limits::SECOND_LOOK;
            self.timer.as_mut().reset(Instant::now() + limits::SECOND_LOOK);
            return Ok(());
        }
        self.arm();
        Ok(())
    }

    /// Sends pending answers, for at most [`limits::ANSWER_WRITE`] each. Cancel safe.
    pub(super) async fn flush(&mut self) -> Result<(), PublishEnd> {
        loop {
            if self.unsent.is_empty() {
                match self.rtmp.poll_transmit() {
                    Some(bytes) => self.unsent = bytes,
                    None => return Ok(()),
                }
            }
            let written = async {
                while !self.unsent.is_empty() {
                    if self.socket.write_buf(&mut self.unsent).await? == 0 {
                        return Err(std::io::ErrorKind::WriteZero.into());
                    }
                }
                self.socket.flush().await
            };
            match tokio::time::timeout(limits::ANSWER_WRITE, written).await {
                Ok(written) => written.map_err(|error| connection_lost(&error))?,
                Err(_) => return Err(CloseReason::Timeout.into()),
            }
        }
    }

    /// Closes the connection after its last answer, when the peer has closed, or after [`limits::CLOSE_LINGER`]. Bytes of
    /// the peer are thrown away, [`limits::LINGER_BYTES`] of them at most.
    pub(super) async fn finish(mut self) {
        self.buf = BytesMut::new();
        let linger = async {
            if self.flush().await.is_err() || self.socket.shutdown().await.is_err() {
                return;
            }
            let mut ignored = vec![0; limits::LINGER_READ_BYTES];
            let mut left = limits::LINGER_BYTES;
            while let Ok(count @ 1..) = self.socket.read(&mut ignored).await {
                if count >= left {
                    return;
                }
                left -= count;
            }
        };
        let _ = tokio::time::timeout(limits::CLOSE_LINGER, linger).await;
    }

    fn arm(&mut self) {
        let now = self.context.now();
        self.armed = self.rtmp.deadline().unwrap_or(now + limits::IDLE_TIMER);
        let left = self.armed.saturating_sub(now).max(SHORTEST_TIMER);
        self.timer.as_mut().reset(Instant::now() + left);
    }
}
