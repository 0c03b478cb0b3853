//! One RTMP connection: the shell around `millrace_rtmp::ServerSession`.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use millrace_rtmp::{
    ErrorKind, Event, Phase, PublishRequest, Rejection, RtmpError, ServerSession, StreamInfo,
};
use millrace_wire::close_reason::CloseReason;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, Sleep};
use tracing::Instrument;

use crate::closing::Closed;
use crate::gate::Place;
use crate::limits;
use crate::metrics::Held;
use crate::node::Shared;
use crate::publisher::{MediaError, Publisher};
use crate::rate::BitrateMeter;

/// What a connection runs over.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Socket for T {}

/// Why a connection ends, and what the encoder's user is told.
#[derive(Debug, Clone, PartialEq, Eq)]
struct End {
    reason: CloseReason,
    text: String,
}

impl From<CloseReason> for End {
    fn from(reason: CloseReason) -> Self {
        Self { reason, text: reason.text().to_owned() }
    }
}

impl From<RtmpError> for End {
    fn from(error: RtmpError) -> Self {
        let reason = match error.kind {
            ErrorKind::TimedOut(Phase::Media) => CloseReason::Idle,
            ErrorKind::TimedOut(_) => CloseReason::Timeout,
            _ => CloseReason::ProtocolError,
        };
        Self { reason, text: error.to_string() }
    }
}

impl From<std::io::Error> for End {
    fn from(error: std::io::Error) -> Self {
        Self { reason: CloseReason::ConnectionLost, text: error.to_string() }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.text)
    }
}

/// The refusal that carries a reason; `None`: the peer is told nothing.
fn rejection(reason: CloseReason) -> Option<Rejection> {
    let code = reason.rtmp_status()?;
    Rejection::ALL.into_iter().find(|rejection| rejection.code() == code)
}

/// Serves one connection to its end.
pub(crate) async fn serve<S: Socket>(
    socket: S,
    peer: SocketAddr,
    protocol: &'static str,
    place: Place,
    shared: Arc<Shared>,
) {
    let mut connection = Connection::new(socket, peer, protocol, place, shared);
    let end = connection.run().await;
    Box::pin(connection.finish(end)).await;
}

struct Connection<S> {
    socket: S,
    peer: SocketAddr,
    protocol: &'static str,
    place: Place,
    shared: Arc<Shared>,
    rtmp: ServerSession,
    buf: BytesMut,
    publisher: Option<Publisher>,
    closed: Closed,
    meter: BitrateMeter,
    started: Duration,
    /// When the timer looks at the deadline again.
    armed: Duration,
    bad_media: u32,
    _open: Held,
}

impl<S: Socket> Connection<S> {
    fn new(socket: S, peer: SocketAddr, protocol: &'static str, place: Place, shared: Arc<Shared>) -> Self {
        let now = shared.now();
        Self {
            rtmp: ServerSession::new(shared.config.rtmp_limits(), now),
            buf: BytesMut::new(),
            publisher: None,
            closed: Box::pin(shared.cutoff.clone().cancelled_owned()),
            meter: BitrateMeter::new(shared.config.max_bitrate),
            started: now,
            armed: now,
            bad_media: 0,
            _open: Held::new(&shared.metrics.connections),
            socket,
            peer,
            protocol,
            place,
            shared,
        }
    }

    /// Reads and answers until something ends the connection.
    async fn run(&mut self) -> End {
        // One timer for the connection, moved when it fires or is due sooner: a deadline moves on with every frame.
        let timer = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(timer);
        self.arm(timer.as_mut());
        loop {
            if let Err(end) = self.turn().await {
                return end;
            }
            if self.rtmp.deadline().is_some_and(|due| due < self.armed) {
                self.arm(timer.as_mut());
            }
            self.rtmp.prepare_read(&mut self.buf);
            let outcome = tokio::select! {
                // Whoever has sent something needs no look at the others; the runtime's budget ends a run of reads.
                biased;
                read = self.socket.read_buf(&mut self.buf) => self.received(read),
                () = &mut self.closed => Err(self.close_reason().into()),
                () = &mut timer => self.timed_out(timer.as_mut()),
            };
            if let Err(end) = outcome {
                return end;
            }
        }
    }

    /// Handles everything that was read, and sends what that answers.
    async fn turn(&mut self) -> Result<(), End> {
        while let Some(event) = self.next_event()? {
            self.event(event).await?;
        }
        self.flush().await
    }

    fn next_event(&mut self) -> Result<Option<Event>, End> {
        Ok(self.rtmp.next_event(self.shared.now(), &mut self.buf)?)
    }

    async fn flush(&mut self) -> Result<(), End> {
        while let Some(bytes) = self.rtmp.poll_transmit() {
            let written = async {
                self.socket.write_all(&bytes).await?;
                self.socket.flush().await
            };
            match tokio::time::timeout(limits::CLOSE_WRITE, written).await {
                Ok(written) => written?,
                Err(_) => return Err(CloseReason::Timeout.into()),
            }
        }
        Ok(())
    }

    fn received(&mut self, read: std::io::Result<usize>) -> Result<(), End> {
        let count = read?;
        if count == 0 {
            return Err(CloseReason::ConnectionLost.into());
        }
        self.shared.metrics.received.add(count as u64);
        if self.publisher.is_some() && !self.meter.add(self.shared.now(), count) {
            let rate = self.meter.bits_per_second() / 1_000;
            let text = format!("{rate} kb/s over ten seconds exceed the stream's bitrate limit");
            return Err(End { reason: CloseReason::BitrateExceeded, text });
        }
        Ok(())
    }

    fn close_reason(&self) -> CloseReason {
        self.publisher.as_ref().map_or(CloseReason::Draining, |publisher| publisher.closing().reason())
    }

    fn arm(&mut self, timer: std::pin::Pin<&mut Sleep>) {
        let now = self.shared.now();
        self.armed = self.rtmp.deadline().unwrap_or(now + limits::LOOK);
        // Not below a few milliseconds: the clock has them only.
        let left = self.armed.saturating_sub(now).max(Duration::from_millis(5));
        timer.reset(Instant::now() + left);
    }

    fn timed_out(&mut self, timer: std::pin::Pin<&mut Sleep>) -> Result<(), End> {
        self.rtmp.handle_timeout(self.shared.now())?;
        self.arm(timer);
        Ok(())
    }

    async fn event(&mut self, event: Event) -> Result<(), End> {
        match event {
            Event::ConnectRequested(info) => self.connect(&info.app, &info.flash_ver),
            // Boxed: it is the largest part of a connection's state, and silent connections never need it.
            Event::PublishRequested(request) => Box::pin(self.publish(request)).await,
            Event::Video { timestamp, data } => {
                let Some(publisher) = &mut self.publisher else { return Ok(()) };
                let before = publisher.frames().video;
                let result = publisher.video(timestamp, data);
                self.shared.metrics.video_frames.add(publisher.frames().video - before);
                self.media_taken(result)?;
                self.check_keyframes()
            }
            Event::Audio { timestamp, data } => {
                let Some(publisher) = &mut self.publisher else { return Ok(()) };
                let before = publisher.frames().audio;
                let result = publisher.audio(timestamp, data);
                self.shared.metrics.audio_frames.add(publisher.frames().audio - before);
                self.media_taken(result)
            }
            Event::Metadata { properties, .. } => {
                let Some(publisher) = &mut self.publisher else { return Ok(()) };
                let info = StreamInfo::from_properties(&properties);
                publisher.span().in_scope(|| tracing::debug!(?info, "metadata"));
                let result = publisher.metadata(&info);
                self.media_taken(result)
            }
            Event::Unpublished => {
                self.end_publisher(CloseReason::PublisherLeft);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn connect(&mut self, app: &str, encoder: &str) -> Result<(), End> {
        tracing::debug!(app, encoder, "connect");
        if self.shared.drain.is_draining() {
            let reason = CloseReason::Draining;
            self.rtmp.reject_connect(Rejection::ConnectRejected, reason.text())?;
            return Err(self.refused(reason));
        }
        if app != self.shared.config.app {
            let text = format!("publish to the application \"{}\"", self.shared.config.app);
            self.rtmp.reject_connect(Rejection::InvalidApp, &text)?;
            return Err(self.refused(CloseReason::WrongApp));
        }
        Ok(self.rtmp.accept_connect()?)
    }

    async fn publish(&mut self, request: PublishRequest) -> Result<(), End> {
        let opened = if self.shared.drain.is_draining() {
            Err(CloseReason::Draining)
        } else if request.app == self.shared.config.app {
            Publisher::open(&self.shared, &request.stream_key, self.peer.ip(), self.protocol).await
        } else {
            Err(CloseReason::WrongApp)
        };
        match opened {
            Ok(publisher) => {
                let limit = publisher.grant().limits.max_bitrate.min(self.shared.config.max_bitrate);
                self.meter = BitrateMeter::new(limit);
                {
                    let _entered = publisher.span().enter();
                    let first_msn = publisher.grant().first_msn.0;
                    tracing::info!(peer = %self.peer, protocol = self.protocol, first_msn, "on the air");
                }
                self.closed = publisher.closing().closed();
                self.publisher = Some(publisher);
                self.place.set_publishing(true);
                Ok(self.rtmp.accept_publish(self.shared.now())?)
            }
            Err(reason) => {
                if reason.is_guess() {
                    tokio::time::sleep(self.place.refused(self.shared.now())).await;
                }
                if let Some(why) = rejection(reason) {
                    self.rtmp.reject_publish(why, reason.text())?;
                }
                Err(self.refused(reason))
            }
        }
    }

    fn refused(&self, reason: CloseReason) -> End {
        self.shared.metrics.refused.with(&[reason.code()]).inc();
        tracing::info!(peer = %self.peer, reason = reason.code(), "publisher refused");
        reason.into()
    }

    /// One unreadable message is the encoder's hiccup; many, or a codec we don't take, end the session.
    fn media_taken(&mut self, result: Result<(), MediaError>) -> Result<(), End> {
        let Err(error) = result else {
            self.bad_media = 0;
            return Ok(());
        };
        self.shared.metrics.bad_media.inc();
        self.bad_media += 1;
        tracing::debug!(%error, "media message left out");
        if error.is_final() || self.bad_media > limits::MAX_BAD_MEDIA {
            return Err(End { reason: CloseReason::UnsupportedCodec, text: error.to_string() });
        }
        Ok(())
    }

    fn check_keyframes(&self) -> Result<(), End> {
        let limit = self.shared.config.max_keyframe_interval_s;
        let since = self.publisher.as_ref().and_then(Publisher::since_keyframe_s);
        if since.is_some_and(|seconds| seconds > i64::from(limit)) {
            let text = format!("no keyframe for {limit} s: set the encoder's keyframe interval to 2 s");
            return Err(End { reason: CloseReason::UnsupportedCodec, text });
        }
        Ok(())
    }

    fn end_publisher(&mut self, reason: CloseReason) {
        let Some(publisher) = self.publisher.take() else { return };
        self.closed = Box::pin(self.shared.cutoff.clone().cancelled_owned());
        self.place.set_publishing(false);
        let frames = publisher.frames();
        {
            let _entered = publisher.span().enter();
            let seconds = (self.shared.now().saturating_sub(self.started)).as_secs();
            let bytes = self.rtmp.bytes_received();
            tracing::info!(%reason, seconds, bytes, video = frames.video, audio = frames.audio, "off the air");
        }
        publisher.end(reason);
    }

    /// Ends the media first, then tells the peer why and waits until it has heard it.
    async fn finish(mut self, end: End) {
        tracing::debug!(%end, "connection ends");
        self.shared.metrics.closed.with(&[end.reason.code()]).inc();
        self.end_publisher(end.reason);
        if end.reason == CloseReason::ConnectionLost {
            return;
        }
        if let Some(why) = rejection(end.reason).filter(|_| !self.rtmp.is_finished())
            && self.rtmp.kick(why, &end.text).is_err()
        {
            return;
        }
        if self.flush().await.is_ok() {
            let goodbye = async {
                let _ = self.socket.shutdown().await;
                self.buf.clear();
                while matches!(self.socket.read_buf(&mut self.buf).await, Ok(count) if count > 0) {
                    self.buf.clear();
                }
            };
            let _ = tokio::time::timeout(limits::CLOSE_LINGER, goodbye).await;
        }
    }
}

/// Runs a connection under its span.
pub(crate) fn spanned(
    work: impl Future<Output = ()>,
    peer: SocketAddr,
    protocol: &'static str,
) -> impl Future<Output = ()> {
    work.instrument(tracing::info_span!("connection", protocol, %peer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_publisher_is_told_is_the_table_of_reasons() {
        for reason in CloseReason::ALL {
            let sent = rejection(*reason).map(Rejection::code);
            // The answer to an unpublish in order is the session's own.
            if *reason != CloseReason::PublisherLeft {
                assert_eq!(sent, reason.rtmp_status(), "{reason}");
            }
        }
        assert_eq!(rejection(CloseReason::UnknownKey), Some(Rejection::BadName));
        assert_eq!(rejection(CloseReason::Timeout), None);
    }
}
